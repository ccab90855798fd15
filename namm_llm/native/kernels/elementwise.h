/* Norms, activations and rotations, in plain C that the compiler vectorises: sums in 16 lanes, in
 * fixed order. */
#ifndef NAMM_ELEMENTWISE_H
#define NAMM_ELEMENTWISE_H

#include "simd.h"

enum { NO_GATE = 0, SILU = 1, GELU_TANH = 2 };

/* exp to 2 units in the last place; 0 below -87, inf above 88.7 as far as float32 goes */
INLINE float exp_of(float x) {
    const float clamped = x < -87.3f ? -87.3f : x > 88.7f ? 88.7f : x;
    const float n = rintf(clamped * 1.44269504f);
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power + (x - x); /* NaN stays NaN */
}

INLINE float gate_of(const int kind, float x) {
    float inner = x;
    if (kind == GELU_TANH) inner = 1.5957691216f * (x + 0.044715f * x * x * x); /* 2 sqrt(2 / pi) */
    return x /
           (1.0f + exp_of(-inner)); /* x sigmoid(inner): of tanh, sigmoid(2 y) = (1 + tanh y) / 2 */
}

/* sums of 16 rows of gates become activation(gate) * up */
static void gate_rows(int64_t kind, const float *ups, float *gates, int64_t count) {
    if (kind == SILU)
        for (int64_t i = 0; i < count; i++) gates[i] = gate_of(SILU, gates[i]) * ups[i];
    else
        for (int64_t i = 0; i < count; i++) gates[i] = gate_of(GELU_TANH, gates[i]) * ups[i];
}

/* out = x / sqrt(mean(x^2) + epsilon) * weight */
static void norm_row(const float *x, const float *weight, float epsilon, int64_t columns,
                     float *out) {
    float lanes[16] = {0}, total = 0.0f;
    int64_t i = 0;
    for (; i + 16 <= columns; i += 16)
        for (int k = 0; k < 16; k++) lanes[k] += x[i + k] * x[i + k];
    for (int k = 0; k < 16; k++) total += lanes[k];
    for (; i < columns; i++) total += x[i] * x[i];
    const float scale = 1.0f / sqrtf(total / (float)columns + epsilon);
    for (int64_t k = 0; k < columns; k++) out[k] = x[k] * scale * weight[k];
}
#endif
