/* Numbers of the two formats: XenSavedDomv2 framing (what xapi writes around everything) and the libxc
 * migration stream v3 inside it (xen.git docs/specs/libxc-migration-stream.pandoc). */
#ifndef XENOPS_STREAM_FORMAT_H
#define XENOPS_STREAM_FORMAT_H

#include <stdint.h>

/* --- framing: signature, then records of i64 type, i64 length (little-endian), payload --- */
#define IMAGE_SIGNATURE "XenSavedDomv2-\n"
#define IMAGE_SIGNATURE_LEN 15
#define IMAGE_XENOPS 0x000f
#define IMAGE_LIBXC 0x00f0 /* its length means nothing: the libxc stream ends itself */
#define IMAGE_LIBXL 0x00f1
#define IMAGE_LIBXC_LEGACY 0x00f2
#define IMAGE_QEMU_TRAD 0x0f00
#define IMAGE_QEMU_XEN 0x0f01
#define IMAGE_DEMU 0x0f10
#define IMAGE_VARSTORED 0x0f11
#define IMAGE_SWTPM0 0x0f12
#define IMAGE_SWTPM 0x0f13
#define IMAGE_END 0xffff
#define IMAGE_STATE_MAX (1u << 20) /* of the Xenops record */
#define IMAGE_DEVICE_MAX (1u << 20) /* of an emulator's record */

struct image_record_head { int64_t type, length; };

/* --- libxc v3 --- */
#define LIBXC_ID 0x58454e46u /* "XENF" */
#define LIBXC_VERSION 3u
#define LIBXC_TYPE_HVM 2u
#define LIBXC_PAGE_SHIFT 12u
#define LIBXC_PAGE 4096u

struct libxc_image_head { /* big-endian */
    uint64_t marker; /* all ones */
    uint32_t id, version;
    uint16_t options; /* bit 0: big-endian stream */
    uint16_t reserved[3];
};
struct libxc_domain_head { /* little-endian, as all that follows */
    uint32_t type;
    uint16_t page_shift, reserved;
    uint32_t xen_major, xen_minor;
};
struct libxc_record_head { uint32_t type, length; };
_Static_assert(sizeof(struct libxc_image_head) == 24 && sizeof(struct libxc_domain_head) == 16, "layout");

#define LIBXC_RECORD_MAX (128u << 20)
#define LIBXC_OPTIONAL 0x80000000u
enum libxc_record {
    LIBXC_END = 0x00,
    LIBXC_PAGE_DATA = 0x01,
    LIBXC_TSC_INFO = 0x08,
    LIBXC_HVM_CONTEXT = 0x09,
    LIBXC_HVM_PARAMS = 0x0a,
    LIBXC_STATIC_DATA_END = 0x10,
    LIBXC_CPUID_POLICY = 0x11,
    LIBXC_MSR_POLICY = 0x12,
};

struct libxc_cpuid_leaf { uint32_t leaf, subleaf, a, b, c, d; };
struct libxc_msr { uint32_t index, flags; uint64_t value; };
struct libxc_tsc_info { uint32_t mode, khz; uint64_t nsec; uint32_t incarnation, reserved; };
struct libxc_hvm_param { uint64_t index, value; };
struct libxc_page_head { uint32_t count, reserved; };

/* A pfn word: type in bits 63-60, zero in 59-52, the pfn below. */
#define LIBXC_PFN_MASK 0x000fffffffffffffull
#define LIBXC_PFN_ZERO 0x0ff0000000000000ull
#define LIBXC_PFN_TYPE(word) ((unsigned)((word) >> 60))
#define LIBXC_PFN(type, pfn) ((uint64_t)(type) << 60 | (pfn))
enum libxc_pfn_type { LIBXC_PFN_NORMAL = 0x0, LIBXC_PFN_BROKEN = 0xd, LIBXC_PFN_ALLOCATE = 0xe, LIBXC_PFN_INVALID = 0xf };

#define LIBXC_BATCH 1024u      /* pfns a PAGE_DATA record that we write */
#define LIBXC_BATCH_MAX 32768u /* that we read: all that fit a record */
#define LIBXC_CONTEXT_MAX (1u << 20)

#endif
