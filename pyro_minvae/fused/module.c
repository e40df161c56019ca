/* The passes as functions of Python: arrays are addresses (None: absent), and whoever calls has checked them. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "chains.h"
#include "noise.h"
#include "speech.h"

#define MOST 24

typedef union {
    void *array;
    Count count;
    float number;
} Argument;

/* By the letters of `kinds`: a an array, n a whole number, x a real one. Returns 0 with an exception set. */
static int taken(PyObject *const *given, Py_ssize_t size, const char *kinds, Argument *out) {
    if (size != (Py_ssize_t)strlen(kinds)) {
        PyErr_Format(PyExc_TypeError, "expected %d arguments, got %d", (int)strlen(kinds), (int)size);
        return 0;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        if (kinds[i] == 'x')
            out[i].number = (float)PyFloat_AsDouble(given[i]);
        else if (kinds[i] == 'n')
            out[i].count = PyLong_AsLongLong(given[i]);
        else
            out[i].array = given[i] == Py_None ? NULL : PyLong_AsVoidPtr(given[i]);
    }
    return !PyErr_Occurred();
}

#define FUNCTION(name, kinds, ...)                                                                   \
    static PyObject *name##_of(PyObject *self, PyObject *const *given, Py_ssize_t size) {            \
        (void)self;                                                                                  \
        Argument a[MOST];                                                                            \
        if (!taken(given, size, kinds, a)) return NULL;                                              \
        __VA_ARGS__                                                                                  \
        Py_RETURN_NONE;                                                                              \
    }

/* Runs a pass without holding the interpreter; its last argument is the number of threads. */
#define RUN(name)                                                                                    \
    Py_BEGIN_ALLOW_THREADS                                                                           \
    name(&task, a[size - 1].count);                                                                  \
    Py_END_ALLOW_THREADS

#define ROWS(i) {a[i].array, a[(i) + 1].count}

FUNCTION(decode, "annxxn",
         Decode task = {a[0].array, a[1].count, a[2].count, a[3].number, a[4].number}; RUN(decode))
FUNCTION(logistic, "annn", Decode task = {a[0].array, a[1].count, a[2].count, 0, 0}; RUN(logistic))
#define DENSITY {ROWS(0), ROWS(2), ROWS(4), ROWS(6), a[8].array, a[9].count, a[10].count, a[11].count}
FUNCTION(density, "ananananannnn", Density task = DENSITY; RUN(density))
FUNCTION(slope, "ananananannnn", Density task = DENSITY; RUN(slope))
FUNCTION(through, "aaannxxn",
         Through task = {a[0].array, a[1].array, a[2].array, a[3].count, a[4].count, a[5].number, a[6].number};
         RUN(through))
FUNCTION(sums, "aaannnn", Sums task = {a[0].array, a[1].array, a[2].array, a[3].count, a[4].count, a[5].count};
         RUN(sums))

/* mean, precision and constant of two components, weight, log weights, each with its rows; z, out, count, rows, L. */
#define MIXTURE                                                                                      \
    {{{ROWS(0), ROWS(2), ROWS(4)}, {ROWS(6), ROWS(8), ROWS(10)}},                                    \
     ROWS(12), {ROWS(14), ROWS(16)}, a[18].array, a[19].array, a[20].count, a[21].count, a[22].count}
FUNCTION(log_densities, "anananananananananaannnn", Mixture task = MIXTURE; RUN(log_densities))
FUNCTION(gradients, "anananananananananaannnn", Mixture task = MIXTURE; RUN(gradients))

FUNCTION(langevin, "aaaanxn",
         Langevin task = {a[0].array, a[1].array, a[2].array, a[3].array, a[4].count, a[5].number}; RUN(langevin))
FUNCTION(decide, "aaaaaaaaaaaaannn",
         Decision task = {a[0].array, a[1].array, a[2].array, a[3].array, a[4].array, a[5].array, a[6].array,
                          a[7].array, a[8].array, a[9].array, a[10].array, a[11].array, a[12].array, a[13].count,
                          a[14].count};
         RUN(decide))

static PyObject *exchange_of(PyObject *self, PyObject *const *given, Py_ssize_t size) {
    (void)self;
    Argument a[MOST];
    int most;
    if (!taken(given, size, "aaann", a)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    most = exchange(a[0].array, a[1].array, a[2].array, a[3].count, a[4].count);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(most);
}

/* sigma, gain, noise, power, p, q, up, down, sources, draws, rows, bins, source, apart, threads. */
#define FIT                                                                                          \
    {a[0].array, a[1].array, a[2].array, a[3].array, a[4].array, a[5].array, a[6].array,             \
     a[7].array, a[8].count, a[9].count, a[10].count, a[11].count, a[12].count, a[13].count}
#define FITTING(name) FUNCTION(name, "aaaaaaaannnnnnn", Fit task = FIT; RUN(name))
FITTING(marginal_fit)
FITTING(marginal_gains)
FITTING(noise_moment)
FITTING(speech_moment)
FITTING(inverses)
FITTING(harmonic)
FITTING(shares)

FUNCTION(minimise, "aaanxn",
         Minima task = {a[0].array, a[1].array, a[2].array, a[3].count, a[4].number}; RUN(minimise))
FUNCTION(move_chain, "aaaaannnnnnnnn",
         Chain task = {a[0].array, a[1].array, a[2].array, a[3].array, a[4].array, a[5].count, a[6].count,
                       a[7].count, a[8].count, a[9].count, a[10].count, a[11].count, a[12].count};
         RUN(move_chain))
FUNCTION(move_spectra, "aaaaaannnnnnnn",
         Spectra task = {a[0].array, a[1].array, a[2].array, a[3].array, a[4].array, a[5].array, a[6].count,
                         a[7].count, a[8].count, a[9].count, a[10].count, a[11].count, a[12].count};
         RUN(move_spectra))

#define ENTRY(name) {#name, (PyCFunction)(void (*)(void))name##_of, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    ENTRY(decode), ENTRY(logistic), ENTRY(density), ENTRY(slope), ENTRY(through), ENTRY(sums),
    ENTRY(log_densities), ENTRY(gradients), ENTRY(langevin), ENTRY(decide), ENTRY(exchange), ENTRY(marginal_fit),
    ENTRY(marginal_gains), ENTRY(noise_moment), ENTRY(speech_moment), ENTRY(inverses), ENTRY(harmonic),
    ENTRY(shares), ENTRY(minimise), ENTRY(move_chain), ENTRY(move_spectra), {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_passes", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__passes(void) { return PyModuleDef_Init(&definition); }
