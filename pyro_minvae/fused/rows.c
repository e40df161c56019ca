/* Rows shared out to the threads of torch's own OpenMP. */

#define _GNU_SOURCE
#include "passes.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

/* Fewer numbers than this are not worth waking other threads for. */
#define WORTHWHILE 16384

typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

typedef struct {
    Body body;
    const void *task;
    Count rows, parts, next;
} Shared;

static void share(void *data) {
    Shared *s = data;
    for (;;) {
        Count part = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
        if (part >= s->parts) return;
        s->body(s->task, s->rows * part / s->parts, s->rows * (part + 1) / s->parts);
    }
}

/* A second pool beside torch's would wait for processors that the first one keeps busy waiting. */
static Parallel torch_parallel(void) {
#if defined(_WIN32)
    return 0;
#else
    static Parallel found;
    static int asked;
    if (!asked) {
        found = (Parallel)dlsym(RTLD_DEFAULT, "GOMP_parallel");
        asked = 1;
    }
    return found;
#endif
}

void over_rows(Body body, const void *task, Count rows, Count numbers, Count threads) {
    Parallel parallel = threads > 1 && numbers >= WORTHWHILE && rows > 1 ? torch_parallel() : 0;
    if (!parallel) {
        body(task, 0, rows);
        return;
    }
    Shared shared = {body, task, rows, least(threads, rows), 0};
    parallel(share, &shared, (unsigned)shared.parts, 0);
}
