/* Units of the tiled formats: 16 rows x 32 columns, their codes, scales and dot products.

   Codes of a unit lie in 8 chunks of 4 columns; a chunk is 64 bytes, row after row. Of 4-, 5- and
   6-bit codes two chunks share 64 bytes (low and high halves). The fifth bits of the 8 chunks are
   the 8 bits of 64 bytes, the upper two bits of 4 chunks of a 6-bit format those of 64 bytes. */
#ifndef NAMM_CODES_H
#define NAMM_CODES_H

#include "simd.h"

enum { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

#define BITS(F)                                                                                    \
    ((F) == Q8_0 ? 8 : (F) == Q6_K ? 6 : (F) == Q5_0 || (F) == Q5_1 || (F) == Q5_K ? 5 : 4)
#define IS_K(F)       ((F) >= Q4_K)
#define HAS_LOW(F)    ((F) == Q4_1 || (F) == Q5_1 || (F) == Q4_K || (F) == Q5_K)
#define CODE_BYTES(F) ((F) == Q8_0 ? 512 : (F) == Q6_K ? 384 : BITS(F) == 5 ? 320 : 256)
/* what precedes all units of a block (d, dmin), what precedes the codes of a unit, bytes of a block
 */
#define HEAD_BYTES(F)  (IS_K(F) ? (HAS_LOW(F) ? 64 : 32) : 0)
#define SCALE_BYTES(F) (IS_K(F) ? 32 : HAS_LOW(F) ? 64 : 32)
#define UNIT_BYTES(F)  (SCALE_BYTES(F) + CODE_BYTES(F))
#define UNITS(F)       (IS_K(F) ? 8 : 1)
#define BLOCK_BYTES(F) (HEAD_BYTES(F) + UNITS(F) * UNIT_BYTES(F))
/* the sum of a format's codes and activations fits int32; the smallest code's weight is scale *
 * -MIDDLE */
#define MIDDLE(F) (1 << (BITS(F) - 1))

/* scale and offset of a unit's rows; two of each where groups have 16 columns (Q6_K) */
typedef struct {
    vfloat scale[2], offset[2];
} scales_t;

INLINE scales_t scales_of(const int F, const uint8_t *block, const uint8_t *unit, int half) {
    scales_t found;
    if (!IS_K(F)) {
        found.scale[0] = f_half(unit + 2 * LANES * half);
        found.offset[0] = HAS_LOW(F) ? f_half(unit + 32 + 2 * LANES * half)
                                     : f_mul(found.scale[0], f_all(-MIDDLE(F)));
    } else {
        vfloat scale = f_half(block + 2 * LANES * half);
        const uint8_t *first = unit + LANES * half, *second = first + 16;
        if (F == Q6_K) {
            found.scale[0] = f_mul(scale, f_i8(first));
            found.scale[1] = f_mul(scale, f_i8(second));
            found.offset[0] = f_mul(found.scale[0], f_all(-MIDDLE(F)));
            found.offset[1] = f_mul(found.scale[1], f_all(-MIDDLE(F)));
        } else {
            vfloat low = f_mul(f_half(block + 32 + 2 * LANES * half), f_all(-1.0f));
            found.scale[0] = f_mul(scale, f_u8(first));
            found.offset[0] = f_mul(low, f_u8(second));
        }
    }
    return found;
}

/* unsigned codes of the 8 chunks; signed ones for Q8_0 without a dot-product instruction */
INLINE void codes_of(const int F, const uint8_t *unit, int half, vbytes codes[8]) {
    const uint8_t *at = unit + SCALE_BYTES(F) + 4 * LANES * half;
    const vbytes fifteen = b_all(15);
    if (F == Q8_0) {
        for (int c = 0; c < 8; c++) codes[c] = b_load(at + 64 * c);
#ifdef DOT_PRODUCT
        for (int c = 0; c < 8; c++) codes[c] = b_xor(codes[c], b_all(128));
#endif
        return;
    }
    for (int p = 0; p < 4; p++) {
        vbytes both = b_load(at + 64 * p);
        codes[2 * p] = b_and(both, fifteen);
        codes[2 * p + 1] = b_and(b_right(both, 4), fifteen);
    }
    if (BITS(F) == 5) {
        const vbytes fifth = b_load(at + 256), sixteen = b_all(16);
        codes[0] = b_or(codes[0], b_and(b_left(fifth, 4), sixteen));
        codes[1] = b_or(codes[1], b_and(b_left(fifth, 3), sixteen));
        codes[2] = b_or(codes[2], b_and(b_left(fifth, 2), sixteen));
        codes[3] = b_or(codes[3], b_and(b_left(fifth, 1), sixteen));
        codes[4] = b_or(codes[4], b_and(fifth, sixteen));
        codes[5] = b_or(codes[5], b_and(b_right(fifth, 1), sixteen));
        codes[6] = b_or(codes[6], b_and(b_right(fifth, 2), sixteen));
        codes[7] = b_or(codes[7], b_and(b_right(fifth, 3), sixteen));
    }
    if (BITS(F) == 6) {
        const vbytes upper = b_all(48);
        for (int h = 0; h < 2; h++) {
            vbytes high = b_load(at + 256 + 64 * h), *four = codes + 4 * h;
            four[0] = b_or(four[0], b_and(b_left(high, 4), upper));
            four[1] = b_or(four[1], b_and(b_left(high, 2), upper));
            four[2] = b_or(four[2], b_and(high, upper));
            four[3] = b_or(four[3], b_and(b_right(high, 2), upper));
        }
    }
}

/* sums of codes * x over a unit's 32 columns, in sums[0]; over 16 and 16 for Q6_K.

   Without a dot-product instruction pairs are summed in int16: a pair of 4-bit codes gives at most
   2 * 15 * 127 = 3810, of which 8 fit; of 5-bit codes 4 (7874 each), of 6-bit codes 2 (16002 each),
   and of signed bytes 1 (32512 with -128). */
INLINE void dot(const int F, const vbytes codes[8], const int8_t *x, vbytes sums[2]) {
#ifdef DOT_PRODUCT
    vbytes first = i_zero(), second = i_zero();
    for (int c = 0; c < 4; c++) {
        first = i_dot(first, codes[c], b_four(x + 4 * c));
        second = i_dot(second, codes[c + 4], b_four(x + 4 * c + 16));
    }
    sums[0] = F == Q6_K ? first : i_add(first, second);
    sums[1] = second;
#else
    if (F == Q8_0) {
        vbytes sum = i_zero();
        for (int c = 0; c < 8; c++)
            sum =
                i_add(sum, i_pairs(s_dot(b_abs(codes[c]), b_signed(b_four(x + 4 * c), codes[c]))));
        sums[0] = sum;
        return;
    }
    vbytes four[4];
    for (int p = 0; p < 4; p++)
        four[p] = s_add(s_dot(codes[2 * p], b_four(x + 8 * p)),
                        s_dot(codes[2 * p + 1], b_four(x + 8 * p + 4)));
    if (BITS(F) == 6) {
        sums[0] = i_add(i_pairs(four[0]), i_pairs(four[1]));
        sums[1] = i_add(i_pairs(four[2]), i_pairs(four[3]));
    } else if (BITS(F) == 5) {
        sums[0] = i_add(i_pairs(s_add(four[0], four[1])), i_pairs(s_add(four[2], four[3])));
    } else {
        sums[0] = i_pairs(s_add(s_add(four[0], four[1]), s_add(four[2], four[3])));
    }
#endif
}

#ifdef DOT_PRODUCT
#define NEEDS_OFFSET(F) 1
#else
#define NEEDS_OFFSET(F) ((F) != Q8_0)
#endif

/* sum += the unit's weights times one row of activations.
   x: 32 codes; about: their scale, then scale * sum of the codes over 32, the first 16, the last 16
   columns. */
INLINE vfloat unit_dot(const int F, const vbytes codes[8], const scales_t *by, const int8_t *x,
                       const float *about, vfloat sum) {
    vbytes sums[2];
    const vfloat scale = f_all(about[0]);
    dot(F, codes, x, sums);
    sum = f_fma(f_mul(by->scale[0], scale), f_int(sums[0]), sum);
    if (F == Q6_K) {
        sum = f_fma(f_mul(by->scale[1], scale), f_int(sums[1]), sum);
        sum = f_fma(by->offset[0], f_all(about[2]), sum);
        return f_fma(by->offset[1], f_all(about[3]), sum);
    }
    return NEEDS_OFFSET(F) ? f_fma(by->offset[0], f_all(about[1]), sum) : sum;
}
#endif
