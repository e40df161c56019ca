/* The passes as functions of Python: they answer whether they were done, which they are not for other arrays than those
   that they are written for. Whoever calls has looked at the shapes. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "chains.h"
#include "noise.h"
#include "products.h"
#include "speech.h"

#define MOST 26

typedef union {
    void *array;
    Count count;
    float number;
} Argument;

/* What is asked of tensors, and the types of numbers that they may hold. */
static PyObject *name_dtype, *name_is_cpu, *name_requires_grad, *name_is_contiguous, *name_data_ptr;
static PyObject *single, *boolean;

/* Whether an attribute is this object; 0 too where there is none. */
static int is(PyObject *tensor, PyObject *name, PyObject *wanted) {
    PyObject *found = PyObject_GetAttr(tensor, name);
    Py_XDECREF(found);
    return found == wanted;
}

/* Where a tensor lies: of that type, on the processor, in no graph and, unless it may lie in rows apart, in one piece. */
static void *place_of(PyObject *tensor, PyObject *dtype, int apart) {
    if (!is(tensor, name_dtype, dtype) || !is(tensor, name_is_cpu, Py_True)) return NULL;
    if (!is(tensor, name_requires_grad, Py_False)) return NULL;
    if (!apart) {
        PyObject *whole = PyObject_CallMethodNoArgs(tensor, name_is_contiguous);
        Py_XDECREF(whole);
        if (whole != Py_True) return NULL;
    }
    PyObject *address = PyObject_CallMethodNoArgs(tensor, name_data_ptr);
    void *found = address ? PyLong_AsVoidPtr(address) : NULL;
    Py_XDECREF(address);
    return found;
}

/* By the letters of `kinds`: n a whole number, x a real one, and a tensor (None: absent; its address, if it is known to
   be one for the passes): a of numbers in one piece, r in rows apart, b of yes and no. -1 with an exception, 0 if not for
   the passes, 1 if so. */
static int taken(PyObject *const *given, Py_ssize_t size, const char *kinds, Argument *out) {
    if (size != (Py_ssize_t)strlen(kinds)) {
        PyErr_Format(PyExc_TypeError, "expected %d arguments, got %d", (int)strlen(kinds), (int)size);
        return -1;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *one = given[i];
        if (kinds[i] == 'x') {
            out[i].number = (float)PyFloat_AsDouble(one);
        } else if (kinds[i] == 'n') {
            out[i].count = PyLong_AsLongLong(one);
        } else if (one == Py_None) {
            out[i].array = NULL;
        } else if (PyLong_Check(one)) {
            out[i].array = PyLong_AsVoidPtr(one);
        } else {
            out[i].array = place_of(one, kinds[i] == 'b' ? boolean : single, kinds[i] == 'r');
            if (!out[i].array) {
                /* Empty tensors and those without memory of their own are not for the passes either. */
                PyErr_Clear();
                return 0;
            }
        }
    }
    return PyErr_Occurred() ? -1 : 1;
}

#define FUNCTION(name, kinds, ...)                                                                   \
    static PyObject *name##_of(PyObject *self, PyObject *const *given, Py_ssize_t size) {            \
        (void)self;                                                                                  \
        Argument a[MOST];                                                                            \
        int fit = taken(given, size, kinds, a);                                                      \
        if (fit < 0) return NULL;                                                                    \
        if (!fit) Py_RETURN_FALSE;                                                                   \
        __VA_ARGS__                                                                                  \
        Py_RETURN_TRUE;                                                                              \
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
FUNCTION(bend, "aannn", Bend task = {a[0].array, a[1].array, a[2].count, a[3].count}; RUN(bend))
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
#define SHARED {MIXTURE, a[23].count, a[24].count}
FUNCTION(responsibilities, "anananananananananaannnnnn", Responsibility task = SHARED; RUN(responsibilities))

FUNCTION(langevin, "aaaanxn",
         Langevin task = {a[0].array, a[1].array, a[2].array, a[3].array, a[4].count, a[5].number}; RUN(langevin))
FUNCTION(decide, "aaaaaaaabaaaannn",
         Decision task = {a[0].array, a[1].array, a[2].array, a[3].array, a[4].array, a[5].array, a[6].array,
                          a[7].array, a[8].array, a[9].array, a[10].array, a[11].array, a[12].array, a[13].count,
                          a[14].count};
         RUN(decide))

static PyObject *exchange_of(PyObject *self, PyObject *const *given, Py_ssize_t size) {
    (void)self;
    Argument a[MOST];
    const int fit = taken(given, size, "baann", a);
    if (fit < 0) return NULL;
    if (!fit) Py_RETURN_NONE;
    int most;
    Py_BEGIN_ALLOW_THREADS
    most = exchange(a[0].array, a[1].array, a[2].array, a[3].count, a[4].count);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(most);
}

/* sigma, gain, noise, power, p, up, down, sources, draws, rows, bins, source, threads. */
#define FIT                                                                                          \
    {a[0].array, a[1].array, a[2].array, a[3].array, a[4].array, a[5].array, a[6].array,             \
     a[7].count, a[8].count, a[9].count, a[10].count, a[11].count}
#define FITTING(name) FUNCTION(name, "aaaaaaannnnnn", Fit task = FIT; RUN(name))
FITTING(marginal_gains)
FITTING(noise_moment)
FITTING(speech_moment)
FITTING(harmonic)
FITTING(shares)

FUNCTION(minimise, "aaanxxn",
         Minima task = {a[0].array, a[1].array, a[2].array, a[3].count, a[4].number, a[5].number};
         RUN(minimise))
FUNCTION(move_chain, "arraannnnnnnnn",
         Chain task = {a[0].array, a[1].array, a[2].array, a[3].array, a[4].array, a[5].count, a[6].count,
                       a[7].count, a[8].count, a[9].count, a[10].count, a[11].count, a[12].count};
         RUN(move_chain))
FUNCTION(move_spectra, "arraaannnnnnnn",
         Spectra task = {a[0].array, a[1].array, a[2].array, a[3].array, a[4].array, a[5].array, a[6].count,
                         a[7].count, a[8].count, a[9].count, a[10].count, a[11].count, a[12].count};
         RUN(move_spectra))

/* W, H, q, sigma, gain, noise, power, out, sources, draws, batch, frames, bins, rank, threads. */
#define PRODUCT                                                                                      \
    {a[0].array, a[1].array, a[2].array,                                                            \
     {a[3].array, a[4].array, a[5].array, a[6].array, NULL, NULL, NULL,                              \
      a[8].count, a[9].count, a[10].count * a[11].count, a[12].count, 0},                            \
     a[7].array, a[10].count, a[11].count, a[13].count}
#define MULTIPLIED "aaaaaaaannnnnnn"
FUNCTION(product, MULTIPLIED, Product task = PRODUCT; RUN(product))
FUNCTION(onto_spectra, MULTIPLIED, Product task = PRODUCT; RUN(fit = onto_spectra); if (!fit) Py_RETURN_FALSE;)
FUNCTION(onto_activations, MULTIPLIED, Product task = PRODUCT; RUN(onto_activations))

/* setup(torch.float32, torch.bool), once. */
static PyObject *setup_of(PyObject *self, PyObject *const *given, Py_ssize_t size) {
    (void)self;
    if (size != 2) {
        PyErr_SetString(PyExc_TypeError, "expected two types");
        return NULL;
    }
    single = Py_NewRef(given[0]);
    boolean = Py_NewRef(given[1]);
    name_dtype = PyUnicode_InternFromString("dtype");
    name_is_cpu = PyUnicode_InternFromString("is_cpu");
    name_requires_grad = PyUnicode_InternFromString("requires_grad");
    name_is_contiguous = PyUnicode_InternFromString("is_contiguous");
    name_data_ptr = PyUnicode_InternFromString("data_ptr");
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

#define ENTRY(name) {#name, (PyCFunction)(void (*)(void))name##_of, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    ENTRY(setup), ENTRY(decode), ENTRY(logistic), ENTRY(bend), ENTRY(density), ENTRY(slope),
    ENTRY(through), ENTRY(sums), ENTRY(log_densities), ENTRY(responsibilities), ENTRY(gradients),
    ENTRY(langevin), ENTRY(decide), ENTRY(exchange), ENTRY(marginal_gains), ENTRY(noise_moment),
    ENTRY(speech_moment), ENTRY(harmonic), ENTRY(shares), ENTRY(minimise), ENTRY(move_chain),
    ENTRY(move_spectra), ENTRY(product), ENTRY(onto_spectra), ENTRY(onto_activations), {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_passes", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__passes(void) { return PyModuleDef_Init(&definition); }
