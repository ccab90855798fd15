/* All kernels of the package: compiled at run time, called through ctypes. */
#include "expand.h"
#include "multiply.h"
#include "prefill.h"
#include "replay.h"
#include "rotate.h"
#include "step.h"

/* found: GOMP_parallel of the OpenMP runtime that torch uses, or null for one thread */
void namm_init(parallel_t found) { parallel = found; }
const char *namm_name(void) { return KERNEL_NAME; }
int64_t namm_plan_bytes(void) { return (int64_t)sizeof(plan_t); }
