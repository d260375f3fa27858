/* The ring of events: what the processes of this host did last, and what they are doing; also what
 * one was doing when it was killed. */
#ifndef ACC_EVENTS_H
#define ACC_EVENTS_H

#include "process.h"

struct acc_event {
    uint64_t number;      /* given to it, from 1 on */
    uint64_t time_ns;     /* since the Unix epoch: when it began, or if nobody said so, ended */
    uint64_t took_ns;     /* of one that is over */
    uint64_t hash;        /* of the key; 0: of none */
    uint32_t pid;         /* who */
    uint32_t incarnation; /* 0: not registered */
    uint32_t area;        /* id + 1; 0: of none */
    uint32_t count;
    bool running;
    char op[ACC_EVENT_OP_SIZE]; /* filled up with 0 */
    char result[ACC_EVENT_RESULT_SIZE];
    char error_kind[ACC_EVENT_KIND_SIZE];
};

/* Note one that begins: op, area, hash and count are the caller's.  Its number; 0: not noted. */
uint64_t acc_event_begin(struct acc_segment *seg, const struct acc_event *event);
/* Note its end: result, error_kind and took_ns.  Nothing if it has been overwritten, or ended, or
 * was begun by another process. */
void acc_event_end(struct acc_segment *seg, uint64_t number, const struct acc_event *event);
/* Both at once. */
void acc_event_add(struct acc_segment *seg, const struct acc_event *event);

/* All that verify, the newest first; no more than `most`, their number. */
uint32_t acc_events_read(const struct acc_segment *seg, struct acc_event *out, uint32_t most);

/* What nobody of ours can have stored, each reported; their number. */
uint32_t acc_events_check(const struct acc_segment *seg, acc_report *report, void *context);

#endif
