/* Overrides. */
#ifndef ACC_OVERRIDE_H
#define ACC_OVERRIDE_H

#include "stats.h"

#endif
