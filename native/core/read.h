/* The lock-free read.  In a header, because it is the product.
 *
 * index word -> header copy -> key -> generations, expiry -> value -> fence -> item sequence and
 * index word unchanged. A word is replaced before its bytes are reused and offsets never repeat, so
 * an unchanged word means that every byte read in between was whole.  Readers never lock and never
 * wait. */
#ifndef ACC_READ_H
#define ACC_READ_H

#include "area.h"
#include "generation.h"
#include "index.h"

/* Lost races before a reader gives up being lock-free. */
#define ACC_READ_TRIES 4

/* One found item: valid until the next acc_read_valid(). */
struct acc_found {
    struct acc_slot slot;
    uint32_t shard;
    uint64_t word;
    uint64_t generation; /* the key group's word, as seen before the item */
    struct acc_view view;
};

static inline bool acc_key_equals(const struct acc_area *area, const struct acc_view *view,
                                  const struct acc_key *key) {
    return view->common.area == area->id && view->common.key_size == key->size + 1 &&
           view->key[0] == key->tag && memcmp(view->key + 1, key->data, key->size) == 0;
}

/* Is everything that was read since the word was loaded still what it was? */
static inline bool acc_read_valid(const struct acc_found *found) {
    acc_fence_acquire();
    return acc_view_current(&found->view) &&
           acc_load_relaxed(acc_slot_word(found->slot)) == found->word;
}

/* Drop a word whose item does not verify.  True if it was really corrupt, false if it had only just
 * changed. */
bool acc_read_drop_corrupt(const struct acc_area *area, struct acc_slot slot, uint64_t word);

/* Look at one candidate.  ACC_OK: the key's item; ACC_NOT_FOUND: another key's; ACC_RACE: look
 * again. */
static inline __attribute__((always_inline)) enum acc_status acc_read_candidate(
    const struct acc_area *area, const struct acc_home *home, const struct acc_key *key,
    struct acc_found *found) {
    const struct acc_segment *seg = area->seg;
    /* The generation before the item, so that a delete that returned before this call is always
     * seen; and only now, because a miss need not pay for that line. */
    found->generation =
        acc_load_acquire(acc_generation_word(seg, acc_generation_index(seg, key->hash)));
    found->word = acc_load_acquire(acc_slot_word(found->slot));
    if (acc_unlikely(acc_word_tag(found->word) != home->tag)) {
        return found->word == 0 ? ACC_NOT_FOUND : ACC_RACE;
    }
    bool sound = acc_view_load(seg, home->shard, acc_word_ring(found->word),
                               acc_word_offset(found->word), &found->view);
    if (acc_likely(sound && acc_key_equals(area, &found->view, key))) {
        return ACC_OK;
    }
    if (!acc_read_valid(found)) {
        return ACC_RACE;
    }
    if (sound) {
        return ACC_NOT_FOUND;
    }
    return acc_read_drop_corrupt(area, found->slot, found->word) ? ACC_NOT_FOUND : ACC_RACE;
}

static inline __attribute__((always_inline)) enum acc_status acc_read_find_in(
    const struct acc_area *area, struct acc_bucket *bucket, const struct acc_home *home,
    const struct acc_key *key, struct acc_found *found) {
    for (uint32_t match = acc_bucket_match(bucket, home->tag); match != 0; match &= match - 1) {
        found->slot = (struct acc_slot){bucket, (uint32_t)__builtin_ctz(match) >> 2};
        found->shard = home->shard;
        enum acc_status status = acc_read_candidate(area, home, key, found);
        if (status != ACC_NOT_FOUND) {
            return status;
        }
    }
    return ACC_NOT_FOUND;
}

/* Find a key's item, dead or alive.  ACC_OK, ACC_NOT_FOUND, or ACC_RACE after one lost race. */
static inline __attribute__((always_inline)) enum acc_status acc_read_find(
    const struct acc_area *area, const struct acc_home *home, const struct acc_key *key,
    struct acc_found *found) {
    struct acc_bucket *first = acc_home_first(area->seg, home);
    enum acc_status status = acc_read_find_in(area, first, home, key, found);
    if (acc_likely(status != ACC_NOT_FOUND || !acc_bucket_overflowed(first))) {
        return status;
    }
    return acc_read_find_in(area, acc_home_second(area->seg, home), home, key, found);
}

/* An item that a delete has overtaken: make sure that nobody accepts it any more before "absent" is
 * said.  (Objects that processes have decoded are validated by the word alone, and a deleter may
 * have died between his two stores.) */
static inline void acc_read_help_delete(const struct acc_area *area,
                                        const struct acc_found *found) {
    if (!area->seg->readonly && acc_cas64(acc_slot_word(found->slot), found->word, 0)) {
        acc_sub_relaxed(&acc_shard(area->seg, found->shard)->entries, 1u);
    }
}

/* Are the tags of an item that has some in force?  False: it is dead, and nobody accepts it any more.
 * One that was expired by tag is live as a stale copy, if it has a stale life left: then the end of
 * its fresh one in *found is long past. */
bool acc_found_tags_live(const struct acc_area *area, struct acc_found *found);

/* Not deleted, not cleared.  To be asked before its age is: see acc_found_tags_live(). */
static inline bool acc_found_live(const struct acc_area *area, struct acc_found *found,
                                  uint64_t hash) {
    if (acc_unlikely(
            !acc_generation_valid(found->generation, found->view.record.key_count, hash))) {
        acc_read_help_delete(area, found);
        return false;
    }
    return (uint32_t)acc_load_acquire(area->generation) == found->view.record.area_count &&
           (acc_likely(!acc_record_tagged(&found->view.record)) ||
            acc_found_tags_live(area, found));
}

static inline uint32_t acc_record_end(const struct acc_record *record) {
    return record->stale_until != 0 ? record->stale_until : record->expire_at;
}

enum acc_age { ACC_FRESH, ACC_STALE, ACC_GONE };

static inline enum acc_age acc_record_age(const struct acc_record *record, uint32_t now) {
    if (!acc_clock_passed(record->expire_at, now)) {
        return ACC_FRESH;
    }
    return acc_clock_passed(acc_record_end(record), now) ? ACC_GONE : ACC_STALE;
}

/* What is left of a life whose fresh part was ended by tag: false, nothing.  Nobody knows when it was:
 * it counts as ended since it was loaded.  (Not as ended now: who asks may have read the clock before,
 * and would find it fresh.)  What was loaded so long ago that the clock has come round: long ago. */
static inline bool acc_record_expire(struct acc_record *record, uint32_t now) {
    if (!acc_clock_passed(record->expire_at, now)) {
        uint32_t loaded = record->loaded_at;
        uint32_t ended = acc_clock_passed(loaded, now) ? loaded : now - (1u << 30);
        record->expire_at = ended == 0 ? 1 : ended;
    }
    return record->stale_until != 0 && !acc_clock_passed(record->stale_until, now);
}

/* acc_read_find() that loses at most ACC_READ_TRIES races, then once with the shard lock tried for.
 * ACC_RACE only if the lock was not free either: the caller counts a miss. */
enum acc_status acc_read_find_bounded(struct acc_area *area, const struct acc_home *home,
                                      const struct acc_key *key, struct acc_found *found);

#endif
