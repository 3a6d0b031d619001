/* Moving the contents of disks over HTTP and NBD: who may, on which host, under which task.
 *
 * The coordinator admits a transfer: session or password, role, VDI (or a fresh one in an SR), marks, task. The host
 * that has the disk moves the bytes, tells how far it is, and says how it ended; on the coordinator itself that is the
 * same without the wire. A transfer nobody has told of for five minutes is taken as failed; one whose client neither reads
 * nor sends for transfer-silence-s is ended (transfer_watch.h).
 *
 * Roles are those of xapi's handlers (vm-admin; NBD: any that may read). */
#ifndef XAPI_TRANSFER_TRANSFER_H
#define XAPI_TRANSFER_TRANSFER_H

#include "rpc/http/server.h"
#include "xapi/core/agent.h"
#include "xapi/core/xapi.h"

enum transfer_kind { TRANSFER_EXPORT, TRANSFER_IMPORT, TRANSFER_NBD };

struct transfer_request {
    enum transfer_kind kind;
    bool trusted;                       /* local root or the pool secret */
    const char *session, *user, *password; /* NULL: none */
    const char *vdi;                    /* uuid or ref; "" with 'sr' */
    const char *sr;                     /* import: uuid or ref of the SR where a VDI is made */
    int64_t size;                       /* of that VDI */
    const char *base;                   /* export: uuid or ref of the VDI that the other side has already, or "" */
    const char *task;                   /* client's task, or "" */
};

/* What the acting host needs to know; strings in the call's arena. */
struct transfer {
    const char *id;
    const char *address;                /* not NULL: another host must do it, at this address */
    const char *sr, *location, *user;   /* of storage/sr.h */
    const char *vdi_ref, *vdi_uuid;
    int64_t size;                       /* virtual, bytes */
    const char *base_sr, *base_location, *base_uuid; /* NULL: none */
};

/* Asks the coordinator. SESSION_INVALID, SESSION_AUTHENTICATION_FAILED, RBAC_PERMISSION_DENIED, HANDLE_INVALID,
 * UUID_INVALID, VDI_IN_USE, OTHER_OPERATION_IN_PROGRESS … Blocks. */
NODISCARD struct error *transfer_begin(struct call *, struct xapi *, const struct transfer_request *, struct transfer *);
/* Progress 0..1, told about once a second; TASK_CANCELLED [task] when the client cancelled. */
NODISCARD struct error *transfer_note(struct call *, struct xapi *, const struct transfer *, double fraction);
/* NULL: success; the task's result is the VDI's ref for an import into an SR. */
void transfer_end(struct call *, struct xapi *, const struct transfer *, const struct error *);

/* The acting host's disk: attached and active under the transfer's user; *uri_r is an NBD URI. */
NODISCARD struct error *transfer_open(struct call *, struct xapi *, const struct transfer *, bool write, const char **uri_r, const char **base_uri_r);
void transfer_close(struct call *, struct xapi *, const struct transfer *);
/* Gives up what transfers of an earlier life of this daemon had attached. */
void transfers_sweep(struct call *, struct xapi *);

/* Verbs of the coordinator: coordinator.transfer_begin, _note, _end. */
agent_verb_fn transfer_verb_begin, transfer_verb_note, transfer_verb_end;
struct transfers *transfers_new(void);
void transfers_free(struct xapi *); /* those under way have failed */

/* Routes: GET /export_raw_vdi, PUT /import_raw_vdi (each also with a slash behind). */
http_handler_fn transfer_http_export, transfer_http_import;

#endif
