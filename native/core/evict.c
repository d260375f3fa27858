/* Owns the ghosts, the marks' fall, and head and mid of both rings.
 *
 * Everything here runs with the shard lock held.  The order that keeps a kill harmless, for every
 * victim: its index word is replaced (by 0, or by its new place, whose bytes are already complete);
 * then head rises; only then may anyone write over its bytes.  Killed between the first two: the
 * oldest item is one that no word names, and the next hand drops it. */
#include "evict.h"

#define REAP_ITEMS 8
#define SQUEEZE_ITEMS 2
#define MID_STEPS 64
#define ENTRY_STEPS 64

enum life { DEAD, EXPIRED, LIVE };

struct victim {
    struct acc_view view;
    struct acc_home home;
    struct acc_slot slot;
    uint64_t hash;
    uint64_t word;
    uint64_t units;
    enum life life;
    uint8_t mark;
    struct acc_tags tags; /* of one that is LIVE, if it has some */
};

static uint64_t hash_of(const struct acc_segment *seg, const struct acc_view *view) {
    return acc_hash_of_item(seg, view->common.area, view->key, view->common.key_size);
}

static bool generations_valid(const struct acc_segment *seg, const struct acc_view *view,
                              uint64_t hash) {
    uint64_t word = acc_load_acquire(acc_generation_word(seg, acc_generation_index(seg, hash)));
    uint32_t area = acc_area_base(seg, view->common.area);
    return acc_generation_valid(word, view->record.key_count, hash) &&
           (uint32_t)acc_load_acquire(&acc_area_slot(seg, area)->generation) ==
               view->record.area_count;
}

/* Judge a live item by its tags, which are needed if it is moved. */
static enum life life_by_tags(struct acc_segment *seg, struct victim *v) {
    if (!acc_view_tags(seg, &v->view, &v->tags)) {
        acc_count(acc_stats_of(seg, acc_area_base(seg, v->view.common.area)), ACC_CORRUPT_ITEM);
        return DEAD;
    }
    enum acc_tags_state state =
        acc_tags_judge(seg, acc_area_base(seg, v->view.common.area), &v->tags);
    struct acc_record rest = v->view.record;
    return state == ACC_TAGS_HOLD ||
                   (state == ACC_TAGS_EXPIRED && acc_record_expire(&rest, acc_now(seg)))
               ? LIVE
               : DEAD;
}

/* --- looking ahead ---------------------------------------------------------------------------- */

static struct acc_ghosts *ghost_line(const struct acc_segment *seg, uint32_t shard, uint64_t hash) {
    uint32_t where = (uint32_t)(acc_remix(hash, 0xa3b195354a39b70dull) >> 32);
    return acc_ghost_line(seg, shard, acc_range(where, seg->geometry.ghost_lines));
}

static struct acc_ahead *ahead_of(const struct acc_segment *seg, uint32_t shard,
                                  enum acc_hand hand) {
    return &seg->ahead[shard * ACC_HANDS + hand];
}

static void prefetch_home(const struct acc_segment *seg, uint32_t shard, uint64_t hash,
                          bool ghost) {
    struct acc_home home = acc_home_of(seg, hash);
    acc_prefetch(acc_home_first(seg, &home));
    acc_prefetch(acc_generation_word(seg, acc_generation_index(seg, hash)));
    if (ghost) {
        acc_prefetch(ghost_line(seg, shard, hash));
    }
}

/* Every few steps of a hand: verify the next few items, hash their keys and fetch the lines that
 * judging them will need. Together they take hardly longer than one of them would.  False: what
 * stands at `from` does not verify. */
static bool look_ahead(const struct acc_segment *seg, uint32_t shard, enum acc_hand hand,
                       uint64_t from) {
    struct acc_ahead *ahead = ahead_of(seg, shard, hand);
    uint32_t ring = hand == ACC_HAND_MAIN ? ACC_MAIN : ACC_SMALL;
    uint64_t tail = acc_shard(seg, shard)->ring[ring].tail;
    ahead->n = ahead->at = 0;
    while (ahead->n < ACC_AHEAD && from < tail) {
        struct acc_ahead_item *item = &ahead->item[ahead->n];
        struct acc_view view;
        uint64_t units;
        enum acc_status status = acc_ring_step(seg, shard, ring, from, &view, &units);
        if (status == ACC_CORRUPT || units > acc_offset_distance(seg, ring, from, tail)) {
            break;
        }
        *item = (struct acc_ahead_item){.offset = from, .units = (uint32_t)units};
        item->nothing =
            status != ACC_OK || acc_view_dead(&view) || view.common.area >= seg->geometry.areas;
        if (!item->nothing) {
            item->hash = hash_of(seg, &view);
            prefetch_home(seg, shard, item->hash, hand != ACC_HAND_MID);
        }
        from = acc_offset_add(seg, ring, from, units);
        ahead->n++;
    }
    return ahead->n != 0;
}

/* What a hand finds at an offset between head and tail; NULL: it does not verify. */
static const struct acc_ahead_item *ahead_at(const struct acc_segment *seg, uint32_t shard,
                                             enum acc_hand hand, uint64_t offset) {
    struct acc_ahead *ahead = ahead_of(seg, shard, hand);
    while (ahead->at < ahead->n && ahead->item[ahead->at].offset < offset) {
        ahead->at++;
    }
    if (ahead->at == ahead->n || ahead->item[ahead->at].offset != offset) {
        if (!look_ahead(seg, shard, hand, offset)) {
            return NULL;
        }
    }
    return &ahead->item[ahead->at];
}

static bool retired(const struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t offset) {
    struct acc_common common;
    memcpy(&common, acc_ring_at(seg, shard, ring, offset), sizeof common);
    return acc_common_flags(&common) & ACC_ITEM_DEAD;
}

/* Whose item is it, does a word name it, and is it alive? */
static void resolve(struct acc_segment *seg, uint32_t shard, uint64_t hash, struct victim *v) {
    const struct acc_view *view = &v->view;
    v->life = DEAD;
    v->hash = hash;
    v->home = acc_home_of(seg, hash);
    v->word = acc_word_make(v->home.tag, view->ring, view->offset);
    if (v->home.shard != shard || !acc_index_find(seg, &v->home, v->word, &v->slot)) {
        v->word = 0;
        return;
    }
    v->mark = acc_load_relaxed(acc_slot_mark(v->slot));
    if (generations_valid(seg, view, hash)) {
        bool gone =
            view->record.expire_at != 0 && acc_record_age(&view->record, acc_now(seg)) == ACC_GONE;
        v->life = gone ? EXPIRED : acc_record_tagged(&view->record) ? life_by_tags(seg, v) : LIVE;
    }
}

/* --- ghosts ----------------------------------------------------------------------------------- */

static uint32_t ghost_shift(const struct acc_segment *seg) {
    uint32_t slots = seg->geometry.buckets * ACC_BUCKET_SLOTS;
    return slots <= 8192 ? 0 : 19u - (uint32_t)__builtin_clz(slots);
}

static uint32_t ghost_print(uint64_t hash) {
    uint32_t print = (uint32_t)(hash >> 24) & 0xffff;
    return print == 0 ? 1 : print;
}

static void ghost_put(struct acc_segment *seg, uint32_t shard, uint64_t hash) {
    struct acc_shard *s = acc_shard(seg, shard);
    struct acc_ghosts *line = ghost_line(seg, shard, hash);
    uint32_t print = ghost_print(hash);
    uint16_t now = (uint16_t)(++s->ghost_clock >> ghost_shift(seg));
    uint32_t oldest = 0;
    uint16_t oldest_age = 0;
    for (uint32_t i = 0; i < ACC_GHOST_SLOTS; i++) {
        uint32_t ghost = line->slot[i];
        if (ghost == 0 || ghost >> 16 == print) {
            oldest = i;
            break;
        }
        uint16_t age = (uint16_t)(now - (uint16_t)ghost);
        if (age >= oldest_age) {
            oldest = i;
            oldest_age = age;
        }
    }
    line->slot[oldest] = print << 16 | now;
}

bool acc_ghost_take(struct acc_segment *seg, uint32_t shard, uint64_t hash) {
    struct acc_shard *s = acc_shard(seg, shard);
    struct acc_ghosts *line = ghost_line(seg, shard, hash);
    uint32_t print = ghost_print(hash), shift = ghost_shift(seg);
    for (uint32_t i = 0; i < ACC_GHOST_SLOTS; i++) {
        if (line->slot[i] >> 16 == print) {
            uint16_t age = (uint16_t)((s->ghost_clock >> shift) - (uint16_t)line->slot[i]);
            line->slot[i] = 0;
            /* An old ghost says little: without this limit a fifth of the gain over LRU is lost. */
            return (uint64_t)age << shift <= (uint64_t)acc_load_relaxed(&s->entries) * 9 / 10;
        }
    }
    return false;
}

/* --- taking items out ------------------------------------------------------------------------- */

static void drop(struct acc_segment *seg, uint32_t shard, const struct victim *v) {
    if (v->word != 0) {
        acc_index_remove(seg, shard, v->slot, v->word);
    }
}

static void count(struct acc_segment *seg, const struct victim *v, enum acc_counter counter) {
    acc_count(acc_stats_of(seg, acc_area_base(seg, v->view.common.area)), counter);
}

static void raise_head(struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t units) {
    struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    acc_store_release(&r->head, acc_offset_add(seg, ring, r->head, units));
}

static bool is_empty(const struct acc_segment *seg, uint32_t shard, uint32_t ring) {
    const struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    return r->head == r->tail;
}

static void reset_ring(struct acc_segment *seg, uint32_t shard, uint32_t ring) {
    acc_index_drop_ring(seg, shard, ring);
    acc_ring_reset(seg, shard, ring);
    acc_add_relaxed(&acc_shard(seg, shard)->resets, (uint64_t)1);
}

void acc_evict_ensure_sound(struct acc_segment *seg, uint32_t shard) {
    for (uint32_t ring = 0; ring < 2; ring++) {
        if (acc_unlikely(!acc_ring_sound(seg, shard, ring))) {
            reset_ring(seg, shard, ring);
        }
    }
}

/* The oldest item of a ring that something may still name; what nothing names is stepped over.
 * False: the ring is empty now. */
static bool oldest(struct acc_segment *seg, uint32_t shard, uint32_t ring, struct victim *v) {
    struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    enum acc_hand hand = ring == ACC_MAIN ? ACC_HAND_MAIN : ACC_HAND_SMALL;
    while (r->head != r->tail) {
        const struct acc_ahead_item *item = ahead_at(seg, shard, hand, r->head);
        if (item == NULL) {
            reset_ring(seg, shard, ring);
            return false;
        }
        v->units = item->units;
        if (!item->nothing && !retired(seg, shard, ring, r->head)) {
            if (!acc_view_load(seg, shard, ring, r->head, &v->view)) {
                reset_ring(seg, shard, ring);
                return false;
            }
            resolve(seg, shard, item->hash, v);
            return true;
        }
        raise_head(seg, shard, ring, v->units);
    }
    return false;
}

/* --- moving ----------------------------------------------------------------------------------- */

/* Free units that main keeps, so that what is re-inserted does not overlap what it is copied from;
 * and its reserve, see there. */
static uint64_t slack(const struct acc_segment *seg) {
    return seg->geometry.ring_units[ACC_MAIN] / 64;
}

/* Free units that new keys leave to those that are there already: a key that begins to be rewritten
 * is stored once or twice more before it has two copies, and is to push nobody out by that.  A 16th
 * of small (a 160th of all) holds three times 1 KB in a ring of the smallest segment. */
static uint64_t reserve(const struct acc_segment *seg, uint32_t ring) {
    return ring == ACC_MAIN ? slack(seg) : seg->geometry.ring_units[ACC_SMALL] / 16;
}

/* Of a victim that is LIVE. */
static struct acc_parts parts_of(const struct victim *v) {
    const struct acc_view *view = &v->view;
    return (struct acc_parts){
        .key = view->key + 1,
        .value = view->value,
        .key_size = view->common.key_size,
        .tag = view->key[0],
        .area = view->common.area,
        .tags = acc_record_tagged(&view->record) ? &v->tags : NULL,
        .record = view->record,
    };
}

/* Copy to main's newest end; then the word.  The old bytes are untouched, so a reader never misses
 * the item. */
static void move_to_main(struct acc_segment *seg, uint32_t shard, const struct victim *v,
                         const struct acc_parts *parts, uint8_t mark) {
    uint64_t offset = acc_ring_append(seg, shard, ACC_MAIN, parts);
    acc_index_replace(v->slot, v->word, acc_word_make(v->home.tag, ACC_MAIN, offset), mark);
}

/* The same for an item that does not fit beside itself: through memory of ours.  Between the two
 * stores of its word a reader misses it, and a kill loses it (one item, as promised). */
static bool move_through_scratch(struct acc_segment *seg, uint32_t shard, const struct victim *v,
                                 struct acc_parts *parts, uint8_t mark) {
    uint64_t size = (uint64_t)parts->key_size + acc_record_size(&parts->record);
    if (seg->scratch == NULL || size > ACC_SCRATCH_BYTES || !acc_cas32(&seg->scratch_busy, 0, 1)) {
        return false;
    }
    memcpy(seg->scratch, v->view.key, parts->key_size);
    memcpy(seg->scratch + parts->key_size, v->view.value, acc_record_size(&parts->record));
    parts->key = seg->scratch + 1;
    parts->value = seg->scratch + parts->key_size;
    drop(seg, shard, v);
    raise_head(seg, shard, ACC_MAIN, v->units);
    if (acc_ring_fits(seg, shard, ACC_MAIN, acc_parts_units(parts), 0)) {
        uint64_t offset = acc_ring_append(seg, shard, ACC_MAIN, parts);
        if (acc_index_insert(seg, &v->home, acc_word_make(v->home.tag, ACC_MAIN, offset), mark)) {
            acc_add_relaxed(&acc_shard(seg, shard)->entries, 1u);
        }
    }
    acc_store_release(&seg->scratch_busy, 0u);
    return true;
}

/* Main's oldest item to main's newest end.  False: no budget, or no room to do it. */
static bool reinsert(struct acc_segment *seg, uint32_t shard, const struct victim *v, uint8_t mark,
                     struct acc_budget *budget) {
    struct acc_parts parts = parts_of(v);
    uint64_t units = acc_parts_units(&parts);
    if (budget->items == 0 || budget->units < units) {
        return false;
    }
    budget->items--;
    budget->units -= units;
    if (acc_ring_fits(seg, shard, ACC_MAIN, units, 0)) {
        move_to_main(seg, shard, v, &parts, mark);
        raise_head(seg, shard, ACC_MAIN, v->units);
        return true;
    }
    return move_through_scratch(seg, shard, v, &parts, mark);
}

/* --- the hands -------------------------------------------------------------------------------- */

static void pop_main(struct acc_segment *seg, uint32_t shard, struct acc_budget *budget) {
    struct victim v;
    if (!oldest(seg, shard, ACC_MAIN, &v)) {
        return;
    }
    if (v.life == LIVE && v.mark != 0 && reinsert(seg, shard, &v, (uint8_t)(v.mark - 1), budget)) {
        return;
    }
    drop(seg, shard, &v);
    raise_head(seg, shard, ACC_MAIN, v.units);
    if (v.life == LIVE) {
        count(seg, &v, ACC_EVICTIONS);
        if (v.mark != 0) {
            ghost_put(seg, shard, v.hash); /* it had earned to stay, only the budget was spent */
        }
    } else if (v.life == EXPIRED) {
        count(seg, &v, ACC_EXPIRED);
        ghost_put(seg, shard, v.hash);
    }
}

static bool crowded(const struct acc_segment *seg, uint32_t shard) {
    return (int32_t)acc_load_relaxed(&acc_shard(seg, shard)->entries) >=
           (int32_t)seg->geometry.entries_max;
}

static void make_room_main(struct acc_segment *seg, uint32_t shard, uint64_t units, uint64_t spare,
                           struct acc_budget *budget) {
    while (!acc_ring_fits(seg, shard, ACC_MAIN, units, spare) && !is_empty(seg, shard, ACC_MAIN)) {
        pop_main(seg, shard, budget);
    }
}

static void pop_small(struct acc_segment *seg, uint32_t shard, struct acc_budget *budget) {
    struct victim v;
    if (!oldest(seg, shard, ACC_SMALL, &v)) {
        return;
    }
    struct acc_parts parts = v.life == LIVE ? parts_of(&v) : (struct acc_parts){0};
    uint64_t units = acc_parts_units(&parts);
    bool admit = v.life == LIVE && units <= acc_evict_units_max(seg) &&
                 (v.mark != 0 ||
                  (!crowded(seg, shard) && acc_ring_fits(seg, shard, ACC_MAIN, units, slack(seg))));
    if (admit) {
        make_room_main(seg, shard, units, slack(seg), budget);
        move_to_main(seg, shard, &v, &parts, 0);
    } else {
        drop(seg, shard, &v);
        if (v.life == LIVE) {
            count(seg, &v, ACC_EVICTIONS);
            ghost_put(seg, shard, v.hash);
        } else if (v.life == EXPIRED) {
            count(seg, &v, ACC_EXPIRED);
        }
    }
    raise_head(seg, shard, ACC_SMALL, v.units);
}

bool acc_evict_make_room(struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t units,
                         bool newcomer, struct acc_budget *budget) {
    uint64_t spare = newcomer ? reserve(seg, ring) : 0;
    if (ring == ACC_MAIN) {
        if (units > acc_evict_units_max(seg)) {
            return false;
        }
        make_room_main(seg, shard, units, spare, budget);
        return true;
    }
    while (!acc_ring_fits(seg, shard, ACC_SMALL, units, spare)) {
        if (!is_empty(seg, shard, ACC_SMALL)) {
            pop_small(seg, shard, budget);
        } else if (acc_ring_fits(seg, shard, ACC_SMALL, units, 0)) {
            break; /* as large as that: it has small for itself */
        } else if (!acc_ring_skip_lap(seg, shard, ACC_SMALL, units)) {
            return false;
        }
    }
    return true;
}

void acc_evict_make_entry(struct acc_segment *seg, uint32_t shard, struct acc_budget *budget) {
    for (int step = 0; step < ENTRY_STEPS && crowded(seg, shard); step++) {
        /* The index is full before the bytes are (small items): keep small's tenth of what is used.
         */
        uint64_t small = acc_ring_used(seg, shard, ACC_SMALL),
                 main = acc_ring_used(seg, shard, ACC_MAIN);
        if (small * 9 > main) {
            pop_small(seg, shard, budget);
        } else {
            pop_main(seg, shard, budget);
        }
    }
}

static bool main_half_dead(const struct acc_segment *seg, uint32_t shard) {
    uint64_t live = acc_load_relaxed(&acc_shard(seg, shard)->main_live);
    uint64_t used = acc_ring_used(seg, shard, ACC_MAIN);
    return live != 0 && used > live && used - live > seg->geometry.ring_units[ACC_MAIN] / 8;
}

void acc_evict_reap(struct acc_segment *seg, uint32_t shard, struct acc_budget *budget) {
    int squeeze = main_half_dead(seg, shard) ? SQUEEZE_ITEMS : 0;
    struct victim v;
    for (int n = 0; n < REAP_ITEMS && oldest(seg, shard, ACC_MAIN, &v); n++) {
        if (v.life == LIVE) {
            /* Dead bytes behind a live item are out of the hand's reach: move the live one out of
             * the way. */
            if (squeeze-- <= 0 || !reinsert(seg, shard, &v, v.mark, budget)) {
                return;
            }
            continue;
        }
        drop(seg, shard, &v);
        raise_head(seg, shard, ACC_MAIN, v.units);
        if (v.life == EXPIRED) {
            count(seg, &v, ACC_EXPIRED);
            ghost_put(seg, shard, v.hash);
        }
    }
}

void acc_evict_move_mid(struct acc_segment *seg, uint32_t shard) {
    struct acc_ring *r = &acc_shard(seg, shard)->ring[ACC_SMALL];
    if (r->mid < r->head || r->mid > r->tail) {
        r->mid = r->head;
    }
    uint64_t young = acc_ring_used(seg, shard, ACC_SMALL) / 4;
    for (int step = 0;
         step < MID_STEPS && acc_offset_distance(seg, ACC_SMALL, r->mid, r->tail) > young; step++) {
        const struct acc_ahead_item *item = ahead_at(seg, shard, ACC_HAND_MID, r->mid);
        if (item == NULL) {
            r->mid = r->tail; /* a garbage mid is no reason to drop the ring; a garbage item is
                                 found by the hand */
            return;
        }
        if (!item->nothing && !retired(seg, shard, ACC_SMALL, r->mid)) {
            struct acc_home home = acc_home_of(seg, item->hash);
            struct acc_slot slot;
            if (acc_index_find(seg, &home, acc_word_make(home.tag, ACC_SMALL, r->mid), &slot)) {
                acc_store_relaxed(acc_slot_mark(slot), (uint8_t)0);
            }
        }
        r->mid = acc_offset_add(seg, ACC_SMALL, r->mid, item->units);
    }
}

void acc_evict_prefetch(const struct acc_segment *seg, uint32_t shard) {
    const struct acc_ring *small = &acc_shard(seg, shard)->ring[ACC_SMALL];
    const uint8_t *tail = acc_ring_at(seg, shard, ACC_SMALL, small->tail);
    for (uint32_t line = 0; line < 4; line++) {
        acc_prefetch(tail + line * ACC_LINE);
    }
}

/* --- both buckets full ------------------------------------------------------------------------ */

/* How much a slot is worth keeping: dead nothing, then by mark, small before main. */
static int worth(struct acc_segment *seg, const struct acc_home *home, struct acc_slot slot,
                 struct victim *v) {
    uint64_t word = acc_load_relaxed(acc_slot_word(slot));
    if (word == 0 ||
        !acc_view_load(seg, home->shard, acc_word_ring(word), acc_word_offset(word), &v->view)) {
        v->word = word;
        v->slot = slot;
        v->life = DEAD;
        return -1;
    }
    v->units = acc_common_units(&v->view.common);
    resolve(seg, home->shard, hash_of(seg, &v->view), v);
    v->word = word;
    v->slot = slot;
    return v->life != LIVE ? -1 : v->mark * 2 + (int)v->view.ring;
}

void acc_evict_from_buckets(struct acc_segment *seg, const struct acc_home *home) {
    struct victim least = {.life = DEAD};
    int least_worth = 100;
    for (int b = 0; b < 2; b++) {
        struct acc_bucket *bucket = b == 0 ? acc_home_first(seg, home) : acc_home_second(seg, home);
        for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
            struct victim v;
            int w = worth(seg, home, (struct acc_slot){bucket, i}, &v);
            if (w < least_worth) {
                least = v;
                least_worth = w;
            }
        }
    }
    drop(seg, home->shard, &least);
    if (least.life == LIVE) {
        count(seg, &least, ACC_EVICTIONS);
    }
}
