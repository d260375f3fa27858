/* Eviction: S3-FIFO over two rings and ghosts (Yang et al., SOSP 2023), with the changes that were
 * measured to pay on real request traces (docs/explanation/eviction.md).
 *
 * New items enter the small ring, 10 % of the space; what was hit there moves to main, the rest
 * leaves a ghost; a key that comes back while its ghost is young enters main.  A hit only raises a
 * mark. */
#ifndef ACC_EVICT_H
#define ACC_EVICT_H

#include "index.h"
#include "read.h"

/* What one write may still spend on keeping marked items of main. */
struct acc_budget {
    uint32_t items;
    uint64_t units;
};

#define ACC_BUDGET_ITEMS 32u
#define ACC_BUDGET_BYTES (256u << 10)

static inline struct acc_budget acc_budget_full(void) {
    return (struct acc_budget){ACC_BUDGET_ITEMS, ACC_BUDGET_BYTES / ACC_UNIT};
}

/* All with the shard lock held. */

/* Before anything else under the lock: drop a ring whose head and tail are garbage. */
void acc_evict_ensure_sound(struct acc_segment *seg, uint32_t shard);
/* Drop what is dead or expired at main's oldest end, and squeeze main if much of it is dead. */
void acc_evict_reap(struct acc_segment *seg, uint32_t shard, struct acc_budget *budget);
/* Make room for `units` in a ring.  A newcomer leaves the ring's reserve free, and restores it; a
 * key that is there already may use it up, and so pushes nobody out.  False: they can never fit. */
bool acc_evict_make_room(struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t units,
                         bool newcomer, struct acc_budget *budget);
/* Keep the number of items below what the index can hold. */
void acc_evict_make_entry(struct acc_segment *seg, uint32_t shard, struct acc_budget *budget);
/* Free a word in the buckets of `home`, both of which are full. */
void acc_evict_from_buckets(struct acc_segment *seg, const struct acc_home *home);
/* After an insertion into small: take the marks of what has left its newest quarter. */
void acc_evict_move_mid(struct acc_segment *seg, uint32_t shard);
/* The next write to this shard will write behind small's tail: bring the lines near now.  (Many
 * shards are more streams than a processor follows by itself.) */
void acc_evict_prefetch(const struct acc_segment *seg, uint32_t shard);
/* Does a young ghost say that this key was here lately?  Takes the ghost. */
bool acc_ghost_take(struct acc_segment *seg, uint32_t shard, uint64_t hash);
/* Largest item that is let in. */
static inline uint64_t acc_evict_units_max(const struct acc_segment *seg) {
    return seg->geometry.ring_units[ACC_MAIN] / 4;
}

#endif
