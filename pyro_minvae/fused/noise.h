/* See noise.c. */

#ifndef PYRO_MINVAE_NOISE_H
#define PYRO_MINVAE_NOISE_H

#include "passes.h"

/* The M-step's arrays: sigma [sources, draws, rows, bins], gain [sources, rows], the others [rows, bins]. In the mean
   field `sigma` is the harmonic mean of the draws, one for each source. */
typedef struct {
    const float *sigma, *gain, *noise, *power;
    float *p, *up, *down; /* what a pass answers, as it says; the last two are [sources, rows] */
    Count sources, draws, rows, bins, source;
} Fit;

/* The place of one source's draw, at a row. */
static inline const float *draw_of(const Fit *t, Count source, Count draw, Count row) {
    return t->sigma + ((source * t->draws + draw) * t->rows + row) * t->bins;
}

static inline float gain_of(const Fit *t, Count source, Count row) {
    return t->gain ? t->gain[source * t->rows + row] : 1.0f;
}

/* V = sum_j g_j sigma_j + noise of a draw, `count` bins from `first`. */
static inline void total_of(
    const Fit *t, Count draw, Count row, Count first, Count count, float *restrict v) {
    const float *restrict noise = t->noise + row * t->bins + first;
    for (Count f = 0; f < count; f++) v[f] = noise[f];
    for (Count j = 0; j < t->sources; j++) {
        const float gain = gain_of(t, j, row), *restrict sigma = draw_of(t, j, draw, row) + first;
        for (Count f = 0; f < count; f++) v[f] += gain * sigma[f];
    }
}

/* Activations [batch, columns (K), frames (M)], of which `up` and `down` may lie in any order. */
typedef struct {
    const float *activations, *up, *down, *links; /* links [M + 1], or [batch, M + 1] */
    float *out;
    Count batch, columns, frames, up_batch, up_column, up_frame, link_batch, sweeps;
} Chain;

/* Spectra [batch, bins, columns], with `up` and `down` in any order, and their activations [batch, columns, frames]. */
typedef struct {
    const float *spectra, *up, *down, *activations;
    float *spectra_out, *activations_out;
    Count batch, bins, columns, frames, up_batch, up_bin, up_column;
} Spectra;

/* Minimisers of a h + b / h + slope log h, one for each of `count` places; where there is no `a`, it is
   `same` everywhere. */
typedef struct {
    const float *a, *b;
    float *out;
    Count count;
    float same, slope;
} Minima;

void marginal_gains(const Fit *task, Count threads);
void noise_moment(const Fit *task, Count threads);
void speech_moment(const Fit *task, Count threads);
void harmonic(const Fit *task, Count threads);
void shares(const Fit *task, Count threads);
void minimise(const Minima *task, Count threads);
void move_chain(const Chain *task, Count threads);
void move_spectra(const Spectra *task, Count threads);

#endif
