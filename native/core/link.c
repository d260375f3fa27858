/* Owns the words of the link block that say how the second level does, the breaker, and what each
 * area's listener has got to.
 *
 * No lock.  Each word is changed by CAS (or stored, where every value that anybody stores is true),
 * and each of them alone leans to the safe side:
 *
 *   confirmed     raised only, to times at which a write was sent that has been executed.  Too small
 *                 is safe: the second level is then not read.
 *   settled_from  raised BEFORE the confirmation that ends an interruption, so that nobody sees the
 *                 one without the other.  Killed between: confirmed is as old as it was, nobody
 *                 reads, and the next confirmation raises both.
 *   refused       stored by who hears an error, cleared behind the raised confirmation.  Killed
 *                 between: refused for one heartbeat more.
 *   lost          raised by who listens, at once: the server may be another one, or have begun anew
 *                 from its disk, and is not read before it has executed a write that was sent behind
 *                 that.  Killed before: as if it had not been noticed; the next who listens looks.
 *   heard         raised before the breaker is closed.  Killed between: the breaker's pause ends by
 *                 itself.
 *   breaker       all of its state in one word, so that every step is one CAS:
 *                   level 0: closed; `failures` counts, the fifth in a row opens it
 *                   level n: open for 0.5 s x 2^(n-1) (8 s at most, 20 % more or less), `ms` is its end
 *                   probing: one caller asks for all; `ms` is when it must have answered
 *                 Killed while it probes: behind that time the next who asks is the probe.
 *
 * Garbage: a time in the future is nobody's, and is taken for never or, where never would be
 * believed, for the longest wait there is; the next confirmation replaces it. */
#include "link.h"

#include "hash.h"

#define SECOND_NS 1000000000ull
/* More between two confirmations: other hosts may owe us something, and are given SETTLE_NS for it. */
#define INTERRUPTION_NS SECOND_NS
#define SETTLE_NS SECOND_NS

/* --- raised only ------------------------------------------------------------------------------ */

/* `most`: a greater one is garbage, to be replaced. */
static void raise_to(uint64_t *word, uint64_t value, uint64_t most) {
    for (;;) {
        uint64_t seen = acc_load_acquire(word);
        if ((seen >= value && seen <= most) || acc_cas64(word, seen, value)) {
            return;
        }
    }
}

/* What lies in the future never was. */
static uint64_t past(const uint64_t *word, uint64_t now) {
    uint64_t at = acc_load_acquire(word);
    return at <= now ? at : 0;
}

/* --- the breaker ------------------------------------------------------------------------------ */

#define FAILURES_MAX 5u
#define LEVEL_MAX 5u
#define PAUSE_MS 500u
#define PROBE_MS 1000u
#define LEVEL_SHIFT 60
#define PROBING (1ull << 59)
#define FAILURES_SHIFT 51
#define FAILURES_MASK 0xffu
#define MS_MASK ((1ull << FAILURES_SHIFT) - 1)

static uint32_t level_of(uint64_t breaker) {
    return (uint32_t)(breaker >> LEVEL_SHIFT);
}

static uint32_t failures_of(uint64_t breaker) {
    return (uint32_t)(breaker >> FAILURES_SHIFT) & FAILURES_MASK;
}

/* Until when it is open, or the probe may take.  Garbage is not believed for longer than the longest
 * pause. */
static uint64_t wait_ms(uint64_t breaker, uint64_t now_ms) {
    uint64_t until = breaker & MS_MASK, longest = (PAUSE_MS << (LEVEL_MAX - 1)) * 6 / 5;
    return until > now_ms && until - now_ms <= longest ? until - now_ms : 0;
}

static uint64_t probing(uint64_t breaker, uint64_t now_ms) {
    return (breaker & ~MS_MASK) | PROBING | ((now_ms + PROBE_MS) & MS_MASK);
}

/* Open for the pause of `level`, 20 % more or less so that hosts do not come back in step. */
static uint64_t opened(const struct acc_segment *seg, uint32_t level, uint64_t now_ns) {
    uint32_t at = level < 1 ? 1 : level > LEVEL_MAX ? LEVEL_MAX : level;
    uint32_t pause = PAUSE_MS << (at - 1);
    uint32_t chance = (uint32_t)(acc_remix(now_ns, seg->hash_key[0] | 1) >> 32);
    uint64_t until = now_ns / 1000000u + pause * 4 / 5 + acc_range(chance, pause * 2 / 5 + 1);
    return (uint64_t)at << LEVEL_SHIFT | (uint64_t)FAILURES_MAX << FAILURES_SHIFT |
           (until & MS_MASK);
}

static enum acc_remote ask_breaker(struct acc_segment *seg) {
    struct acc_link *link = acc_link(seg);
    for (;;) {
        uint64_t seen = acc_load_acquire(&link->breaker);
        if (level_of(seen) == 0) {
            return ACC_REMOTE_GO;
        }
        uint64_t now_ms = acc_now_ns(seg) / 1000000u;
        if (wait_ms(seen, now_ms) != 0) {
            return ACC_REMOTE_NO;
        }
        /* A failed CAS: another is the probe, or it was closed meanwhile. */
        if (acc_cas64(&link->breaker, seen, probing(seen, now_ms))) {
            return ACC_REMOTE_PROBE;
        }
    }
}

void acc_link_ok(struct acc_segment *seg, bool probe) {
    uint64_t *word = &acc_link(seg)->breaker;
    uint64_t seen = acc_load_acquire(word);
    /* A call that was under way when it opened closes nothing: only the probe does. */
    while (!seg->readonly && seen != 0 && (probe || level_of(seen) == 0)) {
        if (acc_cas64(word, seen, 0)) {
            return;
        }
        seen = acc_load_acquire(word);
    }
}

/* What a failure makes of the word; unchanged: nothing. */
static uint64_t after_failure(const struct acc_segment *seg, uint64_t seen, uint64_t since,
                              bool probe) {
    uint64_t now = acc_now_ns(seg);
    if (level_of(seen) == 0) {
        uint32_t failures = failures_of(seen) + 1;
        return failures >= FAILURES_MAX ? opened(seg, 1, now)
                                        : (uint64_t)failures << FAILURES_SHIFT;
    }
    /* Only the probe that is under way: one that began before the present one's time did is late,
     * and has been counted as failed already. */
    uint64_t began = (seen & MS_MASK) - PROBE_MS;
    bool current = probe && (seen & PROBING) && since / 1000000u + PROBE_MS / 2 >= began;
    return current ? opened(seg, level_of(seen) + 1, now) : seen;
}

void acc_link_failed(struct acc_segment *seg, uint64_t since, bool probe) {
    struct acc_link *link = acc_link(seg);
    while (!seg->readonly && past(&link->heard, acc_now_ns(seg)) <= since) {
        uint64_t seen = acc_load_acquire(&link->breaker);
        uint64_t next = after_failure(seg, seen, since, probe);
        if (next == seen || acc_cas64(&link->breaker, seen, next)) {
            return;
        }
    }
}

/* --- the link --------------------------------------------------------------------------------- */

void acc_link_confirm(struct acc_segment *seg, uint64_t sent) {
    struct acc_link *link = acc_link(seg);
    uint64_t now = acc_now_ns(seg);
    if (seg->readonly) {
        return;
    }
    sent = sent == 0 ? 1 : sent > now ? now : sent; /* nothing is current beyond now */
    uint64_t former = past(&link->confirmed, now);
    bool interrupted = former != 0 && sent > former && sent - former > INTERRUPTION_NS;
    bool garbage = acc_load_acquire(&link->settled_from) > now + SETTLE_NS;
    if (interrupted || garbage) {
        raise_to(&link->settled_from, now + SETTLE_NS, now + SETTLE_NS);
    }
    raise_to(&link->lost, 0, now); /* garbage */
    raise_to(&link->confirmed, sent, now);
    raise_to(&link->heard, now, acc_now_ns(seg));
    acc_store_release(&link->refused, (uint64_t)0);
    acc_link_ok(seg, true);
}

void acc_link_refused(struct acc_segment *seg) {
    if (!seg->readonly) {
        acc_store_release(&acc_link(seg)->refused, acc_now_ns(seg));
    }
}

void acc_link_connected(struct acc_segment *seg) {
    struct acc_link *link = acc_link(seg);
    if (!seg->readonly) {
        acc_add_relaxed(&link->connects, (uint64_t)1);
        acc_store_relaxed(&link->next_retry, (uint64_t)0);
        acc_store_release(&link->connected, acc_now_ns(seg));
    }
}

void acc_link_lost(struct acc_segment *seg, uint64_t retry_ns) {
    struct acc_link *link = acc_link(seg);
    if (!seg->readonly) {
        uint64_t now = acc_now_ns(seg);
        raise_to(&link->lost, now, now);
        acc_store_relaxed(&link->next_retry, now + retry_ns);
        acc_store_release(&link->connected, (uint64_t)0);
    }
}

void acc_link_message(struct acc_segment *seg) {
    if (!seg->readonly) {
        acc_store_release(&acc_link(seg)->message, acc_now_ns(seg));
    }
}

static bool may_read(const struct acc_segment *seg, uint64_t bound_ns) {
    const struct acc_link *link = acc_link(seg);
    uint64_t confirmed = acc_load_acquire(&link->confirmed); /* before settled_from: see the top */
    if (confirmed == 0) {
        return true; /* nobody has ever listened for this host: nothing is known against it */
    }
    uint64_t now = acc_now_ns(seg);
    return confirmed <= now && now - confirmed <= bound_ns &&
           now >= acc_load_acquire(&link->settled_from) && confirmed >= past(&link->lost, now);
}

static enum acc_forced forced_breaker(const struct acc_segment *seg) {
    uint32_t value;
    if (acc_likely(!acc_override_look(seg, acc_override_host(seg), ACC_OPTION_BREAKER, &value))) {
        return ACC_FORCED_NOT;
    }
    return value == 0 ? ACC_FORCED_CLOSED : ACC_FORCED_OPEN;
}

enum acc_remote acc_link_ask(struct acc_segment *seg, uint64_t bound_ns, bool reading) {
    struct acc_link *link = acc_link(seg);
    enum acc_forced forced = forced_breaker(seg);
    if (acc_unlikely(acc_load_acquire(&link->refused) != 0) || forced == ACC_FORCED_OPEN ||
        (reading && !may_read(seg, bound_ns))) {
        return ACC_REMOTE_NO;
    }
    bool closed = acc_load_acquire(&link->breaker) == 0 || forced == ACC_FORCED_CLOSED;
    return acc_likely(closed) || seg->readonly ? ACC_REMOTE_GO : ask_breaker(seg);
}

static enum acc_breaker state_of_breaker(uint64_t breaker, uint64_t wait) {
    if (level_of(breaker) == 0) {
        return ACC_BREAKER_CLOSED;
    }
    return (breaker & PROBING) || wait == 0 ? ACC_BREAKER_HALF_OPEN : ACC_BREAKER_OPEN;
}

struct acc_link_info acc_link_look(const struct acc_segment *seg) {
    const struct acc_link *link = acc_link(seg);
    uint64_t breaker = acc_load_acquire(&link->breaker);
    struct acc_link_info info = {
        .refused = acc_load_acquire(&link->refused) != 0,
        .forced = forced_breaker(seg),
        .failures = failures_of(breaker),
        .connects = acc_load_relaxed(&link->connects),
        .next_retry = acc_load_relaxed(&link->next_retry),
    };
    uint64_t settled_from = acc_load_acquire(&link->settled_from);
    /* Two clock reads: everything stored before this one is of its past. */
    info.now = acc_now_ns(seg);
    info.confirmed = past(&link->confirmed, info.now);
    info.heard = past(&link->heard, info.now);
    info.connected = past(&link->connected, info.now);
    info.message = past(&link->message, info.now);
    info.settled = info.now >= settled_from;
    uint64_t wait = level_of(breaker) == 0 ? 0 : wait_ms(breaker, info.now / 1000000u);
    info.breaker = state_of_breaker(breaker, wait);
    info.open_ns = info.breaker == ACC_BREAKER_OPEN ? wait * 1000000u : 0;
    return info;
}

/* --- the areas -------------------------------------------------------------------------------- */

#define SEQUENCE_BITS 48
#define SEQUENCE_MASK ((1ull << SEQUENCE_BITS) - 1)

/* `applied` tells of which replication id it is, so that the two words can never be read as a pair
 * that was never stored.  (Sixteen bits of it: a hundred thousand invalidations a second take 89
 * years to fill the other forty-eight.) */
static uint64_t print_of(uint64_t replication) {
    return acc_remix(replication, 0x9fb21c651e98df25ull) >> SEQUENCE_BITS;
}

bool acc_link_state(const struct acc_area_slot *area, uint64_t *replication, uint64_t *sequence) {
    uint64_t of = acc_load_acquire(&area->replication);
    uint64_t applied = acc_load_acquire(&area->applied);
    if (of == 0 || applied >> SEQUENCE_BITS != print_of(of)) {
        *replication = *sequence = 0;
        return false;
    }
    *replication = of;
    *sequence = applied & SEQUENCE_MASK;
    return true;
}

/* Killed between the two stores of a new id: the pair does not fit, nothing is known to have been
 * applied, and the next listener has the area forgotten as at the first time.  Raising is one CAS of
 * a word with the print, so a listener that was stopped while another replaced the id changes
 * nothing. */
void acc_link_applied(struct acc_area_slot *area, uint64_t replication, uint64_t sequence) {
    if (replication == 0 || sequence > SEQUENCE_MASK) {
        acc_store_release(&area->replication, (uint64_t)0);
        return;
    }
    uint64_t print = print_of(replication), wanted = print << SEQUENCE_BITS | sequence;
    for (;;) {
        uint64_t of = acc_load_acquire(&area->replication);
        uint64_t seen = acc_load_acquire(&area->applied);
        if (of != replication || seen >> SEQUENCE_BITS != print) {
            acc_store_release(&area->replication, replication);
            acc_store_release(&area->applied, wanted);
            return;
        }
        if (seen >= wanted || acc_cas64(&area->applied, seen, wanted)) {
            return;
        }
    }
}

/* --- check ------------------------------------------------------------------------------------ */

uint32_t acc_link_check(const struct acc_segment *seg, acc_report *report, void *context) {
    const struct acc_link *link = acc_link(seg);
    uint64_t breaker = acc_load_acquire(&link->breaker);
    uint64_t settled_from = acc_load_acquire(&link->settled_from);
    const uint64_t times[] = {
        acc_load_acquire(&link->confirmed),
        acc_load_acquire(&link->heard),
        acc_load_acquire(&link->refused),
        acc_load_acquire(&link->connected),
        acc_load_acquire(&link->message),
        acc_load_acquire(&link->lost),
        settled_from < SETTLE_NS ? 0 : settled_from - SETTLE_NS,
    };
    uint64_t now = acc_now_ns(seg); /* behind the words: nothing that was stored is of its future */
    uint32_t violations = 0;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        if (times[i] > now) {
            report(context, "link: something happened in the future");
            violations++;
        }
    }
    if (level_of(breaker) > LEVEL_MAX || failures_of(breaker) > FAILURES_MAX) {
        report(context, "link: the breaker is in no state that there is");
        violations++;
    }
    return violations;
}
