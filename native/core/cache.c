/* The writes of accelerator.h, composed from the modules below.
 *
 * A write holds the key's shard lock.  A set that cannot be stored, for whatever reason, deletes
 * its key: the caller asked for the old value to end.  An add asked for nothing of the kind, and
 * leaves it; a fill may vanish silently.  A delete needs no lock. */
#include "accelerator.h"
#include "op.h"

#include <stdlib.h>
#include <string.h>

void acc_token(struct acc_area *area, const struct acc_key *key, uint32_t *key_count,
               uint32_t *area_count) {
    const struct acc_segment *seg = area->seg;
    uint32_t group = acc_generation_index(seg, key->hash);
    *key_count = acc_generation_count(acc_load_acquire(acc_generation_word(seg, group)));
    *area_count = (uint32_t)acc_load_acquire(area->generation);
}

/* --- delete ----------------------------------------------------------------------------------- */

bool acc_delete(struct acc_area *area, const struct acc_key *key) {
    struct acc_segment *seg = area->seg;
    struct acc_home home = acc_home_of(seg, key->hash);
    uint64_t *group = acc_generation_word(seg, acc_generation_index(seg, key->hash));
    /* From here on no reader accepts the item, nor a fill that began before.  Killed after this:
     * deleted, and the word is cleared by whoever finds its item dead. */
    uint64_t before = acc_generation_bump(group, key->hash);
    struct acc_found found;
    /* Each failure means that another process got something done; the bound is for garbage. */
    for (int tries = 0; tries < 1000; tries++) {
        enum acc_status status = acc_read_find(area, &home, key, &found);
        if (status == ACC_RACE) {
            continue;
        }
        if (status == ACC_NOT_FOUND) {
            return false;
        }
        if (acc_generation_valid(found.generation, found.view.record.key_count, key->hash)) {
            return true; /* stored after the bump, by somebody who came later */
        }
        if (acc_cas64(acc_slot_word(found.slot), found.word, 0)) {
            acc_sub_relaxed(&acc_shard(seg, home.shard)->entries, 1u);
            found.generation = before;
            return acc_found_live(area, &found, key->hash) &&
                   acc_record_age(&found.view.record, acc_now(seg)) != ACC_GONE;
        }
    }
    return true;
}

/* --- store ------------------------------------------------------------------------------------ */

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
}

static void look_up(struct op *op) {
    struct acc_segment *seg = op->area->seg;
    enum acc_status status = ACC_RACE;
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
static inline __attribute__((always_inline)) void look_up_at(struct op *op, struct acc_slot guess) {
    op->old.slot = guess;
    op->old.shard = op->home.shard;
    if (acc_unlikely(guess.bucket == NULL ||
                     acc_read_candidate(op->area, &op->home, op->key, &op->old) != ACC_OK)) {
        look_up(op);
        return;
    }
    op->has_old = true;
    op->generation = op->old.generation;
    judge_old(op);
}

/* Is there a value to go by, fresh or stale? */
static bool old_live(const struct op *op) {
    return op->has_old && op->old.view.record.area_count == op->area_count &&
           acc_record_age(&op->old.view.record, acc_now(op->area->seg)) != ACC_GONE;
}

static bool old_fresh(const struct op *op) {
    return old_live(op) &&
           acc_record_age(&op->old.view.record, acc_now(op->area->seg)) == ACC_FRESH;
}

/* May a fill that saw these generations before its load still be stored? */
static bool token_valid(const struct op *op, const struct acc_write *write) {
    return acc_generation_valid(op->generation, write->token_key, op->key->hash) &&
           write->token_area == op->area_count;
}

/* The record of a write, as the words it is stored in. */
static inline struct acc_raw raw_of(const struct op *op, const struct acc_write *write) {
    /* A delete or clear between here and the publication makes the item be born dead, as it should.
     */
    uint32_t key = write->has_token ? write->token_key : acc_generation_count(op->generation);
    uint32_t area = write->has_token ? write->token_area : op->area_count;
    return (struct acc_raw){
        .size_expire = write->size | (uint32_t)write->code << 26 | (uint64_t)write->expire_at << 32,
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
        .record = acc_raw_record(&raw),
    };
}

/* Room of an item with two copies is reused by what fills at least half of it. */
static bool rewrite_in_place(const struct op *op, const struct acc_write *write) {
    if (!op->has_old || !acc_view_twice(&op->old.view)) {
        return false;
    }
    uint32_t room = acc_view_room(&op->old.view);
    if (write->size > room || write->size < room / 2) {
        return false;
    }
    acc_ring_rewrite(&op->old.view, raw_of(op, write), write->data);
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
        look_up(op);
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

static enum acc_status store_locked(struct op *op, const struct acc_write *write) {
    const struct acc_ticket *ticket = write->ticket;
    if (ticket != NULL) {
        /* A fill of a flight may replace a fresh value (it refreshes), but only if nothing has been
         * stored since it began. */
        if (acc_flight_lease(op->area->seg, ticket) != ACC_LEASE_HELD) {
            return ACC_NOT_STORED;
        }
    } else if (write->mode != ACC_SET && old_fresh(op)) {
        return ACC_NOT_STORED; /* add: present.  fill: somebody has set it while this one loaded. */
    }
    if (write->has_token && !token_valid(op, write)) {
        return ACC_NOT_STORED;
    }
    if (!write->same_value) {
        acc_flight_overtake_locked(op->area->seg, op->home.shard, op->area->id, op->key->hash,
                                   ticket == NULL ? ACC_NO_RECORD : ticket->record);
    }
    if (rewrite_in_place(op, write)) {
        return ACC_OK;
    }
    struct acc_parts parts = parts_of(op, write);
    return append(op, &parts);
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

static bool begin(struct op *op, struct acc_area *area, const struct acc_key *key,
                  uint64_t budget_ns) {
    aim(op, area, key);
    if (!acc_lock_take(area->seg, op->home.shard, budget_ns)) {
        return false;
    }
    look_up(op);
    return true;
}

static void end(const struct op *op) {
    acc_lock_give(op->area->seg, op->home.shard);
}

bool acc_op_begin(struct op *op, struct acc_area *area, const struct acc_key *key,
                  const struct acc_write *write, uint64_t budget_ns) {
    op->value_sum = write == NULL ? 0 : acc_value_sum(write->data, write->size);
    return begin(op, area, key, budget_ns);
}

void acc_op_end(const struct op *op) {
    end(op);
}

bool acc_op_fresh(const struct op *op) {
    return old_fresh(op);
}

enum acc_status acc_op_store(struct op *op, const struct acc_write *write) {
    return store_locked(op, write);
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
static inline __attribute__((always_inline)) struct acc_slot approach(
    struct op *op, struct acc_area *area, const struct acc_key *key,
    const struct acc_write *write) {
    aim(op, area, key);
    op->value_sum = acc_value_sum(write->data, write->size);
    return guess_slot(op, sizeof(struct acc_item_twice) + key->size + 2 * (uint64_t)write->size);
}

enum acc_status acc_store_in_turn(struct acc_area *area, const struct acc_key *key,
                                  const struct acc_write *write) {
    struct op op;
    if (acc_unlikely(write->size >= ACC_VALUE_MAX)) {
        return ACC_BUSY; /* for acc_store() to say what is to be said */
    }
    struct acc_slot guess = approach(&op, area, key, write);
    if (acc_unlikely(!acc_lock_take_in_turn(area->seg, op.home.shard))) {
        return ACC_BUSY;
    }
    look_up_at(&op, guess);
    enum acc_status status = store_locked(&op, write);
    acc_lock_give_in_turn(area->seg, op.home.shard);
    if (acc_unlikely(status == ACC_TOO_LARGE) && write->mode == ACC_SET) {
        acc_delete(area, key);
    }
    return status;
}

enum acc_status acc_store(struct acc_area *area, const struct acc_key *key,
                          const struct acc_write *write, uint64_t budget_ns) {
    struct op op;
    enum acc_status status = ACC_TOO_LARGE;
    if (write->size < ACC_VALUE_MAX) {
        struct acc_slot guess = approach(&op, area, key, write);
        status = ACC_BUSY;
        if (acc_lock_take(area->seg, op.home.shard, budget_ns)) {
            look_up_at(&op, guess);
            status = store_locked(&op, write);
            end(&op);
        }
    }
    if ((status == ACC_TOO_LARGE || status == ACC_BUSY) && write->mode == ACC_SET) {
        acc_delete(area, key);
    }
    return status;
}

/* --- read, change, write ---------------------------------------------------------------------- */

/* A write that keeps the value: copied before the lock is taken, stored only if nothing has changed
 * meanwhile. */
struct copy {
    uint8_t *value;
    uint32_t capacity;
    struct acc_found found;
};

static enum acc_status copy_value(struct acc_area *area, const struct acc_key *key,
                                  const struct acc_home *home, struct copy *copy) {
    for (int tries = 0; tries < ACC_READ_TRIES; tries++) {
        enum acc_status status = acc_read_find_bounded(area, home, key, &copy->found);
        if (status != ACC_OK) {
            return status;
        }
        uint32_t size = acc_record_size(&copy->found.view.record);
        if (size > copy->capacity) {
            uint8_t *larger = realloc(copy->value, size);
            if (larger == NULL) {
                return ACC_ESYS;
            }
            copy->value = larger;
            copy->capacity = size;
        }
        if (size != 0) {
            memcpy(copy->value, copy->found.view.value, size);
        }
        if (acc_read_valid(&copy->found)) {
            return ACC_OK;
        }
    }
    return ACC_RACE;
}

static bool same_item(const struct op *op, const struct acc_found *seen) {
    return op->has_old && op->old.word == seen->word &&
           op->old.view.sequence == seen->view.sequence;
}

/* The value as it was, with the given life. */
static struct acc_write kept_value(const struct copy *copy, uint32_t expire_at,
                                   uint32_t stale_until) {
    const struct acc_record *record = &copy->found.view.record;
    return (struct acc_write){
        .data = copy->value,
        .size = acc_record_size(record),
        .code = acc_record_code(record),
        .mode = ACC_SET,
        .same_value = true,
        .expire_at = expire_at,
        .stale_until = stale_until,
        .loaded_at = record->loaded_at,
    };
}

enum acc_status acc_touch(struct acc_area *area, const struct acc_key *key, uint32_t expire_at,
                          uint32_t stale_until, uint64_t budget_ns) {
    struct acc_home home = acc_home_of(area->seg, key->hash);
    struct copy copy = {0};
    enum acc_status status = ACC_RACE;
    for (int tries = 0; status == ACC_RACE && tries < 4 * ACC_READ_TRIES; tries++) {
        status = copy_value(area, key, &home, &copy);
        struct op op;
        if (status != ACC_OK) {
            continue;
        }
        if (!begin(&op, area, key, budget_ns)) {
            status = ACC_BUSY;
            break;
        }
        if (!old_fresh(&op)) {
            status = ACC_NOT_STORED;
        } else if (!same_item(&op, &copy.found)) {
            status = ACC_RACE;
        } else {
            struct acc_write write = kept_value(&copy, expire_at, stale_until);
            op.value_sum = copy.found.view.record.value_sum;
            status = store_locked(&op, &write);
        }
        end(&op);
    }
    free(copy.value);
    return status == ACC_NOT_FOUND ? ACC_NOT_STORED : status == ACC_RACE ? ACC_BUSY : status;
}

/* Forget the fresh life, keep the stale copy.  The bump fences loads in flight; the copy is stored
 * again behind it. */
enum acc_status acc_expire(struct acc_area *area, const struct acc_key *key, uint64_t budget_ns) {
    struct acc_segment *seg = area->seg;
    struct acc_home home = acc_home_of(seg, key->hash);
    struct copy copy = {0};
    struct op op;
    enum acc_status status = copy_value(area, key, &home, &copy);
    if (status != ACC_OK || !begin(&op, area, key, budget_ns)) {
        /* No copy to keep, or no lock: a delete ends the fresh life too. */
        free(copy.value);
        return acc_delete(area, key) ? ACC_OK : ACC_NOT_FOUND;
    }
    bool fresh = old_fresh(&op), keep = old_live(&op) && same_item(&op, &copy.found);
    const struct acc_record *record = &copy.found.view.record;
    uint32_t now = acc_now(seg);
    /* Killed after the bump: deleted, stale copy and all. */
    uint64_t before = acc_generation_bump(
        acc_generation_word(seg, acc_generation_index(seg, key->hash)), key->hash);
    bool stored = false;
    if (keep && record->stale_until != 0 && !acc_clock_passed(record->stale_until, now) &&
        acc_generation_valid(before, record->key_count, key->hash)) {
        struct acc_write write = kept_value(&copy, now == 0 ? 1 : now, record->stale_until);
        /* Valid from our bump on and no later: a delete just before or just after it is not undone.
         */
        write.has_token = true;
        write.token_key = acc_generation_count(before) + 1;
        write.token_area = record->area_count;
        look_up(&op);
        op.value_sum = record->value_sum;
        stored = store_locked(&op, &write) == ACC_OK;
    }
    if (!stored && op.has_old) {
        acc_index_remove(seg, op.home.shard, op.old.slot, op.old.word);
    }
    end(&op);
    free(copy.value);
    return fresh ? ACC_OK : ACC_NOT_FOUND;
}

static enum acc_status incr_locked(struct op *op, int64_t delta, const int64_t *initial,
                                   uint32_t expire_at, uint32_t stale_until, int64_t *out) {
    int64_t value = 0;
    const struct acc_record *record = &op->old.view.record;
    struct acc_write write = {.size = 8, .code = ACC_CODE_INT, .mode = ACC_SET};
    if (old_fresh(op)) {
        if (acc_record_code(record) != ACC_CODE_INT || acc_record_size(record) != 8) {
            return ACC_BAD_TYPE;
        }
        memcpy(&value, op->old.view.value, 8);
        write.expire_at = record->expire_at;
        write.stale_until = record->stale_until;
        write.loaded_at = record->loaded_at;
    } else if (initial == NULL) {
        return ACC_NOT_FOUND;
    } else {
        value = *initial;
        write.expire_at = expire_at;
        write.stale_until = stale_until;
        write.loaded_at = acc_now(op->area->seg);
    }
    if (__builtin_add_overflow(value, delta, &value)) {
        return ACC_OVERFLOW;
    }
    write.data = (const uint8_t *)&value;
    op->value_sum = acc_value_sum(write.data, write.size);
    *out = value;
    return store_locked(op, &write);
}

enum acc_status acc_incr(struct acc_area *area, const struct acc_key *key, int64_t delta,
                         const int64_t *initial, uint32_t expire_at, uint32_t stale_until,
                         uint64_t budget_ns, int64_t *out) {
    struct op op;
    if (!begin(&op, area, key, budget_ns)) {
        return ACC_BUSY;
    }
    enum acc_status status = incr_locked(&op, delta, initial, expire_at, stale_until, out);
    end(&op);
    return status;
}
