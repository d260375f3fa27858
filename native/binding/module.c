/* Multi-phase initialisation of accelerator._native: heap types and per-interpreter state, nothing
 * static. */
#include "state.h"

#include "link.h"
#include "maintenance.h"
#include "outbox.h"

#include <fcntl.h>
#include <unistd.h>

PyObject *binding_install(PyObject *module, PyObject *type);
bool binding_describe_contains(struct binding *binding);

static struct PyModuleDef definition;

struct binding *binding_of_type(PyTypeObject *type) {
    PyObject *module = PyType_GetModuleByDef(type, &definition);
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* --- functions -------------------------------------------------------------------------------- */

static PyObject *boot_id(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    char text[64] = {0};
    uint8_t id[16] = {0};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        int digits = 0;
        for (ssize_t i = 0; i < n && digits < 32; i++) {
            int c = text[i] | 32;
            int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
            if (value >= 0) {
                id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | value);
                digits++;
            }
        }
    }
    return PyBytes_FromStringAndSize((const char *)id, sizeof id);
}

static PyObject *namespaces(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return Py_BuildValue("(KK)", (unsigned long long)acc_namespace("time"),
                         (unsigned long long)acc_namespace("pid"));
}

static PyObject *encode_key(PyObject *module, PyObject *key_object) {
    return key_bytes(PyModule_GetState(module), key_object);
}

static PyObject *key_hash(PyObject *module, PyObject *args) {
    struct binding *binding = PyModule_GetState(module);
    PyObject *segment, *key_object;
    const char *name;
    Py_ssize_t size;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    struct acc_area area;
    if (!PyArg_ParseTuple(args, "O!s#O:key_hash", binding->segment_type, &segment, &name, &size,
                          &key_object) ||
        !key_encode(binding, key_object, buffer, &key)) {
        return NULL;
    }
    struct acc_segment *seg = ((SegmentObject *)segment)->seg;
    struct acc_area_slot *known = acc_area_find(seg, name, (size_t)size);
    if (known != NULL) { /* not opened: it may hold the values of versions only */
        acc_area_at(seg, (uint32_t)(known - acc_area_slot(seg, 0)), &area);
    } else {
        enum acc_status status = acc_area_open(seg, name, (size_t)size, &area);
        if (status != ACC_OK) {
            return raise_status(status, "finding an area");
        }
    }
    return PyLong_FromUnsignedLongLong(acc_key_hash(&area, &key));
}

static PyMethodDef functions[] = {
    {"sys_boot_id", boot_id, METH_NOARGS, NULL},
    {"sys_namespaces", namespaces, METH_NOARGS, NULL},
    {"peek_header", binding_peek_header, METH_O, NULL},
    {"format_segment", (PyCFunction)(void (*)(void))binding_format_segment,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"encode_key", encode_key, METH_O, NULL},
    {"key_hash", key_hash, METH_VARARGS, NULL},
    {"install", binding_install, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

/* --- state ------------------------------------------------------------------------------------ */

static PyObject *unset_repr(PyObject *self) {
    (void)self;
    return PyUnicode_FromString("UNSET");
}

static PyType_Slot unset_slots[] = {{Py_tp_repr, unset_repr}, {0, NULL}};

static PyType_Spec unset_spec = {
    .name = "accelerator._native.UnsetType",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = unset_slots,
};

static bool intern(PyObject **place, const char *name) {
    *place = PyUnicode_InternFromString(name);
    return *place != NULL;
}

static bool import_from(PyObject **place, const char *module_name, const char *name) {
    PyObject *imported = PyImport_ImportModule(module_name);
    *place = imported == NULL ? NULL : PyObject_GetAttrString(imported, name);
    Py_XDECREF(imported);
    return *place != NULL;
}

static bool add_type(PyObject *module, PyTypeObject **place, PyType_Spec *spec) {
    *place = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *place != NULL && PyModule_AddType(module, *place) == 0;
}

static bool add_names(PyObject *module, const char *called, const char *const *names, int count) {
    PyObject *tuple = PyTuple_New(count);
    for (int i = 0; tuple != NULL && i < count; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (name == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, name);
    }
    bool done = tuple != NULL && PyModule_AddObjectRef(module, called, tuple) == 0;
    Py_XDECREF(tuple);
    return done;
}

static bool add_latency_bounds(PyObject *module) {
    PyObject *bounds = PyTuple_New(ACC_LATENCY_BOUNDS);
    for (uint32_t i = 0; bounds != NULL && i < ACC_LATENCY_BOUNDS; i++) {
        PyObject *seconds = PyFloat_FromDouble(acc_latency_bounds_us[i] / 1e6);
        if (seconds == NULL) {
            Py_CLEAR(bounds);
            break;
        }
        PyTuple_SET_ITEM(bounds, i, seconds);
    }
    bool done = bounds != NULL && PyModule_AddObjectRef(module, "LATENCY_BOUNDS", bounds) == 0;
    Py_XDECREF(bounds);
    return done;
}

static bool add_unsigned(PyObject *module, const char *name, uint64_t value) {
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    bool done = number != NULL && PyModule_AddObjectRef(module, name, number) == 0;
    Py_XDECREF(number);
    return done;
}

static bool add_constants(PyObject *module) {
    static const struct {
        const char *name;
        uint64_t value;
    } constants[] = {
        {"HEADER_SIZE", sizeof(struct acc_prefix)},
        {"LIVENESS_BASE", ACC_LIVENESS_BASE},
        {"INIT_BYTE", ACC_INIT_BYTE},
        {"CODE_BYTES", ACC_CODE_BYTES},
        {"CODE_STR", ACC_CODE_STR},
        {"CODE_INT", ACC_CODE_INT},
        {"CODE_FLOAT", ACC_CODE_FLOAT},
        {"CODE_TRUE", ACC_CODE_TRUE},
        {"CODE_FALSE", ACC_CODE_FALSE},
        {"CODE_NULL", ACC_CODE_NULL},
        {"CODE_MSGPACK", ACC_CODE_MSGPACK},
        {"CODE_RAW", ACC_CODE_RAW},
        {"CODE_PICKLE", ACC_CODE_PICKLE},
        {"STORED", ACC_OK},
        {"NOT_STORED", ACC_NOT_STORED},
        {"TOO_LARGE", ACC_TOO_LARGE},
        {"BUSY", ACC_BUSY},
        {"SET", ACC_SET},
        {"ADD", ACC_ADD},
        {"FILL", ACC_FILL},
        {"PLAIN_MISS", AREA_PLAIN_MISS},
        {"PLAIN_SET", AREA_PLAIN_SET},
        {"OBJECTS_SHARED", AREA_OBJECTS_SHARED},
        {"OBJECTS_COPY", AREA_OBJECTS_COPY},
        {"VERIFY_FULL", AREA_VERIFY_FULL},
        {"CACHE_NULL", AREA_CACHE_NULL},
        {"OFF", AREA_OFF},
        {"LOADS", AREA_LOADS},
        {"OWN_OBJECTS", AREA_OWN_OBJECTS},
        {"BY_ANSWER", AREA_BY_ANSWER},
        {"CAP", ACC_CAP},
        {"BYPASS", ACC_BYPASS},
        {"SERVE", ACC_SERVE},
        {"JOIN", LOAD_JOIN},
        {"REFRESH", LOAD_REFRESH},
        {"FORCE", LOAD_FORCE},
        {"LOCK", LOAD_LOCK},
        {"FLIGHT_OVER", FLIGHT_OVER},
        {"FLIGHT_LEADING", FLIGHT_LEADING},
        {"FLIGHT_JOINED", FLIGHT_JOINED},
        {"FLIGHT_CROWDED", FLIGHT_CROWDED},
        {"WAIT_TIMEOUT", WAIT_TIMEOUT},
        {"WAIT_ENDED", WAIT_ENDED},
        {"WAIT_AGAIN", WAIT_AGAIN},
        {"RESULT_UNKNOWN", ACC_RESULT_UNKNOWN},
        {"RESULT_STORED", ACC_RESULT_STORED},
        {"RESULT_HANDED", ACC_RESULT_HANDED},
        {"RESULT_DECLINED", ACC_RESULT_DECLINED},
        {"RESULT_FAILED", ACC_RESULT_FAILED},
        {"CAP", ACC_CAP},
        {"BYPASS", ACC_BYPASS},
        {"SERVE", ACC_SERVE},
        {"NOTE_FORGET", ACC_NOTE_FORGET},
        {"NOTE_SET", ACC_NOTE_SET},
        {"NOTE_EXPIRE", ACC_NOTE_EXPIRE},
        {"NOTE_CLEAR", ACC_NOTE_CLEAR},
        {"NOTE_FORGET_TAG", ACC_NOTE_FORGET_TAG},
        {"NOTE_EXPIRE_TAG", ACC_NOTE_EXPIRE_TAG},
        {"TAGS_MAX", ACC_TAGS_MAX},
        {"TAG_SIZE_MAX", ACC_TAG_SIZE_MAX},
        {"REMOTE_GO", ACC_REMOTE_GO},
        {"REMOTE_PROBE", ACC_REMOTE_PROBE},
        {"REMOTE_NO", ACC_REMOTE_NO},
        {"LINK_CONNECTED", LINK_CONNECTED},
        {"LINK_LOST", LINK_LOST},
        {"LINK_MESSAGE", LINK_MESSAGE},
    };
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (!add_unsigned(module, constants[i].name, constants[i].value)) {
            return false;
        }
    }
    return add_unsigned(module, "LAYOUT", acc_layout()) &&
           add_unsigned(module, "MIN_SIZE", acc_min_size()) &&
           add_unsigned(module, "MAX_SIZE", acc_max_size()) &&
           add_names(module, "COUNTERS", acc_counter_names, ACC_COUNTERS) &&
           add_names(module, "OVERRIDES", acc_option_names, ACC_OPTIONS) &&
           add_latency_bounds(module);
}

static int execute(PyObject *module) {
    struct binding *b = PyModule_GetState(module);
    bool done = add_type(module, &b->segment_type, &segment_spec) &&
                add_type(module, &b->area_type, &area_spec) && binding_describe_contains(b) &&
                add_type(module, &b->unset_type, &unset_spec) &&
                add_type(module, &b->flight_type, &flight_spec) &&
                add_type(module, &b->bell_type, &bell_spec) &&
                add_type(module, &b->call_type, &call_spec) &&
                import_from(&b->uuid_type, "uuid", "UUID") &&
                import_from(&b->encode_other, "accelerator.keys", "encode") &&
                intern(&b->str_attach, "_attach") && intern(&b->str_miss, "_miss") &&
                intern(&b->str_mmiss, "_mmiss") &&
                intern(&b->str_contains_miss, "_contains_miss") && intern(&b->str_set, "_set") &&
                intern(&b->str_decode, "_decode") && intern(&b->str_bytes, "bytes") &&
                intern(&b->str_near_end, "_near_end") && add_constants(module);
    if (!done) {
        return -1;
    }
    b->unset = b->unset_type->tp_alloc(b->unset_type, 0);
    return b->unset == NULL ? -1 : PyModule_AddObjectRef(module, "UNSET", b->unset);
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    struct binding *b = PyModule_GetState(module);
    Py_VISIT(b->segment_type);
    Py_VISIT(b->area_type);
    Py_VISIT(b->unset_type);
    Py_VISIT(b->flight_type);
    Py_VISIT(b->bell_type);
    Py_VISIT(b->call_type);
    Py_VISIT(b->unset);
    Py_VISIT(b->uuid_type);
    Py_VISIT(b->encode_other);
    return 0;
}

static int clear(PyObject *module) {
    struct binding *b = PyModule_GetState(module);
    Py_CLEAR(b->segment_type);
    Py_CLEAR(b->area_type);
    Py_CLEAR(b->unset_type);
    Py_CLEAR(b->flight_type);
    Py_CLEAR(b->bell_type);
    Py_CLEAR(b->call_type);
    Py_CLEAR(b->unset);
    Py_CLEAR(b->uuid_type);
    Py_CLEAR(b->encode_other);
    Py_CLEAR(b->str_attach);
    Py_CLEAR(b->str_miss);
    Py_CLEAR(b->str_mmiss);
    Py_CLEAR(b->str_contains_miss);
    Py_CLEAR(b->str_set);
    Py_CLEAR(b->str_decode);
    Py_CLEAR(b->str_bytes);
    Py_CLEAR(b->str_near_end);
    return 0;
}

static void release(void *module) {
    clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "accelerator._native",
    .m_doc = PyDoc_STR("One mapped segment, and the area type that LevelCache inherits."),
    .m_size = sizeof(struct binding),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&definition);
}
