/* The E-step's passes over [rows, bins]: decoder, densities, gradients, decisions. */

#include "speech.h"

/* a = 2^min(a, limit) + floor, in place. */
static VECTORISED void decode_rows(const void *task, Count start, Count stop) {
    const Decode *t = task;
    const float limit = t->limit, floor = t->floor;
    float *a = t->values;
    for (Count i = start * t->bins; i < stop * t->bins; i++) {
        float x = a[i] > limit ? limit : a[i];
        a[i] = power_of_two(x) + floor;
    }
}

void decode(const Decode *task, Count threads) {
    over_rows(decode_rows, task, task->rows, task->rows * task->bins, threads);
}

/* a = 1 / (1 + 2^(-a log2 e)), in place. */
static VECTORISED void logistic_rows(const void *task, Count start, Count stop) {
    const Decode *t = task;
    float *a = t->values;
    for (Count i = start * t->bins; i < stop * t->bins; i++) {
        float x = -1.44269504088896341f * a[i];
        x = x > 126.0f ? 126.0f : x;
        a[i] = 1.0f / (1.0f + power_of_two(x));
    }
}

void logistic(const Decode *task, Count threads) {
    over_rows(logistic_rows, task, task->rows, task->rows * task->bins, threads);
}

/* a (1 - a) times what comes back, in its place. */
static VECTORISED void bend_rows(const void *task, Count start, Count stop) {
    const Bend *t = task;
    const float *restrict a = t->activations;
    float *restrict back = t->back;
    for (Count i = start * t->bins; i < stop * t->bins; i++) back[i] *= a[i] - a[i] * a[i];
}

void bend(const Bend *task, Count threads) {
    over_rows(bend_rows, task, task->rows, task->rows * task->bins, threads);
}

/* V = scale sigma + others of `count` bins from `first`. */
static inline void variance_of(const Density *t, Count row, Count first, Count count, float *restrict v) {
    const float *restrict sigma = row_of(t->sigma, row, t->bins) + first;
    if (!t->scale.values && !t->others.values) {
        memcpy(v, sigma, count * sizeof *v);
        return;
    }
    if (!t->scale.values) {
        const float *restrict others = row_of(t->others, row, t->bins) + first;
        for (Count f = 0; f < count; f++) v[f] = sigma[f] + others[f];
        return;
    }
    if (t->scale_bins == 1) {
        const float scale = t->scale.values[row % t->scale.rows];
        const float *restrict others = row_of(t->others, row, t->bins) + first;
        for (Count f = 0; f < count; f++) v[f] = scale * sigma[f] + others[f];
        return;
    }
    const float *restrict scale = row_of(t->scale, row, t->bins) + first;
    const float *restrict others = row_of(t->others, row, t->bins) + first;
    for (Count f = 0; f < count; f++) v[f] = scale[f] * sigma[f] + others[f];
}

/* sum_f [log V + |x|^2 / V] of a row with numbers that are zero, not finite or nearly so. */
static double plainly(const Density *t, Count row) {
    const float *power = row_of(t->power, row, t->bins);
    double sum = 0;
    for (Count f = 0; f < t->bins; f++) {
        float v;
        variance_of(t, row, f, 1, &v);
        sum += log((double)v) + (double)(power[f] / v);
    }
    return sum;
}

/* -sum_f [log V + |x|^2 / V]. A logarithm of a product of numbers costs one logarithm: their mantissas' product, and
   their exponents' sum. */
static VECTORISED void density_rows(const void *task, Count start, Count stop) {
    const Density *t = task;
    for (Count row = start; row < stop; row++) {
        const float *restrict power = row_of(t->power, row, t->bins);
        double logs = 0, sum = 0;
        int32_t lowest = 255, highest = 0;
        Count exponents = 0;
        for (Count first = 0; first < t->bins; first += BLOCK / 2) {
            const Count count = least(BLOCK / 2, t->bins - first);
            float v[BLOCK / 2];
            variance_of(t, row, first, count, v);
            float product = 1, ratios = 0;
            int32_t exponent = 0;
            for (Count f = 0; f < count; f++) {
                int32_t bits, own;
                memcpy(&bits, &v[f], sizeof bits);
                own = bits >> 23;
                lowest = own < lowest ? own : lowest;
                highest = own > highest ? own : highest;
                exponent += own;
                bits = (bits & 0x7fffff) | 0x3f800000;
                float mantissa;
                memcpy(&mantissa, &bits, sizeof mantissa);
                product *= mantissa;
                ratios += power[first + f] / v[f];
            }
            exponents += exponent;
            logs += log2f(product);
            sum += ratios;
        }
        logs += (double)(exponents - 127 * t->bins);
        sum += logs * 0.693147180559945309;
        if (lowest < 1 || highest > 254) sum = plainly(t, row);
        t->out[row] = (float)-sum;
    }
}

void density(const Density *task, Count threads) {
    over_rows(density_rows, task, task->rows, task->rows * task->bins, threads);
}

/* The density's derivative by V, (|x|^2 / V - 1) / V, times the scale. */
static VECTORISED void slope_rows(const void *task, Count start, Count stop) {
    const Density *t = task;
    for (Count row = start; row < stop; row++) {
        const float *restrict power = row_of(t->power, row, t->bins);
        float *restrict out = t->out + row * t->bins;
        for (Count first = 0; first < t->bins; first += BLOCK) {
            const Count count = least(BLOCK, t->bins - first);
            float v[BLOCK];
            variance_of(t, row, first, count, v);
            for (Count f = 0; f < count; f++) {
                float inverse = 1.0f / v[f];
                out[first + f] = (power[first + f] * inverse - 1.0f) * inverse;
            }
        }
        if (!t->scale.values) continue;
        if (t->scale_bins == 1) {
            const float scale = t->scale.values[row % t->scale.rows];
            for (Count f = 0; f < t->bins; f++) out[f] *= scale;
        } else {
            const float *restrict scale = row_of(t->scale, row, t->bins);
            for (Count f = 0; f < t->bins; f++) out[f] *= scale[f];
        }
    }
}

void slope(const Density *task, Count threads) {
    over_rows(slope_rows, task, task->rows, task->rows * task->bins, threads);
}

/* outer (sigma - floor), 0 where the exponent was cut off. */
static VECTORISED void through_rows(const void *task, Count start, Count stop) {
    const Through *t = task;
    const float floor = t->floor, most = t->most;
    const int bounded = isinf(most);
    const float *sigma = t->sigma, *outer = t->outer;
    float *out = t->out;
    for (Count i = start * t->bins; i < stop * t->bins; i++) {
        float exponential = sigma[i] - floor;
        float slope = exponential * outer[i];
        out[i] = bounded | (exponential < most) ? slope : 0.0f;
    }
}

void through(const Through *task, Count threads) {
    over_rows(through_rows, task, task->rows, task->rows * task->bins, threads);
}

/* sum_l z^2 + sum_f sigma, which is finite where both are. */
static VECTORISED void sums_rows(const void *task, Count start, Count stop) {
    const Sums *t = task;
    for (Count row = start; row < stop; row++) {
        const float *z = t->z + row * t->latent, *sigma = t->sigma + row * t->bins;
        float sum = 0;
        for (Count l = 0; l < t->latent; l++) sum += z[l] * z[l];
        for (Count f = 0; f < t->bins; f++) sum += sigma[f];
        t->out[row] = sum;
    }
}

void sums(const Sums *task, Count threads) {
    over_rows(sums_rows, task, task->rows, task->rows * task->bins, threads);
}
