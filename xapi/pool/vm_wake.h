/* Guests that a checkpoint suspended and nobody resumed, because the coordinator died or their host was full. */
#ifndef XAPI_POOL_VM_WAKE_H
#define XAPI_POOL_VM_WAKE_H

#include "xapi/core/api_call.h"

/* Resumes those whose image says so (VM_IMAGE_WAKES) and that nothing is being done with. Failures are logged; the
 * next call tries again. Blocks. */
void vm_wake_all(struct api_call *c);
/* The image is a checkpoint's alone now. A null ref is fine. */
NODISCARD struct error *vm_wake_done(struct api_call *c, const char *image_ref);

#endif
