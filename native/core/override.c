/* Owns the rows of overrides, and the print of them that each process acts on.
 *
 * No lock and no count.  A word is one value and its deadline, stored whole, and means what it says
 * whatever the others say:
 *
 *   set, replace, remove   one CAS.  Killed before it: as it was; behind it: done.  Nothing has to
 *                          be told to anybody: every process's tick looks.
 *   a deadline passes      in force until a tick has removed the word, by CAS: who sets it anew at
 *                          the same time wins.
 *
 * The mode: in an area that is told to be LOCAL or OFF, changes that others make may not arrive (or
 * arrive late: they come by the second level).  Before such a word goes, the generation of the area
 * is raised (of the host's row: of all areas), so nobody who sees the word gone finds what is older.
 * Killed between the two: emptied, and still told to be local; whoever removes the word empties it
 * again.  A process that has not noticed yet, 0.1 s at most, may still store as a LOCAL one does;
 * what it stores is held to the area's bound from its binding on, as everything is.  An area leaves
 * the mode that the host is told, too, when it is told another one of its own.  If the host is told
 * just then, the raise comes behind the word: killed between, it is lost, and nothing with it, as no
 * tick has seen the area in that mode.
 *
 * The print is the sum of a mix of each word and its place, so it is found by one look at the rows
 * and is the same wherever the same is in force.  It is not stored with them, as it would have to be
 * right whoever dies: each process compares what it finds with what it acts on, which is one word
 * with its incarnation (acc_self.stamp), changed by CAS: who leaves or is fenced at the same time
 * stores 0 there, and stays out.  A process's slot says for others what it acts on: stored behind
 * the stamp, so it is not counted before it acts.  Two threads of a process may notice two states,
 * and the older one last: the next tick repairs that.  What an area is bound by is the copy of the
 * rows that its print is of: rows looked at apart from the print may have changed twice, and then the
 * print says what is in force, and the area acts on what is not, for ever.
 *
 * Garbage: a value that cannot be, or a deadline that nobody can have set, is no override, and the
 * next tick removes it.  What looks like one is in force until somebody removes it. */
#include "override.h"

#include "hash.h"

#define SECOND_NS 1000000000ull

const char *const acc_option_names[ACC_OPTIONS] = {
    "mode",        "loader_timeout",      "max_loads", "ttl",
    "allow_stale", "penetration_protect", "on_desync", "breaker",
};

const uint32_t acc_option_most[ACC_OPTIONS] = {
    ACC_MODE_OFF, UINT32_MAX - 1, UINT32_MAX - 1, UINT32_MAX - 1, 1, 1, 2, 1,
};

_Static_assert((uint32_t)ACC_OPTIONS <= ACC_OVERRIDE_SLOTS, "a row has a place for each option");

static uint32_t rows_of(const struct acc_segment *seg) {
    return seg->geometry.areas + 1;
}

static uint32_t now_s(const struct acc_segment *seg) {
    return (uint32_t)(acc_now_ns(seg) / SECOND_NS);
}

static uint32_t deadline_of(uint64_t word) {
    return (uint32_t)(word >> 32);
}

/* Can it be: is it a value of this option, until when it may be? */
static bool is_sound(const struct acc_segment *seg, uint32_t row, uint32_t option, uint64_t word) {
    uint32_t value;
    bool of_host = row == acc_override_host(seg);
    if (option >= ACC_OPTIONS || (option == ACC_OPTION_BREAKER && !of_host) ||
        !acc_override_value(word, (enum acc_option)option, &value)) {
        return false;
    }
    uint32_t deadline = deadline_of(word), now = now_s(seg);
    return deadline == 0 || deadline < now || deadline - now <= ACC_OVERRIDE_SECONDS_MAX + 1;
}

static bool is_over(const struct acc_segment *seg, uint64_t word) {
    return deadline_of(word) != 0 && now_s(seg) >= deadline_of(word);
}

double acc_override_left(const struct acc_segment *seg, uint64_t word) {
    uint64_t end = (uint64_t)deadline_of(word) * SECOND_NS, now = acc_now_ns(seg);
    return end > now ? (double)(end - now) / (double)SECOND_NS : 0.0;
}

/* --- leaving LOCAL and OFF -------------------------------------------------------------------- */

static bool is_untold(uint32_t mode) {
    return mode == ACC_MODE_LOCAL || mode == ACC_MODE_OFF;
}

/* Does an area whose row says `next` where it said nothing leave what the host is told? */
static bool leaves_host(const struct acc_segment *seg, uint32_t row, uint64_t next) {
    uint32_t of_host, own;
    return row != acc_override_host(seg) && acc_override_value(next, ACC_OPTION_MODE, &own) &&
           acc_override_look(seg, acc_override_host(seg), ACC_OPTION_MODE, &of_host) &&
           is_untold(of_host) && own != of_host;
}

/* Does an area that was told `seen` begin anew when it is told `next`? */
static bool begins_anew(const struct acc_segment *seg, uint32_t row, uint32_t option, uint64_t seen,
                        uint64_t next) {
    uint32_t value;
    if (option != ACC_OPTION_MODE) {
        return false;
    }
    if (!acc_override_value(seen, ACC_OPTION_MODE, &value)) {
        return leaves_host(seg, row, next);
    }
    return is_untold(value) && (uint32_t)seen != (uint32_t)next;
}

static void for_areas(struct acc_segment *seg, uint32_t row,
                      void (*act)(struct acc_segment *seg, uint32_t area)) {
    bool all = row == acc_override_host(seg);
    for (uint32_t id = all ? 0 : row; id < (all ? seg->geometry.areas : row + 1); id++) {
        if (acc_load_acquire(&acc_area_slot(seg, id)->state) == 1 && acc_area_base(seg, id) == id) {
            act(seg, id);
        }
    }
}

static void forget(struct acc_segment *seg, uint32_t area) {
    acc_add_release(&acc_area_slot(seg, area)->generation, (uint64_t)1);
}

/* --- the words -------------------------------------------------------------------------------- */

/* False: it was another word by then. */
static bool replace(struct acc_segment *seg, uint32_t row, uint32_t option, uint64_t seen,
                    uint64_t next) {
    uint64_t *word = &acc_override_row(seg, row)->word[option];
    bool anew = begins_anew(seg, row, option, seen, next);
    if (anew) {
        for_areas(seg, row, forget);
    }
    if (!acc_cas64(word, seen, next)) {
        return false;
    }
    if (!anew && begins_anew(seg, row, option, seen, next)) { /* the host was told meanwhile */
        anew = true;
        for_areas(seg, row, forget);
    }
    if (anew) {
        for_areas(seg, row, acc_stats_gap);
    }
    return true;
}

static void store(struct acc_segment *seg, uint32_t row, uint32_t option, uint64_t next) {
    const uint64_t *word = &acc_override_row(seg, row)->word[option];
    for (;;) {
        uint64_t seen = acc_load_acquire(word);
        if (seen == next || replace(seg, row, option, seen, next)) {
            return;
        }
    }
}

void acc_override_set(struct acc_segment *seg, uint32_t row, enum acc_option option, uint32_t value,
                      uint64_t ns) {
    /* Rounded up: never shorter than it was asked for. */
    uint64_t deadline = ns == 0 ? 0 : (acc_now_ns(seg) + ns + SECOND_NS - 1) / SECOND_NS;
    store(seg, row, option, deadline << 32 | ((uint64_t)value + 1));
}

void acc_override_remove(struct acc_segment *seg, uint32_t row, enum acc_option option) {
    store(seg, row, option, 0);
}

static void end_passed(struct acc_segment *seg, uint32_t row) {
    for (uint32_t option = 0; option < ACC_OVERRIDE_SLOTS; option++) {
        uint64_t seen = acc_load_acquire(&acc_override_row(seg, row)->word[option]);
        if (seen != 0 && (is_over(seg, seen) || !is_sound(seg, row, option, seen))) {
            replace(seg, row, option, seen, 0);
        }
    }
}

/* --- who acts on what ------------------------------------------------------------------------- */

void acc_override_copy(const struct acc_segment *seg, uint32_t row, struct acc_overrides *out) {
    for (uint32_t option = 0; option < ACC_OVERRIDE_SLOTS; option++) {
        out->word[option] = acc_load_acquire(&acc_override_row(seg, row)->word[option]);
    }
}

uint64_t acc_override_sum(const struct acc_overrides *copy, uint32_t row) {
    uint64_t sum = 0;
    for (uint32_t option = 0; option < ACC_OVERRIDE_SLOTS; option++) {
        if (copy->word[option] != 0) {
            uint64_t place = (uint64_t)row * ACC_OVERRIDE_SLOTS + option;
            sum += acc_remix(copy->word[option], 2 * place + 0x9fb21c651e98df25ull);
        }
    }
    return sum;
}

static uint64_t sum_of_row(const struct acc_segment *seg, uint32_t row) {
    struct acc_overrides copy;
    acc_override_copy(seg, row, &copy);
    return acc_override_sum(&copy, row);
}

static uint32_t fold(uint64_t sum) {
    return (uint32_t)(sum >> 32) ^ (uint32_t)sum;
}

uint32_t acc_override_print(const struct acc_segment *seg) {
    uint64_t sum = 0;
    for (uint32_t row = 0; row < rows_of(seg); row++) {
        sum += acc_likely(acc_override_none(seg, row)) ? 0 : sum_of_row(seg, row);
    }
    return fold(sum);
}

/* Show others what this process acts on; once more if who left the slot before us was late.  (No
 * slot: another thread leaves and enters again, and shows it then.) */
static void show(struct acc_segment *seg, uint32_t print) {
    uint32_t at = acc_load_relaxed(&seg->self_slot);
    uint32_t *shown = at == 0 ? NULL : &acc_process_slot(seg, at - 1)->overrides;
    if (shown != NULL && acc_load_relaxed(shown) != print) {
        acc_store_release(shown, print);
    }
}

static void act_on(struct acc_segment *seg, uint32_t print) {
    for (;;) {
        uint64_t seen = acc_load_acquire(&seg->self->stamp);
        uint32_t incarnation = (uint32_t)seen;
        if (incarnation == 0) {
            acc_store_relaxed(&seg->overrides, print); /* it will be entered under these */
            return;
        }
        if (seen >> 32 == print ||
            acc_cas64(&seg->self->stamp, seen, acc_stamp_of(incarnation, print))) {
            acc_store_relaxed(&seg->overrides, print);
            show(seg, print);
            return;
        }
    }
}

uint32_t acc_override_act(struct acc_segment *seg, uint64_t sum) {
    act_on(seg, fold(sum));
    return fold(sum);
}

uint32_t acc_override_notice(struct acc_segment *seg) {
    uint32_t print = acc_override_print(seg);
    act_on(seg, print);
    return print;
}

void acc_override_tick(struct acc_segment *seg) {
    uint64_t sum = 0;
    for (uint32_t row = 0; row < rows_of(seg); row++) {
        if (acc_unlikely(!acc_override_none(seg, row))) {
            end_passed(seg, row);
            sum += sum_of_row(seg, row);
        }
    }
    act_on(seg, fold(sum));
}

void acc_override_seen(const struct acc_segment *seg, uint32_t *seen, uint32_t *alive) {
    uint32_t print = acc_override_print(seg), mine = acc_incarnation(seg);
    *seen = *alive = 0;
    for (uint32_t i = 0; i < seg->geometry.processes; i++) {
        const struct acc_process *slot = acc_process_slot(seg, i);
        uint32_t incarnation = acc_load_acquire(&slot->incarnation);
        if (incarnation == 0 || incarnation >> 31 != 0 || /* one that is entering */
            (incarnation != mine && acc_process_dead(seg, incarnation))) {
            continue;
        }
        (*alive)++;
        *seen += acc_load_acquire(&slot->overrides) == print;
    }
}

/* --- check ------------------------------------------------------------------------------------ */

uint32_t acc_override_check(const struct acc_segment *seg, acc_report *report, void *context) {
    uint32_t violations = 0;
    for (uint32_t row = 0; row < rows_of(seg); row++) {
        for (uint32_t option = 0; option < ACC_OVERRIDE_SLOTS; option++) {
            uint64_t word = acc_load_acquire(&acc_override_row(seg, row)->word[option]);
            if (word != 0 && !is_sound(seg, row, option, word)) {
                report(context, "overrides: a word that nobody can have stored");
                violations++;
            }
        }
    }
    return violations;
}
