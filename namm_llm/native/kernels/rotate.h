/* Rotary positions and norms of whole activations. */
#ifndef NAMM_ROTATE_H
#define NAMM_ROTATE_H

#include "activations.h"
#include "elementwise.h"
#include "threads.h"

typedef struct {
    queue_t queue;
    void *x;
    const void *cosines, *sines;
    const float *norms[2]; /* [dim] or null: each query head, each key head is normalised first */
    double epsilon;
    int64_t rows, stride, heads, key_heads, dim, turned, positions, bfloat;
} turn_t;

/* one head in place: dimension j and j + turned / 2 are turned together, those past `turned` stay
 */
static void turn_head(const turn_t *job, float *head, const float *norm, const float *cosines,
                      const float *sines, float *scratch) {
    const int64_t half = job->turned / 2;
    if (norm) {
        norm_row(head, norm, (float)job->epsilon, job->dim, scratch);
        memcpy(head, scratch, (size_t)job->dim * 4);
    }
    for (int64_t j = 0; j < half; j++) {
        const float first = head[j], second = head[j + half];
        head[j] = first * cosines[j] - second * sines[j];
        head[j + half] = second * cosines[j + half] + first * sines[j + half];
    }
}

static const float *floats_of(const turn_t *job, const void *from, int64_t at, int64_t count,
                              float *scratch) {
    if (!job->bfloat) return (const float *)from + at;
    for (int64_t k = 0; k < count; k++)
        scratch[k] = bfloat_to_float(((const uint16_t *)from)[at + k]);
    return scratch;
}

static void turn_rows(void *data) {
    turn_t *job = data;
    float *scratch = own_scratch(&job->queue), *wide = scratch + job->dim;
    float *own_cosines = wide + job->dim, *own_sines = own_cosines + job->turned;
    for (int64_t row; (row = take_task(&job->queue)) >= 0;) {
        const int64_t position = row % job->positions * job->turned;
        const float *cosines = floats_of(job, job->cosines, position, job->turned, own_cosines);
        const float *sines = floats_of(job, job->sines, position, job->turned, own_sines);
        for (int64_t h = 0; h < job->heads + job->key_heads; h++) {
            const int64_t at = row * job->stride + h * job->dim;
            float *head = job->bfloat ? wide : (float *)job->x + at;
            floats_of(job, job->x, at, job->dim, wide);
            turn_head(job, head, job->norms[h >= job->heads], cosines, sines, scratch);
            if (job->bfloat)
                for (int64_t k = 0; k < job->dim; k++)
                    ((uint16_t *)job->x)[at + k] = float_to_bfloat(head[k]);
        }
    }
}

/* Rotary position embedding of queries and keys in place: [rows, heads + key_heads, dim], `stride`
   elements a row. cosines, sines: [positions, turned], of the dtype of x; row i has position i %
   positions. Returns 1 if memory is short. */
int namm_rotate(void *x, const void *cosines, const void *sines, const float *query_norm,
                const float *key_norm, double epsilon, int64_t rows, int64_t stride, int64_t heads,
                int64_t key_heads, int64_t dim, int64_t turned, int64_t positions, int bfloat,
                int threads) {
    turn_t job = {.x = x,
                  .cosines = cosines,
                  .sines = sines,
                  .norms = {query_norm, key_norm},
                  .epsilon = epsilon,
                  .rows = rows};
    job.stride = stride, job.heads = heads, job.key_heads = key_heads, job.dim = dim,
    job.turned = turned;
    job.positions = positions, job.bfloat = bfloat;
    return run(turn_rows, &job.queue, rows, 2 * (dim + turned), rows * stride, threads);
}

typedef struct {
    queue_t queue;
    const void *x, *residual;
    void *y;
    const float *weight;
    double epsilon;
    int64_t rows, columns, bfloat;
} norm_t;

static void norm_rows(void *data) {
    norm_t *job = data;
    float *scratch = own_scratch(&job->queue), *wide = scratch + job->columns;
    for (int64_t row; (row = take_task(&job->queue)) >= 0;) {
        const int64_t at = row * job->columns;
        const float *x = (const float *)job->x + at;
        if (job->bfloat) {
            for (int64_t k = 0; k < job->columns; k++)
                wide[k] = bfloat_to_float(((const uint16_t *)job->x)[at + k]);
            x = wide;
        }
        norm_row(x, job->weight, (float)job->epsilon, job->columns, scratch);
        for (int64_t k = 0; k < job->columns; k++) {
            float v = scratch[k];
            if (job->bfloat) {
                if (job->residual) v += bfloat_to_float(((const uint16_t *)job->residual)[at + k]);
                ((uint16_t *)job->y)[at + k] = float_to_bfloat(v);
            } else {
                ((float *)job->y)[at + k] =
                    job->residual ? v + ((const float *)job->residual)[at + k] : v;
            }
        }
    }
}

/* y = norm(x) * weight, plus residual or nothing: all [rows, columns]. Returns 1 if memory is
 * short. */
int namm_norm(const void *x, const float *weight, double epsilon, const void *residual, void *y,
              int64_t rows, int64_t columns, int bfloat, int threads) {
    norm_t job = {.x = x,
                  .residual = residual,
                  .y = y,
                  .weight = weight,
                  .epsilon = epsilon,
                  .rows = rows,
                  .columns = columns};
    job.bfloat = bfloat;
    return run(norm_rows, &job.queue, rows, 2 * columns, rows * columns, threads);
}
#endif
