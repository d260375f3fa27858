/* Incarnations, slots and liveness bytes: who is attached, and who of them is gone. */
#include "harness.h"

#include <sched.h>

/* --- entering and leaving --------------------------------------------------------------------- */

static uint32_t slots_in_use(const struct acc_segment *seg) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < seg->geometry.processes; i++) {
        n += acc_process_slot(seg, i)->incarnation != 0;
    }
    return n;
}

/* Entering again changes nothing; leaving frees the slot and the byte, and the next entry has a new
 * id. */
static void enter_and_leave(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = map_file(path), *other = map_file(path);
    CHECK_EQ(0, acc_incarnation(seg));
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    uint32_t first = acc_incarnation(seg);
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    CHECK_EQ(first, acc_incarnation(seg));
    CHECK_EQ(1, slots_in_use(seg));
    const struct acc_process *slot = acc_process_find(seg, first);
    CHECK(slot != NULL);
    CHECK_EQ(getpid(), slot->pid);
    CHECK_EQ(acc_process_start_time((uint32_t)getpid()), slot->start_time);
    CHECK(slot->start_time != 0);
    acc_segment_unregister(seg);
    CHECK_EQ(0, acc_incarnation(seg));
    CHECK_EQ(0, slots_in_use(seg));
    CHECK(acc_process_dead(other, first));
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    CHECK(acc_incarnation(seg) != first);
    acc_segment_close(other);
    acc_segment_close(seg);
}

/* A count that is garbage never makes an id 0, nor one that a living process has. */
static void incarnation_count_is_garbage(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    const uint32_t garbage[] = {0, 0x40000000u, 0x80000000u, UINT32_MAX, 0x3fffffffu};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        acc_segment_unregister(seg);
        acc_header(seg)->next_incarnation = garbage[i];
        CHECK_STATUS(ACC_OK, acc_segment_register(seg));
        CHECK(acc_incarnation(seg) != 0);
        CHECK(acc_incarnation(seg) <= 0x3fffffffu);
    }
    acc_segment_close(seg);
}

struct child_job {
    const char *path;
    uint32_t *words; /* 0: point reached by the child; 1: by the parent; 2: child's incarnation */
    pid_t pid;
};

/* Attach, say so, live until killed. */
static void live(struct child_job *job) {
    struct acc_segment *seg = attach(job->path);
    job->words[2] = acc_incarnation(seg);
    reach(&job->words[0], 1);
    for (;;) {
        pause();
    }
}

static struct child_job start(const char *path, void (*body)(struct child_job *job)) {
    struct child_job job = {.path = path, .words = shared_words()};
    job.pid = fork_child();
    if (job.pid == 0) {
        body(&job);
    }
    await(&job.words[0], 1);
    return job;
}

static struct child_job start_child(const char *path) {
    return start(path, live);
}

static void end_child(struct child_job *job) {
    kill_child(job->pid);
    munmap(job->words, 4096);
}

static void incarnation_is_in_use(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct child_job child = start_child(path);
    struct acc_segment *seg = map_file(path);
    acc_header(seg)->next_incarnation = child.words[2];
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    CHECK(acc_incarnation(seg) != child.words[2]);
    end_child(&child);
    acc_segment_close(seg);
}

static void *open_some_area(void *argument) {
    struct acc_segment *seg = argument;
    static uint32_t number;
    char name[16];
    struct acc_area area;
    snprintf(name, sizeof name, "area %u", acc_add_relaxed(&number, 1u));
    CHECK_STATUS(ACC_OK, acc_area_open(seg, name, strlen(name), &area));
    CHECK(acc_area_enter(&area));
    return NULL;
}

/* Whatever the threads of a process do first, it enters once. */
static void threads_enter_once(void) {
    for (int round = 0; round < 20; round++) {
        struct acc_segment *seg = map_file(new_segment_file(2 * MIB, 64 << 10));
        uint32_t before = acc_header(seg)->next_incarnation;
        pthread_t threads[8];
        for (int i = 0; i < 8; i++) {
            CHECK_EQ(0, pthread_create(&threads[i], NULL, open_some_area, seg));
        }
        for (int i = 0; i < 8; i++) {
            pthread_join(threads[i], NULL);
        }
        CHECK_EQ(before + 1, acc_header(seg)->next_incarnation);
        CHECK_EQ(1, slots_in_use(seg));
        acc_segment_close(seg);
    }
}

/* --- fork ------------------------------------------------------------------------------------- */

static int act_as_forked(struct acc_segment *seg, uint32_t parents) {
    struct acc_area area;
    if (acc_incarnation(seg) != 0) {
        return 1;
    }
    if (acc_lock_take(seg, 0, 0)) {
        return 2; /* without an id nobody holds a lock */
    }
    if (acc_segment_register(seg) != ACC_OK || acc_incarnation(seg) == parents) {
        return 3;
    }
    if (acc_process_dead(seg, parents)) {
        return 4; /* the parent lives, and the child has not inherited its byte */
    }
    if (acc_area_open(seg, "forked", 6, &area) != ACC_OK || !acc_area_enter(&area)) {
        return 5;
    }
    struct test_key key;
    if (set_bytes(&area, text_key(&area, &key, "from the child"), "x", 1) != ACC_OK) {
        return 6;
    }
    acc_segment_close(seg);
    return 0;
}

static void forked_child(void) {
    if (UNDER_TSAN) {
        return; /* it takes a thread of the child for one of the parent with the same number */
    }
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area area = open_area(seg, "forked");
    uint32_t mine = acc_incarnation(seg);
    pid_t pid = fork_child();
    if (pid == 0) {
        _exit(act_as_forked(seg, mine));
    }
    CHECK_EQ(0, wait_child(pid));
    CHECK_EQ(mine, acc_incarnation(seg));
    struct test_key key;
    CHECK(is_there(&area, text_key(&area, &key, "from the child")));
    /* The child closed its copy of the descriptor: ours and our byte are as they were. */
    CHECK(acc_process_assert(seg));
    acc_segment_close(seg);
}

/* clone() without the C library: no handler of fork runs, in the child nor before it. */
static void cloned_child(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    uint32_t mine = acc_incarnation(seg);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    CHECK(pid >= 0);
    if (pid == 0) {
        int result = acc_incarnation(seg) != 0 ? 1 : acc_lock_take(seg, 0, 0) ? 2 : 0;
        if (result == 0 && acc_process_enter(seg, NULL) != ACC_OK) {
            result = 3;
        }
        _exit(result != 0 ? result : acc_incarnation(seg) == mine ? 4 : 0);
    }
    CHECK_EQ(0, wait_child(pid));
    CHECK_EQ(mine, acc_incarnation(seg));
    acc_segment_close(seg);
}

static int use_private_copy(void *argument) {
    struct acc_area *area = argument;
    struct test_key key;
    if (!acc_area_enter(area)) {
        return 1;
    }
    if (set_bytes(area, text_key(area, &key, "shared"), "child", 5) != ACC_OK) {
        return 2;
    }
    acc_segment_close(area->seg);
    return 0;
}

/* A private segment is copied by fork, with whatever locks the parent's threads hold: they are
 * nobody's in the child. */
static void forked_with_private_segment(void) {
    if (UNDER_TSAN) {
        return; /* it takes a thread of the child for one of the parent with the same number */
    }
    struct acc_segment *seg;
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 64 << 10, &seg));
    struct acc_area area = open_area(seg, "private");
    struct test_key key;
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &key, "shared"), "parent", 6));
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        CHECK(acc_lock_take(seg, shard, 0));
    }
    CHECK_EQ(0, in_child(use_private_copy, &area));
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        acc_lock_give(seg, shard);
    }
    uint8_t buffer[16];
    struct got got = read_key(&area, &key.key, buffer, sizeof buffer, false);
    CHECK_EQ(6, got.size);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* --- life and death --------------------------------------------------------------------------- */

/* Killed: dead, already as a zombie.  Stopped: not. */
static void killed_and_stopped(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    CHECK(!acc_process_any_other(seg));
    struct child_job child = start_child(path);
    CHECK(acc_process_any_other(seg));
    CHECK(!acc_process_dead(seg, child.words[2]));
    kill(child.pid, SIGSTOP);
    sleep_ms(20);
    CHECK(!acc_process_dead(seg, child.words[2]));
    kill(child.pid, SIGKILL);
    siginfo_t info;
    CHECK_EQ(0, waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOWAIT));
    CHECK(acc_process_dead(seg, child.words[2]));
    CHECK(!acc_process_any_other(seg));
    kill_child(child.pid);
    CHECK(acc_process_dead(seg, child.words[2]));
    munmap(child.words, 4096);
    acc_segment_close(seg);
}

static void live_large(struct child_job *job) {
    CHECK(make_end_slow());
    live(job);
}

/* A process that the kernel is slow to end holds its byte until then, and is known to end before. */
static void killed_slowly(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    bool in_time = false;
    for (int tries = 0; tries < 5 && !in_time;
         tries++) { /* this process is to look while it ends */
        struct child_job child = start(path, live_large);
        CHECK(!acc_process_ending(seg, child.words[2]));
        CHECK(!acc_process_known_ending(seg, child.words[2]));
        kill(child.pid, SIGKILL);
        while (!has_ended(child.pid) && !in_time) {
            sleep_ms(1);
            bool ending = acc_process_ending(seg, child.words[2]);
            in_time = ending && !acc_process_dead(seg, child.words[2]);
            CHECK(!in_time || acc_process_known_ending(seg, child.words[2]));
        }
        CHECK_EQ(128 + SIGKILL, wait_child(child.pid));
        CHECK(acc_process_dead(seg, child.words[2]));
        CHECK(acc_process_ending(seg, child.words[2]));
        munmap(child.words, 4096);
    }
    CHECK(in_time);
    acc_segment_close(seg);
}

static void *say_so_and_stay(void *argument) {
    struct child_job *job = argument;
    struct stat st;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/exe", (int)getpid());
    while (stat(path, &st) == 0) { /* a zombie has none */
        sleep_ms(1);
    }
    reach(&job->words[0], 1);
    for (;;) {
        pause();
    }
    return NULL;
}

static void live_on_in_thread(struct child_job *job) {
    static struct child_job kept;
    kept = *job;
    struct acc_segment *seg = map_file(job->path);
    CHECK_STATUS(ACC_OK, acc_process_enter(seg, NULL));
    job->words[2] = acc_incarnation(seg);
    pthread_t thread;
    pthread_create(&thread, NULL, say_so_and_stay, &kept);
    syscall(SYS_exit, 0);
}

/* One whose first thread has ended lives on in the others. */
static void first_thread_ended(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    struct child_job child = start(path, live_on_in_thread);
    uint32_t id = child.words[2];
    for (int looks = 0; looks < 3; looks++) {
        CHECK(!acc_process_ending(seg, id));
        sleep_ms(30); /* until it is asked after again */
    }
    CHECK(!acc_process_dead(seg, id));
    end_child(&child);
    CHECK(acc_process_ending(seg, id));
    acc_segment_close(seg);
}

/* Attach, lose the byte as any close() of the file does, live on. */
static int lose_byte(void *argument) {
    struct child_job *job = argument;
    struct acc_segment *seg = map_file(job->path);
    if (acc_process_enter(seg, NULL) != ACC_OK) { /* no thread, so nothing takes it again */
        return 1;
    }
    job->words[2] = acc_incarnation(seg);
    close(open(job->path, O_RDONLY));
    reach(&job->words[0], 1);
    for (;;) {
        pause();
    }
}

/* Without its byte a process is still alive while its pid says so, and only while the pid means
 * something here. */
static void second_witness(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    struct child_job child = {.path = path, .words = shared_words()};
    child.pid = fork_child();
    if (child.pid == 0) {
        _exit(lose_byte(&child));
    }
    await(&child.words[0], 1);
    uint32_t id = child.words[2];
    struct acc_process *slot = acc_process_find(seg, id);
    CHECK(slot != NULL);
    CHECK(!acc_process_any_other(seg));
    CHECK(!acc_process_dead(seg, id));
    slot->start_time++; /* the pid belongs to somebody else by now */
    CHECK(acc_process_dead(seg, id));
    slot->start_time--;
    slot->pid_ns++; /* a container's pid */
    CHECK(acc_process_dead(seg, id));
    slot->pid_ns--;
    CHECK(!acc_process_dead(seg, id));
    end_child(&child);
    CHECK(acc_process_dead(seg, id));
    acc_segment_close(seg);
}

/* Garbage ids are dead, whatever a free slot says. */
static void garbage_ids(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    for (uint32_t i = 0; i < seg->geometry.processes; i++) {
        struct acc_process *slot = acc_process_slot(seg, i);
        if (slot->incarnation == 0) {
            slot->pid = (uint32_t)getpid();
            slot->start_time = acc_process_start_time(slot->pid);
            slot->pid_ns = acc_namespace("pid");
        }
    }
    CHECK(acc_process_dead(seg, 0));
    CHECK(acc_process_dead(seg, 77777));
    CHECK(acc_process_dead(seg, UINT32_MAX));
    CHECK(!acc_process_dead(seg, acc_incarnation(seg)));
    acc_segment_close(seg);
}

/* --- the table of processes ------------------------------------------------------------------- */

/* More living processes than slots: the next is refused, and may enter when one has died. */
static void slots_are_full(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = map_file(path);
    struct child_job children[64];
    CHECK_EQ(64, seg->geometry.processes);
    for (int i = 0; i < 64; i++) {
        children[i] = start_child(path);
    }
    CHECK_EQ(64, slots_in_use(seg));
    CHECK_STATUS(ACC_FULL, acc_segment_register(seg));
    CHECK_EQ(0, acc_incarnation(seg));
    end_child(&children[20]);
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    for (int i = 0; i < 64; i++) {
        if (i != 20) {
            end_child(&children[i]);
        }
    }
    acc_segment_close(seg);
}

static int enter_and_vanish(void *argument) {
    struct acc_segment *seg = map_file(argument);
    return acc_process_enter(seg, NULL) == ACC_OK ? 0 : 1;
}

/* Slots and counter blocks of the dead are used again. */
static void slots_of_the_dead(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(0, in_child(enter_and_vanish, (void *)(uintptr_t)path));
    }
    struct acc_segment *seg = attach(path);
    CHECK(slots_in_use(seg) <= 64);
    acc_segment_close(seg);
}

/* A slot that a living process has claimed and not filled yet is not taken; one of a process that
 * died there is. */
static void claimed_slots(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct child_job child = start_child(path);
    struct acc_segment *seg = map_file(path);
    for (uint32_t i = 0; i < seg->geometry.processes; i++) {
        acc_process_slot(seg, i)->incarnation = child.words[2] | 1u << 31;
    }
    CHECK_STATUS(ACC_FULL, acc_segment_register(seg));
    end_child(&child);
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    acc_segment_close(seg);
}

static void table_is_garbage(void) {
    struct acc_segment *seg = map_file(new_segment_file(2 * MIB, 64 << 10));
    struct chance chance = {7};
    for (int round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < seg->geometry.processes; i++) {
            struct acc_process *slot = acc_process_slot(seg, i);
            for (size_t at = 0; at < sizeof *slot; at += 8) {
                uint64_t bits = random_bits(&chance);
                memcpy((uint8_t *)slot + at, &bits, 8);
            }
            if (i % 4 == 0) {
                slot->incarnation = 1u << 31;
            }
        }
        CHECK_STATUS(ACC_OK, acc_segment_register(seg));
        CHECK_EQ(getpid(), acc_process_find(seg, acc_incarnation(seg))->pid);
        acc_segment_unregister(seg);
    }
    acc_segment_close(seg);
}

/* --- losing the file -------------------------------------------------------------------------- */

static int ask_any_other(void *argument) {
    struct acc_segment *seg = map_file(argument);
    return acc_process_any_other(seg) ? 1 : 0;
}

/* The application closes our descriptor and opens something else under its number: the tick opens
 * the file again, the byte is ours again, and closing the segment closes nothing of the
 * application's. */
static void descriptor_closed(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    uint32_t id = acc_incarnation(seg);
    int fd = seg->fd;
    close(fd);
    int foreign = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(fd, foreign);
    acc_maintenance_tick(seg);
    CHECK(seg->fd != foreign);
    CHECK_EQ(id, acc_incarnation(seg));
    CHECK_EQ(1, in_child(ask_any_other, (void *)(uintptr_t)path));
    acc_segment_close(seg);
    CHECK_EQ(foreign, fcntl(foreign, F_GETFD) == -1 ? -1 : foreign);
    close(foreign);
}

/* The same, and the segment is closed before the tick has noticed. */
static void descriptor_closed_before_close(void) {
    struct acc_segment *seg = map_file(new_segment_file(2 * MIB, 64 << 10));
    CHECK_STATUS(ACC_OK, acc_process_enter(seg, NULL));
    int fd = seg->fd;
    close(fd);
    int foreign = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(fd, foreign);
    acc_segment_close(seg);
    CHECK(fcntl(foreign, F_GETFD) != -1);
    close(foreign);
}

/* Unlinked, or another file in its place: this process stops acting here, and says so when it is
 * asked to enter. */
static void file_is_gone(void) {
    for (int replaced = 0; replaced < 2; replaced++) {
        const char *path = new_segment_file(2 * MIB, 64 << 10);
        struct acc_segment *seg = attach(path);
        struct acc_area area = open_area(seg, "gone");
        CHECK(acc_area_entered(&area));
        unlink(path);
        if (replaced) {
            close(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
            close(seg->fd);
        }
        acc_maintenance_tick(seg);
        CHECK_EQ(0, acc_incarnation(seg));
        CHECK(!acc_area_entered(&area));
        CHECK(!acc_area_enter(&area));
        CHECK_STATUS(ACC_EMISMATCH, acc_segment_register(seg));
        CHECK(!acc_lock_take(seg, 0, 0));
        CHECK_EQ(0, *acc_lock_word(seg, 0));
        acc_segment_close(seg);
    }
}

/* Leaving while the tick runs, and entering again, as often as one likes. */
static void register_and_unregister(void) {
    struct acc_segment *seg = map_file(new_segment_file(2 * MIB, 64 << 10));
    for (int i = 0; i < 300; i++) {
        CHECK_STATUS(ACC_OK, acc_segment_register(seg));
        CHECK_EQ(1, slots_in_use(seg));
        acc_segment_unregister(seg);
        CHECK_EQ(0, slots_in_use(seg));
    }
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    sleep_ms(2 * ACC_TICK_MS + 50);
    CHECK_EQ(1, seg->self->has_thread);
    acc_segment_close(seg);
}

RUN(60, TEST(enter_and_leave), TEST(incarnation_count_is_garbage), TEST(incarnation_is_in_use),
    TEST(threads_enter_once), TEST(forked_child), TEST(cloned_child),
    TEST(forked_with_private_segment), TEST(killed_and_stopped), TEST(killed_slowly),
    TEST(first_thread_ended), TEST(second_witness), TEST(garbage_ids), TEST(slots_are_full),
    TEST(slots_of_the_dead), TEST(claimed_slots), TEST(table_is_garbage), TEST(descriptor_closed),
    TEST(descriptor_closed_before_close), TEST(file_is_gone), TEST(register_and_unregister))
