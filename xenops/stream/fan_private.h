/* What confirm.c must know of fans, and the fans' files of each other. */
#ifndef XENOPS_STREAM_FAN_PRIVATE_H
#define XENOPS_STREAM_FAN_PRIVATE_H

#include "xenops/stream/fan.h"

extern const struct byte_stream_ops fan_out_ops, fan_in_ops;
bool fan_out_unread(struct byte_stream *, uint64_t *unread_r);
NODISCARD int fan_out_wait(struct byte_stream *, uint64_t at_most, int cancel_fd, int timeout_ms);
bool fan_in_waits(const struct byte_stream *);

#endif
