/* Overrides: what an operator puts in the place of the configuration, of one area or of the whole
 * host, in all processes at once and while they run. */
#ifndef ACC_OVERRIDE_H
#define ACC_OVERRIDE_H

#include "stats.h"

/* Of a word: the value, if there is one that can be.  (Garbage is no override.) */
static inline bool acc_override_value(uint64_t word, enum acc_option option, uint32_t *value) {
    *value = (uint32_t)word - 1;
    return acc_unlikely((uint32_t)word != 0) && *value <= acc_option_most[option];
}

/* What is in force in a row: that of an area id, or acc_override_host(). */
static inline bool acc_override_look(const struct acc_segment *seg, uint32_t row,
                                     enum acc_option option, uint32_t *value) {
    return acc_override_value(acc_load_relaxed(&acc_override_row(seg, row)->word[option]), option,
                              value);
}

/* Almost every row is empty: they are all looked at ten times a second. */
static inline bool acc_override_none(const struct acc_segment *seg, uint32_t row) {
    const struct acc_overrides *at = acc_override_row(seg, row);
    uint64_t any = 0;
    for (uint32_t option = 0; option < ACC_OVERRIDE_SLOTS; option++) {
        any |= acc_load_relaxed(&at->word[option]);
    }
    return any == 0;
}

/* Longest time that one can be in force. */
#define ACC_OVERRIDE_SECONDS_MAX (90u * 86400u)

/* Put a value that can be into a row; for how long, rounded up to a second, 0: without a limit. */
void acc_override_set(struct acc_segment *seg, uint32_t row, enum acc_option option, uint32_t value,
                      uint64_t ns);
void acc_override_remove(struct acc_segment *seg, uint32_t row, enum acc_option option);

/* Names all that is in force, 0 if nothing is; two states have the same one once in 2^32. */
uint32_t acc_override_print(const struct acc_segment *seg);
/* That, and this process acts on it from here on: an area that was bound under another one is no
 * longer entered. */
uint32_t acc_override_notice(struct acc_segment *seg);
/* The same of rows as they were copied, one after the other: the print is of exactly these. */
void acc_override_copy(const struct acc_segment *seg, uint32_t row, struct acc_overrides *out);
uint64_t acc_override_sum(const struct acc_overrides *copy, uint32_t row);
/* The print of such sums, added up; this process acts on it. */
uint32_t acc_override_act(struct acc_segment *seg, uint64_t sum);
/* acc_override_notice(), and what has passed, or is garbage, is removed before. */
void acc_override_tick(struct acc_segment *seg);
/* The one that this process acts on. */
static inline uint32_t acc_override_acted(const struct acc_segment *seg) {
    uint64_t stamp = acc_load_acquire(&seg->self->stamp);
    return stamp != 0 ? (uint32_t)(stamp >> 32) : acc_load_relaxed(&seg->overrides);
}

/* How many living processes act on what is in force, of how many. */
void acc_override_seen(const struct acc_segment *seg, uint32_t *seen, uint32_t *alive);

/* Seconds for which a word that has a deadline is in force. */
double acc_override_left(const struct acc_segment *seg, uint64_t word);

/* What nobody of ours can have stored, each reported; their number. */
uint32_t acc_override_check(const struct acc_segment *seg, acc_report *report, void *context);

#endif
