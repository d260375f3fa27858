/* The miss loads of accelerator.h: a flight (flight.c) around a fill (cache.c).
 *
 * Order of a leader: record; generations; load; then, under the lock, is the lease still held and
 * has no delete come since? store; and only then the end of the flight, so that whoever it wakes
 * finds the value.  Killed between the last two: the value is there, the record names a dead owner,
 * and who waits looks for the value first. */
#include "accelerator.h"
#include "op.h"

#include <stdlib.h>
#include <string.h>

#define RING_BIT 63
#define JOINED_ANYWAY 10 /* clock units: 40 ms */
#define READ_SOON 25     /* clock units until those who wait have read what was stored: 100 ms */
#define NOTE_TAG 0x80u   /* beside every tag of a key (ASCII): no user's key is a note's */

static bool is_lock(const struct acc_key *key) {
    return key->tag == ACC_TAG_LOCK;
}

static struct acc_load load_of(const struct op *op) {
    bool lock = is_lock(op->key);
    return (struct acc_load){
        .hash = op->key->hash,
        .shard = op->home.shard,
        .area = lock ? op->area->base : op->area->id,
        .generation = lock ? 0 : op->generation,
        .area_count = lock ? 0 : op->area_count,
        .joinable = lock ? ACC_FLIGHT_LOCKED : ACC_FLIGHT_LOADING,
    };
}

/* Will the value be fresh for longer than `window`?  Then there is nothing to load. */
static bool fresh_beyond(const struct op *op, uint32_t window) {
    if (window == ACC_WINDOW_ALL || !acc_op_current(op)) {
        return false;
    }
    uint32_t end = op->old.view.record.expire_at;
    return end == 0 || (int32_t)(end - acc_now(op->area->seg)) > (int32_t)window;
}

/* May a capped reader not join it, because what it will answer is too old already?  One that has only
 * just begun may be joined whatever the limit, or a limit of 0 would let everybody load at once. */
static bool is_out_of_date(const struct op *op, uint32_t record) {
    if (!acc_look_capped(&op->look) || is_lock(op->key)) {
        return false;
    }
    uint32_t age = (uint32_t)op->look.now - acc_flight_record(op->area->seg, record)->started;
    int64_t most = op->area->limit > JOINED_ANYWAY ? op->area->limit : JOINED_ANYWAY;
    return (int32_t)age > most;
}

static enum acc_status enter_locked(struct op *op, enum acc_load_mode mode, uint32_t window,
                                    uint32_t lease, struct acc_ticket *out) {
    struct acc_segment *seg = op->area->seg;
    struct acc_load load = load_of(op);
    if (fresh_beyond(op, window)) {
        return ACC_PRESENT;
    }
    uint32_t record = acc_flight_find_locked(seg, &load);
    if (record != ACC_NO_RECORD && acc_flight_gone_locked(seg, record)) {
        acc_flight_take_over_locked(seg, record, &load, lease, out);
        return ACC_OK;
    }
    if (record != ACC_NO_RECORD && is_out_of_date(op, record)) {
        acc_flight_outdate_locked(seg, record);
        record = ACC_NO_RECORD;
    }
    if (record == ACC_NO_RECORD) {
        return acc_flight_claim_locked(seg, &load, load.joinable, lease, out) ? ACC_OK : ACC_FULL;
    }
    if (mode == ACC_LOAD_LEAD) {
        return ACC_LED;
    }
    acc_flight_join_locked(seg, record, out);
    return ACC_OK;
}

enum acc_status acc_load_enter(struct acc_area *area, const struct acc_key *key,
                               enum acc_load_mode mode, uint32_t window, uint32_t lease,
                               uint64_t budget_ns, struct acc_ticket *out) {
    struct op op;
    /* Before the record is claimed, or found: an operation by tag that has returned is before it. */
    *out = (struct acc_ticket){.record = ACC_NO_RECORD, .tag_clock = acc_tag_clock(area->seg)};
    if (!acc_op_begin(&op, area, key, NULL, budget_ns)) {
        return ACC_BUSY;
    }
    enum acc_status status = enter_locked(&op, mode, window, lease, out);
    acc_op_end(&op);
    return status;
}

enum acc_status acc_load_alone(struct acc_area *area, const struct acc_key *key, uint32_t most,
                               uint32_t lease, uint64_t budget_ns, struct acc_ticket *out) {
    struct acc_segment *seg = area->seg;
    struct op op;
    *out = (struct acc_ticket){.record = ACC_NO_RECORD, .tag_clock = acc_tag_clock(seg)};
    enum acc_status turn =
        most == 0 ? ACC_OK : acc_flight_take_turn(seg, area->base, most, lease, out);
    if (turn != ACC_OK) {
        return turn;
    }
    if (acc_op_begin(&op, area, key, NULL, budget_ns)) {
        struct acc_load load = load_of(&op);
        acc_flight_claim_locked(seg, &load, ACC_FLIGHT_ALONE, lease, out);
        acc_op_end(&op);
    }
    /* Without a record, nothing would tell that a set has overtaken it: it is not stored.  But it is
     * this process's, turn and record or neither. */
    out->incarnation = acc_incarnation(seg);
    out->leading = out->alone = true;
    return ACC_OK;
}

/* `stamped` is room for its tags, which are of when the flight began. */
static struct acc_write fill_of(const struct acc_ticket *ticket, const struct acc_write *write,
                                struct acc_tags *stamped) {
    struct acc_write fill = *write;
    if (write->tags != NULL) {
        *stamped = *write->tags;
        stamped->since = ticket->tag_clock;
        fill.tags = stamped;
    }
    fill.mode = ACC_FILL;
    fill.ticket = ticket;
    fill.has_token = true;
    fill.token_key = ticket->key_count;
    fill.token_area = ticket->area_count;
    return fill;
}

/* Nobody is given a value that nobody waits for.  Who joins after this look, before the flight ends,
 * is told nothing and enters again. */
static enum acc_flight_result hand_locked(struct op *op, const struct acc_ticket *ticket,
                                          const struct acc_write *fill) {
    struct acc_segment *seg = op->area->seg;
    uint64_t handed;
    if (acc_flight_lease(seg, ticket) == ACC_LEASE_LOST || acc_flight_waiting(seg, ticket) == 0) {
        return ACC_RESULT_UNKNOWN;
    }
    if (!acc_op_leave_unnamed(op, fill, &handed)) {
        return ACC_RESULT_DECLINED;
    }
    acc_flight_hand_locked(seg, ticket, handed);
    return ACC_RESULT_HANDED;
}

/* Will those who have waited be given it when they read it?  A capped reader may not. */
static bool is_readable(const struct op *op, const struct acc_write *fill) {
    if (!acc_look_capped(&op->look)) {
        return true;
    }
    const struct acc_record record = {.loaded_at = fill->loaded_at - READ_SOON};
    return acc_look_allows(&op->look, &record);
}

static enum acc_status finish_locked(struct op *op, const struct acc_ticket *ticket,
                                     const struct acc_write *fill, enum acc_flight_result *result) {
    enum acc_status status = acc_op_store(op, fill);
    if (status == ACC_OK && is_readable(op, fill)) {
        *result = ACC_RESULT_STORED;
    } else if (status == ACC_OK || status == ACC_NOT_STORED) {
        *result = hand_locked(op, ticket, fill);
    } else {
        *result = ACC_RESULT_DECLINED;
    }
    return status;
}

enum acc_status acc_load_finish(struct acc_area *area, const struct acc_key *key,
                                struct acc_ticket *ticket, const struct acc_write *write,
                                uint64_t budget_ns) {
    struct acc_segment *seg = area->seg;
    enum acc_flight_result result = ACC_RESULT_DECLINED;
    enum acc_status status = ACC_TOO_LARGE;
    struct op op;
    if (is_lock(key)) {
        acc_flight_end(seg, ticket, ACC_RESULT_FAILED);
        return ACC_NOT_STORED;
    }
    if (acc_flight_lease(seg, ticket) == ACC_LEASE_LOST) {
        status = ACC_NOT_STORED;
    } else if (write->size < ACC_VALUE_MAX) {
        struct acc_tags stamped;
        struct acc_write fill = fill_of(ticket, write, &stamped);
        if (acc_op_begin(&op, area, key, &fill, budget_ns)) {
            status = finish_locked(&op, ticket, &fill, &result);
            acc_op_end(&op);
        } else if (budget_ns == 0) {
            return ACC_BUSY; /* the try of a caller who comes back with a budget */
        } else {
            status = ACC_BUSY;
            result = ACC_RESULT_FAILED; /* the next may be luckier */
        }
    }
    acc_flight_end(seg, ticket, result);
    return status;
}

enum acc_status acc_load_hand(struct acc_area *area, const struct acc_key *key,
                              struct acc_ticket *ticket, const struct acc_write *write,
                              uint64_t budget_ns) {
    struct acc_segment *seg = area->seg;
    enum acc_flight_result result = ACC_RESULT_DECLINED;
    struct op op;
    if (is_lock(key)) {
        result = ACC_RESULT_FAILED;
    } else if (acc_flight_waiting(seg, ticket) == 0) {
        result = ACC_RESULT_UNKNOWN; /* as in hand_locked() */
    } else if (write->size < ACC_VALUE_MAX) {
        struct acc_tags stamped;
        struct acc_write fill = fill_of(ticket, write, &stamped);
        if (acc_op_begin(&op, area, key, &fill, budget_ns)) {
            result = hand_locked(&op, ticket, &fill);
            acc_op_end(&op);
        } else if (budget_ns == 0) {
            return ACC_BUSY;
        }
    }
    acc_flight_end(seg, ticket, result);
    return ACC_OK;
}

bool acc_load_overtaken(const struct acc_area *area, const struct acc_key *key,
                        const struct acc_ticket *ticket) {
    const struct acc_segment *seg = area->seg;
    if (is_lock(key)) {
        return acc_flight_lease(seg, ticket) != ACC_LEASE_HELD;
    }
    uint64_t group =
        acc_load_acquire(acc_generation_word(seg, acc_generation_index(seg, key->hash)));
    return ticket->record != ACC_NO_RECORD &&
           (acc_flight_lease(seg, ticket) != ACC_LEASE_HELD ||
            !acc_generation_valid(group, ticket->key_count, key->hash) ||
            (uint32_t)acc_load_acquire(area->generation) != ticket->area_count);
}

void acc_load_end(struct acc_area *area, struct acc_ticket *ticket, enum acc_flight_result result) {
    acc_flight_end(area->seg, ticket, result);
}

/* --- what was handed over --------------------------------------------------------------------- */

/* No index word names it.  What proves that the bytes were whole while they were copied: the ring's
 * head has not passed them after that, because it rises before anything is written over them. */
static bool still_in_ring(const struct acc_segment *seg, uint32_t shard,
                          const struct acc_view *view) {
    acc_fence_acquire();
    const struct acc_ring *ring = &acc_shard(seg, shard)->ring[view->ring];
    return acc_load_relaxed(&ring->head) <= view->offset &&
           view->offset < acc_load_relaxed(&ring->tail);
}

/* Left by the leader of this flight, and not, where garbage said so, something older of the same
 * key. */
static bool is_of_flight(const struct acc_view *view, const struct acc_ticket *ticket) {
    return !acc_view_twice(view) && view->record.key_count == ticket->key_count &&
           view->record.area_count == ticket->area_count;
}

/* Does no operation on one of its tags lie between the load of the value and the entry of who is to
 * be given it?  Only the last one is known: if it came behind both, there may have been one in
 * between, unless no tag at all was touched there. */
static bool may_be_taken(const struct acc_segment *seg, const struct acc_view *view,
                         const struct acc_ticket *ticket) {
    struct acc_tags tags;
    if (!acc_record_tagged(&view->record)) {
        return true;
    }
    return acc_view_tags(seg, view, &tags) &&
           (ticket->tag_clock <= tags.since || acc_tags_changed(seg, &tags) <= tags.since);
}

enum acc_status acc_load_take(struct acc_area *area, const struct acc_key *key,
                              const struct acc_ticket *ticket, uint8_t **value, uint32_t *size,
                              uint8_t *code) {
    const struct acc_segment *seg = area->seg;
    struct acc_home home = acc_home_of(seg, key->hash);
    struct acc_view view;
    uint64_t handed;
    if (acc_flight_result(seg, ticket, &handed) != ACC_RESULT_HANDED ||
        !acc_view_load(seg, home.shard, (uint32_t)(handed >> RING_BIT),
                       handed & ~(1ull << RING_BIT), &view) ||
        !acc_key_equals(area, &view, key) || !is_of_flight(&view, ticket) ||
        !may_be_taken(seg, &view, ticket)) {
        return ACC_NOT_FOUND;
    }
    uint32_t n = acc_record_size(&view.record);
    uint8_t *copy = malloc(n == 0 ? 1 : n);
    if (copy == NULL) {
        return ACC_ESYS;
    }
    memcpy(copy, view.value, n);
    if (!still_in_ring(seg, home.shard, &view) || acc_value_sum(copy, n) != view.record.value_sum) {
        free(copy);
        return ACC_NOT_FOUND;
    }
    *value = copy;
    *size = n;
    *code = acc_record_code(&view.record);
    return ACC_OK;
}

/* --- pauses ----------------------------------------------------------------------------------- */

static struct acc_key note_of(const struct acc_area *area, const struct acc_key *key) {
    struct acc_key note = *key;
    note.tag |= NOTE_TAG;
    note.hash = acc_key_hash(area, &note);
    return note;
}

/* This version's, and no other one's: so without a bump, which would end those too.  (What is stored
 * beside it by somebody else may stay, as it would if it came a little later.) */
static void forget_note(struct acc_area *area, const struct acc_key *note) {
    struct acc_home home = acc_home_of(area->seg, note->hash);
    struct acc_found found;
    for (int tries = 0; tries < ACC_READ_TRIES; tries++) {
        if (acc_read_find_bounded(area, &home, note, &found) != ACC_OK ||
            acc_index_remove(area->seg, home.shard, found.slot, found.word)) {
            return;
        }
    }
}

void acc_load_pause(struct acc_area *area, const struct acc_key *key, uint32_t units,
                    uint64_t budget_ns) {
    uint32_t now = acc_now(area->seg);
    struct acc_key note = note_of(area, key);
    if (units == 0) {
        forget_note(area, &note);
        return;
    }
    struct acc_write write = {.data = note.data,
                              .code = ACC_CODE_NOTE,
                              .mode = ACC_SET,
                              .loaded_at = now,
                              .expire_at = now + units == 0 ? 1 : now + units};
    acc_store(area, &note, &write, budget_ns);
}

bool acc_load_pausing(struct acc_area *area, const struct acc_key *key) {
    struct acc_key note = note_of(area, key);
    struct acc_home home = acc_home_of(area->seg, note.hash);
    struct acc_found found;
    return acc_read_find_bounded(area, &home, &note, &found) == ACC_OK &&
           acc_found_live(area, &found, note.hash) &&
           acc_record_age(&found.view.record, acc_now(area->seg)) == ACC_FRESH;
}
