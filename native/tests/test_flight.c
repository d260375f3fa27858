/* The records of flights: who leads, who may join, who takes over, who is woken; and turns. */
#include "loads.h"

struct fixture {
    const char *path;
    struct acc_segment *seg;
    struct acc_area area;
    struct test_key key;
};

static struct fixture new_fixture(void) {
    struct fixture f = {.path = new_segment_file(2 * MIB, 64 << 10)};
    f.seg = attach(f.path);
    hold_measurement(f.seg);
    f.area = open_area(f.seg, "flights");
    text_key(&f.area, &f.key, "the key");
    f.key.key.data = NULL; /* see key_of(): the structure is moved */
    return f;
}

static const struct acc_key *key_of(struct fixture *f) {
    f->key.key.data = f->key.bytes;
    return &f->key.key;
}

static struct acc_flight *record_of(const struct fixture *f, const struct acc_ticket *ticket) {
    CHECK(ticket->record < acc_flight_records(f->seg));
    return acc_flight_record(f->seg, ticket->record);
}

static void let_pass(struct acc_segment *seg, uint32_t units) {
    seg->clock_shift += (int32_t)units;
}

/* Another process that leads the key until it is killed. */
struct leader {
    pid_t pid;
    uint32_t *words;
};

static struct leader start_leader_that(struct fixture *f, bool ends_slowly) {
    struct leader leader = {.words = shared_words()};
    leader.pid = fork_child();
    if (leader.pid == 0) {
        CHECK(!ends_slowly || make_end_slow());
        struct acc_segment *seg = attach(f->path);
        struct acc_area area = open_area(seg, "flights");
        lead(&area, key_of(f));
        reach(leader.words, 1);
        for (;;) {
            pause();
        }
    }
    await(leader.words, 1);
    return leader;
}

static struct leader start_leader(struct fixture *f) {
    return start_leader_that(f, false);
}

static void kill_leader(struct leader *leader) {
    kill_child(leader->pid);
    munmap(leader->words, 4096);
}

/* --- who leads, who joins --------------------------------------------------------------------- */

static void one_leads_others_join(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket leader = lead(&f.area, key), none;
    struct acc_ticket first = join(&f.area, key), second = join(&f.area, key);
    CHECK_EQ(leader.record, first.record);
    CHECK_EQ(leader.token, first.token);
    CHECK_EQ(leader.token, second.token);
    CHECK_EQ(2, acc_flight_waiting(f.seg, &leader));
    CHECK_STATUS(ACC_LED,
                 acc_load_enter(&f.area, key, ACC_LOAD_LEAD, 0, LEASE, ACC_LOCK_BUDGET_NS, &none));
    CHECK(!none.leading && none.record == ACC_NO_RECORD);
    CHECK(acc_flight_running(f.seg, &first));
    CHECK(!acc_flight_leaderless(f.seg, &first));
    CHECK_EQ(ACC_RESULT_UNKNOWN, result_of(&f.area, &first));
    CHECK_STATUS(ACC_OK, finish_bytes(&f.area, key, &leader, "value", 5));
    CHECK(!leader.leading);
    CHECK(!acc_flight_running(f.seg, &first));
    CHECK_EQ(ACC_RESULT_STORED, result_of(&f.area, &first));
    CHECK(has_value(&f.area, key, "value", 5));
    CHECK_STATUS(ACC_PRESENT, enter_load(&f.area, key, &none));
    CHECK_EQ(0, live_records(f.seg));
    acc_segment_close(f.seg);
}

/* Each leaves once: who calls it twice takes nobody else out of the crowd. */
static void leaving_twice(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket leader = lead(&f.area, key);
    struct acc_ticket first = join(&f.area, key), second = join(&f.area, key);
    acc_flight_leave(f.seg, &first);
    acc_flight_leave(f.seg, &first);
    CHECK_EQ(1, acc_flight_waiting(f.seg, &leader));
    acc_flight_leave(f.seg, &second);
    CHECK_EQ(0, acc_flight_waiting(f.seg, &leader));
    acc_flight_leave(f.seg, &leader); /* waits for nothing */
    acc_load_end(&f.area, &leader, ACC_RESULT_FAILED);
    acc_flight_leave(f.seg, &second);
    struct acc_ticket next = lead(&f.area, key);
    acc_flight_leave(f.seg, &first); /* of a flight that is over */
    CHECK_EQ(0, acc_flight_waiting(f.seg, &next));
    acc_load_end(&f.area, &next, ACC_RESULT_FAILED);
    acc_segment_close(f.seg);
}

/* A ticket without a record is too late for everything, and harms nothing. */
static void no_record(void) {
    struct fixture f = new_fixture();
    struct acc_ticket ticket = {.record = ACC_NO_RECORD};
    uint8_t *value, code;
    uint32_t size;
    CHECK_EQ(ACC_RESULT_UNKNOWN, result_of(&f.area, &ticket));
    CHECK_STATUS(ACC_NOT_FOUND, acc_load_take(&f.area, key_of(&f), &ticket, &value, &size, &code));
    CHECK_EQ(0, acc_flight_waiting(f.seg, &ticket));
    CHECK(!acc_flight_running(f.seg, &ticket));
    CHECK(acc_flight_leaderless(f.seg, &ticket));
    acc_flight_wait(f.seg, &ticket, 3600 * 1000000000ull);
    acc_flight_ring(f.seg, &ticket);
    acc_flight_leave(f.seg, &ticket);
    acc_load_end(&f.area, &ticket, ACC_RESULT_FAILED);
    acc_segment_close(f.seg);
}

/* --- waking ----------------------------------------------------------------------------------- */

enum { WAITERS = 6, WAIT_S = 20 };

struct waiter {
    struct acc_area *area;
    const struct acc_key *key;
    uint32_t *woken; /* shared */
};

static void *wait_for_end(void *argument) {
    struct waiter *w = argument;
    struct acc_ticket ticket = join(w->area, w->key);
    while (acc_flight_running(w->area->seg, &ticket)) {
        acc_flight_wait(w->area->seg, &ticket, WAIT_S * 1000000000ull);
    }
    CHECK_EQ(ACC_RESULT_STORED, result_of(w->area, &ticket));
    CHECK(has_value(w->area, w->key, "value", 5));
    acc_add_release(w->woken, 1u);
    return NULL;
}

/* Threads and other processes, all at once, long before their waits would end by themselves. */
static void all_are_woken(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    uint32_t *words = shared_words();
    pthread_t thread[WAITERS];
    pid_t pid[WAITERS];
    struct acc_ticket leader = lead(&f.area, key);
    for (int i = 0; i < WAITERS; i++) {
        pid[i] = fork_child();
        if (pid[i] == 0) {
            struct acc_segment *seg = attach(f.path);
            struct acc_area area = open_area(seg, "flights");
            struct waiter waiter = {&area, key, words};
            wait_for_end(&waiter);
            _exit(0);
        }
    }
    struct waiter waiter = {&f.area, key, words};
    for (int i = 0; i < WAITERS; i++) {
        CHECK_EQ(0, pthread_create(&thread[i], NULL, wait_for_end, &waiter));
    }
    while (acc_flight_waiting(f.seg, &leader) < 2 * WAITERS) {
        sleep_ms(1);
    }
    uint64_t began = acc_clock_ns();
    CHECK_STATUS(ACC_OK, finish_bytes(&f.area, key, &leader, "value", 5));
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(thread[i], NULL);
        CHECK_EQ(0, wait_child(pid[i]));
    }
    CHECK(acc_clock_ns() - began < WAIT_S * 1000000000ull / 2);
    CHECK_EQ(2 * WAITERS, *words);
    munmap(words, 4096);
    acc_segment_close(f.seg);
}

struct relay {
    struct fixture *f;
    uint32_t rounds, loads;
};

/* Join and wait without a bound below the watchdog's: a wake-up that is lost hangs the test. */
static void *pass_on(void *argument) {
    struct relay *r = argument;
    while (acc_load_acquire(&r->loads) < r->rounds) {
        struct acc_ticket ticket;
        CHECK_STATUS(ACC_OK, enter_load(&r->f->area, &r->f->key.key, &ticket));
        if (ticket.leading) {
            acc_add_release(&r->loads, 1u);
            sched_yield();
            acc_load_end(&r->f->area, &ticket, ACC_RESULT_FAILED);
        } else {
            while (acc_flight_running(r->f->seg, &ticket)) {
                acc_flight_wait(r->f->seg, &ticket, 3600 * 1000000000ull);
            }
            acc_flight_leave(r->f->seg, &ticket);
        }
    }
    return NULL;
}

/* Joining beside an end, over and over: nobody is left asleep. */
static void no_wakeup_is_lost(void) {
    struct fixture f = new_fixture();
    key_of(&f);
    struct relay relay = {.f = &f, .rounds = UNDER_TSAN ? 2000 : 20000};
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(0, pthread_create(&thread[i], NULL, pass_on, &relay));
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
    }
    CHECK_EQ(0, live_records(f.seg));
    acc_segment_close(f.seg);
}

/* A waiter that was killed is counted until the flight ends, and harms nobody. */
static void waiter_killed(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket leader = lead(&f.area, key);
    pid_t pid = fork_child();
    if (pid == 0) {
        struct acc_segment *seg = attach(f.path);
        struct acc_area area = open_area(seg, "flights");
        struct acc_ticket ticket = join(&area, key);
        acc_flight_wait(seg, &ticket, 3600 * 1000000000ull);
        _exit(1);
    }
    while (acc_flight_waiting(f.seg, &leader) == 0) {
        sleep_ms(1);
    }
    kill_child(pid);
    CHECK_EQ(1, acc_flight_waiting(f.seg, &leader));
    CHECK_STATUS(ACC_OK, finish_bytes(&f.area, key, &leader, "value", 5));
    acc_delete(&f.area, key);
    leader = lead(&f.area, key);
    CHECK_EQ(0, acc_flight_waiting(f.seg, &leader));
    acc_load_end(&f.area, &leader, ACC_RESULT_FAILED);
    acc_segment_close(f.seg);
}

/* --- taking over ------------------------------------------------------------------------------ */

/* What a former leader does later has no effect, neither on the key nor on the flight. */
static void lapsed_lease(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket former = lead(&f.area, key), waiting = join(&f.area, key), next;
    let_pass(f.seg, LEASE - 1);
    CHECK(!acc_flight_leaderless(f.seg, &waiting));
    let_pass(f.seg, 2);
    CHECK(acc_flight_leaderless(f.seg, &waiting));
    CHECK_STATUS(ACC_OK, enter_load(&f.area, key, &next));
    CHECK(next.leading && next.taken_over);
    CHECK(!acc_flight_running(f.seg, &waiting));
    CHECK_EQ(ACC_RESULT_UNKNOWN, result_of(&f.area, &waiting));
    CHECK_EQ(ACC_LEASE_LOST, acc_flight_lease(f.seg, &former));
    struct acc_ticket joined = join(&f.area, key);
    CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&f.area, key, &former, "late", 4));
    CHECK(!is_there(&f.area, key));
    CHECK(acc_flight_running(f.seg, &joined));
    CHECK_STATUS(ACC_OK, finish_bytes(&f.area, key, &next, "value", 5));
    CHECK_EQ(ACC_RESULT_STORED, result_of(&f.area, &joined));
    acc_segment_close(f.seg);
}

/* A former leader that stores its result between the end of his successor and the looks of those
 * who waited: they know nothing, which is not the same as something wrong. */
static void late_result(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket former = lead(&f.area, key), next;
    let_pass(f.seg, LEASE + 1);
    CHECK_STATUS(ACC_OK, enter_load(&f.area, key, &next));
    struct acc_ticket joined = join(&f.area, key);
    hand_bytes(&f.area, key, &next, "value", 5);
    CHECK_EQ(ACC_RESULT_HANDED, result_of(&f.area, &joined));
    record_of(&f, &former)->result = former.token << ACC_FLIGHT_TOKEN_SHIFT | ACC_RESULT_STORED;
    CHECK_EQ(ACC_RESULT_UNKNOWN, result_of(&f.area, &joined));
    CHECK(!takes(&f.area, key, &joined, "value", 5));
    acc_segment_close(f.seg);
}

static void leader_killed(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct leader leader = start_leader(&f);
    struct acc_ticket waiting = join(&f.area, key), next;
    CHECK(!acc_flight_leaderless(f.seg, &waiting));
    kill_leader(&leader);
    CHECK(acc_flight_leaderless(f.seg, &waiting));
    let_pass(f.seg, 10); /* no longer too young to be asked after */
    CHECK_STATUS(ACC_OK, enter_load(&f.area, key, &next));
    CHECK(next.leading && next.taken_over);
    CHECK_EQ(waiting.record, next.record);
    CHECK_STATUS(ACC_OK, finish_bytes(&f.area, key, &next, "value", 5));
    acc_segment_close(f.seg);
}

/* Who waits does not wait for the kernel to take a killed leader's memory apart. */
static void leader_killed_slowly(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    bool in_time = false;
    for (int tries = 0; tries < 5 && !in_time; tries++) { /* this process is to look meanwhile */
        struct leader leader = start_leader_that(&f, true);
        struct acc_ticket waiting = join(&f.area, key), next;
        CHECK(!acc_flight_leaderless(f.seg, &waiting));
        let_pass(f.seg, 10); /* no longer too young to be asked after */
        kill(leader.pid, SIGKILL);
        while (!acc_flight_leaderless(f.seg, &waiting)) {
            sleep_ms(1);
        }
        CHECK_STATUS(ACC_OK, enter_load(&f.area, key, &next));
        CHECK(next.leading && next.taken_over);
        in_time = !has_ended(leader.pid);
        acc_load_end(&f.area, &next, ACC_RESULT_FAILED);
        kill_leader(&leader);
    }
    CHECK(in_time);
    acc_segment_close(f.seg);
}

/* What nobody asks for again is ended by the measurement, and who sleeps on it wakes. */
static void swept(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct leader leader = start_leader(&f);
    struct test_key other;
    struct acc_ticket mine = lead(&f.area, text_key(&f.area, &other, "mine"));
    struct acc_ticket waiting = join(&f.area, key);
    sweep(f.seg);
    CHECK_EQ(2, live_records(f.seg));
    kill_leader(&leader);
    sweep(f.seg);
    CHECK_EQ(1, live_records(f.seg));
    CHECK(!acc_flight_running(f.seg, &waiting));
    CHECK_EQ(ACC_RESULT_UNKNOWN, result_of(&f.area, &waiting));
    CHECK_EQ(ACC_LEASE_HELD, acc_flight_lease(f.seg, &mine));
    acc_load_end(&f.area, &mine, ACC_RESULT_FAILED);
    acc_segment_close(f.seg);
}

struct inherited {
    struct fixture *f;
    struct acc_ticket leading, joined;
};

static int use_tickets(void *argument) {
    struct inherited *i = argument;
    struct acc_segment *seg = i->f->seg;
    for (int registered = 0; registered < 2; registered++) {
        CHECK_EQ(ACC_LEASE_LOST, acc_flight_lease(seg, &i->leading));
        CHECK(acc_flight_running(seg, &i->joined));
        struct acc_ticket leading = i->leading, joined = i->joined;
        CHECK_STATUS(ACC_NOT_STORED,
                     finish_bytes(&i->f->area, &i->f->key.key, &leading, "child", 5));
        acc_flight_leave(seg, &joined);
        CHECK(acc_area_enter(&i->f->area));
    }
    return 0;
}

/* A forked child that ends or leaves what its parent leads or waits for does nothing, nor does the
 * parent under its next id. */
static void another_incarnation(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct inherited inherited = {.f = &f, .leading = lead(&f.area, key)};
    inherited.joined = join(&f.area, key);
    CHECK_EQ(0, in_child(use_tickets, &inherited));
    CHECK_EQ(ACC_LEASE_HELD, acc_flight_lease(f.seg, &inherited.leading));
    CHECK_EQ(1, acc_flight_waiting(f.seg, &inherited.leading));
    CHECK(!is_there(&f.area, key));

    acc_segment_unregister(f.seg);
    CHECK(acc_area_enter(&f.area));
    CHECK_EQ(ACC_LEASE_LOST, acc_flight_lease(f.seg, &inherited.leading));
    CHECK(acc_flight_leaderless(f.seg, &inherited.joined));
    let_pass(f.seg, 10);
    struct acc_ticket next;
    CHECK_STATUS(ACC_OK, enter_load(&f.area, key, &next));
    CHECK(next.leading && next.taken_over);
    acc_load_end(&f.area, &inherited.leading, ACC_RESULT_FAILED);
    CHECK_EQ(ACC_LEASE_HELD, acc_flight_lease(f.seg, &next));
    acc_load_end(&f.area, &next, ACC_RESULT_FAILED);
    acc_segment_close(f.seg);
}

static int load_privately(void *argument) {
    struct fixture *f = argument;
    struct acc_ticket ticket;
    CHECK(acc_area_enter(&f->area));
    CHECK_EQ(0, live_records(f->seg));
    CHECK_STATUS(ACC_OK, enter_load(&f->area, key_of(f), &ticket));
    CHECK(ticket.leading && !ticket.taken_over);
    CHECK_STATUS(ACC_OK, finish_bytes(&f->area, key_of(f), &ticket, "child", 5));
    return 0;
}

/* Memory of one process: the same, and a child's copy, in which nothing runs, goes its own way. */
static void private_memory(void) {
    struct fixture f = {0};
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 64 << 10, &f.seg));
    f.area = open_area(f.seg, "flights");
    text_key(&f.area, &f.key, "the key");
    struct acc_ticket leader = lead(&f.area, key_of(&f)), joined = join(&f.area, key_of(&f));
    CHECK_EQ(0, in_child(load_privately, &f));
    CHECK_EQ(ACC_LEASE_HELD, acc_flight_lease(f.seg, &leader));
    CHECK_STATUS(ACC_OK, finish_bytes(&f.area, key_of(&f), &leader, "value", 5));
    CHECK_EQ(ACC_RESULT_STORED, result_of(&f.area, &joined));
    CHECK(has_value(&f.area, key_of(&f), "value", 5));
    acc_segment_close(f.seg);
}

/* --- the table -------------------------------------------------------------------------------- */

/* Enter keys, numbered from `from`, until a group is full; how many were entered. */
static uint32_t fill_a_group(struct acc_area *area, struct acc_ticket *tickets, uint32_t most,
                             struct test_key *refused) {
    for (uint32_t n = 0; n < most; n++) {
        number_key(area, refused, n);
        enum acc_status status = enter_load(area, &refused->key, &tickets[n]);
        if (status == ACC_FULL) {
            CHECK_EQ(ACC_NO_RECORD, tickets[n].record);
            return n;
        }
        CHECK_STATUS(ACC_OK, status);
    }
    FAIL("no group is full");
    return 0;
}

static void full_group(void) {
    struct fixture f = new_fixture();
    static struct acc_ticket tickets[1000];
    struct test_key refused;
    uint32_t n = fill_a_group(&f.area, tickets, 1000, &refused);
    CHECK(n >= ACC_FLIGHT_GROUP);
    CHECK_EQ(n, live_records(f.seg));
    struct acc_ticket alone = {.record = 0}, next;
    /* Alone without a record: it runs, and is not stored. */
    CHECK_STATUS(ACC_OK,
                 acc_load_alone(&f.area, &refused.key, 0, LEASE, ACC_LOCK_BUDGET_NS, &alone));
    CHECK(alone.leading && alone.record == ACC_NO_RECORD);
    CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&f.area, &refused.key, &alone, "value", 5));
    CHECK(!is_there(&f.area, &refused.key));
    let_pass(f.seg, LEASE + 1);
    CHECK_STATUS(ACC_OK, enter_load(&f.area, &refused.key, &next)); /* in a slow leader's record */
    CHECK(!next.taken_over);
    acc_load_end(&f.area, &next, ACC_RESULT_FAILED);
    for (uint32_t i = 0; i < n; i++) {
        acc_load_end(&f.area, &tickets[i], ACC_RESULT_FAILED);
    }
    CHECK_EQ(0, live_records(f.seg));
    next = lead(&f.area, &refused.key);
    acc_load_end(&f.area, &next, ACC_RESULT_FAILED);
    acc_segment_close(f.seg);
}

/* Records of the dead are room. */
static void full_of_the_dead(void) {
    struct fixture f = new_fixture();
    uint32_t *words = shared_words();
    struct test_key refused;
    pid_t pid = fork_child();
    if (pid == 0) {
        static struct acc_ticket tickets[1000];
        struct acc_segment *seg = attach(f.path);
        struct acc_area area = open_area(seg, "flights");
        reach(words, fill_a_group(&area, tickets, 1000, &refused));
        for (;;) {
            pause();
        }
    }
    await(words, 1);
    number_key(&f.area, &refused, *words);
    struct acc_ticket ticket;
    CHECK_STATUS(ACC_FULL, enter_load(&f.area, &refused.key, &ticket));
    kill_child(pid);
    CHECK_STATUS(ACC_OK, enter_load(&f.area, &refused.key, &ticket));
    CHECK_STATUS(ACC_OK, finish_bytes(&f.area, &refused.key, &ticket, "value", 5));
    sweep(f.seg);
    CHECK_EQ(0, live_records(f.seg));
    munmap(words, 4096);
    acc_segment_close(f.seg);
}

/* The bit that makes a store look for flights: set while one runs, taken back by the next store
 * that finds none. */
static void overtaking_bit(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    uint32_t shard = acc_home_of(f.seg, key->hash).shard;
    const uint64_t *bits = &acc_shard(f.seg, shard)->flights;
    CHECK_EQ(0, *bits);
    struct acc_ticket ticket = lead(&f.area, key);
    CHECK_EQ(1, __builtin_popcountll(*bits));
    CHECK_STATUS(ACC_OK, set_bytes(&f.area, key, "set", 3));
    CHECK_EQ(1, __builtin_popcountll(*bits)); /* overtaken, but it runs */
    acc_load_end(&f.area, &ticket, ACC_RESULT_FAILED);
    CHECK_EQ(1, __builtin_popcountll(*bits));
    CHECK_STATUS(ACC_OK, set_bytes(&f.area, key, "set", 3));
    CHECK_EQ(0, *bits);
    acc_segment_close(f.seg);
}

/* One record after the other, the one just used last: who still asks how his flight ended can. */
static void result_stays_for_a_while(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket first = lead(&f.area, key), joined = join(&f.area, key);
    acc_load_end(&f.area, &first, ACC_RESULT_DECLINED);
    for (uint32_t i = 1; i < ACC_FLIGHT_GROUP; i++) {
        let_pass(f.seg, 1);
        struct acc_ticket ticket = lead(&f.area, key);
        acc_load_end(&f.area, &ticket, ACC_RESULT_FAILED);
        CHECK_EQ(ACC_RESULT_DECLINED, result_of(&f.area, &joined));
    }
    let_pass(f.seg, 1);
    struct acc_ticket ticket = lead(&f.area, key);
    CHECK_EQ(ACC_RESULT_UNKNOWN, result_of(&f.area, &joined));
    acc_load_end(&f.area, &ticket, ACC_RESULT_FAILED);
    acc_segment_close(f.seg);
}

static void token_goes_round(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    for (uint32_t i = 0; i < acc_flight_records(f.seg); i++) {
        acc_flight_record(f.seg, i)->control = UINT32_MAX << ACC_FLIGHT_TOKEN_SHIFT;
    }
    struct acc_ticket leader = lead(&f.area, key), joined = join(&f.area, key);
    CHECK_EQ(0, leader.token);
    CHECK_EQ(1, acc_flight_waiting(f.seg, &leader));
    CHECK(acc_flight_running(f.seg, &joined));
    CHECK_STATUS(ACC_OK, finish_bytes(&f.area, key, &leader, "value", 5));
    CHECK_EQ(ACC_RESULT_STORED, result_of(&f.area, &joined));
    acc_flight_leave(f.seg, &joined);
    CHECK_EQ(0, acc_flight_waiting(f.seg, &leader));
    acc_segment_close(f.seg);
}

/* One shard and the most there can be: each key has a record of its own shard. */
static void shard_counts(void) {
    const uint32_t max_value_size[] = {512 << 10, 64 << 10, 1024};
    const uint64_t size[] = {2 * MIB, 2 * MIB, 16 * MIB};
    for (size_t i = 0; i < 3; i++) {
        struct acc_segment *seg = new_segment(size[i], max_value_size[i]);
        struct acc_area area = open_area(seg, "flights");
        uint32_t per_shard = seg->geometry.flight_groups * ACC_FLIGHT_GROUP;
        CHECK(seg->geometry.flight_groups >= 1 && seg->geometry.flight_groups <= 64);
        CHECK_EQ(seg->geometry.shards * per_shard, acc_flight_records(seg));
        CHECK(i != 2 || seg->geometry.shards == ACC_SHARDS_MAX);
        for (uint64_t number = 0; number < 2000; number++) {
            struct test_key key;
            number_key(&area, &key, number);
            struct acc_ticket ticket = lead(&area, &key.key);
            CHECK_EQ(acc_home_of(seg, key.key.hash).shard, ticket.record / per_shard);
            CHECK_STATUS(ACC_OK, finish_bytes(&area, &key.key, &ticket, &number, sizeof number));
            CHECK(has_value(&area, &key.key, &number, sizeof number));
        }
        CHECK_EQ(0, live_records(seg));
        CHECK_SEGMENT(seg);
        acc_segment_close(seg);
    }
}

static void looking(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket ticket = lead(&f.area, key);
    join(&f.area, key);
    struct acc_flight_info info;
    CHECK(acc_flight_look(f.seg, ticket.record, &info));
    CHECK(info.hash == key->hash);
    CHECK_EQ(f.area.id, info.area);
    CHECK_EQ(acc_incarnation(f.seg), info.owner);
    CHECK_EQ(1, info.waiting);
    CHECK_EQ(ticket.token, info.token);
    CHECK_EQ(LEASE, info.deadline - info.started);
    CHECK(!info.alone && !info.overtaken);
    CHECK_STATUS(ACC_OK, set_bytes(&f.area, key, "set", 3));
    CHECK(acc_flight_look(f.seg, ticket.record, &info) && info.overtaken);
    acc_load_end(&f.area, &ticket, ACC_RESULT_FAILED);
    CHECK(!acc_flight_look(f.seg, ticket.record, &info));
    acc_segment_close(f.seg);
}

/* --- garbage ---------------------------------------------------------------------------------- */

/* A record that claims to be the key's flight, of a living process, without an end: nobody has such
 * a lease, so it is nobody's. */
static void lease_without_end(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket ticket = lead(&f.area, key), next;
    record_of(&f, &ticket)->deadline = 0;
    CHECK_STATUS(ACC_OK, enter_load(&f.area, key, &next));
    CHECK(next.leading && next.taken_over);
    record_of(&f, &next)->deadline = 0;
    CHECK(acc_flight_leaderless(f.seg, &next));
    acc_segment_close(f.seg);
}

/* States that do not exist are free records. */
static void unknown_states(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_ticket ticket = lead(&f.area, key);
    for (uint32_t state = ACC_FLIGHT_LOCKED + 1; state <= ACC_FLIGHT_STATE; state++) {
        record_of(&f, &ticket)->control = ticket.token << ACC_FLIGHT_TOKEN_SHIFT | state;
        CHECK(!acc_flight_running(f.seg, &ticket));
        CHECK_EQ(ACC_LEASE_LOST, acc_flight_lease(f.seg, &ticket));
        CHECK_EQ(0, live_records(f.seg));
        struct acc_ticket next = lead(&f.area, key);
        acc_load_end(&f.area, &next, ACC_RESULT_FAILED);
    }
    acc_segment_close(f.seg);
}

/* --- turns ------------------------------------------------------------------------------------ */

static enum acc_status turn(struct acc_area *area, const struct acc_key *key, uint32_t most,
                            struct acc_ticket *ticket) {
    return acc_load_alone(area, key, most, LEASE, ACC_LOCK_BUDGET_NS, ticket);
}

static struct leader start_alone(struct fixture *f, uint32_t most) {
    struct leader child = {.words = shared_words()};
    child.pid = fork_child();
    if (child.pid == 0) {
        struct acc_segment *seg = attach(f->path);
        struct acc_area area = open_area(seg, "flights");
        struct acc_ticket ticket;
        CHECK_STATUS(ACC_OK, turn(&area, key_of(f), most, &ticket));
        reach(child.words, 1);
        for (;;) {
            pause();
        }
    }
    await(child.words, 1);
    return child;
}

/* Counted exactly, over processes and per area; free again when given back, when the process was
 * killed, and when the lease has passed. */
static void turns(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    struct acc_area other = open_area(f.seg, "other");
    struct test_key others;
    const struct acc_key *other_key = text_key(&other, &others, "the key");
    struct leader child[2] = {start_alone(&f, 4), start_alone(&f, 4)};
    struct acc_ticket first, second, third;
    CHECK_STATUS(ACC_OK, turn(&f.area, key, 4, &first));
    CHECK_STATUS(ACC_OK, turn(&f.area, key, 4, &second));
    CHECK_STATUS(ACC_FULL, turn(&f.area, key, 4, &third));
    CHECK(!third.leading);
    CHECK_STATUS(ACC_OK, turn(&other, other_key, 1, &third)); /* other areas have their own */
    CHECK_STATUS(ACC_OK, finish_bytes(&other, other_key, &third, "x", 1)); /* gives it back */
    CHECK_STATUS(ACC_OK, turn(&other, other_key, 1, &third));
    acc_load_end(&other, &third, ACC_RESULT_FAILED);
    acc_load_end(&f.area, &first, ACC_RESULT_FAILED);
    acc_load_end(&f.area, &first, ACC_RESULT_FAILED);
    CHECK_STATUS(ACC_OK, turn(&f.area, key, 4, &first));
    CHECK_STATUS(ACC_FULL, turn(&f.area, key, 4, &third));
    kill_leader(&child[0]);
    CHECK_STATUS(ACC_OK, turn(&f.area, key, 4, &third));
    struct acc_ticket none;
    CHECK_STATUS(ACC_FULL, turn(&f.area, key, 4, &none));
    let_pass(f.seg, LEASE + 1);
    struct acc_ticket late[4];
    for (int i = 0; i < 4; i++) {
        CHECK_STATUS(ACC_OK, turn(&f.area, key, 4, &late[i]));
    }
    /* The turns of those whose lease had passed are others' by now. */
    acc_load_end(&f.area, &first, ACC_RESULT_FAILED);
    acc_load_end(&f.area, &second, ACC_RESULT_FAILED);
    acc_load_end(&f.area, &third, ACC_RESULT_FAILED);
    CHECK_STATUS(ACC_FULL, turn(&f.area, key, 4, &none));
    kill_leader(&child[1]);
    CHECK_STATUS(ACC_FULL, turn(&f.area, key, 4, &none));
    for (int i = 0; i < 4; i++) {
        acc_load_end(&f.area, &late[i], ACC_RESULT_FAILED);
    }
    CHECK_STATUS(ACC_OK, turn(&f.area, key, 1, &none));
    acc_segment_close(f.seg);
}

/* More than the table has: the table is the limit. */
static void all_turns(void) {
    struct fixture f = new_fixture();
    const struct acc_key *key = key_of(&f);
    uint32_t n = f.seg->geometry.turns;
    struct acc_ticket *tickets = calloc(n + 1, sizeof *tickets);
    for (uint32_t i = 0; i < n; i++) {
        CHECK_STATUS(ACC_OK, turn(&f.area, key, UINT32_MAX, &tickets[i]));
    }
    CHECK_STATUS(ACC_FULL, turn(&f.area, key, UINT32_MAX, &tickets[n]));
    for (uint32_t i = 0; i < n; i++) {
        acc_load_end(&f.area, &tickets[i], ACC_RESULT_FAILED);
    }
    CHECK_STATUS(ACC_OK, turn(&f.area, key, 1, &tickets[n]));
    free(tickets);
    acc_segment_close(f.seg);
}

RUN(60, TEST(one_leads_others_join), TEST(leaving_twice), TEST(no_record), TEST(all_are_woken),
    TEST(no_wakeup_is_lost), TEST(waiter_killed), TEST(lapsed_lease), TEST(late_result),
    TEST(leader_killed), TEST(leader_killed_slowly), TEST(swept), TEST(another_incarnation),
    TEST(private_memory), TEST(full_group), TEST(full_of_the_dead), TEST(overtaking_bit),
    TEST(result_stays_for_a_while), TEST(token_goes_round), TEST(shard_counts), TEST(looking),
    TEST(lease_without_end), TEST(unknown_states), TEST(turns), TEST(all_turns))
