/* What the tests of flights, loads and doorbells share: a key, a lease, and the calls with the
 * arguments that most tests want. */
#ifndef ACC_TEST_LOADS_H
#define ACC_TEST_LOADS_H

#include "flight.h"
#include "harness.h"

#define LEASE (30u * ACC_UNITS_PER_SECOND)

NOT_OFTEN enum acc_status enter_load(struct acc_area *area, const struct acc_key *key,
                                     struct acc_ticket *out) {
    return acc_load_enter(area, key, ACC_LOAD_JOIN, 0, LEASE, ACC_LOCK_BUDGET_NS, out);
}

/* Lead, or fail the test. */
NOT_OFTEN struct acc_ticket lead(struct acc_area *area, const struct acc_key *key) {
    struct acc_ticket ticket;
    CHECK_STATUS(ACC_OK, enter_load(area, key, &ticket));
    CHECK(ticket.leading && !ticket.alone);
    CHECK_EQ(ACC_LEASE_HELD, acc_flight_lease(area->seg, &ticket));
    return ticket;
}

NOT_OFTEN struct acc_ticket join(struct acc_area *area, const struct acc_key *key) {
    struct acc_ticket ticket;
    CHECK_STATUS(ACC_OK, enter_load(area, key, &ticket));
    CHECK(!ticket.leading && !ticket.taken_over);
    return ticket;
}

NOT_OFTEN struct acc_ticket load_alone(struct acc_area *area, const struct acc_key *key) {
    struct acc_ticket ticket;
    CHECK_STATUS(ACC_OK, acc_load_alone(area, key, 0, LEASE, ACC_LOCK_BUDGET_NS, &ticket));
    CHECK(ticket.leading && ticket.alone);
    return ticket;
}

NOT_OFTEN enum acc_status finish_bytes(struct acc_area *area, const struct acc_key *key,
                                       struct acc_ticket *ticket, const void *data, uint32_t size) {
    const struct acc_write write = {.data = data, .size = size, .code = ACC_CODE_BYTES};
    return acc_load_finish(area, key, ticket, &write, ACC_LOCK_BUDGET_NS);
}

NOT_OFTEN void hand_bytes(struct acc_area *area, const struct acc_key *key,
                          struct acc_ticket *ticket, const void *data, uint32_t size) {
    const struct acc_write write = {.data = data, .size = size, .code = ACC_CODE_BYTES};
    CHECK_STATUS(ACC_OK, acc_load_hand(area, key, ticket, &write, ACC_LOCK_BUDGET_NS));
}

NOT_OFTEN enum acc_flight_result result_of(const struct acc_area *area,
                                           const struct acc_ticket *ticket) {
    uint64_t handed;
    return acc_flight_result(area->seg, ticket, &handed);
}

NOT_OFTEN bool has_value(struct acc_area *area, const struct acc_key *key, const void *data,
                         uint32_t size) {
    static __thread uint8_t buffer[4096];
    struct got got = read_key(area, key, buffer, sizeof buffer, false);
    return got.status == ACC_OK && got.age == ACC_FRESH && got.size == size &&
           memcmp(buffer, data, size) == 0;
}

/* Was exactly this handed over? */
NOT_OFTEN bool takes(struct acc_area *area, const struct acc_key *key,
                     const struct acc_ticket *ticket, const void *data, uint32_t size) {
    uint8_t *value, code;
    uint32_t n;
    if (acc_load_take(area, key, ticket, &value, &n, &code) != ACC_OK) {
        return false;
    }
    bool same = code == ACC_CODE_BYTES && n == size && memcmp(value, data, size) == 0;
    free(value);
    return same;
}

NOT_OFTEN uint32_t live_records(const struct acc_segment *seg) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < acc_flight_records(seg); i++) {
        struct acc_flight_info info;
        n += acc_flight_look(seg, i, &info);
    }
    return n;
}

/* As the measurement does it. */
NOT_OFTEN void sweep(struct acc_segment *seg) {
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        CHECK(acc_lock_take(seg, shard, 50 * ACC_LOCK_BUDGET_NS));
        acc_flight_sweep_locked(seg, shard);
        acc_lock_give(seg, shard);
    }
}

#endif
