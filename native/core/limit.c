/* Owns the table of the limiter: when a line of each kind was last written, and how many were left
 * out since.
 *
 * No lock.  All that is known of a kind is one word, in one of the eight places of its set, and
 * every change is one CAS: killed before it, nobody has written a line; behind it, the line that was
 * allowed is not written.  Two kinds of one set whose prints are the same (once in 2^24) are one.  A
 * set that is full forgets who was quiet for longest.  (Two who ask for a kind the first time, while
 * a third takes a place in its set, may get two places for it: a line more.)
 *
 * Times are ticks of 2^26 ns (0.067 s) in 24 bits: a circle of 13 days.  What is older than half of
 * it seems to lie ahead, as garbage may, and is taken for never; what is a whole circle old keeps one
 * line back. */
#include "limit.h"

#include "hash.h"

#define PRINT_SHIFT 40
#define TIME_SHIFT 16
#define TIME_MASK ((1u << 24) - 1)
#define LEFT_OUT_MAX ((1u << 16) - 1)
#define TICK_SHIFT 26
#define LATE_TICKS 16u

_Static_assert((ACC_LIMIT_SETS & (ACC_LIMIT_SETS - 1)) == 0, "a set is found by bits of the hash");

static uint64_t print_of(uint64_t word) {
    return word >> PRINT_SHIFT;
}

static uint32_t left_out(uint64_t word) {
    return (uint32_t)word & LEFT_OUT_MAX;
}

/* Ticks since then: more than half of the circle is of the future.  A little of that is none: who
 * stored it has looked at the clock later than who asks. */
static uint32_t age_of(uint64_t word, uint32_t now) {
    uint32_t age = (now - (uint32_t)(word >> TIME_SHIFT)) & TIME_MASK;
    return age > TIME_MASK - LATE_TICKS ? 0 : age;
}

static uint64_t word_of(uint64_t print, uint32_t now, uint32_t left) {
    return print << PRINT_SHIFT | (uint64_t)(now & TIME_MASK) << TIME_SHIFT | left;
}

/* Where the kind is, else the place that it may take; *word: as it was then.  Who comes to the same
 * place by what has gone before fails to replace it, and finds the kind. */
static uint64_t *place_of(struct acc_limits *set, uint64_t print, uint32_t now, uint64_t *word) {
    uint64_t *oldest = NULL;
    for (uint32_t i = 0; i < ACC_LIMIT_WAYS; i++) {
        uint64_t seen = acc_load_acquire(&set->word[i]);
        if (print_of(seen) == print) {
            *word = seen;
            return &set->word[i];
        }
        if (oldest == NULL ||
            (*word != 0 && (seen == 0 || age_of(seen, now) > age_of(*word, now)))) {
            oldest = &set->word[i];
            *word = seen;
        }
    }
    return oldest;
}

int64_t acc_limit_allowed(struct acc_segment *seg, uint64_t kind, uint64_t interval_ns) {
    uint64_t print = kind >> PRINT_SHIFT;
    print = print == 0 ? 1 : print; /* a word of a kind is never that of a free place */
    uint64_t interval = (interval_ns + (1ull << TICK_SHIFT) - 1) >> TICK_SHIFT;
    struct acc_limits *set = acc_limit_set(seg, (uint32_t)kind & (ACC_LIMIT_SETS - 1));
    for (;;) {
        uint32_t now = (uint32_t)(acc_now_ns(seg) >> TICK_SHIFT) & TIME_MASK;
        uint64_t seen, *at = place_of(set, print, now, &seen);
        bool known = print_of(seen) == print;
        bool denied = known && age_of(seen, now) < interval;
        uint32_t left = known ? left_out(seen) : 0;
        uint64_t next =
            denied ? word_of(print, (uint32_t)(seen >> TIME_SHIFT), left + (left < LEFT_OUT_MAX))
                   : word_of(print, now, 0);
        if (next == seen || acc_cas64(at, seen, next)) {
            return denied ? -1 : (int64_t)left;
        }
    }
}
