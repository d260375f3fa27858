/* What an operation on one key does under the lock of its shard: look the key up, judge what it
 * finds, store.
 *
 * Order of a store: the flights that it overtakes; then, in place, the copy that is not selected and
 * its selection; or room, the item behind the tail, and the index word (ring.c, evict.c).  Killed
 * anywhere in between, readers see the old value or the new one.
 *
 * Where an area has several versions, an explicit store first deletes the key in all of them
 * (version.h).  Killed behind that, and before the index word, readers see neither. */
#include "op.h"

#include "version.h"

#include <string.h>

/* How much of an item is fetched before it is known to be the one. */
#define PREFETCH_BYTES 512u

/* The generations to store under; an old item that a delete has overtaken is none. */
static inline void judge_old(struct op *op) {
    op->area_count = (uint32_t)acc_load_acquire(op->area->generation);
    if (op->has_old && acc_unlikely(!acc_generation_valid(
                           op->generation, op->old.view.record.key_count, op->key->hash))) {
        acc_read_help_delete(op->area, &op->old);
        op->has_old = false; /* deleted: what comes now is new */
    }
    if (op->has_old && acc_unlikely(acc_record_tagged(&op->old.view.record))) {
        op->has_old = acc_found_tags_live(op->area, &op->old);
    }
}

void acc_op_look_up(struct op *op) {
    struct acc_segment *seg = op->area->seg;
    enum acc_status status = ACC_RACE;
    op->look = acc_look(op->area);
    /* With the lock held only a delete can race, and it leaves nothing to find; the bound is for
     * garbage. */
    for (int tries = 0; status == ACC_RACE && tries < 64; tries++) {
        status = acc_read_find(op->area, &op->home, op->key, &op->old);
    }
    op->has_old = status == ACC_OK;
    uint32_t group = acc_generation_index(seg, op->key->hash);
    op->generation =
        op->has_old ? op->old.generation : acc_load_acquire(acc_generation_word(seg, group));
    judge_old(op);
}

/* The same with a guess where the word is.  A key has one word, so what is found there is all there
 * is. */
void acc_op_look_up_at(struct op *op, struct acc_slot guess) {
    op->old.slot = guess;
    op->old.shard = op->home.shard;
    op->look = acc_look(op->area);
    if (acc_unlikely(guess.bucket == NULL ||
                     acc_read_candidate(op->area, &op->home, op->key, &op->old) != ACC_OK)) {
        acc_op_look_up(op);
        return;
    }
    op->has_old = true;
    op->generation = op->old.generation;
    judge_old(op);
}

/* Is there a value to go by, fresh or stale? */
bool acc_op_live(const struct op *op) {
    return op->has_old && op->old.view.record.area_count == op->area_count &&
           acc_record_age(&op->old.view.record, acc_now(op->area->seg)) != ACC_GONE;
}

bool acc_op_fresh(const struct op *op) {
    return acc_op_live(op) &&
           acc_record_age(&op->old.view.record, acc_now(op->area->seg)) == ACC_FRESH;
}

bool acc_op_current(const struct op *op) {
    return acc_op_fresh(op) && acc_look_allows(&op->look, &op->old.view.record);
}

/* May a fill that saw these generations before its load still be stored? */
static bool token_valid(const struct op *op, const struct acc_write *write) {
    return acc_generation_valid(op->generation, write->token_key, op->key->hash) &&
           write->token_area == op->area_count;
}

/* A load that began before one of its tags was deleted or expired is not stored: what it would leave
 * would be born dead, or stale.  (One that comes between here and the publication makes just that.) */
static bool tags_valid(const struct op *op, const struct acc_write *write) {
    return write->tags == NULL || write->same_value ||
           acc_tags_changed(op->area->seg, write->tags) <= write->tags->since;
}

/* The record of a write, as the words it is stored in. */
static inline struct acc_raw raw_of(const struct op *op, const struct acc_write *write) {
    /* A delete or clear between here and the publication makes the item be born dead, as it should.
     */
    uint32_t key = write->has_token ? write->token_key : acc_generation_count(op->generation);
    uint32_t area = write->has_token ? write->token_area : op->area_count;
    return (struct acc_raw){
        .size_expire = write->size | (uint32_t)write->code << 26 |
                       (write->tags == NULL ? 0 : ACC_RECORD_TAGGED) |
                       (uint64_t)write->expire_at << 32,
        .stale_loaded = write->stale_until | (uint64_t)write->loaded_at << 32,
        .counts = key | (uint64_t)area << 32,
        .sum = op->value_sum,
    };
}

static struct acc_parts parts_of(const struct op *op, const struct acc_write *write) {
    struct acc_raw raw = raw_of(op, write);
    return (struct acc_parts){
        .key = op->key->data,
        .value = write->data,
        .key_size = op->key->size + 1,
        .tag = op->key->tag,
        .area = (uint16_t)op->area->id,
        .tags = write->tags,
        .record = acc_raw_record(&raw),
    };
}

/* Room of an item with two copies is reused by what fills at least half of it. */
static bool rewrite_in_place(const struct op *op, const struct acc_write *write) {
    if (!op->has_old || !acc_view_twice(&op->old.view)) {
        return false;
    }
    uint32_t room = acc_view_room(&op->old.view);
    uint32_t size = write->size + acc_tags_bytes(write->tags);
    if (size > room || size < room / 2) {
        return false;
    }
    acc_ring_rewrite(&op->old.view, raw_of(op, write), write->data, write->tags);
    return true;
}

/* A key that comes back while its last copy is among the newest of its ring is rewritten often:
 * give it two copies, so that from now on it is rewritten where it lies and pushes nobody out.  The
 * newest half of small, because dead copies there cost as much room as the second one; the newest
 * eighth of main, which is read rather than written (with more than that the simulated hit ratio
 * falls by up to 0.3 points, with half of small by 0.05). */
static bool rewritten_often(const struct op *op, uint32_t ring) {
    const struct acc_segment *seg = op->area->seg;
    uint64_t tail = acc_shard(seg, op->home.shard)->ring[ring].tail;
    /* The word has 47 bits of the offset; the rest are those of the tail. */
    uint64_t offset = (tail & ~ACC_OFFSET_MASK) | acc_word_offset(op->old.word);
    if (offset > tail) {
        offset -= ACC_OFFSET_MASK + 1;
    }
    uint64_t newest = seg->geometry.ring_units[ring] / (ring == ACC_SMALL ? 2 : 8);
    return acc_offset_distance(seg, ring, offset, tail) < newest;
}

static uint32_t choose_ring(struct op *op, uint64_t units) {
    struct acc_segment *seg = op->area->seg;
    if (op->has_old) {
        uint32_t ring = acc_word_ring(op->old.word);
        return ring == ACC_SMALL && units > seg->geometry.ring_units[ACC_SMALL] ? ACC_MAIN : ring;
    }
    if (acc_ghost_take(seg, op->home.shard, op->key->hash) ||
        units > seg->geometry.ring_units[ACC_SMALL]) {
        return ACC_MAIN;
    }
    return ACC_SMALL;
}

static void link_new(struct op *op, uint64_t word, uint8_t mark) {
    struct acc_segment *seg = op->area->seg;
    /* Replacing the word that was seen: old and new change places at one store.  It has changed if
     * the old item was deleted, or if making room moved or evicted it: then look again, a key never
     * has two words. */
    while (op->has_old) {
        if (acc_index_replace(op->old.slot, op->old.word, word, mark)) {
            acc_view_retire(&op->old.view);
            return;
        }
        acc_op_look_up(op);
    }
    while (!acc_index_insert(seg, &op->home, word, mark)) {
        acc_evict_from_buckets(seg, &op->home);
    }
    acc_add_relaxed(&acc_shard(seg, op->home.shard)->entries, 1u);
}

static enum acc_status append(struct op *op, struct acc_parts *parts) {
    struct acc_segment *seg = op->area->seg;
    uint32_t shard = op->home.shard;
    if (acc_parts_units(parts) > acc_evict_units_max(seg)) {
        return ACC_TOO_LARGE;
    }
    acc_evict_ensure_sound(seg, shard);
    struct acc_budget budget = acc_budget_full();
    uint8_t mark = op->has_old ? acc_load_relaxed(acc_slot_mark(op->old.slot)) : 0;
    uint32_t ring = choose_ring(op, acc_parts_units(parts));
    if (op->has_old && rewritten_often(op, acc_word_ring(op->old.word))) {
        parts->twice = true;
        uint32_t units = acc_parts_units(parts);
        if (units > seg->geometry.ring_units[ring] / 8 || units > ACC_ITEM_UNITS_MAX) {
            parts->twice = false; /* two copies of something this large would push out too much */
        }
    }
    acc_evict_reap(seg, shard, &budget);
    if (!op->has_old) {
        acc_evict_make_entry(seg, shard, &budget);
    }
    if (!acc_evict_make_room(seg, shard, ring, acc_parts_units(parts), !op->has_old, &budget)) {
        return ACC_TOO_LARGE;
    }
    uint64_t offset = acc_ring_append(seg, shard, ring, parts);
    link_new(op, acc_word_make(op->home.tag, ring, offset), mark);
    if (ring == ACC_SMALL) {
        acc_evict_move_mid(seg, shard);
    }
    acc_evict_prefetch(seg, shard);
    return ACC_OK;
}

/* Tell the outbox entry of this write which item it stored.  Under the lock, so that no later store
 * of the key has come between; a delete has, if nothing is found, and then there is nothing to tell. */
static __attribute__((noinline, cold)) void note_item(struct op *op, uint64_t number) {
    acc_op_look_up(op);
    if (op->has_old) {
        acc_outbox_note_locked(op->area->seg, number, op->old.word, op->old.view.sequence);
    }
}

/* Does it say what the key's value is, rather than what was loaded?  (Our own notes say nothing.) */
static bool is_explicit(const struct acc_write *write) {
    return write->ticket == NULL && write->mode != ACC_FILL && write->code != ACC_CODE_NOTE;
}

/* No version has an older copy from here on, nor stores what it is loading; `fenced` is what is to be
 * stored now.  Its stamp is that of our own bump: a delete that comes behind it makes the item be
 * born dead, and so does one that came between the look-up and the bump, because what is stored may
 * have been made of what it deleted.  False: it is too large. */
static __attribute__((noinline, cold)) bool forget_versions(struct op *op,
                                                            const struct acc_write *write,
                                                            struct acc_write *fenced) {
    struct acc_segment *seg = op->area->seg;
    struct acc_parts parts = parts_of(op, write);
    uint64_t hash = op->key->hash;
    if (acc_parts_units(&parts) > acc_evict_units_max(seg)) {
        return false; /* an add that is not stored deletes nothing */
    }
    uint32_t seen = write->has_token ? write->token_key : acc_generation_count(op->generation);
    uint64_t before =
        acc_generation_bump(acc_generation_word(seg, acc_generation_index(seg, hash)), hash);
    acc_versions_forget(op->area, &op->home, op->key, before);
    op->has_old = false;
    *fenced = *write;
    fenced->has_token = true;
    fenced->token_area = write->has_token ? write->token_area : op->area_count;
    fenced->token_key =
        acc_generation_valid(before, seen, hash) ? acc_generation_count(before) + 1 : seen;
    return true;
}

/* Nothing forbids it any more.  `fresh`: there is no old item by now. */
static inline __attribute__((always_inline)) enum acc_status store(struct op *op,
                                                                   const struct acc_write *write,
                                                                   bool fresh) {
    if (!write->same_value) {
        acc_flight_overtake_locked(op->area->seg, op->home.shard, op->area->id, op->key->hash,
                                   write->ticket == NULL ? ACC_NO_RECORD : write->ticket->record);
    }
    enum acc_status status = ACC_OK;
    if (fresh || !rewrite_in_place(op, write)) {
        struct acc_parts parts = parts_of(op, write);
        status = append(op, &parts);
    }
    if (acc_unlikely(write->note != 0) && status == ACC_OK) {
        note_item(op, write->note);
    }
    return status;
}

static __attribute__((noinline, cold)) enum acc_status store_for_all(
    struct op *op, const struct acc_write *write) {
    struct acc_write fenced;
    return forget_versions(op, write, &fenced) ? store(op, &fenced, true) : ACC_TOO_LARGE;
}

enum acc_status acc_op_store(struct op *op, const struct acc_write *write) {
    const struct acc_ticket *ticket = write->ticket;
    if (ticket != NULL) {
        /* A fill of a flight may replace a fresh value (it refreshes), but only if nothing has been
         * stored since it began. */
        if (acc_flight_lease(op->area->seg, ticket) != ACC_LEASE_HELD) {
            return ACC_NOT_STORED;
        }
    } else if (write->mode != ACC_SET && acc_op_current(op)) {
        return ACC_NOT_STORED; /* add: present.  fill: somebody has set it while this one loaded. */
    }
    if (write->has_token && (!token_valid(op, write) || !tags_valid(op, write))) {
        return ACC_NOT_STORED;
    }
    if (acc_area_shared(op->area) && is_explicit(write)) {
        return store_for_all(op, write);
    }
    return store(op, write, false);
}

/* The lines that a write is sure to touch, all at once instead of one after the other. */
static inline void prefetch(const struct acc_segment *seg, const struct acc_home *home) {
    acc_prefetch(acc_home_first(seg, home));
    acc_prefetch(acc_generation_word(seg, acc_generation_index(seg, home->hash)));
    acc_prefetch(&acc_shard(seg, home->shard)->lock);
    acc_prefetch(&acc_shard(seg, home->shard)->ring);
}

/* Before the lock is taken: where the key's word most likely is (bucket NULL: nowhere), and the
 * lines of the item it names.  Behind the lock's locked operation no load begins before that one is
 * done; these are under way by then.  (A tenth of a set of 100 bytes among 10,000 keys, a quarter of
 * the median.)  The word may be anything: nothing is loaded through it, and a prefetch of a bad
 * address does nothing. */
static inline struct acc_slot guess_slot(const struct op *op, uint64_t item_bytes) {
    const struct acc_segment *seg = op->area->seg;
    struct acc_bucket *bucket = acc_home_first(seg, &op->home);
    uint32_t match = acc_bucket_match(bucket, op->home.tag);
    if (match == 0) {
        return (struct acc_slot){0};
    }
    struct acc_slot slot = {bucket, (uint32_t)__builtin_ctz(match) >> 2};
    uint64_t word = acc_load_relaxed(acc_slot_word(slot));
    const uint8_t *item =
        acc_ring_at(seg, op->home.shard, acc_word_ring(word), acc_word_offset(word));
    for (uint64_t at = 0; at < item_bytes && at < PREFETCH_BYTES; at += ACC_LINE) {
        acc_prefetch(item + at);
    }
    return slot;
}

static inline void aim(struct op *op, struct acc_area *area, const struct acc_key *key) {
    op->area = area;
    op->key = key;
    op->home = acc_home_of(area->seg, key->hash);
    prefetch(area->seg, &op->home);
}

bool acc_op_begin(struct op *op, struct acc_area *area, const struct acc_key *key,
                  const struct acc_write *write, uint64_t budget_ns) {
    op->value_sum = write == NULL ? 0 : acc_value_sum(write->data, write->size);
    aim(op, area, key);
    if (!acc_lock_take(area->seg, op->home.shard, budget_ns)) {
        return false;
    }
    acc_op_look_up(op);
    return true;
}

void acc_op_end(const struct op *op) {
    acc_lock_give(op->area->seg, op->home.shard);
}

bool acc_op_leave_unnamed(struct op *op, const struct acc_write *write, uint64_t *handed) {
    struct acc_segment *seg = op->area->seg;
    uint32_t shard = op->home.shard;
    struct acc_parts parts = parts_of(op, write);
    uint64_t units = acc_parts_units(&parts);
    uint32_t ring = units > seg->geometry.ring_units[ACC_SMALL] ? ACC_MAIN : ACC_SMALL;
    struct acc_budget budget = acc_budget_full();
    acc_evict_ensure_sound(seg, shard);
    if (units > acc_evict_units_max(seg) ||
        !acc_evict_make_room(seg, shard, ring, units, true, &budget)) {
        return false;
    }
    uint64_t offset = acc_ring_append(seg, shard, ring, &parts);
    struct acc_view view;
    if (acc_view_load(seg, shard, ring, offset, &view)) {
        acc_view_retire(&view); /* so that the hands need not look who names it */
    }
    *handed = (uint64_t)ring << 63 | offset;
    return true;
}

/* Up to where the lock is needed. */
struct acc_slot acc_op_approach(struct op *op, struct acc_area *area, const struct acc_key *key,
                                const struct acc_write *write) {
    aim(op, area, key);
    op->value_sum = acc_value_sum(write->data, write->size);
    return guess_slot(op, sizeof(struct acc_item_twice) + key->size + 2 * (uint64_t)write->size);
}
