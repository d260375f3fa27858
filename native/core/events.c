/* Owns the ring of events.
 *
 * No lock.  Numbers are given out by fetch_add; a number's slot is its place in the ring.  The
 * control word says which number a slot is of, and how far it has come:
 *
 *   WRITING   the first line is being written.    Killed here: the event is not to be seen.
 *   BEGUN     the first line is complete.         Killed here: to be seen, as one that runs, by its
 *                                                 incarnation of a process that is dead: cut off.
 *   ENDING    the second line is being written.   Killed here: as BEGUN.
 *   DONE      both lines are complete.
 *
 * Each step is a CAS (or, where nobody else takes it, a store behind what it tells of), so an event
 * is ended once.  Each line has a check over its bytes and the number, and is believed only if that
 * fits: a writer that was stopped while the ring has come round writes into another's slot, and then
 * that one does not verify, or the line is of the one whose number it carries.  That is lost; nobody
 * shows what is half of one event and half of another.  (It has to stand still for a whole round
 * between two instructions.)
 *
 * Readers copy both lines between two loads of the control word, and store nothing.
 *
 * Garbage: a control word whose number was never given out is overwritten as a free one is; a count
 * of numbers that has been set back makes slots look like those of late writers until it has come
 * up to them, unless their numbers lie beyond it: then they are garbage too. */
#include "events.h"

#include "hash.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum state { FREE, WRITING, BEGUN, ENDING, DONE };

#define STATE_BITS 3
#define STATE_MASK ((1ull << STATE_BITS) - 1)
#define NUMBER_MASK (UINT64_MAX >> STATE_BITS)

static uint64_t control_of(uint64_t number, enum state state) {
    return number << STATE_BITS | state;
}

static uint64_t number_of(uint64_t control) {
    return control >> STATE_BITS;
}

static enum state state_of(uint64_t control) {
    return (enum state)(control & STATE_MASK);
}

static struct acc_event_slot *slot_of(const struct acc_segment *seg, uint64_t number) {
    return acc_event_slot(seg, (uint32_t)(number & (seg->geometry.events - 1)));
}

static uint32_t check_of(uint64_t number, const void *line, size_t size) {
    uint64_t sum = acc_value_sum(line, size);
    return (uint32_t)acc_remix(number ^ sum << 32, 0x9fb21c651e98df25ull);
}

/* The bytes of each line that its check is of. */
#define BEGIN_AT offsetof(struct acc_event_slot, time_ns)
#define BEGIN_SIZE (offsetof(struct acc_event_slot, check) - BEGIN_AT)

static uint32_t begin_check(const struct acc_event_slot *slot, uint64_t number) {
    return check_of(number, (const uint8_t *)slot + BEGIN_AT, BEGIN_SIZE);
}

static uint32_t end_check(const struct acc_event_slot *slot, uint64_t number) {
    const struct {
        uint64_t took_ns;
        uint32_t result, kind;
    } parts = {
        slot->took_ns,
        acc_value_sum((const uint8_t *)slot->result, sizeof slot->result),
        acc_value_sum((const uint8_t *)slot->error_kind, sizeof slot->error_kind),
    };
    return check_of(number, &parts, sizeof parts);
}

/* --- writing ---------------------------------------------------------------------------------- */

static uint64_t unix_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Of this very process: a child's page is empty. */
static uint32_t own_pid(const struct acc_segment *seg) {
    uint32_t pid = acc_load_relaxed(&seg->self->pid);
    if (acc_unlikely(pid == 0)) {
        pid = (uint32_t)getpid();
        acc_store_relaxed(&seg->self->pid, pid);
    }
    return pid;
}

/* The slot of a new number; false: the ring has come round before this writer was here. */
static bool claim(struct acc_segment *seg, uint64_t *number) {
    uint64_t *next = &acc_event_head(seg)->next;
    *number = (acc_add_relaxed(next, (uint64_t)1) + 1) & NUMBER_MASK;
    uint64_t *control = &slot_of(seg, *number)->control;
    uint64_t seen = acc_load_acquire(control);
    while (number_of(seen) < *number || number_of(seen) > (acc_load_relaxed(next) & NUMBER_MASK)) {
        if (acc_cas64(control, seen, control_of(*number, WRITING))) {
            return *number != 0;
        }
        seen = acc_load_acquire(control);
    }
    return false;
}

static void write_begin(struct acc_segment *seg, struct acc_event_slot *slot, uint64_t number,
                        const struct acc_event *event) {
    slot->time_ns = unix_ns();
    slot->hash = event->hash;
    acc_store_relaxed(&slot->pid, own_pid(seg));
    slot->incarnation = acc_incarnation(seg);
    slot->area = event->area;
    slot->count = event->count;
    memcpy(slot->op, event->op, sizeof slot->op);
    slot->check = begin_check(slot, number);
}

static void write_end(struct acc_event_slot *slot, uint64_t number, const struct acc_event *event) {
    slot->took_ns = event->took_ns;
    memcpy(slot->result, event->result, sizeof slot->result);
    memcpy(slot->error_kind, event->error_kind, sizeof slot->error_kind);
    slot->end_check = end_check(slot, number);
}

uint64_t acc_event_begin(struct acc_segment *seg, const struct acc_event *event) {
    uint64_t number;
    if (seg->readonly || !claim(seg, &number)) {
        return 0;
    }
    struct acc_event_slot *slot = slot_of(seg, number);
    write_begin(seg, slot, number, event);
    bool shown = acc_cas64(&slot->control, control_of(number, WRITING), control_of(number, BEGUN));
    return shown ? number : 0;
}

void acc_event_end(struct acc_segment *seg, uint64_t number, const struct acc_event *event) {
    struct acc_event_slot *slot = slot_of(seg, number);
    /* If this is another's pid, the slot is another's, or a child was forked meanwhile. */
    if (seg->readonly || number == 0 || number > NUMBER_MASK ||
        acc_load_relaxed(&slot->pid) != own_pid(seg) ||
        !acc_cas64(&slot->control, control_of(number, BEGUN), control_of(number, ENDING))) {
        return;
    }
    write_end(slot, number, event);
    acc_cas64(&slot->control, control_of(number, ENDING), control_of(number, DONE));
}

void acc_event_add(struct acc_segment *seg, const struct acc_event *event) {
    uint64_t number;
    if (!seg->readonly && claim(seg, &number)) {
        struct acc_event_slot *slot = slot_of(seg, number);
        write_begin(seg, slot, number, event);
        write_end(slot, number, event);
        acc_cas64(&slot->control, control_of(number, WRITING), control_of(number, DONE));
    }
}

/* --- reading ---------------------------------------------------------------------------------- */

static void copy_out(const struct acc_event_slot *slot, struct acc_event *out) {
    out->time_ns = slot->time_ns;
    out->hash = slot->hash;
    out->pid = slot->pid;
    out->incarnation = slot->incarnation;
    out->area = slot->area;
    out->count = slot->count;
    memcpy(out->op, slot->op, sizeof out->op);
    if (!out->running) {
        out->took_ns = slot->took_ns;
        memcpy(out->result, slot->result, sizeof out->result);
        memcpy(out->error_kind, slot->error_kind, sizeof out->error_kind);
    }
}

static bool read_slot(const struct acc_segment *seg, uint32_t place, struct acc_event *out) {
    const struct acc_event_slot *slot = acc_event_slot(seg, place);
    uint64_t control = acc_load_acquire(&slot->control), number = number_of(control);
    enum state state = state_of(control);
    if (state < BEGUN || state > DONE || number == 0 || slot != slot_of(seg, number)) {
        return false;
    }
    struct acc_event_slot copy;
    memcpy(&copy, slot, sizeof copy);
    acc_fence_acquire();
    if (acc_load_relaxed(&slot->control) != control || copy.check != begin_check(&copy, number) ||
        (state == DONE && copy.end_check != end_check(&copy, number))) {
        return false;
    }
    *out = (struct acc_event){.number = number, .running = state != DONE};
    copy_out(&copy, out);
    return true;
}

static int newest_first(const void *a, const void *b) {
    uint64_t one = ((const struct acc_event *)a)->number;
    uint64_t other = ((const struct acc_event *)b)->number;
    return one < other ? 1 : one > other ? -1 : 0;
}

uint32_t acc_events_read(const struct acc_segment *seg, struct acc_event *out, uint32_t most) {
    uint32_t slots = seg->geometry.events, found = 0;
    uint64_t next = acc_load_acquire(&acc_event_head(seg)->next) & NUMBER_MASK;
    /* Backwards from the newest, so that what is wanted is what is read. */
    for (uint32_t n = 0; n < slots && found < most; n++) {
        found += read_slot(seg, (uint32_t)((next - n) & (slots - 1)), &out[found]);
    }
    qsort(out, found, sizeof *out, newest_first);
    return found;
}

/* --- check ------------------------------------------------------------------------------------ */

uint32_t acc_events_check(const struct acc_segment *seg, acc_report *report, void *context) {
    uint32_t violations = 0;
    for (uint32_t place = 0; place < seg->geometry.events; place++) {
        const struct acc_event_slot *slot = acc_event_slot(seg, place);
        uint64_t control = acc_load_acquire(&slot->control);
        uint64_t next = acc_load_acquire(&acc_event_head(seg)->next) & NUMBER_MASK;
        if (control != 0 && (slot != slot_of(seg, number_of(control)) || state_of(control) > DONE ||
                             number_of(control) > next)) {
            report(context, "events: a slot is of a number that is not its own");
            violations++;
        }
    }
    return violations;
}
