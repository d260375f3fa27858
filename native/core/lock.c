/* Owns no memory.  Waits on a lock word with a futex, in slices, and asks between slices whether
 * its holder lives. */
#include "lock.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 200
#define SLICE_NS 2000000ull

static void futex_wait(uint32_t *word, uint32_t seen, uint64_t ns) {
    struct timespec wait = {.tv_sec = (time_t)(ns / 1000000000u),
                            .tv_nsec = (long)(ns % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &wait, NULL, 0);
}

void acc_lock_wake(uint32_t *word) {
    /* One is enough: whoever wakes takes the lock with the waiters bit set, so the next is woken in
     * turn. */
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* A holder is off the CPU for much longer than he holds the lock, or he is about to give it. */
static bool spin(uint32_t *word, uint32_t mine) {
    for (int i = 0; i < SPINS; i++) {
        if (acc_load_relaxed(word) == 0 && acc_cas32(word, 0, mine)) {
            return true;
        }
        acc_pause();
    }
    return false;
}

/* While the tick has the intent closed (for two stores), nobody of this process may set the word.
 */
static bool is_open(const struct acc_segment *seg, uint32_t lock) {
    return !(acc_load_acquire(&seg->intent[lock]) & ACC_INTENT_CLOSED);
}

/* Sleep until the word changes.  Without intent, so that the tick can see that a word with our id
 * is nobody's even while all threads of this process wait for it. */
static void sleep_on(struct acc_segment *seg, uint32_t lock, uint32_t seen, uint64_t ns) {
    acc_sub_release(&seg->intent[lock], 1u);
    futex_wait(acc_lock_word(seg, lock), seen, ns);
    acc_add_acquire(&seg->intent[lock], 1u);
    acc_fence_behind_cas(); /* as in acc_lock_take(): intent, then our id */
}

static bool wait_round(struct acc_segment *seg, uint32_t lock, uint32_t mine, uint64_t slice) {
    uint32_t *word = acc_lock_word(seg, lock);
    uint32_t seen = acc_load_relaxed(word);
    if (seen == 0) {
        return is_open(seg, lock) && acc_cas32(word, 0, mine | ACC_LOCK_WAITERS);
    }
    if (!(seen & ACC_LOCK_WAITERS)) {
        if (!acc_cas32(word, seen, seen | ACC_LOCK_WAITERS)) {
            return false;
        }
        seen |= ACC_LOCK_WAITERS;
    }
    sleep_on(seg, lock, seen, slice);
    uint32_t now = acc_load_relaxed(word);
    if (!is_open(seg, lock) || acc_incarnation(seg) != mine) {
        return false;
    }
    if (now == 0) {
        return acc_cas32(word, 0, mine | ACC_LOCK_WAITERS);
    }
    uint32_t owner = now & ~ACC_LOCK_WAITERS;
    if (now == seen && acc_process_dead(seg, owner) &&
        acc_cas32(word, now, mine | ACC_LOCK_WAITERS)) {
        /* The dead holder's shard needs no repair: whatever prefix of his stores he made is a valid
         * state. */
        if (lock != ACC_LOCK_AREAS) {
            acc_add_relaxed(&acc_shard(seg, lock)->takeovers, 1u);
        }
        return true;
    }
    return false;
}

static bool wait_for(struct acc_segment *seg, uint32_t lock, uint32_t mine, uint64_t budget_ns) {
    if (is_open(seg, lock) && spin(acc_lock_word(seg, lock), mine)) {
        return true;
    }
    bool taken = false;
    uint64_t end = acc_clock_ns() + budget_ns, now;
    /* While it slept, another thread may have taken this process out: then this id is nobody's. */
    while (!taken && acc_incarnation(seg) == mine && (now = acc_clock_ns()) < end) {
        uint64_t left = end - now;
        taken = wait_round(seg, lock, mine, left < SLICE_NS ? left : SLICE_NS);
    }
    return taken;
}

bool acc_lock_take_slow(struct acc_segment *seg, uint32_t lock, uint64_t budget_ns) {
    uint32_t mine = acc_incarnation(seg);
    bool taken = mine != 0 && wait_for(seg, lock, mine, budget_ns);
    if (!taken) {
        acc_sub_release(&seg->intent[lock], 1u);
    }
    return taken;
}

/* With its waiters bit, if somebody has set it meanwhile. */
void acc_lock_take_back(struct acc_segment *seg, uint32_t lock, uint32_t mine) {
    uint32_t *word = acc_lock_word(seg, lock);
    uint32_t seen;
    while (((seen = acc_load_acquire(word)) & ~ACC_LOCK_WAITERS) == mine) {
        if (acc_cas32(word, seen, 0)) {
            acc_lock_wake(word);
            return;
        }
    }
}
