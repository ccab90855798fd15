/* All layers of a decoder for a few new tokens of each sequence: one call a step. */
#ifndef NAMM_STEP_H
#define NAMM_STEP_H

#include "attend.h"
#include "multiply.h"
#include "rotate.h"

typedef struct {
    const plan_t *attention_input, *attention_output, *gate_up, *down;
    const float *head_norms[2];   /* [size] or null: each query head, each key head */
    const float *output_norms[2]; /* [width] or null: of attention and gated product, before the sum */
    double head_epsilon, output_epsilons[2], scale;
    int64_t rotation; /* which of the step's tables */
} layer_t;

typedef struct {
    const layer_t *layers;
    const plan_t *head; /* final norm, then the logits */
    int64_t layer_count, width, heads, groups, size, inner, turned, dtype; /* dtype: of the cache */
} decoder_t;

typedef struct {
    const sequence_t *sequences;  /* [layers, count], see attend.h */
    const float *const *cosines;  /* tables [positions, turned], one for each kind of rotation */
    const float *const *sines;
    float *hidden;                /* [count * tokens, width]: embeddings, overwritten */
    float *logits;                /* [count * kept, vocabulary] */
    int64_t count, tokens, positions, kept, vocabulary; /* kept: 1 for the last token, or all */
} step_t;

/* `count` numbers of each of `tokens` rows, `stride` apart, behind each other from `at` on */
static void store_rows(int64_t dtype, const float *from, int64_t stride, int64_t tokens,
                       int64_t count, uint8_t *to, int64_t at) {
    for (int64_t t = 0; t < tokens; t++)
        from_floats(dtype, from + t * stride, count, to + (at + t) * count * bytes_of(dtype));
}

/* keys and values into the windows, and queries into the buffers of those that keep them.
   joined: [count * tokens, (heads + 2 groups) * size] */
static void store_tokens(const decoder_t *model, const step_t *step, const sequence_t *sequences,
                         const float *joined) {
    const int64_t size = model->size, stride = (model->heads + 2 * model->groups) * size;
    for (int64_t row = 0; row < step->count; row++) {
        const sequence_t *s = sequences + row;
        const float *from = joined + row * step->tokens * stride;
        const float *keys = from + model->heads * size, *values = keys + model->groups * size;
        for (int64_t g = 0; g < model->groups; g++) {
            const int64_t at = g * s->window_distance + s->window_count;
            store_rows(model->dtype, keys + g * size, stride, step->tokens, size, s->window_keys,
                       at);
            store_rows(model->dtype, values + g * size, stride, step->tokens, size,
                       s->window_values, at);
        }
        for (int64_t h = 0; s->queries && h < model->heads; h++)
            store_rows(model->dtype, from + h * size, stride, step->tokens, size, s->queries,
                       h * s->query_distance + s->query_count);
    }
}

/* hidden += norm(x times a plan's weights) */
static int add_product(const plan_t *plan, const float *norm, double epsilon, const float *x,
                       int64_t rows, int64_t width, float *hidden, float *scratch, int threads) {
    const int64_t columns = plan->columns;
    if (!norm)
        return namm_multiply(plan, x, hidden, hidden, rows, columns, width, 0, threads);
    return namm_multiply(plan, x, 0, scratch, rows, columns, width, 0, threads) ||
           namm_norm(scratch, norm, epsilon, hidden, hidden, rows, width, 0, threads);
}

static int run_layer(const decoder_t *model, const step_t *step, int64_t number, float *scratch,
                     int threads) {
    const layer_t *layer = model->layers + number;
    const sequence_t *sequences = step->sequences + number * step->count;
    const int64_t rows = step->count * step->tokens, size = model->size, width = model->width;
    const int64_t stride = (model->heads + 2 * model->groups) * size;
    float *joined = scratch, *heads = joined + rows * stride,
          *inner = heads + rows * model->heads * size, *other = inner + rows * model->inner;
    attend_t attention = {.sequences = sequences,
                          .count = step->count,
                          .tokens = step->tokens,
                          .heads = model->heads,
                          .groups = model->groups,
                          .size = size,
                          .dtype = model->dtype,
                          .scale = layer->scale,
                          .query = (const uint8_t *)joined,
                          .out = (uint8_t *)heads,
                          .io = ROW_F32,
                          .query_strides = {step->tokens * stride, stride, size},
                          .out_strides = {step->tokens * model->heads * size, model->heads * size,
                                          size}};
    if (namm_multiply(layer->attention_input, step->hidden, 0, joined, rows, width, stride, 0,
                      threads) ||
        namm_rotate(joined, step->cosines[layer->rotation], step->sines[layer->rotation],
                    layer->head_norms[0], layer->head_norms[1], layer->head_epsilon, rows, stride,
                    model->heads, model->groups, size, model->turned, step->positions, 0, threads))
        return 1;
    store_tokens(model, step, sequences, joined);
    return namm_attend(&attention, threads) ||
           add_product(layer->attention_output, layer->output_norms[0], layer->output_epsilons[0],
                       heads, rows, width, step->hidden, other, threads) ||
           namm_multiply(layer->gate_up, step->hidden, 0, inner, rows, width, model->inner, 0,
                         threads) ||
           add_product(layer->down, layer->output_norms[1], layer->output_epsilons[1], inner, rows,
                       width, step->hidden, other, threads);
}

/* Logits after `tokens` more tokens of each sequence; windows and query buffers have room for them
   and get their rows, but their counts are the caller's. Returns 1 if memory is short. */
int namm_step(const decoder_t *model, const step_t *step, int threads) {
    const int64_t rows = step->count * step->tokens, skipped = step->tokens - step->kept;
    const int64_t widest = (2 * model->heads + 2 * model->groups) * model->size + model->inner +
                           model->width;
    float *scratch = malloc((size_t)(rows * widest) * 4);
    int failed = !scratch;
    for (int64_t l = 0; l < model->layer_count && !failed; l++)
        failed = run_layer(model, step, l, scratch, threads);
    free(scratch);
    for (int64_t row = 0; row < step->count && step->kept < step->tokens && !failed; row++)
        memmove(step->hidden + row * step->kept * model->width,
                step->hidden + (row * step->tokens + skipped) * model->width,
                (size_t)(step->kept * model->width) * 4);
    return failed || namm_multiply(model->head, step->hidden, 0, step->logits,
                                   step->count * step->kept, model->width, step->vocabulary, 0,
                                   threads);
}
int64_t namm_step_bytes(void) {
    return (int64_t)(sizeof(layer_t) + sizeof(decoder_t) + sizeof(step_t));
}
#endif
