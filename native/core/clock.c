#include "clock.h"

uint32_t acc_clock_lag(void) {
    struct timespec step;
    if (clock_getres(CLOCK_MONOTONIC_COARSE, &step) != 0) {
        return 4; /* 10 ms, the longest step there is (HZ=100), and one */
    }
    uint64_t ns = (uint64_t)step.tv_sec * 1000000000u + (uint64_t)step.tv_nsec;
    return (uint32_t)((ns + ACC_UNIT_NS - 1) / ACC_UNIT_NS) + 1;
}

uint64_t acc_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint64_t acc_clock_ms(void) {
    return acc_clock_ns() / 1000000u;
}

uint32_t acc_clock_after(uint32_t now, double seconds) {
    double exact = seconds * (double)ACC_UNITS_PER_SECOND;
    uint32_t units = exact >= (double)ACC_LIFE_MAX ? ACC_LIFE_MAX : (uint32_t)exact;
    if ((double)units < exact && units < ACC_LIFE_MAX) {
        units++;
    }
    uint32_t end = now + units;
    return end == 0 ? 1 : end;
}
