/* Processes that are killed and stopped all the time, over one small segment.
 *
 *   test_storm [SECONDS] [WORKERS] [SEED]
 *
 * Every value proves of which key it is and that it is whole.  Half of the keys are only filled and
 * deleted, as a cache before a database is: whoever deletes first raises the key's version in the
 * "database", and when his delete has returned, the key's floor.  A value below the floor that was
 * read before the read began is a lost delete. A failure of any kind, a ring that had to be
 * dropped, or a write that took longer than a second fails the run. */
#include "harness.h"

#include <time.h>

enum {
    WORKERS_MAX = 32,
    SET_KEYS = 300,
    FILL_KEYS = 100,
    VALUE_MAX = 30000,
    SLOW_MS = 1000,
};

/* One cache line or more per worker, so that they do not slow each other. */
struct slot {
    uint64_t ops, hits, stored, busy, wrong, lost_deletes, refused, races;
    uint64_t slowest_write_ns, slowest_read_ns;
    uint64_t stalls; /* raised by the parent before it stops this worker */
    uint64_t pad[5];
};

struct shared {
    struct slot slot[WORKERS_MAX];
    uint64_t source[FILL_KEYS]; /* the database */
    uint64_t floor[FILL_KEYS];  /* versions below have been deleted for sure */
    uint64_t version;
};

static struct shared *shared;

/* --- a worker --------------------------------------------------------------------------------- */

struct worker {
    struct acc_area area;
    struct slot *slot;
    struct chance chance;
    uint8_t value[VALUE_MAX];
    uint8_t buffer[VALUE_MAX];
};

static void note_time(struct worker *w, uint64_t *slowest, uint64_t began, uint64_t stalls) {
    uint64_t took = acc_clock_ns() - began;
    /* What was stopped or stalled meanwhile was slow by our own doing. */
    if (acc_load_relaxed(&w->slot->stalls) == stalls && took > acc_load_relaxed(slowest)) {
        acc_store_relaxed(slowest, took);
    }
}

static uint32_t random_size(struct worker *w) {
    uint32_t most = random_below(&w->chance, 50) == 0 ? VALUE_MAX : 2000;
    return 16 + random_below(&w->chance, most - 16);
}

static void count_status(struct worker *w, enum acc_status status) {
    if (status == ACC_OK) {
        acc_add_relaxed(&w->slot->stored, 1u);
    } else if (status == ACC_BUSY) {
        acc_add_relaxed(&w->slot->busy, 1u);
    } else if (status != ACC_NOT_STORED && status != ACC_NOT_FOUND) {
        printf("storm: a write was answered: %s\n", acc_status_text(status));
        acc_add_relaxed(&w->slot->wrong, 1u);
    }
}

static void look_at(struct worker *w, uint64_t number, uint64_t floor) {
    struct test_key key;
    number_key(&w->area, &key, number);
    uint64_t stalls = acc_load_relaxed(&w->slot->stalls), began = acc_clock_ns();
    struct got got = read_once(&w->area, &key.key, w->buffer, VALUE_MAX, true);
    note_time(w, &w->slot->slowest_read_ns, began, stalls);
    uint64_t version;
    if (got.status == ACC_RACE) {
        acc_add_relaxed(&w->slot->races, 1u);
    } else if (got.status == ACC_TOO_LARGE) {
        acc_add_relaxed(&w->slot->wrong, 1u);
    } else if (got.status == ACC_OK) {
        acc_add_relaxed(&w->slot->hits, 1u);
        if (!proves_itself(w->buffer, got.size, number, &version) ||
            acc_value_sum(w->buffer, got.size) != got.record.value_sum) {
            printf("storm: wrong or torn value of key %llu\n", (unsigned long long)number);
            acc_add_relaxed(&w->slot->wrong, 1u);
        } else if (version < floor) {
            printf("storm: version %llu of key %llu after the delete of %llu\n",
                   (unsigned long long)version, (unsigned long long)number,
                   (unsigned long long)floor);
            acc_add_relaxed(&w->slot->lost_deletes, 1u);
        }
    }
}

static void set_key(struct worker *w, uint64_t number) {
    struct test_key key;
    number_key(&w->area, &key, number);
    struct acc_write write = {.data = w->value, .size = random_size(w), .code = ACC_CODE_BYTES};
    fill_value(w->value, write.size, number, acc_add_relaxed(&shared->version, 1u));
    write.mode = random_below(&w->chance, 8) == 0 ? ACC_ADD : ACC_SET;
    if (random_below(&w->chance, 4) == 0) {
        write.expire_at = acc_now(w->area.seg) + random_below(&w->chance, 100);
        write.stale_until = write.expire_at + random_below(&w->chance, 100);
    }
    uint64_t stalls = acc_load_relaxed(&w->slot->stalls), began = acc_clock_ns();
    count_status(w, store_in_turn(&w->area, &key.key, &write));
    note_time(w, &w->slot->slowest_write_ns, began, stalls);
}

static void load_and_fill(struct worker *w, uint32_t k) {
    struct test_key key;
    number_key(&w->area, &key, SET_KEYS + k);
    struct acc_write write = {
        .data = w->value, .size = random_size(w), .code = ACC_CODE_BYTES, .mode = ACC_FILL};
    write.has_token = true;
    acc_token(&w->area, &key.key, &write.token_key, &write.token_area);
    uint64_t version = acc_load_acquire(&shared->source[k]);
    if (random_below(&w->chance, 10) == 0) {
        sched_yield(); /* a slow database */
    }
    fill_value(w->value, write.size, SET_KEYS + k, version);
    write.expire_at = acc_now(w->area.seg) + random_below(&w->chance, 50);
    write.stale_until = write.expire_at + random_below(&w->chance, 500);
    uint64_t stalls = acc_load_relaxed(&w->slot->stalls), began = acc_clock_ns();
    count_status(w, store_in_turn(&w->area, &key.key, &write));
    note_time(w, &w->slot->slowest_write_ns, began, stalls);
}

static void raise_floor(uint32_t k, uint64_t version) {
    uint64_t seen = acc_load_relaxed(&shared->floor[k]);
    while (seen < version && !acc_cas64(&shared->floor[k], seen, version)) {
        seen = acc_load_relaxed(&shared->floor[k]);
    }
}

static void change_and_delete(struct worker *w, uint32_t k) {
    struct test_key key;
    number_key(&w->area, &key, SET_KEYS + k);
    uint64_t version = acc_add_release(&shared->source[k], 1u) + 1;
    uint64_t stalls = acc_load_relaxed(&w->slot->stalls), began = acc_clock_ns();
    acc_delete(&w->area, &key.key);
    note_time(w, &w->slot->slowest_write_ns, began, stalls);
    raise_floor(k, version);
}

static void change_and_clear(struct worker *w) {
    uint64_t versions[FILL_KEYS];
    for (uint32_t k = 0; k < FILL_KEYS; k++) {
        versions[k] = acc_add_release(&shared->source[k], 1u) + 1;
    }
    acc_area_clear(&w->area);
    for (uint32_t k = 0; k < FILL_KEYS; k++) {
        raise_floor(k, versions[k]);
    }
}

/* What stores again what is there must not bring back what was deleted. */
static void touch_or_expire(struct worker *w, uint32_t k) {
    struct test_key key;
    number_key(&w->area, &key, SET_KEYS + k);
    uint32_t end = acc_now(w->area.seg) + random_below(&w->chance, 200);
    uint64_t stalls = acc_load_relaxed(&w->slot->stalls), began = acc_clock_ns();
    if (random_below(&w->chance, 2) == 0) {
        count_status(w, acc_touch(&w->area, &key.key, end, end + 100, ACC_LOCK_BUDGET_NS));
    } else {
        count_status(w, acc_expire(&w->area, &key.key, ACC_LOCK_BUDGET_NS));
    }
    note_time(w, &w->slot->slowest_write_ns, began, stalls);
}

static void count_up(struct worker *w) {
    struct test_key key;
    text_key(&w->area, &key, "counter");
    int64_t out, initial = 0;
    count_status(w, acc_incr(&w->area, &key.key, 1, &initial, 0, 0, ACC_LOCK_BUDGET_NS, &out));
}

static void work_once(struct worker *w) {
    uint32_t what = random_below(&w->chance, 1000);
    uint32_t set_key_number = random_below(&w->chance, SET_KEYS);
    uint32_t k = random_below(&w->chance, FILL_KEYS);
    if (random_below(&w->chance, 2) == 0) {
        k %= 5; /* some are fought over */
        set_key_number %= 10;
    }
    if (what < 250) {
        set_key(w, set_key_number);
    } else if (what < 450) {
        load_and_fill(w, k);
    } else if (what < 550) {
        change_and_delete(w, k);
    } else if (what < 600) {
        touch_or_expire(w, k);
    } else if (what < 640) {
        count_up(w);
    } else if (what < 641) {
        change_and_clear(w);
    } else if (what < 820) {
        look_at(w, set_key_number, 0);
    } else {
        look_at(w, SET_KEYS + k, acc_load_acquire(&shared->floor[k]));
    }
    acc_add_relaxed(&w->slot->ops, 1u);
}

static void *work(void *argument) {
    for (;;) {
        work_once(argument);
    }
    return NULL;
}

static struct worker *new_worker(struct acc_area area, uint32_t number, uint64_t seed) {
    struct worker *w = calloc(1, sizeof *w);
    w->area = area;
    w->slot = &shared->slot[number];
    w->chance.state = seed;
    return w;
}

/* Never returns.  Every other worker has two threads. */
static void run_worker(const char *path, uint32_t number, uint64_t seed) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct acc_segment *seg;
    struct acc_area area;
    enum acc_status status = acc_segment_map(fd, size_of_file(fd), false, &seg);
    if (status == ACC_OK) {
        status = acc_segment_register(seg);
    }
    if (status == ACC_OK) {
        status = acc_area_open(seg, "storm", 5, &area);
    }
    if (status != ACC_OK || !acc_area_enter(&area)) {
        printf("storm: a worker could not enter: %s\n", acc_status_text(status));
        acc_add_relaxed(&shared->slot[number].refused, 1u);
        _exit(1);
    }
    if (number % 2 == 1) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, new_worker(area, number, seed + 1));
    }
    work(new_worker(area, number, seed));
}

/* --- the parent ------------------------------------------------------------------------------- */

struct storm {
    const char *path;
    uint32_t workers;
    struct chance chance;
    pid_t pid[WORKERS_MAX];
    uint64_t kills, stalls;
    uint64_t stalled_until[WORKERS_MAX]; /* ns; 0: runs */
};

static void spawn(struct storm *storm, uint32_t number) {
    uint64_t seed = random_bits(&storm->chance);
    storm->stalled_until[number] = 0;
    storm->pid[number] = fork_child();
    if (storm->pid[number] == 0) {
        run_worker(storm->path, number, seed);
    }
}

/* False: it had ended by itself, which none may. */
static bool kill_one(struct storm *storm, uint32_t number) {
    kill(storm->pid[number], SIGKILL);
    int status = wait_child(storm->pid[number]);
    storm->kills++;
    if (status != 128 + SIGKILL) {
        printf("storm: worker %u ended by itself with %d\n", number, status);
        acc_add_relaxed(&shared->slot[number].refused, 1u);
    }
    return status == 128 + SIGKILL;
}

static void let_stalled_go_on(struct storm *storm, bool all) {
    uint64_t now = acc_clock_ns();
    for (uint32_t i = 0; i < storm->workers; i++) {
        if (storm->stalled_until[i] != 0 && (all || now >= storm->stalled_until[i])) {
            storm->stalled_until[i] = 0;
            acc_add_relaxed(&shared->slot[i].stalls, 1u);
            kill(storm->pid[i], SIGCONT);
        }
    }
}

static void stall_one(struct storm *storm, uint32_t number) {
    if (storm->stalled_until[number] == 0) {
        uint64_t pause = (uint64_t)(1 + random_below(&storm->chance, 300)) * 1000000u;
        storm->stalled_until[number] = acc_clock_ns() + pause;
        acc_add_relaxed(&shared->slot[number].stalls, 1u);
        kill(storm->pid[number], SIGSTOP);
        storm->stalls++;
    }
}

static void rage(struct storm *storm, uint32_t seconds) {
    uint64_t end = acc_clock_ns() + seconds * 1000000000ull;
    for (uint32_t i = 0; i < storm->workers; i++) {
        spawn(storm, i);
    }
    uint32_t by_itself = 0; /* something is wrong, and goes on being wrong: enough has been said */
    while (acc_clock_ns() < end && by_itself < 20) {
        uint32_t number = random_below(&storm->chance, storm->workers);
        if (random_below(&storm->chance, 8) == 0) {
            stall_one(storm, number);
        } else {
            by_itself += !kill_one(storm, number);
            spawn(storm, number);
        }
        let_stalled_go_on(storm, false);
        struct timespec pause = {.tv_nsec = (long)random_below(&storm->chance, 4000000)};
        nanosleep(&pause, NULL);
    }
    let_stalled_go_on(storm, true);
    for (uint32_t i = 0; i < storm->workers; i++) {
        kill_one(storm, i);
    }
}

static struct slot sum_of_slots(const struct storm *storm) {
    struct slot sum = {0};
    for (uint32_t i = 0; i < storm->workers; i++) {
        const struct slot *s = &shared->slot[i];
        sum.ops += s->ops;
        sum.hits += s->hits;
        sum.stored += s->stored;
        sum.busy += s->busy;
        sum.wrong += s->wrong;
        sum.lost_deletes += s->lost_deletes;
        sum.refused += s->refused;
        sum.races += s->races;
        if (s->slowest_write_ns > sum.slowest_write_ns) {
            sum.slowest_write_ns = s->slowest_write_ns;
        }
        if (s->slowest_read_ns > sum.slowest_read_ns) {
            sum.slowest_read_ns = s->slowest_read_ns;
        }
    }
    return sum;
}

/* What is left must be whole, and every lock to be had. */
static void inspect(const char *path, uint64_t *takeovers, uint64_t *corrupt) {
    struct acc_segment *seg = attach(path);
    struct acc_area area = open_area(seg, "storm");
    uint64_t counters[ACC_COUNTERS];
    CHECK_SEGMENT(seg);
    *takeovers = 0;
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        *takeovers += acc_shard(seg, shard)->takeovers;
        CHECK_EQ(0, acc_shard(seg, shard)->resets);
    }
    acc_stats_sum(seg, area.id, counters);
    *corrupt = counters[ACC_CORRUPT_ITEM];
    for (uint64_t number = 0; number < 2000; number++) {
        struct test_key key;
        number_key(&area, &key, number);
        CHECK_STATUS(ACC_OK, set_bytes(&area, &key.key, &number, sizeof number));
    }
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static uint32_t seconds = 20, workers = 6;
static uint64_t seed = 1;

static void storm(void) {
    struct storm storm = {.workers = workers, .chance = {seed}};
    uint64_t takeovers, corrupt;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    storm.path = new_segment_file(2 * MIB, 64 << 10);
    rage(&storm, seconds);
    struct slot sum = sum_of_slots(&storm);
    inspect(storm.path, &takeovers, &corrupt);
    printf("storm: %u s, %llu kills, %llu stalls, %llu take-overs; %llu ops, %llu hits, "
           "%llu stored, %llu gave up, %llu lost races; %llu wrong, %llu lost deletes, "
           "%llu corrupt, %llu refused; slowest write %llu ms, read %llu ms\n",
           seconds, (unsigned long long)storm.kills, (unsigned long long)storm.stalls,
           (unsigned long long)takeovers, (unsigned long long)sum.ops, (unsigned long long)sum.hits,
           (unsigned long long)sum.stored, (unsigned long long)sum.busy,
           (unsigned long long)sum.races, (unsigned long long)sum.wrong,
           (unsigned long long)sum.lost_deletes, (unsigned long long)corrupt,
           (unsigned long long)sum.refused, (unsigned long long)(sum.slowest_write_ns / 1000000),
           (unsigned long long)(sum.slowest_read_ns / 1000000));
    CHECK_EQ(0, sum.wrong);
    CHECK_EQ(0, sum.lost_deletes);
    CHECK_EQ(0, sum.refused);
    CHECK_EQ(0, corrupt);
    CHECK(sum.hits > 0 && sum.stored > 0);
    CHECK(sum.slowest_write_ns < SLOW_MS * 1000000ull);
    munmap(shared, sizeof *shared);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {TEST(storm)};
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
