/* See products.c. */

#ifndef PYRO_MINVAE_PRODUCTS_H
#define PYRO_MINVAE_PRODUCTS_H

#include "noise.h"

/* Factors of a variance, spectra W [batch, bins, rank] and activations H [batch, rank, frames], and what is multiplied by
   one of them, P and Q [rows = batch x frames, bins]. Where `q` is given `fit.power` is P, otherwise they are
   mean_r |x|^2 V^-2 and mean_r V^-1 with V = sum_j g_j sigma_j + noise, the noise alone if there are no sources. */
typedef struct {
    const float *spectra, *activations, *q;
    Fit fit;
    float *out;
    Count batch, frames, rank;
} Product;

void product(const Product *task, Count threads);
/* 0 if there is no memory for it. */
int onto_spectra(const Product *task, Count threads);
void onto_activations(const Product *task, Count threads);

#endif
