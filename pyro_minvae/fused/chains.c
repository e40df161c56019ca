/* The passes over latent vectors [rows, latent]: Gaussian priors, and Metropolis' decisions. */

#include "chains.h"

static inline float log_normal(const Normal *n, const float *z, Count row, Count latent) {
    const float *mean = row_of(n->mean, row, latent), *precision = row_of(n->precision, row, latent);
    float sum = 0;
    for (Count l = 0; l < latent; l++) {
        float away = (z[l] - mean[l]) * precision[l];
        sum += away * away;
    }
    return *row_of(n->constant, row, 1) - 0.5f * sum;
}

static inline float log_add(float a, float b) {
    float most = a > b ? a : b;
    return most == -INFINITY ? most : most + log1pf(expf(-fabsf(a - b)));
}

static inline float between(float a, float b, float weight) {
    return weight < 0.5f ? a + weight * (b - a) : b - (b - a) * (1.0f - weight);
}

static VECTORISED void density_of_rows(const void *task, Count start, Count stop) {
    const Mixture *t = task;
    for (Count row = start; row < stop; row++) {
        const float *z = t->z + row * t->latent;
        float sum = log_normal(&t->parts[0], z, row, t->latent);
        if (t->count == 2) {
            float other = log_normal(&t->parts[1], z, row, t->latent);
            if (t->weight.values)
                sum = between(sum, other, *row_of(t->weight, row, 1));
            else
                sum = log_add(sum + *row_of(t->logs[0], row, 1), other + *row_of(t->logs[1], row, 1));
        }
        t->out[row] = sum;
    }
}

void log_densities(const Mixture *task, Count threads) {
    over_rows(density_of_rows, task, task->rows, task->rows * task->latent, threads);
}

/* p(alpha = 1) given `draws` rows z of each of `rows` places: of their mean log ratio, or the mean of each one's. */
static VECTORISED void responsibility_rows(const void *task, Count start, Count stop) {
    const Responsibility *t = task;
    const Mixture *m = &t->of;
    for (Count row = start; row < stop; row++) {
        const float logit = *row_of(m->logs[1], row, 1) - *row_of(m->logs[0], row, 1);
        float ratios = 0, shares = 0;
        for (Count draw = 0; draw < t->draws; draw++) {
            const float *z = m->z + (draw * m->rows + row) * m->latent;
            const float ratio =
                log_normal(&m->parts[1], z, row, m->latent) - log_normal(&m->parts[0], z, row, m->latent);
            ratios += ratio;
            if (!t->mean_ratio) shares += 1.0f / (1.0f + expf(-(logit + ratio)));
        }
        const float ratio = logit + ratios / (float)t->draws;
        m->out[row] = t->mean_ratio ? 1.0f / (1.0f + expf(-ratio)) : shares / (float)t->draws;
    }
}

void responsibilities(const Responsibility *task, Count threads) {
    const Count rows = task->of.rows;
    over_rows(responsibility_rows, task, rows, rows * task->draws * task->of.latent, threads);
}

static VECTORISED void gradient_rows(const void *task, Count start, Count stop) {
    const Mixture *t = task;
    const Count latent = t->latent;
    for (Count row = start; row < stop; row++) {
        const float *restrict z = t->z + row * latent;
        float *restrict out = t->out + row * latent;
        const float *mean = row_of(t->parts[0].mean, row, latent);
        const float *precision = row_of(t->parts[0].precision, row, latent);
        for (Count l = 0; l < latent; l++) out[l] = (mean[l] - z[l]) * (precision[l] * precision[l]);
        if (t->count < 2) continue;
        float weight;
        if (t->weight.values) {
            weight = *row_of(t->weight, row, 1);
        } else {
            float lips = log_normal(&t->parts[0], z, row, latent) + *row_of(t->logs[0], row, 1);
            float audio = log_normal(&t->parts[1], z, row, latent) + *row_of(t->logs[1], row, 1);
            weight = 1.0f / (1.0f + expf(lips - audio));
        }
        mean = row_of(t->parts[1].mean, row, latent);
        precision = row_of(t->parts[1].precision, row, latent);
        for (Count l = 0; l < latent; l++) {
            float other = (mean[l] - z[l]) * (precision[l] * precision[l]);
            out[l] = between(out[l], other, weight);
        }
    }
}

void gradients(const Mixture *task, Count threads) {
    over_rows(gradient_rows, task, task->rows, task->rows * task->latent, threads);
}

/* z + step (step / 2 gradient + normal). */
static VECTORISED void langevin_moves(const void *task, Count start, Count stop) {
    const Langevin *t = task;
    const float step = t->step, half = 0.5f * step;
    for (Count i = start; i < stop; i++) t->out[i] = t->z[i] + step * (half * t->gradient[i] + t->normal[i]);
}

void langevin(const Langevin *task, Count threads) {
    over_rows(langevin_moves, task, task->count, task->count, threads);
}

/* Go where log u < log p(z') - log p(z) + log q(z | z') - log q(z' | z). A density that is not finite is one to keep
   away from, or to leave. */
static void decide_rows(const void *task, Count start, Count stop) {
    const Decision *t = task;
    const size_t width = (size_t)t->latent * sizeof(float);
    for (Count row = start; row < stop; row++) {
        const float proposed = isfinite(t->proposed[row]) ? t->proposed[row] : -INFINITY;
        float ratio = proposed - (isfinite(t->current[row]) ? t->current[row] : -3.402823466e38f);
        if (t->correction) ratio += t->correction[row];
        if (isnan(ratio)) ratio = -INFINITY;
        const int went = logf(t->chance[row]) < ratio;
        t->accepted[row] = (uint8_t)went;
        t->density[row] = went ? t->proposed[row] : t->current[row];
        memcpy(t->position + row * t->latent, (went ? t->there : t->here) + row * t->latent, width);
        if (t->gradient)
            memcpy(t->gradient + row * t->latent,
                   (went ? t->gradient_there : t->gradient_here) + row * t->latent, width);
        if (t->probability) t->probability[row] = expf(ratio < 0 ? ratio : 0.0f);
    }
}

void decide(const Decision *task, Count threads) {
    over_rows(decide_rows, task, task->rows, task->rows * task->latent, threads);
}

/* Where the chains are after a decision, by copying the fewer rows: 1 if that is `there`, 0 if it is `here`. */
int exchange(const uint8_t *accepted, float *there, float *here, Count rows, Count bins) {
    Count went = 0;
    for (Count row = 0; row < rows; row++) went += accepted[row] != 0;
    const int most = 2 * went > rows;
    float *into = most ? there : here;
    const float *from = most ? here : there;
    for (Count row = 0; row < rows; row++)
        if ((accepted[row] != 0) != most)
            memcpy(into + row * bins, from + row * bins, (size_t)bins * sizeof(float));
    return most;
}
