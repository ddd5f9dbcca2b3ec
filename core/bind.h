// From Python's arguments to a kernel's: every shape, type, order and alignment is checked here, once.
//
//     bind<&propagate>("propagate", "x(n,T,d) Phi(U,d,d) psi(U,d) root(U,d,d) which(T)")
//
// makes the entry of a method table. The second text names the arguments and their dimensions: a letter
// stands for the same length wherever it appears, a number for itself, * for any length. Behind the
// dimensions stands what the entries of an index array, or a whole number, must be: which(T)<U says
// 0 <= which < U, low(B)<=N allows N as well, obs(N)<T? also -1. What does not fit is a TypeError or
// ValueError with the argument's name, what it is and what is wanted. The lock is released while the
// kernel runs; kernels neither throw nor touch Python. Stable ABI of Python 3.11.
#pragma once
#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "array.h"

namespace afa {

constexpr int MOST_ARGUMENTS = 64, MOST_AXES = 4, MOST_LETTERS = 24, LONGEST_NAME = 24, LONGEST_TEXT = 1500;

// A signature put together from parts when compiled, since no C++ library need be there at run time.
struct Text {
    char characters[LONGEST_TEXT] = {};
    int length = 0;
    constexpr Text(const char* part) {
        while (*part) characters[length++] = *part++;
    }
    constexpr const char* c_str() const { return characters; }
    friend constexpr Text operator+(Text text, const Text& more) {
        for (int i = 0; i < more.length; i++) text.characters[text.length++] = more.characters[i];
        return text;
    }
};

// One argument of a signature: its name and, for each axis, a letter's number, -1 - length, or ANY; for indices
// what bounds them, likewise, whether the bound itself is allowed (closed) and whether -1 is (optional).
struct Wanted {
    static constexpr int ANY = -1000000;
    char name[LONGEST_NAME] = {};
    int axes = 0;
    int dimension[MOST_AXES] = {};
    int bound = ANY;
    bool closed = false, optional = false;
};

struct Signature {
    const char* function = "";
    int count = 0, letters = 0;
    Wanted arguments[MOST_ARGUMENTS];
    char letter[MOST_LETTERS][LONGEST_NAME] = {};
    char text[LONGEST_TEXT] = {};

    int letter_number(const char* text, size_t length) {
        for (int i = 0; i < letters; i++)
            if (std::strlen(letter[i]) == length && std::strncmp(letter[i], text, length) == 0) return i;
        std::memcpy(letter[letters], text, length);
        return letters++;
    }
    int dimension(const char* text, size_t length) {
        if (*text == '*') return Wanted::ANY;
        return *text >= '0' && *text <= '9' ? -1 - std::atoi(text) : letter_number(text, length);
    }
    void read(const char* at) {
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
};

// The call at work: buffers that are held, lengths that letters stand for, indices to be checked once all lengths are
// known.
struct Call {
    const Signature& signature;
    int at = 0, held = 0, checks = 0;
    Py_buffer buffers[MOST_ARGUMENTS];
    int64_t length[MOST_LETTERS];
    int first_user[MOST_LETTERS];
    struct Check {
        int argument;
        const int64_t* indices;
        int64_t size;
    } check[MOST_ARGUMENTS];

    explicit Call(const Signature& s) : signature(s) {
        for (int i = 0; i < s.letters; i++) length[i] = -1;
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() {
        for (int i = 0; i < held; i++) PyBuffer_Release(&buffers[i]);
    }
    bool check_axis(const Wanted& wanted, int axis, int64_t given);
    bool check_indices();
    bool take(PyObject* object, const char* type, size_t item, size_t alignment, bool writable, int axes,
              int64_t* shape, void** data);
};

template <class T> struct TypeName;
template <> struct TypeName<double> { static constexpr const char* value = "float64"; };
template <> struct TypeName<float> { static constexpr const char* value = "float32"; };
template <> struct TypeName<int64_t> { static constexpr const char* value = "int64"; };
template <> struct TypeName<int32_t> { static constexpr const char* value = "int32"; };
template <> struct TypeName<uint8_t> { static constexpr const char* value = "bool"; };

template <class T, class = void> struct Argument;   // bool read(Call&, PyObject*, T&)

template <class T, int N> struct Argument<View<T, N>> {
    static bool read(Call& call, PyObject* object, View<T, N>& to) {
        using Plain = std::remove_const_t<T>;
        const int argument = call.at;
        void* data = nullptr;
        if (!call.take(object, TypeName<Plain>::value, sizeof(T), alignof(T), !std::is_const_v<T>, N, to.shape, &data))
            return false;
        to.data = static_cast<T*>(data);
        if constexpr (std::is_same_v<Plain, int64_t>)
            if (call.signature.arguments[argument].bound != Wanted::ANY) call.check[call.checks++] = {argument, to.data, to.size()};
        return true;
    }
};

template <> struct Argument<double> {
    static bool read(Call& call, PyObject* object, double& to) {
        call.at++;
        to = PyFloat_AsDouble(object);
        return to != -1.0 || PyErr_Occurred() == nullptr;
    }
};
template <> struct Argument<float> {
    static bool read(Call& call, PyObject* object, float& to) {
        double wide = 0;
        const bool fine = Argument<double>::read(call, object, wide);
        to = static_cast<float>(wide);
        return fine;
    }
};
template <> struct Argument<int64_t> {
    static bool read(Call& call, PyObject* object, int64_t& to) {
        const int argument = call.at++;
        to = PyLong_AsLongLong(object);
        if (call.signature.arguments[argument].bound != Wanted::ANY) call.check[call.checks++] = {argument, &to, 1};
        return to != -1 || PyErr_Occurred() == nullptr;
    }
};
template <> struct Argument<bool> {
    static bool read(Call& call, PyObject* object, bool& to) {
        call.at++;
        const int truth = PyObject_IsTrue(object);
        to = truth == 1;
        return truth >= 0;
    }
};

// A struct of views arrives as a (named) tuple. The struct says which members: auto members() { return std::tie(a, b); }
template <class T> struct Argument<T, std::void_t<decltype(std::declval<T&>().members())>> {
    static bool read(Call& call, PyObject* object, T& to) {
        auto members = to.members();
        constexpr auto count = static_cast<Py_ssize_t>(std::tuple_size_v<decltype(members)>);
        if (PyTuple_Check(object) == 0 || PyTuple_Size(object) != count) {
            PyErr_Format(PyExc_TypeError, "%s: wanted a tuple of %zd arrays beginning with %s",
                         call.signature.function, count, call.signature.arguments[call.at].name);
            return false;
        }
        return read_each(call, object, members, std::make_index_sequence<static_cast<size_t>(count)>());
    }
    template <class Members, size_t... I>
    static bool read_each(Call& call, PyObject* object, Members& members, std::index_sequence<I...>) {
        return (Argument<std::remove_reference_t<std::tuple_element_t<I, Members>>>::read(
                    call, PyTuple_GetItem(object, static_cast<Py_ssize_t>(I)), std::get<I>(members)) &&
                ...);
    }
};

inline PyObject* result(int64_t x) { return PyLong_FromLongLong(x); }
inline PyObject* result(double x) { return PyFloat_FromDouble(x); }
inline PyObject* result(bool x) { return PyBool_FromLong(x); }

template <auto F> struct Bound;
template <class R, class... A, R (*F)(A...)> struct Bound<F> {
    static inline Signature signature;

    static PyObject* call(PyObject*, PyObject* const* objects, Py_ssize_t given) {
        if (given != static_cast<Py_ssize_t>(sizeof...(A))) {
            PyErr_Format(PyExc_TypeError, "%s takes %zu arguments, %zd given", signature.function, sizeof...(A), given);
            return nullptr;
        }
        Call call(signature);
        std::tuple<std::decay_t<A>...> arguments;
        if (!read(call, objects, arguments, std::index_sequence_for<A...>()) || !call.check_indices()) return nullptr;
        if constexpr (std::is_void_v<R>) {
            PyThreadState* state = PyEval_SaveThread();
            std::apply(F, arguments);
            PyEval_RestoreThread(state);
            return Py_NewRef(Py_None);
        } else {
            PyThreadState* state = PyEval_SaveThread();
            const R r = std::apply(F, arguments);
            PyEval_RestoreThread(state);
            return result(r);
        }
    }
    template <class Arguments, size_t... I>
    static bool read(Call& call, PyObject* const* objects, Arguments& arguments, std::index_sequence<I...>) {
        (void)call, (void)objects, (void)arguments;
        return (Argument<std::decay_t<A>>::read(call, objects[I], std::get<I>(arguments)) && ...);
    }
};

// The signature may come in parts.
template <auto F, class... Parts> PyMethodDef bind(const char* name, Parts... parts) {
    Signature& wanted = Bound<F>::signature;
    wanted = Signature();
    wanted.function = name;
    (wanted.read(parts), ...);
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&Bound<F>::call)), METH_FASTCALL, wanted.text};
}

// Method tables, each ended by an empty entry: one for every file bind_*.cpp.
PyMethodDef* model_methods();
PyMethodDef* kalman_methods();
PyMethodDef* lane_methods();
PyMethodDef* flat_methods();
PyMethodDef* mixture_methods();
PyMethodDef* likelihood_methods();
PyMethodDef* attention_methods();
PyMethodDef* adaptive_methods();

}  // namespace afa
