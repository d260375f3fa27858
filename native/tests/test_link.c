/* The state of the link: when the second level may be asked, the breaker with its one probe, and how
 * far an area's invalidations have been applied. */
#include "area.h"
#include "harness.h"
#include "link.h"

static const uint64_t SECOND = 1000000000;
static const uint64_t BOUND = 2000000000;

/* Time passes. */
static void pass(struct acc_segment *seg, double seconds) {
    seg->clock_shift += (int32_t)(seconds * ACC_UNITS_PER_SECOND);
}

static void confirm_now(struct acc_segment *seg) {
    acc_link_confirm(seg, acc_now_ns(seg));
}

static void fail(struct acc_segment *seg, bool probe) {
    acc_link_failed(seg, acc_now_ns(seg), probe);
}

#define CHECK_ASK(expected, seg, reading)                                                          \
    CHECK_EQ((expected), acc_link_ask((seg), BOUND, (reading)))

/* --- reading and writing ---------------------------------------------------------------------- */

static void before_anybody_listens(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    CHECK_ASK(ACC_REMOTE_GO, seg, true);
    CHECK_ASK(ACC_REMOTE_GO, seg, false);
    struct acc_link_info info = acc_link_look(seg);
    CHECK_EQ(0, info.confirmed);
    CHECK(info.settled && !info.refused);
    acc_segment_close(seg);
}

static void read_within_the_bound(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    confirm_now(seg);
    CHECK_ASK(ACC_REMOTE_GO, seg, true);
    pass(seg, 1.9);
    CHECK_ASK(ACC_REMOTE_GO, seg, true);
    pass(seg, 0.2);
    CHECK_ASK(ACC_REMOTE_NO, seg, true);
    CHECK_ASK(ACC_REMOTE_GO, seg, false); /* writes are not bound to that */
    acc_segment_close(seg);
}

static void confirmed_is_only_raised(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    pass(seg, 100);
    uint64_t now = acc_now_ns(seg);
    acc_link_confirm(seg, now);
    acc_link_confirm(seg, now - 5 * SECOND); /* of a listener that was stopped */
    CHECK_EQ(now, acc_link(seg)->confirmed);
    acc_link_confirm(seg, now + 3600 * SECOND); /* nothing is confirmed beyond now */
    CHECK(acc_link(seg)->confirmed <= acc_now_ns(seg));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* Behind an interruption others may still owe us what they could not send: one second more. */
static void settled_after_an_interruption(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    confirm_now(seg);
    pass(seg, 0.9);
    confirm_now(seg);
    CHECK(acc_link_look(seg).settled);
    pass(seg, 1.2);
    confirm_now(seg);
    CHECK(!acc_link_look(seg).settled);
    CHECK_ASK(ACC_REMOTE_NO, seg, true);
    CHECK_ASK(ACC_REMOTE_GO, seg, false);
    pass(seg, 0.5);
    confirm_now(seg); /* does not begin it anew */
    CHECK_ASK(ACC_REMOTE_NO, seg, true);
    pass(seg, 0.6);
    CHECK_ASK(ACC_REMOTE_GO, seg, true);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static void refused(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    confirm_now(seg);
    acc_link_refused(seg);
    CHECK(acc_link_look(seg).refused);
    CHECK_ASK(ACC_REMOTE_NO, seg, true);
    CHECK_ASK(ACC_REMOTE_NO, seg, false);
    confirm_now(seg);
    CHECK_ASK(ACC_REMOTE_GO, seg, true);
    CHECK_ASK(ACC_REMOTE_GO, seg, false);
    acc_segment_close(seg);
}

/* --- the breaker ------------------------------------------------------------------------------ */

static void open_breaker(struct acc_segment *seg) {
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(ACC_BREAKER_CLOSED, acc_link_look(seg).breaker);
        fail(seg, false);
    }
    CHECK_EQ(ACC_BREAKER_OPEN, acc_link_look(seg).breaker);
}

static void opened_by_five_in_a_row(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    for (int i = 0; i < 20; i++) {
        fail(seg, false);
        CHECK_EQ(i % 4 + 1, acc_link_look(seg).failures);
        if (i % 4 == 3) {
            acc_link_ok(seg, false);
            CHECK_EQ(0, acc_link_look(seg).failures);
        }
    }
    open_breaker(seg);
    CHECK_ASK(ACC_REMOTE_NO, seg, true);
    CHECK_ASK(ACC_REMOTE_NO, seg, false);
    /* What was under way when it opened changes nothing. */
    uint64_t open_ns = acc_link_look(seg).open_ns;
    fail(seg, false);
    acc_link_ok(seg, false);
    CHECK_EQ(ACC_BREAKER_OPEN, acc_link_look(seg).breaker);
    CHECK(acc_link_look(seg).open_ns <= open_ns);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* Who was heard of after the call began is well: it was the caller that was slow. */
static void failures_of_the_caller(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    uint64_t before = acc_now_ns(seg);
    confirm_now(seg);
    for (int i = 0; i < 20; i++) {
        acc_link_failed(seg, before, false);
    }
    CHECK_EQ(0, acc_link_look(seg).failures);
    fail(seg, false);
    CHECK_EQ(1, acc_link_look(seg).failures);
    acc_segment_close(seg);
}

static void one_probe(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    open_breaker(seg);
    pass(seg, 0.39);
    CHECK_ASK(ACC_REMOTE_NO, seg, false); /* 0.4 s at least */
    pass(seg, 0.3);
    CHECK_EQ(ACC_BREAKER_HALF_OPEN, acc_link_look(seg).breaker);
    CHECK_ASK(ACC_REMOTE_PROBE, seg, false);
    CHECK_ASK(ACC_REMOTE_NO, seg, false);
    CHECK_ASK(ACC_REMOTE_NO, seg, true);
    acc_link_ok(seg, true);
    CHECK_EQ(ACC_BREAKER_CLOSED, acc_link_look(seg).breaker);
    CHECK_ASK(ACC_REMOTE_GO, seg, false);
    acc_segment_close(seg);
}

/* Twice as long with each probe that fails, up to eight seconds, 20 % more or less. */
static void pauses_double(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    const double pauses[] = {0.5, 1, 2, 4, 8, 8, 8};
    double shortest = 2, longest = 0;
    open_breaker(seg);
    for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
        double share = (double)acc_link_look(seg).open_ns / 1e9 / pauses[i];
        CHECK(share > 0.78 && share < 1.21);
        shortest = share < shortest ? share : shortest;
        longest = share > longest ? share : longest;
        pass(seg, pauses[i] * 1.21);
        CHECK_ASK(ACC_REMOTE_PROBE, seg, false);
        fail(seg, true);
    }
    CHECK(longest > shortest); /* by chance */
    acc_segment_close(seg);
}

/* A probe whose process was killed is followed by another after a second; what it reports then is
 * not taken for the second one's. */
static void lost_probe(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    open_breaker(seg);
    pass(seg, 0.7);
    uint64_t first = acc_now_ns(seg);
    CHECK_ASK(ACC_REMOTE_PROBE, seg, true);
    pass(seg, 0.9);
    CHECK_ASK(ACC_REMOTE_NO, seg, true);
    pass(seg, 0.2);
    CHECK_ASK(ACC_REMOTE_PROBE, seg, true);
    acc_link_failed(seg, first, true);
    CHECK_EQ(ACC_BREAKER_HALF_OPEN, acc_link_look(seg).breaker);
    CHECK_ASK(ACC_REMOTE_NO, seg, true);
    fail(seg, true);
    CHECK_EQ(ACC_BREAKER_OPEN, acc_link_look(seg).breaker);
    acc_segment_close(seg);
}

static void closed_by_the_listener(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    open_breaker(seg);
    confirm_now(seg);
    CHECK_EQ(ACC_BREAKER_CLOSED, acc_link_look(seg).breaker);
    open_breaker(seg); /* five again */
    acc_segment_close(seg);
}

/* Many ask at the same moment when the pause is over: one of them is the probe. */
static void one_probe_among_processes(void) {
    enum { PROCESSES = 4, ROUNDS = 200 };
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    uint32_t *words = shared_words();
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            struct acc_segment *own = attach(path);
            for (uint32_t round = 1; round <= ROUNDS; round++) {
                while (acc_load_acquire(&words[0]) < round) {
                    acc_pause();
                }
                own->clock_shift = (int32_t)words[1];
                if (acc_link_ask(own, BOUND, false) == ACC_REMOTE_PROBE) {
                    acc_add_relaxed(&words[2], 1u);
                }
                acc_add_release(&words[3], 1u);
            }
            _exit(0);
        }
    }
    open_breaker(seg);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        pass(seg, 20); /* also over the second that the last probe had */
        words[1] = (uint32_t)seg->clock_shift;
        reach(&words[0], round);
        await(&words[3], PROCESSES * round);
        CHECK_EQ(round, words[2]);
    }
    for (int i = 0; i < PROCESSES; i++) {
        CHECK_EQ(0, wait_child(pids[i]));
    }
    munmap(words, 4096);
    acc_segment_close(seg);
}

/* --- areas ------------------------------------------------------------------------------------ */

static void check_state(struct acc_area_slot *slot, uint64_t replication, uint64_t sequence) {
    uint64_t of, upto;
    CHECK_EQ(replication != 0, acc_link_state(slot, &of, &upto));
    CHECK_EQ(replication, of);
    CHECK_EQ(sequence, upto);
}

static void applied(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_area area = open_area(seg, "a");
    struct acc_area_slot *slot = acc_area_slot(seg, area.id);
    check_state(slot, 0, 0);
    acc_link_applied(slot, 7, 0);
    check_state(slot, 7, 0);
    acc_link_applied(slot, 7, 10);
    acc_link_applied(slot, 7, 9); /* a listener that was stopped */
    check_state(slot, 7, 10);
    acc_link_applied(slot, 8, 3);
    check_state(slot, 8, 3);
    acc_link_applied(slot, 8, (1ull << 48) - 1);
    check_state(slot, 8, (1ull << 48) - 1);
    acc_link_applied(slot, 8, 1ull << 48); /* more than can be told: never in step */
    check_state(slot, 0, 0);
    acc_link_applied(slot, 8, 5);
    check_state(slot, 8, 5);
    acc_link_applied(slot, 0, 0);
    check_state(slot, 0, 0);
    acc_segment_close(seg);
}

/* The two words are never read as a pair that nobody stored, whoever dies between them. */
static void applied_is_a_pair(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_area_slot *slot = acc_area_slot(seg, open_area(seg, "a").id);
    acc_link_applied(slot, 7, 100);
    uint64_t word = slot->applied;
    slot->replication = 8; /* killed before the second store */
    check_state(slot, 0, 0);
    acc_link_applied(slot, 8, 100);
    check_state(slot, 8, 100);
    /* Somebody who was stopped before his CAS of the first id's word: it fails. */
    CHECK(!acc_cas64(&slot->applied, word, word + 1));
    acc_segment_close(seg);
}

static void applied_beside_another(void) {
    enum { ROUNDS = 20000 };
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    uint32_t id = open_area(seg, "a").id;
    pid_t pids[2];
    for (int i = 0; i < 2; i++) { /* two leaders who know of different servers */
        pids[i] = fork_child();
        if (pids[i] == 0) {
            struct acc_area_slot *slot = acc_area_slot(attach(path), id);
            for (uint64_t n = 1; n <= ROUNDS; n++) {
                acc_link_applied(slot, 77 + (uint64_t)i, 2 * n + (uint64_t)i);
            }
            _exit(0);
        }
    }
    struct acc_area_slot *slot = acc_area_slot(seg, id);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t of, upto;
        if (acc_link_state(slot, &of, &upto)) {
            CHECK_EQ(of - 77, upto % 2);
        }
    }
    CHECK_EQ(0, wait_child(pids[0]));
    CHECK_EQ(0, wait_child(pids[1]));
    acc_segment_close(seg);
}

/* --- for people, garbage, forks --------------------------------------------------------------- */

static void told_to_people(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    acc_link_connected(seg);
    acc_link_lost(seg, SECOND);
    struct acc_link_info info = acc_link_look(seg);
    CHECK_EQ(0, info.connected);
    CHECK(info.next_retry > info.now && info.next_retry <= info.now + SECOND);
    acc_link_connected(seg);
    acc_link_message(seg);
    info = acc_link_look(seg);
    CHECK_EQ(2, info.connects);
    CHECK_EQ(0, info.next_retry);
    CHECK(info.connected != 0 && info.message >= info.connected);
    acc_segment_close(seg);
}

static void garbage(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_link *link = acc_link(seg);
    struct acc_area_slot *slot = acc_area_slot(seg, open_area(seg, "a").id);
    struct chance chance = {1};
    for (int round = 0; round < 20000; round++) {
        uint64_t *words[] = {&link->confirmed, &link->heard,      &link->settled_from,
                             &link->refused,   &link->breaker,    &link->connected,
                             &slot->applied,   &link->next_retry, &slot->replication};
        *words[random_below(&chance, 9)] = random_bits(&chance) >> random_below(&chance, 64);
        uint64_t of, upto;
        acc_link_state(slot, &of, &upto);
        acc_link_look(seg);
        acc_link_check(seg, ignore_violation, NULL);
        bool probe = acc_link_ask(seg, BOUND, random_below(&chance, 2)) == ACC_REMOTE_PROBE;
        if (random_below(&chance, 2) == 0) {
            fail(seg, probe);
        } else {
            acc_link_ok(seg, probe);
        }
    }
    /* The next heartbeat puts it right, but for what is only shown. */
    confirm_now(seg);
    acc_link_connected(seg);
    acc_link_message(seg);
    CHECK_SEGMENT(seg);
    pass(seg, 1.1);
    confirm_now(seg);
    pass(seg, 1.1);
    CHECK_ASK(ACC_REMOTE_GO, seg, true);
    acc_segment_close(seg);
}

/* A private segment's copy in a child is another memory: with another name, and nobody leads it. */
static void forked_private_memory(void) {
    struct acc_segment *seg;
    uint8_t origin[16];
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 1024, &seg));
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    memcpy(origin, acc_header(seg)->origin, sizeof origin);
    open_breaker(seg);
    pid_t pid = fork_child();
    if (pid == 0) {
        CHECK_STATUS(ACC_OK, acc_segment_register(seg));
        CHECK(memcmp(origin, acc_header(seg)->origin, sizeof origin) != 0);
        CHECK_EQ(ACC_BREAKER_CLOSED, acc_link_look(seg).breaker);
        _exit(0);
    }
    CHECK_EQ(0, wait_child(pid));
    CHECK_EQ(0, memcmp(origin, acc_header(seg)->origin, sizeof origin));
    acc_segment_close(seg);
}

RUN(60, TEST(before_anybody_listens), TEST(read_within_the_bound), TEST(confirmed_is_only_raised),
    TEST(settled_after_an_interruption), TEST(refused), TEST(opened_by_five_in_a_row),
    TEST(failures_of_the_caller), TEST(one_probe), TEST(pauses_double), TEST(lost_probe),
    TEST(closed_by_the_listener), TEST(one_probe_among_processes), TEST(applied),
    TEST(applied_is_a_pair), TEST(applied_beside_another), TEST(told_to_people), TEST(garbage),
    TEST(forked_private_memory))
