/* What every test program is built from: checks with file and line, segments in files that are
 * removed again, children that die with their parent, and a watchdog that ends what hangs.
 *
 * A failed check ends its test: by a jump in the first thread, by _exit in a child.  Another
 * thread's failure is noted and the thread goes on; the test fails when it returns. */
#ifndef ACC_TEST_HARNESS_H
#define ACC_TEST_HARNESS_H

#include "maintenance.h"
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1ull << 20)
#define NOT_OFTEN __attribute__((unused)) static

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

#if UNDER_TSAN

/* The bytes of rings may be read while they are written: what was read is thrown away when a word
 * has changed.  The thread sanitizer knows no such reads; everything else (words, marks, counters,
 * positions) it watches. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:acc_ring_append\n"
           "race:acc_ring_rewrite\n"
           "race:acc_view_retire\n"
           "race:acc_view_load\n"
           "race:acc_view_load_twice\n"
           "race:acc_tags_put\n"
           "race:acc_tags_get\n"
           "race:key_equals\n"
           "race:state_of_word\n"
           "race:read_entry\n" /* of the outbox */
           "race:publish\n"
           "race:read_slot\n" /* of the ring of events */
           "race:write_begin\n"
           "race:write_end\n"
           "race:hurt_bytes\n"     /* of the fuzz test */
           "race:hurt_word\n"      /* the same */
           "race:forget_parent\n"; /* in a child, beside a thread that only the parent has */
}

/* A long memory of accesses, so that the other side of a race has a name and can be suppressed; and
 * children of processes with threads start threads of their own. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "history_size=7:die_after_fork=0";
}

#endif

/* --- checks ----------------------------------------------------------------------------------- */

static struct {
    const char *name;
    pid_t pid;          /* of the process that runs the tests */
    pthread_t thread;   /* its first thread */
    sigjmp_buf back;    /* to the runner */
    int failed_threads; /* failures outside the first thread */
    char files[64][64]; /* to unlink */
    int file_count;
    int passed, failed;
} harness;

NOT_OFTEN void remove_files(void) {
    for (int i = 0; i < harness.file_count; i++) {
        unlink(harness.files[i]);
    }
    harness.file_count = 0;
}

NOT_OFTEN void failed_here(void) {
    fflush(stdout);
    if (getpid() != harness.pid) {
        _exit(99);
    }
    if (pthread_equal(pthread_self(), harness.thread)) {
        siglongjmp(harness.back, 1);
    }
    __atomic_fetch_add(&harness.failed_threads, 1, __ATOMIC_RELAXED);
}

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        printf("%s:%d: %s: ", __FILE__, __LINE__, harness.name);                                   \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        failed_here();                                                                             \
    } while (0)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            FAIL("not so: %s", #condition);                                                        \
        }                                                                                          \
    } while (0)

/* Whole numbers; the expected one on the left. */
#define CHECK_EQ(expected, got)                                                                    \
    do {                                                                                           \
        long long want_ = (long long)(expected), got_ = (long long)(got);                          \
        if (want_ != got_) {                                                                       \
            FAIL("%s: expected %lld (%s), got %lld", #got, want_, #expected, got_);                \
        }                                                                                          \
    } while (0)

#define CHECK_STATUS(expected, got)                                                                \
    do {                                                                                           \
        enum acc_status want_ = (expected), got_ = (got);                                          \
        if (want_ != got_) {                                                                       \
            FAIL("%s: expected \"%s\", got \"%s\"", #got, acc_status_text(want_),                  \
                 acc_status_text(got_));                                                           \
        }                                                                                          \
    } while (0)

/* --- time and chance -------------------------------------------------------------------------- */

NOT_OFTEN void sleep_ms(uint64_t ms) {
    struct timespec pause = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

/* splitmix64: a failing run is repeated by its seed. */
struct chance {
    uint64_t state;
};

NOT_OFTEN uint64_t random_bits(struct chance *chance) {
    uint64_t z = (chance->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

NOT_OFTEN uint32_t random_below(struct chance *chance, uint32_t n) {
    return (uint32_t)((random_bits(chance) >> 32) * n >> 32);
}

/* --- segments --------------------------------------------------------------------------------- */

/* A new file of `size` bytes in shared memory; the harness unlinks it after the test. */
NOT_OFTEN const char *new_file(uint64_t size) {
    static int number;
    if (harness.file_count == 64) {
        FAIL("too many files in one test");
    }
    char *path = harness.files[harness.file_count++];
    snprintf(path, sizeof harness.files[0], "/dev/shm/acc-test.%d.%d", (int)getpid(), number++);
    unlink(path); /* of an earlier process with this pid that was killed */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(0, posix_fallocate(fd, 0, (off_t)size));
    close(fd);
    return path;
}

NOT_OFTEN int open_file(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

NOT_OFTEN uint64_t size_of_file(int fd) {
    struct stat st;
    CHECK_EQ(0, fstat(fd, &st));
    return (uint64_t)st.st_size;
}

NOT_OFTEN const char *new_segment_file(uint64_t size, uint32_t max_value_size) {
    const struct acc_identity identity = {.name = "test", .library = "test"};
    const char *path = new_file(size);
    int fd = open_file(path);
    CHECK_STATUS(ACC_OK, acc_segment_format(fd, size, max_value_size, &identity));
    close(fd);
    return path;
}

/* Map without registering. */
NOT_OFTEN struct acc_segment *map_file(const char *path) {
    struct acc_segment *seg = NULL;
    int fd = open_file(path);
    CHECK_STATUS(ACC_OK, acc_segment_map(fd, size_of_file(fd), false, &seg));
    return seg;
}

NOT_OFTEN struct acc_segment *attach(const char *path) {
    struct acc_segment *seg = map_file(path);
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    return seg;
}

/* A fresh segment, attached. */
NOT_OFTEN struct acc_segment *new_segment(uint64_t size, uint32_t max_value_size) {
    return attach(new_segment_file(size, max_value_size));
}

NOT_OFTEN struct acc_area open_area(struct acc_segment *seg, const char *name) {
    struct acc_area area;
    CHECK_STATUS(ACC_OK, acc_area_open(seg, name, strlen(name), &area));
    CHECK(acc_area_enter(&area));
    return area;
}

NOT_OFTEN void print_violation(void *context, const char *text) {
    (void)context;
    printf("%s: violated: %s\n", harness.name, text);
}

NOT_OFTEN void ignore_violation(void *context, const char *text) {
    (void)context;
    (void)text;
}

/* No key may have two words: look for an equal one in both buckets of each. */
NOT_OFTEN uint32_t count_doubles(struct acc_segment *seg, uint32_t shard) {
    uint32_t doubles = 0;
    uint32_t slots = seg->geometry.buckets * ACC_BUCKET_SLOTS;
    for (uint32_t n = 0; n < slots; n++) {
        uint64_t *word = &acc_bucket(seg, shard, n / ACC_BUCKET_SLOTS)->word[n % ACC_BUCKET_SLOTS];
        struct acc_view a, b;
        if (*word == 0 ||
            !acc_view_load(seg, shard, acc_word_ring(*word), acc_word_offset(*word), &a)) {
            continue;
        }
        uint64_t hash = acc_hash_of_item(seg, a.common.area, a.key, a.common.key_size);
        struct acc_home home = acc_home_of(seg, hash);
        struct acc_bucket *both[2] = {acc_home_first(seg, &home), acc_home_second(seg, &home)};
        for (uint32_t i = 0; i < 2 * ACC_BUCKET_SLOTS; i++) {
            uint64_t *other = &both[i / ACC_BUCKET_SLOTS]->word[i % ACC_BUCKET_SLOTS];
            doubles +=
                other != word && (i < ACC_BUCKET_SLOTS || both[0] != both[1]) && *other != 0 &&
                acc_view_load(seg, shard, acc_word_ring(*other), acc_word_offset(*other), &b) &&
                a.common.area == b.common.area && a.common.key_size == b.common.key_size &&
                memcmp(a.key, b.key, a.common.key_size) == 0;
        }
    }
    return doubles / 2;
}

#define CHECK_SEGMENT(seg)                                                                         \
    do {                                                                                           \
        CHECK_EQ(0, acc_maintenance_check((seg), print_violation, NULL));                          \
        for (uint32_t shard_ = 0; shard_ < (seg)->geometry.shards; shard_++) {                     \
            CHECK_EQ(0, count_doubles((seg), shard_));                                             \
        }                                                                                          \
    } while (0)

/* No measurement by the tick for half an hour: it clears dead words and sets the number of entries, which
 * is not exact where something is stored beside it. */
NOT_OFTEN void hold_measurement(struct acc_segment *seg) {
    acc_store_release(&acc_header(seg)->measured_at, acc_clock_ms() + 1800000);
}

NOT_OFTEN uint32_t count_words(const struct acc_segment *seg, uint32_t shard) {
    uint32_t words = 0;
    for (uint32_t b = 0; b < seg->geometry.buckets; b++) {
        for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
            words += acc_load_relaxed(&acc_bucket(seg, shard, b)->word[i]) != 0;
        }
    }
    return words;
}

/* Begin all rings at an offset near this one, at the start of a lap: as if so much had been written
 * before. */
NOT_OFTEN void start_rings_at(struct acc_segment *seg, uint64_t offset) {
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        for (uint32_t ring = 0; ring < 2; ring++) {
            struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
            uint32_t bits = seg->geometry.ring_bits[ring];
            r->head = r->tail = r->mid = offset >> bits << bits;
        }
    }
}

/* --- keys, values, reads and writes ----------------------------------------------------------- */

/* A key and its bytes, so that it can be passed around whole. */
struct test_key {
    uint8_t bytes[ACC_KEY_MAX];
    struct acc_key key;
};

NOT_OFTEN const struct acc_key *make_key(const struct acc_area *area, struct test_key *out,
                                         const void *data, uint32_t size) {
    memcpy(out->bytes, data, size);
    out->key = (struct acc_key){.data = out->bytes, .size = size, .tag = 'b'};
    out->key.hash = acc_key_hash(area, &out->key);
    return &out->key;
}

NOT_OFTEN const struct acc_key *text_key(const struct acc_area *area, struct test_key *out,
                                         const char *text) {
    return make_key(area, out, text, (uint32_t)strlen(text));
}

NOT_OFTEN const struct acc_key *number_key(const struct acc_area *area, struct test_key *out,
                                           uint64_t number) {
    return make_key(area, out, &number, sizeof number);
}

struct got {
    enum acc_status status; /* ACC_OK, ACC_NOT_FOUND, ACC_RACE */
    enum acc_age age;
    struct acc_record record;
    bool twice;
    uint32_t ring;
    uint64_t offset;
    uint8_t *data; /* into the buffer given */
    uint32_t size;
};

/* A read as the binding does it: find, check, copy, and believe nothing before the words are
 * unchanged. */
NOT_OFTEN struct got read_once(struct acc_area *area, const struct acc_key *key, uint8_t *buffer,
                               uint32_t capacity, bool mark) {
    struct acc_home home = acc_home_of(area->seg, key->hash);
    struct acc_found found;
    struct got got = {.data = buffer};
    got.status = acc_read_find_bounded(area, &home, key, &found);
    if (got.status != ACC_OK) {
        return got;
    }
    if (!acc_found_live(area, &found, key->hash)) {
        got.status = acc_read_valid(&found) ? ACC_NOT_FOUND : ACC_RACE;
        return got;
    }
    got.age = acc_record_age(&found.view.record, acc_now(area->seg));
    got.record = found.view.record;
    got.twice = acc_view_twice(&found.view);
    got.ring = acc_word_ring(found.word);
    got.offset = acc_word_offset(found.word);
    got.size = acc_record_size(&found.view.record);
    if (got.size > capacity) {
        got.status = acc_read_valid(&found) ? ACC_TOO_LARGE : ACC_RACE;
        return got;
    }
    memcpy(buffer, found.view.value, got.size);
    if (!acc_read_valid(&found)) {
        got.status = ACC_RACE;
        return got;
    }
    if (got.age == ACC_GONE) {
        got.status = ACC_NOT_FOUND;
    } else if (mark) {
        acc_mark_raise(acc_slot_mark(found.slot));
    }
    return got;
}

NOT_OFTEN struct got read_key(struct acc_area *area, const struct acc_key *key, uint8_t *buffer,
                              uint32_t capacity, bool mark) {
    struct got got = {.status = ACC_RACE};
    for (int tries = 0; tries < 1000 && got.status == ACC_RACE; tries++) {
        got = read_once(area, key, buffer, capacity, mark);
    }
    return got;
}

NOT_OFTEN bool is_there(struct acc_area *area, const struct acc_key *key) {
    static uint8_t unread[1];
    struct got got = read_key(area, key, unread, 0, false);
    return got.status == ACC_TOO_LARGE ? got.age != ACC_GONE : got.status == ACC_OK;
}

NOT_OFTEN bool hit(struct acc_area *area, const struct acc_key *key) {
    static uint8_t buffer[1 << 20];
    return read_key(area, key, buffer, sizeof buffer, true).status == ACC_OK;
}

NOT_OFTEN enum acc_status set_bytes(struct acc_area *area, const struct acc_key *key,
                                    const void *data, uint32_t size) {
    const struct acc_write write = {.data = data, .size = size, .code = ACC_CODE_BYTES};
    return acc_store(area, key, &write, ACC_LOCK_BUDGET_NS);
}

/* The tags of a value, each told by one letter, as of now. */
NOT_OFTEN struct acc_tags letter_tags(const struct acc_area *area, const char *letters) {
    struct acc_tags tags = {.since = acc_tag_clock(area->seg)};
    for (; *letters != '\0'; letters++) {
        acc_tags_add(area->seg, &tags, acc_tag_hash(area, (const uint8_t *)letters, 1));
    }
    return tags;
}

NOT_OFTEN void mark_letters(struct acc_area *area, const char *letters, bool expire) {
    uint64_t hashes[ACC_TAGS_MAX];
    uint32_t count = 0;
    for (; letters[count] != '\0'; count++) {
        hashes[count] = acc_tag_hash(area, (const uint8_t *)letters + count, 1);
    }
    acc_tags_mark(area, hashes, count, expire);
}

NOT_OFTEN enum acc_status set_tagged(struct acc_area *area, const struct acc_key *key,
                                     const void *data, uint32_t size, const char *letters) {
    struct acc_tags tags = letter_tags(area, letters);
    const struct acc_write write = {
        .data = data, .size = size, .code = ACC_CODE_BYTES, .tags = &tags};
    return acc_store(area, key, &write, ACC_LOCK_BUDGET_NS);
}

/* As the binding stores: first in turn, the mutex for the interpreter's lock, then without. */
NOT_OFTEN enum acc_status store_in_turn(struct acc_area *area, const struct acc_key *key,
                                        const struct acc_write *write) {
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&turn);
    enum acc_status status = acc_store_in_turn(area, key, write);
    pthread_mutex_unlock(&turn);
    return status == ACC_BUSY ? acc_store(area, key, write, ACC_LOCK_BUDGET_NS) : status;
}

/* Bytes that say of which key and version they are and prove that they are whole. */
NOT_OFTEN void fill_value(uint8_t *out, uint32_t size, uint64_t key, uint64_t version) {
    struct chance chance = {key * 0x9fb21c651e98df25ull ^ version ^ (uint64_t)size << 40};
    uint32_t at = 0;
    if (size >= 16) {
        memcpy(out, &key, 8);
        memcpy(out + 8, &version, 8);
        at = 16;
    }
    for (; at + 8 <= size; at += 8) {
        uint64_t bits = random_bits(&chance);
        memcpy(out + at, &bits, 8);
    }
    for (; at < size; at++) {
        out[at] = (uint8_t)random_bits(&chance);
    }
}

/* Is this a whole value of this key?  Its version in *version.  Values are at least 16 bytes. */
NOT_OFTEN bool proves_itself(const uint8_t *data, uint32_t size, uint64_t key, uint64_t *version) {
    if (size < 16 || memcmp(data, &key, 8) != 0) {
        return false;
    }
    memcpy(version, data + 8, 8);
    struct chance chance = {key * 0x9fb21c651e98df25ull ^ *version ^ (uint64_t)size << 40};
    uint32_t at = 16;
    for (; at + 8 <= size; at += 8) {
        uint64_t bits = random_bits(&chance);
        if (memcmp(data + at, &bits, 8) != 0) {
            return false;
        }
    }
    for (; at < size; at++) {
        if (data[at] != (uint8_t)random_bits(&chance)) {
            return false;
        }
    }
    return true;
}

/* --- children --------------------------------------------------------------------------------- */

/* fork() of a child that does not outlive the test.  0 in the child. */
NOT_OFTEN pid_t fork_child(void) {
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(98);
        }
        alarm(0);
    }
    return pid;
}

/* So many pages in the tables of this process that the kernel takes 0.1 s and more to end it: 64 MB,
 * seen 64 times. */
NOT_OFTEN bool make_end_slow(void) {
    const size_t size = 64 << 20;
    int fd = memfd_create("pages", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) {
        return false;
    }
    for (int i = 0; i < 64; i++) {
        if (mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0) ==
            MAP_FAILED) {
            return false;
        }
    }
    return true;
}

/* Has it been ended by the kernel?  It stays a zombie. */
NOT_OFTEN bool has_ended(pid_t pid) {
    siginfo_t info = {0};
    CHECK_EQ(0, waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG));
    return info.si_pid != 0;
}

NOT_OFTEN int wait_child(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        CHECK(errno == EINTR);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

NOT_OFTEN void kill_child(pid_t pid) {
    kill(pid, SIGKILL);
    CHECK_EQ(128 + SIGKILL, wait_child(pid));
}

/* Run a function in a child; its exit status. */
NOT_OFTEN int in_child(int (*body)(void *), void *argument) {
    pid_t pid = fork_child();
    if (pid == 0) {
        _exit(body(argument));
    }
    return wait_child(pid);
}

/* Words that parent and children share, for meeting at named points. */
NOT_OFTEN uint32_t *shared_words(void) {
    void *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(words != MAP_FAILED);
    return words;
}

NOT_OFTEN void reach(uint32_t *word, uint32_t value) {
    acc_store_release(word, value);
}

NOT_OFTEN void await(uint32_t *word, uint32_t value) {
    while (acc_load_acquire(word) < value) {
        sleep_ms(1);
    }
}

/* --- the runner ------------------------------------------------------------------------------- */

struct test {
    const char *name;
    void (*body)(void);
};

NOT_OFTEN void watchdog(int signal_number) {
    static const char text[] = ": hangs, ended by the watchdog\n";
    (void)signal_number;
    if (write(1, harness.name, strlen(harness.name)) >= 0 && write(1, text, sizeof text - 1) >= 0) {
        remove_files();
    }
    _exit(3);
}

NOT_OFTEN void run_test(const struct test *test) {
    harness.name = test->name;
    harness.failed_threads = 0;
    if (sigsetjmp(harness.back, 1) == 0) {
        test->body();
        harness.failed += harness.failed_threads != 0;
        harness.passed += harness.failed_threads == 0;
    } else {
        harness.failed++;
        printf("failed: %s\n", harness.name);
    }
}

/* Run all tests, or those whose names are given. */
NOT_OFTEN int run_tests(const struct test *tests, size_t count, unsigned seconds, int argc,
                        char **argv) {
    harness.pid = getpid();
    harness.thread = pthread_self();
    signal(SIGALRM, watchdog);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < count; i++) {
        bool chosen = argc < 2;
        for (int a = 1; a < argc; a++) {
            chosen |= strcmp(argv[a], tests[i].name) == 0;
        }
        if (!chosen) {
            continue;
        }
        alarm(seconds);
        run_test(&tests[i]);
        alarm(0);
        remove_files();
    }
    printf("%d passed, %d failed\n", harness.passed, harness.failed);
    if (harness.failed != 0) {
        _exit(1); /* what a failed test has not freed is no leak of the core */
    }
    return 0;
}

#define RUN(seconds, ...)                                                                          \
    int main(int argc, char **argv) {                                                              \
        static const struct test tests[] = {__VA_ARGS__};                                          \
        return run_tests(tests, sizeof tests / sizeof *tests, seconds, argc, argv);                \
    }

#define TEST(function) {#function, function}

#endif
