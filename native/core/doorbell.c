/* Owns acc_segment.bells and the thread that rings them.
 *
 * Private memory of the process, all of it; only acc_process.doorbell lies in the segment, and a
 * wrong value there costs a look at nothing.  The list is guarded by a word in the page that a
 * forked child finds empty, so that a child never waits for a thread that only its parent has. */
#include "doorbell.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TICK_NS 50000000l
#define IDLE_SECONDS 10

void acc_doorbell_ring(struct acc_segment *seg, uint32_t bit) {
    for (uint32_t i = bit; i < seg->geometry.processes; i += 64) {
        struct acc_process *slot = acc_process_slot(seg, i);
        if (acc_load_acquire(&slot->incarnation) != 0) {
            acc_add_release(&slot->doorbell, 1u);
            syscall(SYS_futex, &slot->doorbell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
        }
    }
}

/* What acc_self.has_ringer says. */
enum { RINGER_NONE = 0, RINGER_RUNS = 1, RINGER_ENDS = 2 };

/* --- the list --------------------------------------------------------------------------------- */

static void take_list(struct acc_segment *seg) {
    while (!acc_cas32(&seg->self->bells_busy, 0, 1)) {
        sched_yield(); /* held for some system calls at most */
    }
}

static void give_list(struct acc_segment *seg) {
    acc_store_release(&seg->self->bells_busy, 0u);
}

/* -1: a free place. */
static struct acc_bell *find(struct acc_segment *seg, int fd) {
    for (uint32_t i = 0; i < ACC_BELLS_MAX; i++) {
        if (seg->bells[i].fd == fd + 1) {
            return &seg->bells[i];
        }
    }
    return NULL;
}

static bool any_armed(const struct acc_segment *seg) {
    for (uint32_t i = 0; i < ACC_BELLS_MAX; i++) {
        if (seg->bells[i].fd != 0 && seg->bells[i].armed != 0) {
            return true;
        }
    }
    return false;
}

/* All of them, or those that are waited for.  With the list taken, so that no descriptor is closed,
 * and perhaps opened anew for something else, between the look and the write. */
static bool ring_bells(struct acc_segment *seg, bool all) {
    const uint64_t one = 1;
    take_list(seg);
    for (uint32_t i = 0; i < ACC_BELLS_MAX; i++) {
        if (seg->bells[i].fd != 0 && (all || seg->bells[i].armed != 0)) {
            /* Fails only if it would block: then it has been rung often enough. */
            ssize_t n = write(seg->bells[i].fd - 1, &one, sizeof one);
            (void)n;
        }
    }
    bool armed = any_armed(seg);
    give_list(seg);
    return armed;
}

/* --- the thread ------------------------------------------------------------------------------- */

static uint32_t *word_of(struct acc_segment *seg) {
    return &acc_process_slot(seg, seg->self_slot - 1)->doorbell;
}

static void *run(void *argument) {
    struct acc_segment *seg = argument;
    uint32_t mine = acc_load_acquire(&seg->ringer_of);
    if (mine == 0) {
        return NULL; /* told to stop before it had even begun */
    }
    uint32_t *word = word_of(seg);
    uint32_t before = acc_load_acquire(&seg->ringer_seen);
    for (;;) {
        /* The word first, then what it stands for (an order to stop, bells): whoever raises it after
         * this look ends the sleep at once. */
        uint32_t seen = acc_load_acquire(word);
        if (acc_load_acquire(&seg->ringer_of) != mine) {
            return NULL;
        }
        struct timespec pause = {.tv_nsec = TICK_NS};
        if (!ring_bells(seg, seen != before)) {
            pause = (struct timespec){.tv_sec = IDLE_SECONDS};
        }
        before = seen;
        syscall(SYS_futex, word, FUTEX_WAIT, seen, &pause, NULL, 0);
    }
}

/* Signals stay with the threads of the application. */
static bool start(struct acc_segment *seg) {
    sigset_t all, before;
    pthread_attr_t attributes;
    if (acc_incarnation(seg) == 0 || seg->self_slot == 0) {
        return false;
    }
    acc_store_release(&seg->ringer_of, acc_incarnation(seg));
    acc_store_release(&seg->ringer_seen, acc_load_acquire(word_of(seg)));
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256u << 10);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&seg->ringer, &attributes, run, seg) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    seg->self->has_ringer = started ? RINGER_RUNS : RINGER_NONE;
    return started;
}

/* --- for everybody ---------------------------------------------------------------------------- */

static void nudge(struct acc_segment *seg) {
    if (seg->self_slot != 0) {
        acc_add_release(word_of(seg), 1u);
        syscall(SYS_futex, word_of(seg), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
}

int acc_doorbell_open(struct acc_segment *seg) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return -1;
    }
    take_list(seg);
    struct acc_bell *bell = find(seg, -1);
    bool done = bell != NULL && (seg->self->has_ringer || start(seg));
    if (done) {
        *bell = (struct acc_bell){.fd = fd + 1};
    }
    give_list(seg);
    if (!done) {
        close(fd);
        errno = EAGAIN;
        return -1;
    }
    return fd;
}

void acc_doorbell_close(struct acc_segment *seg, int fd) {
    take_list(seg);
    struct acc_bell *bell = find(seg, fd);
    if (bell != NULL) {
        *bell = (struct acc_bell){0};
        close(fd);
    }
    give_list(seg);
}

void acc_doorbell_arm(struct acc_segment *seg, int fd, int change) {
    take_list(seg);
    struct acc_bell *bell = fd < 0 ? NULL : find(seg, fd);
    bool first = false;
    if (bell != NULL) {
        first = !any_armed(seg) && change > 0;
        bell->armed = (uint32_t)((int)bell->armed + change);
        if (!seg->self->has_ringer) {
            start(seg);
        }
    }
    give_list(seg);
    if (first) {
        nudge(seg); /* out of its long sleep */
    }
}

void acc_doorbell_stop(struct acc_segment *seg) {
    take_list(seg);
    bool running = seg->self->has_ringer == RINGER_RUNS;
    if (running) {
        acc_store_release(&seg->ringer_of, 0u);
        /* Until it is joined nobody starts the next: that one would be joined in its place. */
        seg->self->has_ringer = RINGER_ENDS;
    }
    give_list(seg);
    if (running) {
        nudge(seg);
        pthread_join(seg->ringer, NULL);
        take_list(seg);
        seg->self->has_ringer = RINGER_NONE;
        give_list(seg);
    }
}
