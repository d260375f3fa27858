/* How areas are configured, for people: numbers of which only Python knows the meaning. */
#ifndef ACC_FACTS_H
#define ACC_FACTS_H

#include "segment.h"

/* Keep the numbers of an area (those behind `count` are 0); nothing is stored if they are there.
 * True: others were. */
bool acc_facts_write(struct acc_segment *seg, uint32_t area, const uint32_t *facts, uint32_t count);

/* What was written last.  False: nothing was, or it does not verify. */
bool acc_facts_read(const struct acc_segment *seg, uint32_t area, uint32_t facts[ACC_FACTS],
                    uint32_t *changed);

#endif
