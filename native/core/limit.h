/* The limiter of log lines: one a kind and interval for the whole host. */
#ifndef ACC_LIMIT_H
#define ACC_LIMIT_H

#include "segment.h"

/* May a line of this kind (a hash of all that makes it one) be written?  -1: somebody has written one
 * within the interval; else how many were left out since then. */
int64_t acc_limit_allowed(struct acc_segment *seg, uint64_t kind, uint64_t interval_ns);

#endif
