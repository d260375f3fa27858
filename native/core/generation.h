/* Generations: one word per group of keys, one per area.  Bumping is the delete.
 *
 * A key's word is {count 32, fingerprint 16, run 16}.  The count rises with every delete in the
 * group; `run` is how many of the last bumps came from the key with `fingerprint`.  A stamp is
 * valid if it equals the count, or if all bumps since were another key's run: a key that is deleted
 * all the time costs its neighbours nothing. */
#ifndef ACC_GENERATION_H
#define ACC_GENERATION_H

#include "segment.h"

static inline uint32_t acc_generation_index(const struct acc_segment *seg, uint64_t hash) {
    return (uint32_t)((hash * 0x9fb21c651e98df25ull) >> seg->geometry.generation_shift);
}

static inline uint16_t acc_generation_print(uint64_t hash) {
    return (uint16_t)(hash >> 16);
}

static inline uint32_t acc_generation_count(uint64_t word) {
    return (uint32_t)(word >> 32);
}

static inline bool acc_generation_valid(uint64_t word, uint32_t stamp, uint64_t hash) {
    uint32_t behind = acc_generation_count(word) - stamp;
    if (acc_likely(behind == 0)) {
        return true;
    }
    return behind <= (uint16_t)word && (uint16_t)(word >> 16) != acc_generation_print(hash);
}

/* Forget a key: everything stamped before is invalid from here on.  Lock-free; the word before. */
uint64_t acc_generation_bump(uint64_t *word, uint64_t hash);

#endif
