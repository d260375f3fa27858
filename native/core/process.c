/* Owns the process slots and the liveness bytes.
 *
 * Liveness is a POSIX record lock on one byte of the segment's file, beyond its end: the kernel
 * drops it when the process is gone, a fork child does not inherit it, and it works across PID
 * namespaces.  Its one trap: closing any descriptor of the file drops it too.  Therefore the second
 * witness, and acc_process_assert().
 *
 * The kernel drops it late: a killed process first gives back its memory, which takes the longer the
 * more it has, and waits for locks of other processes that were forked from the same parent.  That
 * its threads run no more can be seen before (acc_process_ending()).
 *
 * Killed between taking the byte and filling the slot: the byte goes with the process, the slot was
 * never shown. */
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Incarnations fit 30 bits: a lock word and a slot keep the highest bit for themselves. */
#define INCARNATION_MASK 0x3fffffffu
#define INCARNATION_TRIES 5000
#define LEAVE_TRIES 1000
/* In a slot: claimed by this incarnation, the fields are not written yet. */
#define SLOT_CLAIMED (1u << 31)

static int byte_lock(const struct acc_segment *seg, int command, short type, uint64_t start,
                     uint64_t size, struct flock *out) {
    struct flock lock = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)size};
    int result;
    do {
        result = fcntl(acc_load_relaxed(&seg->fd), command, &lock);
    } while (result != 0 && errno == EINTR);
    if (out != NULL) {
        *out = lock;
    }
    return result;
}

static void give_byte(const struct acc_segment *seg, uint32_t incarnation) {
    if (!seg->is_private && acc_segment_owns_descriptor(seg)) {
        byte_lock(seg, F_SETLK, F_UNLCK, ACC_LIVENESS_BASE + incarnation, 1, NULL);
    }
}

struct stat_line {
    char state;
    uint64_t flags;
    uint64_t start; /* clock ticks since boot */
};

/* Number 9 of /proc/PID/stat holds PF_EXITING of the kernel's sched.h: of a thread that will not
 * return to its program.  (The bit has been this one in every Linux since 2.6.) */
#define EXITING 4u

/* Fields 3, 9 and 22 of a file like /proc/PID/stat; the command name before them may hold anything.
 */
static bool read_stat(const char *path, struct stat_line *out) {
    char text[1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) {
        return false;
    }
    text[n] = '\0';
    const char *field = strrchr(text, ')');
    if (field == NULL || field[1] != ' ') {
        return false;
    }
    out->state = field[2];
    for (int number = 2; number < 22; number++) {
        field = strchr(field, ' ');
        if (field == NULL) {
            return false;
        }
        field++;
        if (number + 1 == 9) {
            out->flags = strtoull(field, NULL, 10);
        }
    }
    out->start = strtoull(field, NULL, 10);
    return true;
}

static bool read_stat_of(uint32_t pid, struct stat_line *out) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    return read_stat(path, out);
}

uint64_t acc_process_start_time(uint32_t pid) {
    struct stat_line line;
    return read_stat_of(pid, &line) ? line.start : 0;
}

uint64_t acc_namespace(const char *kind) {
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

struct acc_process *acc_process_find(const struct acc_segment *seg, uint32_t incarnation) {
    for (uint32_t i = 0; i < seg->geometry.processes; i++) {
        struct acc_process *slot = acc_process_slot(seg, i);
        if (acc_load_acquire(&slot->incarnation) == incarnation) {
            return slot;
        }
    }
    return NULL;
}

/* The second witness: false unless the pid is proven to be another process, or none. */
static bool pid_gone(const struct acc_process *slot) {
    uint64_t ours = acc_namespace("pid");
    if (slot->pid == 0 || slot->pid_ns != ours || ours == 0) {
        return true; /* its pid says nothing here: the byte alone decides */
    }
    if (kill((pid_t)slot->pid, 0) != 0 && errno == ESRCH) {
        return true;
    }
    struct stat_line line;
    if (!read_stat_of(slot->pid, &line)) {
        return true;
    }
    return line.state == 'Z' || line.state == 'X' || line.start != slot->start_time;
}

bool acc_process_dead(const struct acc_segment *seg, uint32_t incarnation) {
    if (incarnation == 0) {
        return true; /* garbage: nobody's id, and a free slot says nothing about it */
    }
    if (incarnation == acc_incarnation(seg)) {
        return false;
    }
    if (seg->is_private) {
        return true; /* a parent's id, copied by fork: it has its own copy */
    }
    struct flock seen;
    if (byte_lock(seg, F_GETLK, F_WRLCK, ACC_LIVENESS_BASE + incarnation, 1, &seen) != 0 ||
        seen.l_type != F_UNLCK) {
        return false;
    }
    const struct acc_process *slot = acc_process_find(seg, incarnation);
    return slot == NULL || pid_gone(slot);
}

/* --- on the way out --------------------------------------------------------------------------- */

/* Are all threads on their way out?  (One that is not, and is seen by this only when it is, may have
 * started another that is not seen at all: then a lease is lost that would have been kept.) */
static bool all_exiting(const struct acc_process *slot) {
    struct stat_line line;
    char path[64 + sizeof((struct dirent *)0)->d_name];
    /* Mostly it lives, and its first thread too. */
    if (!read_stat_of(slot->pid, &line) || line.start != slot->start_time ||
        !(line.flags & EXITING)) {
        return false;
    }
    snprintf(path, sizeof path, "/proc/%u/task", slot->pid);
    DIR *threads = opendir(path);
    if (threads == NULL) {
        return false;
    }
    bool all = true;
    const struct dirent *thread;
    while (all && (thread = readdir(threads)) != NULL) {
        snprintf(path, sizeof path, "/proc/%u/task/%s/stat", slot->pid, thread->d_name);
        all = thread->d_name[0] == '.' || !read_stat(path, &line) || line.flags & EXITING;
    }
    closedir(threads);
    return all;
}

static bool ends(const struct acc_segment *seg, uint32_t incarnation) {
    uint32_t self = seg->self_slot;
    const struct acc_process *slot = acc_process_find(seg, incarnation);
    return self != 0 && slot != NULL && slot->pid != 0 &&
           slot->pid_ns == acc_process_slot(seg, self - 1)->pid_ns && all_exiting(slot);
}

#define ASKED_ENDS (1ull << 31)
#define ASKED_MS 0x7fffffffu
#define ASK_AGAIN_MS 25u

static uint64_t *asked_after(const struct acc_segment *seg, uint32_t incarnation) {
    return &seg->self->asked[incarnation % ACC_ASKED];
}

bool acc_process_known_ending(const struct acc_segment *seg, uint32_t incarnation) {
    uint64_t asked = acc_load_relaxed(asked_after(seg, incarnation));
    return (asked >> 32 == incarnation && asked & ASKED_ENDS) || acc_process_dead(seg, incarnation);
}

bool acc_process_ending(const struct acc_segment *seg, uint32_t incarnation) {
    if (acc_process_known_ending(seg, incarnation)) {
        return true;
    }
    if (seg->is_private || incarnation == acc_incarnation(seg)) {
        return false;
    }
    /* One of those who wait here for the same process asks for all of them: it is two files at least
     * where acc_process_dead() is one system call. */
    uint64_t *word = asked_after(seg, incarnation), asked = acc_load_relaxed(word);
    uint32_t now = (uint32_t)acc_clock_ms() & ASKED_MS;
    if (asked >> 32 == incarnation && ((now - (uint32_t)asked) & ASKED_MS) < ASK_AGAIN_MS) {
        return false;
    }
    acc_store_relaxed(word, (uint64_t)incarnation << 32 | now);
    bool ending = ends(seg, incarnation);
    if (ending) {
        acc_store_relaxed(word, (uint64_t)incarnation << 32 | ASKED_ENDS | now);
    }
    return ending;
}

bool acc_process_any_other(const struct acc_segment *seg) {
    if (seg->is_private) {
        return false;
    }
    struct flock seen;
    if (byte_lock(seg, F_GETLK, F_WRLCK, ACC_LIVENESS_BASE, 0, &seen) != 0) {
        return true;
    }
    return seen.l_type != F_UNLCK;
}

/* A free slot, or that of a dead process.  0: none. */
static uint32_t claim_slot(struct acc_segment *seg, uint32_t incarnation) {
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < seg->geometry.processes; i++) {
            struct acc_process *slot = acc_process_slot(seg, i);
            uint32_t owner = acc_load_acquire(&slot->incarnation);
            if (owner != 0 && (round == 0 || !acc_process_dead(seg, owner & ~SLOT_CLAIMED))) {
                continue;
            }
            /* Killed right after this: claimed by one whose byte is free, so dead. */
            if (acc_cas32(&slot->incarnation, owner, incarnation | SLOT_CLAIMED)) {
                return i + 1;
            }
        }
    }
    return 0;
}

static void fill_slot(struct acc_process *slot, uint32_t incarnation, uint32_t overrides) {
    slot->pid = (uint32_t)getpid();
    slot->start_time = acc_process_start_time(slot->pid);
    slot->pid_ns = acc_namespace("pid");
    slot->attached = acc_clock_ms();
    acc_store_relaxed(&slot->overrides, overrides);
    acc_store_release(&slot->incarnation, incarnation);
}

static void forget_parent(struct acc_segment *seg) {
    acc_store_relaxed(&seg->self_slot, 0u);
    seg->thread_of = 0;
    seg->ringer_of = 0;
    seg->scratch_busy = 0;
    memset(seg->bells, 0, sizeof seg->bells); /* they ring in the parent's loops */
    memset(seg->intent, 0, sizeof seg->intent);
    seg->intent_in_turn = 0;
    acc_segment_forget_ahead(seg);
    memset(seg->stats_of, 0, seg->geometry.areas * sizeof *seg->stats_of);
    if (seg->is_private && !acc_load_relaxed(&seg->self->has_left)) {
        /* Our copy of the parent's memory; a lock that one of its threads held is held by nobody
         * here, and what they load arrives there. */
        for (uint32_t i = 0; i < seg->geometry.shards; i++) {
            acc_shard(seg, i)->lock = 0;
        }
        acc_header(seg)->area_lock = 0;
        memset(seg->base + seg->geometry.flight_at, 0,
               seg->geometry.generation_at - seg->geometry.flight_at);
        /* What the parent has not sent, the parent sends.  And it is another memory now: what the
         * parent publishes has not been applied here, so nobody may take it for our own. */
        for (uint32_t i = 0; i < seg->geometry.areas; i++) {
            acc_area_slot(seg, i)->paid = acc_area_slot(seg, i)->owed;
        }
        (void)acc_segment_new_origin(acc_header(seg));
    }
}

/* A new id and its liveness byte.  0 is nobody's; and where the count is garbage, an id may be
 * another's. */
static enum acc_status take_incarnation(struct acc_segment *seg, uint32_t *out) {
    for (int tries = 0; tries < INCARNATION_TRIES; tries++) {
        uint32_t incarnation =
            acc_add_relaxed(&acc_header(seg)->next_incarnation, 1u) & INCARNATION_MASK;
        if (incarnation == 0) {
            continue;
        }
        if (seg->is_private ||
            byte_lock(seg, F_SETLK, F_WRLCK, ACC_LIVENESS_BASE + incarnation, 1, NULL) == 0) {
            *out = incarnation;
            return ACC_OK;
        }
        if (errno != EAGAIN && errno != EACCES) {
            return ACC_ESYS;
        }
    }
    return ACC_FULL;
}

static enum acc_status enter(struct acc_segment *seg) {
    if (seg->readonly) {
        return ACC_READONLY;
    }
    if (acc_load_relaxed(&seg->fenced)) {
        return ACC_EMISMATCH;
    }
    if (acc_incarnation(seg) != 0) {
        return ACC_OK;
    }
    forget_parent(seg);
    uint32_t incarnation;
    enum acc_status status = take_incarnation(seg, &incarnation);
    if (status != ACC_OK) {
        return status;
    }
    acc_store_relaxed(&seg->self_slot, claim_slot(seg, incarnation));
    if (seg->self_slot == 0) {
        give_byte(seg, incarnation);
        return ACC_FULL;
    }
    /* What was bound was bound under these; whether they are still in force is looked at next
     * (acc_override_notice()). */
    uint32_t overrides = acc_load_relaxed(&seg->overrides);
    fill_slot(acc_process_slot(seg, seg->self_slot - 1), incarnation, overrides);
    acc_store_release(&seg->self->stamp, acc_stamp_of(incarnation, overrides));
    return ACC_OK;
}

/* One thread of a process at a time. */
static void take_turn(struct acc_segment *seg) {
    struct timespec pause = {.tv_nsec = 100000};
    while (!acc_cas32(&seg->self->entering, 0, 1)) {
        nanosleep(&pause, NULL);
    }
}

static void give_turn(struct acc_segment *seg) {
    acc_store_release(&seg->self->entering, 0u);
}

enum acc_status acc_process_enter(struct acc_segment *seg,
                                  void (*entered)(struct acc_segment *seg)) {
    take_turn(seg);
    enum acc_status status = enter(seg);
    if (status == ACC_OK && entered != NULL) {
        entered(seg);
    }
    give_turn(seg);
    return status;
}

/* Other threads of this process may be in the middle of a write.  Its lock is dead property as soon
 * as our liveness byte is free, and then two would write: let them end.  (They hold it for
 * microseconds; who is waiting for it has no intent, and no id to take it under any more.) */
static void let_writers_end(const struct acc_segment *seg) {
    struct timespec pause = {.tv_nsec = 100000};
    int patience = LEAVE_TRIES;
    for (uint32_t lock = 0; lock <= ACC_SHARDS_MAX; lock++) {
        while (acc_load_acquire(&seg->intent[lock]) != 0 && patience-- > 0) {
            nanosleep(&pause, NULL);
        }
    }
    while (acc_load_acquire(&seg->intent_in_turn) != 0 && patience-- > 0) {
        nanosleep(&pause, NULL);
    }
}

void acc_process_leave(struct acc_segment *seg) {
    uint32_t incarnation = acc_incarnation(seg);
    if (incarnation == 0) {
        return;
    }
    acc_store_relaxed(&seg->self->has_left, 1u);
    /* Pairs with acc_lock_take() and acc_lock_take_in_turn(): intent, then the id; here the id, then
     * intents. */
    acc_swap_release(&seg->self->stamp, (uint64_t)0);
    acc_fence_behind_cas();
    let_writers_end(seg);
    if (seg->self_slot != 0) {
        acc_cas32(&acc_process_slot(seg, seg->self_slot - 1)->incarnation, incarnation, 0);
    }
    give_byte(seg, incarnation);
}

static bool is_our_file(const struct acc_segment *seg, int fd, nlink_t *links) {
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_dev != seg->device || st.st_ino != seg->inode) {
        return false;
    }
    *links = st.st_nlink;
    return true;
}

/* Somebody closed our descriptor (os.closerange and the like): open the file again by its path. */
static bool reopen(struct acc_segment *seg, nlink_t *links) {
    int fd = open(seg->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return false;
    }
    if (!is_our_file(seg, fd, links)) {
        close(fd);
        return false;
    }
    acc_store_relaxed(&seg->fd, fd);
    return true;
}

bool acc_process_assert(struct acc_segment *seg) {
    uint32_t incarnation = acc_incarnation(seg);
    if (seg->is_private || incarnation == 0) {
        return true;
    }
    nlink_t links = 1;
    if (!is_our_file(seg, seg->fd, &links) && !reopen(seg, &links)) {
        return false;
    }
    /* Unlinked under us: the next process makes a new segment, and two would not hear each other.
     */
    return links != 0 &&
           byte_lock(seg, F_SETLK, F_WRLCK, ACC_LIVENESS_BASE + incarnation, 1, NULL) == 0;
}
