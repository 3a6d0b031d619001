/* The inside of the NBD server: what its files share. Contract: nbd_server.h.
 *
 *   nbd_server.c             the server, its listeners, stopping
 *   nbd_server_pool.c        requests with buffers, commands
 *   nbd_server_connection.c  a connection's life: events, phases, closing
 *   nbd_server_options.c     negotiation
 *   nbd_server_session.c     a client that comes back
 *   nbd_server_input.c       commands off the wire
 *   nbd_server_read.c        reads in pieces, holes
 *   nbd_server_status.c      block status, hashes
 *   nbd_server_output.c      replies onto the wire
 *
 * A job is one command of a client. It is carried out as pieces: requests to the block, each with a buffer
 * of one of a few sizes. Input takes a connection's jobs one by one: until all pieces of one are under way
 * (or its payload is received) the next is not looked at. Where a buffer is missing the connection waits in
 * the server's list, with its socket unread. Replies are queued in 'out' and go out together, before the loop
 * waits. */
#ifndef STORAGE_TAPD_NBD_SERVER_PRIVATE_H
#define STORAGE_TAPD_NBD_SERVER_PRIVATE_H

#include "rpc/nbd/nbd_protocol.h"
#include "storage/tapd/nbd_server.h"
#include "storage/tapd/nbd_wire.h"

#define NBD_HEAD_MAX 40u
#define NBD_INPUT_SIZE (16u + NBD_OPTION_MAX + 4096u)
#define NBD_HELLO_SIZE 16384u
#define NBD_HELLO_ROOM (NBD_NAME_MAX + 1024u) /* the most one option is answered with */
#define NBD_JOBS 512u
#define NBD_JOBS_OF_ONE 256u /* of one connection */
#define NBD_RANGES 16u

enum { NBD_CONTEXT_ID_ALLOCATION = 1, NBD_CONTEXT_ID_DIRTY, NBD_CONTEXT_ID_HASH };

struct nbd_server;
struct nbd_conn;
struct nbd_job;

/* Bytes for the wire: a head, then 'length' bytes of data. Embedded in what is given back once they are sent. */
struct nbd_out {
    struct nbd_out *next;
    unsigned char head[NBD_HEAD_MAX];
    unsigned head_len;
    uint32_t length;
    const void *data;
    bool is_job; /* part of a struct nbd_job, else of a struct nbd_piece */
};

enum nbd_size { NBD_BARE, NBD_SMALL, NBD_MIDDLE, NBD_LARGE, NBD_CLASSES };
struct nbd_piece {
    struct block_request request;
    struct nbd_out out;
    struct nbd_piece *next; /* free */
    struct nbd_job *job;
    void *buffer;
    enum nbd_size class;
};

struct nbd_job {
    struct nbd_out out;
    struct nbd_job *next; /* free */
    struct nbd_conn *conn;
    uint64_t cookie;
    uint16_t flags, type;
    int64_t offset;
    uint32_t length, at; /* at: up to here pieces are under way */
    unsigned pieces;     /* below */
    bool issued;         /* no more will follow */
    bool ordered;        /* a read whose one reply is longer than a piece: its pieces go one by one */
    int error;
    struct nbd_piece *result; /* block status, hashes */
};

enum nbd_conn_phase { NBD_CONN_TLS, NBD_CONN_FLAGS, NBD_CONN_OPTIONS, NBD_CONN_SERVING, NBD_CONN_LEAVING /* sends what there is */ };
enum nbd_intake { NBD_IN_COMMAND, NBD_IN_PAYLOAD, NBD_IN_SKIP, NBD_IN_ISSUE };
struct nbd_range { uint32_t from, to; bool hole; };

struct nbd_conn {
    struct nbd_server *server;
    struct nbd_conn *next, **prev;
    struct nbd_conn *next_waiting; /* for buffers; or among those with something to send */
    struct nbd_conn *next_sender;
    struct loop_fd watch;
    struct nbd_wire wire;
    struct loop_timer timer; /* negotiation, TLS */
    enum nbd_conn_phase phase;
    struct disk_tls_context *tls;
    bool must_tls, read_only, structured, no_zeroes, tls_next, abort_next;
    bool has_status, has_dirty, has_hash;
    bool adopted;
    bool dead;     /* the socket is gone; what is below has to come back */
    bool draining; /* no more commands: leaves when all are answered */
    bool waiting, sending, ended;
    unsigned options;
    uint64_t session, generation; /* 0: none */
    uint64_t context_name; /* hash of the export's name the contexts are for */

    unsigned char *in;      /* NBD_INPUT_SIZE: [in_at, in_len) is unread */
    size_t in_at, in_len;
    enum nbd_intake intake;
    bool bulk;              /* the last payload was long: read heads singly, so that payloads go to their place */
    uint32_t left;          /* payload still to come (PAYLOAD, SKIP) */
    struct nbd_job *job; /* being taken in */
    struct nbd_piece *piece;     /* being filled */
    uint32_t filled;
    unsigned dense, skip_lookups; /* reads without holes in a row; how many reads not to ask for */
    struct nbd_range ranges[NBD_RANGES];
    unsigned n_ranges, range;

    unsigned jobs;          /* taken in and not yet answered */
    unsigned pieces;        /* below */
    struct nbd_out *out, **out_last;
    size_t out_sent;        /* of the first one */
    unsigned char *hello;   /* negotiation's output: [hello_at, hello_len) */
    size_t hello_at, hello_len;
    int64_t moved_us;       /* when bytes last went either way */
};

struct nbd_listener {
    struct loop_fd watch; /* fd -1: none */
    struct nbd_server *server;
    struct disk_tls_context *tls;
    bool read_only;
};

struct nbd_pool {
    struct nbd_piece *free[NBD_CLASSES];
    unsigned n_free[NBD_CLASSES];
    struct nbd_job *jobs;
    struct nbd_piece *all;
    struct nbd_job *all_jobs;
    char *memory;
    size_t memory_size;
};

struct nbd_server {
    struct loop *loop;
    struct block *block;
    struct nbd_dirty_source *dirty;
    struct nbd_pool pool;
    struct nbd_listener unix_listener, tcp_listener;
    struct nbd_conn *conns, *gone; /* gone: dead ones whose requests are still below */
    unsigned clients, below;
    struct nbd_conn *waiting, **waiting_last; /* for buffers, first come first served */
    struct nbd_conn *senders;
    struct loop_idle later;   /* sends, and lets those go on that waited */
    struct loop_timer sweep;  /* drops those who hold buffers and do not move, while others wait */
    struct loop_timer accept_again;
    bool stopping;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
    struct disk_tls_context *certificate; /* of the last path used */
    char *certificate_path;
    int64_t certificate_mtime_ns;
};

/* pool */
void nbd_pool_init(struct nbd_pool *);
void nbd_pool_release(struct nbd_pool *);
uint32_t nbd_size_bytes(enum nbd_size);
enum nbd_size nbd_size_for(uint32_t length); /* the largest for more */
/* For one piece of 'length' bytes or less, NULL: none free. reads may not take the last ones. */
struct nbd_piece *nbd_piece_take(struct nbd_server *, struct nbd_job *, enum nbd_size, bool for_read);
void nbd_piece_give(struct nbd_server *, struct nbd_piece *);
struct nbd_job *nbd_job_take(struct nbd_conn *);
void nbd_job_give(struct nbd_job *);
/* The connection goes on when something is given back. */
void nbd_conn_wait(struct nbd_conn *);

/* connection */
void nbd_conn_start(struct nbd_server *, int fd, bool read_only, struct disk_tls_context *, bool adopted); /* adopted: TLS comes first */
void nbd_conn_drop(struct nbd_conn *);  /* at once; the struct stays until nothing is below */
void nbd_conn_events(struct nbd_conn *); /* sets what is watched */
void nbd_conn_go_on(struct nbd_conn *);  /* input that was held up; may drop it */
void nbd_conn_settle(struct nbd_conn *); /* after an answer: a draining or gone connection may end; frees it perhaps */

/* options: takes from [in_at, in_len) what is whole; false: drop the connection */
bool nbd_options_hello(struct nbd_conn *);
bool nbd_options_input(struct nbd_conn *);
/* All of hello is sent: STARTTLS or the end, where that was meant. False: drop. */
bool nbd_options_sent(struct nbd_conn *);

/* session: one query of a client's. waits: something older of this client's is still below */
void nbd_session_take(struct nbd_conn *, const unsigned char *query, size_t length);
bool nbd_session_waits(const struct nbd_conn *);

/* input, while serving: false: drop the connection */
bool nbd_conn_input(struct nbd_conn *);
/* Where the next bytes go; at most 2 vectors. 0: nothing may be read now. */
int nbd_conn_places(struct nbd_conn *, struct iovec places[2]);
void nbd_conn_got(struct nbd_conn *, size_t n); /* bytes were put there */
/* Carries on with the command that waits for buffers. False: still waits. */
bool nbd_job_issue(struct nbd_conn *, struct nbd_job *);
/* To the block; done on the loop, perhaps at once. */
void nbd_piece_submit(struct nbd_piece *, enum block_op, unsigned flags, int64_t offset, uint32_t length, void (*done)(struct block_request *));
/* A piece of the command came back (or never went): counts it, and answers when it was the last one. */
void nbd_job_done(struct nbd_job *, int error);
bool nbd_job_last(const struct nbd_job *); /* this piece is the last to come back */

/* read, status, hash: as nbd_job_issue */
void nbd_read_begin(struct nbd_job *);
bool nbd_read_issue(struct nbd_conn *, struct nbd_job *);
bool nbd_status_issue(struct nbd_conn *, struct nbd_job *);
bool nbd_hash_issue(struct nbd_conn *, struct nbd_job *);

/* output */
void nbd_out_add(struct nbd_conn *, struct nbd_out *);
void nbd_reply_simple(struct nbd_out *, uint64_t cookie, int error);
/* length of the payload behind the head of 20 bytes; returns where a payload's first bytes go (in the head) */
unsigned char *nbd_reply_chunk(struct nbd_out *, uint64_t cookie, unsigned flags, unsigned type, uint32_t length);
void nbd_job_answer(struct nbd_job *); /* the command's own reply: an error, or plain success */
bool nbd_out_send(struct nbd_conn *);  /* false: drop */
void nbd_out_drop(struct nbd_conn *);  /* gives back all that waits */

#endif
