/* The ring of events: whole ones only, the newest first, and what a killed process was doing. */
#include "events.h"
#include "harness.h"

static struct acc_event event_of(const char *op, uint64_t hash) {
    struct acc_event event = {.hash = hash, .area = 3, .count = 2, .took_ns = hash * 1000};
    memcpy(event.op, op, strlen(op));
    memcpy(event.result, op, strlen(op));
    memcpy(event.error_kind, op, strlen(op));
    return event;
}

/* Is it one of event_of()'s, all of it? */
static bool is_whole(const struct acc_event *event) {
    char op[ACC_EVENT_OP_SIZE + 1] = {0};
    memcpy(op, event->op, ACC_EVENT_OP_SIZE);
    const struct acc_event wanted = event_of(op, event->hash);
    bool begun = event->number != 0 && event->pid != 0 && event->time_ns != 0 &&
                 event->area == wanted.area && event->count == wanted.count;
    if (event->running) {
        return begun && event->result[0] == 0 && event->error_kind[0] == 0;
    }
    return begun && event->took_ns == wanted.took_ns &&
           memcmp(event->result, wanted.result, sizeof wanted.result) == 0 &&
           memcmp(event->error_kind, wanted.error_kind, sizeof wanted.error_kind) == 0;
}

static uint32_t read_all(struct acc_segment *seg, struct acc_event *out) {
    uint32_t found = acc_events_read(seg, out, ACC_EVENTS_MAX);
    for (uint32_t i = 0; i < found; i++) {
        CHECK(is_whole(&out[i]));
        CHECK(i == 0 || out[i - 1].number > out[i].number);
    }
    return found;
}

static struct acc_event seen[ACC_EVENTS_MAX];

static void one_by_one(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    CHECK_EQ(0, read_all(seg, seen));
    struct acc_event one = event_of("one", 1), two = event_of("two", 2);
    acc_event_add(seg, &one);
    uint64_t number = acc_event_begin(seg, &two);
    CHECK_EQ(2, number);
    CHECK_EQ(2, read_all(seg, seen));
    CHECK(seen[0].running && !seen[1].running);
    CHECK_EQ(acc_incarnation(seg), seen[0].incarnation);
    CHECK_EQ(getpid(), seen[0].pid);
    acc_event_end(seg, number, &two);
    CHECK_EQ(1, acc_events_read(seg, seen, 1));
    CHECK(is_whole(&seen[0]) && !seen[0].running && seen[0].number == 2);
    acc_event_end(seg, number, &one); /* it has ended */
    CHECK_EQ(2, read_all(seg, seen));
    CHECK_EQ(0, acc_events_read(seg, seen, 0));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static void ring_comes_round(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    uint32_t slots = seg->geometry.events;
    struct acc_event begun = event_of("begun", 7), end = event_of("other", 8);
    uint64_t number = acc_event_begin(seg, &begun);
    for (uint32_t i = 0; i < 3 * slots; i++) {
        struct acc_event event = event_of(i % 2 ? "odd" : "even", i);
        acc_event_add(seg, &event);
        CHECK(read_all(seg, seen) <= slots);
        CHECK_EQ(i, seen[0].hash);
    }
    acc_event_end(seg, number, &end); /* long overwritten */
    CHECK_EQ(slots, read_all(seg, seen));
    for (uint32_t i = 0; i < slots; i++) {
        CHECK_EQ(3 * slots - 1 - i, seen[i].hash);
    }
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static void sizes(void) {
    const struct {
        uint64_t size;
        uint32_t slots;
    } cases[] = {{2 * MIB, 128}, {64 * MIB, 2048}, {256 * MIB, 8192}, {4096 * MIB, 8192}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct acc_geometry geometry;
        CHECK_STATUS(ACC_OK, acc_geometry_of(cases[i].size, 1024, &geometry));
        CHECK_EQ(cases[i].slots, geometry.events);
    }
}

static int begin_and_die(void *argument) {
    struct acc_segment *seg = attach(argument);
    struct acc_event event = event_of("killed", 5);
    if (acc_event_begin(seg, &event) == 0) {
        return 1;
    }
    kill(getpid(), SIGKILL);
    return 2;
}

static void cut_off(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    CHECK_EQ(128 + SIGKILL, in_child(begin_and_die, (void *)(uintptr_t)path));
    CHECK_EQ(1, read_all(seg, seen));
    CHECK(seen[0].running);
    CHECK(acc_process_dead(seg, seen[0].incarnation));
    struct acc_event end = event_of("end", 5);
    acc_event_end(seg, seen[0].number, &end); /* it was none of ours */
    CHECK_EQ(1, read_all(seg, seen));
    CHECK(seen[0].running);
    acc_segment_close(seg);
}

/* Without being registered, and not where nothing may be written. */
static void from_outside(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = map_file(path), *reader;
    struct acc_event event = event_of("set", 1);
    acc_event_add(seg, &event);
    int fd = open_file(path);
    CHECK_STATUS(ACC_OK, acc_segment_map(fd, 2 * MIB, true, &reader));
    acc_event_add(reader, &event);
    CHECK_EQ(0, acc_event_begin(reader, &event));
    acc_event_end(reader, 1, &event);
    CHECK_EQ(1, read_all(reader, seen));
    CHECK_EQ(0, seen[0].incarnation);
    CHECK_EQ(getpid(), seen[0].pid);
    acc_segment_close(reader);
    acc_segment_close(seg);
}

static void write_forever(const char *path, uint32_t *words, const char *op) {
    struct acc_segment *seg = attach(path);
    acc_add_relaxed(&words[0], 1u);
    for (uint64_t i = 0;; i++) {
        struct acc_event event = event_of(op, i);
        if (i % 3 == 0) {
            acc_event_end(seg, acc_event_begin(seg, &event), &event);
        } else {
            acc_event_add(seg, &event);
        }
    }
}

/* Writers that are killed at any moment, and the ring that comes round under them: what is read is
 * whole. */
static void killed_writers(void) {
    enum { WRITERS = 3, ROUNDS = 40 };
    static const char *const ops[WRITERS] = {"a", "bbbbbb", "cccccccccccc"};
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    uint32_t *words = shared_words();
    for (int round = 0; round < ROUNDS; round++) {
        pid_t pids[WRITERS];
        acc_store_release(&words[0], 0u);
        for (int i = 0; i < WRITERS; i++) {
            pids[i] = fork_child();
            if (pids[i] == 0) {
                write_forever(path, words, ops[i]);
            }
        }
        await(&words[0], WRITERS);
        for (int i = 0; i < 20; i++) {
            read_all(seg, seen);
        }
        for (int i = 0; i < WRITERS; i++) {
            kill_child(pids[i]);
        }
        CHECK(read_all(seg, seen) > 0);
        CHECK_SEGMENT(seg);
    }
    munmap(words, 4096);
    acc_segment_close(seg);
}

/* Every byte of a slot matters: with any other one it is not shown, or is as it was. */
static void damaged(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_event event = event_of("whole", 5);
    acc_event_add(seg, &event);
    CHECK_EQ(1, acc_events_read(seg, seen, 10));
    struct acc_event whole = seen[0];
    uint8_t *slot = (uint8_t *)acc_event_slot(seg, 1);
    for (uint32_t i = 0; i < sizeof(struct acc_event_slot); i++) {
        slot[i] ^= 0x10;
        uint32_t found = acc_events_read(seg, seen, 10);
        CHECK(found == 0 || memcmp(&whole, &seen[0], sizeof whole) == 0);
        slot[i] ^= 0x10;
    }
    CHECK_EQ(1, acc_events_read(seg, seen, 10));
    acc_segment_close(seg);
}

static void garbage(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    uint32_t slots = seg->geometry.events;
    struct chance chance = {1};
    for (int i = 0; i < 5000; i++) {
        struct acc_event event = event_of("fine", (uint64_t)i);
        struct acc_event_slot *slot = acc_event_slot(seg, random_below(&chance, slots));
        uint64_t bits = random_bits(&chance) >> random_below(&chance, 64);
        if (random_below(&chance, 20) == 0) {
            acc_event_head(seg)->next = bits;
        } else {
            memcpy((uint8_t *)slot + 8 * random_below(&chance, sizeof *slot / 8), &bits, 8);
        }
        uint64_t number = acc_event_begin(seg, &event);
        acc_event_end(seg, random_below(&chance, 2) == 0 ? number : bits | 1ull << 60, &event);
        acc_event_add(seg, &event);
        read_all(seg, seen);
        acc_events_check(seg, ignore_violation, NULL);
    }
    /* The ring that comes round puts it right, wherever the numbers are. */
    acc_event_head(seg)->next = UINT64_MAX - 10;
    for (uint32_t i = 0; i < 2 * slots + 20; i++) {
        struct acc_event event = event_of("fine", i);
        acc_event_add(seg, &event);
    }
    CHECK_EQ(slots, read_all(seg, seen));
    CHECK_EQ(2 * slots + 19, seen[0].hash);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

RUN(60, TEST(one_by_one), TEST(ring_comes_round), TEST(sizes), TEST(cut_off), TEST(from_outside),
    TEST(killed_writers), TEST(damaged), TEST(garbage))
