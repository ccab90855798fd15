/* Attention of many new tokens over retained tokens (ragged) and window (dense), in float32.

   A block of queries goes over blocks of keys with a running softmax, so no matrix of attention is
   ever in memory. */
#ifndef NAMM_PREFILL_H
#define NAMM_PREFILL_H

#include "blocks.h"
#include "elementwise.h"
#include "threads.h"

#define KEYS   128 /* keys at a time */
#define BLOCK  48  /* query rows at a time, about */

/* float32; distances of heads and tokens in numbers */
typedef struct {
    queue_t queue;
    const float *query, *keys, *values, *window_keys, *window_values;
    const int64_t *starts; /* [groups + 1]: first retained token of each head */
    float *out, *lse;      /* [heads, tokens, size], [heads, tokens] */
    int64_t query_head, query_token, window_head;
    int64_t heads, groups, tokens, window, size; /* window: rows, the new ones included */
    double scale;
    float *panels;   /* [keys of all groups, size], filled here */
    int64_t *places; /* [groups + 1]: first row of panels of each group */
    int64_t each, blocks; /* tokens of a block of queries, blocks of a group */
} prefill_t;

static int64_t retained_of(const prefill_t *job, int64_t g) {
    return job->starts[g + 1] - job->starts[g];
}

/* rows of the retained part in panels */
static int64_t padded_of(const prefill_t *job, int64_t g) { return PANELS(retained_of(job, g)) * PANEL; }

static void pack_groups(void *data) {
    prefill_t *job = data;
    for (int64_t task; (task = take_task(&job->queue)) >= 0;) {
        const int64_t g = task / 2;
        float *panels = job->panels + job->places[g] * job->size;
        if (task % 2)
            pack_floats(job->window_keys + g * job->window_head, job->window, job->size,
                        panels + padded_of(job, g) * job->size);
        else
            pack_floats(job->keys + job->starts[g] * job->size, retained_of(job, g), job->size,
                        panels);
    }
}

typedef struct {
    float *query, *logits, *sums, *largest, *total; /* [rows, size], [rows, KEYS], [rows, size] */
    int64_t rows, each; /* padded; tokens */
} block_t;

/* one block of at most KEYS keys; of row r the first `seen` + r % each ones count */
static void attend_keys(const prefill_t *job, const block_t *b, const float *panels,
                        const float *values, int64_t count, int64_t seen) {
    const int64_t size = job->size;
    for (int64_t panel = 0; panel < count; panel += PANEL)
        for (int64_t r = 0; r < b->rows; r += FEW)
            few_floats(b->query + r * size, size, panels + panel * size, PANEL, size,
                       b->logits + r * KEYS + panel, KEYS, 0);
    for (int64_t r = 0; r < b->rows; r++) {
        float *own = b->logits + r * KEYS, *sums = b->sums + r * size;
        const int64_t sees = seen + r % b->each, visible = sees < count ? sees : count;
        if (visible <= 0) {
            memset(own, 0, (size_t)count * 4);
            continue;
        }
        const int64_t wide = PANELS(count) * PANEL;
        for (int64_t k = visible; k < wide; k++) own[k] = -INFINITY;
        const float before = b->largest[r], here = largest_of(own, wide);
        const float most = here > before ? here : before;
        const float kept = exp_of(before - most);
        b->total[r] = b->total[r] * kept + exp_sum(own, wide, most, 1);
        if (kept != 1.0f)
            for (int64_t d = 0; d < size; d++) sums[d] *= kept;
        b->largest[r] = most;
    }
    for (int64_t d = 0; d < size; d += PANEL)
        for (int64_t r = 0; r < b->rows; r += FEW)
            few_floats(b->logits + r * KEYS, KEYS, values + d, size, count, b->sums + r * size + d,
                       size, 1);
}

static void attend_blocks(void *data) {
    prefill_t *job = data;
    const int64_t size = job->size, shared = job->heads / job->groups;
    const int64_t most = PADDED(shared * job->each);
    block_t b;
    b.query = own_scratch(&job->queue), b.sums = b.query + most * size;
    b.logits = b.sums + most * size, b.largest = b.logits + most * KEYS, b.total = b.largest + most;
    for (int64_t task; (task = take_task(&job->queue)) >= 0;) {
        const int64_t g = task / job->blocks, start = task % job->blocks * job->each;
        const int64_t left = job->tokens - start, each = left < job->each ? left : job->each;
        const int64_t retained = retained_of(job, g), rows = shared * each;
        const float *panels = job->panels + job->places[g] * size;
        b.rows = PADDED(rows), b.each = each;
        memset(b.query, 0, (size_t)(b.rows * size) * 4);
        memset(b.sums, 0, (size_t)(b.rows * size) * 4);
        for (int64_t r = 0; r < b.rows; r++) b.largest[r] = -3e38f, b.total[r] = 0.0f;
        for (int64_t r = 0; r < rows; r++) {
            const float *from = job->query + (g * shared + r / each) * job->query_head +
                                (start + r % each) * job->query_token;
            for (int64_t d = 0; d < size; d++) b.query[r * size + d] = from[d] * (float)job->scale;
        }
        for (int64_t at = 0; at < retained; at += KEYS)
            attend_keys(job, &b, panels + at * size, job->values + (job->starts[g] + at) * size,
                        retained - at < KEYS ? retained - at : KEYS, KEYS);
        panels += padded_of(job, g) * size;
        const int64_t first = job->window - job->tokens + start + 1; /* seen by the first row */
        for (int64_t at = 0; at < first + each - 1; at += KEYS) {
            const int64_t until = first + each - 1 - at;
            attend_keys(job, &b, panels + at * size,
                        job->window_values + g * job->window_head + at * size,
                        until < KEYS ? until : KEYS, first - at);
        }
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = (g * shared + r / each) * job->tokens + start + r % each;
            const float share = 1.0f / b.total[r];
            for (int64_t d = 0; d < size; d++) job->out[at * size + d] = b.sums[r * size + d] * share;
            job->lse[at] = b.largest[r] + logf(b.total[r]);
        }
    }
}

/* Returns 1 if memory is short. size is a multiple of PANEL. */
int namm_prefill(prefill_t *job, int threads) {
    const int64_t groups = job->groups, size = job->size, shared = job->heads / groups;
    int64_t *places = malloc((size_t)(groups + 1) * 8), total = 0;
    if (!places) return 1;
    for (int64_t g = 0; g <= groups; g++) {
        places[g] = total;
        if (g < groups) total += padded_of(job, g) + PANELS(job->window) * PANEL;
    }
    job->places = places;
    job->panels = malloc((size_t)(total * size) * 4);
    job->each = shared < BLOCK ? BLOCK / shared : 1;
    job->blocks = (job->tokens + job->each - 1) / job->each;
    const int64_t rows = PADDED(shared * job->each), cost = job->tokens * total * size;
    int failed = !job->panels || run(pack_groups, &job->queue, 2 * groups, 0, cost, threads);
    if (!failed)
        failed = run(attend_blocks, &job->queue, groups * job->blocks,
                     rows * (2 * size + KEYS + 2), cost, threads);
    free(job->panels);
    free(places);
    return failed;
}
int64_t namm_prefill_bytes(void) { return (int64_t)sizeof(prefill_t); }
int64_t namm_panel(void) { return PANEL; }
#endif
