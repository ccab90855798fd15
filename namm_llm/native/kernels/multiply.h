/* Products of activations with packed weights.

   A sum is made in the same order of float operations whatever the number of rows and threads, so a
   row's result does not depend on what else is in its batch. */
#ifndef NAMM_MULTIPLY_H
#define NAMM_MULTIPLY_H

#include "elementwise.h"
#include "threads.h"
#include "tiles.h"

typedef struct {
    int64_t columns, exact, count; /* exact: activations stay float32 */
    int64_t gate;                  /* parts are gate and up: the product is activation(gate) * up */
    const float *norm;             /* [columns]: x is normalised first, or null */
    double epsilon;
    part_t parts[8];
} plan_t;

typedef struct {
    queue_t queue;
    const plan_t *plan;
    const void *x, *residual;
    void *y;
    int64_t rows, x_stride, y_stride;
    int bfloat, exact;
    float *floats; /* x as float32 [rows, columns], for exact products and row formats */
    int8_t *codes;
    float *about;
    int64_t tiles, chunk, chunks; /* tiles in all, of one task; tasks of a block of rows */
} job_t;

/* row of x as float32, normalised if the plan says so; in scratch, [2 * columns], unless it is
 * there as it is */
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
    float *scratch = own_scratch(&job->queue);
    for (int64_t task; (task = take_task(&job->queue)) >= 0;)
        for (int64_t row = 8 * task; row < 8 * task + 8 && row < job->rows; row++) {
            const float *x = row_of(job, row, scratch);
            if (job->codes) quantise_row(x, row, job->rows, columns, job->codes, job->about);
            if (job->floats) memcpy(job->floats + row * columns, x, (size_t)columns * 4);
        }
}

INLINE float read(const job_t *job, const void *from, int64_t at) {
    return job->bfloat ? bfloat_to_float(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

/* sums of a tile, [count, 16], into columns of y; what is added to them is of the same place */
static void write_rows(const job_t *job, const float *sums, int64_t row, int64_t count,
                       int64_t width, int64_t column) {
    for (int64_t i = 0; i < count; i++) {
        const float *from = sums + i * TILE;
        const int64_t at = (row + i) * job->y_stride + column;
        for (int64_t r = 0; r < width; r++) {
            float v = job->residual ? from[r] + read(job, job->residual, at + r) : from[r];
            if (job->bfloat)
                ((uint16_t *)job->y)[at + r] = float_to_bfloat(v);
            else
                ((float *)job->y)[at + r] = v;
        }
    }
}

/* sums, [rows of the block, 16], of one tile and the activations from row `start` on */
static void multiply_tile(const job_t *job, const part_t *part, int64_t tile, int64_t start,
                          int64_t rows, float *sums, float *scratch) {
    const int64_t columns = job->plan->columns, groups = columns / GROUP, first = tile * TILE;
    const int64_t count = part->rows - first < TILE ? part->rows - first : TILE;
    if (job->exact || IS_ROW_FORMAT(part->format)) {
        values_of(part, tile, columns, count, scratch);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t r = 0; r < count; r++)
                sums[i * TILE + r] =
                    float_dot(scratch + r * columns, job->floats + (start + i) * columns, columns);
    } else {
        const uint8_t *at = part->data + tile * tile_bytes(part->format, columns);
        const int8_t *codes = job->codes + start * groups * GROUP;
        const float *about = job->about + start * groups * 4;
        if (rows == 1)
            times_row(part->format, at, groups, codes, about, sums);
        else
            times_rows(part->format, at, groups, codes, about, rows, sums);
    }
    if (part->bias)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t r = 0; r < count; r++) sums[i * TILE + r] += part->bias[first + r];
}

static void multiply_tiles(void *data) {
    job_t *job = data;
    const plan_t *plan = job->plan;
    float sums[BLOCK_ROWS * TILE] __attribute__((aligned(64))),
        ups[BLOCK_ROWS * TILE] __attribute__((aligned(64)));
    float *scratch = own_scratch(&job->queue);
    for (int64_t task; (task = take_task(&job->queue)) >= 0;) {
        const int64_t start = task / job->chunks * BLOCK_ROWS,
                      first = task % job->chunks * job->chunk;
        const int64_t rows = job->rows - start < BLOCK_ROWS ? job->rows - start : BLOCK_ROWS;
        const int64_t last = first + job->chunk < job->tiles ? first + job->chunk : job->tiles;
        int64_t before = 0, column = 0; /* tiles and columns of the parts before */
        for (int64_t p = 0; p < (plan->gate ? 1 : plan->count); p++) {
            const part_t *part = plan->parts + p;
            const int64_t tiles = (part->rows + TILE - 1) / TILE;
            const int64_t from = first > before ? first - before : 0,
                          to = last - before < tiles ? last - before : tiles;
            for (int64_t tile = from; tile < to; tile++) {
                const int64_t at = tile * TILE;
                multiply_tile(job, part, tile, start, rows, sums, scratch);
                if (plan->gate) {
                    multiply_tile(job, part + 1, tile, start, rows, ups, scratch);
                    gate_rows(plan->gate, ups, sums, rows * TILE);
                }
                write_rows(job, sums, start, rows, part->rows - at < TILE ? part->rows - at : TILE,
                           column + at);
            }
            before += tiles;
            column += part->rows;
        }
    }
}

/* y [rows, width] = x [rows, columns] times the transposed weights, as the plan says, plus residual
   or nothing. x, residual, y: bfloat16 if `bfloat`, else float32; strides in elements, the residual
   has that of y and may be y. Returns 0, or 1 if memory is short. */
int namm_multiply(const plan_t *plan, const void *x, const void *residual, void *y, int64_t rows,
                  int64_t x_stride, int64_t y_stride, int bfloat, int threads) {
    job_t job = {
        .plan = plan, .x = x, .residual = residual, .y = y, .rows = rows, .x_stride = x_stride};
    const int64_t columns = plan->columns, groups = columns / GROUP,
                  blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    int floats = job.exact = (int)plan->exact, codes = 0;
    int64_t bytes = 0;
    job.y_stride = y_stride, job.bfloat = bfloat;
    for (int64_t p = 0; p < plan->count; p++) {
        const int64_t tiles = (plan->parts[p].rows + TILE - 1) / TILE;
        if (!plan->gate || !p) job.tiles += tiles;
        bytes += tiles * tile_bytes(plan->parts[p].format, columns);
        floats |= IS_ROW_FORMAT(plan->parts[p].format);
        codes |= !IS_ROW_FORMAT(plan->parts[p].format) && !plan->exact;
    }
    if (!rows || !job.tiles) return 0;
    const int64_t code_bytes = codes ? rows * columns : 0,
                  about_bytes = codes ? rows * groups * 16 : 0;
    const int64_t float_bytes = floats ? rows * columns * 4 : 0;
    uint8_t *memory = malloc((size_t)(code_bytes + about_bytes + float_bytes) + 64);
    if (!memory) return 1;
    if (floats) job.floats = (float *)memory;
    if (codes) {
        job.about = (float *)(memory + float_bytes);
        job.codes = (int8_t *)(memory + float_bytes + about_bytes);
    }
    job.chunk = job.tiles / 32 > 1 ? job.tiles / 32 : 1;
    job.chunks = (job.tiles + job.chunk - 1) / job.chunk;
    const int64_t scratch = floats ? columns * TILE : 0;
    int failed =
        run(quantise_rows, &job.queue, (rows + 7) / 8, 2 * columns, rows * columns / 4, threads);
    if (!failed)
        failed =
            run(multiply_tiles, &job.queue, job.chunks * blocks, scratch, bytes * rows, threads);
    free(memory);
    return failed;
}
#endif
