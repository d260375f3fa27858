/* What the methods of Segment for the second level take and give.
 *
 * Times from and to Python are seconds, points of time those of CLOCK_MONOTONIC, which is
 * time.monotonic().  What answers bool is false with an exception set. */
#ifndef ACC_BINDING_SEGMENT_ARGS_H
#define ACC_BINDING_SEGMENT_ARGS_H

#include "state.h"

static inline struct acc_segment *seg_of(PyObject *op) {
    return ((SegmentObject *)op)->seg;
}

/* Most words of the link need no identity: also a process that the segment has fenced may store
 * them, so that no request fails because of that. */
bool writable(struct acc_segment *seg);

/* Registered, if that is to be had; no exception. */
bool is_entered(struct acc_segment *seg);

/* Seconds to nanoseconds: what is before the clock's zero is its zero, what is behind all times
 * ends at the last one. */
bool ns_of(double seconds, uint64_t *out);

/* The same of a point of time, which is finite. */
bool time_of(double seconds, uint64_t *out);

/* ns_of() of an object. */
bool ns_from(PyObject *object, uint64_t *out);

bool number_from(PyObject *object, uint64_t *out);

/* Takes the reference; `one` may be NULL, with its exception. */
bool append_own(PyObject *list, PyObject *one);

static inline double seconds_of(uint64_t ns) {
    return (double)ns / 1e9;
}

/* The slot of an area that is named by a str; *out NULL: no such area. */
bool area_from(struct acc_segment *seg, PyObject *name, struct acc_area_slot **out);

static inline uint32_t id_of(const struct acc_segment *seg, const struct acc_area_slot *slot) {
    return (uint32_t)(slot - acc_area_slot(seg, 0));
}

/* A list of the names of the areas of which `has` is true. */
PyObject *names_of(struct acc_segment *seg, bool (*has)(struct acc_segment *seg, uint32_t area));

#endif
