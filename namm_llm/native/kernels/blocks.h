/* Products of blocks of rows with panels of PANEL columns, from registers.

   A panel holds PANEL vectors (keys) side by side, number after number, so that one query number
   meets PANEL keys in two registers. */
#ifndef NAMM_BLOCKS_H
#define NAMM_BLOCKS_H

#include "elementwise.h"

#define PANEL     (2 * LANES)
#define FEW       6 /* rows whose sums stay in registers */
#define FOUR      4 /* the same for codes, whose products take registers too */
#define PADDED(N) (((N) + FEW - 1) / FEW * FEW)
#define PANELS(N) (((N) + PANEL - 1) / PANEL)

/* panels [panels of count, size, PANEL] of rows [count, size]; what is missing in the last is 0 */
static void pack_floats(const float *rows, int64_t count, int64_t size, float *panels) {
    for (int64_t first = 0; first < count; first += PANEL, panels += size * PANEL)
        for (int64_t k = 0; k < PANEL; k++)
            for (int64_t d = 0; d < size; d++)
                panels[d * PANEL + k] = first + k < count ? rows[(first + k) * size + d] : 0.0f;
}

/* out [FEW, PANEL], rows `stride` apart: FEW rows [size] times `steps` lines of PANEL numbers that
   are `line` apart, added to what is there if `adds` */
INLINE void few_floats(const float *rows, int64_t row_stride, const float *lines, int64_t line,
                       int64_t steps, float *out, int64_t stride, const int adds) {
    vfloat first[FEW], second[FEW];
    for (int r = 0; r < FEW; r++) {
        first[r] = adds ? f_load(out + r * stride) : f_zero();
        second[r] = adds ? f_load(out + r * stride + LANES) : f_zero();
    }
    for (int64_t s = 0; s < steps; s++) {
        const vfloat a = f_load(lines + s * line), b = f_load(lines + s * line + LANES);
        for (int r = 0; r < FEW; r++) {
            const vfloat x = f_all(rows[r * row_stride + s]);
            first[r] = f_fma(x, a, first[r]);
            second[r] = f_fma(x, b, second[r]);
        }
    }
    for (int r = 0; r < FEW; r++) {
        f_store(out + r * stride, first[r]);
        f_store(out + r * stride + LANES, second[r]);
    }
}

/* codes [size] and their unit: 15 bits of the largest number, fewer where a sum of products of two
   vectors could pass 31 (it is at most the product of their lengths). NaN and infinity make the
   unit NaN. */
static float quantise_vector(const float *x, int64_t size, int16_t *codes) {
    float largest = 0.0f, squares = 0.0f, poison = 0.0f;
    for (int64_t d = 0; d < size; d++) {
        const float a = fabsf(x[d]);
        largest = a > largest ? a : largest;
        poison += a * 0.0f;
    }
    const float whole = largest > 1e-30f ? 1.0f / largest : 0.0f;
    for (int64_t d = 0; d < size; d++) squares += (x[d] * whole) * (x[d] * whole);
    const float length = sqrtf(squares) / 46000.0f, top = 1.0f / 32767.0f;
    const float unit = length > top ? length : top; /* of x / largest */
    for (int64_t d = 0; d < size; d++) codes[d] = (int16_t)rintf(x[d] * whole / unit);
    return unit * largest + poison;
}

/* as pack_floats, of codes, pairs of numbers side by side; units [panels of count, PANEL] */
static void pack_codes(const float *rows, int64_t count, int64_t size, int16_t *panels,
                       float *units, int16_t *scratch) {
    for (int64_t first = 0; first < count; first += PANEL, panels += size * PANEL)
        for (int64_t k = 0; k < PANEL; k++) {
            const int there = first + k < count;
            units[first + k] =
                there ? quantise_vector(rows + (first + k) * size, size, scratch) : 0.0f;
            for (int64_t d = 0; d < size; d++)
                panels[(d / 2 * PANEL + k) * 2 + d % 2] = there ? scratch[d] : 0;
        }
}

/* out [FOUR, PANEL], rows `stride` apart: FOUR rows of codes [size] times a panel of codes */
INLINE void few_codes(const int16_t *rows, const float *row_units, const int16_t *panel,
                      const float *units, int64_t size, float *out, int64_t stride) {
    vbytes first[FOUR], second[FOUR];
    for (int r = 0; r < FOUR; r++) first[r] = second[r] = i_zero();
    for (int64_t d = 0; d < size; d += 2, panel += 2 * PANEL) {
        const vbytes a = b_load((const uint8_t *)panel), b = b_load((const uint8_t *)panel + 4 * LANES);
        for (int r = 0; r < FOUR; r++) {
            const vbytes x = b_four((const int8_t *)(rows + r * size + d));
            first[r] = i_pair_dot(first[r], a, x);
            second[r] = i_pair_dot(second[r], b, x);
        }
    }
    const vfloat low = f_load(units), high = f_load(units + LANES);
    for (int r = 0; r < FOUR; r++) {
        const vfloat unit = f_all(row_units[r]);
        f_store(out + r * stride, f_mul(f_mul(low, unit), f_int(first[r])));
        f_store(out + r * stride + LANES, f_mul(f_mul(high, unit), f_int(second[r])));
    }
}

/* exp of numbers up to 0, to 2 units in the last place; 1e-38 below -87. NaN stays NaN. */
INLINE vfloat f_exp(vfloat x) {
    x = f_max(f_all(-87.3f), x); /* the second one, if either is NaN */
    const vfloat n = f_round(f_mul(x, f_all(1.44269504f)));
    const vfloat r = f_fma(n, f_all(2.12194440e-4f), f_fma(n, f_all(-0.693359375f), x));
    vfloat p = f_fma(f_all(1.9875691500e-4f), r, f_all(1.3981999507e-3f));
    p = f_fma(p, r, f_all(8.3334519073e-3f));
    p = f_fma(p, r, f_all(4.1665795894e-2f));
    p = f_fma(p, r, f_all(1.6666665459e-1f));
    p = f_fma(p, r, f_all(5.0000001201e-1f));
    p = f_fma(f_mul(p, r), r, f_add(r, f_all(1.0f)));
    return f_mul(p, f_power(n));
}

/* the largest of count numbers; count is a multiple of PANEL */
INLINE float largest_of(const float *x, int64_t count) {
    vfloat first = f_load(x), second = f_load(x + LANES);
    float lanes[LANES], most;
    for (int64_t i = PANEL; i < count; i += PANEL) {
        first = f_max(first, f_load(x + i));
        second = f_max(second, f_load(x + i + LANES));
    }
    f_store(lanes, f_max(first, second));
    most = lanes[0];
    for (int k = 1; k < LANES; k++) most = lanes[k] > most ? lanes[k] : most;
    return most;
}

/* sum of exp(x - shift), which x becomes if `writes`; count is a multiple of PANEL */
INLINE float exp_sum(float *x, int64_t count, float shift, const int writes) {
    const vfloat by = f_all(shift);
    vfloat first = f_zero(), second = f_zero();
    for (int64_t i = 0; i < count; i += PANEL) {
        const vfloat a = f_exp(f_sub(f_load(x + i), by)),
                     b = f_exp(f_sub(f_load(x + i + LANES), by));
        first = f_add(first, a);
        second = f_add(second, b);
        if (writes) {
            f_store(x + i, a);
            f_store(x + i + LANES, b);
        }
    }
    float lanes[LANES], total = 0.0f;
    f_store(lanes, f_add(first, second));
    for (int k = 0; k < LANES; k++) total += lanes[k];
    return total;
}
#endif
