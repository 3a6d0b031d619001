/* What the guest's agent would write to xenstore, as "key=value" lines in the shared memory. */
#include "xenops/sim/guest/guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "xenops/sim/guest_text.h"

static void add_tools(const struct settings *s, struct text *t)
{
    static const char *const features[] = { "control/feature-suspend", "control/feature-shutdown", "control/feature-poweroff",
                                            "control/feature-reboot", "control/feature-vcpu-hotplug" };

    for (unsigned i = 0; i < ARRAY_LEN(features); i++)
        guest_text_add(t, features[i], "1");
    if (!s->no_balloon)
        guest_text_add(t, "control/feature-balloon", "1");
    guest_text_add(t, "attr/PVAddons/Installed", "1");
    guest_text_add(t, "attr/PVAddons/MajorVersion", "8");
    guest_text_add(t, "attr/PVAddons/MinorVersion", "4");
    guest_text_add(t, "attr/PVAddons/MicroVersion", "0");
    guest_text_add(t, "attr/PVAddons/BuildVersion", "1");
    guest_text_add(t, "attr/os/name", "Simulated Guest 1");
    guest_text_add(t, "attr/os/uname", "6.1.0-sim");
    guest_text_add(t, "attr/os/distro", "simulated");
    guest_text_add(t, "attr/os/major", "1");
    guest_text_add(t, "attr/os/minor", "0");
    guest_text_add(t, "data/updated", "1");
}

/* 10.x.y.z from the last three bytes of the MAC. */
static void add_nic(const char *device, const char *mac, struct text *t)
{
    unsigned b[6] = { 0 };
    char key[64], value[32];

    if (sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
        return;
    snprintf(key, sizeof(key), "attr/vif/%s/ipv4/0", device);
    snprintf(value, sizeof(value), "10.%u.%u.%u", b[3], b[4], b[5]);
    guest_text_add(t, key, value);
}

void publish(struct guest *g)
{
    const struct settings *s = &g->settings;
    AUTO_TEXT t = TEXT_INIT;

    if (!s->no_tools)
        add_tools(s, &t);
    for (unsigned i = 0; !s->no_tools && i < s->n_nics; i++)
        add_nic(s->nics[i].device, s->nics[i].mac, &t);
    if (s->cant_suspend_reason[0] != '\0')
        guest_text_add(&t, "data/cant_suspend_reason", s->cant_suspend_reason);
    if (g->verify != NULL)
        guest_text_add(&t, "sim/verify", g->verify);
    size_t len = t.len < GUEST_PUBLISHED_SIZE ? t.len : 0;
    atomic_fetch_add(&g->control->published_seq, 1);
    if (len > 0)
        memcpy(guest_published(g->control), t.bytes, len);
    atomic_store(&g->control->published_len, (uint32_t)len);
    atomic_fetch_add(&g->control->published_seq, 1);
    eventfd_write(g->event_fd, 1);
}
