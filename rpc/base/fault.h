/* Named points where tests make things go wrong: fault_hit("db.commit") .
 *
 * Armed by the FAULTS environment variable of a process or at run time by the control socket:
 * "name=action[@n][,…]" with action crash (SIGKILL to self), error, stop (blocks until disarmed),
 * or a word the caller understands; @n: only the nth visit. Costs one relaxed load when nothing is armed. */
#ifndef RPC_BASE_FAULT_H
#define RPC_BASE_FAULT_H

#include <stdbool.h>

#include "rpc/base/text.h"

bool fault_hit_(const char *name);
extern bool fault_armed_; /* anything armed at all */
/* True when the caller must fail here. 'crash' does not return. */
#define fault_hit(name) (__builtin_expect(__atomic_load_n(&fault_armed_, __ATOMIC_RELAXED), 0) && fault_hit_(name))
/* The word armed for 'name' ("flip-page" in "demo=flip-page"), or NULL; does not count a visit. */
const char *fault_word(const char *name);

void fault_init_from_env(void);           /* reads FAULTS */
bool fault_arm(const char *spec);         /* false when malformed; adds to what is armed */
void fault_disarm(const char *name);      /* NULL: all */
void fault_list(struct text *);           /* adds "name=word visits" and a newline for each that is armed */

#endif
