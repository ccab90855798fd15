/* Query replay: the largest attention that any query would pay to each key.

   Logits are products of 16-bit codes: about 1e-3 of a logit off, at twice the speed of float32. */
#ifndef NAMM_REPLAY_H
#define NAMM_REPLAY_H

#include "blocks.h"
#include "elementwise.h"
#include "threads.h"

#define REPLAYED 24 /* queries at a time: their logits stay in a core's cache */

typedef struct {
    queue_t queue;
    const float *queries, *keys; /* [rows, size], [count, size] */
    int64_t rows, count, size;
    int16_t *panels; /* of the keys */
    float *units;
    float *largest; /* [panels of count * PANEL]: logarithms so far */
    int lock;
} replay_t;

static void pack_keys(void *data) {
    replay_t *job = data;
    int16_t *scratch = (int16_t *)own_scratch(&job->queue);
    for (int64_t panel; (panel = take_task(&job->queue)) >= 0;) {
        const int64_t first = panel * PANEL, left = job->count - first;
        pack_codes(job->keys + first * job->size, left < PANEL ? left : PANEL, job->size,
                   job->panels + first * job->size, job->units + first, scratch);
    }
}

static void replay_blocks(void *data) {
    replay_t *job = data;
    const int64_t size = job->size, wide = PANELS(job->count) * PANEL;
    float *largest = own_scratch(&job->queue), *logits = largest + wide;
    float *units = logits + REPLAYED * wide;
    int16_t *codes = (int16_t *)(units + REPLAYED);
    for (int64_t k = 0; k < wide; k++) largest[k] = -INFINITY;
    for (int64_t task; (task = take_task(&job->queue)) >= 0;) {
        const int64_t start = task * REPLAYED;
        const int64_t rows = job->rows - start < REPLAYED ? job->rows - start : REPLAYED;
        memset(codes, 0, (size_t)(REPLAYED * size) * 2);
        for (int64_t r = 0; r < REPLAYED; r++)
            units[r] = r < rows ? quantise_vector(job->queries + (start + r) * size, size,
                                                  codes + r * size)
                                : 0.0f;
        for (int64_t panel = 0; panel < wide; panel += PANEL)
            for (int64_t r = 0; r < rows; r += FOUR)
                few_codes(codes + r * size, units + r, job->panels + panel * size,
                          job->units + panel, size, logits + r * wide + panel, wide);
        for (int64_t r = 0; r < rows; r++) {
            float *own = logits + r * wide;
            for (int64_t k = job->count; k < wide; k++) own[k] = -INFINITY;
            const float most = largest_of(own, wide);
            const float total = most + logf(exp_sum(own, wide, most, 0));
            const vfloat by = f_all(total);
            for (int64_t k = 0; k < wide; k += LANES)
                f_store(largest + k, f_max(f_sub(f_load(own + k), by), f_load(largest + k)));
        }
    }
    while (__atomic_exchange_n(&job->lock, 1, __ATOMIC_ACQUIRE)) {
    }
    for (int64_t k = 0; k < wide; k++)
        job->largest[k] = largest[k] > job->largest[k] ? largest[k] : job->largest[k];
    __atomic_store_n(&job->lock, 0, __ATOMIC_RELEASE);
}

/* out [count] = the largest softmax weight of each key over all queries [rows, size]; size is even.
   Returns 1 if memory is short. */
int namm_replay(const float *queries, int64_t rows, const float *keys, int64_t count, int64_t size,
                float *out, int threads) {
    const int64_t wide = PANELS(count) * PANEL;
    replay_t job = {
        .queries = queries, .keys = keys, .rows = rows, .count = count, .size = size, .lock = 0};
    if (!count) return 0;
    float *memory = malloc((size_t)wide * 8 + (size_t)(wide * size) * 2);
    if (!memory) return 1;
    job.largest = memory, job.units = memory + wide, job.panels = (int16_t *)(memory + 2 * wide);
    for (int64_t k = 0; k < wide; k++) job.largest[k] = -INFINITY;
    const int64_t scratch = wide + REPLAYED * (wide + 1) + REPLAYED * size / 2;
    int failed = run(pack_keys, &job.queue, PANELS(count), size, count * size, threads);
    if (!failed)
        failed = run(replay_blocks, &job.queue, (rows + REPLAYED - 1) / REPLAYED, scratch,
                     rows * wide * size, threads);
    for (int64_t k = 0; k < count && !failed; k++) out[k] = exp_of(job.largest[k]);
    free(memory);
    return failed;
}
#endif
