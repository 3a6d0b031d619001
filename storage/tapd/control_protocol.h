/* How xapi (storage/tap.c) talks to a tapd, and the files of its directory.
 *
 * Directory DIR of one tapd:
 *   spec      what it serves, as one message "spec key=value …" (below); replaced durably, by tapd itself
 *             once it runs: a switch of a mirror is committed by this file
 *   control   Unix socket, one message a line          nbd    Unix socket, NBD, one export of any name
 *   pid       "<pid> <start time>" of the process      log    its standard error
 *   owner     of xapi: the key it has now, its users, where a mirror leads (storage/tap_dir.c); tapd never looks
 *   map       dirty and unproven bits of a mirror, mapped (storage/tapd/mirror_map.h)
 * tapd DIR: reads spec, listens on both sockets, and serves. Killed and started again it goes on as spec says.
 *
 * A message is one line: a verb or "ok" or "error", then words key=value separated by one blank; in values
 * the bytes % blank newline = and those outside 0x21…0x7e are written %XX. Longest line 16,384. Requests are
 * answered in order. "error code=CODE text=…". Descriptors ride on the line they belong to (SCM_RIGHTS).
 *
 * spec: key=<sr uuid>/<location> format= path= read_only= cached= size= state=active|inactive|paused
 *       cbt=<path or ""> mirror=<format:path or ""> mirror_options=… users=<word,word>
 *       [throttle_bytes= throttle_operations=] [sealed=1]
 *   mirror names the target while a mirror is under way; once it is over mirror_options begins with how: switched,
 *   done, failed (until mirror-end). size is a hint until the image was open once.
 *
 * verbs
 *   status                      -> state= serving=0|1 size= read_only= key= format= path= cbt= users= clients= in_flight=
 *                                  io=<io_uring|threads> reads= writes= flushes= bytes_read= bytes_written= errors=
 *                                  mirror=none|copying|following|switching|switched|done|failed + mirror_* below
 *   (these five answer state=)
 *   activate                    open the image and let requests through; active already is fine
 *   deactivate                  hold new requests, drain, flush, close the image. Clients stay connected and wait. A
 *                               mirror that has not switched ends as failed
 *   pause                       hold new requests, drain, flush; the image stays open but may be reopened by resume.
 *                               An inactive one stays inactive
 *   resume [format= path= cbt= read_only=]   with a chain: closes the old, opens the new one, then lets requests
 *                               through; when the new one cannot be opened it stays paused, and a resume without a
 *                               chain opens the old one. An inactive one takes the chain and stays inactive. No other
 *                               chain while there is a mirror
 *   resize size=                the image has grown on the medium (paused or active): announce the new size
 *   throttle bytes= operations= of the guest, per second; 0 unlimited; kept in spec
 *   users users= [key=]         who uses it (kept in spec, means nothing to tapd)
 *   adopt read_only= tls=0|1 [certificate=path]   + one descriptor: serve NBD on it; tls=1: TLS before the first byte
 *   listen address= port= tls=0|1 [certificate=]  -> port=   NBD over TCP (STARTTLS required when tls=1)
 *   unlisten
 *   cut                         drops every connection that came by adopt, and answers when nothing of theirs is below; from then
 *                               on adopt is refused (kept in spec: sealed=1)
 *   mirror-start format= path= [bandwidth=bytes/s] [budget_ms=] [mode=mirror|copy|point|merge] [proof=1|0]
 *                [silence_ms=] [reconnect_ms=] [streams=]   see storage/tapd/mirror.h
 *   mirror-set   [bandwidth=] [budget_ms=]
 *   mirror-switch               once converged: drain, copy and prove the rest, go over to the target (spec is
 *                               rewritten), drop the old image. Answers at once; status tells
 *   mirror-hand-over            mode mirror, nobody writes any more: holds requests, drains, copies and proves the rest, flushes
 *                               the target; then the mirror is done, the tap is paused on its source, and deactivate closes
 *                               it. Answers at once; status tells. activate takes it back, also when it is done: requests
 *                               go on, on the source, and the target is forgotten
 *   mirror-abort                forgets the target; the guest notices nothing. After the switch: error
 *   mirror-end                  after switched, done or failed: forgets the mirror, state none
 *   fault-arm spec=             -> was= (what was armed, and how often it was visited: fault_list) as FAULTS; "" disarms all
 *                               (only when started with --allow-faults)
 *   quit                        deactivate, answer, exit
 *
 * While an active disk by NBD cannot be reached the guest waits, and verbs that would have to drain it (deactivate, quit,
 * pause, mirror-start, mirror-end, another chain) are refused.
 * Verbs run one at a time, whatever connection they come by; only status and fault-arm do not wait. A spec that is
 * active but cannot be opened at the start is tried again every second (serving=0 until then). SIGTERM drains, flushes
 * and exits; the spec stays and a restart goes on.
 *
 * mirror_* of status: mirror_mode (as given) mirror_total mirror_copied mirror_dirty mirror_unproven mirror_sent (bytes), mirror_rate
 *   mirror_write_rate (bytes/s), mirror_eta_ms (-1: will not converge), mirror_left (bytes that would stay for
 *   ever), mirror_millionths (how far it is; never goes back),
 *   mirror_passes, mirror_repaired, mirror_proven, mirror_pause_us (of the switch or the hand-over), mirror_error (text),
 *   mirror_lost_us (from the break to its report), mirror_lost (1: the target is away just now), mirror_handing (1: a hand-over is under way), mirror_handed (1: done so)
 * A URI's cookie (storage/tapd/nbd_client.h) is in the spec alone, which only root reads: never in an answer or a log. */
#ifndef STORAGE_TAPD_CONTROL_PROTOCOL_H
#define STORAGE_TAPD_CONTROL_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>

#include "rpc/base/arena.h"
#include "rpc/base/attributes.h"
#include "rpc/base/text.h"
#include "rpc/base/value.h"

#define CONTROL_LINE_MAX 16384u

/* "verb key=value …" without the newline, appended; arguments is a map, its values written as text. */
void control_message_write(struct text *, const char *verb, const struct value *arguments);
/* False when malformed. verb and the map of strings in the arena. */
NODISCARD bool control_message_parse(struct arena *, const char *line, size_t len, const char **verb_r, struct value *arguments_r);

#endif
