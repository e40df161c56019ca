/* The M-step's passes: noise, gains, filters. */

#include "noise.h"

/* up = sum_r sum_f |x|^2 sigma_j V^-2 and down = sum_r sum_f sigma_j V^-1 of one source. */
static VECTORISED void gain_rows(const void *task, Count start, Count stop) {
    const Fit *t = task;
    for (Count row = start; row < stop; row++) {
        float up = 0, down = 0;
        for (Count r = 0; r < t->draws; r++) {
            const float *restrict own = draw_of(t, t->source, r, row);
            for (Count first = 0; first < t->bins; first += BLOCK) {
                const Count count = least(BLOCK, t->bins - first);
                const float *restrict power = t->power + row * t->bins + first;
                float v[BLOCK], some_up = 0, some_down = 0;
                total_of(t, r, row, first, count, v);
                for (Count f = 0; f < count; f++) {
                    float inverse = 1.0f / v[f], share = own[first + f] * inverse;
                    some_down += share;
                    some_up += power[f] * inverse * share;
                }
                up += some_up;
                down += some_down;
            }
        }
        t->up[row] = up;
        t->down[row] = down;
    }
}

void marginal_gains(const Fit *task, Count threads) {
    over_rows(gain_rows, task, task->rows, task->rows * task->bins * task->draws, threads);
}

/* E|c|^2 = (v / V)^2 |x|^2 + v (1 - v / V) of a component of variance v in a sum of variance V. */
static inline float moment_of(float own, float total, float power) {
    float share = own / total;
    return (total + share * power - own) * share;
}

/* p = E|b|^2 of the noise, up = sum_f E|s|^2 / sigma of every source. */
static VECTORISED void noise_moment_rows(const void *task, Count start, Count stop) {
    const Fit *t = task;
    for (Count row = start; row < stop; row++) {
        for (Count j = 0; t->up && j < t->sources; j++) t->up[j * t->rows + row] = 0;
        for (Count first = 0; first < t->bins; first += BLOCK) {
            const Count count = least(BLOCK, t->bins - first), place = row * t->bins + first;
            const float *restrict power = t->power + place, *restrict noise = t->noise + place;
            float *restrict out = t->p + place, v[BLOCK];
            total_of(t, 0, row, first, count, v);
            for (Count f = 0; f < count; f++) out[f] = moment_of(noise[f], v[f], power[f]);
            for (Count j = 0; t->up && j < t->sources; j++) {
                const float gain = gain_of(t, j, row), *restrict sigma = draw_of(t, j, 0, row) + first;
                float sum = 0;
                for (Count f = 0; f < count; f++) {
                    float own = gain * sigma[f];
                    sum += moment_of(own, v[f], power[f]) / sigma[f];
                }
                t->up[j * t->rows + row] += sum;
            }
        }
    }
}

void noise_moment(const Fit *task, Count threads) {
    over_rows(noise_moment_rows, task, task->rows, task->rows * task->bins, threads);
}

/* p = E|s_j|^2 = E|sqrt(g) s_j|^2 / g of one source. */
static VECTORISED void speech_moment_rows(const void *task, Count start, Count stop) {
    const Fit *t = task;
    for (Count row = start; row < stop; row++) {
        const float gain = gain_of(t, t->source, row), inverse = 1.0f / gain;
        for (Count first = 0; first < t->bins; first += BLOCK) {
            const Count count = least(BLOCK, t->bins - first), place = row * t->bins + first;
            const float *restrict power = t->power + place;
            const float *restrict sigma = draw_of(t, t->source, 0, row) + first;
            float *restrict out = t->p + place, v[BLOCK];
            total_of(t, 0, row, first, count, v);
            for (Count f = 0; f < count; f++) out[f] = inverse * moment_of(gain * sigma[f], v[f], power[f]);
        }
    }
}

void speech_moment(const Fit *task, Count threads) {
    over_rows(speech_moment_rows, task, task->rows, task->rows * task->bins, threads);
}

/* p = 1 / mean_r[1 / sigma] [sources, rows, bins]; rows are here those of all sources. */
static VECTORISED void harmonic_rows(const void *task, Count start, Count stop) {
    const Fit *t = task;
    for (Count at = start; at < stop; at++) {
        const Count source = at / t->rows, row = at % t->rows;
        for (Count first = 0; first < t->bins; first += BLOCK) {
            const Count count = least(BLOCK, t->bins - first);
            float sum[BLOCK] = {0}, *restrict out = t->p + at * t->bins + first;
            for (Count r = 0; r < t->draws; r++) {
                const float *restrict sigma = draw_of(t, source, r, row) + first;
                for (Count f = 0; f < count; f++) sum[f] += 1.0f / sigma[f];
            }
            for (Count f = 0; f < count; f++) out[f] = (float)t->draws / sum[f];
        }
    }
}

void harmonic(const Fit *task, Count threads) {
    const Count rows = task->sources * task->rows;
    over_rows(harmonic_rows, task, rows, rows * task->bins * task->draws, threads);
}

/* p = mean_r[g_j sigma_j / V] [sources, rows, bins]. */
static VECTORISED void share_rows(const void *task, Count start, Count stop) {
    const Fit *t = task;
    const float each = 1.0f / (float)t->draws;
    for (Count row = start; row < stop; row++) {
        for (Count first = 0; first < t->bins; first += BLOCK) {
            const Count count = least(BLOCK, t->bins - first);
            for (Count r = 0; r < t->draws; r++) {
                float v[BLOCK];
                total_of(t, r, row, first, count, v);
                for (Count j = 0; j < t->sources; j++) {
                    const float gain = each * gain_of(t, j, row);
                    const float *restrict sigma = draw_of(t, j, r, row) + first;
                    float *restrict out = t->p + (j * t->rows + row) * t->bins + first;
                    if (r == 0)
                        for (Count f = 0; f < count; f++) out[f] = gain * sigma[f] / v[f];
                    else
                        for (Count f = 0; f < count; f++) out[f] += gain * sigma[f] / v[f];
                }
            }
        }
    }
}

void shares(const Fit *task, Count threads) {
    over_rows(share_rows, task, task->rows, task->rows * task->bins * task->draws, threads);
}

static inline float positive(float x, float tiny) { return x < tiny ? tiny : x; }

/* The h that minimises a h + b / h + slope log h (models/minimisers.py). */
static inline float minimiser(float a, float b, float slope) {
    const float tiny = 1.17549435e-38f;
    float wide = sqrtf(slope * slope + 4.0f * a * b) + fabsf(slope);
    float falling = 2.0f * b / positive(wide, tiny), rising = wide / positive(2.0f * a, tiny);
    return slope > 0.0f ? falling : rising;
}

static VECTORISED void minima(const void *task, Count start, Count stop) {
    const Minima *t = task;
    for (Count i = start; i < stop; i++)
        t->out[i] = minimiser(t->a ? t->a[i] : t->same, t->b[i], t->slope);
}

void minimise(const Minima *task, Count threads) {
    over_rows(minima, task, task->count, task->count, threads);
}

/* Every other column of one row given its neighbours, first the even ones (models/noise_chain.py). */
static VECTORISED void chain_rows(const void *task, Count start, Count stop) {
    const Chain *t = task;
    for (Count row = start; row < stop; row++) {
        const Count of = row / t->columns, column = row % t->columns, last = t->frames - 1;
        const float *old = t->activations + row * t->frames;
        const float *links = t->links + of * t->link_batch;
        const Count lie = of * t->up_batch + column * t->up_column;
        float *a = t->out + row * t->frames;
        memcpy(a, old, (size_t)t->frames * sizeof *a);
        for (Count turn = 0; turn < 2 * t->sweeps; turn++) {
            for (Count m = turn % 2; m <= last; m += 2) {
                const Count place = lie + m * t->up_frame;
                const float before = links[m], after = links[m + 1];
                const float left = m > 0 ? a[m - 1] : 1.0f, right = m < last ? a[m + 1] : 1.0f;
                const float rise = after / right + t->down[place];
                const float fall = before * left + old[m] * old[m] * t->up[place];
                a[m] = positive(minimiser(rise, fall, before - after), TINY);
            }
        }
    }
}

void move_chain(const Chain *task, Count threads) {
    const Count rows = task->batch * task->columns;
    over_rows(chain_rows, task, rows, rows * task->frames * 8, threads);
}

/* W sqrt(up / down) of a recording and the sums of its columns. */
HERE void spectra_moved(
    const Spectra *t, Count of, Count up_bin, Count up_column, float *restrict w, float *restrict sums) {
    const float *up = t->up + of * t->up_batch, *down = t->down + of * t->up_batch;
    const float *old = t->spectra + of * t->bins * t->columns;
    for (Count k = 0; k < t->columns; k++) sums[k] = 0.0f;
    for (Count f = 0; f < t->bins; f++) {
        for (Count k = 0; k < t->columns; k++) {
            const Count place = f * up_bin + k * up_column, own = f * t->columns + k;
            const float ratio = up[place] / positive(down[place], 1e-30f);
            const float moved = positive(old[own] * sqrtf(positive(ratio, 0.0f)), TINY);
            w[own] = moved;
            sums[k] += moved;
        }
    }
}

/* Its columns to a sum of one, which the activations take over (models/noise.py). Columns lie next to each other, so that
   threads would write into the same lines: each takes whole recordings. */
static VECTORISED void spectra_rows(const void *task, Count start, Count stop) {
    const Spectra *t = task;
    float sums[t->columns];
    for (Count of = start; of < stop; of++) {
        float *restrict w = t->spectra_out + of * t->bins * t->columns;
        if (t->up_column == 1)
            spectra_moved(t, of, t->up_bin, 1, w, sums);
        else
            spectra_moved(t, of, t->up_bin, t->up_column, w, sums);
        for (Count f = 0; f < t->bins; f++)
            for (Count k = 0; k < t->columns; k++) w[f * t->columns + k] /= sums[k];
        for (Count k = 0; k < t->columns; k++) {
            const Count place = (of * t->columns + k) * t->frames;
            const float *restrict old = t->activations + place;
            float *restrict out = t->activations_out + place;
            for (Count m = 0; m < t->frames; m++) out[m] = positive(old[m] * sums[k], TINY);
        }
    }
}

void move_spectra(const Spectra *task, Count threads) {
    over_rows(spectra_rows, task, task->batch, task->batch * task->bins * task->columns * 8, threads);
}
