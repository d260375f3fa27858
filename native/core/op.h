/* An operation on one key under the lock of its shard: what writes (cache.c) and loads (load.c) are
 * made of. */
#ifndef ACC_OP_H
#define ACC_OP_H

#include "evict.h"
#include "flight.h"
#include "outbox.h"
#include "read.h"

struct op {
    struct acc_area *area;
    const struct acc_key *key;
    struct acc_home home;
    struct acc_found old;
    bool has_old;       /* a word names an item of this key; it may be dead */
    uint32_t value_sum; /* of what is to be written */
    uint64_t generation;
    uint32_t area_count;
};

/* Take the lock and look the key up; `write`: what may be stored, or NULL.  False: not to be had
 * within the budget. */
bool acc_op_begin(struct op *op, struct acc_area *area, const struct acc_key *key,
                  const struct acc_write *write, uint64_t budget_ns);
void acc_op_end(const struct op *op);

/* The same in parts, for the store that is hot: all that can be done before the lock is taken, and
 * a guess where the key's word is (bucket NULL: none); then, under the lock, the look-up. */
struct acc_slot acc_op_approach(struct op *op, struct acc_area *area, const struct acc_key *key,
                                const struct acc_write *write);
void acc_op_look_up_at(struct op *op, struct acc_slot guess);
/* Look once more, because something has changed under the lock. */
void acc_op_look_up(struct op *op);

/* Is there a value to go by, fresh or stale?  A fresh one?  (Its record is op->old.view.record.) */
bool acc_op_live(const struct op *op);
bool acc_op_fresh(const struct op *op);
/* Store, if the write's mode, token and ticket allow it. */
enum acc_status acc_op_store(struct op *op, const struct acc_write *write);
/* Leave the value in a ring where no index word names it.  False: it does not fit. */
bool acc_op_leave_unnamed(struct op *op, const struct acc_write *write, uint64_t *handed);

#endif
