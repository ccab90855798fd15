/* Vectors of LANES rows: AVX-512 (16 lanes), AVX2 (8 lanes) or plain C (4 lanes, vectorised by the
   compiler).

   A tile is 16 rows high, so it takes HALVES = 16 / LANES vectors. `vbytes` holds 4 bytes for each
   of LANES rows. Products of unsigned codes and signed activations are summed in int32 without
   saturation: see `dot` in codes.h for the bounds. `i_pair_dot` takes pairs of 16-bit numbers. */
#ifndef NAMM_SIMD_H
#define NAMM_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define TILE   16
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define LANES       16
#define KERNEL_NAME "avx512"
typedef __m512 vfloat;
typedef __m512i vbytes;
INLINE vfloat f_zero(void) { return _mm512_setzero_ps(); }
INLINE vfloat f_load(const float *at) { return _mm512_loadu_ps(at); }
INLINE void f_store(float *at, vfloat v) { _mm512_storeu_ps(at, v); }
INLINE vfloat f_all(float v) { return _mm512_set1_ps(v); }
INLINE vfloat f_mul(vfloat a, vfloat b) { return _mm512_mul_ps(a, b); }
INLINE vfloat f_fma(vfloat a, vfloat b, vfloat c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vfloat f_add(vfloat a, vfloat b) { return _mm512_add_ps(a, b); }
INLINE vfloat f_sub(vfloat a, vfloat b) { return _mm512_sub_ps(a, b); }
INLINE vfloat f_max(vfloat a, vfloat b) { return _mm512_max_ps(a, b); }
INLINE vfloat f_round(vfloat v) { return _mm512_roundscale_ps(v, 8); }
INLINE vfloat f_power(vfloat n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
INLINE vfloat f_half(const uint8_t *at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at));
}
INLINE vfloat f_bfloat(const uint8_t *at) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE void f_sums(const vfloat v[4], float *out) { /* of each of four vectors */
    __m256 halves[4];
    for (int k = 0; k < 4; k++)
        halves[k] = _mm256_add_ps(_mm512_castps512_ps256(v[k]), _mm512_extractf32x8_ps(v[k], 1));
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(halves[0], halves[1]),
                                        _mm256_hadd_ps(halves[2], halves[3]));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}
INLINE vfloat f_u8(const uint8_t *at) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at)));
}
INLINE vfloat f_i8(const uint8_t *at) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)at)));
}
INLINE vfloat f_int(vbytes v) { return _mm512_cvtepi32_ps(v); }
INLINE vbytes b_load(const uint8_t *at) { return _mm512_loadu_si512(at); }
INLINE vbytes b_all(uint8_t v) { return _mm512_set1_epi8((char)v); }
INLINE vbytes b_and(vbytes a, vbytes b) { return _mm512_and_si512(a, b); }
INLINE vbytes b_or(vbytes a, vbytes b) { return _mm512_or_si512(a, b); }
INLINE vbytes b_xor(vbytes a, vbytes b) { return _mm512_xor_si512(a, b); }
#define b_right(v, n) _mm512_srli_epi16(v, n)
#define b_left(v, n)  _mm512_slli_epi16(v, n)
INLINE vbytes i_zero(void) { return _mm512_setzero_si512(); }
INLINE vbytes i_add(vbytes a, vbytes b) { return _mm512_add_epi32(a, b); }
INLINE vbytes b_four(const int8_t *at) {
    int32_t v;
    memcpy(&v, at, 4);
    return _mm512_set1_epi32(v);
}
#if defined(__AVX512VNNI__)
INLINE vbytes i_pair_dot(vbytes sum, vbytes a, vbytes b) { return _mm512_dpwssd_epi32(sum, a, b); }
#undef KERNEL_NAME
#define KERNEL_NAME "avx512-vnni"
#define DOT_PRODUCT 1
INLINE vbytes i_dot(vbytes sum, vbytes codes, vbytes x) {
    return _mm512_dpbusd_epi32(sum, codes, x);
}
#else
INLINE vbytes i_pair_dot(vbytes sum, vbytes a, vbytes b) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
}
INLINE vbytes s_add(vbytes a, vbytes b) { return _mm512_add_epi16(a, b); }
INLINE vbytes s_dot(vbytes codes, vbytes x) { return _mm512_maddubs_epi16(codes, x); }
INLINE vbytes i_pairs(vbytes v) { return _mm512_madd_epi16(v, _mm512_set1_epi16(1)); }
INLINE vbytes b_abs(vbytes v) { return _mm512_abs_epi8(v); }
INLINE vbytes b_signed(vbytes x, vbytes by) {
    return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(by), _mm512_setzero_si512(), x);
}
#endif

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define LANES         8
#define KERNEL_NAME   "avx2"
typedef __m256 vfloat;
typedef __m256i vbytes;
INLINE vfloat f_zero(void) { return _mm256_setzero_ps(); }
INLINE vfloat f_load(const float *at) { return _mm256_loadu_ps(at); }
INLINE void f_store(float *at, vfloat v) { _mm256_storeu_ps(at, v); }
INLINE vfloat f_all(float v) { return _mm256_set1_ps(v); }
INLINE vfloat f_mul(vfloat a, vfloat b) { return _mm256_mul_ps(a, b); }
INLINE vfloat f_fma(vfloat a, vfloat b, vfloat c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vfloat f_add(vfloat a, vfloat b) { return _mm256_add_ps(a, b); }
INLINE vfloat f_sub(vfloat a, vfloat b) { return _mm256_sub_ps(a, b); }
INLINE vfloat f_max(vfloat a, vfloat b) { return _mm256_max_ps(a, b); }
INLINE vfloat f_round(vfloat v) { return _mm256_round_ps(v, 8); }
INLINE vfloat f_power(vfloat n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE vfloat f_half(const uint8_t *at) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
}
INLINE vfloat f_bfloat(const uint8_t *at) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE void f_sums(const vfloat v[4], float *out) { /* of each of four vectors */
    const __m256 pairs =
        _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}
INLINE vfloat f_u8(const uint8_t *at) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)at)));
}
INLINE vfloat f_i8(const uint8_t *at) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)at)));
}
INLINE vfloat f_int(vbytes v) { return _mm256_cvtepi32_ps(v); }
INLINE vbytes b_load(const uint8_t *at) { return _mm256_loadu_si256((const __m256i *)at); }
INLINE vbytes b_all(uint8_t v) { return _mm256_set1_epi8((char)v); }
INLINE vbytes b_and(vbytes a, vbytes b) { return _mm256_and_si256(a, b); }
INLINE vbytes b_or(vbytes a, vbytes b) { return _mm256_or_si256(a, b); }
INLINE vbytes b_xor(vbytes a, vbytes b) { return _mm256_xor_si256(a, b); }
#define b_right(v, n) _mm256_srli_epi16(v, n)
#define b_left(v, n)  _mm256_slli_epi16(v, n)
INLINE vbytes i_zero(void) { return _mm256_setzero_si256(); }
INLINE vbytes i_add(vbytes a, vbytes b) { return _mm256_add_epi32(a, b); }
INLINE vbytes b_four(const int8_t *at) {
    int32_t v;
    memcpy(&v, at, 4);
    return _mm256_set1_epi32(v);
}
INLINE vbytes i_pair_dot(vbytes sum, vbytes a, vbytes b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
#if defined(__AVXVNNI__)
#undef KERNEL_NAME
#define KERNEL_NAME "avx-vnni"
#define DOT_PRODUCT 1
INLINE vbytes i_dot(vbytes sum, vbytes codes, vbytes x) {
    return _mm256_dpbusd_avx_epi32(sum, codes, x);
}
#else
INLINE vbytes s_add(vbytes a, vbytes b) { return _mm256_add_epi16(a, b); }
INLINE vbytes s_dot(vbytes codes, vbytes x) { return _mm256_maddubs_epi16(codes, x); }
INLINE vbytes i_pairs(vbytes v) { return _mm256_madd_epi16(v, _mm256_set1_epi16(1)); }
INLINE vbytes b_abs(vbytes v) { return _mm256_abs_epi8(v); }
INLINE vbytes b_signed(vbytes x, vbytes by) { return _mm256_sign_epi8(x, by); }
#endif

#else
#define LANES       4
#define KERNEL_NAME "plain"
#define DOT_PRODUCT 1
typedef struct {
    float v[LANES];
} vfloat;
typedef union {
    uint8_t b[4 * LANES];
    int32_t i[LANES];
} vbytes;
#define EACH(n)     for (int k = 0; k < (n); k++)
INLINE float half_of(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31,
             bits = (uint32_t)(h & 1023) << 13;
    float found;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)(h & 1023) * 0x1p-24f;
    uint32_t whole = sign | ((exponent == 31 ? 255u : exponent + 112u) << 23) | bits;
    memcpy(&found, &whole, 4);
    return found;
}
INLINE vfloat f_all(float v) {
    vfloat r;
    EACH(LANES) r.v[k] = v;
    return r;
}
INLINE vfloat f_zero(void) { return f_all(0.0f); }
INLINE vfloat f_load(const float *at) {
    vfloat r;
    EACH(LANES) r.v[k] = at[k];
    return r;
}
INLINE void f_store(float *at, vfloat v) { EACH(LANES) at[k] = v.v[k]; }
INLINE vfloat f_mul(vfloat a, vfloat b) {
    EACH(LANES) a.v[k] *= b.v[k];
    return a;
}
INLINE vfloat f_fma(vfloat a, vfloat b, vfloat c) {
    EACH(LANES) c.v[k] += a.v[k] * b.v[k];
    return c;
}
INLINE vfloat f_add(vfloat a, vfloat b) {
    EACH(LANES) a.v[k] += b.v[k];
    return a;
}
INLINE vfloat f_sub(vfloat a, vfloat b) {
    EACH(LANES) a.v[k] -= b.v[k];
    return a;
}
INLINE vfloat f_max(vfloat a, vfloat b) {
    EACH(LANES) a.v[k] = a.v[k] > b.v[k] ? a.v[k] : b.v[k];
    return a;
}
INLINE vfloat f_round(vfloat a) {
    EACH(LANES) a.v[k] = rintf(a.v[k]);
    return a;
}
INLINE vfloat f_power(vfloat a) {
    EACH(LANES) {
        const int32_t bits = ((int32_t)a.v[k] + 127) << 23;
        memcpy(&a.v[k], &bits, 4);
    }
    return a;
}
INLINE vfloat f_half(const uint8_t *at) {
    vfloat r;
    uint16_t h[LANES];
    memcpy(h, at, sizeof h);
    EACH(LANES) r.v[k] = half_of(h[k]);
    return r;
}
INLINE vfloat f_bfloat(const uint8_t *at) {
    vfloat r;
    uint16_t h[LANES];
    memcpy(h, at, sizeof h);
    EACH(LANES) {
        uint32_t bits = (uint32_t)h[k] << 16;
        memcpy(&r.v[k], &bits, 4);
    }
    return r;
}
INLINE void f_sums(const vfloat v[4], float *out) { /* of each of four vectors */
    EACH(4) out[k] = (v[k].v[0] + v[k].v[1]) + (v[k].v[2] + v[k].v[3]);
}
INLINE vfloat f_u8(const uint8_t *at) {
    vfloat r;
    EACH(LANES) r.v[k] = (float)at[k];
    return r;
}
INLINE vfloat f_i8(const uint8_t *at) {
    vfloat r;
    EACH(LANES) r.v[k] = (float)(int8_t)at[k];
    return r;
}
INLINE vfloat f_int(vbytes v) {
    vfloat r;
    EACH(LANES) r.v[k] = (float)v.i[k];
    return r;
}
INLINE vbytes b_load(const uint8_t *at) {
    vbytes r;
    memcpy(r.b, at, sizeof r.b);
    return r;
}
INLINE vbytes b_all(uint8_t v) {
    vbytes r;
    EACH(4 * LANES) r.b[k] = v;
    return r;
}
INLINE vbytes b_and(vbytes a, vbytes b) {
    EACH(4 * LANES) a.b[k] &= b.b[k];
    return a;
}
INLINE vbytes b_or(vbytes a, vbytes b) {
    EACH(4 * LANES) a.b[k] |= b.b[k];
    return a;
}
INLINE vbytes b_xor(vbytes a, vbytes b) {
    EACH(4 * LANES) a.b[k] ^= b.b[k];
    return a;
}
INLINE vbytes b_right(vbytes a, int n) {
    EACH(4 * LANES) a.b[k] = (uint8_t)(a.b[k] >> n);
    return a;
}
INLINE vbytes b_left(vbytes a, int n) {
    EACH(4 * LANES) a.b[k] = (uint8_t)(a.b[k] << n);
    return a;
}
INLINE vbytes i_zero(void) { return b_all(0); }
INLINE vbytes i_add(vbytes a, vbytes b) {
    EACH(LANES) a.i[k] += b.i[k];
    return a;
}
INLINE vbytes b_four(const int8_t *at) {
    vbytes r;
    EACH(4 * LANES) r.b[k] = (uint8_t)at[k % 4];
    return r;
}
INLINE vbytes i_pair_dot(vbytes sum, vbytes a, vbytes b) {
    int16_t x[2 * LANES], y[2 * LANES];
    memcpy(x, a.b, sizeof x);
    memcpy(y, b.b, sizeof y);
    EACH(LANES) sum.i[k] += x[2 * k] * y[2 * k] + x[2 * k + 1] * y[2 * k + 1];
    return sum;
}
INLINE vbytes i_dot(vbytes sum, vbytes codes, vbytes x) {
    EACH(LANES)
    for (int j = 0; j < 4; j++) sum.i[k] += (int32_t)codes.b[4 * k + j] * (int8_t)x.b[4 * k + j];
    return sum;
}
#endif

#define HALVES (TILE / LANES)
#endif
