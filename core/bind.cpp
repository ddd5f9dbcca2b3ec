// The module that Python imports, and the checks at its border.
#include "bind.h"

#include <cstdlib>
#include <cstring>

#define AFA_TEXT_(x) #x
#define AFA_TEXT(x) AFA_TEXT_(x)
#define AFA_JOIN_(a, b) a##b
#define AFA_JOIN(a, b) AFA_JOIN_(a, b)

namespace afa {

int Signature::letter_number(const char* name, size_t size) {
    for (int i = 0; i < letters; i++)
        if (std::strlen(letter[i]) == size && std::strncmp(letter[i], name, size) == 0) return i;
    std::memcpy(letter[letters], name, size);
    return letters++;
}
int Signature::dimension(const char* at, size_t size) {
    if (*at == '*') return Wanted::ANY;
    return *at >= '0' && *at <= '9' ? -1 - std::atoi(at) : letter_number(at, size);
}
void Signature::read(const char* at) {
    std::strncat(text, at, LONGEST_TEXT - 1 - std::strlen(text));
    while (*at) {
        while (*at == ' ') at++;
        if (!*at) break;
        Wanted& wanted = arguments[count++];
        const size_t length = std::strcspn(at, " (<");
        std::memcpy(wanted.name, at, length < LONGEST_NAME ? length : LONGEST_NAME - 1);
        at += length;
        if (*at == '(') {
            for (at++; *at != ')'; at += *at == ',') {
                const size_t size = std::strcspn(at, ",)");
                wanted.dimension[wanted.axes++] = dimension(at, size);
                at += size;
            }
            at++;
        }
        if (*at != '<') continue;
        at++;
        wanted.closed = *at == '=';
        at += wanted.closed;
        const size_t size = std::strcspn(at, "? ");
        wanted.bound = dimension(at, size);
        at += size;
        wanted.optional = *at == '?';
        at += wanted.optional;
    }
}

PyMethodDef entry(const char* name, std::initializer_list<const char*> parts, Signature& signature, _PyCFunctionFast call) {
    signature = Signature();
    signature.function = name;
    for (const char* part : parts) signature.read(part);
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)), METH_FASTCALL, signature.text};
}

bool Call::check_axis(const Wanted& argument, int axis, int64_t given) {
    const int dimension = argument.dimension[axis];
    if (dimension == Wanted::ANY) return true;
    if (dimension < 0) {
        if (given == -1 - dimension) return true;
        PyErr_Format(PyExc_ValueError, "%s: axis %d of %s has length %lld, wanted %d", signature.function, axis,
                     argument.name, static_cast<long long>(given), -1 - dimension);
        return false;
    }
    if (length[dimension] < 0) {
        length[dimension] = given;
        first_user[dimension] = at;
        return true;
    }
    if (length[dimension] == given) return true;
    PyErr_Format(PyExc_ValueError, "%s: axis %d of %s has length %lld, wanted %s = %lld as in %s", signature.function,
                 axis, argument.name, static_cast<long long>(given), signature.letter[dimension],
                 static_cast<long long>(length[dimension]), signature.arguments[first_user[dimension]].name);
    return false;
}

// Whether indices, those of arrays and single ones, lie where the signature says.
bool Call::check_indices() {
    for (int c = 0; c < checks; c++) {
        const Wanted& wanted = signature.arguments[check[c].argument];
        const bool letter = wanted.bound >= 0;
        const int64_t least = wanted.optional ? -1 : 0, end = letter ? length[wanted.bound] : -1 - wanted.bound;
        const int64_t most = wanted.closed ? end : end - 1;
        for (int64_t i = 0; i < check[c].size; i++) {
            const int64_t index = check[c].indices[i];
            if (index >= least && index <= most) continue;
            char where[32] = "";
            if (wanted.axes > 0) PyOS_snprintf(where, sizeof where, "[%lld]", static_cast<long long>(i));
            PyErr_Format(PyExc_IndexError, "%s: %s%s is %lld, wanted %lld to %lld%s%s", signature.function, wanted.name, where,
                         static_cast<long long>(index), static_cast<long long>(least), static_cast<long long>(most),
                         letter ? " as in " : "", letter ? signature.arguments[first_user[wanted.bound]].name : "");
            return false;
        }
    }
    return true;
}

// Whether a buffer's format (struct module's letters) is the type of that name.
static bool is_type(const char* format, Py_ssize_t size, const char* type, size_t item) {
    if (format == nullptr || size != static_cast<Py_ssize_t>(item)) return false;
    if (*format == '@' || *format == '=' || *format == '<') format++;
    if (std::strcmp(type, "complex128") == 0) return std::strcmp(format, "Zd") == 0;
    if (format[0] == '\0' || format[1] != '\0') return false;
    switch (*type) {
    case 'f': return *format == 'd' || *format == 'f';
    case 'i': return *format == 'l' || *format == 'q' || *format == 'i' || *format == 'n';
    default: return *format == '?' || *format == 'B';
    }
}

bool Call::read(PyObject* const* objects, Py_ssize_t given, Py_ssize_t all) {
    if (given != all) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, %zd given", signature.function, all, given);
        return false;
    }
    for (Py_ssize_t i = 0; i < given; i++)
        if (!read_next(objects[i])) return false;
    return check_indices();
}

// The next target and, where it is a tuple, its members.
bool Call::read_next(PyObject* object) {
    const Target next = target[taken++];
    const Kind& kind = *next.kind;
    if (kind.type == nullptr) {
        if (PyTuple_Check(object) == 0 || PyTuple_Size(object) != kind.axes) {
            PyErr_Format(PyExc_TypeError, "%s: wanted a tuple of %d arrays beginning with %s", signature.function, kind.axes,
                         signature.arguments[at].name);
            return false;
        }
        for (Py_ssize_t i = 0; i < kind.axes; i++)
            if (!read_next(PyTuple_GetItem(object, i))) return false;
        return true;
    }
    if (kind.axes != Kind::NUMBER) return read_array(object, kind, next.to);
    const int argument = at++;
    switch (*kind.type) {
    case 'f': {
        const double x = PyFloat_AsDouble(object);
        *static_cast<double*>(next.to) = x;
        return x != -1.0 || PyErr_Occurred() == nullptr;
    }
    case 'i': {
        int64_t* to = static_cast<int64_t*>(next.to);
        *to = PyLong_AsLongLong(object);
        if (signature.arguments[argument].bound != Wanted::ANY) check[checks++] = {argument, to, 1};
        return *to != -1 || PyErr_Occurred() == nullptr;
    }
    default: {
        const int truth = PyObject_IsTrue(object);
        *static_cast<bool*>(next.to) = truth == 1;
        return truth >= 0;
    }
    }
}

bool Call::read_array(PyObject* object, const Kind& kind, void* view) {
    const Wanted& wanted = signature.arguments[at];
    const auto [type, axes, item, alignment, writable] = kind;
    Py_buffer& buffer = buffers[held];
    const int flags = PyBUF_FORMAT | PyBUF_STRIDES | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, &buffer, flags) != 0) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s: %s is %R, wanted a%s %s array", signature.function, wanted.name,
                     reinterpret_cast<PyObject*>(Py_TYPE(object)), writable ? " writable" : "", type);
        return false;
    }
    held++;
    if (!is_type(buffer.format, buffer.itemsize, type, item)) {
        PyErr_Format(PyExc_TypeError, "%s: %s has items of format '%s' (%zd bytes), wanted %s", signature.function,
                     wanted.name, buffer.format == nullptr ? "?" : buffer.format, buffer.itemsize, type);
        return false;
    }
    if (buffer.ndim != axes || axes != wanted.axes) {
        PyErr_Format(PyExc_ValueError, "%s: %s has %d axes, wanted %d", signature.function, wanted.name, buffer.ndim, axes);
        return false;
    }
    int64_t* const shape = reinterpret_cast<int64_t*>(static_cast<char*>(view) + sizeof(void*));   // behind `data` in every View
    Py_ssize_t stride = static_cast<Py_ssize_t>(item);
    bool packed = true, empty = false;
    for (int axis = axes - 1; axis >= 0; axis--) {
        shape[axis] = buffer.shape[axis];
        packed = packed && (shape[axis] <= 1 || buffer.strides[axis] == stride);
        stride *= buffer.shape[axis];
        empty = empty || shape[axis] == 0;
    }
    if (!packed && !empty) {
        PyErr_Format(PyExc_ValueError, "%s: %s is not contiguous, wanted its last axis side by side (C order)",
                     signature.function, wanted.name);
        return false;
    }
    if (reinterpret_cast<uintptr_t>(buffer.buf) % alignment != 0 && !empty) {
        PyErr_Format(PyExc_ValueError, "%s: %s lies at an address that is no multiple of %zu", signature.function,
                     wanted.name, alignment);
        return false;
    }
    for (int axis = 0; axis < axes; axis++)
        if (!check_axis(wanted, axis, shape[axis])) return false;
    std::memcpy(view, &buffer.buf, sizeof buffer.buf);
    if (type[0] == 'i' && item == sizeof(int64_t) && wanted.bound != Wanted::ANY)
        check[checks++] = {at, static_cast<const int64_t*>(buffer.buf), empty ? 0 : buffer.len / static_cast<Py_ssize_t>(item)};
    at++;
    return true;
}

static int execute(PyObject* module) {
    for (PyMethodDef* methods : {model_methods(), kalman_methods(), lane_methods(), flat_methods(), mixture_methods(),
                                 likelihood_methods(), attention_methods(), adaptive_methods()})
        if (PyModule_AddFunctions(module, methods) != 0) return -1;
    if (PyModule_AddStringConstant(module, "level", AFA_TEXT(AFA_LEVEL)) != 0) return -1;
#if defined(__clang__)
    return PyModule_AddStringConstant(module, "compiler", "Clang " __clang_version__);
#else
    return PyModule_AddStringConstant(module, "compiler", "GCC " __VERSION__);
#endif
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(&execute)}, {0, nullptr}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_" AFA_TEXT(AFA_LEVEL), nullptr, 0, nullptr, slots, nullptr, nullptr, nullptr};

}  // namespace afa

PyMODINIT_FUNC AFA_JOIN(PyInit__, AFA_LEVEL)() { return PyModuleDef_Init(&afa::definition); }
