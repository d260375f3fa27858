/* The outbox: explicit writes that are not known to have reached the second level.
 *
 * An entry is appended before anything of the write is done, and settled when its fate is known.
 * What was not sent is sent later, as a delete, by whoever listens for the host.  The ring overwrites
 * its oldest entries; one that was not sent leaves behind that its area owes a clear. */
#ifndef ACC_OUTBOX_H
#define ACC_OUTBOX_H

#include "read.h"

enum acc_note {
    ACC_NOTE_FORGET = 0,
    ACC_NOTE_SET = 1,
    ACC_NOTE_EXPIRE = 2,
    ACC_NOTE_CLEAR = 3,
    ACC_NOTE_FORGET_TAG = 4, /* of a tag, whose key is the tag behind ACC_TAG_TAG */
    ACC_NOTE_EXPIRE_TAG = 5,
};

/* An entry of this key; NULL: of the whole area.  Its number, more than 0.  0: it could not be made,
 * and the area owes a clear. */
uint64_t acc_outbox_append(struct acc_area *area, const struct acc_key *key, enum acc_note kind);
/* Tell the entry which item was stored for it; shard lock held. */
void acc_outbox_note_locked(struct acc_segment *seg, uint64_t number, uint64_t word,
                            uint32_t sequence);
/* The write was sent; or it was not, and is to be sent again.  Nothing if the entry is gone. */
void acc_outbox_settle(struct acc_segment *seg, uint64_t number, bool sent);
/* The message of the entry has come back.  True: it need not be applied, because the item that this
 * very write stored still is what readers of the key find, or a delete by tag has been settled as
 * sent, which its sender does behind its second drop. */
bool acc_outbox_heard(struct acc_segment *seg, uint64_t number);

/* Was the caller of this write told that it was not taken?  A message of it is then one that comes
 * late: what was written since may have been overwritten by it. */
bool acc_outbox_given_up(const struct acc_segment *seg, uint64_t number);

struct acc_outbox_entry {
    uint64_t number;
    uint32_t area;
    uint32_t kind;
    uint32_t key_size; /* with the tag byte; 0: a clear */
    uint8_t key[ACC_KEY_MAX + 1];
};

/* At most `limit` entries that are to be sent again, oldest first; those that a newer entry makes
 * needless are dropped on the way.  The caller frees *out.  ACC_ESYS: no memory. */
enum acc_status acc_outbox_due(struct acc_segment *seg, uint32_t limit,
                               struct acc_outbox_entry **out, uint32_t *count);
/* Those that were settled as sent within the last `ns`, oldest first. */
enum acc_status acc_outbox_recent(struct acc_segment *seg, uint64_t ns,
                                  struct acc_outbox_entry **out, uint32_t *count);

/* The entries of an area whose callers were told that they are to be sent again: until they are, the
 * second level has what was forgotten here.  *whole: any key may be such a one.  The caller frees
 * *out, whatever is returned.  ACC_ESYS: no memory. */
enum acc_status acc_outbox_unsent(struct acc_segment *seg, uint32_t area,
                                  struct acc_outbox_entry **out, uint32_t *count, bool *whole);

/* Have the area owe a clear: one add, so killed before it nothing has
 * happened, and behind it the leader clears the area on all hosts, this one among them. */
void acc_outbox_owe(struct acc_segment *seg, uint32_t area);
/* Does the area owe a clear?  Telling so remembers how much, for acc_outbox_paid(). */
bool acc_outbox_owed(struct acc_segment *seg, uint32_t area);
void acc_outbox_paid(struct acc_segment *seg, uint32_t area);

struct acc_outbox_info {
    uint64_t depth; /* entries that are to be sent again */
    uint64_t oldest_age_ns;
    uint64_t dropped;
};

struct acc_outbox_info acc_outbox_look(const struct acc_segment *seg);

uint32_t acc_outbox_check(const struct acc_segment *seg, acc_report *report, void *context);

#endif
