/* The writes of accelerator.h, composed from the modules below.
 *
 * A write holds the key's shard lock.  A set that cannot be stored, for whatever reason, deletes
 * its key: the caller asked for the old value to end.  An add asked for nothing of the kind, and
 * leaves it; a fill may vanish silently.  A delete needs no lock.  What is said of a key is said of
 * it in every version of the area (version.h). */
#include "accelerator.h"
#include "op.h"
#include "version.h"

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
    if (acc_area_shared(area)) { /* loaded behind the bump: see area.c */
        return acc_versions_forget(area, &home, key, before);
    }
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

enum acc_status acc_store_in_turn(struct acc_area *area, const struct acc_key *key,
                                  const struct acc_write *write) {
    struct op op;
    if (acc_unlikely(write->size >= ACC_VALUE_MAX)) {
        return ACC_BUSY; /* for acc_store() to say what is to be said */
    }
    struct acc_slot guess = acc_op_approach(&op, area, key, write);
    if (acc_unlikely(!acc_lock_take_in_turn(area->seg, op.home.shard))) {
        return ACC_BUSY;
    }
    acc_op_look_up_at(&op, guess);
    enum acc_status status = acc_op_store(&op, write);
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
        struct acc_slot guess = acc_op_approach(&op, area, key, write);
        status = ACC_BUSY;
        if (acc_lock_take(area->seg, op.home.shard, budget_ns)) {
            acc_op_look_up_at(&op, guess);
            status = acc_op_store(&op, write);
            acc_op_end(&op);
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
    struct acc_tags tags; /* if it has some */
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
        bool whole = !acc_record_tagged(&copy->found.view.record) ||
                     acc_view_tags(area->seg, &copy->found.view, &copy->tags);
        if (acc_read_valid(&copy->found)) {
            if (whole) {
                return ACC_OK;
            }
            acc_read_drop_corrupt(area, copy->found.slot, copy->found.word);
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
        .tags = acc_record_tagged(record) ? &copy->tags : NULL,
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
        if (!acc_op_begin(&op, area, key, NULL, budget_ns)) {
            status = ACC_BUSY;
            break;
        }
        if (!acc_op_fresh(&op)) {
            status = ACC_NOT_STORED;
        } else if (!same_item(&op, &copy.found)) {
            status = ACC_RACE;
        } else {
            struct acc_write write = kept_value(&copy, expire_at, stale_until);
            op.value_sum = copy.found.view.record.value_sum;
            status = acc_op_store(&op, &write);
        }
        acc_op_end(&op);
    }
    free(copy.value);
    return status == ACC_NOT_FOUND ? ACC_NOT_STORED : status == ACC_RACE ? ACC_BUSY : status;
}

/* What an expire keeps of one version: its stale copy. */
struct kept {
    struct acc_area area;
    struct copy copy;
    bool keep;
};

/* Copies of what the versions hold.  How many versions; one without an item keeps nothing. */
static uint32_t copy_versions(struct acc_area *area, const struct acc_key *key,
                              const struct acc_home *home, struct kept kept[ACC_VERSIONS_KEPT]) {
    struct acc_area areas[ACC_VERSIONS_KEPT] = {*area};
    uint32_t count =
        acc_area_shared(area) ? acc_versions_of(area, home, key, areas, ACC_VERSIONS_KEPT) : 1;
    for (uint32_t i = 0; i < count; i++) {
        kept[i] = (struct kept){.area = areas[i]};
        kept[i].keep = copy_value(&kept[i].area, key, home, &kept[i].copy) == ACC_OK;
    }
    return count;
}

static bool any_kept(const struct kept *kept, uint32_t count) {
    bool any = false;
    for (uint32_t i = 0; i < count; i++) {
        any = any || kept[i].keep;
    }
    return any;
}

/* Is the copy still that of the item, and does it outlive this?  True: the item was fresh. */
static bool judge_kept(struct op *op, struct kept *kept) {
    const struct acc_record *record = &kept->copy.found.view.record;
    op->area = &kept->area;
    acc_op_look_up(op);
    kept->keep = kept->keep && acc_op_live(op) && same_item(op, &kept->copy.found) &&
                 record->stale_until != 0 &&
                 !acc_clock_passed(record->stale_until, acc_now(op->area->seg));
    return acc_op_fresh(op);
}

/* Store the stale copy behind the bump, of which `before` is the word before. */
static bool put_stale(struct op *op, struct kept *kept, uint64_t before) {
    const struct acc_record *record = &kept->copy.found.view.record;
    uint32_t now = acc_now(op->area->seg);
    if (!kept->keep || !acc_generation_valid(before, record->key_count, op->key->hash)) {
        return false;
    }
    struct acc_write write = kept_value(&kept->copy, now == 0 ? 1 : now, record->stale_until);
    /* Valid from our bump on and no later: a delete just before or just after it is not undone. */
    write.mode = ACC_FILL;
    write.has_token = true;
    write.token_key = acc_generation_count(before) + 1;
    write.token_area = record->area_count;
    op->area = &kept->area;
    acc_op_look_up(op);
    op->value_sum = record->value_sum;
    return acc_op_store(op, &write) == ACC_OK;
}

/* Forget the fresh life, keep the stale copies.  The bump fences loads in flight; the copies are
 * stored again behind it.  Killed after the bump: deleted, stale copies and all. */
static bool expire_locked(struct op *op, struct kept *kept, uint32_t count) {
    struct acc_area *area = op->area;
    struct acc_segment *seg = area->seg;
    bool fresh = false;
    for (uint32_t i = 0; i < count; i++) {
        fresh = judge_kept(op, &kept[i]) || fresh;
    }
    uint64_t before = acc_generation_bump(
        acc_generation_word(seg, acc_generation_index(seg, op->key->hash)), op->key->hash);
    for (uint32_t i = 0; i < count; i++) {
        put_stale(op, &kept[i], before);
    }
    acc_versions_forget(area, &op->home, op->key, before); /* what is not kept */
    op->area = area;
    return fresh;
}

enum acc_status acc_expire(struct acc_area *area, const struct acc_key *key, uint64_t budget_ns) {
    struct acc_home home = acc_home_of(area->seg, key->hash);
    struct kept kept[ACC_VERSIONS_KEPT];
    struct op op;
    uint32_t count = copy_versions(area, key, &home, kept);
    enum acc_status status;
    if (any_kept(kept, count) && acc_op_begin(&op, area, key, NULL, budget_ns)) {
        status = expire_locked(&op, kept, count) ? ACC_OK : ACC_NOT_FOUND;
        acc_op_end(&op);
    } else {
        /* No copy to keep, or no lock: a delete ends the fresh life too. */
        status = acc_delete(area, key) ? ACC_OK : ACC_NOT_FOUND;
    }
    for (uint32_t i = 0; i < count; i++) {
        free(kept[i].copy.value);
    }
    return status;
}

static enum acc_status incr_locked(struct op *op, int64_t delta, const int64_t *initial,
                                   uint32_t expire_at, uint32_t stale_until, int64_t *out) {
    int64_t value = 0;
    const struct acc_record *record = &op->old.view.record;
    struct acc_write write = {.size = 8, .code = ACC_CODE_INT, .mode = ACC_SET};
    struct acc_tags tags;
    bool tagged = op->has_old && acc_record_tagged(record);
    /* (Verified a moment ago, under the lock: only garbage can have come since.) */
    bool whole = !tagged || acc_view_tags(op->area->seg, &op->old.view, &tags);
    if (whole && acc_op_fresh(op)) {
        if (acc_record_code(record) != ACC_CODE_INT || acc_record_size(record) != 8) {
            return ACC_BAD_TYPE;
        }
        memcpy(&value, op->old.view.value, 8);
        write.expire_at = record->expire_at;
        write.stale_until = record->stale_until;
        write.loaded_at = record->loaded_at;
        write.tags = tagged ? &tags : NULL;
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
    return acc_op_store(op, &write);
}

enum acc_status acc_incr(struct acc_area *area, const struct acc_key *key, int64_t delta,
                         const int64_t *initial, uint32_t expire_at, uint32_t stale_until,
                         uint64_t budget_ns, int64_t *out) {
    struct op op;
    if (!acc_op_begin(&op, area, key, NULL, budget_ns)) {
        return ACC_BUSY;
    }
    enum acc_status status = incr_locked(&op, delta, initial, expire_at, stale_until, out);
    acc_op_end(&op);
    return status;
}
