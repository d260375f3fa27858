/* Time in the segment: 32-bit units of 4 ms of CLOCK_MONOTONIC.
 *
 * The coarse clock costs 3 ns and itself moves in steps of 1 to 10 ms.  The circle of 32 bits is
 * 198 days; lives are cut at 90 days, and the measurement drops what has been expired for long, so
 * "before" and "after" are never in doubt.  0 means never. */
#ifndef ACC_CLOCK_H
#define ACC_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define ACC_UNIT_NS 4000000ull
#define ACC_UNITS_PER_SECOND 250u
#define ACC_LIFE_MAX (90u * 86400u * ACC_UNITS_PER_SECOND)

/* Units since the clock's zero, which never wrap. */
static inline uint64_t acc_clock_units_long(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * ACC_UNITS_PER_SECOND + (uint64_t)now.tv_nsec / ACC_UNIT_NS;
}

static inline uint32_t acc_clock_units(void) {
    return (uint32_t)acc_clock_units_long();
}

static inline bool acc_clock_passed(uint32_t end, uint32_t now) {
    return end != 0 && (int32_t)(now - end) >= 0;
}

uint64_t acc_clock_ns(void);
uint64_t acc_clock_ms(void);

/* `seconds` after `now`, rounded up to a unit, cut at ACC_LIFE_MAX, and never the 0 that means
 * never. */
uint32_t acc_clock_after(uint32_t now, double seconds);

#endif
