/* Which keys are read most, of all processes: a table that does not grow, from one read in many. */
#ifndef ACC_HOTKEYS_H
#define ACC_HOTKEYS_H

#include "hash.h"
#include "segment.h"

/* Of so many reads one is counted, any of them alike. */
#define ACC_HOT_SAMPLE 1024u
/* What is counted is of this time and of the same time before it. */
#define ACC_HOT_WINDOW_MS 30000u

/* Who reads, as it draws the reads that are to be counted.  Private. */
struct acc_hot_draw {
    int32_t left; /* reads until the next one; not above 0: this is it */
    int32_t rest; /* of the present ACC_HOT_SAMPLE those behind that one */
};

/* The next one, at random in the next ACC_HOT_SAMPLE reads: so each read has the same chance to be
 * counted, also those of somebody who reads but a few times.  `draw` of zeros begins. */
static inline void acc_hot_draw_next(struct acc_hot_draw *draw, uint64_t random) {
    int32_t at = 1 + (int32_t)acc_range((uint32_t)(random >> 32), ACC_HOT_SAMPLE);
    draw->left = draw->rest + at;
    draw->rest = (int32_t)ACC_HOT_SAMPLE - at;
}

/* Count a read that was drawn; the area is the plain one.  Takes no lock. */
void acc_hot_count(struct acc_segment *seg, uint32_t area, uint64_t hash);

struct acc_hot_key {
    uint64_t hash;
    uint32_t area;
    double rate; /* reads a second */
};

/* The most read keys, the hottest first, at most `most`; how many there are. */
uint32_t acc_hot_top(const struct acc_segment *seg, struct acc_hot_key *out, uint32_t most);
/* Reads a second of all keys. */
double acc_hot_total(const struct acc_segment *seg);

/* Entries of the table. */
static inline uint32_t acc_hot_entries(const struct acc_segment *seg) {
    return seg->geometry.hot * ACC_HOT_WAYS;
}

#endif
