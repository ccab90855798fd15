/* Attention of a few new tokens over retained tokens (ragged, float or 8-bit) and window (dense).

   A head's tokens are cut into parts of PART, whatever the number of threads; every part gives its
   own softmax, and these are merged in order. A query's numbers do not depend on what other queries
   are computed beside it. */
#ifndef NAMM_ATTEND_H
#define NAMM_ATTEND_H

#include "elementwise.h"
#include "threads.h"
#include "tiles.h"

#define PART 256
#define ROWS 3 /* queries at a time: their sums with four keys stay in registers */
enum { INT8 = 24 }; /* GGML's number, beside ROW_F32 and ROW_BF16 */

/* one sequence in one layer; floats are of the type `dtype` of attend_t. Distances are those of two
   heads, in rows. Addresses are numbers, so that the caller can write the struct as 64-bit integers. */
typedef struct {
    const uint8_t *keys, *values;       /* retained: [tokens, size], head after head */
    const uint8_t *scales;              /* [tokens, 2], and keys and values are 8-bit; or null */
    const int64_t *starts;              /* [groups + 1]: first token of each head */
    uint8_t *window_keys, *window_values;
    int64_t window_distance, window_first, window_count; /* rows seen: first .. count + new tokens */
    uint8_t *queries;                   /* [heads, distance, size], or null: kept for the policy */
    float *lse;                         /* [heads, distance], or null */
    int64_t query_distance, lse_distance, query_count; /* new rows stand at query_count */
} sequence_t;

typedef struct {
    queue_t queue;
    const sequence_t *sequences;
    int64_t count, tokens, heads, groups, size, dtype; /* count of sequences, new tokens of each */
    double scale;
    const uint8_t *query; /* of the type `io`; strides in elements */
    uint8_t *out;
    int64_t io, query_strides[3], out_strides[3]; /* of sequences, tokens, heads */
    /* filled here */
    int64_t rows;          /* queries of a group: heads / groups * tokens */
    int64_t most;          /* parts of the fullest group */
    const int64_t *firsts; /* [count * groups + 1]: first part of each group of each sequence */
    float *parts;          /* [parts, rows, 2 + size]: largest logit, sum, weighted values */
} attend_t;

INLINE int64_t bytes_of(int64_t dtype) { return dtype == ROW_F32 ? 4 : dtype == INT8 ? 1 : 2; }

INLINE vfloat load_as(const int dtype, const uint8_t *at, int64_t i) {
    return dtype == ROW_F32 ? f_load((const float *)at + i)
           : dtype == INT8  ? f_i8(at + i)
                            : f_bfloat(at + 2 * i);
}

INLINE float number_as(int64_t dtype, const uint8_t *at, int64_t i) {
    return dtype == ROW_F32 ? ((const float *)at)[i]
           : dtype == INT8  ? (float)((const int8_t *)at)[i]
                            : bfloat_to_float(((const uint16_t *)at)[i]);
}

static void to_floats(int64_t dtype, const uint8_t *from, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = number_as(dtype, from, i);
}

static void from_floats(int64_t dtype, const float *from, int64_t count, uint8_t *out) {
    if (dtype == ROW_F32)
        memcpy(out, from, (size_t)count * 4);
    else
        for (int64_t i = 0; i < count; i++) ((uint16_t *)out)[i] = float_to_bfloat(from[i]);
}

/* logits[r][i] = q[r] . keys[i] for R rows, PART apart; four keys at a time, of which the last may
   be there twice */
INLINE void dots(const int dtype, const int R, const float *q, const uint8_t *keys, int64_t size,
                 int64_t count, float *logits) {
    const int64_t bytes = size * bytes_of(dtype), whole = size / LANES * LANES;
    for (int64_t i = 0; i < count; i += 4) {
        const uint8_t *key[4];
        vfloat found[ROWS][4];
        for (int k = 0; k < 4; k++) {
            key[k] = keys + (i + k < count ? i + k : count - 1) * bytes;
            __builtin_prefetch(key[k] + AHEAD);
            __builtin_prefetch(key[k] + AHEAD + 64);
            for (int r = 0; r < R; r++) found[r][k] = f_zero();
        }
        for (int64_t d = 0; d < whole; d += LANES) {
            const vfloat four[4] = {load_as(dtype, key[0], d), load_as(dtype, key[1], d),
                                    load_as(dtype, key[2], d), load_as(dtype, key[3], d)};
            for (int r = 0; r < R; r++) {
                const vfloat own = f_load(q + r * size + d);
                for (int k = 0; k < 4; k++) found[r][k] = f_fma(own, four[k], found[r][k]);
            }
        }
        for (int r = 0; r < R; r++) {
            float four[4];
            f_sums(found[r], four);
            for (int64_t d = whole; d < size; d++)
                for (int k = 0; k < 4; k++)
                    four[k] += q[r * size + d] * number_as(dtype, key[k], d);
            memcpy(logits + r * PART + i, four, sizeof four); /* PART is a multiple of 4 */
        }
    }
}

/* columns d to d + V vectors of the sums of weights[r][i] values[i] for R rows, `stride` apart */
INLINE void columns(const int dtype, const int R, const int V, const float *weights,
                    const uint8_t *values, int64_t bytes, int64_t count, float *out, int64_t stride,
                    int64_t d) {
    vfloat found[ROWS][4];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) found[r][v] = f_zero();
    for (int64_t i = 0; i < count; i++) {
        vfloat value[4];
        for (int v = 0; v < V; v++) value[v] = load_as(dtype, values + i * bytes, d + v * LANES);
        for (int r = 0; r < R; r++) {
            const vfloat weight = f_all(weights[r * PART + i]);
            for (int v = 0; v < V; v++) found[r][v] = f_fma(weight, value[v], found[r][v]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) f_store(out + r * stride + d + v * LANES, found[r][v]);
}

INLINE void sums(const int dtype, const int R, const float *weights, const uint8_t *values,
                 int64_t size, int64_t count, float *out, int64_t stride) {
    const int64_t bytes = size * bytes_of(dtype);
    int64_t d = 0;
    for (; d + 4 * LANES <= size; d += 4 * LANES)
        columns(dtype, R, 4, weights, values, bytes, count, out, stride, d);
    for (; d + LANES <= size; d += LANES)
        columns(dtype, R, 1, weights, values, bytes, count, out, stride, d);
    for (; d < size; d++)
        for (int r = 0; r < R; r++) {
            float total = 0.0f;
            for (int64_t i = 0; i < count; i++)
                total += weights[r * PART + i] * number_as(dtype, values + i * bytes, d);
            out[r * stride + d] = total;
        }
}

#define EACH_ROWS(F, dtype, rows, ...)                                                             \
    switch (rows) {                                                                                \
        case 1: F(dtype, 1, __VA_ARGS__); break;                                                   \
        case 2: F(dtype, 2, __VA_ARGS__); break;                                                   \
        default: F(dtype, 3, __VA_ARGS__);                                                         \
    }
#define EACH_TYPE(F, dtype, rows, ...)                                                             \
    switch (dtype) {                                                                               \
        case ROW_F32: EACH_ROWS(F, ROW_F32, rows, __VA_ARGS__) break;                              \
        case INT8: EACH_ROWS(F, INT8, rows, __VA_ARGS__) break;                                    \
        default: EACH_ROWS(F, ROW_BF16, rows, __VA_ARGS__)                                         \
    }

static void dots_of(int64_t dtype, int64_t rows, const float *q, const uint8_t *keys, int64_t size,
                    int64_t count, float *logits) {
    EACH_TYPE(dots, dtype, rows, q, keys, size, count, logits)
}

static void sums_of(int64_t dtype, int64_t rows, const float *weights, const uint8_t *values,
                    int64_t size, int64_t count, float *out, int64_t stride) {
    EACH_TYPE(sums, dtype, rows, weights, values, size, count, out, stride)
}

/* logits become weights exp(logit - largest); returns their sum, and the largest in *largest */
static float softmax(float *logits, int64_t count, float *largest) {
    float lanes[16], most = logits[0], total = 0.0f;
    int64_t i = 0;
    for (int k = 0; k < 16; k++) lanes[k] = most;
    for (; i + 16 <= count; i += 16)
        for (int k = 0; k < 16; k++)
            lanes[k] = logits[i + k] > lanes[k] ? logits[i + k] : lanes[k];
    for (int k = 0; k < 16; k++) most = lanes[k] > most ? lanes[k] : most;
    for (; i < count; i++) most = logits[i] > most ? logits[i] : most;
    for (i = 0; i < count; i++) logits[i] = exp_of(logits[i] - most);
    for (int k = 0; k < 16; k++) lanes[k] = 0.0f;
    for (i = 0; i + 16 <= count; i += 16)
        for (int k = 0; k < 16; k++) lanes[k] += logits[i + k];
    for (int k = 0; k < 16; k++) total += lanes[k];
    for (; i < count; i++) total += logits[i];
    *largest = most;
    return total;
}

/* part of the tokens: `count` rows from keys on. Query row r sees `seen[r % tokens]` of them. */
static void attend_part(const attend_t *job, int64_t dtype, const float *q, const uint8_t *keys,
                        const uint8_t *values, const uint8_t *scales, int64_t count,
                        const int64_t *seen, float *logits, float *out) {
    const int64_t size = job->size, stride = size + 2;
    float key_scales[PART], value_scales[PART];
    for (int64_t i = 0; scales && i < count; i++) {
        key_scales[i] = number_as(job->dtype, scales, 2 * i);
        value_scales[i] = number_as(job->dtype, scales, 2 * i + 1);
    }
    for (int64_t row = 0; row < job->rows; row += ROWS) {
        const int64_t rows = job->rows - row < ROWS ? job->rows - row : ROWS;
        float *found = out + row * stride;
        dots_of(dtype, rows, q + row * size, keys, size, count, logits);
        for (int64_t r = 0; r < rows; r++) {
            float *own = logits + r * PART;
            const int64_t visible = seen ? seen[(row + r) % job->tokens] : count;
            if (scales)
                for (int64_t i = 0; i < visible; i++) own[i] *= key_scales[i];
            found[r * stride] = found[r * stride + 1] = 0.0f;
            if (visible) found[r * stride + 1] = softmax(own, visible, found + r * stride);
            if (scales)
                for (int64_t i = 0; i < visible; i++) own[i] *= value_scales[i];
            for (int64_t i = visible; i < count; i++) own[i] = 0.0f;
        }
        sums_of(dtype, rows, logits, values, size, count, found + 2, stride);
    }
}

static void attend_parts(void *data) {
    attend_t *job = data;
    const int64_t size = job->size, each = job->heads / job->groups;
    int64_t *seen = (int64_t *)own_scratch(&job->queue), last = -1;
    float *logits = (float *)(seen + job->tokens), *q = logits + ROWS * PART;
    for (int64_t task; (task = take_task(&job->queue)) >= 0;) {
        /* a part of all sequences, then the next: forks have the same tokens, still in the cache */
        const int64_t row = task % job->count, part = task / job->count % job->most,
                      g = task / (job->count * job->most), pair = row * job->groups + g;
        const sequence_t *s = job->sequences + row;
        if (part >= job->firsts[pair + 1] - job->firsts[pair]) continue;
        if (last != pair) /* the group's queries, scaled */
            for (int64_t r = 0; r < job->rows; r++) {
                const int64_t at = row * job->query_strides[0] +
                                   r % job->tokens * job->query_strides[1] +
                                   (g * each + r / job->tokens) * job->query_strides[2];
                to_floats(job->io, job->query + at * bytes_of(job->io), size, q + r * size);
                for (int64_t d = 0; d < size; d++) q[r * size + d] *= (float)job->scale;
            }
        last = pair;
        const int64_t retained = s->starts[g + 1] - s->starts[g];
        const int64_t before = (retained + PART - 1) / PART;
        int64_t from = part * PART;
        float *out = job->parts + (job->firsts[pair] + part) * job->rows * (size + 2);
        if (from < before * PART) {
            const int64_t at = s->starts[g] + from, dtype = s->scales ? INT8 : job->dtype;
            const int64_t offset = at * size * bytes_of(dtype);
            const uint8_t *scales = s->scales ? s->scales + 2 * at * bytes_of(job->dtype) : 0;
            attend_part(job, dtype, q, s->keys + offset, s->values + offset, scales,
                        retained - from < PART ? retained - from : PART, 0, logits, out);
        } else {
            from += s->window_first - before * PART;
            const int64_t left = s->window_count + job->tokens - from;
            const int64_t count = left < PART ? left : PART;
            for (int64_t t = 0; t < job->tokens; t++) {
                const int64_t visible = s->window_count + t + 1 - from;
                seen[t] = visible < 0 ? 0 : visible < count ? visible : count;
            }
            const int64_t at = (g * s->window_distance + from) * size * bytes_of(job->dtype);
            attend_part(job, job->dtype, q, s->window_keys + at, s->window_values + at, 0, count,
                        seen, logits, out);
        }
    }
}

/* one query head of one token of one sequence: its parts into the output and its log-sum-exp */
static void merge_parts(const attend_t *job, int64_t row, int64_t head, int64_t token, float *sum) {
    const int64_t size = job->size, stride = size + 2, each = job->heads / job->groups;
    const int64_t pair = row * job->groups + head / each;
    const int64_t first = job->firsts[pair], last = job->firsts[pair + 1];
    const float *parts = job->parts + (head % each * job->tokens + token) * stride;
    float most = -INFINITY, total = 0.0f;
    for (int64_t p = first; p < last; p++) {
        const float *part = parts + p * job->rows * stride;
        if (part[1] != 0.0f && !(part[0] <= most)) most = part[0];
    }
    memset(sum, 0, (size_t)size * 4);
    for (int64_t p = first; p < last; p++) {
        const float *part = parts + p * job->rows * stride;
        if (part[1] == 0.0f) continue; /* nothing seen */
        const float weight = exp_of(part[0] - most);
        total += weight * part[1];
        for (int64_t d = 0; d < size; d++) sum[d] += weight * part[2 + d];
    }
    for (int64_t d = 0; d < size; d++) sum[d] /= total;
    const int64_t at = row * job->out_strides[0] + token * job->out_strides[1] +
                       head * job->out_strides[2];
    from_floats(job->io, sum, size, job->out + at * bytes_of(job->io));
    const sequence_t *s = job->sequences + row;
    if (s->lse) s->lse[head * s->lse_distance + s->query_count + token] = most + logf(total);
}

static void merge_rows(void *data) {
    attend_t *job = data;
    float *sum = own_scratch(&job->queue);
    for (int64_t task; (task = take_task(&job->queue)) >= 0;)
        for (int64_t head = 0; head < job->heads; head++)
            merge_parts(job, task / job->tokens, head, task % job->tokens, sum);
}

/* Attention of all new tokens, whose keys and values are in the window already. Returns 1 if memory
   is short. */
int namm_attend(attend_t *job, int threads) {
    const int64_t pairs = job->count * job->groups;
    int64_t *firsts = malloc((size_t)(pairs + 1) * 8), cost = 0;
    if (!firsts) return 1;
    job->rows = job->heads / job->groups * job->tokens;
    firsts[0] = job->most = 0;
    for (int64_t pair = 0; pair < pairs; pair++) {
        const sequence_t *s = job->sequences + pair / job->groups;
        const int64_t g = pair % job->groups, retained = s->starts[g + 1] - s->starts[g];
        const int64_t window = s->window_count + job->tokens - s->window_first;
        firsts[pair + 1] = firsts[pair] + (retained + PART - 1) / PART + (window + PART - 1) / PART;
        const int64_t parts = firsts[pair + 1] - firsts[pair];
        if (parts > job->most) job->most = parts;
        cost += (retained + window) * job->size * 2 * job->rows;
    }
    const int64_t all = firsts[pairs], stride = job->size + 2;
    job->firsts = firsts;
    job->parts = malloc((size_t)(all * job->rows * stride + 1) * 4);
    int failed = !job->parts;
    const int64_t scratch = 2 * job->tokens + ROWS * PART + job->rows * job->size;
    if (!failed) /* an even number, so that every thread's memory is aligned for 64-bit numbers */
        failed = run(attend_parts, &job->queue, pairs * job->most, scratch + scratch % 2, cost,
                     threads);
    if (!failed)
        failed = run(merge_rows, &job->queue, job->count * job->tokens, job->size,
                     all * job->rows * stride, threads);
    free(job->parts);
    free(firsts);
    return failed;
}
int64_t namm_attend_bytes(void) { return (int64_t)(sizeof(attend_t) + sizeof(sequence_t)); }
#endif
