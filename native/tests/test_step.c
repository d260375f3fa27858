/* One process a single instruction at a time (ptrace), and what the others find at each of them.
 *
 *   test_step [POINTS]
 *
 * Killed there: a copy of the segment is what a kill at this instruction leaves.  Whenever an
 * instruction has changed it, the copy must satisfy every invariant, hold only whole values, and
 * take writes; and a load that another process leads is not stored over what the operation has
 * made visible. Stopped there: readers find whole values and the key that is written, old or new.
 * Stopped there while another deletes or writes (at POINTS instructions of each operation, all with
 * 0): what has been deleted stays so. */
#include "events.h"
#include "evict.h"
#include "facts.h"
#include "hotkeys.h"
#include "leader.h"
#include "limit.h"
#include "link.h"
#include "loads.h"
#include "outbox.h"
#include "override.h"

#include <sys/ptrace.h>

enum { KEYS = 3000, VALUE_MAX = 10000, HUGE_SIZE = 120000, OP_KEY = 7, MARKER = SIGUSR2 };

static uint32_t points = 1;

static bool is_long(void) {
    return points == 0 || points > 20;
}

enum command {
    SET_SMALL,
    SET_LARGE,
    SET_NEW,
    SET_HUGE,
    ADD,
    FILL,
    DELETE,
    TOUCH,
    EXPIRE,
    INCR,
    READ,
    CLEAR,
    ENTER,
    OPEN_AREA,
    OPEN_VERSION,
    COUNT,
    COUNT_READ,
    TELL_FACTS,
    LEAD,
    LEAD_ALONE,
    FINISH,
    HAND,
    END,
    JOIN_AND_LEAVE,
    NOTE,
    NOTE_LONG,
    SETTLE,
    NOTED_SET,
    CLAIM,
    BEAT,
    RESIGN,
    CONFIRM,
    APPLY,
    SET_TAGGED,
    FINISH_TAGGED,
    DELETE_TAGS,
    EXPIRE_TAGS,
    OVERRIDE_MODE,
    REMOVE_MODE,
    END_PASSED,
    NOTICE,
    EVENT_BEGIN,
    EVENT_END,
    EVENT_ADD,
    LIMIT,
    QUIT,
};

/* What parent and child share beside the segment. */
struct shared {
    uint32_t command;
    uint32_t status;
    uint32_t token_key, token_area;
    uint32_t expire_at, stale_until;
    uint64_t version;         /* to write */
    struct acc_ticket ticket; /* the child's, of the flight that it leads */
    uint64_t number;          /* of its entry in the outbox */
    uint32_t term;
    uint32_t size; /* read */
    uint8_t value[1000];
};

struct stepper {
    const char *path;
    struct acc_segment *seg;   /* the parent's */
    struct acc_segment *audit; /* another file, for copies */
    struct acc_area area, audit_area;
    struct shared *shared;
    pid_t pid;
    bool done;            /* the child has ended its operation */
    uint64_t version;     /* counts up */
    uint64_t old_version; /* of OP_KEY, 0: it was absent */
    bool old_fresh;
    uint64_t images, steps, copied, refusals;
    const struct acc_ticket *waiting; /* whose view is audited too; NULL: nobody's */
    const struct acc_ticket *leading; /* likewise, of a flight that is led beside the operation */
    uint8_t *item;                    /* of OP_KEY before the operation, which may write in it */
    uint64_t item_size;
    bool of_operator;         /* overrides, events and the limiter are audited too */
    uint64_t mode, anew;      /* the area's mode and its generation, before the operation */
    uint64_t kind;            /* of log lines, that the operation is about */
    bool of_tags;             /* so is who goes by the area's tag_epoch */
    uint64_t epoch;           /* of that, before the operation */
    bool of_shown;            /* what is shown to people is audited too */
    bool of_link;             /* the outbox is audited too */
    uint32_t unsent;          /* entries of ours in it that are to be found, or owed */
    bool damaged;             /* a ring is garbage until the operation has mended it */
    struct acc_area *other;   /* another version of the area, which is audited too; NULL: none */
    uint64_t other_version;   /* of OP_KEY there, before the operation; 0: absent */
    struct acc_area *deleter; /* who deletes beside it */
    uint8_t *image;           /* as last seen */
    uint8_t value[HUGE_SIZE], buffer[HUGE_SIZE];
};

/* --- the child -------------------------------------------------------------------------------- */

static enum acc_status write_in_child(struct acc_area *area, struct shared *shared,
                                      uint8_t *value) {
    struct test_key key;
    struct acc_write write = {.data = value,
                              .size = shared->command == SET_LARGE  ? 3000
                                      : shared->command == SET_HUGE ? HUGE_SIZE
                                                                    : 500,
                              .code = ACC_CODE_BYTES,
                              .mode = shared->command == ADD    ? ACC_ADD
                                      : shared->command == FILL ? ACC_FILL
                                                                : ACC_SET,
                              .has_token = shared->command == FILL,
                              .token_key = shared->token_key,
                              .token_area = shared->token_area};
    fill_value(value, write.size, OP_KEY, shared->version);
    number_key(area, &key, OP_KEY);
    raise(MARKER);
    enum acc_status status = acc_store_in_turn(area, &key.key, &write);
    return status == ACC_BUSY ? acc_store(area, &key.key, &write, ACC_LOCK_BUDGET_NS) : status;
}

static void read_in_child(struct acc_area *area, struct shared *shared) {
    struct test_key key;
    number_key(area, &key, OP_KEY);
    raise(MARKER);
    struct got got = read_once(area, &key.key, shared->value, sizeof shared->value, true);
    shared->status = got.status;
    shared->size = got.size;
}

/* Beginnings and ends of loads; the ticket is the child's from one command to the next. */
static void load_in_child(struct acc_area *area, struct shared *shared, uint8_t *value) {
    struct test_key key;
    struct acc_ticket joined;
    const struct acc_write write = {.data = value, .size = 500, .code = ACC_CODE_BYTES};
    fill_value(value, write.size, OP_KEY, shared->version);
    number_key(area, &key, OP_KEY);
    raise(MARKER);
    switch (shared->command) {
    case LEAD: shared->status = enter_load(area, &key.key, &shared->ticket); break;
    case LEAD_ALONE:
        shared->status =
            acc_load_alone(area, &key.key, 2, LEASE, ACC_LOCK_BUDGET_NS, &shared->ticket);
        break;
    case FINISH:
        shared->status =
            acc_load_finish(area, &key.key, &shared->ticket, &write, ACC_LOCK_BUDGET_NS);
        break;
    case HAND:
        shared->status = acc_load_hand(area, &key.key, &shared->ticket, &write, ACC_LOCK_BUDGET_NS);
        break;
    case END: acc_load_end(area, &shared->ticket, ACC_RESULT_FAILED); break;
    default:
        shared->status = enter_load(area, &key.key, &joined);
        acc_flight_leave(area->seg, &joined);
    }
}

enum { LONG_KEY = 500 };

/* Of the second level. */
static void link_in_child(struct acc_area *area, struct shared *shared, uint8_t *value) {
    struct acc_segment *seg = area->seg;
    struct acc_area_slot *slot = acc_area_slot(seg, area->id);
    struct test_key key;
    uint8_t text[LONG_KEY];
    memset(text, 'x', sizeof text);
    make_key(area, &key, text, shared->command == NOTE_LONG ? LONG_KEY : 20);
    struct acc_write write = {
        .data = value, .size = 500, .code = ACC_CODE_BYTES, .note = shared->number};
    if (shared->command == NOTED_SET) {
        fill_value(value, write.size, OP_KEY, shared->version);
        number_key(area, &key, OP_KEY);
    }
    raise(MARKER);
    switch (shared->command) {
    case NOTE:
    case NOTE_LONG: shared->number = acc_outbox_append(area, &key.key, ACC_NOTE_FORGET); break;
    case SETTLE: acc_outbox_settle(seg, shared->number, true); break;
    case NOTED_SET: shared->status = acc_store(area, &key.key, &write, ACC_LOCK_BUDGET_NS); break;
    case CLAIM: shared->term = acc_leader_claim(seg, 0); break;
    case BEAT: shared->status = acc_leader_beat(seg, shared->term) ? ACC_OK : ACC_NOT_FOUND; break;
    case RESIGN: acc_leader_resign(seg, shared->term); break;
    case CONFIRM: acc_link_confirm(seg, acc_now_ns(seg)); break;
    default: acc_link_applied(slot, shared->version, 2 * shared->version);
    }
}

/* Of tags: OP_KEY has "ab", and "b" and "c" are deleted or expired. */
static void tags_in_child(struct acc_area *area, struct shared *shared, uint8_t *value) {
    struct test_key key;
    number_key(area, &key, OP_KEY);
    fill_value(value, 500, OP_KEY, shared->version);
    struct acc_tags tags = letter_tags(area, "ab");
    const struct acc_write write = {.data = value,
                                    .size = 500,
                                    .code = ACC_CODE_BYTES,
                                    .expire_at = shared->expire_at,
                                    .stale_until = shared->stale_until,
                                    .tags = &tags};
    raise(MARKER);
    switch (shared->command) {
    case SET_TAGGED: shared->status = acc_store(area, &key.key, &write, ACC_LOCK_BUDGET_NS); break;
    case FINISH_TAGGED:
        shared->status =
            acc_load_finish(area, &key.key, &shared->ticket, &write, ACC_LOCK_BUDGET_NS);
        break;
    default: mark_letters(area, "bc", shared->command == EXPIRE_TAGS);
    }
}

enum { EVENT_HASH = 77 };

static struct acc_event event_of(const char *op, uint64_t hash) {
    struct acc_event event = {.hash = hash, .count = 5, .took_ns = hash};
    memcpy(event.op, op, strlen(op));
    memcpy(event.result, op, strlen(op));
    memcpy(event.error_kind, op, strlen(op));
    return event;
}

/* Overrides, events, log lines. */
static void operate_in_child(struct acc_area *area, struct shared *shared) {
    struct acc_segment *seg = area->seg;
    const struct acc_event event = event_of("child", EVENT_HASH);
    raise(MARKER);
    switch (shared->command) {
    case OVERRIDE_MODE:
        acc_override_set(seg, area->id, ACC_OPTION_MODE, ACC_MODE_BOTH, 5000000000);
        break;
    case REMOVE_MODE: acc_override_remove(seg, area->id, ACC_OPTION_MODE); break;
    case END_PASSED: acc_override_tick(seg); break;
    case NOTICE: acc_override_notice(seg); break;
    case EVENT_BEGIN: shared->number = acc_event_begin(seg, &event); break;
    case EVENT_END: acc_event_end(seg, shared->number, &event); break;
    case EVENT_ADD: acc_event_add(seg, &event); break;
    default: shared->status = acc_limit_allowed(seg, shared->version << 40, 1000000000) < 0;
    }
}

static void facts_of(uint64_t version, uint32_t facts[ACC_FACTS]) {
    for (uint32_t i = 0; i < ACC_FACTS; i++) {
        facts[i] = (uint32_t)version;
    }
}

/* One operation between two markers. */
static void obey(struct acc_segment *seg, struct acc_area *area, struct shared *shared,
                 uint8_t *value) {
    struct test_key key;
    int64_t out, initial = 5;
    switch (shared->command) {
    case READ: read_in_child(area, shared); return;
    case INCR: text_key(area, &key, "counter"); break;
    default: number_key(area, &key, OP_KEY);
    }
    if (shared->command >= OVERRIDE_MODE) {
        operate_in_child(area, shared);
        return;
    }
    if (shared->command >= SET_TAGGED) {
        tags_in_child(area, shared, value);
        return;
    }
    if (shared->command >= NOTE) {
        link_in_child(area, shared, value);
        return;
    }
    if (shared->command >= LEAD) {
        load_in_child(area, shared, value);
        return;
    }
    if (shared->command <= FILL) { /* the writes, by their order above */
        shared->status = write_in_child(area, shared, value);
        return;
    }
    raise(MARKER);
    switch (shared->command) {
    case DELETE: shared->status = acc_delete(area, &key.key); break;
    case TOUCH:
        shared->status =
            acc_touch(area, &key.key, shared->expire_at, shared->stale_until, ACC_LOCK_BUDGET_NS);
        break;
    case EXPIRE: shared->status = acc_expire(area, &key.key, ACC_LOCK_BUDGET_NS); break;
    case INCR:
        shared->status = acc_incr(area, &key.key, 1, &initial, 0, 0, ACC_LOCK_BUDGET_NS, &out);
        break;
    case CLEAR: acc_area_clear(area); break;
    case COUNT_READ: acc_hot_count(seg, area->base, shared->number); break;
    case TELL_FACTS: {
        uint32_t facts[ACC_FACTS];
        facts_of(shared->version, facts);
        acc_facts_write(seg, area->id, facts, ACC_FACTS);
        break;
    }
    case ENTER:
        acc_process_leave(seg);
        shared->status = acc_process_enter(seg, NULL);
        break;
    case OPEN_AREA: {
        char name[16];
        struct acc_area opened;
        snprintf(name, sizeof name, "area %llu", (unsigned long long)shared->version);
        shared->status = acc_area_open(seg, name, strlen(name), &opened);
        break;
    }
    case OPEN_VERSION: {
        char name[32];
        struct acc_area opened;
        snprintf(name, sizeof name, "area %llu", (unsigned long long)shared->version / 10);
        shared->status = acc_area_open_version(seg, name, strlen(name),
                                               (uint32_t)(shared->version % 10), &opened);
        break;
    }
    case COUNT:
        memset(seg->stats_of, 0, seg->geometry.areas * sizeof *seg->stats_of);
        acc_count(acc_stats_of(seg, area->id), ACC_SET_TOTAL);
        break;
    }
}

/* Entered without a maintenance thread: one thread to step. */
static void run_child(const char *path, struct shared *shared) {
    struct acc_segment *seg = map_file(path);
    struct acc_area area;
    uint8_t *value = malloc(HUGE_SIZE);
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    if (acc_process_enter(seg, NULL) != ACC_OK || acc_area_open(seg, "step", 4, &area) != ACC_OK) {
        _exit(1);
    }
    area.stats = acc_stats_of(seg, area.id);
    area.stamp = acc_load_relaxed(&seg->self->stamp);
    for (;;) {
        raise(MARKER);
        if (shared->command == QUIT) {
            _exit(0);
        }
        obey(seg, &area, shared, value);
    }
}

/* --- stepping --------------------------------------------------------------------------------- */

/* Let the child go on and wait for its next stop.  True: at a marker. */
static bool go_on(struct stepper *s, int how) {
    int status;
    CHECK_EQ(0, ptrace(how, s->pid, NULL, NULL));
    CHECK_EQ(s->pid, waitpid(s->pid, &status, 0));
    CHECK(WIFSTOPPED(status));
    CHECK(WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == MARKER);
    return WSTOPSIG(status) == MARKER;
}

/* Prepare the child's operation: it stops right before it. */
static void begin_command(struct stepper *s, enum command command) {
    s->shared->command = command;
    s->done = false;
    CHECK(go_on(s, PTRACE_CONT));
}

static bool step(struct stepper *s) {
    s->done = go_on(s, PTRACE_SINGLESTEP);
    s->steps++;
    return !s->done;
}

static void finish_command(struct stepper *s) {
    if (!s->done) {
        CHECK(go_on(s, PTRACE_CONT));
        s->done = true;
    }
}

static struct stepper *new_stepper(void) {
    struct stepper *s = calloc(1, sizeof *s);
    s->path = new_segment_file(2 * MIB, 256 << 10);
    s->seg = map_file(s->path);
    CHECK_STATUS(ACC_OK, acc_process_enter(s->seg, NULL));
    s->audit = map_file(new_segment_file(2 * MIB, 256 << 10));
    s->shared = (struct shared *)shared_words();
    s->image = malloc(2 * MIB);
    CHECK_STATUS(ACC_OK, acc_area_open(s->seg, "step", 4, &s->area));
    s->area.stats = acc_stats_of(s->seg, s->area.id);
    s->area.stamp = acc_load_relaxed(&s->seg->self->stamp);
    /* Keys are hashed alike in the copy, and its process has an id that is nobody's in the
     * original. */
    memcpy(s->audit->hash_key, s->seg->hash_key, sizeof s->audit->hash_key);
    acc_header(s->audit)->next_incarnation = 0x1000000;
    CHECK_STATUS(ACC_OK, acc_process_enter(s->audit, NULL));
    CHECK_STATUS(ACC_OK, acc_area_open(s->audit, "step", 4, &s->audit_area));
    CHECK_EQ(s->area.id, s->audit_area.id);
    s->audit_area.stats = &s->audit->lost_stats;
    s->audit_area.stamp = acc_load_relaxed(&s->audit->self->stamp);
    s->deleter = &s->area;
    s->version = 1;
    s->pid = fork_child();
    if (s->pid == 0) {
        run_child(s->path, s->shared);
    }
    int status;
    CHECK_EQ(s->pid, waitpid(s->pid, &status, 0));
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == MARKER);
    return s;
}

static void end_stepper(struct stepper *s) {
    s->shared->command = QUIT;
    ptrace(PTRACE_CONT, s->pid, NULL, NULL);
    CHECK_EQ(0, wait_child(s->pid));
    CHECK_SEGMENT(s->seg);
    munmap(s->shared, 4096);
    acc_segment_close(s->seg);
    acc_segment_close(s->audit);
    free(s->image);
    free(s);
}

/* --- what is found at an instruction ---------------------------------------------------------- */

static void put(struct stepper *s, uint64_t number, uint32_t size) {
    struct test_key key;
    fill_value(s->value, size, number, ++s->version);
    number_key(&s->area, &key, number);
    CHECK_STATUS(ACC_OK, set_bytes(&s->area, &key.key, s->value, size));
}

/* OP_KEY's version as anyone reads it; 0: absent. */
static uint64_t read_version(struct stepper *s, struct acc_area *area, uint64_t number) {
    struct test_key key;
    uint64_t version = 0;
    number_key(area, &key, number);
    struct got got = read_key(area, &key.key, s->buffer, sizeof s->buffer, false);
    if (got.status == ACC_NOT_FOUND) {
        return 0;
    }
    CHECK_STATUS(ACC_OK, got.status);
    CHECK(proves_itself(s->buffer, got.size, number, &version));
    CHECK_EQ(got.record.value_sum, acc_value_sum(s->buffer, got.size));
    return version;
}

static bool is_fresh(struct stepper *s, struct acc_area *area) {
    struct test_key key;
    number_key(area, &key, OP_KEY);
    struct got got = read_key(area, &key.key, s->buffer, sizeof s->buffer, false);
    return got.status == ACC_OK && got.age == ACC_FRESH;
}

/* Where the key's item lies, header and all; nowhere if there is none. */
static void find_item(struct stepper *s) {
    struct test_key key;
    struct acc_view view;
    number_key(&s->area, &key, OP_KEY);
    struct got got = read_key(&s->area, &key.key, s->buffer, sizeof s->buffer, false);
    s->item = s->seg->base;
    s->item_size = 0;
    if (got.status == ACC_OK && acc_view_load(s->seg, 0, got.ring, got.offset, &view)) {
        s->item = acc_ring_at(s->seg, 0, got.ring, got.offset);
        s->item_size = acc_common_units(&view.common) * (uint64_t)ACC_UNIT;
    }
}

/* What the child's ticket still has, were it ours. */
static enum acc_lease lease_of_child(const struct stepper *s) {
    struct acc_ticket ticket = s->shared->ticket;
    ticket.incarnation = acc_incarnation(s->seg);
    return acc_flight_lease(s->seg, &ticket);
}

/* The copy: as a kill at this instruction leaves it. */
static void audit_image(struct stepper *s, bool must_be_there, uint64_t wanted) {
    struct acc_segment *audit = s->audit;
    const struct acc_geometry *g = &audit->geometry;
    memcpy(audit->base, s->seg->base, g->size);
    memset(audit->base + g->process_at, 0, g->processes * sizeof(struct acc_process));
    if (s->images % 8 != 0) {
        acc_shard(audit, 0)->lock =
            0; /* to be taken over it is only now and then: that takes a slice of waiting */
    }
    acc_segment_forget_ahead(audit);
    CHECK_EQ(0, acc_maintenance_check(audit, print_violation, NULL));
    CHECK_EQ(0, count_doubles(audit, 0));
    for (uint32_t i = 0; i < g->areas; i++) {
        const struct acc_area_slot *slot = acc_area_slot(audit, i);
        CHECK(slot->state == 0 || (slot->name_size != 0 && slot->name[0] != '\0'));
    }
    for (uint64_t number = 0; number < 40; number++) {
        read_version(s, &s->audit_area, number);
    }
    uint64_t version = read_version(s, &s->audit_area, OP_KEY);
    CHECK(version == 0 || version == s->old_version || version == wanted);
    CHECK(version != 0 || !must_be_there);
    for (uint64_t number = 0; number < 12; number++) {
        struct test_key key;
        fill_value(s->value, 700, number, s->version);
        number_key(&s->audit_area, &key, number);
        CHECK_STATUS(ACC_OK, set_bytes(&s->audit_area, &key.key, s->value, 700));
        CHECK_EQ(s->version, read_version(s, &s->audit_area, number));
    }
    CHECK_EQ(0, acc_maintenance_check(audit, print_violation, NULL));
    CHECK_EQ(0, count_doubles(audit, 0));
}

/* The copy, as somebody finds it who waited for the child's flight when the child was killed: the
 * value is there, or handed over, or he leads and his value is stored.  And others join him. */
static void audit_loads(struct stepper *s, struct acc_ticket waiting, uint64_t wanted) {
    struct acc_segment *audit = s->audit;
    struct test_key key;
    struct acc_ticket next, alone[2];
    uint8_t *value, code;
    uint32_t size;
    uint64_t version;
    memcpy(audit->base, s->seg->base, audit->geometry.size);
    memset(audit->base + audit->geometry.process_at, 0,
           audit->geometry.processes * sizeof(struct acc_process));
    acc_shard(audit, 0)->lock = 0;
    acc_header(audit)->area_lock = 0;
    acc_segment_forget_ahead(audit);
    number_key(&s->audit_area, &key, OP_KEY);
    if (waiting.record != ACC_NO_RECORD && !acc_flight_running(audit, &waiting)) {
        enum acc_flight_result result = result_of(&s->audit_area, &waiting);
        CHECK(result != ACC_RESULT_UNKNOWN); /* who sees that it has ended is told how */
        CHECK(result != ACC_RESULT_STORED || read_version(s, &s->audit_area, OP_KEY) == wanted);
        if (result == ACC_RESULT_HANDED) {
            CHECK_STATUS(ACC_OK,
                         acc_load_take(&s->audit_area, &key.key, &waiting, &value, &size, &code));
            CHECK(proves_itself(value, size, OP_KEY, &version));
            CHECK_EQ(wanted, version);
            free(value);
        }
    } else if (waiting.record != ACC_NO_RECORD) {
        CHECK(acc_flight_leaderless(audit, &waiting));
    }
    audit->clock_shift += 10; /* no longer too young to be asked after */
    enum acc_status status = enter_load(&s->audit_area, &key.key, &next);
    if (status == ACC_PRESENT) {
        version = read_version(s, &s->audit_area, OP_KEY);
        CHECK(version == wanted || version == s->old_version);
    } else {
        CHECK_STATUS(ACC_OK, status);
        CHECK(next.leading);
        waiting = join(&s->audit_area, &key.key);
        CHECK_EQ(1, acc_flight_waiting(audit, &next));
        CHECK_STATUS(ACC_OK, finish_bytes(&s->audit_area, &key.key, &next, "audit", 5));
        CHECK_EQ(ACC_RESULT_STORED, result_of(&s->audit_area, &waiting));
        CHECK(has_value(&s->audit_area, &key.key, "audit", 5));
    }
    for (int i = 0; i < 2; i++) { /* all turns are free */
        CHECK_STATUS(ACC_OK, acc_load_alone(&s->audit_area, &key.key, 2, LEASE, ACC_LOCK_BUDGET_NS,
                                            &alone[i]));
    }
    for (int i = 0; i < 2; i++) {
        acc_load_end(&s->audit_area, &alone[i], ACC_RESULT_FAILED);
    }
    acc_flight_sweep_locked(audit, 0);
    CHECK_EQ(0, live_records(audit));
    CHECK_STATUS(ACC_OK, set_bytes(&s->audit_area, &key.key, "set", 3));
    CHECK_EQ(0, acc_maintenance_check(audit, print_violation, NULL));
    audit->clock_shift -= 10;
}

/* The copy, as the leader finds it who loads while the child is killed: once anybody sees what the
 * child does (something new, nothing, or only a stale value), he stores nothing over it. */
static void audit_leader(struct stepper *s, struct acc_ticket leading) {
    struct acc_segment *audit = s->audit;
    struct test_key key;
    memcpy(audit->base, s->seg->base, audit->geometry.size);
    acc_shard(audit, 0)->lock = 0;
    acc_segment_forget_ahead(audit);
    leading.incarnation = acc_incarnation(audit);
    number_key(&s->audit_area, &key, OP_KEY);
    uint64_t version = read_version(s, &s->audit_area, OP_KEY);
    bool seen = version != s->old_version || is_fresh(s, &s->audit_area) != s->old_fresh;
    enum acc_status status = finish_bytes(&s->audit_area, &key.key, &leading, "leader", 6);
    CHECK(status == ACC_OK || status == ACC_NOT_STORED);
    if (seen) {
        CHECK_STATUS(ACC_NOT_STORED, status);
        CHECK_EQ(version, read_version(s, &s->audit_area, OP_KEY));
        s->refusals++;
    }
}

/* The copy, as the other version of the area finds it.  What forgets the key forgets it in both at
 * once; and once what replaces it can be read, no object of the other's is believed any more.  (A fill
 * is none of its business.) */
static void audit_versions(struct stepper *s, enum command command, uint64_t wanted) {
    struct acc_segment *audit = s->audit;
    struct acc_area other;
    struct test_key key;
    struct acc_found found;
    memcpy(audit->base, s->seg->base, audit->geometry.size);
    acc_shard(audit, 0)->lock = 0;
    acc_area_at(audit, s->other->id, &other);
    number_key(&other, &key, OP_KEY);
    struct acc_home home = acc_home_of(audit, key.key.hash);
    bool named = acc_read_find(&other, &home, &key.key, &found) == ACC_OK;
    uint64_t theirs = read_version(s, &other, OP_KEY);
    uint64_t own = read_version(s, &s->audit_area, OP_KEY);
    if (command == FILL) {
        CHECK_EQ(s->other_version, theirs);
    } else {
        CHECK(theirs == 0 || (theirs == s->other_version && own == s->old_version));
        CHECK(own != wanted || !named);
    }
    CHECK_EQ(0, acc_maintenance_check(audit, print_violation, NULL));
}

/* The copy, as the next finds it who opens versions: all that is shown is counted. */
static void audit_slots(struct stepper *s) {
    struct acc_segment *audit = s->audit;
    struct acc_area next;
    memcpy(audit->base, s->seg->base, audit->geometry.size);
    acc_header(audit)->area_lock = 0;
    for (uint32_t i = 0; i < audit->geometry.areas; i++) {
        const struct acc_area_slot *slot = acc_area_slot(audit, i);
        const struct acc_area_slot *base = acc_area_slot(audit, acc_area_base(audit, i));
        uint32_t count = 0;
        for (uint32_t j = 0; j < audit->geometry.areas; j++) {
            count += acc_area_slot(audit, j)->state == 1 && acc_area_slot(audit, j)->print != 0 &&
                     acc_area_base(audit, j) == i;
        }
        if (slot->state != 1) {
            continue;
        }
        CHECK(base->state == 1 && base->print == 0);
        CHECK_EQ(slot->print == 0, base == slot);
        CHECK(base->name_size == slot->name_size &&
              memcmp(base->name, slot->name, slot->name_size) == 0);
        CHECK(slot->versions / 2 >= count && slot->versions / 2 <= count + 1);
        if (slot->print == 0) {
            CHECK_STATUS(ACC_OK,
                         acc_area_open_version(audit, slot->name, slot->name_size, 99, &next));
            CHECK_EQ(count + 1, slot->versions / 2);
            CHECK_EQ(i, next.base);
        }
    }
}

/* Is it other than it was last seen?  And see it. */
static bool differs_at(struct stepper *s, const uint8_t *at, uint64_t size) {
    uint8_t *seen = s->image + (at - s->seg->base);
    bool differs = memcmp(at, seen, size) != 0;
    if (differs) {
        memcpy(seen, at, size);
    }
    return differs;
}

/* The copy, as the leader finds it who comes after: what was not sent is due, or owed; nobody is in
 * the way of new entries, and somebody leads. */
static void audit_link(struct stepper *s) {
    struct acc_segment *audit = s->audit;
    struct acc_outbox_entry *entries;
    uint32_t count, unsent = 0;
    uint64_t of, upto;
    memcpy(audit->base, s->seg->base, audit->geometry.size);
    memset(audit->base + audit->geometry.process_at, 0,
           audit->geometry.processes * sizeof(struct acc_process));
    CHECK_EQ(0, acc_maintenance_check(audit, print_violation, NULL));
    CHECK_STATUS(ACC_OK, acc_outbox_due(audit, UINT32_MAX, &entries, &count));
    for (uint32_t i = 0; i < count; i++) {
        const struct acc_outbox_entry *entry = &entries[i];
        CHECK(entry->key_size == 9 || entry->key[1] == 'x');
        CHECK(entry->key_size == 9 || entry->key[entry->key_size - 1] == 'x');
        CHECK(entry->key_size == 9 || entry->key_size == 21 || entry->key_size == LONG_KEY + 1);
        unsent += entry->key_size == 9;
    }
    free(entries);
    CHECK(unsent == s->unsent || acc_outbox_owed(audit, s->audit_area.id));
    if (acc_link_state(acc_area_slot(audit, s->audit_area.id), &of, &upto)) {
        CHECK_EQ(2 * of, upto);
    }
    CHECK(acc_leader_claim(audit, 0) != 0); /* the child is dead; or resigned, or is no leader */
    for (uint32_t i = 0; i < audit->geometry.outbox; i++) {
        struct test_key key;
        number_key(&s->audit_area, &key, i);
        uint64_t number = acc_outbox_append(&s->audit_area, &key.key, ACC_NOTE_SET);
        CHECK(number != 0);
        acc_outbox_settle(audit, number, true);
    }
    CHECK_STATUS(ACC_OK, acc_outbox_due(audit, UINT32_MAX, &entries, &count));
    CHECK_EQ(0, count);
    CHECK_EQ(0, acc_maintenance_check(audit, print_violation, NULL));
}

enum { HOT_KEYS = 40, HOT_NEW = 30 }; /* hashes, all of one bucket */

/* The copy: nothing is shown that nobody counted or wrote, and both tables serve. */
static void audit_shown(struct stepper *s) {
    struct acc_segment *audit = s->audit;
    struct acc_hot_key keys[2 * ACC_HOT_WAYS];
    uint32_t facts[ACC_FACTS], changed;
    memcpy(audit->base, s->seg->base, audit->geometry.size);
    uint32_t n = acc_hot_top(audit, keys, 2 * ACC_HOT_WAYS);
    CHECK(n >= ACC_HOT_WAYS - 1 && n <= ACC_HOT_WAYS);
    for (uint32_t i = 0; i < n; i++) {
        CHECK(keys[i].hash < HOT_KEYS);
        CHECK_EQ(s->area.base, keys[i].area);
    }
    for (int i = 0; i < 200; i++) {
        acc_hot_count(audit, s->area.base, HOT_KEYS);
    }
    CHECK(acc_hot_top(audit, keys, 1) == 1 && keys[0].hash == HOT_KEYS);
    if (acc_facts_read(audit, s->area.id, facts, &changed)) {
        for (uint32_t i = 1; i < ACC_FACTS; i++) {
            CHECK_EQ(facts[0], facts[i]);
        }
    }
    facts_of(1, facts);
    acc_facts_write(audit, s->area.id, facts, ACC_FACTS);
    CHECK(acc_facts_read(audit, s->area.id, facts, &changed) && facts[0] == 1);
}

static uint64_t word_of(struct acc_segment *seg, const struct acc_area *area, uint64_t number) {
    struct test_key key;
    struct acc_found found;
    struct acc_home home = acc_home_of(seg, number_key(area, &key, number)->hash);
    return acc_read_find(area, &home, &key.key, &found) == ACC_OK ? found.word : 0;
}

/* The copy, as two find it of whom one reads the item and the other has its object, and goes by word
 * and epoch: as soon as the first says "gone" or "stale", the other looks again.  Neighbours with
 * one slot of the tag stay, and the value that comes next does, too. */
static void audit_tags(struct stepper *s) {
    struct acc_segment *audit = s->audit;
    memcpy(audit->base, s->seg->base, audit->geometry.size);
    memset(audit->base + audit->geometry.process_at, 0,
           audit->geometry.processes * sizeof(struct acc_process));
    acc_shard(audit, 0)->lock = 0;
    acc_segment_forget_ahead(audit);
    const uint64_t *epoch = &acc_area_slot(audit, s->audit_area.id)->tag_epoch;
    uint64_t word = word_of(audit, &s->audit_area, OP_KEY);
    bool told = *epoch != s->epoch;
    bool fresh = is_fresh(s, &s->audit_area);
    CHECK(fresh || *epoch != s->epoch || word_of(audit, &s->audit_area, OP_KEY) != word);
    CHECK(!fresh || !told); /* the epoch comes last */
    CHECK(read_version(s, &s->audit_area, 20) != 0);
    struct test_key key;
    number_key(&s->audit_area, &key, OP_KEY);
    CHECK_STATUS(ACC_OK, set_tagged(&s->audit_area, &key.key, "next", 4, "b"));
    CHECK(has_value(&s->audit_area, &key.key, "next", 4));
    mark_letters(&s->audit_area, "b", false);
    CHECK(!is_there(&s->audit_area, &key.key));
    CHECK_EQ(0, acc_maintenance_check(audit, print_violation, NULL));
}

static bool is_whole_event(const struct acc_event *event) {
    bool of_child = event->hash == EVENT_HASH;
    const struct acc_event wanted = event_of(of_child ? "child" : "parent", event->hash);
    bool begun = memcmp(event->op, wanted.op, sizeof wanted.op) == 0 && event->count == 5 &&
                 event->pid != 0 && event->incarnation != 0 && event->time_ns != 0;
    return begun && (event->running || (event->took_ns == wanted.took_ns &&
                                        memcmp(event->result, wanted.result, 12) == 0 &&
                                        memcmp(event->error_kind, wanted.error_kind, 16) == 0));
}

/* How many there are of the child, each event whole. */
static uint32_t events_of_child(struct acc_segment *seg, struct acc_event *newest) {
    static struct acc_event events[ACC_EVENTS_MAX];
    uint32_t found = acc_events_read(seg, events, ACC_EVENTS_MAX), of_child = 0;
    for (uint32_t i = found; i-- > 0;) {
        CHECK(is_whole_event(&events[i]));
        CHECK(i == 0 || events[i - 1].number > events[i].number);
        if (events[i].hash == EVENT_HASH) {
            *newest = events[i];
            of_child++;
        }
    }
    return of_child;
}

/* The copy, as an operator finds it.  Once the mode is another one, the area has begun anew.  An event
 * that has begun is there, and shown as cut off until all of its end is; and the next one is the
 * newest.  A line was allowed, or is. */
static void audit_operator(struct stepper *s, enum command command) {
    struct acc_segment *audit = s->audit;
    uint32_t area = s->audit_area.id;
    struct acc_event newest = {0}, next = event_of("parent", 5);
    memcpy(audit->base, s->seg->base, audit->geometry.size);
    memset(audit->base + audit->geometry.process_at, 0,
           audit->geometry.processes * sizeof(struct acc_process));
    CHECK(acc_override_row(audit, area)->word[ACC_OPTION_MODE] == s->mode ||
          acc_area_slot(audit, area)->generation > s->anew);
    if (command != LIMIT) {
        uint32_t of_child = events_of_child(audit, &newest);
        CHECK(of_child <= 1);
        CHECK(command != EVENT_END || of_child == 1);
        CHECK(of_child == 0 || acc_process_dead(audit, newest.incarnation));
        CHECK(of_child == 0 || newest.running || command >= EVENT_END);
        acc_event_add(audit, &next);
        static struct acc_event last[1];
        CHECK_EQ(1, acc_events_read(audit, last, 1));
        CHECK(is_whole_event(&last[0]) && last[0].hash == 5);
    } else {
        CHECK(acc_limit_allowed(audit, s->kind, 1000000000) <= 0);
        CHECK_EQ(-1, acc_limit_allowed(audit, s->kind, 1000000000));
    }
    acc_override_tick(audit);
    CHECK_EQ(acc_override_print(audit), acc_override_acted(audit));
    CHECK_EQ(0, acc_maintenance_check(audit, print_violation, NULL));
}

/* Has this instruction changed anything?  (Everything before the rings, the rings behind their
 * ends, and the key's old item.  Of a long value that is copied there, some changes are enough.) */
static bool changed(struct stepper *s) {
    const struct acc_geometry *g = &s->seg->geometry;
    uint8_t *base = s->seg->base;
    uint64_t header = sizeof(struct acc_item_twice);
    header = s->item_size < header ? s->item_size : header;
    bool differs = differs_at(s, base, g->ring_at);
    differs = differs_at(s, s->item, header) || differs;
    bool copies = differs_at(s, s->item + header, s->item_size - header);
    for (uint32_t ring = 0; ring < 2; ring++) {
        uint64_t tail = acc_shard(s->seg, 0)->ring[ring].tail;
        uint8_t *at = acc_ring_at(s->seg, 0, ring, tail);
        uint64_t left = (uint64_t)(base + g->size - at);
        copies = differs_at(s, at, left < VALUE_MAX ? left : VALUE_MAX) || copies;
    }
    s->copied += copies;
    return differs || (copies && (s->copied < 100 || s->copied % 200 == 0));
}

static bool any_ring_unsound(const struct stepper *s) {
    return !acc_ring_sound(s->seg, 0, ACC_SMALL) || !acc_ring_sound(s->seg, 0, ACC_MAIN);
}

/* One operation, looked at after each instruction that changed something.  `must_be_there`: OP_KEY
 * is never absent. */
static void walk(struct stepper *s, enum command command, bool must_be_there) {
    s->old_version = read_version(s, &s->area, OP_KEY);
    s->shared->version = ++s->version;
    uint64_t wanted = s->version;
    s->shared->expire_at = acc_now(s->seg) + 100000;
    s->shared->stale_until = s->shared->expire_at + 100000;
    struct test_key key;
    acc_token(&s->area, number_key(&s->area, &key, OP_KEY), &s->shared->token_key,
              &s->shared->token_area);
    begin_command(s, command);
    s->copied = 0;
    s->epoch = acc_area_slot(s->seg, s->area.id)->tag_epoch;
    s->anew = acc_area_slot(s->seg, s->area.id)->generation;
    s->mode = acc_override_row(s->seg, s->area.id)->word[ACC_OPTION_MODE];
    s->kind = wanted << 40;
    s->old_fresh = is_fresh(s, &s->area);
    find_item(s);
    memcpy(s->image, s->seg->base, s->seg->geometry.size);
    while (step(s)) {
        if (changed(s) && !(s->damaged && any_ring_unsound(s))) {
            s->images++;
            uint64_t version = read_version(s, &s->area, OP_KEY);
            CHECK(version == 0 || version == s->old_version || version == wanted);
            CHECK(version != 0 || !must_be_there);
            audit_image(s, must_be_there, wanted);
            if (s->of_link) {
                audit_link(s);
            }
            if (s->of_shown) {
                audit_shown(s);
            }
            if (s->of_tags) {
                audit_tags(s);
            }
            if (s->of_operator) {
                audit_operator(s, command);
            }
            if (s->waiting != NULL) {
                audit_loads(s, *s->waiting, wanted);
            }
            if (s->leading != NULL) {
                audit_leader(s, *s->leading);
            }
            if (s->other != NULL) {
                audit_versions(s, command, wanted);
            }
            if (command == OPEN_VERSION) {
                audit_slots(s);
            }
        }
    }
    CHECK_EQ(0, acc_maintenance_check(s->seg, print_violation, NULL));
}

/* --- situations ------------------------------------------------------------------------------- */

/* Rings that are full, with marked items at the oldest end of small. */
static void fill_rings(struct stepper *s) {
    for (uint64_t number = 100; number < KEYS; number++) {
        put(s, number, 700);
        if (number % 3 == 0) {
            struct test_key key;
            hit(&s->area, number_key(&s->area, &key, number - 30));
        }
    }
}

static void set_and_rewrite(void) {
    struct stepper *s = new_stepper();
    walk(s, SET_NEW, false);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk(s, SET_SMALL, true); /* the second copy */
    walk(s, SET_SMALL, true); /* rewritten in place */
    walk(s, SET_SMALL, true);
    walk(s, SET_LARGE, true); /* into main */
    walk(s, SET_LARGE, true);
    CHECK_EQ(s->version, read_version(s, &s->area, OP_KEY));
    printf("%s: %llu instructions, %llu images\n", harness.name, (unsigned long long)s->steps,
           (unsigned long long)s->images);
    end_stepper(s);
}

static void set_marks(struct stepper *s, uint8_t small, uint8_t main) {
    for (uint32_t b = 0; b < s->seg->geometry.buckets; b++) {
        struct acc_bucket *bucket = acc_bucket(s->seg, 0, b);
        for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
            bucket->mark[i] = acc_word_ring(bucket->word[i]) == ACC_SMALL ? small : main;
        }
    }
}

/* Is the key's item one of the six oldest of the ring? */
static bool near_head(struct stepper *s, uint32_t ring) {
    struct test_key key;
    struct got got =
        read_key(&s->area, number_key(&s->area, &key, OP_KEY), s->buffer, sizeof s->buffer, false);
    CHECK_STATUS(ACC_OK, got.status);
    uint64_t head = acc_shard(s->seg, 0)->ring[ring].head;
    return got.ring == ring && ((got.offset - head) & ACC_OFFSET_MASK) < 600;
}

/* With full rings: items are moved and evicted, laps end, and the key's own old item may be among
 * them. */
static void set_into_full_rings(void) {
    struct stepper *s = new_stepper();
    fill_rings(s);
    struct test_key key;
    for (int i = 0; i < (is_long() ? 12 : 1); i++) {
        acc_delete(&s->area, number_key(&s->area, &key, OP_KEY));
        walk(s, i % 2 == 0 ? SET_NEW : SET_LARGE, false);
        CHECK_STATUS(ACC_OK, s->shared->status);
    }
    /* What leaves small goes to main, and what is oldest there goes to its newest end, or out. */
    for (int i = 0; i < 2; i++) {
        acc_delete(&s->area, number_key(&s->area, &key, OP_KEY));
        set_marks(s, 1, i == 0);
        uint64_t head = acc_shard(s->seg, 0)->ring[ACC_MAIN].head;
        walk(s, SET_LARGE, false);
        CHECK(acc_shard(s->seg, 0)->ring[ACC_MAIN].head > head);
    }
    /* The key's old item is about the oldest in small, then in main, when it is written again. */
    for (uint32_t ring = 0; ring < (is_long() ? 2 : 1); ring++) {
        put(s, OP_KEY, 700);
        for (uint64_t number = KEYS; !near_head(s, ring); number++) {
            CHECK(number < 100000);
            put(s, number, 700);
            hit(&s->area, number_key(&s->area, &key, number - 100));
            if (ring == ACC_MAIN) {
                hit(&s->area, number_key(&s->area, &key, OP_KEY));
            }
        }
        walk(s, SET_LARGE, false);
    }
    /* All that is oldest in either ring is dead, and named by its word. */
    acc_delete(&s->area, &key.key);
    acc_area_clear(&s->area);
    uint64_t head = acc_shard(s->seg, 0)->ring[ACC_MAIN].head;
    walk(s, SET_NEW, false);
    CHECK(acc_shard(s->seg, 0)->ring[ACC_MAIN].head > head);
    printf("%s: %llu instructions, %llu images\n", harness.name, (unsigned long long)s->steps,
           (unsigned long long)s->images);
    end_stepper(s);
}

/* What is oldest in main is moved to its newest end, and so large that there is no room for both. */
static void move_through_memory(void) {
    struct stepper *s = new_stepper();
    struct acc_ring *main = &acc_shard(s->seg, 0)->ring[ACC_MAIN];
    uint64_t number = 100;
    put(s, number, 30000);
    while (acc_ring_fits(s->seg, 0, ACC_MAIN, 100, s->seg->geometry.ring_units[ACC_MAIN] / 64)) {
        put(s, ++number, 700);
    }
    CHECK_EQ(0, main->head);
    set_marks(s, 1, 1);
    walk(s, SET_LARGE, false);
    CHECK(main->head >= 30000 / ACC_UNIT);
    CHECK(read_version(s, &s->area, 100) != 0);
    end_stepper(s);
}

/* A ring that is garbage is emptied: first no word names anything in it. */
static void garbage_is_dropped(void) {
    struct stepper *s = new_stepper();
    for (uint64_t number = 0; number < 40; number++) {
        put(s, number, 700);
    }
    acc_shard(s->seg, 0)->ring[ACC_SMALL].head = UINT64_MAX;
    s->damaged = true;
    walk(s, SET_NEW, false);
    CHECK_STATUS(ACC_OK, s->shared->status);
    CHECK_EQ(1, acc_shard(s->seg, 0)->resets);
    end_stepper(s);
}

/* Every way into the next lap: padding of all sizes, and a lap skipped because nothing else is
 * left. */
static void lap_ends(void) {
    struct stepper *s = new_stepper();
    for (uint64_t left = 1; left < 80; left += is_long() ? 1 : 40) {
        struct acc_ring *small = &acc_shard(s->seg, 0)->ring[ACC_SMALL];
        acc_segment_empty(s->seg);
        acc_segment_forget_ahead(s->seg);
        uint64_t lap = (small->tail >> s->seg->geometry.ring_bits[ACC_SMALL]) + 3;
        small->head = small->tail = small->mid = lap << s->seg->geometry.ring_bits[ACC_SMALL] |
                                                 (s->seg->geometry.ring_units[ACC_SMALL] - left);
        walk(s, SET_NEW, false);
        CHECK_STATUS(ACC_OK, s->shared->status);
    }
    end_stepper(s);
}

/* Larger than what is left on either side of the tail, though the ring is empty. */
static void lap_skipped(void) {
    struct stepper *s = new_stepper();
    struct acc_ring *small = &acc_shard(s->seg, 0)->ring[ACC_SMALL];
    uint32_t bits = s->seg->geometry.ring_bits[ACC_SMALL];
    small->head = small->tail = small->mid =
        (uint64_t)3 << bits | s->seg->geometry.ring_units[ACC_SMALL] / 2;
    begin_command(s, SET_HUGE);
    memcpy(s->image, s->seg->base, s->seg->geometry.size);
    find_item(s);
    while (small->head >> bits == 3 || small->tail >> bits == 3) { /* then comes the long copy */
        CHECK(step(s));
        if (changed(s)) {
            audit_image(s, false, 0);
        }
    }
    finish_command(s);
    CHECK_STATUS(ACC_OK, s->shared->status);
    end_stepper(s);
}

/* The first key that lies in its second bucket. */
static void overflow(void) {
    struct stepper *s = new_stepper();
    struct test_key key;
    struct acc_home home = acc_home_of(s->seg, number_key(&s->area, &key, OP_KEY)->hash);
    struct acc_bucket *first = acc_home_first(s->seg, &home);
    for (uint64_t number = 100, n = 0; n < 5; number++) {
        struct acc_home other = acc_home_of(s->seg, number_key(&s->area, &key, number)->hash);
        if (acc_home_first(s->seg, &other) == first) {
            put(s, number, 100);
            n++;
        }
    }
    CHECK(!acc_bucket_overflowed(first));
    walk(s, SET_NEW, false);
    CHECK(acc_bucket_overflowed(first));
    end_stepper(s);
}

static void other_operations(void) {
    struct stepper *s = new_stepper();
    put(s, OP_KEY, 500);
    walk(s, TOUCH, true);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk(s, TOUCH, true);
    walk(s, ADD, true);
    CHECK_STATUS(ACC_NOT_STORED, s->shared->status);
    walk(s, EXPIRE, false);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk(s, FILL, false);
    walk(s, DELETE, false);
    CHECK_EQ(0, read_version(s, &s->area, OP_KEY));
    walk(s, FILL, false);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk(s, CLEAR, false);
    walk(s, ADD, false);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk(s, INCR, true);
    walk(s, INCR, true);
    walk(s, INCR, true);
    walk(s, ENTER, true);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk(s, OPEN_AREA, true);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk(s, COUNT, true);
    printf("%s: %llu instructions, %llu images\n", harness.name, (unsigned long long)s->steps,
           (unsigned long long)s->images);
    end_stepper(s);
}

/* Walk as with any operation, and look at each of the images as one who waits for the flight. */
static void walk_load(struct stepper *s, enum command command, const struct acc_ticket *waiting) {
    const struct acc_ticket none = {.record = ACC_NO_RECORD};
    s->waiting = waiting == NULL ? &none : waiting;
    walk(s, command, false);
    s->waiting = NULL;
}

static void loads(void) {
    struct stepper *s = new_stepper();
    struct test_key key;
    number_key(&s->area, &key, OP_KEY);
    const enum command ends[] = {FINISH, HAND, END, FINISH, FINISH};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        acc_delete(&s->area, &key.key);
        walk_load(s, LEAD, NULL);
        CHECK_STATUS(ACC_OK, s->shared->status);
        CHECK(s->shared->ticket.leading);
        struct acc_ticket waiting = join(&s->area, &key.key);
        walk_load(s, JOIN_AND_LEAVE, &waiting);
        CHECK_EQ(1, acc_flight_waiting(s->seg, &waiting));
        if (i == 3) {
            acc_delete(&s->area, &key.key); /* overtaken: handed over */
        } else if (i == 4) {
            put(s, OP_KEY, 300);
        }
        walk_load(s, ends[i], &waiting);
        CHECK(!acc_flight_running(s->seg, &waiting));
        CHECK_EQ(i == 0   ? ACC_RESULT_STORED
                 : i == 2 ? ACC_RESULT_FAILED
                          : ACC_RESULT_HANDED,
                 result_of(&s->area, &waiting));
        CHECK(i != 4 || is_there(&s->area, &key.key));
    }
    acc_delete(&s->area, &key.key);
    walk_load(s, LEAD_ALONE, NULL);
    walk_load(s, SET_SMALL, NULL); /* overtakes it */
    CHECK_EQ(ACC_LEASE_OVERTAKEN, lease_of_child(s));
    walk_load(s, FINISH, NULL);
    CHECK_STATUS(ACC_NOT_STORED, s->shared->status);
    CHECK_EQ(0, live_records(s->seg));
    printf("%s: %llu instructions, %llu images\n", harness.name, (unsigned long long)s->steps,
           (unsigned long long)s->images);
    end_stepper(s);
}

/* In a record that another has led before who lives: killed on the way, the child leaves no flight
 * that seems to be that one's, for which others would wait until its lease is over. */
static void claim_of_used_record(void) {
    struct stepper *s = new_stepper();
    struct test_key key;
    number_key(&s->area, &key, OP_KEY);
    for (uint32_t i = 0; i < ACC_FLIGHT_GROUP; i++) {
        struct acc_ticket ticket = lead(&s->area, &key.key);
        acc_load_end(&s->area, &ticket, ACC_RESULT_FAILED);
        acc_flight_record(s->seg, ticket.record)->owner = acc_incarnation(s->audit);
    }
    walk_load(s, LEAD, NULL);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk_load(s, END, NULL);
    end_stepper(s);
}

/* The same with turns, where the one who had them before lives, and his time has passed. */
static void turn_of_the_living(void) {
    struct stepper *s = new_stepper();
    for (uint32_t i = 0; i < s->seg->geometry.turns; i++) {
        *acc_turn(s->seg, i) =
            (struct acc_turn){.who = (uint64_t)acc_incarnation(s->audit) << 32 | 1,
                              .area = s->area.id,
                              .deadline = acc_now(s->seg) - 1};
    }
    walk_load(s, LEAD_ALONE, NULL);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk_load(s, END, NULL);
    end_stepper(s);
}

/* An operation beside a load of its key that another process leads, and what becomes of that load.
 */
static void walk_beside_leader(struct stepper *s, enum command command, enum acc_lease left) {
    struct test_key key;
    struct acc_ticket leading;
    number_key(&s->area, &key, OP_KEY);
    CHECK_STATUS(ACC_OK, acc_load_enter(&s->area, &key.key, ACC_LOAD_LEAD, ACC_WINDOW_ALL, LEASE,
                                        ACC_LOCK_BUDGET_NS, &leading));
    CHECK(leading.leading);
    s->leading = &leading;
    s->refusals = 0;
    walk(s, command, false);
    s->leading = NULL;
    CHECK_STATUS(ACC_OK, s->shared->status);
    CHECK_EQ(left, acc_flight_lease(s->seg, &leading));
    uint64_t version = read_version(s, &s->area, OP_KEY);
    bool refused = command != TOUCH;
    CHECK_EQ(refused, s->refusals != 0);
    CHECK_EQ(refused, acc_load_overtaken(&s->area, &key.key, &leading));
    if (refused) {
        CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&s->area, &key.key, &leading, "late", 4));
        CHECK_EQ(version, read_version(s, &s->area, OP_KEY));
    } else {
        acc_load_end(&s->area, &leading, ACC_RESULT_FAILED);
    }
}

/* At each instruction: the flights that a write overtakes, then the write. */
static void overtaking(void) {
    struct stepper *s = new_stepper();
    struct test_key key;
    number_key(&s->area, &key, OP_KEY);
    walk_beside_leader(s, SET_NEW, ACC_LEASE_OVERTAKEN);
    for (int i = 0; i < 3; i++) { /* replaced by an item with two copies, and written in place */
        walk_beside_leader(s, SET_SMALL, ACC_LEASE_OVERTAKEN);
    }
    for (int i = 0; i < 3; i++) {
        walk_beside_leader(s, SET_LARGE, ACC_LEASE_OVERTAKEN);
    }
    walk_beside_leader(s, TOUCH, ACC_LEASE_HELD);
    walk_beside_leader(s, EXPIRE, ACC_LEASE_HELD); /* the generations refuse it, here and below */
    walk_beside_leader(s, DELETE, ACC_LEASE_HELD);
    const enum command others[] = {ADD, FILL};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        acc_delete(&s->area, &key.key);
        walk_beside_leader(s, others[i], ACC_LEASE_OVERTAKEN);
    }
    walk_beside_leader(s, CLEAR, ACC_LEASE_HELD);
    walk_load(s, LEAD_ALONE, NULL);
    walk_beside_leader(s, FINISH, ACC_LEASE_OVERTAKEN); /* of the one who loads alone */
    printf("%s: %llu instructions, %llu images\n", harness.name, (unsigned long long)s->steps,
           (unsigned long long)s->images);
    end_stepper(s);
}

/* A letter whose tag shares no slot with those that are deleted here: the table is small, and its hash
 * another one in each run. */
static char letter_apart(struct stepper *s) {
    struct acc_tags gone = letter_tags(&s->area, "bc");
    for (char letter = 'd';; letter++) {
        const char text[2] = {letter, '\0'};
        struct acc_tags tags = letter_tags(&s->area, text);
        bool apart = true;
        for (uint32_t i = 0; i < 4; i++) {
            apart = apart && gone.slot[i] != tags.slot[0] && gone.slot[i] != tags.slot[1];
        }
        if (apart) {
            return letter;
        }
    }
}

/* Values with tags, and what makes them go. */
static void tags(void) {
    struct stepper *s = new_stepper();
    struct test_key key;
    put(s, 20, 500);
    number_key(&s->area, &key, 20);
    fill_value(s->value, 300, 20, ++s->version);
    const char apart[2] = {letter_apart(s), '\0'};
    CHECK_STATUS(ACC_OK, set_tagged(&s->area, &key.key, s->value, 300, apart));
    for (int i = 0; i < 4; i++) { /* appended, with two copies, in place */
        walk(s, SET_TAGGED, i != 0);
        CHECK_STATUS(ACC_OK, s->shared->status);
    }
    walk(s, TOUCH, true);
    walk(s, SET_SMALL, true); /* tags go with the value that has none */
    const enum command marks[] = {DELETE_TAGS, EXPIRE_TAGS, DELETE_TAGS, DELETE_TAGS};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        walk(s, SET_TAGGED, false);
        s->of_tags = true;
        walk(s, marks[i], marks[i] == EXPIRE_TAGS);
        s->of_tags = false;
        CHECK(!is_fresh(s, &s->area));
        CHECK_EQ(marks[i] == EXPIRE_TAGS, read_version(s, &s->area, OP_KEY) != 0);
        if (marks[i] == EXPIRE_TAGS) {
            walk(s, EXPIRE, false); /* of what is stale already */
        }
        CHECK(read_version(s, &s->area, 20) != 0);
    }
    walk_load(s, LEAD, NULL);
    struct acc_ticket waiting = join(&s->area, number_key(&s->area, &key, OP_KEY));
    walk_load(s, FINISH_TAGGED, &waiting);
    CHECK_STATUS(ACC_OK, s->shared->status);
    walk_load(s, DELETE_TAGS, NULL);
    walk_load(s, LEAD, NULL);
    waiting = join(&s->area, &key.key);
    mark_letters(&s->area, "a", false); /* overtakes it: handed over */
    walk_load(s, FINISH_TAGGED, &waiting);
    CHECK_STATUS(ACC_NOT_STORED, s->shared->status);
    end_stepper(s);
}

/* The key in another version, filled as a load does. */
static void put_other(struct stepper *s) {
    struct test_key key;
    struct acc_write fill = {
        .data = s->value, .size = 400, .code = ACC_CODE_BYTES, .mode = ACC_FILL};
    fill_value(s->value, 400, OP_KEY, ++s->version);
    fill.stale_until = 1 + (fill.expire_at = acc_now(s->seg) + 100000) + 100000;
    number_key(s->other, &key, OP_KEY);
    CHECK_STATUS(ACC_OK, acc_store(s->other, &key.key, &fill, ACC_LOCK_BUDGET_NS));
    s->other_version = s->version;
}

static struct acc_area open_version(struct stepper *s, uint32_t print) {
    struct acc_area area;
    CHECK_STATUS(ACC_OK, acc_area_open_version(s->seg, "step", 4, print, &area));
    area.stats = acc_stats_of(s->seg, area.base);
    area.stamp = acc_load_relaxed(&s->seg->self->stamp);
    return area;
}

/* Whatever is said of the key in one version, beside a value of another. */
static void versions(void) {
    struct stepper *s = new_stepper();
    struct acc_area other = open_version(s, 7), third = open_version(s, 8);
    struct test_key key;
    const enum command commands[] = {SET_NEW, SET_SMALL, SET_SMALL, SET_LARGE, TOUCH, EXPIRE,
                                     DELETE,  ADD,       CLEAR,     FILL,      EXPIRE};
    s->other = &other;
    number_key(&s->area, &key, OP_KEY);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        put_other(s);
        walk(s, commands[i], false);
        bool stale = commands[i] == EXPIRE;
        bool kept = commands[i] == FILL || stale;
        CHECK_EQ(kept ? s->other_version : 0, read_version(s, &other, OP_KEY));
        CHECK(!kept || is_fresh(s, &other) != stale);
        if (kept) {
            acc_delete(&third, &key.key); /* which has no value: of all */
            CHECK_EQ(0, read_version(s, &other, OP_KEY));
        }
    }
    printf("%s: %llu instructions, %llu images\n", harness.name, (unsigned long long)s->steps,
           (unsigned long long)s->images);
    end_stepper(s);
}

/* A version, of a new area and of one that is there. */
static void version_opened(void) {
    struct stepper *s = new_stepper();
    for (s->version = 1230; s->version < 1233;) {
        walk(s, OPEN_VERSION, false); /* with the number behind */
        CHECK_STATUS(ACC_OK, s->shared->status);
    }
    s->version = 1239;
    walk(s, OPEN_VERSION, false); /* 1240: without a version */
    CHECK_STATUS(ACC_OK, s->shared->status);
    end_stepper(s);
}

static uint64_t instructions_of(struct stepper *s, enum command command) {
    uint64_t n = 0;
    begin_command(s, command);
    while (step(s)) {
        n++;
    }
    return n;
}

/* Entries of number keys, of the area, that were not sent. */
static void queue_entries(struct stepper *s, uint32_t count, bool is_sent) {
    for (uint32_t i = 0; i < count; i++) {
        struct test_key key;
        number_key(&s->area, &key, (is_sent ? 1000 : 100000) + i);
        acc_outbox_settle(s->seg, acc_outbox_append(&s->area, &key.key, ACC_NOTE_FORGET), is_sent);
    }
}

static void outbox(void) {
    struct stepper *s = new_stepper();
    s->of_link = true;
    walk(s, NOTE, false);
    CHECK(s->shared->number != 0);
    walk(s, SETTLE, false);
    walk(s, NOTE_LONG, false);
    walk(s, SETTLE, false);
    /* Over the end of the ring, and over entries that were not sent, short and long ones. */
    for (int i = 0; i < 2; i++) {
        queue_entries(s, s->seg->geometry.outbox - 3, true);
        queue_entries(s, s->unsent = 8, false);
        queue_entries(s, s->seg->geometry.outbox - 10, true);
        walk(s, NOTE_LONG, false); /* pushes out what was sent, and the first that were not */
        CHECK(acc_outbox_owed(s->seg, s->area.id));
        walk(s, SETTLE, false);
        walk(s, NOTE, false);
        walk(s, SETTLE, false);
        s->unsent = 0;
        queue_entries(s, s->seg->geometry.outbox, true);
        acc_outbox_owed(s->seg, s->area.id);
        acc_outbox_paid(s->seg, s->area.id);
    }
    begin_command(s, NOTE_LONG); /* in the way of the next, short one */
    finish_command(s);
    acc_outbox_settle(s->seg, s->shared->number, false);
    queue_entries(s, s->seg->geometry.outbox - 5, true);
    walk(s, NOTE, false);
    CHECK(acc_outbox_owed(s->seg, s->area.id));
    for (int i = 0; i < 4; i++) { /* appended, then in two copies, then in place */
        walk(s, NOTED_SET, i > 0);
        CHECK_STATUS(ACC_OK, s->shared->status);
    }
    printf("%s: %llu instructions, %llu images\n", harness.name, (unsigned long long)s->steps,
           (unsigned long long)s->images);
    end_stepper(s);
}

/* A read is counted of a key that is in the table, and of ever new ones, of which some take the place
 * of another; areas are bound with other options each time. */
static void shown_to_people(void) {
    struct stepper *s = new_stepper();
    for (uint64_t hash = 0; hash < ACC_HOT_WAYS; hash++) {
        acc_hot_count(s->seg, s->area.base, hash);
    }
    s->of_shown = true;
    for (uint64_t hash = HOT_NEW; hash < HOT_KEYS; hash++) {
        s->shared->number = hash;
        walk(s, COUNT_READ, false);
        s->shared->number = 0;
        walk(s, COUNT_READ, false);
        walk(s, TELL_FACTS, false);
    }
    CHECK(s->images > 3 * (HOT_KEYS - HOT_NEW));
    end_stepper(s);
}

static void leader_and_link(void) {
    struct stepper *s = new_stepper();
    s->of_link = true;
    for (uint32_t term = 1; term < 4; term++) {
        walk(s, CLAIM, false);
        CHECK_EQ(term, s->shared->term);
        walk(s, BEAT, false);
        CHECK_STATUS(ACC_OK, s->shared->status);
        acc_link(s->seg)->confirmed = 1;        /* an interruption */
        acc_link(s->seg)->breaker = 1ull << 60; /* open */
        walk(s, CONFIRM, false);
        CHECK_EQ(ACC_BREAKER_CLOSED, acc_link_look(s->seg).breaker);
        CHECK(!acc_link_look(s->seg).settled);
        walk(s, APPLY, false); /* of another server each time */
        walk(s, APPLY, false);
        walk(s, RESIGN, false);
        CHECK_EQ(0, acc_leader_look(s->seg).incarnation);
        walk(s, BEAT, false);
        CHECK_STATUS(ACC_NOT_FOUND, s->shared->status);
    }
    end_stepper(s);
}

/* The child stops after each instruction of an append, or of a note, while the ring comes round and
 * entries go over it; then it goes on.  Nothing is torn, and its entry is found or it has another. */
static void ring_comes_round_beside(void) {
    struct stepper *s = new_stepper();
    const enum command commands[] = {NOTE, NOTE_LONG, SETTLE};
    for (size_t c = 0; c < sizeof commands / sizeof *commands; c++) {
        begin_command(s, NOTE_LONG);
        finish_command(s);
        uint64_t total = instructions_of(s, commands[c]);
        uint64_t stride = is_long() ? 1 : 1 + total / 60;
        for (uint64_t stop = 0; stop < total; stop += stride) {
            struct acc_outbox_entry *entries;
            uint32_t count;
            begin_command(s, NOTE_LONG);
            finish_command(s);
            begin_command(s, commands[c]);
            for (uint64_t n = 0; n < stop && !s->done; n++) {
                step(s);
            }
            queue_entries(s, s->seg->geometry.outbox + 3, false);
            queue_entries(s, s->seg->geometry.outbox + 5, true);
            finish_command(s);
            CHECK_EQ(0, acc_maintenance_check(s->seg, print_violation, NULL));
            CHECK(s->shared->number != 0);
            acc_outbox_settle(s->seg, s->shared->number, false);
            CHECK_STATUS(ACC_OK, acc_outbox_due(s->seg, UINT32_MAX, &entries, &count));
            CHECK(count <= 1);
            CHECK(count == 0 || entries[0].number == s->shared->number);
            free(entries);
            acc_outbox_settle(s->seg, s->shared->number, true);
        }
    }
    CHECK_EQ(0, acc_maintenance_check(s->seg, print_violation, NULL));
    end_stepper(s);
}

static void operators(void) {
    struct stepper *s = new_stepper();
    const struct acc_event event = event_of("parent", 1);
    uint32_t id = s->area.id;
    s->of_operator = true;
    const enum command changes[] = {OVERRIDE_MODE, REMOVE_MODE, END_PASSED};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        put(s, OP_KEY, 300);
        uint64_t before = *s->area.generation;
        acc_override_set(s->seg, id, ACC_OPTION_MODE, ACC_MODE_LOCAL, 0);
        if (changes[i] == END_PASSED) {
            acc_override_row(s->seg, id)->word[ACC_OPTION_MODE] |= 1ull << 32; /* long passed */
        }
        CHECK_EQ(before, *s->area.generation);
        walk(s, changes[i], false);
        CHECK(acc_override_row(s->seg, id)->word[ACC_OPTION_MODE] != s->mode);
        CHECK_EQ(0, read_version(s, &s->area, OP_KEY));
        walk(s, NOTICE, false);
    }
    for (uint32_t i = 0; i < (is_long() ? 300u : 3u); i++) {
        acc_event_add(s->seg, &event);
        walk(s, EVENT_BEGIN, false);
        CHECK(s->shared->number != 0);
        walk(s, EVENT_END, false);
        for (uint32_t n = 0; n < s->seg->geometry.events; n++) {
            acc_event_add(s->seg, &event); /* so that one of the child's is in the ring */
        }
        walk(s, EVENT_ADD, false);
        for (uint32_t n = 0; n < s->seg->geometry.events; n++) {
            acc_event_add(s->seg, &event);
        }
    }
    walk(s, LIMIT, false);
    CHECK_EQ(0, s->shared->status);
    printf("%s: %llu instructions, %llu images\n", harness.name, (unsigned long long)s->steps,
           (unsigned long long)s->images);
    end_stepper(s);
}

/* The child stops after each instruction with which it notes an event, the ring comes round over its
 * slot, and it goes on: no event is half of one and half of another. */
static void events_come_round_beside(void) {
    struct stepper *s = new_stepper();
    const struct acc_event event = event_of("parent", 1);
    const enum command commands[] = {EVENT_ADD, EVENT_BEGIN, EVENT_END};
    uint32_t slots = s->seg->geometry.events;
    for (size_t c = 0; c < sizeof commands / sizeof *commands; c++) {
        begin_command(s, EVENT_BEGIN);
        finish_command(s);
        uint64_t total = instructions_of(s, commands[c]);
        uint64_t stride = is_long() ? 1 : 1 + total / 200;
        for (uint64_t stop = 0; stop <= total; stop += stride) {
            struct acc_event newest;
            begin_command(s, EVENT_BEGIN);
            finish_command(s);
            begin_command(s, commands[c]);
            for (uint64_t n = 0; n < stop && !s->done; n++) {
                step(s);
            }
            for (uint32_t n = 0; n < slots + 3; n++) {
                acc_event_add(s->seg, &event);
            }
            finish_command(s);
            CHECK(events_of_child(s->seg, &newest) <= 1);
            for (uint32_t n = 0; n < slots + 3; n++) {
                acc_event_add(s->seg, &event);
            }
            CHECK_EQ(0, events_of_child(s->seg, &newest));
            CHECK_EQ(0, acc_events_check(s->seg, print_violation, NULL));
        }
    }
    printf("%s: %llu instructions\n", harness.name, (unsigned long long)s->steps);
    end_stepper(s);
}

/* The child stops after each instruction with which it asks for a line, another asks, it goes on: one
 * of the two is allowed, and the other one is counted. */
static void limit_beside(void) {
    struct stepper *s = new_stepper();
    s->shared->version = ++s->version;
    uint64_t total = instructions_of(s, LIMIT);
    for (uint64_t stop = 0; stop <= total; stop++) {
        s->shared->version = ++s->version;
        begin_command(s, LIMIT);
        for (uint64_t n = 0; n < stop && !s->done; n++) {
            step(s);
        }
        int64_t answer = acc_limit_allowed(s->seg, s->version << 40, 1000000000);
        finish_command(s);
        CHECK(answer <= 0);
        CHECK_EQ(answer == 0, s->shared->status != 0);
        CHECK_EQ(1, acc_limit_allowed(s->seg, s->version << 40, 0));
    }
    end_stepper(s);
}

/* --- a reader that is stopped ----------------------------------------------------------------- */

/* A reader stops after each of his instructions, and goes on when what he read was written over
 * once, twice (so that his copy is the one being reused), or the whole ring was. */
static void reader_stops_anywhere(void) {
    struct stepper *s = new_stepper();
    for (int way = 0; way < 4; way++) {
        put(s, OP_KEY, 300);
        uint64_t total = instructions_of(s, READ);
        uint64_t stride = is_long() ? 1 + (way == 3) * 20 : 1 + total / points / 10;
        for (uint64_t stop = 0; stop < total; stop += stride) {
            struct test_key key;
            acc_delete(&s->area, number_key(&s->area, &key, OP_KEY));
            put(s, OP_KEY, 300);
            put(s, OP_KEY, 300);
            uint64_t least = s->version;
            begin_command(s, READ);
            for (uint64_t n = 0; n < stop && !s->done; n++) {
                step(s);
            }
            switch (way) {
            case 0: put(s, OP_KEY, 290); break;
            case 1:
                put(s, OP_KEY, 290);
                put(s, OP_KEY, 280);
                break;
            case 2:
                acc_delete(&s->area, &key.key);
                put(s, OP_KEY, 270);
                break;
            case 3:
                for (uint64_t number = 100; number < 160; number++) {
                    put(s, number, 9000);
                }
                break;
            }
            finish_command(s);
            enum acc_status status = s->shared->status;
            CHECK(status == ACC_OK || status == ACC_NOT_FOUND || status == ACC_RACE);
            uint64_t version;
            if (status == ACC_OK) {
                CHECK(proves_itself(s->shared->value, s->shared->size, OP_KEY, &version));
                CHECK(version >= least);
            }
            CHECK(way >= 2 || status != ACC_NOT_FOUND); /* a rewrite never makes it absent */
        }
    }
    printf("%s: %llu instructions\n", harness.name, (unsigned long long)s->steps);
    end_stepper(s);
}

static void let_child_lead(struct stepper *s) {
    begin_command(s, LEAD);
    finish_command(s);
    CHECK_STATUS(ACC_OK, s->shared->status);
    CHECK(s->shared->ticket.leading);
}

/* --- writers that are stopped ----------------------------------------------------------------- */

/* The child's operation stops after each of some instructions, a delete happens, the child goes on.
 */
static void check_delete_beside(struct stepper *s, enum command command, bool may_store) {
    struct chance chance = {command + 1};
    struct test_key key, counter;
    uint64_t total = 0, n = 1;
    number_key(&s->area, &key, OP_KEY);
    text_key(&s->area, &counter, "counter");
    const struct acc_key *deleted = command == INCR ? &counter.key : &key.key;
    for (uint64_t point = 0; point < n; point++) {
        const struct acc_write write = {.data = s->value,
                                        .size = 500,
                                        .code = ACC_CODE_BYTES,
                                        .expire_at = acc_now(s->seg) + 100000,
                                        .stale_until = acc_now(s->seg) + 200000};
        fill_value(s->value, 500, OP_KEY, ++s->version);
        acc_delete(&s->area, &key.key);
        if (command != FILL && command != FINISH) {
            CHECK_STATUS(ACC_OK, acc_store(&s->area, &key.key, &write, ACC_LOCK_BUDGET_NS));
        }
        s->shared->version = ++s->version;
        acc_token(&s->area, &key.key, &s->shared->token_key, &s->shared->token_area);
        if (command == FINISH) {
            let_child_lead(s);
        }
        if (point == 0) {
            total = instructions_of(s, command);
            n = points == 0 || total < points ? total : points + 1;
            continue;
        }
        uint64_t stop = points == 0 ? point : random_below(&chance, (uint32_t)total);
        begin_command(s, command);
        for (uint64_t i = 0; i < stop && !s->done; i++) {
            step(s);
        }
        acc_delete(s->deleter, deleted);
        bool after_delete = is_there(&s->area, deleted);
        finish_command(s);
        CHECK(!after_delete);
        if (!may_store) {
            CHECK(!is_there(&s->area, deleted)); /* it was deleted, and nobody has set it since */
        }
        CHECK_EQ(0, count_doubles(s->seg, 0));
        if (point % 10 == 0) {
            CHECK_EQ(0, acc_maintenance_check(s->seg, print_violation, NULL));
        }
    }
}

static void delete_beside_anything(void) {
    struct stepper *s = new_stepper();
    check_delete_beside(s, FILL, false);
    check_delete_beside(s, FINISH, false);
    check_delete_beside(s, TOUCH, false);
    check_delete_beside(s, EXPIRE, false);
    check_delete_beside(s, DELETE, false);
    check_delete_beside(s, SET_SMALL, true);
    check_delete_beside(s, INCR, true);
    check_delete_beside(s, READ, false);
    printf("%s: %llu instructions\n", harness.name, (unsigned long long)s->steps);
    end_stepper(s);
}

/* The same in an area of two versions, where the other one deletes. */
static void delete_beside_versions(void) {
    struct stepper *s = new_stepper();
    struct acc_area other = open_version(s, 7);
    s->deleter = &other;
    check_delete_beside(s, FILL, false);
    check_delete_beside(s, FINISH, false);
    check_delete_beside(s, TOUCH, false);
    check_delete_beside(s, EXPIRE, false);
    check_delete_beside(s, DELETE, false);
    check_delete_beside(s, SET_SMALL, true);
    check_delete_beside(s, INCR, true);
    end_stepper(s);
}

/* The same between the moment when a touch has found its value and its own bump: what it stores behind
 * that is not the deleted value. */
static void delete_before_bump(void) {
    struct stepper *s = new_stepper();
    struct acc_area other = open_version(s, 7);
    struct test_key key;
    number_key(&s->area, &key, OP_KEY);
    const uint64_t *group = acc_generation_word(s->seg, acc_generation_index(s->seg, key.key.hash));
    uint64_t stops = 0;
    for (bool bumped = false; !bumped; stops += is_long() ? 1 : 5) {
        put(s, OP_KEY, 400);
        s->shared->expire_at = acc_now(s->seg) + 100000;
        s->shared->stale_until = 0;
        uint64_t seen = acc_load_acquire(group);
        begin_command(s, TOUCH);
        while (acc_load_relaxed(&acc_shard(s->seg, 0)->lock) == 0) {
            CHECK(step(s));
        }
        for (uint64_t i = 0; i < stops; i++) {
            CHECK(step(s));
        }
        bumped = acc_load_acquire(group) != seen;
        CHECK_EQ(!bumped, acc_delete(&other, &key.key));
        finish_command(s);
        CHECK(!is_there(&s->area, &key.key));
        CHECK_EQ(0, count_doubles(s->seg, 0));
    }
    CHECK(stops > 20);
    end_stepper(s);
}

/* A set is never undone by a delete that ended before it, nor by a touch or expire that began
 * before. */
static void set_beside_anything(void) {
    struct stepper *s = new_stepper();
    const enum command commands[] = {DELETE, TOUCH, EXPIRE, FILL, SET_SMALL, SET_LARGE, CLEAR};
    struct chance chance = {3};
    for (size_t c = 0; c < sizeof commands / sizeof *commands; c++) {
        put(s, OP_KEY, 400);
        s->shared->version = ++s->version;
        uint64_t total = instructions_of(s, commands[c]);
        for (uint64_t point = 0; point < (points == 0 ? total : points); point++) {
            put(s, OP_KEY, 400 + random_below(&chance, 400));
            uint64_t stop = points == 0 ? point : random_below(&chance, (uint32_t)total);
            s->shared->version = ++s->version;
            begin_command(s, commands[c]);
            for (uint64_t i = 0; i < stop && !s->done; i++) {
                step(s);
            }
            struct test_key key;
            fill_value(s->value, 450, OP_KEY, ++s->version);
            uint64_t latest = s->version;
            enum acc_status status =
                set_bytes(&s->area, number_key(&s->area, &key, OP_KEY), s->value, 450);
            CHECK(status == ACC_OK || status == ACC_BUSY);
            finish_command(s);
            uint64_t version = read_version(s, &s->area, OP_KEY);
            CHECK(version == 0 || version == latest || version == s->shared->version);
            if (status == ACC_BUSY && commands[c] != SET_SMALL && commands[c] != SET_LARGE) {
                CHECK_EQ(0, version); /* dropped, as a set that is not stored must */
            }
            CHECK_EQ(0, count_doubles(s->seg, 0));
        }
        CHECK_EQ(0, acc_maintenance_check(s->seg, print_violation, NULL));
    }
    end_stepper(s);
}

/* A leader is stopped while he stores, and somebody sets the key: what was set stays, or, if the
 * leader had the lock, nothing. */
static void set_beside_finish(void) {
    struct stepper *s = new_stepper();
    struct chance chance = {5};
    struct test_key key;
    number_key(&s->area, &key, OP_KEY);
    uint64_t total = 0, most = points == 0 ? UINT64_MAX : 8 * (uint64_t)points;
    for (uint64_t point = 0; point <= total && point <= most; point++) {
        acc_delete(&s->area, &key.key);
        let_child_lead(s);
        s->shared->version = ++s->version;
        if (point == 0) {
            total = instructions_of(s, FINISH);
            continue;
        }
        struct acc_ticket waiting = join(&s->area, &key.key);
        uint64_t stop = points == 0 ? point : random_below(&chance, (uint32_t)total);
        begin_command(s, FINISH);
        for (uint64_t i = 0; i < stop && !s->done; i++) {
            step(s);
        }
        fill_value(s->value, 450, OP_KEY, ++s->version);
        enum acc_status status = set_bytes(&s->area, &key.key, s->value, 450);
        finish_command(s);
        CHECK(status == ACC_OK || status == ACC_BUSY);
        CHECK_EQ(status == ACC_OK ? s->version : 0, read_version(s, &s->area, OP_KEY));
        CHECK(!acc_flight_running(s->seg, &waiting));
        enum acc_flight_result result = result_of(&s->area, &waiting);
        CHECK(result == ACC_RESULT_STORED || result == ACC_RESULT_HANDED);
        acc_flight_leave(s->seg, &waiting);
        CHECK_EQ(0, count_doubles(s->seg, 0));
    }
    CHECK_EQ(0, acc_maintenance_check(s->seg, print_violation, NULL));
    end_stepper(s);
}

/* --- main ------------------------------------------------------------------------------------- */

static bool may_trace(void) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0) {
            raise(MARKER);
        }
        _exit(1);
    }
    waitpid(pid, &status, 0);
    bool stopped = WIFSTOPPED(status) && ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0;
    if (WIFSTOPPED(status)) {
        kill(pid, SIGKILL);
        while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
        }
    }
    return stopped;
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(set_and_rewrite),
        TEST(set_into_full_rings),
        TEST(move_through_memory),
        TEST(garbage_is_dropped),
        TEST(lap_ends),
        TEST(lap_skipped),
        TEST(overflow),
        TEST(other_operations),
        TEST(loads),
        TEST(claim_of_used_record),
        TEST(turn_of_the_living),
        TEST(overtaking),
        TEST(tags),
        TEST(versions),
        TEST(version_opened),
        TEST(outbox),
        TEST(leader_and_link),
        TEST(shown_to_people),
        TEST(ring_comes_round_beside),
        TEST(operators),
        TEST(events_come_round_beside),
        TEST(limit_beside),
        TEST(reader_stops_anywhere),
        TEST(delete_beside_anything),
        TEST(delete_beside_versions),
        TEST(delete_before_bump),
        TEST(set_beside_anything),
        TEST(set_beside_finish),
    };
    if (!may_trace()) {
        printf("this system lets no process trace another: nothing was tested\n");
        return 77; /* skipped */
    }
    if (argc > 1 && argv[1][0] >= '0' && argv[1][0] <= '9') {
        points = (uint32_t)strtoul(argv[1], NULL, 10);
        argc--;
        argv++;
    }
    return run_tests(tests, sizeof tests / sizeof *tests, points == 0 ? 3600 : 120, argc, argv);
}
