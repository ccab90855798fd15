/* Products of activations with packed weights, on a CPU. Compiled at run time, called through ctypes.

   A sum is made in the same order of float operations whatever the number of rows and threads, so a row's
   result does not depend on what else is in its batch. */
#include "activations.h"
#include "codes.h"
#include "elementwise.h"
#include "pack.h"
#include <stdlib.h>

enum { ROW_F32 = 0, ROW_F16 = 1, ROW_BF16 = 30 };
#define IS_ROW_FORMAT(F) ((F) == ROW_F32 || (F) == ROW_F16 || (F) == ROW_BF16)

typedef struct {
    const uint8_t *data; /* tiles, or rows of a row format */
    const float *bias;   /* [rows] or null */
    int64_t rows;
    int64_t format;
} part_t;

typedef struct {
    int64_t columns, exact, count; /* exact: activations stay float32 */
    int64_t gate;                  /* parts are gate and up: the product is activation(gate) * up */
    const float *norm;             /* [columns]: x is normalised first, or null */
    double epsilon;
    part_t parts[8];
} plan_t;

typedef void (*parallel_t)(void (*)(void *), void *, unsigned, unsigned);
static parallel_t parallel;

/* parallel: GOMP_parallel of the OpenMP runtime that torch uses, or null for one thread */
void namm_init(parallel_t found) { parallel = found; }
const char *namm_name(void) { return KERNEL_NAME; }
int64_t namm_plan_bytes(void) { return (int64_t)sizeof(plan_t); }

typedef struct {
    const plan_t *plan;
    const void *x, *residual;
    void *y;
    int64_t rows, x_stride, y_stride;
    int bfloat, exact, threads;
    float *floats; /* x as float32 [rows, columns], for exact products and row formats */
    int8_t *codes;
    float *about;
    int64_t tiles, chunk, chunks; /* tiles in all, of one task; tasks of a block of rows */
    int64_t next, tasks;          /* the next task to take */
} job_t;

static void run(void (*work)(void *), job_t *job, int64_t tasks, int64_t cost) {
    job->next = 0;
    job->tasks = tasks;
    if (parallel && job->threads > 1 && tasks > 1 && cost > 65536) parallel(work, job, (unsigned)job->threads, 0);
    else work(job);
}

INLINE int64_t take_task(job_t *job) { return __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED); }

/* row of x as float32, normalised if the plan says so; in scratch, [2 * columns], unless it is there as it is */
static const float *row_of(const job_t *job, int64_t row, float *scratch) {
    const int64_t columns = job->plan->columns;
    const float *x = (const float *)job->x + row * job->x_stride;
    if (job->bfloat) {
        const uint16_t *at = (const uint16_t *)job->x + row * job->x_stride;
        for (int64_t k = 0; k < columns; k++) scratch[k] = bfloat_to_float(at[k]);
        x = scratch;
    }
    if (!job->plan->norm) return x;
    norm_row(x, job->plan->norm, (float)job->plan->epsilon, columns, scratch + columns);
    return scratch + columns;
}

static void quantise_rows(void *data) {
    job_t *job = data;
    const int64_t columns = job->plan->columns;
    float *scratch = malloc((size_t)columns * 8);
    for (int64_t task; (task = take_task(job)) < job->tasks;)
        for (int64_t row = 8 * task; row < 8 * task + 8 && row < job->rows; row++) {
            const float *x = row_of(job, row, scratch);
            if (job->codes) quantise_row(x, row, job->rows, columns, job->codes, job->about);
            if (job->floats) memcpy(job->floats + row * columns, x, (size_t)columns * 4);
        }
    free(scratch);
}

INLINE float read(const job_t *job, const void *from, int64_t at) {
    return job->bfloat ? bfloat_to_float(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

/* sums of a tile, [count, 16], into columns of y; what is added to them is of the same place */
static void write_rows(const job_t *job, const float *sums, int64_t row, int64_t count, int64_t width, int64_t column) {
    for (int64_t i = 0; i < count; i++) {
        const float *from = sums + i * TILE;
        const int64_t at = (row + i) * job->y_stride + column;
        for (int64_t r = 0; r < width; r++) {
            float v = job->residual ? from[r] + read(job, job->residual, at + r) : from[r];
            if (job->bfloat) ((uint16_t *)job->y)[at + r] = float_to_bfloat(v);
            else ((float *)job->y)[at + r] = v;
        }
    }
}

/* one tile times one row: the sums stay in registers */
INLINE void tile_times_row(const int F, const uint8_t *tile, int64_t groups, const int8_t *codes, const float *about, float *sums) {
    vfloat sum[HALVES];
    for (int h = 0; h < HALVES; h++) sum[h] = f_zero();
    for (int64_t g = 0; g < groups;) {
        const uint8_t *unit = tile + HEAD_BYTES(F);
        for (int u = 0; u < UNITS(F); u++, g++, unit += UNIT_BYTES(F))
            for (int h = 0; h < HALVES; h++) {
                vbytes w[8];
                const scales_t by = scales_of(F, tile, unit, h);
                codes_of(F, unit, h, w);
                sum[h] = unit_dot(F, w, &by, codes + g * GROUP, about + g * 4, sum[h]);
            }
        tile += BLOCK_BYTES(F);
    }
    for (int h = 0; h < HALVES; h++) f_store(sums + h * LANES, sum[h]);
}

/* one tile times a block of rows: a unit is unpacked once for all of them */
INLINE void tile_times_rows(const int F, const uint8_t *tile, int64_t groups, const int8_t *codes, const float *about, int64_t rows, float *sums) {
    memset(sums, 0, (size_t)rows * TILE * 4);
    for (int64_t g = 0; g < groups;) {
        const uint8_t *unit = tile + HEAD_BYTES(F);
        for (int u = 0; u < UNITS(F); u++, g++, unit += UNIT_BYTES(F))
            for (int h = 0; h < HALVES; h++) {
                vbytes w[8];
                const scales_t by = scales_of(F, tile, unit, h);
                const int8_t *x = codes + g * rows * GROUP;
                const float *scales = about + g * rows * 4;
                codes_of(F, unit, h, w);
                for (int64_t i = 0; i < rows; i++) {
                    float *at = sums + i * TILE + h * LANES;
                    f_store(at, unit_dot(F, w, &by, x + i * GROUP, scales + i * 4, f_load(at)));
                }
            }
        tile += BLOCK_BYTES(F);
    }
}

/* float32 [16, columns] of one tile */
INLINE void tile_values(const int F, const uint8_t *tile, int64_t columns, float *out) {
    for (int64_t column = 0; column < columns;) {
        const uint8_t *unit = tile + HEAD_BYTES(F);
        for (int u = 0; u < UNITS(F); u++, column += GROUP, unit += UNIT_BYTES(F))
            for (int h = 0; h < HALVES; h++) {
                uint8_t codes[8][4 * LANES];
                float scale[2][LANES], offset[2][LANES];
                vbytes w[8];
                const scales_t by = scales_of(F, tile, unit, h);
                codes_of(F, unit, h, w);
                memcpy(codes, w, sizeof codes);
                for (int s = 0; s < (F == Q6_K ? 2 : 1); s++) {
                    f_store(scale[s], by.scale[s]);
                    f_store(offset[s], by.offset[s]);
                }
                for (int r = 0; r < LANES; r++)
                    for (int c = 0; c < 8; c++)
                        for (int j = 0; j < 4; j++) {
                            const int s = F == Q6_K ? c / 4 : 0;
                            uint8_t code = codes[c][4 * r + j];
#ifndef DOT_PRODUCT
                            if (F == Q8_0) code ^= 128;
#endif
                            out[(h * LANES + r) * columns + column + 4 * c + j] = scale[s][r] * (float)code + offset[s][r];
                        }
            }
        tile += BLOCK_BYTES(F);
    }
}

#define EACH_FORMAT(X) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q4_K) X(Q5_K) X(Q6_K)

#define DEFINE(F)                                                                                                   \
    static void row_##F(const uint8_t *t, int64_t g, const int8_t *c, const float *a, float *s) {                   \
        tile_times_row(F, t, g, c, a, s);                                                                           \
    }                                                                                                               \
    static void rows_##F(const uint8_t *t, int64_t g, const int8_t *c, const float *a, int64_t n, float *s) {       \
        tile_times_rows(F, t, g, c, a, n, s);                                                                       \
    }                                                                                                               \
    static void values_##F(const uint8_t *t, int64_t columns, float *out) { tile_values(F, t, columns, out); }       \
    static void pack_##F(const uint8_t *raw, int64_t stride, int count, int64_t columns, uint8_t *t) {              \
        pack_tile(F, raw, stride, count, columns, t);                                                               \
    }
EACH_FORMAT(DEFINE)

static int64_t tile_bytes(int64_t format, int64_t columns) {
#define CASE(F) case F: return columns / (GROUP * UNITS(F)) * BLOCK_BYTES(F);
    switch (format) { EACH_FORMAT(CASE) }
#undef CASE
    return TILE * columns * (format == ROW_F32 ? 4 : 2);
}

static void times_row(int64_t format, const uint8_t *t, int64_t g, const int8_t *c, const float *a, float *s) {
#define CASE(F) case F: row_##F(t, g, c, a, s); return;
    switch (format) { EACH_FORMAT(CASE) }
#undef CASE
}

static void times_rows(int64_t format, const uint8_t *t, int64_t g, const int8_t *c, const float *a, int64_t n, float *s) {
#define CASE(F) case F: rows_##F(t, g, c, a, n, s); return;
    switch (format) { EACH_FORMAT(CASE) }
#undef CASE
}

/* float32 [count, columns] of a tile; rows past the matrix are left out of row formats */
static void values_of(const part_t *part, int64_t tile, int64_t columns, int64_t count, float *out) {
    const uint8_t *at = part->data + tile * tile_bytes(part->format, columns);
#define CASE(F) case F: values_##F(at, columns, out); return;
    switch (part->format) { EACH_FORMAT(CASE) }
#undef CASE
    const int64_t all = count * columns;
    if (part->format == ROW_F32) memcpy(out, at, (size_t)all * 4);
    else if (part->format == ROW_BF16)
        for (int64_t i = 0; i < all; i++) { uint16_t v; memcpy(&v, at + 2 * i, 2); out[i] = bfloat_to_float(v); }
    else {
        int64_t i = 0;
        for (; i + LANES <= all; i += LANES) f_store(out + i, f_half(at + 2 * i));
        for (; i < all; i++) {
            uint8_t last[2 * LANES] = {0};
            float found[LANES];
            memcpy(last, at + 2 * i, 2);
            f_store(found, f_half(last));
            out[i] = found[0];
        }
    }
}

static float float_dot(const float *a, const float *b, int64_t n) {
    vfloat sums[4] = {f_zero(), f_zero(), f_zero(), f_zero()};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; k++) sums[k] = f_fma(f_load(a + i + k * LANES), f_load(b + i + k * LANES), sums[k]);
    float lanes[4][LANES], total = 0.0f;
    for (int k = 0; k < 4; k++) f_store(lanes[k], sums[k]);
    for (int r = 0; r < LANES; r++) total += (lanes[0][r] + lanes[1][r]) + (lanes[2][r] + lanes[3][r]);
    for (; i < n; i++) total += a[i] * b[i];
    return total;
}

/* sums, [rows of the block, 16], of one tile and the activations from row `start` on */
static void multiply_tile(const job_t *job, const part_t *part, int64_t tile, int64_t start, int64_t rows, float *sums, float *scratch) {
    const int64_t columns = job->plan->columns, groups = columns / GROUP, first = tile * TILE;
    const int64_t count = part->rows - first < TILE ? part->rows - first : TILE;
    if (job->exact || IS_ROW_FORMAT(part->format)) {
        values_of(part, tile, columns, count, scratch);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t r = 0; r < count; r++)
                sums[i * TILE + r] = float_dot(scratch + r * columns, job->floats + (start + i) * columns, columns);
    } else {
        const uint8_t *at = part->data + tile * tile_bytes(part->format, columns);
        const int8_t *codes = job->codes + start * groups * GROUP;
        const float *about = job->about + start * groups * 4;
        if (rows == 1) times_row(part->format, at, groups, codes, about, sums);
        else times_rows(part->format, at, groups, codes, about, rows, sums);
    }
    if (part->bias)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t r = 0; r < count; r++) sums[i * TILE + r] += part->bias[first + r];
}

static void multiply_tiles(void *data) {
    job_t *job = data;
    const plan_t *plan = job->plan;
    float sums[BLOCK_ROWS * TILE] __attribute__((aligned(64))), ups[BLOCK_ROWS * TILE] __attribute__((aligned(64)));
    float *scratch = job->floats ? malloc((size_t)plan->columns * TILE * 4) : 0;
    for (int64_t task; (task = take_task(job)) < job->tasks;) {
        const int64_t start = task / job->chunks * BLOCK_ROWS, first = task % job->chunks * job->chunk;
        const int64_t rows = job->rows - start < BLOCK_ROWS ? job->rows - start : BLOCK_ROWS;
        const int64_t last = first + job->chunk < job->tiles ? first + job->chunk : job->tiles;
        int64_t before = 0, column = 0; /* tiles and columns of the parts before */
        for (int64_t p = 0; p < (plan->gate ? 1 : plan->count); p++) {
            const part_t *part = plan->parts + p;
            const int64_t tiles = (part->rows + TILE - 1) / TILE;
            const int64_t from = first > before ? first - before : 0, to = last - before < tiles ? last - before : tiles;
            for (int64_t tile = from; tile < to; tile++) {
                const int64_t at = tile * TILE;
                multiply_tile(job, part, tile, start, rows, sums, scratch);
                if (plan->gate) {
                    multiply_tile(job, part + 1, tile, start, rows, ups, scratch);
                    gate_rows(plan->gate, ups, sums, rows * TILE);
                }
                write_rows(job, sums, start, rows, part->rows - at < TILE ? part->rows - at : TILE, column + at);
            }
            before += tiles;
            column += part->rows;
        }
    }
    free(scratch);
}

/* y [rows, width] = x [rows, columns] times the transposed weights, as the plan says, plus residual or nothing.
   x, residual, y: bfloat16 if `bfloat`, else float32; strides in elements, the residual has that of y and may be y.
   Returns 0, or 1 if memory is short. */
int namm_multiply(const plan_t *plan, const void *x, const void *residual, void *y, int64_t rows, int64_t x_stride,
                  int64_t y_stride, int bfloat, int threads) {
    job_t job = {.plan = plan, .x = x, .residual = residual, .y = y, .rows = rows, .x_stride = x_stride};
    const int64_t columns = plan->columns, groups = columns / GROUP, blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    int floats = job.exact = (int)plan->exact, codes = 0;
    int64_t bytes = 0;
    job.y_stride = y_stride, job.bfloat = bfloat, job.threads = threads;
    for (int64_t p = 0; p < plan->count; p++) {
        const int64_t tiles = (plan->parts[p].rows + TILE - 1) / TILE;
        if (!plan->gate || !p) job.tiles += tiles;
        bytes += tiles * tile_bytes(plan->parts[p].format, columns);
        floats |= IS_ROW_FORMAT(plan->parts[p].format);
        codes |= !IS_ROW_FORMAT(plan->parts[p].format) && !plan->exact;
    }
    if (!rows || !job.tiles) return 0;
    const int64_t code_bytes = codes ? rows * columns : 0, about_bytes = codes ? rows * groups * 16 : 0;
    const int64_t float_bytes = floats ? rows * columns * 4 : 0;
    uint8_t *memory = malloc((size_t)(code_bytes + about_bytes + float_bytes) + 64);
    if (!memory) return 1;
    if (floats) job.floats = (float *)memory;
    if (codes) {
        job.about = (float *)(memory + float_bytes);
        job.codes = (int8_t *)(memory + float_bytes + about_bytes);
    }
    run(quantise_rows, &job, (rows + 7) / 8, rows * columns / 4);
    job.chunk = job.tiles / 32 > 1 ? job.tiles / 32 : 1;
    job.chunks = (job.tiles + job.chunk - 1) / job.chunk;
    run(multiply_tiles, &job, job.chunks * blocks, bytes * rows);
    free(memory);
    return 0;
}

typedef struct { const part_t *part; int64_t columns, start, stop, next, tasks; void *out; int bfloat; const int64_t *ids; } expand_t;

static void expand_tiles(void *data) {
    expand_t *job = data;
    float *scratch = malloc((size_t)job->columns * TILE * 4);
    for (int64_t task; (task = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) < job->tasks;) {
        const int64_t id = job->ids ? job->ids[task] : 0, tile = job->ids ? id / TILE : job->start / TILE + task;
        int64_t from = job->ids ? id : tile * TILE, to = job->ids ? id + 1 : from + TILE;
        if (!job->ids && from < job->start) from = job->start;
        if (!job->ids && to > job->stop) to = job->stop;
        const int64_t count = job->part->rows - tile * TILE < TILE ? job->part->rows - tile * TILE : TILE;
        values_of(job->part, tile, job->columns, count, scratch);
        for (int64_t row = from; row < to; row++) {
            const float *values = scratch + (row - tile * TILE) * job->columns;
            const int64_t at = (job->ids ? task : row - job->start) * job->columns;
            if (!job->bfloat) memcpy((float *)job->out + at, values, (size_t)job->columns * 4);
            else for (int64_t k = 0; k < job->columns; k++) ((uint16_t *)job->out)[at + k] = float_to_bfloat(values[k]);
        }
    }
    free(scratch);
}

/* out [stop - start, columns]: the weights of rows start .. stop of one part, bfloat16 or float32 */
void namm_expand(const part_t *part, int64_t columns, int64_t start, int64_t stop, void *out, int bfloat, int threads) {
    expand_t job = {.part = part, .columns = columns, .start = start, .stop = stop, .out = out, .bfloat = bfloat};
    job.tasks = stop > start ? (stop - 1) / TILE - start / TILE + 1 : 0;
    if (parallel && threads > 1 && (stop - start) * columns > 65536) parallel(expand_tiles, &job, (unsigned)threads, 0);
    else expand_tiles(&job);
}

/* out [count, columns]: the weights of the rows `ids` of one part. Returns 1, and writes nothing, if an id is out of range. */
int namm_take(const part_t *part, int64_t columns, const int64_t *ids, int64_t count, void *out, int bfloat) {
    expand_t job = {.part = part, .columns = columns, .ids = ids, .tasks = count, .out = out, .bfloat = bfloat};
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= part->rows) return 1;
    expand_tiles(&job);
    return 0;
}

typedef struct { const uint8_t *raw; uint8_t *tiles; int64_t stride, rows, columns, format, next; } pack_t;

static void pack_tiles(void *data) {
    pack_t *job = data;
    for (int64_t tile; (tile = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) * TILE < job->rows;) {
        const int count = (int)(job->rows - tile * TILE < TILE ? job->rows - tile * TILE : TILE);
        const int64_t bytes = tile_bytes(job->format, job->columns);
        uint8_t *out = job->tiles + tile * bytes;
        const uint8_t *raw = job->raw + tile * TILE * job->stride;
        memset(out, 0, (size_t)bytes);
#define CASE(F) case F: pack_##F(raw, job->stride, count, job->columns, out); break;
        switch (job->format) { EACH_FORMAT(CASE) }
#undef CASE
    }
}

/* tiles of the blocks of a GGUF file: rows of `stride` bytes */
void namm_pack(const uint8_t *raw, int64_t stride, int64_t rows, int64_t columns, int64_t format, uint8_t *tiles, int threads) {
    pack_t job = {.raw = raw, .tiles = tiles, .stride = stride, .rows = rows, .columns = columns, .format = format};
    if (parallel && threads > 1 && rows * columns > 65536) parallel(pack_tiles, &job, (unsigned)threads, 0);
    else pack_tiles(&job);
}

typedef struct {
    void *x;
    const void *cosines, *sines;
    const float *norms[2]; /* [dim] or null: each query head, each key head is normalised first */
    double epsilon;
    int64_t rows, stride, heads, key_heads, dim, turned, positions, bfloat, next;
} turn_t;

/* one head in place: dimension j and j + turned / 2 are turned together, those past `turned` stay */
static void turn_head(const turn_t *job, float *head, const float *norm, const float *cosines, const float *sines, float *scratch) {
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

static const float *floats_of(const turn_t *job, const void *from, int64_t at, int64_t count, float *scratch) {
    if (!job->bfloat) return (const float *)from + at;
    for (int64_t k = 0; k < count; k++) scratch[k] = bfloat_to_float(((const uint16_t *)from)[at + k]);
    return scratch;
}

static void turn_rows(void *data) {
    turn_t *job = data;
    float *scratch = malloc((size_t)(2 * job->dim + 2 * job->turned) * 4), *wide = scratch + job->dim;
    float *own_cosines = wide + job->dim, *own_sines = own_cosines + job->turned;
    for (int64_t row; (row = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) < job->rows;) {
        const int64_t position = row % job->positions * job->turned;
        const float *cosines = floats_of(job, job->cosines, position, job->turned, own_cosines);
        const float *sines = floats_of(job, job->sines, position, job->turned, own_sines);
        for (int64_t h = 0; h < job->heads + job->key_heads; h++) {
            const int64_t at = row * job->stride + h * job->dim;
            float *head = job->bfloat ? wide : (float *)job->x + at;
            floats_of(job, job->x, at, job->dim, wide);
            turn_head(job, head, job->norms[h >= job->heads], cosines, sines, scratch);
            if (job->bfloat)
                for (int64_t k = 0; k < job->dim; k++) ((uint16_t *)job->x)[at + k] = float_to_bfloat(head[k]);
        }
    }
    free(scratch);
}

/* Rotary position embedding of queries and keys in place: [rows, heads + key_heads, dim], `stride` elements a row.
   cosines, sines: [positions, turned], of the dtype of x; row i has position i % positions. */
void namm_rotate(void *x, const void *cosines, const void *sines, const float *query_norm, const float *key_norm, double epsilon,
                 int64_t rows, int64_t stride, int64_t heads, int64_t key_heads, int64_t dim, int64_t turned, int64_t positions,
                 int bfloat, int threads) {
    turn_t job = {.x = x, .cosines = cosines, .sines = sines, .norms = {query_norm, key_norm}, .epsilon = epsilon, .rows = rows};
    job.stride = stride, job.heads = heads, job.key_heads = key_heads, job.dim = dim, job.turned = turned;
    job.positions = positions, job.bfloat = bfloat;
    if (parallel && threads > 1 && rows * stride > 65536) parallel(turn_rows, &job, (unsigned)threads, 0);
    else turn_rows(&job);
}

typedef struct { const void *x, *residual; void *y; const float *weight; double epsilon; int64_t rows, columns, bfloat, next; } norm_t;

static void norm_rows(void *data) {
    norm_t *job = data;
    float *scratch = malloc((size_t)job->columns * 8), *wide = scratch + job->columns;
    for (int64_t row; (row = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) < job->rows;) {
        const int64_t at = row * job->columns;
        const float *x = (const float *)job->x + at;
        if (job->bfloat) {
            for (int64_t k = 0; k < job->columns; k++) wide[k] = bfloat_to_float(((const uint16_t *)job->x)[at + k]);
            x = wide;
        }
        norm_row(x, job->weight, (float)job->epsilon, job->columns, scratch);
        for (int64_t k = 0; k < job->columns; k++) {
            float v = scratch[k];
            if (job->bfloat) {
                if (job->residual) v += bfloat_to_float(((const uint16_t *)job->residual)[at + k]);
                ((uint16_t *)job->y)[at + k] = float_to_bfloat(v);
            } else {
                ((float *)job->y)[at + k] = job->residual ? v + ((const float *)job->residual)[at + k] : v;
            }
        }
    }
    free(scratch);
}

/* y = norm(x) * weight, plus residual or nothing: all [rows, columns] */
void namm_norm(const void *x, const float *weight, double epsilon, const void *residual, void *y, int64_t rows, int64_t columns,
               int bfloat, int threads) {
    norm_t job = {.x = x, .residual = residual, .y = y, .weight = weight, .epsilon = epsilon, .rows = rows, .columns = columns};
    job.bfloat = bfloat;
    if (parallel && threads > 1 && rows * columns > 65536) parallel(norm_rows, &job, (unsigned)threads, 0);
    else norm_rows(&job);
}
