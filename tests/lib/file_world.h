/* One SR of the file drivers without sr.c and without tapd: the test plays the guest. */
#ifndef TESTS_LIB_FILE_WORLD_H
#define TESTS_LIB_FILE_WORLD_H

#include "storage/sr_driver.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"

/* A VDI in use. */
struct guest {
    const char *location, *format, *path, *cbt; /* location NULL: none */
    bool paused;
    unsigned pauses, merges;
    int64_t size;
    bool refuse_resume;  /* the next one with a chain */
};

struct file_world {
    struct fakecall fake;
    struct call *c;
    struct tempdir dir;
    struct sr sr;
    struct vdi_live live;
    struct guest guest;
    const char *path;                /* the SR's directory */
    struct member config[4];
    unsigned n_config;
    void (*merging)(struct file_world *, const char *location); /* called in the middle of a merge */
};

/* Over an existing directory (NULL: a new one), attached. format: image-format. */
void file_world_init(struct file_world *, const char *dir, const char *format);
/* The same in two steps, so that a guest may be there (paused, as a crash left it) before the SR is attached. */
void file_world_make(struct file_world *, const char *dir, const char *format);
void file_world_attach(struct file_world *);
void file_world_release(struct file_world *);
void file_world_reattach(struct file_world *);

const char *file_world_vdi(struct file_world *, int64_t size, const char *format);
/* 4,096 bytes of 'c' at the offset; the VDI's own path is found by attach. */
void file_world_put(struct file_world *, const char *location, int64_t offset, char c);
/* The byte there, after checking that the 4,096 are all equal. */
char file_world_get(struct file_world *, const char *location, int64_t offset);
void file_world_guest(struct file_world *, const char *location); /* is in use from now on */
void guest_put(struct file_world *, int64_t offset, char c);
unsigned file_world_count(struct file_world *, bool hidden); /* images */
void file_world_clean(struct file_world *);                  /* sr_clean until there is no more */
const char *file_world_uuid(struct file_world *);

#define file_ok(error) file_world_ok(error, __FILE__, __LINE__)
void file_world_ok(struct error *, const char *file, int line);

#endif
