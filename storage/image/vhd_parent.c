#include "storage/image/vhd_parent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/image/image_error.h"

#define NAME_MAX_BYTES 1024u           /* blktap's limit of a name */
#define SLOT ((int64_t)2560)           /* room of one locator: that many bytes in UTF-16, whole sectors */
#define N_NAMES 3
#define URI "file://"

static const char *directory_of(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? "." : slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
}

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

static const char *beside(struct arena *arena, const char *child, const char *relative)
{
    return strchr(child, '/') == NULL ? relative : arena_printf(arena, "%s/%s", directory_of(arena, child), relative);
}

/* --- reading names ------------------------------------------------------------------------------ */
static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void percent_decode(char *s)
{
    char *out = s;

    while (*s != '\0') {
        if (s[0] == '%' && hex_digit(s[1]) >= 0 && hex_digit(s[2]) >= 0 && (s[1] != '0' || s[2] != '0')) {
            *out++ = (char)(hex_digit(s[1]) * 16 + hex_digit(s[2]));
            s += 3;
        } else
            *out++ = *s++;
    }
    *out = '\0';
}

/* "./a/b", "a\b" -> "a/b"; what leads outside -> its last part; NULL for what names nothing. */
static const char *safe_relative(struct arena *arena, char *name)
{
    const char *parts[VHD_CHAIN_MAX];
    unsigned n = 0;
    bool outside = name[0] == '/' || name[0] == '\\' || (name[0] != '\0' && name[1] == ':');
    const char *last = NULL, *whole;

    for (char *p = name; *p != '\0'; p++)
        if (*p == '\\')
            *p = '/';
    for (char *p = name; *p != '\0' && n < VHD_CHAIN_MAX;) {
        size_t len = strcspn(p, "/");
        const char *part = arena_strndup(arena, p, len);

        p += len + (p[len] == '/');
        if (strcmp(part, "..") == 0)
            outside = true;
        else if (len > 0 && strcmp(part, ".") != 0)
            last = parts[n++] = part;
    }
    if (last == NULL || strlen(last) > NAME_MAX)
        return NULL;
    if (outside || n == VHD_CHAIN_MAX)
        return last;
    whole = parts[0];
    for (unsigned i = 1; i < n; i++)
        whole = arena_printf(arena, "%s/%s", whole, parts[i]);
    return whole;
}

static const char *name_in(const struct vhd_file *f, const struct vhd_locator *l)
{
    uint8_t bytes[2 * NAME_MAX_BYTES + 2] = { 0 };
    char name[3 * NAME_MAX_BYTES + 1];
    uint32_t n = l->length < sizeof(bytes) - 2 ? l->length : (uint32_t)sizeof(bytes) - 2;
    char *text = name;

    if (n == 0 || fd_pread_all(f->fd, bytes, n, l->offset) != 0)
        return NULL;
    if (l->code == VHD_LOCATOR_MACX) {
        text = (char *)bytes;
        if (strncmp(text, URI, strlen(URI)) == 0)
            text += strlen(URI);
        percent_decode(text);
    } else if (l->code != VHD_LOCATOR_W2KU && l->code != VHD_LOCATOR_W2RU)
        return NULL;
    else if (!vhd_utf16_decode(bytes, n, false, name, sizeof(name)))
        return NULL;
    return safe_relative(f->arena, text);
}

static bool id_fits(const struct vhd_file *f, const char *path)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct vhd_footer footer;
    bool end, copy;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) != 0)
        return false;
    if (vhd_id_is_zero(f->header.parent_id))
        return S_ISREG(st.st_mode) || S_ISBLK(st.st_mode);
    return S_ISREG(st.st_mode) && vhd_file_footer(fd, st.st_size, &footer, &end, &copy) == NULL &&
           memcmp(footer.id, f->header.parent_id, 16) == 0;
}

struct error *vhd_parent_find(const struct vhd_file *f, struct vhd_parent *p)
{
    static const uint32_t order[] = { VHD_LOCATOR_W2RU, VHD_LOCATOR_MACX, VHD_LOCATOR_W2KU };
    const char *names[VHD_LOCATORS + 1];
    unsigned n = 0;
    char own[3 * VHD_NAME_UNITS + 1];

    *p = (struct vhd_parent) { .path = "", .format = vhd_id_is_zero(f->header.parent_id) ? "raw" : "vhd" };
    for (unsigned k = 0; k < ARRAY_LEN(order); k++)
        for (unsigned i = 0; i < VHD_LOCATORS; i++)
            if (f->header.locators[i].code == order[k] && (names[n] = name_in(f, &f->header.locators[i])) != NULL)
                n++;
    if (vhd_utf16_decode(f->header.parent_name, sizeof(f->header.parent_name), true, own, sizeof(own)) &&
        (names[n] = safe_relative(f->arena, own)) != NULL)
        n++;
    for (unsigned i = 0; i < n && !p->found; i++) {
        const char *path = beside(f->arena, f->path, names[i]);

        p->found = id_fits(f, path);
        if (i == 0 || p->found)
            p->path = path;
    }
    return n > 0 ? NULL : image_damaged(f->arena, f->path, "it names no parent");
}

/* --- writing names ------------------------------------------------------------------------------ */
/* The parent's name from the child's directory. */
static struct error *relative_name(struct arena *arena, const char *child, const char *parent, const char **name_r)
{
    AUTO_FREE char *from = realpath(directory_of(arena, child), NULL), *to = realpath(directory_of(arena, parent), NULL);
    size_t len;

    if (from == NULL || to == NULL)
        return image_failed(arena, "finding the directory of", from == NULL ? child : parent, errno);
    len = strcmp(from, "/") == 0 ? 0 : strlen(from);
    if (strncmp(from, to, len) != 0 || (to[len] != '\0' && to[len] != '/'))
        return image_refused(arena, "the parent %s lies outside the directory of %s", parent, child);
    *name_r = to[len] == '\0' ? last_name(parent) : arena_printf(arena, "%s/%s", to + len + 1, last_name(parent));
    return strlen(*name_r) <= NAME_MAX_BYTES - 2 ? NULL : image_refused(arena, "the name of the parent %s is too long", parent);
}

static struct error *parent_facts(struct vhd_file *f, const char *parent, bool raw, int64_t *size_r)
{
    AUTO_FD fd = open(parent, O_RDONLY | O_CLOEXEC);
    struct vhd_file above;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) != 0)
        return image_failed(f->arena, "opening the parent", parent, errno);
    f->header.parent_timestamp = vhd_timestamp(st.st_mtime);
    if (raw) {
        *size_r = lseek(fd, 0, SEEK_END);
        memset(f->header.parent_id, 0, 16);
        return NULL;
    }
    TRY(vhd_file_read(f->arena, fd, parent, false, &above));
    if (vhd_id_is_zero(above.footer.id))
        return image_refused(f->arena, "the parent %s has no unique id", parent);
    *size_r = above.size;
    memcpy(f->header.parent_id, above.footer.id, 16);
    return NULL;
}

static struct error *put_locators(struct vhd_file *f, const char *name)
{
    static const uint32_t codes[N_NAMES] = { VHD_LOCATOR_MACX, VHD_LOCATOR_W2KU, VHD_LOCATOR_W2RU };
    static const int64_t places[] = { 4096, 4096 + 3 * 4096 };
    AUTO_FREE uint8_t *bytes = xcalloc(N_NAMES, (size_t)SLOT);
    char *windows = arena_printf(f->arena, ".\\%s", name), *uri = arena_printf(f->arena, URI "./%s", name);
    int64_t at = vhd_file_room(f, places, ARRAY_LEN(places), N_NAMES * SLOT);
    int error;

    for (char *p = windows; *p != '\0'; p++)
        if (*p == '/')
            *p = '\\';
    memset(f->header.locators, 0, sizeof(f->header.locators));
    for (unsigned i = 0; i < N_NAMES; i++) {
        struct vhd_locator *l = &f->header.locators[i];

        *l = (struct vhd_locator) { .code = codes[i], .space = (uint32_t)SLOT, .offset = at + i * SLOT };
        if (codes[i] == VHD_LOCATOR_MACX) {
            l->length = (uint32_t)strlen(uri);
            memcpy(bytes + i * SLOT, uri, l->length);
        } else if (!vhd_utf16_encode(windows, false, bytes + i * SLOT, (uint32_t)SLOT, &l->length))
            return image_refused(f->arena, "the name of the parent %s is no UTF-8", name);
    }
    error = fd_pwrite_all(f->fd, bytes, (size_t)(N_NAMES * SLOT), at);
    if (error == 0 && fdatasync(f->fd) != 0)
        error = -errno;
    return error == 0 ? NULL : image_failed(f->arena, "writing", f->path, error);
}

struct error *vhd_parent_link(struct vhd_file *f, const char *parent, const char *parent_format)
{
    bool raw = strcmp(parent_format, "raw") == 0;
    const char *name = "";
    int64_t size;
    uint32_t n;

    if (!raw && strcmp(parent_format, "vhd") != 0)
        return image_refused(f->arena, "a VHD cannot have a parent of format %s", parent_format);
    TRY(relative_name(f->arena, f->path, parent, &name));
    TRY(parent_facts(f, parent, raw, &size));
    if (size > f->size)
        return image_refused(f->arena, "%s is smaller than its parent %s", f->path, parent);
    TRY(put_locators(f, name));
    memset(f->header.parent_name, 0, sizeof(f->header.parent_name));
    if (!vhd_utf16_encode(last_name(name), true, f->header.parent_name, sizeof(f->header.parent_name) - 2, &n))
        memset(f->header.parent_name, 0, sizeof(f->header.parent_name)); /* too long for here: the locators have it */
    f->footer.type = VHD_DIFFERENCING;
    return NULL;
}

void vhd_parent_unlink(struct vhd_file *f)
{
    memset(f->header.locators, 0, sizeof(f->header.locators));
    memset(f->header.parent_name, 0, sizeof(f->header.parent_name));
    memset(f->header.parent_id, 0, sizeof(f->header.parent_id));
    f->header.parent_timestamp = 0;
    f->footer.type = VHD_DYNAMIC;
}

/* --- the chain ---------------------------------------------------------------------------------- */
/* *end_r: the parent has none itself; else it is in 'above', with its descriptor closed. */
static struct error *check_next(const struct vhd_file *f, struct vhd_file *above, bool *end_r)
{
    AUTO_FD fd = -1;
    struct vhd_parent p;

    TRY(vhd_parent_find(f, &p));
    if (!p.found)
        return image_damaged(f->arena, f->path, "its parent %s is not there or has another id", p.path);
    *end_r = strcmp(p.format, "raw") == 0;
    if (*end_r)
        return NULL;
    fd = open(p.path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return image_failed(f->arena, "opening", p.path, errno);
    TRY(vhd_file_read(f->arena, fd, p.path, true, above));
    *end_r = above->footer.type != VHD_DIFFERENCING;
    return NULL;
}

struct error *vhd_parent_check_chain(const struct vhd_file *f)
{
    struct vhd_file at = *f, above;
    bool end = f->footer.type != VHD_DIFFERENCING;

    for (unsigned depth = 1; !end; depth++) {
        AUTO_FD fd = open(at.path, O_RDONLY | O_CLOEXEC);

        if (depth > VHD_CHAIN_MAX)
            return image_damaged(f->arena, f->path, "a chain of more than %u images, or a loop", VHD_CHAIN_MAX);
        if (fd < 0)
            return image_failed(f->arena, "opening", at.path, errno);
        at.fd = fd;
        TRY(check_next(&at, &above, &end));
        at = above;
    }
    return NULL;
}
