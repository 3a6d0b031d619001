#include "xapi/core/vbd_device.h"

#include <ctype.h>
#include <string.h>

#include "rpc/base/text.h"

/* "a" 0 … "z" 25, "aa" 26 …; a partition number may follow. */
static bool letters_number(const char *s, unsigned *number_r)
{
    unsigned n = 0, len = 0;
    for (; islower((unsigned char)*s); s++, len++)
        n = (n + (len > 0)) * 26 + (unsigned)(*s - 'a');
    for (; isdigit((unsigned char)*s); s++)
        ;
    *number_r = n;
    return len > 0 && len <= 2 && *s == '\0' && n <= VBD_DEVICES_MAX;
}

bool vbd_device_number(const char *device, unsigned *number_r)
{
    static const char *const prefixes[] = { "xvd", "hd", "sd" };
    uint64_t n;
    if (text_to_uint(device, &n)) {
        *number_r = (unsigned)n;
        return n <= VBD_DEVICES_MAX;
    }
    if (strcmp(device, "fda") == 0 || strcmp(device, "fdb") == 0) {
        *number_r = VBD_FLOPPY_FIRST + (unsigned)(device[2] - 'a');
        return true;
    }
    for (unsigned i = 0; i < ARRAY_LEN(prefixes); i++)
        if (strncmp(device, prefixes[i], strlen(prefixes[i])) == 0)
            return letters_number(device + strlen(prefixes[i]), number_r);
    return false;
}

const char *vbd_device_name(struct arena *a, const char *userdevice)
{
    unsigned n;
    if (!vbd_device_number(userdevice, &n))
        return "";
    if (n >= VBD_FLOPPY_FIRST)
        return arena_printf(a, "fd%c", 'a' + (int)(n - VBD_FLOPPY_FIRST));
    if (n < 26)
        return arena_printf(a, "xvd%c", 'a' + (int)n);
    return arena_printf(a, "xvd%c%c", 'a' + (int)(n / 26 - 1), 'a' + (int)(n % 26));
}

bool vbd_device_used(struct txn *txn, const struct row *vm, unsigned number)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        unsigned n;
        if (vbd != NULL && vbd_device_number(row_string(vbd, F_VBD_userdevice), &n) && n == number)
            return true;
    }
    return false;
}

struct value vbd_devices_free(struct arena *a, struct txn *txn, const struct row *vm, bool floppy)
{
    struct value_list list = { 0 };
    unsigned first = floppy ? VBD_FLOPPY_FIRST : 0, n = floppy ? 2 : VBD_DEVICES_MAX + row_bool(vm, F_VM_is_control_domain);
    for (unsigned i = first; i < first + n; i++)
        if (!vbd_device_used(txn, vm, i))
            value_list_add(a, &list, value_string(floppy ? arena_printf(a, "fd%c", 'a' + (int)(i - first)) : arena_printf(a, "%u", i)));
    return value_list_value(&list);
}
