#include "generation.h"

uint64_t acc_generation_bump(uint64_t *word, uint64_t hash) {
    uint16_t print = acc_generation_print(hash);
    for (;;) {
        uint64_t seen = acc_load_acquire(word);
        uint64_t run = (uint16_t)(seen >> 16) == print ? (uint16_t)seen : 0;
        if (run < UINT16_MAX) {
            run++;
        }
        uint64_t next =
            (uint64_t)(acc_generation_count(seen) + 1) << 32 | (uint64_t)print << 16 | run;
        /* A failed CAS means that another delete went through: the loop is lock-free. */
        if (acc_cas64(word, seen, next)) {
            /* The deleter looks for the item next.  A reader who saw the item's word, and after it
             * the generation before this one, relies on being found. */
            acc_fence_behind_cas();
            return seen;
        }
    }
}
