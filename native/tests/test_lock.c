/* Lock words: one holder at a time, dead ones replaced, stopped ones waited for and never robbed.
 */
#include "harness.h"

static struct acc_segment *new_unregistered(void) {
    return map_file(new_segment_file(2 * MIB, 64 << 10));
}

/* --- exclusion -------------------------------------------------------------------------------- */

enum { ROUNDS = 20000, HOLDERS = 4 };

struct counting {
    struct acc_segment *seg;
    uint32_t *words; /* 0: the counter; 1: inside; 2: two were inside */
};

/* A plain counter, torn apart by whoever comes in beside. */
static void count_once(struct counting *c) {
    if (acc_add_relaxed(&c->words[1], 1u) != 0) {
        acc_store_relaxed(&c->words[2], 1u);
    }
    acc_store_relaxed(&c->words[0], acc_load_relaxed(&c->words[0]) + 1);
    acc_sub_relaxed(&c->words[1], 1u);
}

static void count_under_lock(struct counting *c) {
    for (int i = 0; i < ROUNDS;) {
        if (!acc_lock_take(c->seg, 0, 1000000000)) {
            continue;
        }
        count_once(c);
        acc_lock_give(c->seg, 0);
        i++;
    }
}

static void processes_exclude_each_other(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct counting c = {.words = shared_words()};
    pid_t pids[HOLDERS];
    for (int i = 0; i < HOLDERS; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            c.seg = attach(path);
            count_under_lock(&c);
            _exit(0);
        }
    }
    for (int i = 0; i < HOLDERS; i++) {
        CHECK_EQ(0, wait_child(pids[i]));
    }
    CHECK_EQ(ROUNDS * HOLDERS, c.words[0]);
    CHECK_EQ(0, c.words[2]);
    munmap(c.words, 4096);
}

static void *count_in_thread(void *argument) {
    count_under_lock(argument);
    return NULL;
}

/* The same, taken in turn by threads that have a mutex for the interpreter's lock. */
static void *count_in_turn(void *argument) {
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    struct counting *c = argument;
    for (int i = 0; i < ROUNDS;) {
        pthread_mutex_lock(&turn);
        if (acc_lock_take_in_turn(c->seg, 0)) {
            count_once(c);
            acc_lock_give_in_turn(c->seg, 0);
            i++;
        }
        pthread_mutex_unlock(&turn);
    }
    return NULL;
}

/* With ticks all the time, which must never take a holder's word for garbage; and, with garbage,
 * which looks exactly like a holder's word and which they take away while threads come and go. */
static void check_threads(bool garbage) {
    struct counting c = {.seg = new_segment(2 * MIB, 64 << 10), .words = shared_words()};
    pthread_t threads[HOLDERS];
    for (int i = 0; i < HOLDERS; i++) {
        void *(*run)(void *) = i % 2 == 0 ? count_in_thread : count_in_turn;
        CHECK_EQ(0, pthread_create(&threads[i], NULL, run, &c));
    }
    while (acc_load_relaxed(&c.words[0]) < ROUNDS * HOLDERS / 2) {
        if (garbage) {
            acc_cas32(acc_lock_word(c.seg, 0), 0, acc_incarnation(c.seg));
        }
        acc_maintenance_tick(c.seg);
    }
    for (int i = 0; i < HOLDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQ(ROUNDS * HOLDERS, c.words[0]);
    CHECK_EQ(0, c.words[2]);
    CHECK_EQ(0, c.seg->intent[0]);
    CHECK_EQ(0, c.seg->intent_in_turn);
    CHECK_EQ(0, *acc_lock_word(c.seg, 0));
    munmap(c.words, 4096);
    acc_segment_close(c.seg);
}

static void threads_exclude_each_other(void) {
    check_threads(false);
    check_threads(true);
}

/* --- holders that die or stop ----------------------------------------------------------------- */

struct holder {
    pid_t pid;
    uint32_t *words; /* 0: reached by the child; 1: by the parent; 2: its incarnation */
};

/* A child that takes a lock, waits to be told, and gives it. */
static struct holder start_holder(const char *path, uint32_t lock) {
    struct holder holder = {.words = shared_words()};
    holder.pid = fork_child();
    if (holder.pid == 0) {
        struct acc_segment *seg = attach(path);
        holder.words[2] = acc_incarnation(seg);
        CHECK(acc_lock_take(seg, lock, 0));
        reach(&holder.words[0], 1);
        await(&holder.words[1], 1);
        acc_lock_give(seg, lock);
        _exit(0);
    }
    await(&holder.words[0], 1);
    return holder;
}

static void dead_holder(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    for (int i = 0; i < 2; i++) {
        uint32_t lock = i == 0 ? 1 : ACC_LOCK_AREAS;
        struct holder holder = start_holder(path, lock);
        CHECK(!acc_lock_take(seg, lock, 0));
        kill_child(holder.pid);
        uint64_t began = acc_clock_ns();
        CHECK(acc_lock_take(seg, lock, 1000000000));
        CHECK(acc_clock_ns() - began < 500000000);
        acc_lock_give(seg, lock);
        CHECK_EQ(0, *acc_lock_word(seg, lock));
        munmap(holder.words, 4096);
    }
    CHECK_EQ(1, acc_shard(seg, 1)->takeovers);
    acc_segment_close(seg);
}

/* A stopped holder keeps his lock for as long as he is stopped.  Waiters give up within their
 * budget; a write that gave up has dropped its key, a fill has not; reads and deletes go on. */
static void stopped_holder(void) {
    const char *path = new_segment_file(2 * MIB, 256 << 10);
    struct acc_segment *seg = attach(path);
    struct acc_area area = open_area(seg, "stopped");
    struct test_key a, b;
    CHECK_EQ(1, seg->geometry.shards);
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &a, "a"), "old", 3));
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &b, "b"), "old", 3));
    struct holder holder = start_holder(path, 0);
    kill(holder.pid, SIGSTOP);
    uint32_t word = *acc_lock_word(seg, 0);
    for (uint64_t ms = 0; ms <= 60; ms += 20) {
        uint64_t began = acc_clock_ns();
        CHECK(!acc_lock_take(seg, 0, ms * 1000000));
        uint64_t took = acc_clock_ns() - began;
        CHECK(took >= ms * 1000000);
        CHECK(took < ms * 1000000 + 400000000);
        CHECK_EQ(word, *acc_lock_word(seg, 0) & ~ACC_LOCK_WAITERS);
    }
    const struct acc_write fill = {.data = (const uint8_t *)"new", .size = 3, .mode = ACC_FILL};
    CHECK(is_there(&area, &a.key));
    CHECK_STATUS(ACC_BUSY, acc_store(&area, &a.key, &fill, 1000000));
    CHECK(is_there(&area, &a.key));
    CHECK_STATUS(ACC_BUSY, set_bytes(&area, &a.key, "new", 3));
    CHECK(!is_there(&area, &a.key));
    CHECK(acc_delete(&area, &b.key));
    CHECK(!is_there(&area, &b.key));
    kill(holder.pid, SIGCONT);
    reach(&holder.words[1], 1);
    CHECK_EQ(0, wait_child(holder.pid));
    CHECK_STATUS(ACC_OK, set_bytes(&area, &a.key, "new", 3));
    CHECK_EQ(0, acc_shard(seg, 0)->takeovers);
    munmap(holder.words, 4096);
    acc_segment_close(seg);
}

/* Whoever waits is woken when the lock is given, not at the end of his slice or budget. */
static void waiter_is_woken(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    struct holder holder = start_holder(path, 0);
    pid_t pid = fork_child();
    if (pid == 0) {
        sleep_ms(50);
        reach(&holder.words[1], 1);
        _exit(0);
    }
    uint64_t began = acc_clock_ns();
    CHECK(acc_lock_take(seg, 0, 10000000000ull));
    CHECK(acc_clock_ns() - began < 2000000000);
    acc_lock_give(seg, 0);
    CHECK_EQ(0, wait_child(pid));
    CHECK_EQ(0, wait_child(holder.pid));
    munmap(holder.words, 4096);
    acc_segment_close(seg);
}

/* --- garbage ---------------------------------------------------------------------------------- */

/* Ids of nobody are those of the dead. */
static void garbage_words(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    const uint32_t garbage[] = {ACC_LOCK_WAITERS, 0x7fffffffu, UINT32_MAX, 12345, 0x40000001u};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        acc_store_relaxed(acc_lock_word(seg, 0), garbage[i]);
        CHECK(acc_lock_take(seg, 0, 100000000));
        acc_lock_give(seg, 0);
        CHECK_EQ(0, *acc_lock_word(seg, 0));
    }
    acc_segment_close(seg);
}

struct hammer {
    struct acc_segment *seg;
    uint32_t stop;
};

static void *hammer_in_turn(void *argument) {
    struct hammer *hammer = argument;
    while (!acc_load_relaxed(&hammer->stop)) {
        if (acc_lock_take_in_turn(hammer->seg, 0)) {
            acc_lock_give_in_turn(hammer->seg, 0);
        }
    }
    return NULL;
}

static void *hammer_lock(void *argument) {
    struct hammer *hammer = argument;
    while (!acc_load_relaxed(&hammer->stop)) {
        if (acc_lock_take(hammer->seg, 0, ACC_LOCK_BUDGET_NS)) {
            acc_lock_give(hammer->seg, 0);
        }
    }
    return NULL;
}

/* A word with our own id that we did not set goes within a few ticks, even while our threads wait
 * for it all the time. */
static void garbage_with_our_id(void) {
    struct hammer hammer = {.seg = new_segment(2 * MIB, 64 << 10)};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        void *(*run)(void *) = i == 0 ? hammer_in_turn : hammer_lock;
        CHECK_EQ(0, pthread_create(&threads[i], NULL, run, &hammer));
    }
    for (int i = 0; i < 3; i++) {
        sleep_ms(20);
        /* Set while nobody holds it, or it would be given by its holder. */
        while (!acc_cas32(acc_lock_word(hammer.seg, 0), 0, acc_incarnation(hammer.seg))) {
        }
        uint64_t began = acc_clock_ns();
        while (!acc_lock_take(hammer.seg, 0, ACC_LOCK_BUDGET_NS)) {
            CHECK(acc_clock_ns() - began < 2000000000);
        }
        acc_lock_give(hammer.seg, 0);
    }
    acc_store_relaxed(&hammer.stop, 1u);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    acc_segment_close(hammer.seg);
}

/* The id of another living process: that one notices. */
static void garbage_with_anothers_id(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    struct holder holder = start_holder(path, 1);
    acc_store_relaxed(acc_lock_word(seg, 0), holder.words[2]);
    CHECK(!acc_lock_take(seg, 0, 1000000));
    CHECK(acc_lock_take(seg, 0, 2000000000));
    acc_lock_give(seg, 0);
    CHECK(!acc_lock_take(seg, 1, 0)); /* what it really holds is left alone */
    kill_child(holder.pid);
    munmap(holder.words, 4096);
    acc_segment_close(seg);
}

/* Without an id nothing is held: 0 in place of 0 would look like success. */
static void without_an_id(void) {
    struct acc_segment *seg = new_unregistered();
    CHECK(!acc_lock_take(seg, 0, 0));
    CHECK(!acc_lock_take(seg, 0, 1000000));
    CHECK(!acc_lock_take_in_turn(seg, 0));
    CHECK_EQ(0, *acc_lock_word(seg, 0));
    CHECK_EQ(0, seg->intent[0]);
    CHECK_EQ(0, seg->intent_in_turn);
    acc_segment_close(seg);
}

/* Who finds it closed by the tick behind his own word takes the word back, whoever waits for it. */
static void closed_in_turn(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    acc_store_release(&seg->intent[0], ACC_INTENT_CLOSED);
    CHECK(!acc_lock_take_in_turn(seg, 0));
    CHECK_EQ(0, *acc_lock_word(seg, 0));
    CHECK_EQ(0, seg->intent_in_turn);
    acc_store_relaxed(acc_lock_word(seg, 0), acc_incarnation(seg) | ACC_LOCK_WAITERS);
    acc_lock_take_back(seg, 0, acc_incarnation(seg));
    CHECK_EQ(0, *acc_lock_word(seg, 0));
    acc_store_relaxed(acc_lock_word(seg, 0), acc_incarnation(seg) + 1);
    acc_lock_take_back(seg, 0, acc_incarnation(seg));
    CHECK_EQ(acc_incarnation(seg) + 1, *acc_lock_word(seg, 0));
    acc_store_relaxed(acc_lock_word(seg, 0), 0u);
    acc_store_release(&seg->intent[0], 0u);
    CHECK(acc_lock_take_in_turn(seg, 0));
    acc_maintenance_tick(seg); /* leaves alone what is held in turn */
    CHECK_EQ(acc_incarnation(seg), *acc_lock_word(seg, 0));
    acc_lock_give_in_turn(seg, 0);
    acc_segment_close(seg);
}

struct writer {
    struct acc_segment *seg;
    bool in_turn;
    uint32_t holds, done;
};

static void *write_slowly(void *argument) {
    struct writer *w = argument;
    struct timespec pause = {.tv_nsec = 20000000};
    CHECK(w->in_turn ? acc_lock_take_in_turn(w->seg, 0) : acc_lock_take(w->seg, 0, 0));
    acc_store_release(&w->holds, 1u);
    nanosleep(&pause, NULL);
    acc_store_release(&w->done, 1u);
    if (w->in_turn) {
        acc_lock_give_in_turn(w->seg, 0);
    } else {
        acc_lock_give(w->seg, 0);
    }
    return NULL;
}

/* Another thread is in the middle of a write: its lock must not look like a dead process's. */
static void check_leaving_waits(bool in_turn) {
    struct acc_segment *seg = attach(new_segment_file(2 * MIB, 64 << 10));
    struct writer writer = {.seg = seg, .in_turn = in_turn};
    pthread_t thread;
    pthread_create(&thread, NULL, write_slowly, &writer);
    while (!acc_load_acquire(&writer.holds)) {
        acc_pause();
    }
    acc_process_leave(seg);
    CHECK_EQ(1, acc_load_acquire(&writer.done));
    CHECK_EQ(0, *acc_lock_word(seg, 0));
    pthread_join(thread, NULL);
    acc_segment_close(seg);
}

static void leaving_waits_for_writers(void) {
    check_leaving_waits(false);
    check_leaving_waits(true);
}

static void *wait_long(void *argument) {
    struct writer *w = argument;
    acc_store_release(&w->holds, 1u);
    w->done = acc_lock_take(w->seg, 0, 500000000);
    return NULL;
}

/* Who waits for a lock while his process leaves does not get it under the old id. */
static void check_leaving_while_waiting(bool killed) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    struct holder holder = start_holder(path, 0);
    struct writer writer = {.seg = seg, .done = 1};
    struct timespec pause = {.tv_nsec = 20000000};
    pthread_t thread;
    pthread_create(&thread, NULL, wait_long, &writer);
    while (!acc_load_acquire(&writer.holds)) {
        acc_pause();
    }
    nanosleep(&pause, NULL);
    acc_process_leave(seg);
    /* The lock is to be had now, for those who live. */
    if (killed) {
        kill_child(holder.pid);
    } else {
        reach(&holder.words[1], 1);
        CHECK_EQ(0, wait_child(holder.pid));
    }
    pthread_join(thread, NULL);
    CHECK_EQ(0, writer.done);
    CHECK_EQ(0, seg->intent[0]);
    munmap(holder.words, 4096);
    acc_segment_close(seg);
}

static void leaving_while_waiting(void) {
    check_leaving_while_waiting(true);
    check_leaving_while_waiting(false);
}

RUN(60, TEST(processes_exclude_each_other), TEST(threads_exclude_each_other), TEST(dead_holder),
    TEST(stopped_holder), TEST(waiter_is_woken), TEST(garbage_words), TEST(garbage_with_our_id),
    TEST(garbage_with_anothers_id), TEST(without_an_id), TEST(closed_in_turn),
    TEST(leaving_waits_for_writers), TEST(leaving_while_waiting))
