/* Arguments that get and mget have in common. */
#include "state.h"

/* Keyword arguments of get and mget: default and options apart from the read options.  False with
 * an exception. */
bool split_keywords(PyObject *const *values, PyObject *kwnames, const char *method,
                    PyObject **fallback, PyObject **options, PyObject **more) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(name, "default") == 0) {
            if (*fallback != NULL) {
                PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument 'default'",
                             method);
                return false;
            }
            *fallback = values[i];
        } else if (PyUnicode_CompareWithASCIIString(name, "options") == 0) {
            *options = values[i];
        } else {
            if (*more == NULL && (*more = PyDict_New()) == NULL) {
                return false;
            }
            if (PyDict_SetItem(*more, name, values[i]) != 0) {
                return false;
            }
        }
    }
    return true;
}
