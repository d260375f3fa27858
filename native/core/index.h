/* The index: hashed buckets of seven words, two buckets a key.
 *
 * A word is {tag 16, ring 1, offset 47}.  Only the holder of the shard lock stores one other than
 * 0; anyone may replace the word he saw by 0 (that is a delete).  So a move, which replaces the
 * word it saw by another, can never undo a delete. */
#ifndef ACC_INDEX_H
#define ACC_INDEX_H

#include "ring.h"

/* (The thread sanitizer takes the plain way: it cannot know that each word of a vector load is read
 * whole.) */
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#define ACC_MATCH_VECTOR 1
#include <emmintrin.h>
#endif

/* Where a key belongs, all of it out of its hash. */
struct acc_home {
    uint64_t hash;
    uint32_t shard;
    uint32_t first; /* bucket; the second is computed when it is needed, which is seldom */
    uint16_t tag;   /* never 0, so that no word is */
};

static inline uint32_t acc_home_shard(const struct acc_segment *seg, uint64_t hash) {
    return (uint32_t)(hash >> 56) & (seg->geometry.shards - 1);
}

static inline struct acc_home acc_home_of(const struct acc_segment *seg, uint64_t hash) {
    struct acc_home home;
    uint16_t tag = (uint16_t)(hash >> 32);
    home.hash = hash;
    home.shard = acc_home_shard(seg, hash);
    home.tag = tag == 0 ? 1 : tag;
    home.first = acc_range((uint32_t)hash, seg->geometry.buckets);
    return home;
}

static inline struct acc_bucket *acc_home_first(const struct acc_segment *seg,
                                                const struct acc_home *home) {
    return acc_bucket(seg, home->shard, home->first);
}

static inline struct acc_bucket *acc_home_second(const struct acc_segment *seg,
                                                 const struct acc_home *home) {
    uint32_t where = (uint32_t)(acc_remix(home->hash, 0xd6e8feb86659fd93ull) >> 32);
    return acc_bucket(seg, home->shard, acc_range(where, seg->geometry.buckets));
}

/* Has anything that belongs into this bucket ever been put into its second one?  Set before such a
 * word is stored, and never taken back: a lookup that finds it unset is done after one line. */
static inline bool acc_bucket_overflowed(const struct acc_bucket *bucket) {
    return acc_load_acquire(&bucket->mark[ACC_BUCKET_SLOTS]) != 0;
}

static inline uint64_t acc_word_make(uint16_t tag, uint32_t ring, uint64_t offset) {
    return (uint64_t)tag << 48 | (uint64_t)ring << ACC_OFFSET_BITS | (offset & ACC_OFFSET_MASK);
}

static inline uint32_t acc_word_ring(uint64_t word) {
    return (uint32_t)(word >> ACC_OFFSET_BITS) & 1;
}

static inline uint64_t acc_word_offset(uint64_t word) {
    return word & ACC_OFFSET_MASK;
}

static inline uint16_t acc_word_tag(uint64_t word) {
    return (uint16_t)(word >> 48);
}

/* Bit i * 4 is set if word i has this tag.  (Sixteen-byte loads: each word in them is read whole on
 * every processor we build for, and the caller loads the word again before he believes it.) */
static inline uint32_t acc_bucket_match(const struct acc_bucket *bucket, uint16_t tag) {
#ifdef ACC_MATCH_VECTOR
    const __m128i *words = (const __m128i *)bucket;
    __m128i wanted = _mm_set1_epi16((short)tag);
    __m128i low = _mm_packs_epi16(_mm_cmpeq_epi16(_mm_load_si128(words), wanted),
                                  _mm_cmpeq_epi16(_mm_load_si128(words + 1), wanted));
    __m128i high = _mm_packs_epi16(_mm_cmpeq_epi16(_mm_load_si128(words + 2), wanted),
                                   _mm_cmpeq_epi16(_mm_load_si128(words + 3), wanted));
    uint32_t mask = (uint32_t)_mm_movemask_epi8(low) | (uint32_t)_mm_movemask_epi8(high) << 16;
    return (mask & 0x08888888u) >> 3;
#else
    uint32_t mask = 0;
    for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
        mask |= (uint32_t)(acc_word_tag(acc_load_relaxed(&bucket->word[i])) == tag) << (4 * i);
    }
    return mask;
#endif
}

/* A slot of the index. */
struct acc_slot {
    struct acc_bucket *bucket;
    uint32_t i;
};

static inline uint64_t *acc_slot_word(struct acc_slot slot) {
    return &slot.bucket->word[slot.i];
}

/* Buckets are lines: the one a word lies in. */
static inline struct acc_bucket *acc_slot_bucket(const uint64_t *word) {
    return (struct acc_bucket *)((uintptr_t)word & ~(uintptr_t)(sizeof(struct acc_bucket) - 1));
}

static inline uint8_t *acc_slot_mark(struct acc_slot slot) {
    return &slot.bucket->mark[slot.i];
}

/* A hit.  Stored only when it changes: a hot key's line stays shared by all readers. */
static inline void acc_mark_raise(uint8_t *mark) {
    uint8_t seen = acc_load_relaxed(mark);
    if (seen < 3) {
        acc_store_relaxed(mark, (uint8_t)(seen + 1));
    }
}

/* The slot that holds exactly this word; false: nowhere (deleted, or moved). */
bool acc_index_find(const struct acc_segment *seg, const struct acc_home *home, uint64_t word,
                    struct acc_slot *out);
/* Put a new word in.  Shard lock held.  False: both buckets are full. */
bool acc_index_insert(struct acc_segment *seg, const struct acc_home *home, uint64_t word,
                      uint8_t mark);
/* Replace what was seen.  False: it has been deleted meanwhile. */
bool acc_index_replace(struct acc_slot slot, uint64_t seen, uint64_t word, uint8_t mark);
/* Clear what was seen, by whomever.  False: it has changed. */
bool acc_index_remove(struct acc_segment *seg, uint32_t shard, struct acc_slot slot, uint64_t seen);
/* Clear every word of a shard that points into `ring`.  Number cleared. */
uint32_t acc_index_drop_ring(struct acc_segment *seg, uint32_t shard, uint32_t ring);

#endif
