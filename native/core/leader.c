/* Owns the words `leader`, `beat` and `bell` of the link block.
 *
 * Invariants: the term in `leader` only rises, by one with each claim, and each claim is one CAS: no
 * two claimers have the same term.  A beat tells its term, so it says nothing about any other
 * leader.  No lock, and nobody waits for somebody who must do something.
 *
 * Killed after the CAS of a claim, before the first beat: `leader` names a dead process, which the
 * others see as soon as they look (a slice of 50 ms).  Stopped there: no beat of that term is known,
 * so each process counts the 500 ms from when it itself first saw that leader.  Killed after the CAS
 * of a resignation, before the wake-up call: who waits sees within a slice that nobody leads.  Killed
 * or stopped anywhere else: the beat grows old.
 *
 * Stopped in acc_leader_beat(), and waking in another's term: the CAS fails, because the beat has
 * changed; or, before that one's first beat, it succeeds and says an old term, which nobody
 * believes. Garbage: a leader that does not beat, and after 500 ms is none; a beat that lies in the
 * future is none. */
#include "leader.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLICE_NS 50000000ull
#define BEAT_BITS 44
#define BEAT_MASK ((1ull << BEAT_BITS) - 1)
#define BEAT_TERM_MASK 0xfffffu

static uint32_t term_of(uint64_t leader) {
    return (uint32_t)(leader >> 32);
}

static uint64_t leader_of(uint32_t term, uint32_t incarnation) {
    return (uint64_t)term << 32 | incarnation;
}

static uint64_t beat_of(uint32_t term, uint64_t ms) {
    return (uint64_t)(term & BEAT_TERM_MASK) << BEAT_BITS | (ms & BEAT_MASK);
}

/* Age of the beat of this term.  False: none is known. */
static bool beat_age(const struct acc_segment *seg, uint32_t term, uint64_t *age) {
    uint64_t beat = acc_load_acquire(&acc_link(seg)->beat), at = beat & BEAT_MASK;
    uint64_t now = acc_now_ns(seg) / 1000000u; /* behind the beat: no living one is of the future */
    *age = now - at;
    return beat >> BEAT_BITS == (term & BEAT_TERM_MASK) && at <= now;
}

/* How long this process has seen this leader without a beat of its term. */
static uint64_t awaited(struct acc_segment *seg, uint64_t leader) {
    uint64_t now = acc_now_ns(seg) / 1000000u;
    if (acc_load_relaxed(&seg->leader_seen) != leader) {
        acc_store_relaxed(&seg->leader_since, now);
        acc_store_release(&seg->leader_seen, leader);
        return 0;
    }
    return now - acc_load_relaxed(&seg->leader_since);
}

static bool is_gone(struct acc_segment *seg, uint64_t leader) {
    uint32_t incarnation = (uint32_t)leader;
    uint64_t age;
    if (incarnation == 0) {
        return true;
    }
    if (!beat_age(seg, term_of(leader), &age)) {
        age = awaited(seg, leader);
    }
    /* Late first: what is asked of the kernel is asked once a slice. */
    return age > ACC_LEADER_LATE_MS || acc_process_dead(seg, incarnation);
}

static uint32_t try_claim(struct acc_segment *seg, uint32_t mine) {
    struct acc_link *link = acc_link(seg);
    uint64_t seen = acc_load_acquire(&link->leader);
    uint32_t term = term_of(seen) + 1 == 0 ? 1 : term_of(seen) + 1;
    if (!is_gone(seg, seen) || !acc_cas64(&link->leader, seen, leader_of(term, mine))) {
        return 0;
    }
    acc_leader_beat(seg, term);
    return term;
}

uint32_t acc_leader_claim(struct acc_segment *seg, uint64_t wait_ns) {
    uint32_t mine = acc_incarnation(seg);
    if (mine == 0 || seg->readonly) {
        return 0;
    }
    /* The bell before the leader: whoever resigns behind our look has changed it. */
    uint32_t *bell = &acc_link(seg)->bell, seen = acc_load_acquire(bell);
    uint32_t term = try_claim(seg, mine);
    if (term == 0 && wait_ns != 0) {
        uint64_t slice = wait_ns < SLICE_NS ? wait_ns : SLICE_NS;
        struct timespec wait = {.tv_nsec = (long)slice};
        syscall(SYS_futex, bell, FUTEX_WAIT, seen, &wait, NULL, 0);
        mine = acc_incarnation(seg);
        term = mine == 0 ? 0 : try_claim(seg, mine);
    }
    return term;
}

bool acc_leader_beat(struct acc_segment *seg, uint32_t term) {
    struct acc_link *link = acc_link(seg);
    uint32_t mine = acc_incarnation(seg);
    if (mine == 0 || term == 0 || seg->readonly) {
        return false;
    }
    for (;;) {
        uint64_t beat = acc_load_acquire(&link->beat);
        /* The beat before the leader: if another has claimed since, his beat makes the CAS fail. */
        if (acc_load_acquire(&link->leader) != leader_of(term, mine)) {
            return false;
        }
        /* A failed CAS means that another thread of ours, or who led before us, has beaten. */
        if (acc_cas64(&link->beat, beat, beat_of(term, acc_now_ns(seg) / 1000000u))) {
            return true;
        }
    }
}

void acc_leader_resign(struct acc_segment *seg, uint32_t term) {
    struct acc_link *link = acc_link(seg);
    uint32_t mine = acc_incarnation(seg);
    if (mine == 0 || term == 0 || seg->readonly ||
        !acc_cas64(&link->leader, leader_of(term, mine), leader_of(term, 0))) {
        return;
    }
    acc_add_release(&link->bell, 1u);
    syscall(SYS_futex, &link->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

struct acc_leader_info acc_leader_look(const struct acc_segment *seg) {
    uint64_t leader = acc_load_acquire(&acc_link(seg)->leader);
    struct acc_leader_info info = {.term = term_of(leader), .incarnation = (uint32_t)leader};
    info.has_beat = beat_age(seg, info.term, &info.beat_age_ms) && info.incarnation != 0;
    return info;
}

uint32_t acc_leader_check(const struct acc_segment *seg, acc_report *report, void *context) {
    uint64_t leader = acc_load_acquire(&acc_link(seg)->leader);
    uint64_t beat = acc_load_acquire(&acc_link(seg)->beat) & BEAT_MASK;
    uint32_t violations = 0;
    if ((uint32_t)leader != 0 && term_of(leader) == 0) {
        report(context, "link: somebody leads without a term");
        violations++;
    }
    if (beat > acc_now_ns(seg) / 1000000u) {
        report(context, "link: the leader's beat is of the future");
        violations++;
    }
    return violations;
}
