/* What a guest's disk is made of: a file, or an NBD server.
 *
 * One thread at a time. 0 or -errno. An NBD server that is away, or holds the request, is waited for: it is
 * connected again and the request repeated until it is answered, or the time of medium_give_up is over (-ECANCELED).
 * An error it answers with is the disk's. */
#ifndef XENOPS_SIM_GUEST_DISK_MEDIUM_H
#define XENOPS_SIM_GUEST_DISK_MEDIUM_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/attributes.h"

struct nbd_client;
struct disk_medium;
struct medium_ops {
    int (*open)(struct disk_medium *, bool writable, bool direct);
    int (*read)(struct disk_medium *, void *, uint32_t length, int64_t offset);
    int (*write)(struct disk_medium *, const void *, uint32_t length, int64_t offset);
    int (*flush)(struct disk_medium *);
    bool (*close)(struct disk_medium *, int watch);
};
struct disk_medium {
    const struct medium_ops *ops;
    const char *path; /* or URI; borrowed */
    bool open;
    bool flushes;     /* worth a flush now and then: somebody else keeps the data */
    int fd;           /* of a file */
    int timer_fd;     /* when to give up; NBD only */
    int stop_fd;      /* epoll: the timer, or what medium_close was told to watch */
    struct nbd_client *client; /* connected at the first request */
};

/* path "": an empty drive, which cannot be opened. */
void medium_init(struct disk_medium *, const char *path);
void medium_release(struct disk_medium *); /* closed before */
bool medium_is_remote(const struct disk_medium *); /* opening it says nothing yet about whether it is there */
/* An NBD server is not looked for yet. Opening what is open is fine. */
NODISCARD int medium_open(struct disk_medium *, bool writable, bool direct);
NODISCARD int medium_read(struct disk_medium *, void *, uint32_t length, int64_t offset);
NODISCARD int medium_write(struct disk_medium *, const void *, uint32_t length, int64_t offset);
NODISCARD int medium_flush(struct disk_medium *);
/* After a flush, which waits as the others do, but not when the peer of 'watch' (a socket, or -1) hangs up: then
 * false, and the medium stays open. Closing what is closed is fine. */
bool medium_close(struct disk_medium *, int watch);
/* Requests, also later ones, wait for at most ms from now on all together. From any thread; for good. */
void medium_give_up(struct disk_medium *, int64_t ms);

#endif
