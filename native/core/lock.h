/* Lock words: 32 bits in the segment, 0 free, else the incarnation of the holder and a bit "someone
 * waits".
 *
 * Held for microseconds, never while user code runs.  A word of a dead process is taken over
 * (acc_process_dead); one of a stopped or slow process never: after its budget a waiter gives up,
 * and his write is not stored. */
#ifndef ACC_LOCK_H
#define ACC_LOCK_H

#include "process.h"

#define ACC_LOCK_WAITERS (1u << 31)
#define ACC_LOCK_AREAS ACC_SHARDS_MAX /* intent slot of the lock over area slots */

static inline uint32_t *acc_lock_word(const struct acc_segment *seg, uint32_t lock) {
    return lock == ACC_LOCK_AREAS ? &acc_header(seg)->area_lock : &acc_shard(seg, lock)->lock;
}

bool acc_lock_take_slow(struct acc_segment *seg, uint32_t lock, uint64_t budget_ns);
void acc_lock_wake(uint32_t *word);

/* In acc_segment.intent: the tick is about to clear a word that nobody here holds. */
#define ACC_INTENT_CLOSED (1u << 31)

/* budget_ns 0: one try.  Blocks at most the budget (and a scheduling slice).  False too if this
 * process is not registered (any more): it has no id to hold a lock under. */
static inline bool acc_lock_take(struct acc_segment *seg, uint32_t lock, uint64_t budget_ns) {
    /* Intent before the word: a word with my id and no intent was not set by me (see
     * maintenance.c). */
    uint32_t intent = acc_add_acquire(&seg->intent[lock], 1u);
    acc_fence_behind_cas(); /* pairs with acc_process_leave(): there the id, then the intents */
    uint32_t mine = acc_incarnation(seg);
    if (acc_likely(!(intent & ACC_INTENT_CLOSED) && mine != 0 &&
                   acc_cas32(acc_lock_word(seg, lock), 0, mine))) {
        return true;
    }
    return acc_lock_take_slow(seg, lock, budget_ns);
}

static inline void acc_lock_give(struct acc_segment *seg, uint32_t lock) {
    uint32_t *word = acc_lock_word(seg, lock);
    /* A waiter who announces himself between the load and the store is not woken and finds the word
     * free at the end of his slice of 2 ms: cheaper for everyone than an exchange at each release.
     */
    if (acc_likely(!(acc_load_relaxed(word) & ACC_LOCK_WAITERS))) {
        acc_store_release(word, 0u);
    } else {
        acc_store_release(word, 0u);
        acc_lock_wake(word);
    }
    acc_sub_release(&seg->intent[lock], 1u);
}

#endif
