/* Goes through the items of a key in all versions of its area.  Owns nothing, takes no lock, stores
 * nothing but zeros over words that it has seen. */
#include "version.h"

/* Looks at one word before it is taken for garbage: each that fails means that another process got
 * something done. */
#define TRIES 1000

static bool key_equals(const struct acc_area *area, const struct acc_view *view,
                       const struct acc_key *key) {
    return acc_area_base(area->seg, view->common.area) == area->base &&
           view->common.key_size == key->size + 1 && view->key[0] == key->tag &&
           memcmp(view->key + 1, key->data, key->size) == 0;
}

/* As acc_read_candidate(), of whatever version. */
static enum acc_status candidate_once(const struct acc_area *area, const struct acc_home *home,
                                      const struct acc_key *key, struct acc_found *found) {
    const struct acc_segment *seg = area->seg;
    found->generation =
        acc_load_acquire(acc_generation_word(seg, acc_generation_index(seg, key->hash)));
    found->word = acc_load_acquire(acc_slot_word(found->slot));
    if (acc_word_tag(found->word) != home->tag) {
        return ACC_NOT_FOUND;
    }
    bool sound = acc_view_load(seg, home->shard, acc_word_ring(found->word),
                               acc_word_offset(found->word), &found->view);
    if (sound && key_equals(area, &found->view, key)) {
        return ACC_OK;
    }
    if (!acc_read_valid(found)) {
        return ACC_RACE;
    }
    return sound || acc_read_drop_corrupt(area, found->slot, found->word) ? ACC_NOT_FOUND
                                                                          : ACC_RACE;
}

static bool candidate(const struct acc_area *area, const struct acc_home *home,
                      const struct acc_key *key, struct acc_slot slot, struct acc_found *found) {
    enum acc_status status = ACC_RACE;
    found->slot = slot;
    found->shard = home->shard;
    for (int tries = 0; status == ACC_RACE && tries < TRIES; tries++) {
        status = candidate_once(area, home, key, found);
    }
    return status == ACC_OK;
}

/* The slots whose words have the key's tag: `next` goes through both buckets. */
struct walk {
    struct acc_bucket *bucket;
    uint32_t match;
    bool second;
};

static struct walk begin(const struct acc_area *area, const struct acc_home *home) {
    struct acc_bucket *first = acc_home_first(area->seg, home);
    return (struct walk){.bucket = first, .match = acc_bucket_match(first, home->tag)};
}

static bool next(struct walk *walk, const struct acc_area *area, const struct acc_home *home,
                 struct acc_slot *out) {
    if (walk->match == 0 && !walk->second && acc_bucket_overflowed(walk->bucket)) {
        struct acc_bucket *first = walk->bucket;
        walk->second = true;
        walk->bucket = acc_home_second(area->seg, home);
        walk->match = walk->bucket == first ? 0 : acc_bucket_match(walk->bucket, home->tag);
    }
    if (walk->match == 0) {
        return false;
    }
    *out = (struct acc_slot){walk->bucket, (uint32_t)__builtin_ctz(walk->match) >> 2};
    walk->match &= walk->match - 1;
    return true;
}

/* True: it was alive until the bump. */
static bool forget_one(const struct acc_area *area, const struct acc_home *home,
                       const struct acc_key *key, struct acc_slot slot, uint64_t before) {
    struct acc_found found;
    for (int tries = 0; tries < TRIES && candidate(area, home, key, slot, &found); tries++) {
        if (acc_generation_valid(found.generation, found.view.record.key_count, key->hash)) {
            return false; /* stored after the bump, by somebody who came later */
        }
        if (acc_index_remove(area->seg, home->shard, slot, found.word)) {
            found.generation = before;
            return acc_found_live(area, &found, key->hash) &&
                   acc_record_age(&found.view.record, acc_now(area->seg)) != ACC_GONE;
        }
    }
    return false;
}

bool acc_versions_forget(const struct acc_area *area, const struct acc_home *home,
                         const struct acc_key *key, uint64_t before) {
    struct walk walk = begin(area, home);
    struct acc_slot slot;
    bool was = false;
    while (next(&walk, area, home, &slot)) {
        was = forget_one(area, home, key, slot, before) || was;
    }
    return was;
}

uint32_t acc_versions_of(struct acc_area *area, const struct acc_home *home,
                         const struct acc_key *key, struct acc_area *out, uint32_t most) {
    struct walk walk = begin(area, home);
    struct acc_slot slot;
    struct acc_found found;
    uint32_t count = 1;
    out[0] = *area;
    while (count < most && next(&walk, area, home, &slot)) {
        if (candidate(area, home, key, slot, &found) && found.view.common.area != area->id) {
            out[count] = *area;
            out[count++].id = found.view.common.area;
        }
    }
    return count;
}

bool acc_versions_find(const struct acc_area *area, const struct acc_home *home,
                       const struct acc_key *key, uint64_t word, struct acc_found *found) {
    struct acc_slot slot;
    return acc_index_find(area->seg, home, word, &slot) &&
           candidate(area, home, key, slot, found) && found->word == word;
}
