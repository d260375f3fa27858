/* Tags, encoded by Python: those of a value, and the operations by tag. */
#include "segment_args.h"

#include "outbox.h"

/* Tags of one operation whose hashes need no memory of their own. */
#define FEW_TAGS 16

static bool tag_is_sound(PyObject *tag) {
    if (!PyBytes_CheckExact(tag)) {
        PyErr_SetString(PyExc_TypeError, "tags: an encoded tag is bytes");
        return false;
    }
    if (PyBytes_GET_SIZE(tag) < 1 || PyBytes_GET_SIZE(tag) > (Py_ssize_t)ACC_TAG_SIZE_MAX) {
        PyErr_Format(PyExc_ValueError, "tags: an encoded tag has 1 to %d bytes",
                     (int)ACC_TAG_SIZE_MAX);
        return false;
    }
    return true;
}

/* A tuple of ours, which holds what another thread may take off the caller's list. */
static PyObject *sound_tags(PyObject *given) {
    if (PyBytes_Check(given) || PyUnicode_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "tags: a sequence of encoded tags is wanted, not one");
        return NULL;
    }
    PyObject *tags = PySequence_Tuple(given);
    for (Py_ssize_t i = 0; tags != NULL && i < PyTuple_GET_SIZE(tags); i++) {
        if (!tag_is_sound(PyTuple_GET_ITEM(tags, i))) {
            Py_CLEAR(tags);
        }
    }
    return tags;
}

static uint64_t hash_of(const struct acc_area *area, PyObject *tag) {
    return acc_tag_hash(area, (const uint8_t *)PyBytes_AS_STRING(tag),
                        (uint32_t)PyBytes_GET_SIZE(tag));
}

bool area_tags(const struct acc_area *area, PyObject *given, struct acc_tags *out) {
    out->count = 0;
    PyObject *tags = given == NULL ? NULL : sound_tags(given);
    if (tags == NULL) {
        return given == NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(tags);
    if (count > (Py_ssize_t)ACC_TAGS_MAX) {
        PyErr_Format(PyExc_ValueError, "tags: a value has at most %d", (int)ACC_TAGS_MAX);
        count = 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        acc_tags_add(area->seg, out, hash_of(area, PyTuple_GET_ITEM(tags, i)));
    }
    Py_DECREF(tags);
    return PyErr_Occurred() == NULL;
}

/* `tags` is a tuple of sound ones.  False with an exception. */
static bool mark(struct acc_area *area, PyObject *tags, bool expire) {
    Py_ssize_t count = PyTuple_GET_SIZE(tags);
    uint64_t few[FEW_TAGS];
    uint64_t *hashes = count <= FEW_TAGS ? few : PyMem_Malloc((size_t)count * sizeof *hashes);
    if (hashes == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        hashes[i] = hash_of(area, PyTuple_GET_ITEM(tags, i));
    }
    if (count != 0) {
        acc_tags_mark(area, hashes, (uint32_t)count, expire);
    }
    if (hashes != few) {
        PyMem_Free(hashes);
    }
    return true;
}

static PyObject *mark_counted(AreaObject *self, PyObject *given, bool expire) {
    PyObject *tags = sound_tags(given);
    PyObject *answer = NULL;
    if (tags != NULL && area_ready(self)) {
        acc_add_relaxed(&self->area.stats->counter[ACC_TAG_DELETE],
                        (uint64_t)PyTuple_GET_SIZE(tags));
        answer = mark(&self->area, tags, expire) ? Py_NewRef(Py_None) : NULL;
    }
    Py_XDECREF(tags);
    return answer;
}

PyObject *area_delete_tags(PyObject *op, PyObject *tags) {
    return mark_counted((AreaObject *)op, tags, false);
}

PyObject *area_expire_tags(PyObject *op, PyObject *tags) {
    return mark_counted((AreaObject *)op, tags, true);
}

PyObject *area_note_tag(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *tag;
    int kind;
    if (!PyArg_ParseTuple(args, "Oi:_note_tag", &tag, &kind) || !tag_is_sound(tag)) {
        return NULL;
    }
    if (kind != ACC_NOTE_FORGET_TAG && kind != ACC_NOTE_EXPIRE_TAG) {
        PyErr_SetString(PyExc_ValueError, "_note_tag: no such kind of a note of a tag");
        return NULL;
    }
    if (!area_ready(self)) {
        return NULL;
    }
    const struct acc_key key = {.data = (const uint8_t *)PyBytes_AS_STRING(tag),
                                .size = (uint32_t)PyBytes_GET_SIZE(tag),
                                .tag = ACC_TAG_TAG,
                                .hash = hash_of(&self->area, tag)};
    return PyLong_FromUnsignedLongLong(acc_outbox_append(&self->area, &key, (enum acc_note)kind));
}

PyObject *segment_invalidate_tags(PyObject *op, PyObject *args) {
    struct acc_segment *seg = seg_of(op);
    PyObject *name, *given, *answer = NULL;
    int expire = 0;
    struct acc_area_slot *slot;
    if (!PyArg_ParseTuple(args, "OO|p:invalidate_tags", &name, &given, &expire) ||
        !area_from(seg, name, &slot) || !writable(seg)) {
        return NULL;
    }
    PyObject *tags = sound_tags(given);
    if (tags == NULL) {
        return NULL;
    }
    if (slot != NULL) {
        struct acc_area area;
        acc_area_at(seg, id_of(seg, slot), &area);
        answer = mark(&area, tags, expire) ? Py_NewRef(Py_None) : NULL;
    } else {
        answer = Py_NewRef(Py_None);
    }
    Py_DECREF(tags);
    return answer;
}
