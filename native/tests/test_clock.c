/* Times in 32 bits: rounding, the longest life, and the circle. */
#include "harness.h"

static void passed_on_the_circle(void) {
    CHECK(!acc_clock_passed(0, 0));
    CHECK(!acc_clock_passed(0, UINT32_MAX));
    const uint32_t starts[] = {1, 1000, 0x7fffffffu, 0x80000000u, UINT32_MAX - 5, UINT32_MAX};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        uint32_t end = starts[i];
        CHECK(acc_clock_passed(end, end));
        CHECK(acc_clock_passed(end, end + 1));
        CHECK(acc_clock_passed(end, end + ACC_LIFE_MAX));
        CHECK(!acc_clock_passed(end, end - 1));
        CHECK(!acc_clock_passed(end, end - ACC_LIFE_MAX));
    }
}

/* Rounded up, so that nothing ends before its time; cut; and never the 0 that means never. */
static void after_so_many_seconds(void) {
    CHECK_EQ(1000, acc_clock_after(1000, 0));
    CHECK_EQ(1001, acc_clock_after(1000, 0.000001));
    CHECK_EQ(1001, acc_clock_after(1000, 0.004));
    CHECK_EQ(1002, acc_clock_after(1000, 0.0041));
    CHECK_EQ(1000 + 60 * ACC_UNITS_PER_SECOND, acc_clock_after(1000, 60));
    CHECK_EQ(1000 + ACC_LIFE_MAX, acc_clock_after(1000, 90.0 * 86400));
    CHECK_EQ(1000 + ACC_LIFE_MAX, acc_clock_after(1000, 1e300));
    CHECK_EQ(1, acc_clock_after(0, 0));
    CHECK_EQ(1, acc_clock_after(UINT32_MAX, 0.004));
    CHECK_EQ(1, acc_clock_after(UINT32_MAX - 1, 0.005));
}

static void clocks_agree(void) {
    uint64_t ns = acc_clock_ns(), ms = acc_clock_ms();
    uint32_t units = acc_clock_units();
    CHECK(ms - ns / 1000000 < 1000);
    /* The coarse clock lags by up to ten milliseconds. */
    CHECK((uint32_t)(units + 3 - (uint32_t)(ns / ACC_UNIT_NS)) < 260);
    struct acc_segment *seg;
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 64 << 10, &seg));
    seg->clock_shift = 100000;
    CHECK(acc_now(seg) - acc_clock_units() <= 100000);
    CHECK(acc_now(seg) - acc_clock_units() > 99000);
    acc_segment_close(seg);
}

/* Fresh, stale, gone: with and without a stale time, and without an end. */
static void ages(void) {
    const struct acc_record never = {0}, plain = {.expire_at = 100};
    const struct acc_record stale = {.expire_at = 100, .stale_until = 200};
    CHECK_EQ(ACC_FRESH, acc_record_age(&never, 12345));
    CHECK_EQ(ACC_FRESH, acc_record_age(&plain, 99));
    CHECK_EQ(ACC_GONE, acc_record_age(&plain, 100));
    CHECK_EQ(ACC_FRESH, acc_record_age(&stale, 99));
    CHECK_EQ(ACC_STALE, acc_record_age(&stale, 100));
    CHECK_EQ(ACC_STALE, acc_record_age(&stale, 199));
    CHECK_EQ(ACC_GONE, acc_record_age(&stale, 200));
    CHECK_EQ(ACC_GONE, acc_record_age(&stale, 200 + ACC_LIFE_MAX / 2));
}

RUN(30, TEST(passed_on_the_circle), TEST(after_so_many_seconds), TEST(clocks_agree), TEST(ages))
