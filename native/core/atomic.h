/* Named wrappers over C11 atomics, so that every memory order is visible at its use.
 *
 * Words that live in the segment are plain integers in layout.h (their size and place must not
 * depend on how a compiler spells _Atomic); all access to a word that another process may touch
 * goes through here. */
#ifndef ACC_ATOMIC_H
#define ACC_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#define acc_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define acc_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define acc_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define acc_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define acc_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define acc_sub_relaxed(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELAXED)
#define acc_add_acquire(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQUIRE)
#define acc_sub_release(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELEASE)
#define acc_and_release(p, v) __atomic_fetch_and((p), (v), __ATOMIC_RELEASE)
#define acc_add_release(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define acc_swap_release(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
#define acc_fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define acc_fence_release() __atomic_thread_fence(__ATOMIC_RELEASE)

/* Behind a successful locked operation: what is loaded next is loaded after all have seen it.  (x86
 * needs no instruction for that.) */
static inline void acc_fence_behind_cas(void) {
#if defined(__x86_64__)
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

static inline bool acc_cas32(uint32_t *word, uint32_t seen, uint32_t wanted) {
    return __atomic_compare_exchange_n(word, &seen, wanted, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

static inline bool acc_cas64(uint64_t *word, uint64_t seen, uint64_t wanted) {
    return __atomic_compare_exchange_n(word, &seen, wanted, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

/* Counters have one writing process.  With a GIL its threads take turns, so a plain load and store
 * is enough (and half the price of a locked add); without one the add is atomic. */
static inline void acc_count_own(uint64_t *counter, uint64_t n) {
#ifdef ACC_NO_GIL
    acc_add_relaxed(counter, n);
#else
    acc_store_relaxed(counter, acc_load_relaxed(counter) + n);
#endif
}

/* Bring a line near; any address will do, a bad one does nothing.  The empty statement is there
 * because gcc takes a function that does nothing but prefetch for one that does nothing, and drops
 * every call of it. */
static inline void acc_prefetch(const void *line) {
    __builtin_prefetch(line);
    __asm__ __volatile__("");
}

static inline void acc_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

#define acc_likely(x) __builtin_expect(!!(x), 1)
#define acc_unlikely(x) __builtin_expect(!!(x), 0)

#endif
