/* See noise.c. */

#ifndef PYRO_MINVAE_NOISE_H
#define PYRO_MINVAE_NOISE_H

#include "passes.h"

/* The M-step's arrays: sigma [sources, draws, rows, bins], gain [sources, rows], the others [rows, bins]. In the mean
   field `sigma` is the harmonic mean of the draws, one for each source. */
typedef struct {
    const float *sigma, *gain, *noise, *power;
    float *p, *q;      /* what a pass answers, as it says; rows lie `apart` numbers from each other */
    float *up, *down;  /* [sources, rows] */
    Count sources, draws, rows, bins, source, apart;
} Fit;

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

void marginal_fit(const Fit *task, Count threads);
void marginal_gains(const Fit *task, Count threads);
void noise_moment(const Fit *task, Count threads);
void speech_moment(const Fit *task, Count threads);
void inverses(const Fit *task, Count threads);
void harmonic(const Fit *task, Count threads);
void shares(const Fit *task, Count threads);
void minimise(const Minima *task, Count threads);
void move_chain(const Chain *task, Count threads);
void move_spectra(const Spectra *task, Count threads);

#endif
