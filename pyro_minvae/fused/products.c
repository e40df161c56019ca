/* The products of thin matrices in the M-step: a few columns of spectra by many frames.

   Libraries for matrices share such products out so that processors read what others wrote. Here a frame stays with the
   processor that made it in the passes before, V, P and Q are not written down where they are made of something else, and
   each number is a sum of the same terms in the same order, however many threads there are. */

#include "products.h"

#include <stdlib.h>

typedef float Lanes __attribute__((vector_size(32)));
/* The same in memory, wherever it lies. */
typedef float Loose __attribute__((vector_size(32), aligned(4), may_alias));

#define LANES 8
/* Sums that a processor holds between its operations: TALL rows of so many numbers. */
#define WIDE (2 * LANES)
#define TALL 6
/* Frames and bins that go through the nearest cache together. */
#define RUN 32
#define SPAN 64

/* Frames of a stretch, and the most stretches of a recording. */
#define STRETCH 48
#define MOST_STRETCHES 16

/* Sums over stretches of frames, the same whatever the threads: [batch, stretches, 2, rank, width >= bins]. */
typedef struct {
    const Product *product;
    float *sums;
    Count stretches, width;
} Partial;

#define REPEATED _Pragma("GCC unroll 6")

#define LOAD(from) (*(const Loose *)(from))
#define STORE(to, values) (*(Loose *)(to) = (values))

/* Into the first of TALL rows of 16 numbers, each `apart` from the next. */
HERE void written(const Lanes sums[TALL][2], float *restrict out, Count apart, Count rows, Count count) {
    if (rows == TALL && count == WIDE) {
        REPEATED
        for (int i = 0; i < TALL; i++) {
            STORE(out + i * apart, sums[i][0]);
            STORE(out + i * apart + LANES, sums[i][1]);
        }
        return;
    }
    float spare[TALL][WIDE];
    REPEATED
    for (int i = 0; i < TALL; i++) {
        STORE(spare[i], sums[i][0]);
        STORE(spare[i] + LANES, sums[i][1]);
    }
    for (Count i = 0; i < rows; i++)
        for (Count f = 0; f < count; f++) out[i * apart + f] = spare[i][f];
}

/* V = (W H)' + TINY in frames of one recording, 16 bins after 16. */
HERE void varied(const Product *t, Count of, Count start, Count stop) {
    const Count bins = t->fit.bins, rank = t->rank;
    const float *w = t->spectra + of * bins * rank, *h = t->activations + of * rank * t->frames;
    float turned[rank * WIDE];
    for (Count first = 0; first < bins; first += WIDE) {
        const Count count = least(WIDE, bins - first);
        for (Count k = 0; k < rank; k++)
            for (Count f = 0; f < WIDE; f++)
                turned[k * WIDE + f] = f < count ? w[(first + f) * rank + k] : 0.0f;
        for (Count row = start; row < stop; row += TALL) {
            const Count rows = least(TALL, stop - row);
            const float *from[TALL];
            Lanes sums[TALL][2];
            REPEATED
            for (int i = 0; i < TALL; i++) {
                from[i] = h + row + (i < rows ? i : 0);
                sums[i][0] = sums[i][1] = (Lanes){0} + TINY;
            }
            for (Count k = 0; k < rank; k++) {
                const Lanes low = LOAD(turned + k * WIDE), high = LOAD(turned + k * WIDE + LANES);
                REPEATED
                for (int i = 0; i < TALL; i++) {
                    const float level = from[i][k * t->frames];
                    sums[i][0] += level * low;
                    sums[i][1] += level * high;
                }
            }
            written(sums, t->out + (of * t->frames + row) * bins + first, bins, rows, count);
        }
    }
}

static VECTORISED void product_rows(const void *task, Count start, Count stop) {
    const Product *t = task;
    for (Count row = start; row < stop;) {
        const Count of = row / t->frames, end = least(stop, (of + 1) * t->frames);
        varied(t, of, row - of * t->frames, end - of * t->frames);
        row = end;
    }
}

void product(const Product *task, Count threads) {
    const Count rows = task->batch * task->frames;
    over_rows(product_rows, task, rows, rows * task->fit.bins, threads);
}

/* P and Q of some bins of a row, and zeros up to `wide`. */
HERE void statistics_of(
    const Product *t, Count row, Count first, Count count, Count wide, float *restrict p, float *restrict q) {
    const Fit *fit = &t->fit;
    const float *restrict power = fit->power + row * fit->bins + first;
    if (t->q) {
        memcpy(p, power, sizeof(float) * count);
        memcpy(q, t->q + row * fit->bins + first, sizeof(float) * count);
    } else if (!fit->sources) {
        const float *restrict v = fit->noise + row * fit->bins + first;
        for (Count f = 0; f < count; f++) {
            const float inverse = 1.0f / v[f];
            q[f] = inverse;
            p[f] = power[f] * inverse * inverse;
        }
    } else {
        const float each = 1.0f / (float)fit->draws;
        float v[BLOCK];
        for (Count f = 0; f < count; f++) p[f] = q[f] = 0.0f;
        for (Count r = 0; r < fit->draws; r++) {
            total_of(fit, r, row, first, count, v);
            for (Count f = 0; f < count; f++) {
                const float inverse = 1.0f / v[f];
                q[f] += inverse;
                p[f] += inverse * inverse;
            }
        }
        for (Count f = 0; f < count; f++) {
            p[f] *= each * power[f];
            q[f] *= each;
        }
    }
    for (Count f = count; f < wide; f++) p[f] = q[f] = 0.0f;
}

/* Adds to the sums of some columns of H and 16 bins what a run of frames holds. */
HERE void gathered(const float *h, Count frames, const float *x, Count tall, float *sums, const int columns) {
    Lanes found[TALL][2];
    REPEATED
    for (int k = 0; k < columns; k++) {
        found[k][0] = LOAD(sums + k * SPAN);
        found[k][1] = LOAD(sums + k * SPAN + LANES);
    }
    for (Count i = 0; i < tall; i++) {
        const Lanes low = LOAD(x + i * SPAN), high = LOAD(x + i * SPAN + LANES);
        REPEATED
        for (int k = 0; k < columns; k++) {
            const float level = h[k * frames + i];
            found[k][0] += level * low;
            found[k][1] += level * high;
        }
    }
    REPEATED
    for (int k = 0; k < columns; k++) {
        STORE(sums + k * SPAN, found[k][0]);
        STORE(sums + k * SPAN + LANES, found[k][1]);
    }
}

/* P H' and Q H' of some bins in some frames of a recording: [2, rank, width], of which `out` is the first bin's. */
HERE void bins_of(
    const Product *t, Count of, Count begin, Count end, Count first, Count width, float *restrict out) {
    const float *h = t->activations + of * t->rank * t->frames;
    const Count count = least(SPAN, t->fit.bins - first), wide = least(SPAN, width - first);
    float sums[2][t->rank * SPAN], parts[2][RUN][SPAN];
    memset(sums, 0, sizeof sums);
    for (Count row = begin; row < end; row += RUN) {
        const Count tall = least(RUN, end - row);
        for (Count i = 0; i < tall; i++)
            statistics_of(t, of * t->frames + row + i, first, count, wide, parts[0][i], parts[1][i]);
        for (int which = 0; which < 2; which++)
            for (Count f = 0; f < wide; f += WIDE) {
                const float *from = parts[which][0] + f, *levels = h + row;
                float *into = sums[which] + f;
                Count k = 0;
                for (; k + TALL <= t->rank; k += TALL)
                    gathered(levels + k * t->frames, t->frames, from, tall, into + k * SPAN, TALL);
                for (; k + 4 <= t->rank; k += 4)
                    gathered(levels + k * t->frames, t->frames, from, tall, into + k * SPAN, 4);
                for (; k < t->rank; k++)
                    gathered(levels + k * t->frames, t->frames, from, tall, into + k * SPAN, 1);
            }
    }
    for (int which = 0; which < 2; which++)
        for (Count k = 0; k < t->rank; k++)
            memcpy(out + (which * t->rank + k) * width, sums[which] + k * SPAN, sizeof(float) * wide);
}

/* The same of all bins in stretches of frames. */
static VECTORISED void spectra_stretches(const void *task, Count start, Count stop) {
    const Partial *partial = task;
    const Product *t = partial->product;
    for (Count at = start; at < stop; at++) {
        const Count of = at / partial->stretches, stretch = at % partial->stretches;
        const Count begin = t->frames * stretch / partial->stretches;
        const Count end = t->frames * (stretch + 1) / partial->stretches;
        float *out = partial->sums + 2 * at * t->rank * partial->width;
        for (Count first = 0; first < partial->width; first += SPAN)
            bins_of(t, of, begin, end, first, partial->width, out + first);
    }
}

/* The stretches together: [2, batch, bins, rank], 16 bins after 16. */
static VECTORISED void stretches_together(const void *task, Count start, Count stop) {
    const Partial *partial = task;
    const Product *t = partial->product;
    const Count size = partial->width * t->rank, strips = partial->width / WIDE;
    for (Count at = start; at < stop; at++) {
        const Count which = at / (t->batch * strips), of = at / strips % t->batch, first = at % strips * WIDE;
        const Count count = least(WIDE, t->fit.bins - first);
        const float *from = partial->sums + (2 * of * partial->stretches + which) * size + first;
        float sums[WIDE], *restrict out = t->out + ((which * t->batch + of) * t->fit.bins + first) * t->rank;
        for (Count k = 0; k < t->rank; k++) {
            const float *own = from + k * partial->width;
            Lanes low = LOAD(own), high = LOAD(own + LANES);
            for (Count stretch = 1; stretch < partial->stretches; stretch++) {
                low += LOAD(own + 2 * stretch * size);
                high += LOAD(own + 2 * stretch * size + LANES);
            }
            STORE(sums, low);
            STORE(sums + LANES, high);
            for (Count f = 0; f < count; f++) out[f * t->rank + k] = sums[f];
        }
    }
}

int onto_spectra(const Product *task, Count threads) {
    const Count frames = task->frames, bins = task->fit.bins, width = (bins + WIDE - 1) / WIDE * WIDE;
    const Count stretches = least((frames + STRETCH - 1) / STRETCH, MOST_STRETCHES), all = task->batch * stretches;
    Partial partial = {task, malloc(sizeof(float) * 2 * all * task->rank * width), stretches, width};
    if (!partial.sums) return 0;
    over_rows(spectra_stretches, &partial, all, task->batch * frames * bins, threads);
    const Count strips = 2 * task->batch * width / WIDE;
    over_rows(stretches_together, &partial, strips, strips * WIDE * task->rank, threads);
    free(partial.sums);
    return 1;
}

/* Adds to W' P and W' Q of some frames, P and Q after each other, what a block of bins holds. */
HERE void projected(
    const float panel[][WIDE], const float parts[][BLOCK], Count bins, float *out, Count apart, Count rows,
    Count count) {
    Lanes sums[TALL][2];
    float spare[TALL][WIDE] = {0};
    for (Count i = 0; i < rows; i++)
        for (Count k = 0; k < count; k++) spare[i][k] = out[i * apart + k];
    REPEATED
    for (int i = 0; i < TALL; i++) {
        sums[i][0] = LOAD(spare[i]);
        sums[i][1] = LOAD(spare[i] + LANES);
    }
    for (Count f = 0; f < bins; f++) {
        const Lanes low = LOAD(panel[f]), high = LOAD(panel[f] + LANES);
        REPEATED
        for (int i = 0; i < TALL; i++) {
            sums[i][0] += parts[i][f] * low;
            sums[i][1] += parts[i][f] * high;
        }
    }
    written(sums, out, apart, rows, count);
}

/* W' P and W' Q [frames, 2, rank] of frames of one recording. */
HERE void frames_of(const Product *t, Count of, Count start, Count stop) {
    const Count bins = t->fit.bins, rank = t->rank, begin = of * t->frames;
    const float *w = t->spectra + of * bins * rank;
    float panel[BLOCK][WIDE], parts[TALL][BLOCK];
    memset(t->out + (begin + start) * 2 * rank, 0, sizeof(float) * (stop - start) * 2 * rank);
    for (Count first = 0; first < bins; first += BLOCK) {
        const Count width = least(BLOCK, bins - first);
        for (Count column = 0; column < rank; column += WIDE) {
            const Count count = least(WIDE, rank - column);
            for (Count f = 0; f < width; f++)
                for (Count k = 0; k < WIDE; k++)
                    panel[f][k] = k < count ? w[(first + f) * rank + column + k] : 0.0f;
            for (Count row = start; row < stop; row += TALL / 2) {
                const Count rows = least(TALL / 2, stop - row);
                for (Count i = 0; i < TALL / 2; i++)
                    statistics_of(
                        t, begin + row + (i < rows ? i : 0), first, width, width, parts[2 * i], parts[2 * i + 1]);
                float *out = t->out + (begin + row) * 2 * rank + column;
                if (count == WIDE && rows == TALL / 2)
                    projected(panel, parts, width, out, rank, TALL, WIDE);
                else
                    projected(panel, parts, width, out, rank, 2 * rows, count);
            }
        }
    }
}

static VECTORISED void activation_rows(const void *task, Count start, Count stop) {
    const Product *t = task;
    for (Count row = start; row < stop;) {
        const Count of = row / t->frames, end = least(stop, (of + 1) * t->frames);
        frames_of(t, of, row - of * t->frames, end - of * t->frames);
        row = end;
    }
}

void onto_activations(const Product *task, Count threads) {
    const Count rows = task->batch * task->frames;
    over_rows(activation_rows, task, rows, rows * task->fit.bins, threads);
}
