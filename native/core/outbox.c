/* Owns the slots of the outbox, `next`, `behind` and `dropped` of the link block, and what areas owe.
 *
 * A ring of self-describing slots of 128 bytes.  A key longer than a slot's room takes up to four
 * slots more, in a row: slots for the longest key would hold a fifth as many entries of the usual
 * ones.  Numbers are given out by fetch_add; slot number % slots is the number's, and the rest of
 * the number, the lap, stands in the slot's control word beside owner and state:
 *
 *   EMPTY -> WRITING (owner) -> PENDING (owner) -> QUEUED | SENT -> HEARD       each by CAS
 *                            -> PART (of an entry whose head is so many slots before)
 *
 * Invariants: whoever sets WRITING under its incarnation is the only one to store into the slot
 * until it stores another state.  A slot in WRITING of a living process is never taken: who needs it
 * gives up his number and takes another.  The head is published (PENDING) last, behind its parts; an
 * entry whose write may have had any effect is PENDING at least, because the caller does nothing
 * before this returns.  A slot of an entry that was not sent is taken only when its area already owes
 * a clear.
 *
 * Killed behind fetch_add: a number without an entry, in whose slot an older one stays a lap longer;
 * `behind` waits for it until the ring has come round.  Killed in WRITING: nothing of the write was
 * done, the slots are anybody's.  Killed between parts and head: the same.  Killed in PENDING: its
 * owner is dead, so it is to be sent again.
 * Killed between the mark of what an area owes and the CAS that takes the slot: a clear too many.
 * Killed by acc_outbox_due() in the middle: entries dropped are needless whether it goes on or not.
 *
 * Stopped anywhere: while it holds slots in WRITING others pass them by; with a number and no slot,
 * it finds a later lap in the slot when it wakes, and takes another number.
 *
 * An entry that was QUEUED keeps GIVEN_UP as its owner when it moves on: whoever wrote it was told
 * that Redis did not take it, and what a connection still carried of it comes too late.
 *
 * Notes (the item that was stored) are written under the key's shard lock beside the published
 * entry, and carry a check with its number: a torn one, or one of an entry that has gone, is none,
 * and then the message is applied as a delete, which is always right.
 *
 * Garbage: a published entry that does not verify is dropped, and because nobody knows whose it was,
 * every watched area owes a clear. */
#include "outbox.h"

#include "version.h"

#include <stdlib.h>
#include <string.h>

enum state { EMPTY, WRITING, PENDING, QUEUED, SENT, HEARD, PART };

#define STATE_BITS 3
#define OWNER_BITS 30
#define OWNER_MASK ((1u << OWNER_BITS) - 1)
#define LAP_MASK 0x7fffffffu
#define TRIES 16  /* numbers before an append gives up: each was lost to somebody stopped */
#define ROUNDS 64 /* looks at one slot: a change means that another got something done */
#define GIVEN_UP OWNER_MASK /* for an owner, of what is SENT or HEARD: it was QUEUED before */
#define UNSENT_MOST 1024u   /* keys of an area that are told one by one */

/* --- numbers and control words ---------------------------------------------------------------- */

static uint32_t index_of(const struct acc_segment *seg, uint64_t number) {
    return (uint32_t)(number & (seg->geometry.outbox - 1));
}

static uint32_t lap_of(const struct acc_segment *seg, uint64_t number) {
    return (uint32_t)(number >> seg->geometry.outbox_bits) & LAP_MASK;
}

static struct acc_outbox_slot *slot_of(const struct acc_segment *seg, uint64_t number) {
    return acc_outbox_slot(seg, index_of(seg, number));
}

static uint64_t make(uint32_t lap, uint32_t owner, enum state state) {
    return (uint64_t)lap << (OWNER_BITS + STATE_BITS) | (uint64_t)owner << STATE_BITS |
           (uint64_t)state;
}

static uint64_t control_of(const struct acc_segment *seg, uint64_t number, uint32_t owner,
                           enum state state) {
    return make(lap_of(seg, number), owner, state);
}

static uint32_t lap_in(uint64_t control) {
    return (uint32_t)(control >> (OWNER_BITS + STATE_BITS));
}

static uint32_t owner_in(uint64_t control) {
    return (uint32_t)(control >> STATE_BITS) & OWNER_MASK;
}

static enum state state_in(uint64_t control) {
    return (enum state)(control & ((1u << STATE_BITS) - 1));
}

static bool is_unsent(enum state state) {
    return state == PENDING || state == QUEUED;
}

static bool is_published(enum state state) {
    return state >= PENDING && state <= HEARD;
}

/* The first number is that of lap 1, so that zeroed slots are of an earlier lap. */
static uint64_t next_number(const struct acc_segment *seg) {
    return acc_load_acquire(&acc_link(seg)->next) + seg->geometry.outbox;
}

static uint32_t slots_for(uint32_t key_size) {
    return key_size <= ACC_OUTBOX_KEY_HEAD
               ? 1
               : 1 + (key_size - ACC_OUTBOX_KEY_HEAD + ACC_OUTBOX_KEY_MORE - 1) /
                         ACC_OUTBOX_KEY_MORE;
}

static uint8_t *key_part(struct acc_outbox_slot *slot, uint32_t part, uint32_t *room) {
    *room = part == 0 ? ACC_OUTBOX_KEY_HEAD : ACC_OUTBOX_KEY_MORE;
    return part == 0 ? slot->key : (uint8_t *)slot + sizeof slot->control;
}

static uint32_t check_of(uint64_t number, uint64_t hash, uint32_t area, uint32_t kind,
                         const uint8_t *key, uint32_t key_size) {
    uint64_t fixed = acc_fold(number ^ 0xa0761d6478bd642full, hash ^ 0xe7037ed1a0b428dbull);
    uint64_t rest = (uint64_t)area << 32 | kind << 16 | key_size;
    return (uint32_t)(acc_fold(fixed ^ rest, 0x8ebc6af09c88c6e3ull) >> 16) ^
           acc_value_sum(key, key_size);
}

static uint32_t note_check(uint64_t number, uint64_t word, uint32_t sequence) {
    return (uint32_t)(acc_fold(acc_remix(number, 0x589965cc75374cc3ull) ^ word,
                               sequence ^ 0x1d8e4e27c47d124full) >>
                      16);
}

/* --- what areas owe --------------------------------------------------------------------------- */

static void owe(const struct acc_segment *seg, uint32_t area) {
    if (area < seg->geometry.areas) {
        acc_add_release(&acc_area_slot(seg, area)->owed, 1u);
    }
}

void acc_outbox_owe(struct acc_segment *seg, uint32_t area) {
    if (!seg->readonly) {
        owe(seg, area);
    }
}

static void owe_all(const struct acc_segment *seg) {
    for (uint32_t i = 0; i < seg->geometry.areas; i++) {
        if (acc_load_acquire(&acc_area_slot(seg, i)->watched) != 0) {
            owe(seg, i);
        }
    }
}

bool acc_outbox_owed(struct acc_segment *seg, uint32_t area) {
    uint32_t owed = acc_load_acquire(&acc_area_slot(seg, area)->owed);
    acc_store_relaxed(&seg->owed_seen[area], owed);
    return owed != acc_load_acquire(&acc_area_slot(seg, area)->paid);
}

/* What came to be owed since acc_outbox_owed() told stays owed. */
void acc_outbox_paid(struct acc_segment *seg, uint32_t area) {
    acc_store_release(&acc_area_slot(seg, area)->paid, acc_load_relaxed(&seg->owed_seen[area]));
}

/* --- reading an entry ------------------------------------------------------------------------- */

enum found { FOUND, GONE, DAMAGED };

static bool parts_intact(const struct acc_segment *seg, uint64_t number, uint32_t slots) {
    for (uint32_t part = 1; part < slots; part++) {
        uint64_t control = acc_load_relaxed(&slot_of(seg, number + part)->control);
        if (control != control_of(seg, number + part, part, PART)) {
            return false;
        }
    }
    return true;
}

/* Copy first, then see that `control` still stands there, then believe what verifies. */
static enum found read_entry(const struct acc_segment *seg, uint64_t number, uint64_t control,
                             struct acc_outbox_entry *out, uint64_t *hash) {
    struct acc_outbox_slot *head = slot_of(seg, number);
    uint32_t check = acc_load_relaxed(&head->check), copied = 0;
    *hash = acc_load_relaxed(&head->hash);
    out->number = number;
    out->area = acc_load_relaxed(&head->area);
    out->kind = acc_load_relaxed(&head->kind);
    out->key_size = acc_load_relaxed(&head->key_size);
    uint32_t slots = out->key_size <= sizeof out->key ? slots_for(out->key_size) : 1;
    bool sound = out->key_size <= sizeof out->key && out->area < seg->geometry.areas &&
                 out->kind <= ACC_NOTE_EXPIRE_TAG &&
                 (out->key_size == 0) == (out->kind == ACC_NOTE_CLEAR);
    for (uint32_t part = 0; sound && part < slots; part++) {
        uint32_t room, left = out->key_size - copied;
        const uint8_t *from = key_part(slot_of(seg, number + part), part, &room);
        memcpy(out->key + copied, from, left < room ? left : room);
        copied += left < room ? left : room;
    }
    acc_fence_acquire();
    bool intact = sound && parts_intact(seg, number, slots) &&
                  check == check_of(number, *hash, out->area, out->kind, out->key, out->key_size);
    if (acc_load_relaxed(&head->control) != control) {
        return GONE;
    }
    return intact ? FOUND : DAMAGED;
}

/* Take an entry out of the ring, whatever its state; its slots are free then. */
static bool drop(const struct acc_segment *seg, uint64_t number, uint64_t control) {
    return acc_cas64(&slot_of(seg, number)->control, control, control_of(seg, number, 0, EMPTY));
}

static void drop_damaged(const struct acc_segment *seg, uint64_t number, uint64_t control) {
    if (is_unsent(state_in(control))) {
        owe_all(seg);
    }
    if (drop(seg, number, control)) {
        acc_add_relaxed(&acc_link(seg)->dropped, (uint64_t)1);
    }
}

/* --- append ----------------------------------------------------------------------------------- */

/* The published entry of `number` is about to be overwritten.  True: it is out of the way. */
static bool push_out(const struct acc_segment *seg, uint64_t number, uint64_t control) {
    if (is_unsent(state_in(control))) {
        struct acc_outbox_entry entry;
        uint64_t hash;
        enum found found = read_entry(seg, number, control, &entry, &hash);
        if (found != FOUND) {
            if (found == DAMAGED) {
                drop_damaged(seg, number, control);
            }
            return false;
        }
        owe(seg, entry.area); /* killed behind this: a clear too many */
        if (!drop(seg, number, control)) {
            return false;
        }
        acc_add_relaxed(&acc_link(seg)->dropped, (uint64_t)1);
        return true;
    }
    return drop(seg, number, control);
}

/* The entry that an older PART belongs to.  False: look again. */
static bool push_out_head(const struct acc_segment *seg, uint64_t part_number, uint64_t control,
                          bool *blocked) {
    uint32_t distance = owner_in(control);
    if (distance == 0 || distance >= ACC_OUTBOX_SLOTS_MAX) {
        return true; /* garbage */
    }
    uint64_t number = part_number - distance;
    uint64_t head = acc_load_acquire(&slot_of(seg, number)->control);
    if (lap_in(head) != lap_of(seg, number)) {
        return true; /* overwritten before */
    }
    if (state_in(head) == WRITING) {
        /* About to be published, unless it was killed just here. */
        *blocked = !acc_process_dead(seg, owner_in(head));
        return true;
    }
    return !is_published(state_in(head)) || push_out(seg, number, head);
}

/* The number that the slot's control word belongs to, seen from a number of that slot. */
static uint64_t number_in(const struct acc_segment *seg, uint64_t number, uint64_t control) {
    int64_t laps = (int32_t)((lap_in(control) - lap_of(seg, number)) << 1) >> 1;
    return number + ((uint64_t)laps << seg->geometry.outbox_bits);
}

static bool is_given_out(const struct acc_segment *seg, uint64_t number) {
    return (int64_t)(next_number(seg) - number) > 0;
}

/* Has the ring come round since we got this number?  (What was never given out is garbage, or was
 * given out before garbage set `next` back: it goes, as older ones do.) */
static bool is_lapped(const struct acc_segment *seg, uint64_t number, uint64_t control) {
    uint64_t there = number_in(seg, number, control);
    return (int64_t)(there - number) > 0 && is_given_out(seg, there);
}

/* Make the slot of `number` ours to write.  False: it is somebody else's. */
static bool take_slot(struct acc_segment *seg, uint64_t number, uint32_t mine) {
    uint64_t *word = &slot_of(seg, number)->control;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t seen = acc_load_acquire(word);
        enum state state = state_in(seen);
        bool blocked = false;
        if (is_lapped(seg, number, seen)) {
            return false;
        }
        if (is_published(state) && !push_out(seg, number_in(seg, number, seen), seen)) {
            continue;
        }
        if (is_published(state)) {
            seen = make(lap_in(seen), 0, EMPTY); /* as push_out() left it */
        } else if (state == PART &&
                   !push_out_head(seg, number_in(seg, number, seen), seen, &blocked)) {
            continue;
        } else if (state == WRITING && is_given_out(seg, number_in(seg, number, seen))) {
            blocked = !acc_process_dead(seg, owner_in(seen));
        } /* else garbage that names a living process; a writer whose number garbage in `next` has
           * taken back finds its word gone when it publishes */
        if (blocked) {
            return false;
        }
        if (acc_cas64(word, seen, control_of(seg, number, mine, WRITING))) {
            return true;
        }
    }
    return false;
}

/* All slots of an entry, or none. */
static bool take_slots(struct acc_segment *seg, uint64_t number, uint32_t slots, uint32_t mine) {
    for (uint32_t part = 0; part < slots; part++) {
        if (!take_slot(seg, number + part, mine)) {
            while (part-- > 0) {
                acc_cas64(&slot_of(seg, number + part)->control,
                          control_of(seg, number + part, mine, WRITING),
                          control_of(seg, number + part, 0, EMPTY));
            }
            return false;
        }
    }
    return true;
}

/* Fields of slots that are ours, then the parts, then the head. */
static bool publish(struct acc_segment *seg, const struct acc_outbox_entry *entry, uint64_t hash,
                    uint32_t mine) {
    uint64_t number = entry->number;
    struct acc_outbox_slot *head = slot_of(seg, number);
    uint32_t slots = slots_for(entry->key_size), copied = 0;
    acc_store_relaxed(&head->appended, acc_now_ns(seg));
    acc_store_relaxed(&head->settled, (uint64_t)0);
    acc_store_relaxed(&head->hash, hash);
    acc_store_relaxed(&head->item_word, (uint64_t)0);
    acc_store_relaxed(&head->area, (uint16_t)entry->area);
    acc_store_relaxed(&head->kind, (uint8_t)entry->kind);
    acc_store_relaxed(&head->key_size, (uint16_t)entry->key_size);
    acc_store_relaxed(&head->check, check_of(number, hash, entry->area, entry->kind, entry->key,
                                             entry->key_size));
    for (uint32_t part = 0; part < slots; part++) {
        uint32_t room, left = entry->key_size - copied;
        uint8_t *to = key_part(slot_of(seg, number + part), part, &room);
        memcpy(to, entry->key + copied, left < room ? left : room);
        copied += left < room ? left : room;
    }
    for (uint32_t part = 1; part < slots; part++) {
        if (!acc_cas64(&slot_of(seg, number + part)->control,
                       control_of(seg, number + part, mine, WRITING),
                       control_of(seg, number + part, part, PART))) {
            return false;
        }
    }
    /* Fails only if this process was taken out of the segment meanwhile, and its slots with it. */
    return acc_cas64(&head->control, control_of(seg, number, mine, WRITING),
                     control_of(seg, number, mine, PENDING));
}

uint64_t acc_outbox_append(struct acc_area *area, const struct acc_key *key, enum acc_note kind) {
    struct acc_segment *seg = area->seg;
    struct acc_outbox_entry entry = {.area = area->base,
                                     .kind = key == NULL ? ACC_NOTE_CLEAR : kind};
    uint32_t mine = acc_incarnation(seg);
    if (seg->readonly) {
        return 0;
    }
    if (key != NULL) {
        entry.key_size = key->size + 1;
        entry.key[0] = key->tag;
        memcpy(entry.key + 1, key->data, key->size);
    }
    uint32_t slots = slots_for(entry.key_size);
    for (int tries = 0; mine != 0 && tries < TRIES; tries++) {
        entry.number =
            acc_add_release(&acc_link(seg)->next, (uint64_t)slots) + seg->geometry.outbox;
        if (take_slots(seg, entry.number, slots, mine) &&
            publish(seg, &entry, key == NULL ? 0 : key->hash, mine)) {
            /* Another thread may have taken this process out meanwhile: then the entry may have been
             * passed over as a dead one's that was never shown.  (There the id, then the byte; here
             * the state, then the id.) */
            acc_fence_behind_cas();
            if (acc_incarnation(seg) == mine) {
                return entry.number;
            }
            break;
        }
    }
    owe(seg, area->base);
    return 0;
}

/* --- what becomes of an entry ----------------------------------------------------------------- */

void acc_outbox_note_locked(struct acc_segment *seg, uint64_t number, uint64_t word,
                            uint32_t sequence) {
    struct acc_outbox_slot *slot = slot_of(seg, number);
    uint64_t wanted = control_of(seg, number, acc_incarnation(seg), PENDING);
    if (acc_load_acquire(&slot->control) == wanted) {
        /* Overwritten between these stores, it is a note that does not verify. */
        acc_store_relaxed(&slot->item_word, word);
        acc_store_relaxed(&slot->item_sequence, sequence);
        acc_store_release(&slot->item_check, note_check(number, word, sequence));
    }
}

/* Move an entry on to `to`.  False: it is not there, or not in a state that leads there. */
static bool move_on(struct acc_segment *seg, uint64_t number, enum state to) {
    struct acc_outbox_slot *slot = slot_of(seg, number);
    for (;;) {
        uint64_t seen = acc_load_acquire(&slot->control);
        enum state from = state_in(seen);
        if (lap_in(seen) != lap_of(seg, number) || !is_published(from) || from >= to) {
            return false;
        }
        if (to >= SENT) {
            acc_store_relaxed(&slot->settled,
                              acc_now_ns(seg)); /* a hint: killed behind it, no harm */
        }
        uint32_t mark = to < SENT        ? 0
                        : from == QUEUED ? GIVEN_UP
                        : from < SENT    ? 0
                                         : owner_in(seen);
        /* A failed CAS: another has moved it on, and it only ever moves on. */
        if (acc_cas64(&slot->control, seen, control_of(seg, number, mark, to))) {
            return true;
        }
    }
}

void acc_outbox_settle(struct acc_segment *seg, uint64_t number, bool sent) {
    if (!seg->readonly) {
        move_on(seg, number, sent ? SENT : QUEUED);
    }
}

/* Is the item that was noted what a reader of the key would find? */
static bool holds_noted(struct acc_segment *seg, const struct acc_outbox_entry *entry,
                        uint64_t hash) {
    const struct acc_outbox_slot *slot = slot_of(seg, entry->number);
    uint64_t word = acc_load_relaxed(&slot->item_word);
    uint32_t sequence = acc_load_relaxed(&slot->item_sequence);
    if (word == 0 ||
        acc_load_acquire(&slot->item_check) != note_check(entry->number, word, sequence)) {
        return false;
    }
    struct acc_area area;
    acc_area_at(seg, entry->area, &area);
    struct acc_key key = {
        .data = entry->key + 1, .size = entry->key_size - 1, .tag = entry->key[0], .hash = hash};
    struct acc_home home = acc_home_of(seg, hash);
    struct acc_found found;
    /* Of whichever version: the entry tells of the area only. */
    return acc_versions_find(&area, &home, &key, word, &found) && found.view.sequence == sequence &&
           acc_found_live(&area, &found, hash) && acc_read_valid(&found);
}

/* Need the message of an own write not be applied?  A set: its item is still the one that readers
 * find.  A delete by tag concerns values that nobody can list, and newer ones too if it is done
 * again: its sender drops a second time behind L2, and only then says that it was sent. */
static bool is_done_here(struct acc_segment *seg, const struct acc_outbox_entry *entry,
                         enum state state, uint64_t hash) {
    if (entry->kind == ACC_NOTE_FORGET_TAG || entry->kind == ACC_NOTE_EXPIRE_TAG) {
        return state == SENT || state == HEARD;
    }
    return entry->kind == ACC_NOTE_SET && holds_noted(seg, entry, hash);
}

bool acc_outbox_heard(struct acc_segment *seg, uint64_t number) {
    if (seg->readonly) {
        return false;
    }
    uint64_t control = acc_load_acquire(&slot_of(seg, number)->control), hash;
    struct acc_outbox_entry entry;
    bool skip = lap_in(control) == lap_of(seg, number) && is_published(state_in(control)) &&
                read_entry(seg, number, control, &entry, &hash) == FOUND &&
                is_done_here(seg, &entry, state_in(control), hash);
    move_on(seg, number, HEARD);
    return skip;
}

bool acc_outbox_given_up(const struct acc_segment *seg, uint64_t number) {
    uint64_t control = acc_load_acquire(&slot_of(seg, number)->control);
    uint64_t age = next_number(seg) - number; /* 1: the newest */
    if (number < seg->geometry.outbox || age - 1 >= seg->geometry.outbox ||
        lap_in(control) != lap_of(seg, number)) {
        return false; /* never given out, or nobody knows any more */
    }
    enum state state = state_in(control);
    return state == EMPTY || state == QUEUED || /* EMPTY: dropped, as a newer one spoke for it */
           ((state == SENT || state == HEARD) && owner_in(control) == GIVEN_UP);
}

/* --- going through the ring ------------------------------------------------------------------- */

/* Numbers that may still stand in the ring: those of the last lap, and those of the one before,
 * because who has a number has not taken its slot yet (and killed there, never does). */
static uint64_t oldest_number(const struct acc_segment *seg, uint64_t end) {
    return end - 2 * (uint64_t)seg->geometry.outbox;
}

/* Where those begin that are not known to be sent. */
static uint64_t first_unsettled(const struct acc_segment *seg, uint64_t end) {
    uint64_t behind = acc_load_acquire(&acc_link(seg)->behind) + seg->geometry.outbox;
    uint64_t oldest = oldest_number(seg, end);
    return end - behind <= end - oldest ? behind : oldest;
}

/* What stands under a number: of another lap, nothing (yet). */
static uint64_t control_at(const struct acc_segment *seg, uint64_t number, bool *present) {
    uint64_t control = acc_load_acquire(&slot_of(seg, number)->control);
    *present = lap_in(control) == lap_of(seg, number);
    return control;
}

/* Will it never again be unsent?  Not so of a number whose owner has yet to take the slot, unless
 * the slot has gone on to a later one. */
static bool is_settled(const struct acc_segment *seg, uint64_t number) {
    bool present;
    uint64_t control = control_at(seg, number, &present);
    if (!present) {
        return (int64_t)(number_in(seg, number, control) - number) > 0;
    }
    if (state_in(control) == WRITING) {
        return acc_process_dead(seg, owner_in(control)); /* never published */
    }
    return !is_unsent(state_in(control));
}

/* Owners that have just been asked after: those of a ring full of entries are few. */
struct lives {
    uint32_t owner;
    bool dead;
};

static bool is_due(const struct acc_segment *seg, uint64_t control, struct lives *lives) {
    if (state_in(control) != PENDING) {
        return state_in(control) == QUEUED;
    }
    uint32_t owner = owner_in(control);
    if (lives->owner != owner || owner == 0) {
        *lives = (struct lives){owner, acc_process_dead(seg, owner)};
    }
    return lives->dead;
}

/* Raise `behind` past what is settled, and tell where the rest begins. */
static uint64_t skip_settled(struct acc_segment *seg, uint64_t end) {
    uint64_t *behind = &acc_link(seg)->behind, seen = acc_load_acquire(behind);
    uint64_t number = first_unsettled(seg, end);
    while (number != end && is_settled(seg, number)) {
        number++;
    }
    uint64_t wanted = number - seg->geometry.outbox;
    if (!seg->readonly && wanted != seen) {
        acc_cas64(behind, seen, wanted); /* fails if another has raised it: as good */
    }
    return number;
}

/* Hashes of keys, and areas, that a newer entry speaks for. */
struct seen {
    uint64_t *slot;
    uint32_t mask;
};

static bool seen_before(const struct seen *seen, uint64_t hash) {
    hash += hash == 0;
    for (uint32_t at = (uint32_t)(hash >> 32);; at++) {
        uint64_t there = seen->slot[at & seen->mask];
        if (there == 0 || there == hash) {
            return there == hash;
        }
    }
}

static void see(struct seen *seen, uint64_t hash) {
    hash += hash == 0;
    for (uint32_t at = (uint32_t)(hash >> 32);; at++) {
        uint64_t *there = &seen->slot[at & seen->mask];
        if (*there == 0 || *there == hash) {
            *there = hash;
            return;
        }
    }
}

/* Stand for a whole area, and for the expires of a key, among the hashes. */
static uint64_t area_hash(uint32_t area) {
    return acc_remix(area, 0xc2b2ae3d27d4eb4full);
}

static uint64_t expire_hash(uint64_t hash) {
    return acc_remix(hash, 0x9fb21c651e98df25ull);
}

static bool is_expire(const struct acc_outbox_entry *entry) {
    return entry->kind == ACC_NOTE_EXPIRE || entry->kind == ACC_NOTE_EXPIRE_TAG;
}

/* What an entry speaks for.  An expire leaves a stale copy in the second level, which is what an
 * older delete of the key was about: it speaks for older expires only. */
static uint64_t spoken(const struct acc_outbox_entry *entry, uint64_t hash) {
    return entry->kind == ACC_NOTE_CLEAR ? area_hash(entry->area)
           : is_expire(entry)            ? expire_hash(hash)
                                         : hash;
}

static bool spoken_for(const struct seen *seen, const struct acc_outbox_entry *entry,
                       uint64_t hash) {
    return seen_before(seen, area_hash(entry->area)) ||
           (entry->kind != ACC_NOTE_CLEAR && seen_before(seen, hash)) ||
           (is_expire(entry) && seen_before(seen, expire_hash(hash)));
}

/* From the newest entry to the oldest: note what each speaks for; drop what a newer one has said. */
static uint32_t drop_needless(struct acc_segment *seg, uint64_t from, uint64_t end,
                              struct seen *seen, uint64_t *due) {
    struct lives lives = {0};
    uint32_t count = 0;
    for (uint64_t number = end; number != from;) {
        bool present;
        uint64_t control = control_at(seg, --number, &present), hash;
        struct acc_outbox_entry entry;
        bool is_to_send = present && is_due(seg, control, &lives);
        if (!present || !(is_to_send || state_in(control) == SENT || state_in(control) == HEARD)) {
            continue;
        }
        enum found found = read_entry(seg, number, control, &entry, &hash);
        if (found != FOUND) {
            if (found == DAMAGED) {
                drop_damaged(seg, number, control);
            }
            continue;
        }
        bool needless = spoken_for(seen, &entry, hash);
        see(seen, spoken(&entry, hash));
        if (is_to_send && needless) {
            drop(seg, number, control);
        } else if (is_to_send) {
            due[count++] = number;
        }
    }
    return count;
}

/* Entries under these numbers, newest first as they come, oldest first as they are given. */
static enum acc_status copy_entries(const struct acc_segment *seg, const uint64_t *numbers,
                                    uint32_t count, uint32_t limit, struct acc_outbox_entry **out,
                                    uint32_t *copied) {
    uint32_t most = count < limit ? count : limit;
    *copied = 0;
    *out = most == 0 ? NULL : malloc(most * sizeof **out);
    if (most == 0) {
        return ACC_OK;
    }
    if (*out == NULL) {
        return ACC_ESYS;
    }
    for (uint32_t i = count; i-- > 0 && *copied < most;) {
        bool present;
        uint64_t control = control_at(seg, numbers[i], &present), hash;
        *copied += present && is_published(state_in(control)) &&
                   read_entry(seg, numbers[i], control, *out + *copied, &hash) == FOUND;
    }
    return ACC_OK;
}

enum acc_status acc_outbox_due(struct acc_segment *seg, uint32_t limit,
                               struct acc_outbox_entry **out, uint32_t *count) {
    uint64_t end = next_number(seg), from = skip_settled(seg, end);
    uint64_t entries = end - from;
    *out = NULL;
    *count = 0;
    if (entries == 0 || seg->readonly) {
        return ACC_OK;
    }
    uint64_t slots = 4;
    while (slots < 2 * entries) {
        slots *= 2;
    }
    struct seen seen = {calloc(slots, sizeof *seen.slot), (uint32_t)slots - 1};
    uint64_t *due = malloc(entries * sizeof *due);
    enum acc_status status = ACC_ESYS;
    if (seen.slot != NULL && due != NULL) {
        uint32_t found = drop_needless(seg, from, end, &seen, due);
        status = copy_entries(seg, due, found, limit, out, count);
    }
    free(seen.slot);
    free(due);
    return status;
}

enum acc_status acc_outbox_recent(struct acc_segment *seg, uint64_t ns,
                                  struct acc_outbox_entry **out, uint32_t *count) {
    uint64_t end = next_number(seg), now = acc_now_ns(seg);
    uint64_t *numbers = malloc(seg->geometry.outbox * sizeof *numbers);
    uint32_t found = 0;
    *out = NULL;
    *count = 0;
    if (numbers == NULL) {
        return ACC_ESYS;
    }
    for (uint64_t number = end; number != oldest_number(seg, end);) {
        bool present;
        uint64_t control = control_at(seg, --number, &present);
        uint64_t settled = acc_load_relaxed(&slot_of(seg, number)->settled);
        if (present && (state_in(control) == SENT || state_in(control) == HEARD) &&
            now - settled <= ns) {
            numbers[found++] = number;
        }
    }
    enum acc_status status = copy_entries(seg, numbers, found, found, out, count);
    free(numbers);
    return status;
}

/* Add an entry to those that are told.  False: no memory. */
static bool tell(struct acc_outbox_entry **out, uint32_t *count,
                 const struct acc_outbox_entry *entry) {
    if ((*count & (*count - 1)) == 0) { /* 0, or a power of two: full */
        void *more = realloc(*out, (*count == 0 ? 1 : 2 * (size_t)*count) * sizeof **out);
        if (more == NULL) {
            return false;
        }
        *out = more;
    }
    (*out)[(*count)++] = *entry;
    return true;
}

/* Whoever queued an entry has returned, or is about to; whoever died with it PENDING never will. */
enum acc_status acc_outbox_unsent(struct acc_segment *seg, uint32_t area,
                                  struct acc_outbox_entry **out, uint32_t *count, bool *whole) {
    const struct acc_area_slot *slot = acc_area_slot(seg, area);
    uint64_t end = next_number(seg), hash;
    *out = NULL;
    *count = 0;
    *whole = acc_load_acquire(&slot->owed) != acc_load_acquire(&slot->paid);
    for (uint64_t number = skip_settled(seg, end); number != end && !*whole; number++) {
        bool present;
        uint64_t control = control_at(seg, number, &present);
        struct acc_outbox_entry entry;
        if (!present || state_in(control) != QUEUED ||
            read_entry(seg, number, control, &entry, &hash) != FOUND || entry.area != area) {
            continue;
        }
        if (entry.kind == ACC_NOTE_CLEAR || *count == UNSENT_MOST) {
            *whole = true;
        } else if (!tell(out, count, &entry)) {
            return ACC_ESYS;
        }
    }
    return ACC_OK;
}

struct acc_outbox_info acc_outbox_look(const struct acc_segment *seg) {
    struct acc_outbox_info info = {.dropped = acc_load_relaxed(&acc_link(seg)->dropped)};
    struct lives lives = {0};
    uint64_t end = next_number(seg), now = acc_now_ns(seg);
    for (uint64_t number = first_unsettled(seg, end); number != end; number++) {
        bool present;
        uint64_t control = control_at(seg, number, &present);
        if (present && is_due(seg, control, &lives)) {
            uint64_t appended = acc_load_relaxed(&slot_of(seg, number)->appended);
            uint64_t age = appended <= now ? now - appended : 0;
            info.depth++;
            info.oldest_age_ns = age > info.oldest_age_ns ? age : info.oldest_age_ns;
        }
    }
    return info;
}

/* --- check ------------------------------------------------------------------------------------ */

uint32_t acc_outbox_check(const struct acc_segment *seg, acc_report *report, void *context) {
    uint64_t end = next_number(seg);
    uint32_t violations = 0;
    for (uint64_t number = end - seg->geometry.outbox; number != end; number++) {
        uint64_t control = acc_load_acquire(&slot_of(seg, number)->control), hash;
        struct acc_outbox_entry entry;
        const char *what = NULL;
        uint64_t of = number_in(seg, number, control);
        if (!is_given_out(seg, of)) {
            what = "outbox: an entry has a number that was not given out";
        } else if (state_in(control) > PART) {
            what = "outbox: a slot is in no state that there is";
        } else if (is_published(state_in(control)) &&
                   read_entry(seg, of, control, &entry, &hash) == DAMAGED) {
            what = "outbox: an entry does not verify";
        }
        if (what != NULL) {
            report(context, what);
            violations++;
        }
    }
    return violations;
}
