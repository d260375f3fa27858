/* Who is attached, and who of them is still alive. */
#ifndef ACC_PROCESS_H
#define ACC_PROCESS_H

#include "segment.h"

/* The incarnation of this process, 0 if it has not registered (or is a fork child that has not
 * yet). */
static inline uint32_t acc_incarnation(const struct acc_segment *seg) {
    return (uint32_t)acc_load_relaxed(&seg->self->stamp);
}

/* That, and the print of the overrides that this process acts on. */
static inline uint64_t acc_stamp_of(uint32_t incarnation, uint32_t overrides) {
    return (uint64_t)overrides << 32 | incarnation;
}

/* Enter this process: a new incarnation, its liveness byte, its slot.  Threads may race here; one
 * enters, the others wait for it.  `entered`, if given, is called by each in turn. */
enum acc_status acc_process_enter(struct acc_segment *seg,
                                  void (*entered)(struct acc_segment *seg));
void acc_process_leave(struct acc_segment *seg);

/* Is the process with this incarnation certainly gone?  Two witnesses: its liveness byte is free,
 * and, where its pid means something to us, no such process runs (a process may lose its byte by
 * closing a descriptor, and lives). Never asks about ourselves: F_GETLK does not see one's own
 * locks. */
bool acc_process_dead(const struct acc_segment *seg, uint32_t incarnation);
/* Is it dead, or does none of its threads run its program any more?  Where the kernel is slow to end
 * a killed process, that is known long before it is dead.  For leases, which a living process may
 * lose too: not for locks.  Asks the kernel now and then. */
bool acc_process_ending(const struct acc_segment *seg, uint32_t incarnation);
/* The same without asking, unless it is dead: what this process last heard. */
bool acc_process_known_ending(const struct acc_segment *seg, uint32_t incarnation);
/* Does any other process hold a liveness byte? */
bool acc_process_any_other(const struct acc_segment *seg);
/* Slot of an incarnation; NULL if it has none. */
struct acc_process *acc_process_find(const struct acc_segment *seg, uint32_t incarnation);
/* Once more take our liveness byte, in case something of this process closed the file.  False: the
 * file is gone, so this process must stop acting here and attach anew. */
bool acc_process_assert(struct acc_segment *seg);
uint64_t acc_process_start_time(uint32_t pid);
uint64_t acc_namespace(const char *kind);

#endif
