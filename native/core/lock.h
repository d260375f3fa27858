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

static inline void acc_lock_free(struct acc_segment *seg, uint32_t lock) {
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
}

static inline void acc_lock_give(struct acc_segment *seg, uint32_t lock) {
    acc_lock_free(seg, lock);
    acc_sub_release(&seg->intent[lock], 1u);
}

/* --- in turn ---------------------------------------------------------------------------------- */

/* The same for callers that take turns: of all threads of this process, only the one that holds the
 * interpreter's lock (the GIL) calls these, and it keeps that lock from the one to the other.  Then
 * the intent is a word that one thread at a time stores, and of the three locked operations of a
 * write, each of which waits for every store before it, one is left: 10 ns of a set of 85.
 *
 * What keeps the promise "a word with my id and no intent was not set by me":
 *   here             intent in turn, CAS of the word, then CLOSED and our id
 *   the tick         CLOSED (only over no counted intent), then this intent; clears the word; opens
 *                    again when this intent is gone
 *   leaving          our id, then the intents
 * with a full barrier between the store and the load of each.  So either the other side sees this
 * intent and leaves the word alone, or this thread sees CLOSED, or its id gone, and has not got the
 * lock, though the word carries its id.  It takes the word back.  It may: once the tick has cleared
 * it, nobody of this process enters before the tick opens again, which waits for this intent; and
 * what another process has set carries another id.
 *
 * Killed in here, the process leaves a word with its id, as in acc_lock_take(); its intents go with
 * it.  A fork child of another thread starts without any (forget_parent() in process.c). */

void acc_lock_take_back(struct acc_segment *seg, uint32_t lock, uint32_t mine);

/* One try. */
static inline bool acc_lock_take_in_turn(struct acc_segment *seg, uint32_t lock) {
    uint32_t mine = acc_incarnation(seg), *word = acc_lock_word(seg, lock);
    if (acc_unlikely(acc_load_relaxed(word) != 0 || mine == 0)) {
        return false; /* and no intent that would hide garbage with our id from the tick */
    }
#ifdef ACC_NO_GIL
    return acc_lock_take(seg, lock, 0);
#else
    acc_store_relaxed(&seg->intent_in_turn, lock + 1);
    if (acc_likely(acc_cas32(word, 0, mine))) {
        acc_fence_behind_cas(); /* pairs with disown() and acc_process_leave() */
        if (acc_likely(!(acc_load_acquire(&seg->intent[lock]) & ACC_INTENT_CLOSED) &&
                       acc_incarnation(seg) == mine)) {
            return true;
        }
        acc_lock_take_back(seg, lock, mine);
    }
    acc_store_release(&seg->intent_in_turn, 0u);
    return false;
#endif
}

static inline void acc_lock_give_in_turn(struct acc_segment *seg, uint32_t lock) {
#ifdef ACC_NO_GIL
    acc_lock_give(seg, lock);
#else
    acc_lock_free(seg, lock);
    acc_store_release(&seg->intent_in_turn, 0u); /* behind the word: see disown() */
#endif
}

/* (Call behind a full barrier.) */
static inline bool acc_lock_intended_in_turn(const struct acc_segment *seg, uint32_t lock) {
    return acc_load_acquire(&seg->intent_in_turn) == lock + 1;
}

#endif
