/* The link of a differencing image to its parent: the names in the file, and what they lead to.
 *
 * A parent lies in the child's directory or below it. A name that leads elsewhere (absolute, "..") is read as a
 * file of that name in the child's directory: a foreign file cannot make us read what it likes. The parent is the
 * first of the named files whose unique id is the one in the header; timestamps mean nothing. An id of zeros means
 * a raw parent (blktap's convention). */
#ifndef STORAGE_IMAGE_VHD_PARENT_H
#define STORAGE_IMAGE_VHD_PARENT_H

#include "storage/image/vhd_file.h"

struct vhd_parent {
    const char *path;    /* arena; "" : the file names none */
    const char *format;  /* "vhd", "raw" */
    bool found;          /* it is there, and has the id */
};
NODISCARD struct error *vhd_parent_find(const struct vhd_file *, struct vhd_parent *);

/* Fills the header's parent fields of 'f' and writes the locators' bytes to where nothing lies (fdatasync
 * follows with the header, which the caller puts). The parent must be readable; its size is checked. */
NODISCARD struct error *vhd_parent_link(struct vhd_file *, const char *parent, const char *parent_format);
void vhd_parent_unlink(struct vhd_file *); /* the header's fields only */

/* Follows the chain below 'f': every image is opened and its structure checked. */
NODISCARD struct error *vhd_parent_check_chain(const struct vhd_file *);

#endif
