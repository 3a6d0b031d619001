#include "xapi/migrate/announce.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "rpc/base/fd.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/thread.h"
#include "xapi/core/api_call.h"
#include "xapi/migrate/announce_frame.h"

LOG_MODULE(announce);

static const unsigned again_after_ms[] = { 50, 100, 200, 400 }; /* each since the one before: 50, 150, 350, 750 in all */

struct announcer {
    struct lock lock; /* class SINKS */
    struct cond changed;
    unsigned threads;
    bool stopping;
};

/* One frame and the interface it goes out on. */
struct outgoing { int interface; struct announce_frame frame; };
/* What is said again; owned by its thread. */
struct announcement { struct announcer *announcer; struct outgoing *frames; unsigned n; };

void announce_start(struct xapi *xapi)
{
    struct announcer *an = xcalloc(1, sizeof *an);
    lock_init(&an->lock, LOCK_SINKS);
    cond_init(&an->changed);
    xapi->announcer = an;
}

void announce_stop(struct xapi *xapi)
{
    struct announcer *an = xapi->announcer;
    if (an == NULL)
        return;
    xapi->announcer = NULL;
    lock_take(&an->lock);
    an->stopping = true;
    cond_broadcast(&an->changed);
    while (an->threads > 0)
        cond_wait(&an->changed, &an->lock);
    lock_drop(&an->lock);
    cond_release(&an->changed);
    lock_release(&an->lock);
    xfree(an);
}

/* --- the frames of a set of VIFs ------------------------------------------------------------------------------ */
struct frame_list { struct outgoing *items; unsigned n, room; };

static void add(struct frame_list *list, int interface, const struct announce_frame *frame)
{
    if (list->n == list->room) {
        list->room = list->room == 0 ? 8 : 2 * list->room;
        list->items = xrealloc(list->items, list->room * sizeof *list->items);
    }
    list->items[list->n++] = (struct outgoing){ interface, *frame };
}

static void add_vif(struct frame_list *list, const struct value *vif)
{
    const char *bridge = value_get_string(vif, "bridge", ""), *text = value_get_string(vif, "mac", "");
    const struct value *addresses = value_get(vif, "addresses");
    uint8_t mac[6];
    int interface = (int)if_nametoindex(bridge);
    if (interface == 0 || !announce_mac(text, mac)) {
        log_info("'%s' on bridge '%s' is not announced: %s", text, bridge, interface == 0 ? "no such bridge here" : "no MAC");
        return;
    }
    unsigned before = list->n;
    struct announce_frame frames[ANNOUNCE_FRAMES_MAX];
    for (unsigned i = 0; addresses != NULL && addresses->kind == VALUE_SET && i < addresses->len; i++) {
        unsigned n = addresses->items[i].kind == VALUE_STRING ? announce_address(addresses->items[i].s, mac, frames) : 0;
        for (unsigned j = 0; j < n; j++)
            add(list, interface, &frames[j]);
    }
    if (list->n > before)
        return;
    announce_rarp(&frames[0], mac);
    add(list, interface, &frames[0]);
}

/* --- sending ------------------------------------------------------------------------------------------------------ */
static bool send_frame(int fd, const struct outgoing *out)
{
    struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = out->interface, .sll_halen = 6 };
    memcpy(&to.sll_protocol, out->frame.bytes + 12, 2); /* in network order in both */
    memcpy(to.sll_addr, out->frame.bytes, 6);
    return sendto(fd, out->frame.bytes, out->frame.len, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to) == (ssize_t)out->frame.len;
}

/* How many went out; *first_us_r is set when the first did. */
static unsigned send_round(const struct clock *clock, const struct outgoing *frames, unsigned n, int64_t *first_us_r)
{
    AUTO_FD fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* protocol 0: receives nothing */
    unsigned sent = 0;
    if (fd < 0) {
        log_warn_rl("guests cannot be announced: a packet socket: %s", strerror(errno));
        return 0;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!send_frame(fd, &frames[i])) {
            log_info("an announcement did not go out: %s", strerror(errno));
            continue;
        }
        if (sent++ == 0 && first_us_r != NULL)
            *first_us_r = clock_us(clock);
    }
    return sent;
}

/* False when the daemon stops. */
static bool wait_ms(struct announcer *an, unsigned ms)
{
    LOCK_SCOPE(&an->lock);
    while (!an->stopping && cond_wait_ms(&an->changed, &an->lock, ms))
        ; /* another thread ended: the next wait is a little late, which does no harm */
    return !an->stopping;
}

static void *say_again(void *arg)
{
    struct announcement *a = arg;
    struct announcer *an = a->announcer;
    for (unsigned i = 0; i < ARRAY_LEN(again_after_ms) && wait_ms(an, again_after_ms[i]); i++)
        (void)send_round(NULL, a->frames, a->n, NULL);
    xfree(a->frames);
    xfree(a);
    LOCK_SCOPE(&an->lock);
    an->threads--;
    cond_broadcast(&an->changed);
    return NULL;
}

/* Takes the frames. */
static void repeat(struct announcer *an, struct frame_list *list)
{
    struct announcement *a = xcalloc(1, sizeof *a);
    *a = (struct announcement){ an, list->items, list->n };
    lock_take(&an->lock);
    bool stopping = an->stopping;
    an->threads += stopping ? 0 : 1;
    lock_drop(&an->lock);
    pthread_t thread;
    int r = stopping ? -ECANCELED : thread_try_start("announce", say_again, a, &thread);
    if (r == 0) {
        pthread_detach(thread);
        return;
    }
    log_info("an announcement is not repeated: %s", strerror(-r));
    xfree(a->frames);
    xfree(a);
    if (stopping)
        return;
    LOCK_SCOPE(&an->lock);
    an->threads--;
    cond_broadcast(&an->changed);
}

void announce_vifs(struct call *c, struct xapi *xapi, const struct value *vifs, unsigned *frames_r, int64_t *at_us_r)
{
    struct frame_list list = { 0 };
    *frames_r = 0;
    *at_us_r = 0;
    for (unsigned i = 0; vifs != NULL && vifs->kind == VALUE_SET && i < vifs->len; i++)
        add_vif(&list, &vifs->items[i]);
    if (list.n > 0)
        *frames_r = send_round(c->clock, list.items, list.n, at_us_r);
    if (*frames_r > 0 && xapi->announcer != NULL)
        repeat(xapi->announcer, &list);
    else
        xfree(list.items);
}

/* --- the plan ------------------------------------------------------------------------------------------------------ */
static void add_address(struct arena *a, struct value_list *list, const char *address)
{
    struct value have = value_list_value(list);
    for (unsigned i = 0; i < have.len; i++)
        if (strcmp(have.items[i].s, address) == 0)
            return;
    if (*address != '\0')
        value_list_add(a, list, value_string(address));
}

/* Keys of guest metrics' networks: "0/ip", "0/ipv4/0", "0/ipv6/1": the VIF's device first. */
static bool address_key(const char *key, const char *device)
{
    size_t n = strlen(device);
    if (n == 0 || strncmp(key, device, n) != 0 || key[n] != '/')
        return false;
    const char *rest = key + n + 1;
    return strcmp(rest, "ip") == 0 || strncmp(rest, "ipv4/", 5) == 0 || strncmp(rest, "ipv6/", 5) == 0;
}

static struct value addresses_of(struct api_call *c, const struct row *vif, const struct row *metrics)
{
    static const unsigned sets[] = { F_VIF_ipv4_addresses, F_VIF_ipv6_addresses, F_VIF_ipv4_allowed, F_VIF_ipv6_allowed };
    struct value_list list = { 0 };
    const struct value *told = metrics != NULL ? row_value(metrics, F_VM_guest_metrics_networks) : NULL;
    for (unsigned i = 0; told != NULL && i < told->len; i++)
        if (told->members[i].value.kind == VALUE_STRING && address_key(told->members[i].name, row_string(vif, F_VIF_device)))
            add_address(c->arena, &list, told->members[i].value.s);
    for (unsigned s = 0; s < ARRAY_LEN(sets); s++) {
        const struct value *set = row_value(vif, sets[s]);
        for (unsigned i = 0; i < set->len; i++)
            add_address(c->arena, &list, arena_strndup(c->arena, set->items[i].s, strcspn(set->items[i].s, "/")));
    }
    return value_list_value(&list);
}

struct value announce_plan(struct api_call *c, const struct row *vm)
{
    const struct value *vifs = row_value(vm, F_VM_VIFs);
    const struct row *metrics = db_get(c->db, c->arena, &model_classes[CLASS_VM_guest_metrics], row_string(vm, F_VM_guest_metrics));
    const char *power = row_string(vm, F_VM_power_state);
    bool lives = strcmp(power, "Running") == 0 || strcmp(power, "Paused") == 0;
    struct value_list list = { 0 };
    for (unsigned i = 0; i < vifs->len; i++) {
        const struct row *vif = db_get(c->db, c->arena, &model_classes[CLASS_VIF], vifs->items[i].s);
        const struct row *network = vif != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_network], row_string(vif, F_VIF_network)) : NULL;
        if (network == NULL || (lives && !row_bool(vif, F_VIF_currently_attached)))
            continue; /* of a VM that has only just been imported nothing is attached yet */
        struct value_dict d = { 0 };
        value_dict_add(c->arena, &d, "bridge", value_string(row_string(network, F_network_bridge)));
        value_dict_add(c->arena, &d, "mac", value_string(row_string(vif, F_VIF_MAC)));
        value_dict_add(c->arena, &d, "addresses", addresses_of(c, vif, metrics));
        value_list_add(c->arena, &list, value_dict_value(&d));
    }
    return value_list_value(&list);
}
