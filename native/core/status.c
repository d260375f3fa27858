#include "accelerator.h"

const char *acc_status_text(enum acc_status status) {
    switch (status) {
    case ACC_OK: return "ok";
    case ACC_NOT_STORED: return "not stored";
    case ACC_TOO_LARGE: return "too large for this segment";
    case ACC_BUSY: return "the shard's lock was not to be had in time";
    case ACC_NOT_FOUND: return "not found";
    case ACC_BAD_TYPE: return "the stored value is no integer";
    case ACC_OVERFLOW: return "the result does not fit 64 bits";
    case ACC_CORRUPT: return "a stored header does not verify";
    case ACC_RACE: return "changed while it was read";
    case ACC_FULL: return "no free slot in a table of the segment";
    case ACC_EMISMATCH: return "not a segment of this layout and size";
    case ACC_ESYS: return "a system call failed";
    case ACC_PRESENT: return "a fresh value is there";
    case ACC_LED: return "another leads the load";
    case ACC_READONLY: return "the segment is mapped read-only";
    }
    return "unknown status";
}
