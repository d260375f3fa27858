/* Doorbells: the end of a flight reaches every event loop that waits for it, and no other. */
#include "doorbell.h"
#include "loads.h"

#include <poll.h>

struct fixture {
    const char *path;
    struct acc_segment *seg;
    struct acc_area area;
    struct test_key key;
};

static struct fixture *new_fixture(void) {
    struct fixture *f = calloc(1, sizeof *f);
    f->path = new_segment_file(2 * MIB, 64 << 10);
    f->seg = attach(f->path);
    hold_measurement(f->seg);
    f->area = open_area(f->seg, "bells");
    text_key(&f->area, &f->key, "the key");
    return f;
}

static void end_fixture(struct fixture *f) {
    acc_segment_close(f->seg);
    free(f);
}

/* Has it rung within so many milliseconds?  Resets it. */
static bool rung(int fd, int ms) {
    uint64_t n;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, ms) == 1 && read(fd, &n, sizeof n) == sizeof n;
}

static int open_bell(struct fixture *f) {
    int fd = acc_doorbell_open(f->seg);
    CHECK(fd >= 0);
    return fd;
}

/* Until it has not rung for a tick: what was due has come. */
static void let_it_end(int fd) {
    while (rung(fd, 150)) {
    }
}

/* A wait through a bell, up to the end of the flight; how often it rang. */
static uint32_t wait_by_bell(struct fixture *f, int fd) {
    uint32_t rings = 0;
    acc_doorbell_arm(f->seg, fd, 1);
    struct acc_ticket ticket = join(&f->area, &f->key.key);
    acc_flight_ring(f->seg, &ticket);
    while (acc_flight_running(f->seg, &ticket)) {
        CHECK(rung(fd, 5000)); /* armed: at least each tick */
        rings++;
    }
    CHECK_EQ(ACC_RESULT_FAILED, result_of(&f->area, &ticket));
    acc_flight_leave(f->seg, &ticket);
    acc_doorbell_arm(f->seg, fd, -1);
    return rings;
}

static void *lead_and_end(void *argument) {
    struct fixture *f = argument;
    struct acc_ticket leader = lead(&f->area, &f->key.key);
    while (acc_flight_waiting(f->seg, &leader) == 0) {
        sleep_ms(1);
    }
    acc_load_end(&f->area, &leader, ACC_RESULT_FAILED);
    return NULL;
}

/* Ended by another process: the word of ours is raised and the bell rings. */
static void rings_across_processes(void) {
    struct fixture *f = new_fixture();
    int fd = open_bell(f);
    for (int round = 0; round < 5; round++) {
        uint32_t *words = shared_words();
        pid_t pid = fork_child();
        if (pid == 0) {
            struct acc_segment *seg = attach(f->path);
            struct fixture child = *f;
            child.seg = seg;
            child.area = open_area(seg, "bells");
            struct acc_ticket leader = lead(&child.area, &f->key.key);
            reach(words, 1);
            while (acc_load_acquire(&acc_flight_record(seg, leader.record)->ringers) == 0) {
                sleep_ms(1);
            }
            acc_load_end(&child.area, &leader, ACC_RESULT_FAILED);
            _exit(0);
        }
        await(words, 1);
        uint32_t before =
            acc_load_acquire(&acc_process_slot(f->seg, f->seg->self_slot - 1)->doorbell);
        CHECK(wait_by_bell(f, fd) >= 1);
        CHECK_EQ(0, wait_child(pid));
        CHECK(acc_load_acquire(&acc_process_slot(f->seg, f->seg->self_slot - 1)->doorbell) !=
              before);
        munmap(words, 4096);
    }
    acc_doorbell_close(f->seg, fd);
    end_fixture(f);
}

/* The process's doorbell rings all of them; those that wait ring each 50 ms as well. */
static void who_rings_when(void) {
    struct fixture *f = new_fixture();
    int waits = open_bell(f), rests = open_bell(f);
    uint32_t bit = (f->seg->self_slot - 1) % 64;
    CHECK(!rung(rests, 0));
    acc_doorbell_ring(f->seg, bit);
    CHECK(rung(waits, 5000));
    CHECK(rung(rests, 5000));
    acc_doorbell_arm(f->seg, waits, 2);
    let_it_end(rests); /* arming wakes the thread, which rings for all once */
    for (int i = 0; i < 3; i++) {
        CHECK(rung(waits, 5000));
    }
    acc_doorbell_arm(f->seg, waits, -1);
    CHECK(rung(waits, 5000));
    CHECK(!rung(rests, 0));
    acc_doorbell_arm(f->seg, waits, -1);
    let_it_end(waits);
    CHECK(!rung(waits, 100));
    /* Out of the long sleep that it is in by now. */
    acc_doorbell_arm(f->seg, rests, 1);
    CHECK(rung(rests, 5000));
    acc_doorbell_close(f->seg, rests);
    acc_doorbell_close(f->seg, waits);
    end_fixture(f);
}

/* As many as there is room for; closed ones make room; a closed one is nobody's any more. */
static void many_bells(void) {
    struct fixture *f = new_fixture();
    int fds[ACC_BELLS_MAX];
    for (uint32_t i = 0; i < ACC_BELLS_MAX; i++) {
        fds[i] = open_bell(f);
        acc_doorbell_arm(f->seg, fds[i], 1);
    }
    CHECK_EQ(-1, acc_doorbell_open(f->seg));
    for (uint32_t i = 0; i < ACC_BELLS_MAX; i++) {
        CHECK(rung(fds[i], 5000));
    }
    acc_doorbell_close(f->seg, fds[7]);
    acc_doorbell_close(f->seg, fds[7]); /* its number may be another file's by now: not touched */
    acc_doorbell_arm(f->seg, fds[7], 1);
    acc_doorbell_arm(f->seg, -1, 1);
    fds[7] = open_bell(f);
    CHECK(!rung(fds[7], 120)); /* not armed, although one with its number was */
    for (uint32_t i = 0; i < ACC_BELLS_MAX; i++) {
        acc_doorbell_close(f->seg, fds[i]);
    }
    end_fixture(f);
}

/* Stopped with the registration, started again by the next that waits. */
static void stop_and_start(void) {
    struct fixture *f = new_fixture();
    int fd = open_bell(f);
    for (int i = 0; i < 5; i++) {
        acc_doorbell_arm(f->seg, fd, 1);
        CHECK(rung(fd, 5000));
        acc_doorbell_stop(f->seg);
        acc_doorbell_stop(f->seg);
        rung(fd, 0);
        CHECK(!rung(fd, 120));
        acc_doorbell_arm(f->seg, fd, -1);
        if (i % 2 == 0) {
            CHECK_STATUS(ACC_OK, acc_segment_register(f->seg));
        }
    }
    acc_doorbell_close(f->seg, fd);
    end_fixture(f);
}

struct contest {
    struct fixture *f;
    int fd;
    uint32_t over;
};

static void *arm_always(void *argument) {
    struct contest *c = argument;
    while (!acc_load_acquire(&c->over)) {
        acc_doorbell_arm(c->f->seg, c->fd, 1);
        acc_doorbell_arm(c->f->seg, c->fd, -1);
    }
    return NULL;
}

/* One thread stops it while others arm: each stop ends, and joins the thread that it stopped. */
static void stop_beside_arm(void) {
    struct fixture *f = new_fixture();
    struct contest contest = {.f = f, .fd = open_bell(f)};
    pthread_t thread[3];
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(0, pthread_create(&thread[i], NULL, arm_always, &contest));
    }
    for (int i = 0; i < 200; i++) {
        acc_doorbell_stop(f->seg);
    }
    acc_store_release(&contest.over, 1u);
    for (int i = 0; i < 3; i++) {
        pthread_join(thread[i], NULL);
    }
    acc_doorbell_close(f->seg, contest.fd);
    end_fixture(f);
}

static int in_the_child(void *argument) {
    struct fixture *f = argument;
    acc_doorbell_stop(f->seg); /* only the parent has that thread */
    CHECK_EQ(-1, acc_doorbell_open(f->seg));
    CHECK(acc_area_enter(&f->area));
    int fd = open_bell(f);
    pthread_t thread;
    acc_delete(&f->area, &f->key.key); /* not the parent's flight */
    CHECK_EQ(0, pthread_create(&thread, NULL, lead_and_end, f));
    while (live_records(f->seg) < 2) {
        sleep_ms(1);
    }
    CHECK(wait_by_bell(f, fd) >= 1);
    pthread_join(thread, NULL);
    acc_doorbell_close(f->seg, fd);
    return 0;
}

/* A forked child has no bells until it makes its own; its parent's go on. */
static void forked_child(void) {
    struct fixture *f = new_fixture();
    int fd = open_bell(f);
    acc_doorbell_arm(f->seg, fd, 1);
    struct acc_ticket leader = lead(&f->area, &f->key.key);
    CHECK_EQ(0, in_child(in_the_child, f));
    CHECK(rung(fd, 5000));
    acc_load_end(&f->area, &leader, ACC_RESULT_FAILED);
    acc_doorbell_close(f->seg, fd);
    end_fixture(f);
}

RUN(60, TEST(rings_across_processes), TEST(who_rings_when), TEST(many_bells), TEST(stop_and_start),
    TEST(stop_beside_arm), TEST(forked_child))
