/* Finishing, or taking back, what a journal says was begun (image_journal.h). With the turn held. */
#ifndef STORAGE_DRIVERS_IMAGE_RECOVER_H
#define STORAGE_DRIVERS_IMAGE_RECOVER_H

#include "storage/drivers/file_sr.h"
#include "storage/drivers/image_journal.h"

/* All journals of the directory: those a crash left. attaching: no verb runs yet, and a VDI they name that stands
 * paused goes on, with the chain it has then. */
NODISCARD struct error *images_recover(struct call *, struct sr *, bool attaching);
/* One whose operation failed just now; nothing is paused. */
NODISCARD struct error *image_recover(struct call *, struct sr *, const struct journal *);

#endif
