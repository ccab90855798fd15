/* Products and values of one tile, for every format. */
#ifndef NAMM_TILES_H
#define NAMM_TILES_H

#include "activations.h"
#include "codes.h"
#include "pack.h"

enum { ROW_F32 = 0, ROW_F16 = 1, ROW_BF16 = 30 };
#define IS_ROW_FORMAT(F) ((F) == ROW_F32 || (F) == ROW_F16 || (F) == ROW_BF16)

#define AHEAD 2048 /* bytes: weights are read once, in order */

typedef struct {
    const uint8_t *data; /* tiles, or rows of a row format */
    const float *bias;   /* [rows] or null */
    int64_t rows;
    int64_t format;
} part_t;

/* one tile times one row: the sums stay in registers */
INLINE void tile_times_row(const int F, const uint8_t *tile, int64_t groups, const int8_t *codes,
                           const float *about, float *sums) {
    vfloat sum[HALVES];
    for (int h = 0; h < HALVES; h++) sum[h] = f_zero();
    for (int64_t g = 0; g < groups;) {
        const uint8_t *unit = tile + HEAD_BYTES(F);
        for (int u = 0; u < UNITS(F); u++, g++, unit += UNIT_BYTES(F)) {
            for (int line = 0; line < UNIT_BYTES(F); line += 64)
                __builtin_prefetch(unit + AHEAD + line);
            for (int h = 0; h < HALVES; h++) {
                vbytes w[8];
                const scales_t by = scales_of(F, tile, unit, h);
                codes_of(F, unit, h, w);
                sum[h] = unit_dot(F, w, &by, codes + g * GROUP, about + g * 4, sum[h]);
            }
        }
        tile += BLOCK_BYTES(F);
    }
    for (int h = 0; h < HALVES; h++) f_store(sums + h * LANES, sum[h]);
}

#if !defined(DOT_PRODUCT) && HALVES == 2
#define PAIRS_HALVES 1
/* one unit of 4-bit codes times a block of rows, four chunks at a time: activations are loaded once
   for both halves of the tile, which is what holds up the loop below. The sums are the same. */
INLINE void unit_times_rows(const int F, const uint8_t *tile, const uint8_t *unit, const int8_t *x,
                            const float *about, int64_t rows, float *sums) {
    vbytes w[2][8], before[BLOCK_ROWS][2];
    for (int h = 0; h < 2; h++) codes_of(F, unit, h, w[h]);
    for (int64_t i = 0; i < rows; i++) {
        const vbytes a = b_four(x + i * GROUP), b = b_four(x + i * GROUP + 4),
                     c = b_four(x + i * GROUP + 8), d = b_four(x + i * GROUP + 12);
        for (int h = 0; h < 2; h++)
            before[i][h] = s_add(s_add(s_dot(w[h][0], a), s_dot(w[h][1], b)),
                                 s_add(s_dot(w[h][2], c), s_dot(w[h][3], d)));
    }
    const scales_t low = scales_of(F, tile, unit, 0), high = scales_of(F, tile, unit, 1);
    for (int64_t i = 0; i < rows; i++) {
        const vbytes a = b_four(x + i * GROUP + 16), b = b_four(x + i * GROUP + 20),
                     c = b_four(x + i * GROUP + 24), d = b_four(x + i * GROUP + 28);
        const vfloat scale = f_all(about[i * 4]), total = f_all(about[i * 4 + 1]);
        for (int h = 0; h < 2; h++) {
            const scales_t *by = h ? &high : &low;
            float *at = sums + i * TILE + h * LANES;
            const vbytes sum = s_add(s_add(s_add(s_dot(w[h][4], a), s_dot(w[h][5], b)),
                                           s_add(s_dot(w[h][6], c), s_dot(w[h][7], d))),
                                     before[i][h]);
            const vfloat found = f_fma(f_mul(by->scale[0], scale), f_int(i_pairs(sum)), f_load(at));
            f_store(at, f_fma(by->offset[0], total, found));
        }
    }
}
#endif

/* one tile times a block of rows: a unit is unpacked once for all of them */
INLINE void tile_times_rows(const int F, const uint8_t *tile, int64_t groups, const int8_t *codes,
                            const float *about, int64_t rows, float *sums) {
    memset(sums, 0, (size_t)rows * TILE * 4);
    for (int64_t g = 0; g < groups;) {
        const uint8_t *unit = tile + HEAD_BYTES(F);
        for (int u = 0; u < UNITS(F); u++, g++, unit += UNIT_BYTES(F)) {
            const int8_t *x = codes + g * rows * GROUP;
            const float *scales = about + g * rows * 4;
#ifdef PAIRS_HALVES
            if (BITS(F) == 4) {
                unit_times_rows(F, tile, unit, x, scales, rows, sums);
                continue;
            }
#endif
            for (int h = 0; h < HALVES; h++) {
                vbytes w[8];
                const scales_t by = scales_of(F, tile, unit, h);
                codes_of(F, unit, h, w);
                for (int64_t i = 0; i < rows; i++) {
                    float *at = sums + i * TILE + h * LANES;
                    f_store(at, unit_dot(F, w, &by, x + i * GROUP, scales + i * 4, f_load(at)));
                }
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
                            out[(h * LANES + r) * columns + column + 4 * c + j] =
                                scale[s][r] * (float)code + offset[s][r];
                        }
            }
        tile += BLOCK_BYTES(F);
    }
}

#define EACH_FORMAT(X) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q4_K) X(Q5_K) X(Q6_K)

#define DEFINE(F)                                                                                  \
    static void row_##F(const uint8_t *t, int64_t g, const int8_t *c, const float *a, float *s) {  \
        tile_times_row(F, t, g, c, a, s);                                                          \
    }                                                                                              \
    static void rows_##F(const uint8_t *t, int64_t g, const int8_t *c, const float *a, int64_t n,  \
                         float *s) {                                                               \
        tile_times_rows(F, t, g, c, a, n, s);                                                      \
    }                                                                                              \
    static void values_##F(const uint8_t *t, int64_t columns, float *out) {                        \
        tile_values(F, t, columns, out);                                                           \
    }                                                                                              \
    static void pack_##F(const uint8_t *raw, int64_t stride, int count, int64_t columns,           \
                         uint8_t *t) {                                                             \
        pack_tile(F, raw, stride, count, columns, t);                                              \
    }
EACH_FORMAT(DEFINE)

static int64_t tile_bytes(int64_t format, int64_t columns) {
#define CASE(F)                                                                                    \
    case F: return columns / (GROUP * UNITS(F)) * BLOCK_BYTES(F);
    switch (format) { EACH_FORMAT(CASE) }
#undef CASE
    return TILE * columns * (format == ROW_F32 ? 4 : 2);
}

static void times_row(int64_t format, const uint8_t *t, int64_t g, const int8_t *c, const float *a,
                      float *s) {
#define CASE(F)                                                                                    \
    case F: row_##F(t, g, c, a, s); return;
    switch (format) { EACH_FORMAT(CASE) }
#undef CASE
}

static void times_rows(int64_t format, const uint8_t *t, int64_t g, const int8_t *c, const float *a,
                       int64_t n, float *s) {
#define CASE(F)                                                                                    \
    case F: rows_##F(t, g, c, a, n, s); return;
    switch (format) { EACH_FORMAT(CASE) }
#undef CASE
}

/* float32 [count, columns] of a tile; rows past the matrix are left out of row formats */
static void values_of(const part_t *part, int64_t tile, int64_t columns, int64_t count,
                      float *out) {
    const uint8_t *at = part->data + tile * tile_bytes(part->format, columns);
#define CASE(F)                                                                                    \
    case F: values_##F(at, columns, out); return;
    switch (part->format) { EACH_FORMAT(CASE) }
#undef CASE
    const int64_t all = count * columns;
    if (part->format == ROW_F32)
        memcpy(out, at, (size_t)all * 4);
    else if (part->format == ROW_BF16)
        for (int64_t i = 0; i < all; i++) {
            uint16_t v;
            memcpy(&v, at + 2 * i, 2);
            out[i] = bfloat_to_float(v);
        }
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
        for (int k = 0; k < 4; k++)
            sums[k] = f_fma(f_load(a + i + k * LANES), f_load(b + i + k * LANES), sums[k]);
    float lanes[4][LANES], total = 0.0f;
    for (int k = 0; k < 4; k++) f_store(lanes[k], sums[k]);
    for (int r = 0; r < LANES; r++)
        total += (lanes[0][r] + lanes[1][r]) + (lanes[2][r] + lanes[3][r]);
    for (; i < n; i++) total += a[i] * b[i];
    return total;
}
#endif
