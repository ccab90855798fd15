/* Tasks shared by the threads of torch's own OpenMP runtime. */
#ifndef NAMM_THREADS_H
#define NAMM_THREADS_H

#include <stdint.h>
#include <stdlib.h>

typedef void (*parallel_t)(void (*)(void *), void *, unsigned, unsigned);
static parallel_t parallel; /* GOMP_parallel, or null for one thread */

#define SMALL 65536 /* costs (bytes read, numbers computed) below which one thread is faster */

/* the first member of every job */
typedef struct {
    int64_t next, tasks;   /* the next task, how many there are */
    int64_t workers, size; /* threads that have begun, floats of scratch memory of each */
    float *scratch;
} queue_t;

/* the next task, or -1 */
static inline int64_t take_task(queue_t *queue) {
    const int64_t task = __atomic_fetch_add(&queue->next, 1, __ATOMIC_RELAXED);
    return task < queue->tasks ? task : -1;
}

/* this thread's scratch memory */
static inline float *own_scratch(queue_t *queue) {
    return queue->scratch + __atomic_fetch_add(&queue->workers, 1, __ATOMIC_RELAXED) * queue->size;
}

/* `work(job)` in up to `threads` threads, `size` floats of scratch memory for each. Returns 1 if
 * memory is short. */
static int run(void (*work)(void *), queue_t *job, int64_t tasks, int64_t size, int64_t cost,
               int threads) {
    const int shared = parallel && threads > 1 && tasks > 1 && cost > SMALL;
    const int64_t count = (shared ? threads : 1) * size;
    job->next = job->workers = 0;
    job->tasks = tasks;
    job->size = size;
    job->scratch = count ? malloc((size_t)count * sizeof(float)) : 0;
    if (count && !job->scratch) return 1;
    if (shared)
        parallel(work, job, (unsigned)threads, 0);
    else
        work(job);
    free(job->scratch);
    return 0;
}
#endif
