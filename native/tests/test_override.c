/* Overrides: what is in force, until when, and when each process acts on it. */
#include "area.h"
#include "harness.h"
#include "link.h"
#include "override.h"

static const uint64_t SECOND = 1000000000;

/* Time passes. */
static void pass(struct acc_segment *seg, double seconds) {
    seg->clock_shift += (int32_t)(seconds * ACC_UNITS_PER_SECOND);
}

static uint64_t word_at(const struct acc_segment *seg, uint32_t row, enum acc_option option) {
    return acc_load_acquire(&acc_override_row(seg, row)->word[option]);
}

static uint64_t count_of(struct acc_segment *seg, uint32_t area, enum acc_counter which) {
    uint64_t counters[ACC_COUNTERS];
    acc_stats_sum(seg, area, counters);
    return counters[which];
}

#define CHECK_LOOK(expected, seg, row, option)                                                     \
    do {                                                                                           \
        uint32_t value_;                                                                           \
        CHECK(acc_override_look((seg), (row), (option), &value_));                                 \
        CHECK_EQ((expected), value_);                                                              \
    } while (0)

static bool has(struct acc_segment *seg, uint32_t row, enum acc_option option) {
    uint32_t value;
    return acc_override_look(seg, row, option, &value);
}

/* --- words ------------------------------------------------------------------------------------ */

static void names(void) {
    for (int i = 0; i < ACC_OPTIONS; i++) {
        CHECK(acc_option_names[i] != NULL);
        for (int other = 0; other < i; other++) {
            CHECK(strcmp(acc_option_names[i], acc_option_names[other]) != 0);
        }
    }
}

static void set_and_remove(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    uint32_t id = open_area(seg, "area").id, host = acc_override_host(seg);
    for (uint32_t option = 0; option < ACC_OPTIONS; option++) {
        uint32_t most = acc_option_most[option];
        CHECK(!has(seg, host, option));
        acc_override_set(seg, host, option, most, 0);
        CHECK_LOOK(most, seg, host, option);
        acc_override_set(seg, host, option, 0, 0);
        CHECK_LOOK(0, seg, host, option);
        CHECK(!has(seg, id, option));
    }
    acc_override_set(seg, id, ACC_OPTION_TTL, 5, 0);
    acc_override_remove(seg, host, ACC_OPTION_TTL);
    CHECK_LOOK(5, seg, id, ACC_OPTION_TTL);
    CHECK(!has(seg, host, ACC_OPTION_TTL));
    acc_override_remove(seg, id, ACC_OPTION_TTL);
    CHECK(!has(seg, id, ACC_OPTION_TTL));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static void deadline(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    uint32_t id = open_area(seg, "area").id;
    acc_override_set(seg, id, ACC_OPTION_TTL, 5, 3 * SECOND / 2);
    uint64_t word = word_at(seg, id, ACC_OPTION_TTL);
    double left = acc_override_left(seg, word);
    CHECK(left >= 1.4 && left <= 2.5); /* whole seconds, never less than was asked for */
    pass(seg, 1.4);
    acc_override_tick(seg);
    CHECK_LOOK(5, seg, id, ACC_OPTION_TTL);
    pass(seg, 1.2);
    CHECK_LOOK(5, seg, id, ACC_OPTION_TTL); /* in force until a tick has seen that */
    CHECK_EQ(0, (int)acc_override_left(seg, word));
    acc_override_tick(seg);
    CHECK(!has(seg, id, ACC_OPTION_TTL));
    acc_segment_close(seg);
}

/* Set anew at the moment when its time is over: it stays. */
static void deadline_moved(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    uint32_t id = open_area(seg, "area").id;
    acc_override_set(seg, id, ACC_OPTION_MODE, ACC_MODE_OFF, SECOND);
    pass(seg, 3);
    acc_override_set(seg, id, ACC_OPTION_MODE, ACC_MODE_OFF, 0);
    uint64_t generation = acc_area_slot(seg, id)->generation;
    acc_override_tick(seg);
    CHECK_LOOK(ACC_MODE_OFF, seg, id, ACC_OPTION_MODE);
    CHECK_EQ(generation, acc_area_slot(seg, id)->generation);
    acc_segment_close(seg);
}

/* --- leaving LOCAL and OFF -------------------------------------------------------------------- */

static void begins_anew(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_area area = open_area(seg, "area"), other = open_area(seg, "other");
    const struct {
        uint32_t former, next; /* 9: none */
        bool anew;
    } cases[] = {
        {ACC_MODE_LOCAL, 9, true},
        {ACC_MODE_OFF, 9, true},
        {ACC_MODE_LOCAL, ACC_MODE_BOTH, true},
        {ACC_MODE_OFF, ACC_MODE_LOCAL, true},
        {ACC_MODE_LOCAL, ACC_MODE_LOCAL, false},
        {ACC_MODE_BOTH, 9, false},
        {ACC_MODE_REMOTE, ACC_MODE_LOCAL, false},
    };
    uint64_t times = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        acc_override_remove(seg, area.id, ACC_OPTION_MODE);
        times = count_of(seg, area.id, ACC_GAP);
        acc_override_set(seg, area.id, ACC_OPTION_MODE, cases[i].former, 0);
        uint64_t before = *area.generation, of_other = *other.generation;
        if (cases[i].next == 9) {
            acc_override_remove(seg, area.id, ACC_OPTION_MODE);
        } else {
            acc_override_set(seg, area.id, ACC_OPTION_MODE, cases[i].next, 5 * SECOND);
        }
        CHECK_EQ(cases[i].anew, *area.generation != before);
        CHECK_EQ(times + cases[i].anew, count_of(seg, area.id, ACC_GAP));
        CHECK_EQ(times + cases[i].anew, count_of(seg, area.id, ACC_FLUSH));
        CHECK_EQ(of_other, *other.generation);
    }
    acc_segment_close(seg);
}

static void host_begins_anew(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_area area = open_area(seg, "area"), other = open_area(seg, "other"), version;
    CHECK_STATUS(ACC_OK, acc_area_open_version(seg, "area", 4, 7, &version));
    acc_override_set(seg, acc_override_host(seg), ACC_OPTION_MODE, ACC_MODE_LOCAL, SECOND);
    uint64_t before = *area.generation, of_other = *other.generation;
    pass(seg, 3);
    acc_override_tick(seg);
    CHECK_EQ(before + 1, *area.generation); /* once, whatever versions there are */
    CHECK_EQ(of_other + 1, *other.generation);
    CHECK_EQ(1, count_of(seg, area.id, ACC_FLUSH));
    CHECK_EQ(1, count_of(seg, other.id, ACC_GAP));
    CHECK_EQ(0, acc_area_slot(seg, version.id)->generation); /* its base's is its own */
    CHECK_EQ(0, count_of(seg, version.id, ACC_GAP));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* The host is told to be LOCAL; an area that is told otherwise leaves that, too. */
static void leaves_the_host(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_area area = open_area(seg, "area"), other = open_area(seg, "other");
    const struct {
        uint32_t host, own;
        bool anew;
    } cases[] = {
        {ACC_MODE_LOCAL, ACC_MODE_BOTH, true},   {ACC_MODE_OFF, ACC_MODE_REMOTE, true},
        {ACC_MODE_OFF, ACC_MODE_LOCAL, true},    {ACC_MODE_LOCAL, ACC_MODE_LOCAL, false},
        {ACC_MODE_REMOTE, ACC_MODE_BOTH, false}, {ACC_MODE_BOTH, ACC_MODE_OFF, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        acc_override_remove(seg, area.id, ACC_OPTION_MODE);
        acc_override_set(seg, acc_override_host(seg), ACC_OPTION_MODE, cases[i].host, 0);
        uint64_t before = *area.generation, of_other = *other.generation;
        acc_override_set(seg, area.id, ACC_OPTION_TTL, 5 + (uint32_t)i, 0);
        CHECK_EQ(before, *area.generation);
        acc_override_set(seg, area.id, ACC_OPTION_MODE, cases[i].own, 0);
        CHECK_EQ(cases[i].anew, *area.generation != before);
        CHECK_EQ(of_other, *other.generation);
    }
    acc_segment_close(seg);
}

/* --- who acts on what ------------------------------------------------------------------------- */

static void print_of_the_state(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    uint32_t id = open_area(seg, "area").id, host = acc_override_host(seg);
    CHECK_EQ(0, acc_override_print(seg));
    acc_override_set(seg, id, ACC_OPTION_TTL, 5, 0);
    uint32_t one = acc_override_print(seg);
    acc_override_set(seg, host, ACC_OPTION_TTL, 5, 0);
    uint32_t two = acc_override_print(seg);
    acc_override_remove(seg, id, ACC_OPTION_TTL);
    uint32_t three = acc_override_print(seg);
    CHECK(one != 0 && one != two && two != three && three != one && three != 0);
    acc_override_set(seg, id, ACC_OPTION_TTL, 5, 0);
    CHECK_EQ(two, acc_override_print(seg)); /* however it came about */
    acc_override_remove(seg, id, ACC_OPTION_TTL);
    acc_override_remove(seg, host, ACC_OPTION_TTL);
    acc_override_set(seg, host, ACC_OPTION_MAX_LOADS, 5, 0);
    CHECK(three != acc_override_print(seg)); /* the place counts */
    acc_segment_close(seg);
}

/* Set by a process that only has it mapped: the next tick of the others makes them bind anew. */
static void noticed_by_tick(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *command = map_file(path), *seg = attach(path);
    struct acc_area area = open_area(seg, "area");
    uint32_t id = area.id, incarnation = acc_incarnation(seg);
    acc_override_set(command, id, ACC_OPTION_TTL, 5, 0);
    CHECK_EQ(acc_override_print(seg), acc_override_notice(command));
    CHECK_EQ(acc_override_print(seg), acc_override_acted(command));
    CHECK_EQ(0, command->self->stamp); /* it takes no part */
    acc_maintenance_tick(seg);
    CHECK_EQ(acc_override_print(seg), acc_override_acted(seg));
    CHECK_EQ(incarnation, acc_incarnation(seg));
    CHECK(!acc_area_entered(&area));
    CHECK(acc_area_enter(&area));
    CHECK(!acc_area_entered(&area)); /* not before it is bound anew */
    acc_area_at(seg, id, &area);
    CHECK(acc_area_enter(&area) && acc_area_entered(&area));
    acc_maintenance_tick(seg);
    CHECK(acc_area_entered(&area)); /* nothing has changed */
    acc_override_remove(command, id, ACC_OPTION_TTL);
    acc_maintenance_tick(seg);
    CHECK_EQ(0, acc_override_acted(seg));
    CHECK(!acc_area_entered(&area));
    acc_segment_close(seg);
    acc_segment_close(command);
}

/* What changes while a process is out is noticed when it enters again, before anything is done. */
static void noticed_on_entering(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *command = map_file(path), *seg = attach(path);
    struct acc_area area = open_area(seg, "area");
    acc_segment_unregister(seg);
    acc_override_set(command, area.id, ACC_OPTION_TTL, 5, 0);
    CHECK_EQ(0, acc_override_acted(seg)); /* as when it left: what is bound stays bound */
    CHECK(!acc_area_entered(&area));
    CHECK(acc_area_enter(&area));
    CHECK_EQ(acc_override_print(seg), acc_override_acted(seg));
    CHECK(!acc_area_entered(&area));
    acc_segment_unregister(seg);
    CHECK_STATUS(ACC_OK, acc_process_enter(seg, NULL)); /* nobody has looked since */
    CHECK_EQ(acc_override_print(seg), acc_override_acted(seg));
    acc_segment_close(seg);
    acc_segment_close(command);
}

static int look_in_child(void *argument) {
    struct acc_area *area = argument;
    struct acc_segment *seg = area->seg;
    uint32_t print = acc_override_print(seg);
    if (acc_incarnation(seg) != 0 || acc_override_acted(seg) != print || acc_area_entered(area)) {
        return 1;
    }
    if (!acc_area_enter(area) || !acc_area_entered(area) || acc_override_acted(seg) != print) {
        return 2;
    }
    acc_override_remove(seg, area->id, ACC_OPTION_TTL);
    acc_override_notice(seg);
    return acc_area_entered(area) ? 3 : 0;
}

/* A forked child goes on under what its parent acted on, with an identity of its own. */
static void forked_child(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_area area = open_area(seg, "area");
    acc_override_set(seg, area.id, ACC_OPTION_TTL, 5, 0);
    acc_override_notice(seg);
    acc_area_at(seg, area.id, &area);
    CHECK(acc_area_enter(&area) && acc_area_entered(&area));
    CHECK_EQ(0, in_child(look_in_child, &area));
    acc_maintenance_tick(seg);
    CHECK(!acc_area_entered(&area)); /* what the child has removed */
    acc_segment_close(seg);
}

/* Fenced, the process stays out, whatever changes. */
static void fenced(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    struct acc_area area = open_area(seg, "area");
    unlink(path);
    acc_override_set(seg, area.id, ACC_OPTION_TTL, 5, 0);
    acc_maintenance_tick(seg);
    acc_override_notice(seg);
    CHECK_EQ(0, acc_incarnation(seg));
    CHECK(!acc_area_entered(&area));
    CHECK(!acc_area_enter(&area));
    acc_segment_close(seg);
}

static int serve(void *argument) {
    struct acc_segment *seg = attach(harness.files[0]);
    uint32_t *words = argument;
    acc_add_relaxed(&words[0], 1u);
    await(&words[1], 1);
    acc_segment_close(seg);
    return 0;
}

/* All living ones are counted, and those that act on it: within two ticks all of them. */
static void seen_by_all(void) {
    enum { CHILDREN = 4 };
    struct acc_segment *seg = map_file(new_segment_file(2 * MIB, 1024));
    uint32_t *words = shared_words(), seen, alive;
    acc_override_seen(seg, &seen, &alive);
    CHECK_EQ(0, alive);
    pid_t pids[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            _exit(serve(words));
        }
    }
    await(&words[0], CHILDREN);
    acc_override_seen(seg, &seen, &alive);
    CHECK_EQ(CHILDREN, seen);
    CHECK_EQ(CHILDREN, alive);
    CHECK_EQ(0, kill(pids[0], SIGSTOP)); /* lives, and cannot know */
    acc_override_set(seg, acc_override_host(seg), ACC_OPTION_TTL, 5, 0);
    for (int i = 0; i < 5000 && seen != CHILDREN - 1; i++) {
        sleep_ms(1);
        acc_override_seen(seg, &seen, &alive);
    }
    sleep_ms(200);
    acc_override_seen(seg, &seen, &alive);
    CHECK_EQ(CHILDREN - 1, seen);
    CHECK_EQ(CHILDREN, alive);
    kill_child(pids[0]);
    acc_override_seen(seg, &seen, &alive);
    CHECK_EQ(CHILDREN - 1, seen);
    CHECK_EQ(CHILDREN - 1, alive);
    reach(&words[1], 1);
    for (int i = 1; i < CHILDREN; i++) {
        CHECK_EQ(0, wait_child(pids[i]));
    }
    munmap(words, 4096);
    acc_segment_close(seg);
}

static void *notice_often(void *argument) {
    struct acc_segment *seg = argument;
    for (int i = 0; i < 3000; i++) {
        acc_override_notice(seg);
    }
    return NULL;
}

static void *change_often(void *argument) {
    struct acc_segment *seg = argument;
    for (uint32_t i = 0; i < 3000; i++) {
        acc_override_set(seg, i % 4, ACC_OPTION_TTL, i, 0);
        acc_override_notice(seg);
    }
    return NULL;
}

/* Threads of one process notice, change, leave and enter at once: nobody ends with an old print or
 * without an identity. */
static void threads(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    pthread_t pool[3];
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(0, pthread_create(&pool[i], NULL, i == 0 ? change_often : notice_often, seg));
    }
    for (int i = 0; i < 300; i++) {
        acc_segment_unregister(seg);
        CHECK_EQ(0, acc_incarnation(seg));
        CHECK_STATUS(ACC_OK, acc_segment_register(seg));
        CHECK(acc_incarnation(seg) != 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(pool[i], NULL);
    }
    acc_maintenance_tick(seg);
    CHECK_EQ(acc_override_print(seg), acc_override_acted(seg));
    uint32_t seen, alive;
    acc_override_seen(seg, &seen, &alive);
    CHECK_EQ(1, seen);
    acc_segment_close(seg);
}

/* --- the breaker ------------------------------------------------------------------------------ */

static void breaker(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    uint32_t host = acc_override_host(seg);
    CHECK_EQ(ACC_FORCED_NOT, acc_link_look(seg).forced);
    acc_override_set(seg, host, ACC_OPTION_BREAKER, 1, 0);
    CHECK_EQ(ACC_REMOTE_NO, acc_link_ask(seg, SECOND, false));
    CHECK_EQ(ACC_FORCED_OPEN, acc_link_look(seg).forced);
    CHECK_EQ(ACC_BREAKER_CLOSED, acc_link_look(seg).breaker);
    acc_override_set(seg, host, ACC_OPTION_BREAKER, 0, 0);
    for (int i = 0; i < 5; i++) {
        acc_link_failed(seg, acc_now_ns(seg), false);
    }
    CHECK_EQ(ACC_BREAKER_OPEN, acc_link_look(seg).breaker);
    CHECK_EQ(ACC_REMOTE_GO, acc_link_ask(seg, SECOND, false));
    acc_link_refused(seg); /* it answers with errors: no order helps */
    CHECK_EQ(ACC_REMOTE_NO, acc_link_ask(seg, SECOND, false));
    acc_link_confirm(seg, acc_now_ns(seg));
    pass(seg, 5);
    CHECK_EQ(ACC_REMOTE_NO, acc_link_ask(seg, SECOND, true)); /* out of step */
    CHECK_EQ(ACC_REMOTE_GO, acc_link_ask(seg, SECOND, false));
    acc_override_remove(seg, host, ACC_OPTION_BREAKER);
    CHECK_EQ(ACC_FORCED_NOT, acc_link_look(seg).forced);
    acc_segment_close(seg);
}

/* --- garbage ---------------------------------------------------------------------------------- */

static void put(struct acc_segment *seg, uint32_t row, uint32_t option, uint64_t word) {
    acc_store_relaxed(&acc_override_row(seg, row)->word[option], word); /* threads tick */
}

static void garbage(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_area area = open_area(seg, "area");
    struct chance chance = {1};
    for (int i = 0; i < 3000; i++) {
        uint32_t row = random_below(&chance, seg->geometry.areas + 1);
        uint32_t option = random_below(&chance, ACC_OVERRIDE_SLOTS);
        put(seg, row, option, random_bits(&chance) >> random_below(&chance, 64));
        acc_link_ask(seg, SECOND, false);
        acc_override_check(seg, ignore_violation, NULL);
        acc_maintenance_tick(seg);
        CHECK_EQ(acc_override_print(seg), acc_override_acted(seg));
        CHECK(acc_area_enter(&area));
    }
    put(seg, area.id, ACC_OPTION_BREAKER, 1);            /* it is the host's */
    put(seg, area.id, ACC_OPTION_MODE, 5);               /* no mode */
    put(seg, area.id, ACC_OPTION_TTL, 1ull << 32);       /* a deadline of nothing */
    put(seg, area.id, ACC_OPTION_MAX_LOADS, UINT64_MAX); /* in a century */
    CHECK_EQ(4, acc_override_check(seg, ignore_violation, NULL));
    acc_override_tick(seg);
    for (uint32_t option = 0; option < ACC_OVERRIDE_SLOTS; option++) {
        bool is_hurt = option == ACC_OPTION_BREAKER || option == ACC_OPTION_MODE ||
                       option == ACC_OPTION_TTL || option == ACC_OPTION_MAX_LOADS;
        CHECK(!is_hurt || word_at(seg, area.id, option) == 0);
    }
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

RUN(60, TEST(names), TEST(set_and_remove), TEST(deadline), TEST(deadline_moved), TEST(begins_anew),
    TEST(host_begins_anew), TEST(leaves_the_host), TEST(print_of_the_state), TEST(noticed_by_tick),
    TEST(noticed_on_entering), TEST(forked_child), TEST(fenced), TEST(seen_by_all), TEST(threads),
    TEST(breaker), TEST(garbage))
