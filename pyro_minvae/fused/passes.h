/* How the passes of this folder are written: vectors by the compiler, rows by several threads. */

#ifndef PYRO_MINVAE_PASSES_H
#define PYRO_MINVAE_PASSES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* One function for each generation of processors, of which the program takes the newest that it finds itself on. */
#if defined(__x86_64__) && defined(__linux__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

/* For what is written once and compiled for several constants. */
#define HERE static inline __attribute__((always_inline))

/* Bins that are dealt with together, in arrays that stay in the nearest cache. */
#define BLOCK 128

/* The least that noise factors and gains come to, as in models/noise.py. */
#define TINY 1e-12f

typedef int64_t Count;

/* A row-wise operand [rows, bins], which repeats if there are more rows than it has; absent if NULL. */
typedef struct {
    const float *values;
    Count rows;
} Rows;

static inline const float *row_of(Rows operand, Count row, Count bins) {
    return operand.values + (row % operand.rows) * bins;
}

/* Work on rows `start` to `stop`, by what `body` says of `task`. */
typedef void (*Body)(const void *task, Count start, Count stop);
void over_rows(Body body, const void *task, Count rows, Count numbers, Count threads);

/* 2^x to 2e-7 of it, 0 below 2^-126; x <= 127, and NaN stays NaN. */
static inline float power_of_two(float x) {
    float inside = x < -126.0f ? -126.0f : x;
    float whole = rintf(inside), rest = inside - whole;
    float p = 1.535336188319500e-4f;
    p = p * rest + 1.339887440266574e-3f;
    p = p * rest + 9.618437357674640e-3f;
    p = p * rest + 5.550332471162809e-2f;
    p = p * rest + 2.402264791363012e-1f;
    p = p * rest + 6.931472028550421e-1f;
    p = p * rest + 1.0f;
    int32_t bits = ((int32_t)whole + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return x < -126.0f ? 0.0f : p * scale;
}

static inline Count least(Count a, Count b) { return a < b ? a : b; }

#endif
