/* Who listens for the host: claims, beats, resignations, and what becomes of a lease whose holder
 * was killed or stopped. */
#include "harness.h"
#include "leader.h"

enum { WAIT_MS = 5000 };

static uint64_t now_ms(void) {
    return acc_clock_ms();
}

/* Claim until it works; how many ms that took. */
static uint64_t claim_within(struct acc_segment *seg, uint64_t ms, uint32_t *term) {
    uint64_t began = now_ms();
    do {
        *term = acc_leader_claim(seg, 50000000);
    } while (*term == 0 && now_ms() - began < ms);
    return now_ms() - began;
}

/* A child that leads and beats until `words[1]` is set; then it does as that says. */
enum { BEAT = 0, STOP_BEATING = 1, RESIGN = 2 };

static pid_t start_leader(const char *path, uint32_t *words) {
    words[0] = words[1] = 0;
    pid_t pid = fork_child();
    if (pid != 0) {
        await(&words[0], 1);
        return pid;
    }
    struct acc_segment *seg = attach(path);
    uint32_t term;
    claim_within(seg, WAIT_MS, &term);
    CHECK(term != 0 && acc_leader_beat(seg, term));
    words[2] = term;
    reach(&words[0], 1);
    while (acc_load_acquire(&words[1]) == BEAT) {
        acc_leader_beat(seg, term);
        sleep_ms(5);
    }
    if (words[1] == RESIGN) {
        acc_leader_resign(seg, term);
    }
    reach(&words[0], 2);
    for (;;) {
        pause();
    }
}

static void first_claim(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    CHECK_EQ(0, acc_leader_look(seg).incarnation);
    CHECK_EQ(1, acc_leader_claim(seg, 0));
    struct acc_leader_info info = acc_leader_look(seg);
    CHECK_EQ(1, info.term);
    CHECK_EQ(acc_incarnation(seg), info.incarnation);
    CHECK(info.has_beat && info.beat_age_ms < 100);
    CHECK_EQ(0, acc_leader_claim(seg, 0)); /* also for another thread of this process */
    CHECK(acc_leader_beat(seg, 1));
    CHECK(!acc_leader_beat(seg, 2) && !acc_leader_beat(seg, 0));
    acc_leader_resign(seg, 2);
    CHECK(acc_leader_beat(seg, 1));
    acc_leader_resign(seg, 1);
    CHECK(!acc_leader_beat(seg, 1));
    CHECK_EQ(0, acc_leader_look(seg).incarnation);
    CHECK_EQ(2, acc_leader_claim(seg, 0));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* Without an id of its own nobody leads: not before it enters, not when it has left. */
static void only_who_is_registered(void) {
    struct acc_segment *seg = map_file(new_segment_file(2 * MIB, 1024));
    uint64_t began = now_ms();
    CHECK_EQ(0, acc_leader_claim(seg, UINT64_MAX));
    CHECK(now_ms() - began < 40);
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    uint32_t term = acc_leader_claim(seg, 0);
    CHECK_EQ(1, term);
    pid_t pid = fork_child();
    if (pid == 0) { /* a child has no part in what its parent leads */
        CHECK(!acc_leader_beat(seg, term));
        acc_leader_resign(seg, term);
        _exit(acc_leader_claim(seg, 1000000) == 0 ? 0 : 1);
    }
    CHECK_EQ(0, wait_child(pid));
    CHECK(acc_leader_beat(seg, term));
    acc_segment_unregister(seg);
    CHECK(!acc_leader_beat(seg, term));
    acc_segment_close(seg);
}

static void taken_over_from_the_killed(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    uint32_t *words = shared_words(), term;
    for (int i = 0; i < 5; i++) {
        pid_t pid = start_leader(path, words);
        CHECK_EQ(0, acc_leader_claim(seg, 0));
        kill_child(pid);
        uint64_t took = claim_within(seg, WAIT_MS, &term);
        CHECK_EQ(words[2] + 1, term);
        CHECK(took < 750);
        acc_leader_resign(seg, term);
    }
    munmap(words, 4096);
    acc_segment_close(seg);
}

/* A stopped one lives, and is late; when it goes on it finds that it leads no more. */
static void taken_over_from_the_stopped(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    uint32_t *words = shared_words(), term;
    pid_t pid = start_leader(path, words);
    CHECK_EQ(0, kill(pid, SIGSTOP));
    int status;
    CHECK_EQ(pid, waitpid(pid, &status, WUNTRACED));
    uint64_t took = claim_within(seg, WAIT_MS, &term);
    CHECK_EQ(words[2] + 1, term);
    CHECK(took >= 400 && took < 750);
    kill(pid, SIGCONT);
    reach(&words[1], RESIGN);
    await(&words[0], 2);
    CHECK(acc_leader_beat(seg, term)); /* its beats and its resignation went nowhere */
    CHECK_EQ(term, acc_leader_look(seg).term);
    kill_child(pid);
    munmap(words, 4096);
    acc_segment_close(seg);
}

/* Who waits hears of a resignation at once, not at the end of his slice of 50 ms. */
static void resigned(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    uint32_t *words = shared_words(), term;
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        pid_t pid = start_leader(path, words), waiter = fork_child();
        if (waiter == 0) {
            struct acc_segment *own = attach(path);
            reach(&words[3], 1);
            claim_within(own, WAIT_MS, &term);
            uint64_t at = acc_clock_ns();
            memcpy(&words[4], &at, sizeof at);
            _exit(term == words[2] + 1 ? 0 : 1);
        }
        await(&words[3], 1);
        sleep_ms(60); /* well into a wait: asleep in the kernel, but for a moment between two */
        uint64_t began = acc_clock_ns(), at;
        reach(&words[1], RESIGN);
        CHECK_EQ(0, wait_child(waiter));
        memcpy(&at, &words[4], sizeof at);
        best = at - began < best ? at - began : best;
        kill_child(pid);
        words[3] = 0;
        claim_within(seg, WAIT_MS, &term); /* from the waiter, who has ended */
        acc_leader_resign(seg, term);
    }
    CHECK(best < 25000000); /* a third of its slices would have taken longer; five times none */
    munmap(words, 4096);
    acc_segment_close(seg);
}

/* A leader that has claimed and not beaten yet is given 500 ms from when one first sees it. */
static void without_a_first_beat(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    pid_t pid = fork_child();
    if (pid == 0) {
        pause();
    }
    /* Another process that lives: a second mapping of the file would share our id's lock. */
    uint32_t *words = shared_words(), term;
    pid_t other = start_leader(harness.files[0], words);
    CHECK_EQ(0, kill(other, SIGSTOP));
    acc_link(seg)->beat = 0;
    uint64_t took = claim_within(seg, WAIT_MS, &term);
    CHECK_EQ(words[2] + 1, term);
    CHECK(took > 450 && took < 750);
    kill_child(other);
    kill_child(pid);
    munmap(words, 4096);
    acc_segment_close(seg);
}

/* Many claim at once, again and again: every term has one leader. */
static void one_leader_a_term(void) {
    enum { PROCESSES = 4, TERMS = 300 };
    const char *path = new_segment_file(2 * MIB, 1024);
    uint32_t *words = shared_words(); /* [term] who led it */
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            struct acc_segment *seg = attach(path);
            uint32_t term = 0;
            while (term < TERMS) {
                claim_within(seg, WAIT_MS, &term);
                CHECK(term != 0);
                CHECK(term > 1000 || acc_cas32(&words[term], 0, acc_incarnation(seg)));
                CHECK(acc_leader_beat(seg, term));
                acc_leader_resign(seg, term);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        CHECK_EQ(0, wait_child(pids[i]));
    }
    for (uint32_t term = 1; term <= TERMS; term++) {
        CHECK(words[term] != 0);
    }
    munmap(words, 4096);
}

static void garbage(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct acc_link *link = acc_link(seg);
    struct chance chance = {1};
    uint32_t term;
    for (int i = 0; i < 2000; i++) {
        link->leader = random_bits(&chance) >> random_below(&chance, 64);
        link->beat = random_bits(&chance) >> random_below(&chance, 64);
        link->bell = (uint32_t)random_bits(&chance);
        acc_leader_look(seg);
        acc_leader_check(seg, ignore_violation, NULL);
        term = acc_leader_claim(seg, 1000);
        acc_leader_beat(seg, random_below(&chance, 2) == 0 ? term : (uint32_t)link->leader);
        acc_leader_resign(seg, (uint32_t)random_bits(&chance));
    }
    /* Whatever it is, the lease passes on: also from ourselves, as of a time to come. */
    link->leader = (uint64_t)UINT32_MAX << 32 | acc_incarnation(seg);
    link->beat = UINT64_MAX;
    uint64_t took = claim_within(seg, WAIT_MS, &term);
    CHECK_EQ(1, term); /* there is no term 0 */
    CHECK(took < 750);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

RUN(60, TEST(first_claim), TEST(only_who_is_registered), TEST(taken_over_from_the_killed),
    TEST(taken_over_from_the_stopped), TEST(resigned), TEST(without_a_first_beat),
    TEST(one_leader_a_term), TEST(garbage))
