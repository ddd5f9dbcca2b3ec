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

#include <initializer_list>
#include <type_traits>
#include <utility>

#include "array.h"

namespace afa {

constexpr int MOST_ARGUMENTS = 64, MOST_AXES = 4, MOST_LETTERS = 24, LONGEST_NAME = 24, LONGEST_TEXT = 1500;

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
    const char* function = nullptr;
    int count = 0, letters = 0;
    Wanted arguments[MOST_ARGUMENTS];
    char letter[MOST_LETTERS][LONGEST_NAME] = {};
    char text[LONGEST_TEXT] = {};

    int letter_number(const char* name, size_t size);
    int dimension(const char* text, size_t size);
    void read(const char* part);
};

// What an argument is in C++: a number, an array of so many axes, or (type nullptr) a tuple of so many arguments.
struct Kind {
    static constexpr int NUMBER = -1;
    const char* type;   // of the items, as NumPy calls it
    int axes;
    size_t item = 0, alignment = 0;
    bool writable = false;
};

// The call at work: where its arguments go, buffers that are held, lengths that letters stand for, indices to be checked
// once all lengths are known.
struct Call {
    const Signature& signature;
    int wanted = 0, taken = 0, at = 0, held = 0, checks = 0;   // at: arguments of the signature that are read
    struct Target {
        const Kind* kind;
        void* to;   // a number, or a View
    } target[2 * MOST_ARGUMENTS];
    Py_buffer buffers[MOST_ARGUMENTS];
    int64_t length[MOST_LETTERS];
    int first_user[MOST_LETTERS];
    struct Check {
        int argument;
        const int64_t* indices;
        int64_t size;
    } check[MOST_ARGUMENTS];

    explicit Call(const Signature& s) : signature(s) {
        for (int64_t& each : length) each = -1;
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() {
        for (int i = 0; i < held; i++) PyBuffer_Release(&buffers[i]);
    }
    bool read(PyObject* const* objects, Py_ssize_t given, Py_ssize_t all);   // every target
    bool read_next(PyObject* object);
    bool read_array(PyObject* object, const Kind& kind, void* view);
    bool check_axis(const Wanted& argument, int axis, int64_t given);
    bool check_indices();
};

template <class T> struct TypeName;
template <> struct TypeName<double> { static constexpr const char* value = "float64"; };
template <> struct TypeName<float> { static constexpr const char* value = "float32"; };
template <> struct TypeName<int64_t> { static constexpr const char* value = "int64"; };
template <> struct TypeName<int32_t> { static constexpr const char* value = "int32"; };
template <> struct TypeName<uint8_t> { static constexpr const char* value = "bool"; };
template <> struct TypeName<bool> : TypeName<uint8_t> {};

// A struct of arguments arrives as a (named) tuple. It says which: void members(Visit&& visit) { visit(a, b, c); }
template <class T> struct Argument {
    static void list(Call& call, T& to) {
        to.members([&](auto&... member) {
            static constexpr Kind kind = {nullptr, sizeof...(member)};
            call.target[call.wanted++] = {&kind, nullptr};
            (Argument<std::remove_reference_t<decltype(member)>>::list(call, member), ...);
        });
    }
};
template <class T> struct Number {
    static void list(Call& call, T& to) {
        static constexpr Kind kind = {TypeName<T>::value, Kind::NUMBER};
        call.target[call.wanted++] = {&kind, &to};
    }
};
template <> struct Argument<double> : Number<double> {};
template <> struct Argument<int64_t> : Number<int64_t> {};
template <> struct Argument<bool> : Number<bool> {};
template <class T, int N> struct Argument<View<T, N>> {
    static void list(Call& call, View<T, N>& to) {
        static constexpr Kind kind = {TypeName<std::remove_const_t<T>>::value, N, sizeof(T), alignof(T), !std::is_const_v<T>};
        call.target[call.wanted++] = {&kind, &to};
    }
};

inline PyObject* result(int64_t x) { return PyLong_FromLongLong(x); }
inline PyObject* result(double x) { return PyFloat_FromDouble(x); }
inline PyObject* result(bool x) { return PyBool_FromLong(x); }

// A kernel's arguments (std::tuple takes long to compile).
template <size_t, class T> struct Held {
    T value{};
};
template <class, class... T> struct Values;
template <size_t... I, class... T> struct Values<std::index_sequence<I...>, T...> : Held<I, T>... {
    void list(Call& call) { (Argument<T>::list(call, Held<I, T>::value), ...); }
    template <class F> auto apply(F f) { return f(Held<I, T>::value...); }
};

template <auto F> struct Bound;
template <class R, class... A, R (*F)(A...)> struct Bound<F> {
    static inline Signature signature;

    static PyObject* call(PyObject*, PyObject* const* objects, Py_ssize_t given) {
        Call call(signature);
        Values<std::index_sequence_for<A...>, std::decay_t<A>...> values;
        values.list(call);
        if (!call.read(objects, given, sizeof...(A))) return nullptr;
        PyThreadState* state = PyEval_SaveThread();
        if constexpr (std::is_void_v<R>) {
            values.apply(F);
            PyEval_RestoreThread(state);
            return Py_NewRef(Py_None);
        } else {
            const R r = values.apply(F);
            PyEval_RestoreThread(state);
            return result(r);
        }
    }
};

// An entry of a table; the signature comes in parts.
PyMethodDef entry(const char* name, std::initializer_list<const char*> parts, Signature& signature, _PyCFunctionFast call);
template <auto F> PyMethodDef bind(const char* name, std::initializer_list<const char*> parts) {
    return entry(name, parts, Bound<F>::signature, &Bound<F>::call);
}
template <auto F> PyMethodDef bind(const char* name, const char* text) { return bind<F>(name, {text}); }

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
