/* The inside of tapd's NBD client: what its files share. Contract: nbd_client.h.
 *
 *   nbd_client.c          opening, the block's operations, slots, completion
 *   nbd_client_connect.c  addresses, connecting, negotiation, reconnecting
 *   nbd_client_send.c     requests onto the wire
 *   nbd_client_receive.c  replies off the wire
 *   nbd_client_status.c   block status: extents
 *   nbd_client_lost.c     loss, silence
 *
 * A request becomes a slot, whose index and serial are its cookie. A slot waits in the send queue of one
 * connection, then for its reply. Completions are gathered and reported from loop_later when they come up in
 * a place where the owner must not be called (in block_submit for others, in extents). */
#ifndef STORAGE_TAPD_NBD_CLIENT_PRIVATE_H
#define STORAGE_TAPD_NBD_CLIENT_PRIVATE_H

#include <sys/socket.h>

#include "rpc/nbd/nbd_handshake.h"
#include "rpc/nbd/nbd_uri.h"
#include "storage/tapd/nbd_client.h"
#include "storage/tapd/nbd_front.h"
#include "storage/tapd/nbd_wire.h"

#define NBD_SLOTS (BLOCK_GUEST_DEPTH + 64u) /* the guest's, and a copier's */
#define NBD_STAGING 4096u
#define NBD_EXTENTS 4096u                   /* of one block status that are kept */
#define NBD_ADDRESSES 8u
#define COVER_UNIT 512u

struct nbd_client;
struct nbd_connection;

struct nbd_slot {
    struct block_request *r;    /* one of the three, or none: free */
    struct nbd_hash *hash;
    struct nbd_status *status;
    struct nbd_connection *connection;
    struct nbd_slot *next;      /* free list, or send queue */
    uint64_t order;             /* of submission */
    uint32_t serial;            /* upper half of the cookie */
    uint32_t length;            /* of the range */
    int error;                  /* told by an error chunk */
    bool sent;                  /* all of it is on the wire */
    bool bulk;                  /* the reply carries data */
    bool partial;               /* 'cover' is in use */
    uint32_t covered;           /* bytes of a read that have arrived */
    uint64_t cover[BLOCK_REQUEST_MAX / COVER_UNIT / 64];
    struct nbd_request wire;
};

struct nbd_status {             /* one block status command and what came of it */
    int64_t offset;
    uint32_t length;
    bool done;
    int result;
};

struct nbd_extent { uint32_t length, flags; };

/* Where the reply parser of a connection stands. */
enum nbd_rx { NBD_RX_HEADER, NBD_RX_DATA_OFFSET, NBD_RX_HOLE, NBD_RX_INTO /* 'into' is filled */, NBD_RX_ERROR, NBD_RX_CONTEXT, NBD_RX_EXTENTS, NBD_RX_SKIP };
enum nbd_phase { NBD_DOWN, NBD_CONNECTING, NBD_TLS, NBD_FRONTING /* HTTP before NBD */, NBD_SHAKING, NBD_READY };

struct nbd_connection {
    struct nbd_client *client;
    struct loop_fd watch;
    struct nbd_wire wire;
    enum nbd_phase phase;
    bool watched;

    /* negotiation: memory only while it lasts */
    struct nbd_handshake *shake;
    enum nbd_shake todo;        /* what its last step wants */
    size_t shake_done;          /* bytes of shake->in or out so far */
    unsigned address;           /* the one that is tried */
    struct nbd_front *front;    /* while the HTTP front is asked */
    size_t front_sent;          /* bytes of the request */
    bool fronted;               /* it has let us through, or there is none */

    /* sending */
    struct nbd_slot *queue, **queue_end;
    size_t head_sent;           /* bytes of the first of the queue */
    bool blocked;               /* the socket took less than all: wait for EPOLLOUT */
    unsigned in_flight;         /* slots, also those not sent yet */
    unsigned bulk;              /* of them, whose replies carry data */
    uint64_t load;              /* bytes of them */

    /* receiving */
    enum nbd_rx rx;
    struct nbd_slot *slot;      /* the reply is for it */
    bool chunk_done;            /* NBD_REPLY_FLAG_DONE, or a simple reply */
    uint32_t rest;              /* bytes of this chunk still to come */
    uint8_t *into;
    uint32_t into_rest;
    size_t in_pos, in_len;
    uint8_t in[NBD_STAGING];

    int64_t heard_us;           /* last sign of life, or when the first request went out */
    uint64_t progress;          /* bytes the peer's kernel had taken then */
    uint64_t sent_bytes;
};

struct nbd_address { struct sockaddr_storage address; socklen_t len; };

struct nbd_client {
    struct block block;
    struct nbd_options options;
    struct arena *arena;        /* the URI */
    struct nbd_uri uri;
    struct nbd_address addresses[NBD_ADDRESSES];
    unsigned n_addresses;
    const char *request;        /* to the HTTP front; NULL: there is none */
    int preset_fd;              /* nbd_open_fd: the only connection, never again */
    struct disk_tls_context *tls;
    uint64_t session, generation; /* 0: none */
    char session_text[48];        /* as it is named */

    bool up, known;             /* connections stand; size and flags are known from before */
    int lost_reason;
    struct nbd_shaken server;   /* as negotiated first */
    bool can_hash, can_status;
    uint32_t allocation_id;
    struct nbd_connection connections[NBD_CONNECTIONS_MAX];
    unsigned n_connections;     /* that are used */

    /* connecting */
    bool connecting;
    int connect_error;
    char connect_text[160];
    void (*connected)(void *ctx, int result);
    void *connected_ctx;
    struct loop_timer deadline;
    struct loop_timer retry;    /* a Unix listener's backlog was full */
    struct loop_timer again;    /* options.retry_us */
    unsigned tries;             /* since the loss */
    struct loop_idle connect_begin, connect_end;

    struct nbd_slot *slots, *free_slots; /* one more than NBD_SLOTS: the last is for block status */
    struct block_request *waiting, **waiting_end; /* no slot, or (keep) no connection */
    unsigned in_flight;
    uint64_t order;
    struct loop_idle send_later, report_later;
    struct block_request *reports, **reports_end; /* r->result is set */
    struct nbd_hash *hash_reports;
    bool lost_unreported;
    unsigned hold_reports;      /* in a place that must not call owners */
    unsigned calling;           /* depth of owners being called */
    bool close_wanted;          /* closed while it calls an owner: freed afterwards */

    struct loop_timer silence;
    uint8_t *zeros;             /* BLOCK_REQUEST_MAX of them, where the server has no write zeroes */

    struct nbd_extent *extents; /* of [extents_from, extents_to) */
    unsigned n_extents, extent_hint;
    int64_t extents_from, extents_to, extent_hint_at; /* entry extent_hint begins there */
    bool extents_full;          /* there were more than we keep */
    uint64_t sent, received;
};

/* nbd_client.c */
extern const struct block_ops nbd_client_ops;
void nbd_client_start(struct nbd_client *, struct nbd_slot *, unsigned type, unsigned flags, int64_t offset, uint32_t length);
struct nbd_slot *nbd_client_slot(struct nbd_client *); /* NULL: all are out */
void nbd_client_restart(struct nbd_client *, struct nbd_slot *, unsigned type); /* the same slot, another command, without a range */
void nbd_client_done(struct nbd_client *, struct nbd_slot *, int result); /* frees the slot; calls or gathers */
void nbd_client_report(struct nbd_client *, struct block_request *, int result); /* calls or gathers */
void nbd_client_pump(struct nbd_client *); /* what waits gets slots */
void nbd_client_free(struct nbd_client *);
/* Around everything the loop calls us for: an owner may close us meanwhile. leave: true when that happened. */
void nbd_client_enter(struct nbd_client *);
bool nbd_client_leave(struct nbd_client *);

/* nbd_client_connect.c */
NODISCARD int nbd_client_resolve(struct nbd_client *); /* blocks for names */
void nbd_client_session(struct nbd_client *, const char *dir);
void nbd_client_connect(struct nbd_client *, void (*connected)(void *ctx, int result), void *ctx);
void nbd_client_connect_cancel(struct nbd_client *);
void nbd_connection_down(struct nbd_connection *);
void nbd_connection_ready(struct loop_fd *, uint32_t events);
void nbd_connection_watch(struct nbd_connection *); /* events as it needs them now */

/* nbd_client_send.c */
void nbd_connection_queue(struct nbd_connection *, struct nbd_slot *);
NODISCARD int nbd_connection_send(struct nbd_connection *); /* 0, or -errno: lost */
void nbd_client_send_all(struct nbd_client *);

/* nbd_client_receive.c */
NODISCARD int nbd_connection_receive(struct nbd_connection *); /* 0, or -errno: lost */

/* nbd_client_status.c */
int nbd_client_extents(struct block *, int64_t offset, int64_t length, bool own_only, block_extent_fn *, void *ctx);
void nbd_client_extents_forget(struct nbd_client *, int64_t offset, int64_t length);
void nbd_status_entry(struct nbd_client *, uint32_t length, uint32_t flags); /* the next one of what was asked for */

/* nbd_client_lost.c */
void nbd_client_lost(struct nbd_client *, int reason);
void nbd_client_again(struct nbd_client *);   /* lost, with options.retry_us: tries, soon */
void nbd_client_silence(struct nbd_client *); /* something went out: watch */
void nbd_client_silence_fired(struct loop_timer *);
/* Looks at one connection: true when it has been silent for too long. */
bool nbd_connection_silent(struct nbd_connection *, int64_t now_us);

/* Over a connected socket (taken, also on failure), for tests: it cannot be reached again. */
NODISCARD struct error *nbd_open_fd(struct arena *, struct loop *, int fd, const struct nbd_options *, bool read_only, struct block **block_r);

#endif
