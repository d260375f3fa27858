/* Keys: a type tag and a payload, so that 1, "1", True and b"1" are four keys.
 *
 * str and bytes are hashed and compared where they lie; the other types are written into the
 * caller's buffer. */
#include "state.h"

enum tag {
    TAG_STR = KEY_TAG_STR,
    TAG_BYTES = 'b',
    TAG_INT = 'i',
    TAG_TRUE = 'T',
    TAG_FALSE = 'F',
    TAG_NONE = 'N',
    TAG_UUID = 'u',
    TAG_TUPLE = '(',
};

static bool too_long(PyObject *object) {
    PyErr_Format(
        PyExc_ValueError,
        "a cache key of type %.100s is longer than %d bytes encoded: hash long keys before use",
        Py_TYPE(object)->tp_name, KEY_BUFFER);
    return false;
}

static bool put(struct acc_key *out, uint8_t tag, const void *data, Py_ssize_t size,
                PyObject *object) {
    if (size > (Py_ssize_t)ACC_KEY_MAX) {
        return too_long(object);
    }
    out->tag = tag;
    out->data = data;
    out->size = (uint32_t)size;
    return true;
}

static bool encode_text(PyObject *object, struct acc_key *out) {
    if (PyUnicode_IS_COMPACT_ASCII(object)) {
        return put(out, TAG_STR, PyUnicode_DATA(object), PyUnicode_GET_LENGTH(object), object);
    }
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(object, &size);
    if (text == NULL) {
        PyErr_Clear(); /* its message would show a part of the key */
        PyErr_SetString(PyExc_ValueError,
                        "a cache key of type str holds a lone surrogate, which has no UTF-8 form");
        return false;
    }
    return put(out, TAG_STR, text, size, object);
}

/* A type that is not one of ours: let accelerator.keys.encode find its base value, or refuse it. */
static bool encode_other(struct binding *binding, PyObject *object, uint8_t *buffer,
                         struct acc_key *out) {
    PyObject *encoded = PyObject_CallOneArg(binding->encode_other, object);
    if (encoded == NULL) {
        return false;
    }
    bool done = false;
    if (PyBytes_CheckExact(encoded) && PyBytes_GET_SIZE(encoded) > 0) {
        Py_ssize_t size = PyBytes_GET_SIZE(encoded);
        if (size > KEY_BUFFER) {
            too_long(object);
        } else {
            memcpy(buffer, PyBytes_AS_STRING(encoded), (size_t)size);
            done = put(out, buffer[0], buffer + 1, size - 1, object);
        }
    } else {
        PyErr_SetString(PyExc_TypeError, "the key converter did not answer bytes");
    }
    Py_DECREF(encoded);
    return done;
}

static bool encode_int(struct binding *binding, PyObject *object, uint8_t *buffer,
                       struct acc_key *out) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0) {
        return encode_other(binding, object, buffer, out);
    }
    uint64_t bits = (uint64_t)value;
    for (int i = 0; i < 8; i++) {
        buffer[i] = (uint8_t)(bits >> (8 * i));
    }
    return put(out, TAG_INT, buffer, 8, object);
}

static bool encode_uuid(struct binding *binding, PyObject *object, uint8_t *buffer,
                        struct acc_key *out) {
    PyObject *bytes = PyObject_GetAttr(object, binding->str_bytes);
    if (bytes == NULL) {
        return false;
    }
    bool done = PyBytes_CheckExact(bytes) && PyBytes_GET_SIZE(bytes) == 16;
    if (done) {
        memcpy(buffer, PyBytes_AS_STRING(bytes), 16);
        done = put(out, TAG_UUID, buffer, 16, object);
    }
    Py_DECREF(bytes);
    return done;
}

/* A level of tuples takes three bytes at least, so what is nested deeper than this is too long. */
#define LEVELS (KEY_BUFFER / 3 + 1)

static bool encode_nested(struct binding *binding, PyObject *object, uint8_t *buffer, int levels,
                          struct acc_key *out);

/* Each element with its length before it: no separator that a value could imitate. */
static bool encode_tuple(struct binding *binding, PyObject *object, uint8_t *buffer, int levels,
                         struct acc_key *out) {
    if (levels == 0) {
        return too_long(object);
    }
    uint8_t element[KEY_BUFFER];
    Py_ssize_t end = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++) {
        struct acc_key part;
        PyObject *item = PyTuple_GET_ITEM(object, i);
        if (!encode_nested(binding, item, element, levels - 1, &part)) {
            return false;
        }
        uint32_t size = part.size + 1;
        if (end + 2 + (Py_ssize_t)size > (Py_ssize_t)ACC_KEY_MAX) {
            return too_long(object);
        }
        buffer[end] = (uint8_t)size;
        buffer[end + 1] = (uint8_t)(size >> 8);
        buffer[end + 2] = part.tag;
        memcpy(buffer + end + 3, part.data, part.size);
        end += 2 + (Py_ssize_t)size;
    }
    return put(out, TAG_TUPLE, buffer, end, object);
}

static bool encode_nested(struct binding *binding, PyObject *object, uint8_t *buffer, int levels,
                          struct acc_key *out) {
    if (acc_likely(PyUnicode_CheckExact(object))) {
        return encode_text(object, out);
    }
    if (PyLong_CheckExact(object)) {
        return encode_int(binding, object, buffer, out);
    }
    if (PyBytes_CheckExact(object)) {
        return put(out, TAG_BYTES, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object), object);
    }
    if (PyTuple_CheckExact(object)) {
        return encode_tuple(binding, object, buffer, levels, out);
    }
    if (object == Py_None) {
        return put(out, TAG_NONE, buffer, 0, object);
    }
    if (PyBool_Check(object)) {
        return put(out, object == Py_True ? TAG_TRUE : TAG_FALSE, buffer, 0, object);
    }
    if ((PyObject *)Py_TYPE(object) == binding->uuid_type) {
        return encode_uuid(binding, object, buffer, out);
    }
    return encode_other(binding, object, buffer, out);
}

bool key_encode(struct binding *binding, PyObject *object, uint8_t buffer[KEY_BUFFER],
                struct acc_key *out) {
    return encode_nested(binding, object, buffer, LEVELS, out);
}

static PyObject *bytes_of(const struct acc_key *key) {
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)key->size + 1);
    if (bytes != NULL) {
        PyBytes_AS_STRING(bytes)[0] = (char)key->tag;
        memcpy(PyBytes_AS_STRING(bytes) + 1, key->data, key->size);
    }
    return bytes;
}

PyObject *key_bytes(struct binding *binding, PyObject *object) {
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    return key_encode(binding, object, buffer, &key) ? bytes_of(&key) : NULL;
}

/* --- converted keys --------------------------------------------------------------------------- */

static bool in_buffer(const struct acc_key *key, const uint8_t buffer[KEY_BUFFER]) {
    return (uintptr_t)key->data - (uintptr_t)buffer < KEY_BUFFER;
}

PyObject *area_convert(AreaObject *self, PyObject *object) {
    PyObject *converter = Py_NewRef(self->converter); /* it may be bound anew while this one runs */
    PyObject *answer = PyObject_CallOneArg(converter, object);
    Py_DECREF(converter);
    return answer;
}

bool area_key_converted(AreaObject *self, PyObject *object, uint8_t buffer[KEY_BUFFER],
                        struct acc_key *key) {
    PyObject *answer = area_convert(self, object);
    if (answer == NULL) {
        return false;
    }
    bool done = area_key_plain(self, answer, buffer, key);
    if (done && !in_buffer(key, buffer)) {
        memcpy(buffer, key->data, key->size);
        key->data = buffer;
    }
    Py_DECREF(answer);
    return done;
}

PyObject *area_key_name(AreaObject *self, PyObject *object) {
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    return area_key(self, object, buffer, &key) ? bytes_of(&key) : NULL;
}
