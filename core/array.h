// Plain views of NumPy's arrays, as kernels see them: C-contiguous, aligned, shapes checked by bind.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

// The build: kernels of each have names of their own (inline namespace), since a module may hold kernels of two.
#ifndef AFA_LEVEL
#define AFA_LEVEL generic
#endif

namespace afa {

// T const: read only. A kernel that gets two views may assume that they do not overlap unless it says so.
template <class T, int N> struct View {
    T* data = nullptr;
    int64_t shape[N > 0 ? N : 1] = {};

    // Where entry [i] of the first axis begins: row(k) of an (N, d, d) stack is its k-th matrix.
    T* row(int64_t i) const {
        int64_t size = 1;
        for (int axis = 1; axis < N; axis++) size *= shape[axis];
        return data + i * size;
    }
    T& operator[](int64_t i) const { return data[i]; }
    int64_t size() const {
        int64_t total = 1;
        for (int axis = 0; axis < N; axis++) total *= shape[axis];
        return total;
    }
    // What may be written may be read.
    template <class U, class = std::enable_if_t<std::is_same_v<U, const T> && !std::is_const_v<T>>> operator View<U, N>() const {
        View<U, N> same{data, {}};
        for (int axis = 0; axis < N; axis++) same.shape[axis] = shape[axis];
        return same;
    }
};

template <int N> using In = View<const double, N>;
template <int N> using Out = View<double, N>;
template <int N> using Index = View<const int64_t, N>;
template <int N> using Flags = View<const uint8_t, N>;

}  // namespace afa
