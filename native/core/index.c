/* Owns the index words and marks.  Words other than 0 are stored only with the shard lock held. */
#include "index.h"

static bool find_in(struct acc_bucket *bucket, uint64_t word, struct acc_slot *out) {
    for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
        if (acc_load_relaxed(&bucket->word[i]) == word) {
            *out = (struct acc_slot){bucket, i};
            return true;
        }
    }
    return false;
}

bool acc_index_find(const struct acc_segment *seg, const struct acc_home *home, uint64_t word,
                    struct acc_slot *out) {
    struct acc_bucket *first = acc_home_first(seg, home);
    return find_in(first, word, out) ||
           (acc_bucket_overflowed(first) && find_in(acc_home_second(seg, home), word, out));
}

static uint32_t count_free(const struct acc_bucket *bucket) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
        n += acc_load_relaxed(&bucket->word[i]) == 0;
    }
    return n;
}

static void put_first_free(struct acc_bucket *bucket, uint64_t word, uint8_t mark) {
    for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
        if (acc_load_relaxed(&bucket->word[i]) == 0) {
            acc_store_relaxed(&bucket->mark[i], mark);
            /* From here on the item can be found.  Release: its bytes are complete. */
            acc_store_release(&bucket->word[i], word);
            return;
        }
    }
}

bool acc_index_insert(struct acc_segment *seg, const struct acc_home *home, uint64_t word,
                      uint8_t mark) {
    struct acc_bucket *bucket = acc_home_first(seg, home);
    uint32_t free_first = count_free(bucket);
    /* The first while it has room to spare, so that most lookups need one line; then the emptier of
     * the two. */
    if (free_first < 3) {
        struct acc_bucket *second = acc_home_second(seg, home);
        uint32_t free_second = count_free(second);
        if (free_first == 0 && free_second == 0) {
            return false;
        }
        if (free_second > free_first) {
            acc_store_release(&bucket->mark[ACC_BUCKET_SLOTS], (uint8_t)1);
            bucket = second;
        }
    }
    put_first_free(bucket, word, mark);
    return true;
}

bool acc_index_replace(struct acc_slot slot, uint64_t seen, uint64_t word, uint8_t mark) {
    if (!acc_cas64(acc_slot_word(slot), seen, word)) {
        return false;
    }
    acc_store_relaxed(acc_slot_mark(slot), mark);
    return true;
}

bool acc_index_remove(struct acc_segment *seg, uint32_t shard, struct acc_slot slot,
                      uint64_t seen) {
    if (!acc_cas64(acc_slot_word(slot), seen, 0)) {
        return false;
    }
    acc_sub_relaxed(&acc_shard(seg, shard)->entries, 1u);
    return true;
}

uint32_t acc_index_drop_ring(struct acc_segment *seg, uint32_t shard, uint32_t ring) {
    uint32_t dropped = 0;
    for (uint32_t b = 0; b < seg->geometry.buckets; b++) {
        struct acc_bucket *bucket = acc_bucket(seg, shard, b);
        for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
            uint64_t word = acc_load_relaxed(&bucket->word[i]);
            if (word != 0 && acc_word_ring(word) == ring) {
                dropped += acc_index_remove(seg, shard, (struct acc_slot){bucket, i}, word);
            }
        }
    }
    return dropped;
}
