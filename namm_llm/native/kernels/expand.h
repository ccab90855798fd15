/* Weights of some rows as floats, and tiles of the blocks of a file. */
#ifndef NAMM_EXPAND_H
#define NAMM_EXPAND_H

#include "threads.h"
#include "tiles.h"

typedef struct {
    queue_t queue;
    const part_t *part;
    int64_t columns, start, stop;
    const int64_t *ids; /* rows to take, or null: rows start .. stop */
    void *out;
    int bfloat;
} expand_t;

static void expand_tiles(void *data) {
    expand_t *job = data;
    float *scratch = own_scratch(&job->queue);
    for (int64_t task; (task = take_task(&job->queue)) >= 0;) {
        const int64_t id = job->ids ? job->ids[task] : 0,
                      tile = job->ids ? id / TILE : job->start / TILE + task;
        int64_t from = job->ids ? id : tile * TILE, to = job->ids ? id + 1 : from + TILE;
        if (!job->ids && from < job->start) from = job->start;
        if (!job->ids && to > job->stop) to = job->stop;
        const int64_t count =
            job->part->rows - tile * TILE < TILE ? job->part->rows - tile * TILE : TILE;
        values_of(job->part, tile, job->columns, count, scratch);
        for (int64_t row = from; row < to; row++) {
            const float *values = scratch + (row - tile * TILE) * job->columns;
            const int64_t at = (job->ids ? task : row - job->start) * job->columns;
            if (!job->bfloat)
                memcpy((float *)job->out + at, values, (size_t)job->columns * 4);
            else
                for (int64_t k = 0; k < job->columns; k++)
                    ((uint16_t *)job->out)[at + k] = float_to_bfloat(values[k]);
        }
    }
}

/* out [stop - start, columns]: the weights of rows start .. stop of one part, bfloat16 or float32.
   Returns 1 if memory is short. */
int namm_expand(const part_t *part, int64_t columns, int64_t start, int64_t stop, void *out,
                int bfloat, int threads) {
    expand_t job = {.part = part,
                    .columns = columns,
                    .start = start,
                    .stop = stop,
                    .out = out,
                    .bfloat = bfloat};
    const int64_t tasks = stop > start ? (stop - 1) / TILE - start / TILE + 1 : 0;
    return run(expand_tiles, &job.queue, tasks, columns * TILE, (stop - start) * columns, threads);
}

/* out [count, columns]: the weights of the rows `ids` of one part. Returns 1 if memory is short, 2,
   and writes nothing, if an id is out of range. */
int namm_take(const part_t *part, int64_t columns, const int64_t *ids, int64_t count, void *out,
              int bfloat) {
    expand_t job = {.part = part, .columns = columns, .ids = ids, .out = out, .bfloat = bfloat};
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= part->rows) return 2;
    return run(expand_tiles, &job.queue, count, columns * TILE, 0, 1);
}

typedef struct {
    queue_t queue;
    const uint8_t *raw;
    uint8_t *tiles;
    int64_t stride, rows, columns, format;
} pack_t;

static void pack_tiles(void *data) {
    pack_t *job = data;
    for (int64_t tile; (tile = take_task(&job->queue)) >= 0;) {
        const int count = (int)(job->rows - tile * TILE < TILE ? job->rows - tile * TILE : TILE);
        const int64_t bytes = tile_bytes(job->format, job->columns);
        uint8_t *out = job->tiles + tile * bytes;
        const uint8_t *raw = job->raw + tile * TILE * job->stride;
        memset(out, 0, (size_t)bytes);
#define CASE(F)                                                                                    \
    case F: pack_##F(raw, job->stride, count, job->columns, out); break;
        switch (job->format) { EACH_FORMAT(CASE) }
#undef CASE
    }
}

/* tiles of the blocks of a GGUF file: rows of `stride` bytes */
void namm_pack(const uint8_t *raw, int64_t stride, int64_t rows, int64_t columns, int64_t format,
               uint8_t *tiles, int threads) {
    pack_t job = {.raw = raw,
                  .tiles = tiles,
                  .stride = stride,
                  .rows = rows,
                  .columns = columns,
                  .format = format};
    run(pack_tiles, &job.queue, (rows + TILE - 1) / TILE, 0, rows * columns, threads);
}
#endif
