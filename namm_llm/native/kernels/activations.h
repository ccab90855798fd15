/* Activations quantised to signed bytes, one scale for 32 columns of a row. */
#ifndef NAMM_ACTIVATIONS_H
#define NAMM_ACTIVATIONS_H

#include "simd.h"

#define GROUP      32
#define BLOCK_ROWS 64 /* rows of activations that a tile is multiplied by before the next tile */

INLINE float bfloat_to_float(uint16_t v) {
    uint32_t bits = (uint32_t)v << 16;
    float found;
    memcpy(&found, &bits, 4);
    return found;
}

/* to nearest, ties to even; NaN stays NaN */
INLINE uint16_t float_to_bfloat(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    if (v != v) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* one group: codes = round(x / scale), scale = max|x| / 127; about as in unit_dot. NaN and infinity
 * make scale NaN. */
static void quantise_group(const float *x, int8_t *codes, float *about) {
    float largest[8] = {0}, poison[8] = {0}, most = 0.0f, poisoned = 0.0f;
    for (int i = 0; i < GROUP; i += 8)
        for (int k = 0; k < 8; k++) {
            float size = fabsf(x[i + k]);
            largest[k] = size > largest[k] ? size : largest[k];
            poison[k] += size * 0.0f;
        }
    for (int k = 0; k < 8; k++) {
        most = largest[k] > most ? largest[k] : most;
        poisoned += poison[k];
    }
    const float scale = most / 127.0f, inverse = most > 1e-35f ? 127.0f / most : 0.0f;
    int32_t sums[2] = {0, 0}, rounded[GROUP];
    for (int i = 0; i < GROUP; i++) rounded[i] = (int32_t)rintf(x[i] * inverse);
    for (int i = 0; i < GROUP; i++) codes[i] = (int8_t)rounded[i];
    for (int i = 0; i < 16; i++) {
        sums[0] += rounded[i];
        sums[1] += rounded[16 + i];
    }
    about[0] = scale + poisoned;
    about[1] = scale * (float)(sums[0] + sums[1]);
    about[2] = scale * (float)sums[0];
    about[3] = scale * (float)sums[1];
}

/* Row `row` of x into its place: blocks of BLOCK_ROWS rows, in a block group after group, in a
 * group row after row. */
static void quantise_row(const float *x, int64_t row, int64_t rows, int64_t columns, int8_t *codes,
                         float *about) {
    const int64_t start = row / BLOCK_ROWS * BLOCK_ROWS, groups = columns / GROUP;
    const int64_t height = rows - start < BLOCK_ROWS ? rows - start : BLOCK_ROWS;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t at = start * groups + g * height + (row - start);
        quantise_group(x + g * GROUP, codes + at * GROUP, about + at * 4);
    }
}
#endif
