/* See speech.c. */

#ifndef PYRO_MINVAE_SPEECH_H
#define PYRO_MINVAE_SPEECH_H

#include "passes.h"

typedef struct {
    float *values;
    Count rows, bins;
    float limit, floor;
} Decode;

typedef struct {
    const float *activations;
    float *back;
    Count rows, bins;
} Bend;

typedef struct {
    Rows power, sigma, scale, others;
    float *out;
    Count rows, bins, scale_bins;
} Density;

typedef struct {
    const float *sigma, *outer;
    float *out;
    Count rows, bins;
    float floor, most;
} Through;

typedef struct {
    const float *z, *sigma;
    float *out;
    Count rows, latent, bins;
} Sums;

void decode(const Decode *task, Count threads);
void logistic(const Decode *task, Count threads);
void bend(const Bend *task, Count threads);
void density(const Density *task, Count threads);
void slope(const Density *task, Count threads);
void through(const Through *task, Count threads);
void sums(const Sums *task, Count threads);

#endif
