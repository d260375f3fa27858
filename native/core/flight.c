/* Owns the records of flights, the turns of uncoordinated loads, and the bits in acc_shard.flights.
 *
 * Claims, take-overs and overtaking hold the shard lock; the end of a flight does not.  Turns are
 * given out under the lock over areas, and never with a shard lock held.
 *
 * What a killed leader leaves: a record that names a dead owner.  A waiter finds out within a slice
 * of its wait, whoever needs a record takes it, and the measurement sweeps up the rest.  What a
 * killed waiter leaves: a count that is too high until the flight ends, which costs a wake-up call
 * for nobody. */
#include "flight.h"

#include "doorbell.h"
#include "hash.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESULT_MASK 15u
/* Who joins a flight younger than this (40 ms) does not ask the kernel whether its leader lives: he
 * asks while he waits. */
#define YOUNG_UNITS 10u

static uint32_t group_of(const struct acc_segment *seg, uint64_t hash) {
    return acc_range((uint32_t)(acc_remix(hash, 0xc2b2ae3d27d4eb4full) >> 32),
                     seg->geometry.flight_groups);
}

static uint32_t first_record(const struct acc_segment *seg, uint32_t shard, uint32_t group) {
    return (shard * seg->geometry.flight_groups + group) * ACC_FLIGHT_GROUP;
}

static struct acc_flight *flight_of(const struct acc_segment *seg,
                                    const struct acc_ticket *ticket) {
    return acc_flight_record(seg, ticket->record);
}

static bool is_of(const struct acc_flight *flight, uint32_t area, uint64_t hash) {
    return acc_load_relaxed(&flight->hash) == hash && acc_load_relaxed(&flight->area) == area;
}

/* Garbage may say that a lease never ends: nobody has such a one. */
static bool lease_over(const struct acc_flight *flight, uint32_t now) {
    uint32_t deadline = acc_load_relaxed(&flight->deadline);
    return deadline == 0 || acc_clock_passed(deadline, now);
}

/* --- claims ----------------------------------------------------------------------------------- */

uint32_t acc_flight_find_locked(const struct acc_segment *seg, const struct acc_load *load) {
    uint32_t first = first_record(seg, load->shard, group_of(seg, load->hash));
    for (uint32_t i = first; i < first + ACC_FLIGHT_GROUP; i++) {
        const struct acc_flight *flight = acc_flight_record(seg, i);
        uint32_t control = acc_load_acquire(&flight->control);
        /* Exactly that: neither alone nor overtaken.  And no delete since it began: who starts to
         * read after a delete must not be given what was loaded before it. */
        if ((control & (ACC_FLIGHT_STATE | ACC_FLIGHT_OVERTAKEN)) == (uint32_t)load->joinable &&
            is_of(flight, load->area, load->hash) &&
            acc_generation_valid(load->generation, flight->key_count, load->hash) &&
            flight->area_count == load->area_count) {
            return i;
        }
    }
    return ACC_NO_RECORD;
}

bool acc_flight_gone_locked(const struct acc_segment *seg, uint32_t record) {
    const struct acc_flight *flight = acc_flight_record(seg, record);
    uint32_t now = acc_now(seg);
    return lease_over(flight, now) ||
           (now - flight->started >= YOUNG_UNITS && acc_process_known_ending(seg, flight->owner));
}

/* A record that nobody holds, the one longest unused (so that those who still want to know how its
 * last flight ended can); else one whose leader is gone. */
static uint32_t choose(const struct acc_segment *seg, uint32_t first) {
    uint32_t now = acc_now(seg), oldest = 0, chosen = ACC_NO_RECORD;
    for (uint32_t i = first; i < first + ACC_FLIGHT_GROUP; i++) {
        const struct acc_flight *flight = acc_flight_record(seg, i);
        uint32_t age = now - flight->started;
        if (!acc_flight_live(acc_load_acquire(&flight->control)) &&
            (chosen == ACC_NO_RECORD || age > oldest)) {
            oldest = age;
            chosen = i;
        }
    }
    for (uint32_t i = first; chosen == ACC_NO_RECORD && i < first + ACC_FLIGHT_GROUP; i++) {
        const struct acc_flight *flight = acc_flight_record(seg, i);
        if (lease_over(flight, now) || acc_process_dead(seg, flight->owner)) {
            chosen = i;
        }
    }
    return chosen;
}

static void begin(struct acc_segment *seg, uint32_t record, const struct acc_load *load,
                  enum acc_flight_state state, uint32_t lease, struct acc_ticket *ticket) {
    struct acc_flight *flight = acc_flight_record(seg, record);
    uint32_t seen = acc_load_relaxed(&flight->control);
    uint32_t control = (acc_flight_token(seen) + 1) << ACC_FLIGHT_TOKEN_SHIFT | state;
    uint32_t token = acc_flight_token(control), now = acc_now(seg);
    ticket->record = record;
    ticket->token = token;
    ticket->incarnation = acc_incarnation(seg);
    ticket->key_count = acc_generation_count(load->generation);
    ticket->area_count = load->area_count;
    ticket->started = now;
    ticket->leading = true;
    ticket->alone = state == ACC_FLIGHT_ALONE;
    /* The bit first: killed before the record is complete, it stands for nothing, and the next
     * store that looks takes it back. */
    uint64_t *bits = &acc_shard(seg, load->shard)->flights;
    acc_store_relaxed(bits, acc_load_relaxed(bits) | 1ull << group_of(seg, load->hash));
    acc_store_relaxed(&flight->crowd, (uint64_t)token << 32);
    acc_store_relaxed(&flight->ringers, (uint64_t)0);
    acc_store_relaxed(&flight->hash, load->hash);
    acc_store_relaxed(&flight->area, load->area);
    acc_store_relaxed(&flight->key_count, ticket->key_count);
    acc_store_relaxed(&flight->area_count, ticket->area_count);
    acc_store_relaxed(&flight->started, now);
    acc_store_relaxed(&flight->deadline, now + lease == 0 ? 1 : now + lease);
    acc_store_relaxed(&flight->owner, ticket->incarnation);
    /* Killed before this: the record is what it was, free or a dead leader's.  (A living leader
     * whose lease has passed may end his flight just now; this store takes the record all the
     * same, and his wake-up call has gone out.) */
    acc_store_release(&flight->control, control);
}

bool acc_flight_claim_locked(struct acc_segment *seg, const struct acc_load *load,
                             enum acc_flight_state state, uint32_t lease,
                             struct acc_ticket *ticket) {
    uint32_t record = choose(seg, first_record(seg, load->shard, group_of(seg, load->hash)));
    if (record == ACC_NO_RECORD) {
        return false;
    }
    begin(seg, record, load, state, lease, ticket);
    return true;
}

void acc_flight_take_over_locked(struct acc_segment *seg, uint32_t record,
                                 const struct acc_load *load, uint32_t lease,
                                 struct acc_ticket *ticket) {
    begin(seg, record, load, load->joinable, lease, ticket);
    ticket->taken_over = true;
}

void acc_flight_join_locked(struct acc_segment *seg, uint32_t record, struct acc_ticket *ticket) {
    struct acc_flight *flight = acc_flight_record(seg, record);
    ticket->record = record;
    ticket->token = acc_flight_token(acc_load_acquire(&flight->control));
    ticket->incarnation = acc_incarnation(seg);
    ticket->key_count = flight->key_count;
    ticket->area_count = flight->area_count;
    ticket->joined = true;
    /* Pairs with acc_flight_end(): there the control word, then the crowd; here the crowd, then (in
     * the kernel, or in acc_flight_running()) the control word.  The token is this flight's: claims
     * need the lock that we hold. */
    acc_add_release(&flight->crowd, (uint64_t)1);
    acc_fence_behind_cas();
}

void acc_flight_overtake_slow(struct acc_segment *seg, uint32_t shard, uint32_t area, uint64_t hash,
                              uint32_t except) {
    uint32_t group = group_of(seg, hash), first = first_record(seg, shard, group);
    struct acc_shard *s = acc_shard(seg, shard);
    if (!(acc_load_relaxed(&s->flights) >> group & 1)) {
        return;
    }
    bool any = false;
    for (uint32_t i = first; i < first + ACC_FLIGHT_GROUP; i++) {
        struct acc_flight *flight = acc_flight_record(seg, i);
        uint32_t control = acc_load_acquire(&flight->control);
        any = any || acc_flight_live(control);
        while (i != except && acc_flight_live(control) && !(control & ACC_FLIGHT_OVERTAKEN) &&
               is_of(flight, area, hash)) {
            /* Fails only if its leader ends it at this moment. */
            acc_cas32(&flight->control, control, control | ACC_FLIGHT_OVERTAKEN);
            control = acc_load_acquire(&flight->control);
        }
    }
    if (!any) {
        /* Nobody can claim one meanwhile: claims need the lock. */
        acc_store_relaxed(&s->flights, acc_load_relaxed(&s->flights) & ~(1ull << group));
    }
}

void acc_flight_outdate_locked(struct acc_segment *seg, uint32_t record) {
    struct acc_flight *flight = acc_flight_record(seg, record);
    uint32_t control = acc_load_acquire(&flight->control);
    /* Fails only if its leader ends it at this moment. */
    if (acc_flight_live(control)) {
        acc_cas32(&flight->control, control, control | ACC_FLIGHT_OVERTAKEN);
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

static void wake(struct acc_segment *seg, struct acc_flight *flight, uint32_t token) {
    /* Behind the CAS that ended it; see acc_flight_join_locked().  Another token: the record was
     * claimed anew already, and who still sleeps on the old one is not counted any more. */
    acc_fence_behind_cas();
    uint64_t crowd = acc_load_acquire(&flight->crowd);
    uint64_t ringers = acc_load_acquire(&flight->ringers);
    if (crowd >> 32 != token || (uint32_t)crowd != 0) {
        syscall(SYS_futex, &flight->control, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
    for (; ringers != 0; ringers &= ringers - 1) {
        acc_doorbell_ring(seg, (uint32_t)__builtin_ctzll(ringers));
    }
}

enum acc_lease acc_flight_lease(const struct acc_segment *seg, const struct acc_ticket *ticket) {
    if (!ticket->leading || ticket->record == ACC_NO_RECORD ||
        ticket->incarnation != acc_incarnation(seg)) {
        return ACC_LEASE_LOST; /* ended, never recorded, or another process's: we are its child */
    }
    uint32_t control = acc_load_acquire(&flight_of(seg, ticket)->control);
    if (!acc_flight_live(control) || acc_flight_token(control) != ticket->token) {
        return ACC_LEASE_LOST;
    }
    return control & ACC_FLIGHT_OVERTAKEN ? ACC_LEASE_OVERTAKEN : ACC_LEASE_HELD;
}

void acc_flight_hand_locked(struct acc_segment *seg, const struct acc_ticket *ticket,
                            uint64_t handed) {
    /* The lease is ours and stays ours while we hold the lock: nobody else writes here. */
    acc_store_release(&flight_of(seg, ticket)->handed, handed);
}

void acc_flight_end(struct acc_segment *seg, struct acc_ticket *ticket,
                    enum acc_flight_result result) {
    if (acc_flight_lease(seg, ticket) != ACC_LEASE_LOST) {
        struct acc_flight *flight = flight_of(seg, ticket);
        uint32_t token = ticket->token;
        /* With the token, so that a late store by one who has just lost his lease is not taken for
         * the result of his successor. */
        acc_store_release(&flight->result, token << ACC_FLIGHT_TOKEN_SHIFT | (uint32_t)result);
        uint32_t control = acc_load_acquire(&flight->control);
        while (acc_flight_live(control) && acc_flight_token(control) == token) {
            /* Killed before this: a dead leader's.  After it: ended, and who sleeps finds that out
             * at the end of the slice. */
            if (acc_cas32(&flight->control, control,
                          token << ACC_FLIGHT_TOKEN_SHIFT | ACC_FLIGHT_FREE)) {
                wake(seg, flight, token);
                break;
            }
            control = acc_load_acquire(&flight->control);
        }
    }
    ticket->leading = false;
    acc_flight_give_turn(seg, ticket);
}

void acc_flight_sweep_locked(struct acc_segment *seg, uint32_t shard) {
    for (uint32_t group = 0; group < seg->geometry.flight_groups; group++) {
        uint32_t first = first_record(seg, shard, group);
        for (uint32_t i = first; i < first + ACC_FLIGHT_GROUP; i++) {
            struct acc_flight *flight = acc_flight_record(seg, i);
            uint32_t control = acc_load_acquire(&flight->control);
            if (acc_flight_live(control) && acc_process_dead(seg, flight->owner) &&
                acc_cas32(&flight->control, control,
                          control & ~(ACC_FLIGHT_STATE | ACC_FLIGHT_OVERTAKEN))) {
                wake(seg, flight, acc_flight_token(control));
            }
        }
    }
}

/* --- waiting ---------------------------------------------------------------------------------- */

bool acc_flight_running(const struct acc_segment *seg, const struct acc_ticket *ticket) {
    if (ticket->record == ACC_NO_RECORD) {
        return false;
    }
    uint32_t control = acc_load_acquire(&flight_of(seg, ticket)->control);
    return acc_flight_live(control) && acc_flight_token(control) == ticket->token;
}

bool acc_flight_lapsed(const struct acc_segment *seg, const struct acc_ticket *ticket) {
    return ticket->record == ACC_NO_RECORD || lease_over(flight_of(seg, ticket), acc_now(seg));
}

bool acc_flight_leader_dead(const struct acc_segment *seg, const struct acc_ticket *ticket) {
    return ticket->record == ACC_NO_RECORD ||
           acc_process_ending(seg, acc_load_relaxed(&flight_of(seg, ticket)->owner));
}

void acc_flight_wait(struct acc_segment *seg, const struct acc_ticket *ticket, uint64_t wait_ns) {
    if (ticket->record == ACC_NO_RECORD) {
        return;
    }
    struct acc_flight *flight = flight_of(seg, ticket);
    uint32_t control = acc_load_acquire(&flight->control);
    if (acc_flight_live(control) && acc_flight_token(control) == ticket->token) {
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u),
                                .tv_nsec = (long)(wait_ns % 1000000000u)};
        syscall(SYS_futex, &flight->control, FUTEX_WAIT, control, &wait, NULL, 0);
    }
}

void acc_flight_ring(struct acc_segment *seg, const struct acc_ticket *ticket) {
    uint32_t slot = seg->self_slot;
    if (slot != 0 && ticket->record != ACC_NO_RECORD) {
        __atomic_fetch_or(&flight_of(seg, ticket)->ringers, 1ull << ((slot - 1) % 64),
                          __ATOMIC_ACQ_REL);
        acc_fence_behind_cas(); /* pairs with wake(), as the crowd does */
    }
}

void acc_flight_leave(struct acc_segment *seg, struct acc_ticket *ticket) {
    if (!ticket->joined || ticket->incarnation != acc_incarnation(seg)) {
        return;
    }
    /* Once: who left twice would take somebody else out of the crowd, whom then nobody wakes. */
    ticket->joined = false;
    struct acc_flight *flight = flight_of(seg, ticket);
    uint64_t crowd = acc_load_acquire(&flight->crowd);
    while (crowd >> 32 == ticket->token && (uint32_t)crowd != 0 &&
           !acc_cas64(&flight->crowd, crowd, crowd - 1)) {
        crowd = acc_load_acquire(&flight->crowd);
    }
}

enum acc_flight_result acc_flight_result(const struct acc_segment *seg,
                                         const struct acc_ticket *ticket, uint64_t *handed) {
    if (ticket->record == ACC_NO_RECORD) {
        return ACC_RESULT_UNKNOWN;
    }
    const struct acc_flight *flight = flight_of(seg, ticket);
    uint32_t wanted = ticket->token << ACC_FLIGHT_TOKEN_SHIFT | ACC_FLIGHT_FREE;
    uint32_t control = acc_load_acquire(&flight->control);
    uint32_t result = acc_load_acquire(&flight->result);
    *handed = acc_load_acquire(&flight->handed);
    if (control != wanted || result >> ACC_FLIGHT_TOKEN_SHIFT != ticket->token ||
        (result & RESULT_MASK) > ACC_RESULT_FAILED ||
        acc_load_acquire(&flight->control) != wanted) {
        return ACC_RESULT_UNKNOWN;
    }
    return (enum acc_flight_result)(result & RESULT_MASK);
}

uint32_t acc_flight_waiting(const struct acc_segment *seg, const struct acc_ticket *ticket) {
    if (ticket->record == ACC_NO_RECORD || !acc_flight_running(seg, ticket)) {
        return 0;
    }
    uint64_t crowd = acc_load_acquire(&flight_of(seg, ticket)->crowd);
    return crowd >> 32 == ticket->token ? (uint32_t)crowd : 0;
}

/* --- turns ------------------------------------------------------------------------------------ */

static uint32_t owner_of(uint64_t who) {
    return (uint32_t)(who >> 32);
}

static bool is_taken(const struct acc_segment *seg, const struct acc_turn *turn, uint32_t now) {
    uint32_t owner = owner_of(acc_load_acquire(&turn->who));
    return owner != 0 && !acc_clock_passed(turn->deadline, now) && !acc_process_dead(seg, owner);
}

enum acc_status acc_flight_take_turn(struct acc_segment *seg, uint32_t area, uint32_t most,
                                     uint32_t lease, struct acc_ticket *ticket) {
    if (!acc_lock_take(seg, ACC_LOCK_AREAS, ACC_LOCK_BUDGET_NS)) {
        return ACC_BUSY;
    }
    uint32_t now = acc_now(seg), running = 0;
    struct acc_turn *vacant = NULL;
    for (uint32_t i = 0; i < seg->geometry.turns && running < most; i++) {
        struct acc_turn *turn = acc_turn(seg, i);
        bool of_area = owner_of(acc_load_acquire(&turn->who)) != 0 && turn->area == area;
        if (of_area || vacant == NULL) {
            bool taken = is_taken(seg, turn, now);
            running += taken && of_area;
            vacant = taken || vacant != NULL ? vacant : turn;
        }
    }
    bool granted = running < most && vacant != NULL;
    if (granted) {
        uint32_t serial = (uint32_t)acc_load_relaxed(&vacant->who) + 1;
        /* Nobody's first: a living process whose lease has passed may still stand here, and killed
         * behind the next two stores, his turn would be as good as new. */
        acc_store_release(&vacant->who, (uint64_t)serial);
        vacant->area = area;
        vacant->deadline = now + lease == 0 ? 1 : now + lease;
        /* Killed before this: a vacant turn. */
        acc_store_release(&vacant->who, (uint64_t)acc_incarnation(seg) << 32 | serial);
        ticket->turn = (uint32_t)(vacant - acc_turn(seg, 0)) + 1;
        ticket->turn_serial = serial;
        ticket->incarnation = acc_incarnation(seg);
    }
    acc_lock_give(seg, ACC_LOCK_AREAS);
    return granted ? ACC_OK : ACC_FULL;
}

void acc_flight_give_turn(struct acc_segment *seg, struct acc_ticket *ticket) {
    if (ticket->turn != 0 && ticket->incarnation == acc_incarnation(seg)) {
        /* Fails if the turn was given to somebody else when its time had passed. */
        acc_cas64(&acc_turn(seg, ticket->turn - 1)->who,
                  (uint64_t)ticket->incarnation << 32 | ticket->turn_serial, ticket->turn_serial);
    }
    ticket->turn = 0;
}

/* --- looking at them -------------------------------------------------------------------------- */

bool acc_flight_look(const struct acc_segment *seg, uint32_t record, struct acc_flight_info *out) {
    const struct acc_flight *flight = acc_flight_record(seg, record);
    uint32_t control = acc_load_acquire(&flight->control);
    if (!acc_flight_live(control)) {
        return false;
    }
    *out = (struct acc_flight_info){
        .hash = acc_load_relaxed(&flight->hash),
        .area = acc_load_relaxed(&flight->area),
        .owner = acc_load_relaxed(&flight->owner),
        .waiting = (uint32_t)acc_load_relaxed(&flight->crowd),
        .token = acc_flight_token(control),
        .started = acc_load_relaxed(&flight->started),
        .deadline = acc_load_relaxed(&flight->deadline),
        .alone = (control & ACC_FLIGHT_STATE) == ACC_FLIGHT_ALONE,
        .locked = (control & ACC_FLIGHT_STATE) == ACC_FLIGHT_LOCKED,
    };
    uint64_t group =
        acc_load_acquire(acc_generation_word(seg, acc_generation_index(seg, out->hash)));
    out->overtaken =
        control & ACC_FLIGHT_OVERTAKEN ||
        (!out->locked &&
         (!acc_generation_valid(group, acc_load_relaxed(&flight->key_count), out->hash) ||
          (out->area < seg->geometry.areas &&
           (uint32_t)acc_load_acquire(
               &acc_area_slot(seg, acc_area_base(seg, out->area))->generation) !=
               acc_load_relaxed(&flight->area_count))));
    acc_fence_acquire();
    return acc_load_relaxed(&flight->control) == control;
}
