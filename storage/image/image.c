#include "storage/image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/image/image_error.h"
#include "storage/image/vhd_file.h"

static const struct image_ops *const formats[] = { &image_raw, &image_vhd, &image_qcow2 };

const struct image_ops *image_ops_find(const char *format)
{
    for (unsigned i = 0; i < ARRAY_LEN(formats); i++)
        if (strcmp(formats[i]->format, format) == 0)
            return formats[i];
    return NULL;
}

struct error *image_detect(struct call *c, const char *path, const struct image_ops **ops_r)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    struct vhd_footer footer;
    bool end, copy;
    char magic[4];
    int64_t size;

    if (fd < 0)
        return image_failed(c->arena, "opening", path, errno);
    size = lseek(fd, 0, SEEK_END);
    if (size < 0)
        return image_failed(c->arena, "reading", path, errno);
    if (fd_pread_all(fd, magic, sizeof(magic), 0) == 0 && memcmp(magic, "QFI\xfb", 4) == 0)
        *ops_r = &image_qcow2;
    else if (vhd_file_footer(fd, size, &footer, &end, &copy) == NULL)
        *ops_r = &image_vhd;
    else
        *ops_r = &image_raw;
    return NULL;
}
