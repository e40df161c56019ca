/* See chains.c. */

#ifndef PYRO_MINVAE_CHAINS_H
#define PYRO_MINVAE_CHAINS_H

#include "passes.h"

/* log N(z; mean, diag precision^-2) but for `constant`, each of as many rows as it has. */
typedef struct {
    Rows mean, precision, constant;
} Normal;

/* One component, or two with q(alpha = 1) = `weight` or log p(alpha) = `logs`: `logs[1] - logs[0]` is the logit. */
typedef struct {
    Normal parts[2];
    Rows weight, logs[2];
    const float *z;
    float *out;
    Count count, rows, latent;
} Mixture;

/* Of two components with `logs`; the prior is the same for every one of so many draws. */
typedef struct {
    Mixture of;
    Count draws, mean_ratio;
} Responsibility;

typedef struct {
    const float *z, *gradient, *normal;
    float *out;
    Count count;
    float step;
} Langevin;

typedef struct {
    const float *proposed, *current, *correction, *chance; /* [rows]; correction may be NULL */
    const float *there, *here;                             /* [rows, latent] */
    const float *gradient_there, *gradient_here;           /* [rows, latent] or NULL */
    uint8_t *accepted;
    float *density, *position, *gradient, *probability; /* the last two may be NULL */
    Count rows, latent;
} Decision;

void log_densities(const Mixture *task, Count threads);
void responsibilities(const Responsibility *task, Count threads);
void gradients(const Mixture *task, Count threads);
void langevin(const Langevin *task, Count threads);
void decide(const Decision *task, Count threads);
int exchange(const uint8_t *accepted, float *there, float *here, Count rows, Count bins);

#endif
