/* Processes that load a few keys all at once, and are killed and stopped while they do.
 *
 *   test_stampede [SECONDS] [WORKERS] [SEED]
 *
 * A database before the cache: whoever changes a key (one thread of one worker, so that the order
 * of its changes is known) raises its version, then sets or deletes it in the cache, and when that
 * has returned, raises the key's floor.  Everybody else loads: leads, waits (asleep or by a bell),
 * finishes, hands over, declines, fails, or never comes back.
 *
 * No two lead a key at one generation at the same time.  Whoever is given a value, be it read or
 * handed over, gets none below the floor that he saw before he entered.  No flight is waited for
 * longer than a second.  Nothing is left of it when all are gone. */
#include "doorbell.h"
#include "loads.h"

#include <poll.h>
#include <time.h>

enum {
    WORKERS_MAX = 32,
    THREADS = 3,
    KEYS = 8,
    CHANGED_KEYS = 4, /* the others' flights end only by their leaders, or are taken over */
    NOISE_KEYS = 200,
    VALUE_MAX = 2000,
    SHORT_LEASE = 50, /* clock units: 200 ms */
    TURNS = 2,
    SLOW_MS = 1000,
};

struct slot {
    uint64_t led, joined, taken_over, stored, lost, handed, taken, alone, refused_turns, busy, full;
    uint64_t wrong, lost_deletes, two_leaders, refused;
    uint64_t slowest_wait_ns;
    uint64_t stalls; /* raised by the parent before it stops this worker */
    uint64_t pad[7];
};

struct shared {
    struct slot slot[WORKERS_MAX];
    uint64_t source[KEYS];
    uint64_t floor[KEYS];
    uint64_t leader[KEYS]; /* see leader_word() */
};

static struct shared *shared;

/* --- a thread of a worker --------------------------------------------------------------------- */

struct worker {
    struct acc_area area;
    struct slot *slot;
    struct chance chance;
    uint32_t number, thread;
    int bell;
    uint8_t value[VALUE_MAX], buffer[VALUE_MAX];
};

static void count_up(uint64_t *counter) {
    acc_add_relaxed(counter, (uint64_t)1);
}

static void check_value(struct worker *w, uint32_t k, uint64_t floor, const uint8_t *value,
                        uint32_t size, const char *how) {
    uint64_t version;
    if (!proves_itself(value, size, k, &version)) {
        printf("stampede: wrong or torn value of key %u, %s\n", k, how);
        count_up(&w->slot->wrong);
    } else if (version < floor) {
        printf("stampede: version %llu of key %u, %s, after the change to %llu\n",
               (unsigned long long)version, k, how, (unsigned long long)floor);
        count_up(&w->slot->lost_deletes);
    }
}

static void look_at(struct worker *w, uint32_t k, const struct acc_key *key, uint64_t floor) {
    struct got got = read_once(&w->area, key, w->buffer, VALUE_MAX, true);
    if (got.status == ACC_OK) {
        check_value(w, k, floor, w->buffer, got.size, "read");
    }
}

/* --- leading ---------------------------------------------------------------------------------- */

/* Who leads a key: record 12 | token 28 | generations 14 and 10. */
static uint64_t leader_word(const struct acc_ticket *ticket) {
    return (uint64_t)ticket->record << 52 | (uint64_t)ticket->token << 24 |
           (uint64_t)(ticket->key_count & 0x3fff) << 10 | (ticket->area_count & 0x3ff);
}

/* Is the flight of this word still led, not overtaken, and of this generation? */
static bool still_leads(struct acc_segment *seg, uint64_t word, uint64_t mine) {
    const struct acc_flight *flight = acc_flight_record(seg, (uint32_t)(word >> 52));
    uint32_t token = (uint32_t)(word >> 24) & 0xfffffff;
    return ((word ^ mine) & 0xffffff) == 0 &&
           acc_load_acquire(&flight->control) ==
               (token << ACC_FLIGHT_TOKEN_SHIFT | ACC_FLIGHT_LOADING);
}

/* With the lock, so that none begins meanwhile: how many could be joined? */
static uint32_t joinable(struct worker *w, const struct acc_key *key) {
    struct acc_segment *seg = w->area.seg;
    uint64_t group =
        acc_load_acquire(acc_generation_word(seg, acc_generation_index(seg, key->hash)));
    uint32_t n = 0, area_count = (uint32_t)acc_load_acquire(w->area.generation);
    for (uint32_t i = 0; i < acc_flight_records(seg); i++) {
        const struct acc_flight *flight = acc_flight_record(seg, i);
        uint32_t control = acc_load_acquire(&flight->control);
        n += (control & (ACC_FLIGHT_STATE | ACC_FLIGHT_OVERTAKEN)) == ACC_FLIGHT_LOADING &&
             acc_load_relaxed(&flight->hash) == key->hash &&
             acc_generation_valid(group, acc_load_relaxed(&flight->key_count), key->hash) &&
             acc_load_relaxed(&flight->area_count) == area_count;
    }
    return n;
}

static void check_leadership(struct worker *w, uint32_t k, const struct acc_key *key,
                             const struct acc_ticket *ticket) {
    struct acc_segment *seg = w->area.seg;
    uint64_t mine = leader_word(ticket), before = acc_load_acquire(&shared->leader[k]);
    while (!acc_cas64(&shared->leader[k], before, mine)) {
        before = acc_load_acquire(&shared->leader[k]);
    }
    bool two = before != 0 && before != mine && still_leads(seg, before, mine) &&
               still_leads(seg, mine, mine);
    uint32_t shard = acc_home_of(seg, key->hash).shard;
    if (!two && random_below(&w->chance, 8) == 0 && acc_lock_take(seg, shard, ACC_LOCK_BUDGET_NS)) {
        two = joinable(w, key) > 1;
        acc_lock_give(seg, shard);
    }
    if (two) {
        printf("stampede: two lead key %u\n", k);
        count_up(&w->slot->two_leaders);
    }
}

static void load(struct worker *w, uint32_t k, const struct acc_key *key,
                 struct acc_ticket *ticket) {
    struct acc_segment *seg = w->area.seg;
    uint64_t version = acc_load_acquire(&shared->source[k]), mine = leader_word(ticket);
    uint32_t what = random_below(&w->chance, 100);
    if (random_below(&w->chance, 3) == 0) {
        struct timespec pause = {.tv_nsec = (long)random_below(&w->chance, 3000000)};
        nanosleep(&pause, NULL);
    }
    struct acc_write write = {
        .data = w->value,
        .size = 16 + random_below(&w->chance, VALUE_MAX - 16),
        .code = ACC_CODE_BYTES,
        .expire_at = acc_now(seg) + 1 + random_below(&w->chance, 10),
    };
    fill_value(w->value, write.size, k, version);
    if (what < 2) {
        return; /* never comes back, and lives */
    }
    if (!ticket->alone) {
        acc_cas64(&shared->leader[k], mine, 0);
    }
    if (what < 70) {
        enum acc_status status = acc_load_finish(&w->area, key, ticket, &write, ACC_LOCK_BUDGET_NS);
        count_up(status == ACC_OK           ? &w->slot->stored
                 : status == ACC_NOT_STORED ? &w->slot->lost
                 : status == ACC_BUSY       ? &w->slot->busy
                                            : &w->slot->wrong);
    } else if (what < 85) {
        acc_load_hand(&w->area, key, ticket, &write, ACC_LOCK_BUDGET_NS);
        count_up(&w->slot->handed);
    } else {
        acc_load_end(&w->area, ticket, what < 92 ? ACC_RESULT_DECLINED : ACC_RESULT_FAILED);
    }
}

/* --- waiting ---------------------------------------------------------------------------------- */

static void wait_a_slice(struct worker *w, const struct acc_ticket *ticket, bool by_bell) {
    uint64_t n;
    if (!by_bell) {
        acc_flight_wait(w->area.seg, ticket, 50000000);
        return;
    }
    struct pollfd wait = {.fd = w->bell, .events = POLLIN};
    if (poll(&wait, 1, SLOW_MS) == 1 && read(w->bell, &n, sizeof n) < 0 && errno != EAGAIN) {
        count_up(&w->slot->wrong);
    }
}

static void wait_for_end(struct worker *w, uint32_t k, const struct acc_key *key,
                         struct acc_ticket *ticket, uint64_t floor) {
    struct acc_segment *seg = w->area.seg;
    bool by_bell = w->bell >= 0 && random_below(&w->chance, 2) == 0;
    uint64_t stalls = acc_load_relaxed(&w->slot->stalls), began = acc_clock_ns();
    if (by_bell) {
        acc_doorbell_arm(seg, w->bell, 1);
        acc_flight_ring(seg, ticket);
    }
    bool running, gone = false;
    while ((running = acc_flight_running(seg, ticket)) && !gone) {
        wait_a_slice(w, ticket, by_bell);
        gone = acc_flight_leaderless(seg, ticket);
    }
    if (by_bell) {
        acc_doorbell_arm(seg, w->bell, -1);
    }
    uint64_t took = acc_clock_ns() - began;
    if (acc_load_relaxed(&w->slot->stalls) == stalls &&
        took > acc_load_relaxed(&w->slot->slowest_wait_ns)) {
        acc_store_relaxed(&w->slot->slowest_wait_ns, took);
    }
    uint8_t *value, code;
    uint32_t size;
    enum acc_flight_result result = result_of(&w->area, ticket);
    if (result == ACC_RESULT_STORED) {
        look_at(w, k, key, floor);
    } else if (result == ACC_RESULT_HANDED &&
               acc_load_take(&w->area, key, ticket, &value, &size, &code) == ACC_OK) {
        check_value(w, k, floor, value, size, "handed over");
        count_up(&w->slot->taken);
        free(value);
    }
    acc_flight_leave(seg, ticket);
}

static void get(struct worker *w, uint32_t k) {
    struct test_key key;
    struct acc_ticket ticket;
    number_key(&w->area, &key, k);
    uint64_t floor = acc_load_acquire(&shared->floor[k]);
    bool refresh = random_below(&w->chance, 8) == 0;
    enum acc_status status =
        acc_load_enter(&w->area, &key.key, refresh ? ACC_LOAD_LEAD : ACC_LOAD_JOIN,
                       refresh ? ACC_WINDOW_ALL : 0, SHORT_LEASE, ACC_LOCK_BUDGET_NS, &ticket);
    if (status == ACC_PRESENT) {
        look_at(w, k, &key.key, floor);
    } else if (status == ACC_BUSY) {
        count_up(&w->slot->busy);
    } else if (status == ACC_FULL) {
        count_up(&w->slot->full);
    } else if (status == ACC_OK && ticket.leading) {
        count_up(ticket.taken_over ? &w->slot->taken_over : &w->slot->led);
        check_leadership(w, k, &key.key, &ticket);
        load(w, k, &key.key, &ticket);
    } else if (status == ACC_OK) {
        count_up(&w->slot->joined);
        wait_for_end(w, k, &key.key, &ticket, floor);
    } else if (status != ACC_LED) {
        count_up(&w->slot->wrong);
    }
}

static void get_alone(struct worker *w, uint32_t k) {
    struct test_key key;
    struct acc_ticket ticket;
    number_key(&w->area, &key, k);
    enum acc_status status =
        acc_load_alone(&w->area, &key.key, TURNS, SHORT_LEASE, ACC_LOCK_BUDGET_NS, &ticket);
    if (status == ACC_OK) {
        count_up(&w->slot->alone);
        load(w, k, &key.key, &ticket);
    } else {
        count_up(&w->slot->refused_turns);
    }
}

/* --- changes ---------------------------------------------------------------------------------- */

/* By one thread of one worker alone: an older set after a newer delete would be the application's
 * own race.  False: none is this thread's. */
static bool key_to_change(struct worker *w, uint32_t workers, uint32_t *k) {
    *k = random_below(&w->chance, CHANGED_KEYS);
    return w->thread == 0 && *k % workers == w->number;
}

static void change(struct worker *w, uint32_t k) {
    struct test_key key;
    number_key(&w->area, &key, k);
    uint64_t version = acc_add_release(&shared->source[k], (uint64_t)1) + 1;
    uint32_t how = random_below(&w->chance, 4);
    if (how < 2) {
        fill_value(w->value, 600, k, version);
        const struct acc_write write = {.data = w->value,
                                        .size = 600,
                                        .code = ACC_CODE_BYTES,
                                        .expire_at = acc_now(w->area.seg) + 5};
        acc_store(&w->area, &key.key, &write, ACC_LOCK_BUDGET_NS);
    } else if (how == 2) {
        acc_expire(&w->area, &key.key, ACC_LOCK_BUDGET_NS);
    } else {
        acc_delete(&w->area, &key.key);
    }
    acc_store_release(&shared->floor[k], version);
}

/* Other keys, so that rings go on and what was handed over is written over. */
static void make_noise(struct worker *w) {
    struct test_key key;
    number_key(&w->area, &key, 1000 + random_below(&w->chance, NOISE_KEYS));
    set_bytes(&w->area, &key.key, w->value, 16 + random_below(&w->chance, VALUE_MAX - 16));
}

static uint32_t seconds = 5, workers = 5;
static uint64_t seed = 1;

static void *work(void *argument) {
    struct worker *w = argument;
    for (;;) {
        uint32_t what = random_below(&w->chance, 1000), k = random_below(&w->chance, KEYS), mine;
        if (what < 400 && key_to_change(w, workers, &mine)) {
            change(w, mine);
        } else if (what == 0) {
            acc_area_clear(&w->area);
        } else if (what < 60) {
            get_alone(w, k);
        } else if (what < 160) {
            make_noise(w);
        } else {
            get(w, k);
        }
    }
    return NULL;
}

static struct worker *new_worker(struct acc_area area, uint32_t number, uint32_t thread,
                                 uint64_t chance) {
    struct worker *w = calloc(1, sizeof *w);
    w->area = area;
    w->slot = &shared->slot[number];
    w->number = number;
    w->thread = thread;
    w->chance.state = chance + thread;
    w->bell = thread == 0 ? -1 : acc_doorbell_open(area.seg);
    return w;
}

/* Never returns. */
static void run_worker(const char *path, uint32_t number, uint64_t chance) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct acc_segment *seg;
    struct acc_area area;
    enum acc_status status = acc_segment_map(fd, size_of_file(fd), false, &seg);
    if (status == ACC_OK) {
        status = acc_segment_register(seg);
    }
    if (status == ACC_OK) {
        status = acc_area_open(seg, "stampede", 8, &area);
    }
    if (status != ACC_OK || !acc_area_enter(&area)) {
        printf("stampede: a worker could not enter: %s\n", acc_status_text(status));
        count_up(&shared->slot[number].refused);
        _exit(1);
    }
    for (uint32_t thread = 1; thread < THREADS; thread++) {
        pthread_t id;
        pthread_create(&id, NULL, work, new_worker(area, number, thread, chance));
    }
    work(new_worker(area, number, 0, chance));
}

/* --- the parent ------------------------------------------------------------------------------- */

struct storm {
    const char *path;
    struct chance chance;
    pid_t pid[WORKERS_MAX];
    uint64_t kills, stalls;
};

static void spawn(struct storm *storm, uint32_t number) {
    uint64_t chance = random_bits(&storm->chance);
    storm->pid[number] = fork_child();
    if (storm->pid[number] == 0) {
        run_worker(storm->path, number, chance);
    }
}

static void kill_one(struct storm *storm, uint32_t number) {
    kill(storm->pid[number], SIGKILL);
    storm->kills++;
    if (wait_child(storm->pid[number]) != 128 + SIGKILL) {
        printf("stampede: worker %u ended by itself\n", number);
        count_up(&shared->slot[number].refused);
    }
}

/* Longer than a lease, so that its flights are taken over while it lives. */
static void stall_one(struct storm *storm, uint32_t number) {
    count_up(&shared->slot[number].stalls);
    kill(storm->pid[number], SIGSTOP);
    sleep_ms(random_below(&storm->chance, 300));
    count_up(&shared->slot[number].stalls);
    kill(storm->pid[number], SIGCONT);
    storm->stalls++;
}

static void rage(struct storm *storm) {
    uint64_t end = acc_clock_ns() + seconds * 1000000000ull;
    for (uint32_t i = 0; i < workers; i++) {
        spawn(storm, i);
    }
    while (acc_clock_ns() < end) {
        uint32_t number = random_below(&storm->chance, workers);
        if (random_below(&storm->chance, 10) == 0) {
            stall_one(storm, number);
        } else {
            kill_one(storm, number);
            spawn(storm, number);
        }
        sleep_ms(random_below(&storm->chance, 25));
    }
    for (uint32_t i = 0; i < workers; i++) {
        kill_one(storm, i);
    }
}

static struct slot sum_of_slots(void) {
    struct slot sum = {0};
    for (uint32_t i = 0; i < workers; i++) {
        const uint64_t *from = (const uint64_t *)&shared->slot[i];
        uint64_t *to = (uint64_t *)&sum, slowest = sum.slowest_wait_ns;
        for (size_t n = 0; n < sizeof sum / sizeof *to; n++) {
            to[n] += from[n];
        }
        sum.slowest_wait_ns =
            slowest > shared->slot[i].slowest_wait_ns ? slowest : shared->slot[i].slowest_wait_ns;
    }
    return sum;
}

/* All are dead: every record, bit and turn is free again, or will be with the next store. */
static void inspect(const char *path) {
    struct acc_segment *seg = attach(path);
    struct acc_area area = open_area(seg, "stampede");
    CHECK_SEGMENT(seg);
    sweep(seg);
    CHECK_EQ(0, live_records(seg));
    for (uint32_t k = 0; k < KEYS; k++) {
        struct test_key key;
        acc_delete(&area, number_key(&area, &key, k));
        struct acc_ticket ticket = lead(&area, &key.key);
        CHECK_STATUS(ACC_OK, finish_bytes(&area, &key.key, &ticket, "value", 5));
        CHECK(has_value(&area, &key.key, "value", 5));
    }
    for (uint64_t number = 0; number < 2000; number++) {
        struct test_key key;
        CHECK_STATUS(ACC_OK, set_bytes(&area, number_key(&area, &key, number), "value", 5));
    }
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        CHECK_EQ(0, acc_shard(seg, shard)->flights);
    }
    for (int i = 0; i < TURNS; i++) {
        struct test_key key;
        struct acc_ticket ticket;
        CHECK_STATUS(ACC_OK, acc_load_alone(&area, number_key(&area, &key, 0), TURNS, LEASE,
                                            ACC_LOCK_BUDGET_NS, &ticket));
    }
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static void stampede(void) {
    struct storm storm = {.chance = {seed}};
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    storm.path = new_segment_file(2 * MIB, 64 << 10);
    rage(&storm);
    struct slot sum = sum_of_slots();
    printf("stampede: %u s, %llu kills, %llu stalls; %llu led, %llu taken over, %llu joined, %llu "
           "alone (%llu refused), %llu busy, %llu full; %llu stored, %llu lost, %llu handed (%llu "
           "taken); %llu wrong, %llu lost deletes, %llu with two leaders, %llu refused; slowest "
           "wait %llu ms\n",
           seconds, (unsigned long long)storm.kills, (unsigned long long)storm.stalls,
           (unsigned long long)sum.led, (unsigned long long)sum.taken_over,
           (unsigned long long)sum.joined, (unsigned long long)sum.alone,
           (unsigned long long)sum.refused_turns, (unsigned long long)sum.busy,
           (unsigned long long)sum.full, (unsigned long long)sum.stored,
           (unsigned long long)sum.lost, (unsigned long long)sum.handed,
           (unsigned long long)sum.taken, (unsigned long long)sum.wrong,
           (unsigned long long)sum.lost_deletes, (unsigned long long)sum.two_leaders,
           (unsigned long long)sum.refused, (unsigned long long)(sum.slowest_wait_ns / 1000000));
    inspect(storm.path);
    CHECK_EQ(0, sum.wrong);
    CHECK_EQ(0, sum.lost_deletes);
    CHECK_EQ(0, sum.two_leaders);
    CHECK_EQ(0, sum.refused);
    CHECK(sum.led > 0 && sum.joined > 0 && sum.stored > 0 && sum.taken > 0);
    CHECK(sum.slowest_wait_ns < SLOW_MS * 1000000ull);
    munmap(shared, sizeof *shared);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {TEST(stampede)};
    if (argc > 1) {
        seconds = (uint32_t)strtoul(argv[1], NULL, 10);
    }
    if (argc > 2) {
        workers = (uint32_t)strtoul(argv[2], NULL, 10);
    }
    if (argc > 3) {
        seed = strtoull(argv[3], NULL, 10);
    }
    if (seconds == 0 || workers < 2 || workers > WORKERS_MAX) {
        printf("usage: %s [SECONDS] [WORKERS 2 to %d] [SEED]\n", argv[0], WORKERS_MAX);
        return 2;
    }
    return run_tests(tests, 1, seconds + 60, 1, argv);
}
