/* Doorbells: how the end of a flight reaches an event loop, which must not sleep on a futex.
 *
 * Each process has a word in its slot of the segment.  Whoever ends a flight that an event loop of
 * that process waits for raises the word; a native thread of the process sleeps on it, and writes to
 * the eventfd of each loop that waits for something. */
#ifndef ACC_DOORBELL_H
#define ACC_DOORBELL_H

#include "process.h"

/* Tell the processes whose slots have this bit (slot number modulo 64). */
void acc_doorbell_ring(struct acc_segment *seg, uint32_t bit);

/* A bell for one event loop: an eventfd, -1 with errno if there is none to be had.  Starts the
 * thread with the first. */
int acc_doorbell_open(struct acc_segment *seg);
void acc_doorbell_close(struct acc_segment *seg, int fd);
/* `change` more waits have this bell.  While it has any, it rings each 50 ms as well, because a
 * leader may die without ringing anything. */
void acc_doorbell_arm(struct acc_segment *seg, int fd, int change);
/* End the thread; bells stay, and the next acc_doorbell_arm() starts it again. */
void acc_doorbell_stop(struct acc_segment *seg);

#endif
