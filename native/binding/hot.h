/* One read in many is counted for the table of hot keys (hotkeys.h): how the hit path draws it. */
#ifndef ACC_BINDING_HOT_H
#define ACC_BINDING_HOT_H

#include "state.h"

/* This read is the one.  All that a hit pays for it: a decrement and a branch, on a line that it has
 * anyway.  (Asked for 0 alone, as that is one instruction with the decrement, and what is asked for
 * below 0 is four.  Without a GIL threads may lose each other's decrements, and pass it.) */
static inline bool hot_due(AreaObject *self) {
#ifdef ACC_NO_GIL
    int32_t left = acc_load_relaxed(&self->hot.left) - 1;
    acc_store_relaxed(&self->hot.left, left);
    return acc_unlikely(left <= 0);
#else
    return acc_unlikely(--self->hot.left == 0);
#endif
}

/* Draw the next one, of an area that was bound for the first time or has just counted. */
void hot_draw(AreaObject *self);

/* Count the read that was drawn. */
void hot_count(AreaObject *self, uint64_t hash);
/* The same, of a key that is remembered: where its item lies tells which it is, whatever the caller
 * has called it. */
void hot_count_entry(AreaObject *self, const struct object_entry *entry);

#endif
