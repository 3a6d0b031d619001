/* VHD images: image_vhd of image.h, over vhd_file. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "storage/image/image.h"
#include "storage/image/image_error.h"
#include "storage/image/vhd_parent.h"

/* A new image: footer copy, header (and its other place), two rooms for locators, the BAT with room for the
 * largest one, the footer. Holes but for what is used. */
#define TABLE_AT ((int64_t)28672)
#define PAGE ((int64_t)4096)

static int open_image(const char *path, bool writing)
{
    int fd = open(path, (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static struct error *directory_sync(struct call *c, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *dir = slash == NULL ? "." : slash == path ? "/" : arena_strndup(c->arena, path, (size_t)(slash - path));
    int error = dir_sync(dir);

    return error == 0 ? NULL : image_failed(c->arena, "syncing", dir, error);
}

static struct error *size_check(struct call *c, const char *path, int64_t *size)
{
    if (*size <= 0 || *size > VHD_SIZE_MAX)
        return image_refused(c->arena, "%s: a VHD of %lld bytes is not possible, the most is %lld", path, (long long)*size, (long long)VHD_SIZE_MAX);
    *size = (*size + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
    return NULL;
}

static void id_new(uint8_t id[16])
{
    char text[UUID_LEN + 1];
    unsigned n = 0;

    uuid_new(text);
    for (const char *p = text; *p != '\0'; p++) {
        unsigned digit = *p >= 'a' ? (unsigned)(*p - 'a') + 10 : (unsigned)(*p - '0');

        if (*p == '-')
            continue;
        id[n / 2] = (uint8_t)(n % 2 == 0 ? digit << 4 : id[n / 2] | digit);
        n++;
    }
}

static const char *id_text(struct arena *arena, const uint8_t id[16])
{
    return arena_printf(arena, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", id[0], id[1], id[2], id[3], id[4], id[5],
                        id[6], id[7], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]);
}

/* 'n' unused entries at 'offset', up to the end of the sector. */
static struct error *put_unused(struct vhd_file *f, int64_t offset, int64_t n)
{
    int64_t length = (n * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
    AUTO_FREE uint8_t *ones = xcalloc(1, (size_t)length);
    int error;

    memset(ones, 0xff, (size_t)length);
    error = fd_pwrite_all(f->fd, ones, (size_t)length, offset);
    if (error == 0 && fdatasync(f->fd) != 0)
        error = -errno;
    if (error == 0 && offset + length > f->file_size)
        f->file_size = offset + length;
    return error == 0 ? NULL : image_failed(f->arena, "writing", f->path, error);
}

/* --- create ------------------------------------------------------------------------------------- */
static struct error *write_new(struct call *c, struct vhd_file *f, const char *parent, const char *parent_format)
{
    uint8_t id[16];

    id_new(id);
    vhd_footer_init(&f->footer, VHD_DYNAMIC, f->size, id, clock_wall(c->clock));
    vhd_header_init(&f->header);
    f->bitmap_size = vhd_bitmap_size(VHD_BLOCK_SIZE);
    f->header.table_offset = TABLE_AT;
    f->header.entries = (uint32_t)((f->size + VHD_BLOCK_SIZE - 1) / VHD_BLOCK_SIZE);
    f->footer.data_offset = VHD_FOOTER_SIZE + VHD_HEADER_SIZE; /* the header then takes the first place */
    f->data_end = TABLE_AT + VHD_TABLE_ROOM;
    if (parent != NULL)
        TRY(vhd_parent_link(f, parent, parent_format));
    TRY(put_unused(f, TABLE_AT, f->header.entries));
    TRY(vhd_file_put_header(f));
    return fsync(f->fd) == 0 ? NULL : image_failed(c->arena, "syncing", f->path, errno);
}

static struct error *vhd_create(struct call *c, const char *path, int64_t size, const char *parent, const char *parent_format)
{
    AUTO_FD fd = -1;
    struct error *error;

    TRY(size_check(c, path, &size));
    if (parent != NULL && parent[0] == '\0')
        parent = NULL;
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return image_failed(c->arena, "creating", path, errno);
    struct vhd_file f = { .arena = c->arena, .fd = fd, .path = path, .size = size };
    error = write_new(c, &f, parent, parent_format);
    if (error == NULL)
        error = directory_sync(c, path);
    if (error != NULL)
        unlink(path);
    return error;
}

/* --- info --------------------------------------------------------------------------------------- */
static struct error *vhd_info(struct call *c, const char *path, struct image_info *info)
{
    AUTO_FD fd = open_image(path, false);
    struct vhd_parent parent = { .path = "", .format = "" };
    struct vhd_file f;
    struct stat st;

    if (fd < 0)
        return image_failed(c->arena, "opening", path, fd);
    TRY(vhd_file_read(c->arena, fd, path, false, &f));
    if (f.footer.type == VHD_DIFFERENCING)
        TRY(vhd_parent_find(&f, &parent));
    if (fstat(fd, &st) != 0)
        return image_failed(c->arena, "reading", path, errno);
    *info = (struct image_info) {
        .format = "vhd",
        .virtual_size = f.size,
        .physical_size = (int64_t)st.st_blocks * 512,
        .parent = parent.path,
        .parent_format = parent.format,
        .hidden = f.footer.hidden,
        .uuid = id_text(c->arena, f.footer.id),
    };
    return NULL;
}

/* --- changes ------------------------------------------------------------------------------------ */
static struct error *open_for_change(struct call *c, const char *path, int *fd, struct vhd_file *f)
{
    *fd = open_image(path, true);
    if (*fd < 0)
        return image_failed(c->arena, "opening", path, *fd);
    return vhd_file_read(c->arena, *fd, path, true, f);
}

/* Makes the BAT 'entries' long, where it is or in a new place. blktap's batmap is given up: version 1.1 says
 * that there need not be one. */
static struct error *grow_table(struct vhd_file *f, uint32_t entries)
{
    int64_t old_length = (int64_t)f->header.entries * 4, new_length = ((int64_t)entries * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
    int64_t old_end = (old_length + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR, offset = f->header.table_offset;
    AUTO_FREE uint32_t *table = NULL;
    int error;

    if (vhd_footer_may_have_batmap(&f->footer))
        f->footer.creator_version = 0x00010001;
    if (new_length > old_end && !vhd_file_is_free(f, offset + old_end, new_length - old_end)) {
        int64_t room = new_length > VHD_TABLE_ROOM ? new_length : VHD_TABLE_ROOM;

        offset = vhd_file_room(f, NULL, 0, room);
    }
    table = xcalloc(1, (size_t)new_length);
    memset(table, 0xff, (size_t)new_length);
    for (uint32_t i = 0; i < f->header.entries; i++)
        table[i] = __builtin_bswap32(f->bat[i]);
    error = fd_pwrite_all(f->fd, table, (size_t)new_length, offset);
    if (error == 0 && fdatasync(f->fd) != 0)
        error = -errno;
    if (error != 0)
        return image_failed(f->arena, "writing", f->path, error);
    if (offset + new_length > f->file_size)
        f->file_size = offset + new_length;
    f->header.table_offset = offset;
    f->header.entries = entries;
    f->bat = arena_calloc(f->arena, entries, sizeof(*f->bat));
    for (uint32_t i = 0; i < entries; i++)
        f->bat[i] = __builtin_bswap32(table[i]);
    return NULL;
}

static struct error *drop_batmap(struct vhd_file *f, int64_t at)
{
    static const uint8_t zeros[VHD_SECTOR];
    int error = at == 0 ? 0 : fd_pwrite_all(f->fd, zeros, sizeof(zeros), at);

    return error == 0 ? NULL : image_failed(f->arena, "writing", f->path, error);
}

static struct error *vhd_resize(struct call *c, const char *path, int64_t size)
{
    AUTO_FD fd = -1;
    struct vhd_file f;
    uint32_t entries;
    int64_t batmap;

    TRY(size_check(c, path, &size));
    TRY(open_for_change(c, path, &fd, &f));
    if (size < f.size)
        return image_refused(c->arena, "%s: an image cannot become smaller", path);
    if (vhd_file_is_fixed(&f))
        return image_refused(c->arena, "%s: a fixed VHD cannot grow", path);
    entries = (uint32_t)((size + f.header.block_size - 1) / f.header.block_size);
    vhd_set_size(&f.footer, size);
    if (vhd_virtual_size(&f.footer) != size) /* one that goes by its geometry: from now on by its size */
        memcpy(f.footer.creator, "win ", 4);
    if (entries <= f.header.entries)
        return vhd_file_put_footer(&f);
    batmap = f.batmap_header;
    TRY(grow_table(&f, entries));
    TRY(vhd_file_put_header(&f));
    return drop_batmap(&f, batmap);
}

static struct error *vhd_set_parent(struct call *c, const char *path, const char *parent, const char *parent_format)
{
    AUTO_FD fd = -1;
    struct vhd_file f;

    TRY(open_for_change(c, path, &fd, &f));
    if (vhd_file_is_fixed(&f))
        return image_refused(c->arena, "%s: a fixed VHD has no parent", path);
    if (parent == NULL || parent[0] == '\0')
        vhd_parent_unlink(&f);
    else
        TRY(vhd_parent_link(&f, parent, parent_format));
    return vhd_file_put_header(&f);
}

static struct error *vhd_set_hidden(struct call *c, const char *path, bool hidden)
{
    AUTO_FD fd = -1;
    struct vhd_file f;

    TRY(open_for_change(c, path, &fd, &f));
    if (f.footer.hidden == hidden && f.end_valid && !f.copy_differs)
        return NULL;
    f.footer.hidden = hidden;
    return vhd_file_put_footer(&f);
}

static struct error *vhd_check(struct call *c, const char *path)
{
    AUTO_FD fd = open_image(path, false);
    struct vhd_file f;

    if (fd < 0)
        return image_failed(c->arena, "opening", path, fd);
    TRY(vhd_file_read(c->arena, fd, path, true, &f));
    return vhd_parent_check_chain(&f);
}

const struct image_ops image_vhd = {
    .format = "vhd",
    .suffix = ".vhd",
    .can_have_parent = true,
    .size_max = VHD_SIZE_MAX,
    .size_step = VHD_SECTOR,
    .create = vhd_create,
    .info = vhd_info,
    .resize = vhd_resize,
    .set_parent = vhd_set_parent,
    .set_hidden = vhd_set_hidden,
    .check = vhd_check,
};
