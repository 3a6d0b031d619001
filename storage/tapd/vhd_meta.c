/* The leaf's BAT and bitmaps on their way to the file: rounds (see vhd_private.h). */
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "storage/tapd/vhd_private.h"

static void meta_op_done(struct disk_io_op_slot *);

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static struct vhd_table_page *page_of(const struct vhd *v, uint32_t block)
{
    return &v->meta.pages[block / VHD_PAGE_ENTRIES];
}

void vhd_meta_init(struct vhd *v, const struct vhd_file *f)
{
    struct vhd_meta *m = &v->meta;
    struct vhd_image *i = vhd_leaf(v);

    vhd_meta_release(v);
    m->table_at = f->header.table_offset;
    m->stage_size = round_up((size_t)i->entries * 4, VHD_SECTOR);
    m->stage = vhd_pages_new(m->stage_size);
    for (size_t pad = (size_t)i->entries * 4; pad < m->stage_size; pad++)
        m->stage[pad] = 0xff; /* the last sector's unused entries */
    m->n_pages = (uint32_t)round_up(i->entries, VHD_PAGE_ENTRIES) / VHD_PAGE_ENTRIES;
    m->pages = xcalloc(m->n_pages, sizeof(*m->pages));
    if (m->round_done == 0) /* what was there before counts as written by the first round: a killed tapd may not have synced it */
        m->round_done = m->round_staged = 1;
    for (uint32_t p = 0; p < m->n_pages; p++)
        m->pages[p].bits_round = m->round_done;
    m->head_size = (uint32_t)round_up(i->bitmap_size, VHD_TABLE_PAGE);
    m->ones = vhd_pages_new(m->head_size);
    memset(m->ones + m->head_size - i->bitmap_size, 0xff, i->bitmap_size);
    m->free = NULL;
    for (unsigned n = 0; n < VHD_META_OPS; n++) {
        m->ops[n] = (struct vhd_meta_op) { .slot.done = meta_op_done, .vhd = v, .next = m->free };
        m->free = &m->ops[n];
    }
}

void vhd_meta_release(struct vhd *v)
{
    struct vhd_meta *m = &v->meta;

    CHECK(!m->running && m->dirty == NULL && m->n_fresh == 0);
    vhd_pages_free(m->stage, m->stage_size);
    vhd_pages_free(m->ones, m->head_size);
    xfree(m->pages);
    m->stage = m->ones = NULL;
    m->pages = NULL;
}

/* --- changes ------------------------------------------------------------------------------------ */
void vhd_meta_want(struct vhd *v)
{
    v->meta.wanted = true;
    loop_later(v->block.loop, &v->gather);
}

static void page_changed(struct vhd *v, uint32_t block)
{
    struct vhd_table_page *p = page_of(v, block);

    p->round = v->meta.round_staged + 1;
    v->meta.n_dirty_pages += !p->dirty;
    p->dirty = true;
}

bool vhd_meta_has_room(struct vhd *v, struct vhd_job *job)
{
    if (v->meta.n_fresh + v->meta.n_fresh_staged < VHD_NEW_MAX)
        return true;
    vhd_park(&v->meta.waiting, job);
    vhd_meta_want(v);
    return false;
}

void vhd_meta_new_block(struct vhd *v, uint32_t block, int64_t at)
{
    struct vhd_meta *m = &v->meta;
    struct vhd_image *i = vhd_leaf(v);

    i->bat[block] = (uint32_t)(at / VHD_SECTOR);
    if (!v->differencing) {
        m->fresh[m->fresh_side][m->n_fresh++] = block;
        vhd_set_full(i, block);
    }
    page_changed(v, block);
    vhd_meta_want(v);
}

static void bitmap_changed(struct vhd *v, struct vhd_bitmap *b)
{
    struct vhd_meta *m = &v->meta;

    b->round = m->round_staged + 1;
    page_of(v, b->block)->bits_round = b->round;
    if (b->dirty)
        return;
    b->dirty = true;
    b->next_dirty = m->dirty;
    m->dirty = b;
}

void vhd_meta_written(struct vhd *v, const struct vhd_part *p)
{
    if (vhd_bitmap_set(p->bitmap->bits, p->first, p->n))
        bitmap_changed(v, p->bitmap);
}

uint64_t vhd_meta_round(const struct vhd *v, const struct vhd_part *p)
{
    uint64_t round = page_of(v, p->block)->round;

    return p->bitmap != NULL && p->bitmap->round > round ? p->bitmap->round : round;
}

bool vhd_meta_synced(const struct vhd *v, uint32_t block, const struct vhd_bitmap *b)
{
    const struct vhd_table_page *p = page_of(v, block);
    uint64_t synced = v->meta.round_synced;

    return p->round <= synced && p->bits_round <= synced && (b == NULL || b->round <= synced);
}

/* --- rounds ------------------------------------------------------------------------------------- */
static void stage(struct vhd *v)
{
    struct vhd_meta *m = &v->meta;
    const struct vhd_image *i = vhd_leaf(v);

    for (uint32_t p = 0; m->n_dirty_pages > 0 && p < m->n_pages; p++) {
        uint32_t first = p * VHD_PAGE_ENTRIES, end = first + VHD_PAGE_ENTRIES < i->entries ? first + VHD_PAGE_ENTRIES : i->entries;
        uint32_t *out = (uint32_t *)(void *)m->stage;

        if (!m->pages[p].dirty)
            continue;
        m->pages[p].dirty = false;
        m->pages[p].staged = true;
        m->n_dirty_pages--;
        for (uint32_t n = first; n < end; n++)
            out[n] = __builtin_bswap32(i->bat[n]);
    }
    m->staged = m->dirty;
    m->dirty = NULL;
    for (struct vhd_bitmap *b = m->staged; b != NULL; b = b->next_dirty) {
        memcpy(b->stage, b->bits, i->bitmap_size);
        b->dirty = false;
        b->staged = true;
        b->next_staged = b->next_dirty;
    }
    m->n_fresh_staged = m->n_fresh;
    m->n_fresh = 0;
    m->fresh_side ^= 1;
    m->fresh_cursor = 0;
    m->bitmap_cursor = m->staged;
    m->page_cursor = 0;
}

/* The next thing of this round to be written; false: that was all. */
static bool next_piece(struct vhd *v, int64_t *offset, void **bytes, size_t *n)
{
    struct vhd_meta *m = &v->meta;
    const struct vhd_image *i = vhd_leaf(v);
    uint32_t first, end;

    if (m->fresh_cursor < m->n_fresh_staged) {
        *offset = vhd_data_at(i, m->fresh[m->fresh_side ^ 1][m->fresh_cursor++]) - m->head_size;
        *bytes = m->ones;
        *n = m->head_size;
        return true;
    }
    if (m->bitmap_cursor != NULL) {
        *offset = vhd_bitmap_at(i, m->bitmap_cursor->block);
        *bytes = m->bitmap_cursor->stage;
        *n = i->bitmap_size;
        m->bitmap_cursor = m->bitmap_cursor->next_staged;
        return true;
    }
    for (first = m->page_cursor; first < m->n_pages && !m->pages[first].staged; first++)
        ;
    for (end = first; end < m->n_pages && m->pages[end].staged && end - first < 256; end++)
        ;
    m->page_cursor = end;
    if (first == end)
        return false;
    *offset = m->table_at + (int64_t)first * VHD_TABLE_PAGE;
    *bytes = m->stage + (size_t)first * VHD_TABLE_PAGE;
    *n = (size_t)(end - first) * VHD_TABLE_PAGE;
    if ((size_t)first * VHD_TABLE_PAGE + *n > m->stage_size)
        *n = m->stage_size - (size_t)first * VHD_TABLE_PAGE;
    return true;
}

/* What was written counts as clean, what was not is dirty again. */
static void unstage(struct vhd *v)
{
    struct vhd_meta *m = &v->meta;
    struct vhd_image *i = vhd_leaf(v);
    uint32_t sectors = i->block_size / VHD_SECTOR;

    for (uint32_t p = 0; p < m->n_pages; p++) {
        if (m->pages[p].staged && m->error != 0)
            page_changed(v, p * VHD_PAGE_ENTRIES);
        m->pages[p].staged = false;
    }
    for (struct vhd_bitmap *b = m->staged, *next; b != NULL; b = next) {
        next = b->next_staged;
        b->staged = false;
        if (m->error != 0)
            bitmap_changed(v, b);
        else if (vhd_bitmap_is_free(b) && b->waiting == NULL && vhd_bit(b->bits, 0) && vhd_bitmap_run(b->bits, 0, sectors) == sectors) {
            vhd_set_full(i, b->block);
            vhd_bitmap_drop(b);
        }
    }
    for (uint32_t n = 0; n < m->n_fresh_staged && m->error != 0; n++)
        m->fresh[m->fresh_side][m->n_fresh++] = m->fresh[m->fresh_side ^ 1][n];
    m->staged = NULL;
    m->n_fresh_staged = 0;
}

static void round_end(struct vhd *v)
{
    struct vhd_meta *m = &v->meta;

    unstage(v);
    m->running = false;
    m->round_done = m->round_staged;
    for (unsigned n = 0; n < VHD_JOBS && m->error != 0; n++)
        if (v->jobs[n].request != NULL && v->jobs[n].round > 0 && v->jobs[n].round <= m->round_done)
            v->jobs[n].error = m->error;
    vhd_wake(&m->waiting, m->error);
    vhd_wake(&v->waiting_bitmap, 0);
    if (m->wanted)
        vhd_meta_want(v);
}

static void pump(struct vhd *v)
{
    struct vhd_meta *m = &v->meta;
    struct vhd_meta_op *op;
    int64_t offset;
    void *bytes;
    size_t n;

    while ((op = m->free) != NULL && m->error == 0 && next_piece(v, &offset, &bytes, &n)) {
        m->free = op->next;
        m->in_flight++;
        op->iov = (struct iovec) { .iov_base = bytes, .iov_len = n };
        op->slot.op = DISK_WRITE;
        op->slot.fd = vhd_leaf(v)->fd;
        op->slot.iov = &op->iov;
        op->slot.n_iov = 1;
        op->slot.offset = offset;
        op->slot.length = (int64_t)n;
        disk_io_submit(v->io, &op->slot);
    }
    if (m->in_flight == 0)
        round_end(v);
}

static void meta_op_done(struct disk_io_op_slot *s)
{
    struct vhd_meta_op *op = CONTAINER_OF(s, struct vhd_meta_op, slot);
    struct vhd_meta *m = &op->vhd->meta;

    op->next = m->free;
    m->free = op;
    m->in_flight--;
    op->vhd->unsynced = true;
    if (s->result != 0)
        m->error = s->result;
    pump(op->vhd);
}

void vhd_meta_round_start(struct vhd *v)
{
    struct vhd_meta *m = &v->meta;

    if (m->running)
        return;
    m->wanted = false;
    if (m->n_dirty_pages == 0 && m->dirty == NULL && m->n_fresh == 0)
        return;
    m->running = true;
    m->error = 0;
    m->round_staged++;
    stage(v);
    pump(v);
}
