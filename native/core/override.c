/* Owns the overrides. */
#include "override.h"

const char *const acc_option_names[ACC_OPTIONS] = {
    "mode",        "loader_timeout",      "max_loads", "ttl",
    "allow_stale", "penetration_protect", "on_desync", "breaker",
};
