// Numbers side by side: the vector extensions of GCC and Clang, which become SSE2, AVX2, AVX-512 or NEON.
//
//     using V = Vec<double, 4>;           // +, -, *, /, <, ?: work lane by lane
//     V x = load<4>(p);                   // p need not be aligned beyond its numbers
//     store<4>(p, 2.0 * x);
//
// Widths are template arguments and follow the level's registers (LANES<T>): GCC splits wider vectors
// through memory, ten times slower.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define AFA_INLINE inline __attribute__((always_inline))

namespace afa {

#if defined(__AVX512F__)
constexpr int REGISTER_BYTES = 64, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int REGISTER_BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int REGISTER_BYTES = 16, REGISTERS = 32;
#else
constexpr int REGISTER_BYTES = 16, REGISTERS = 16;
#endif
constexpr size_t CACHE_LINE = 64;

// Numbers of a type in one register.
template <class T> constexpr int LANES = REGISTER_BYTES / static_cast<int>(sizeof(T));

template <class T, int N> struct VecOf {
    typedef T type __attribute__((vector_size(static_cast<size_t>(N) * sizeof(T))));
    typedef T loose __attribute__((vector_size(static_cast<size_t>(N) * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <class T, int N> using Vec = typename VecOf<T, N>::type;

template <int N, class T> AFA_INLINE Vec<T, N> load(const T* p) {
    return *reinterpret_cast<const typename VecOf<T, N>::loose*>(p);
}
template <int N, class T> AFA_INLINE void store(T* p, Vec<T, N> x) {
    *reinterpret_cast<typename VecOf<T, N>::loose*>(p) = x;
}

// The first n of N numbers, then zeros; nothing behind them is read. n >= N: all of them, n <= 0: none.
template <int N, class T> AFA_INLINE Vec<T, N> load_some(const T* p, int64_t n) {
    if (n >= N) return load<N>(p);
    Vec<T, N> x = {};
    if (n <= 0) return x;
#if defined(__AVX512F__)
    if constexpr (N * sizeof(T) == 64) {
        const unsigned mask = (1u << n) - 1u;
        if constexpr (sizeof(T) == 8) return (Vec<T, N>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), p);
        else return (Vec<T, N>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), p);
    }
#endif
    for (int i = 0; i < N; i++)
        if (i < n) x[i] = p[i];
    return x;
}
// The first n of N numbers; nothing behind them is written.
template <int N, class T> AFA_INLINE void store_some(T* p, Vec<T, N> x, int64_t n) {
    if (n >= N) return store<N>(p, x);
    if (n <= 0) return;
#if defined(__AVX512F__)
    if constexpr (N * sizeof(T) == 64) {
        const unsigned mask = (1u << n) - 1u;
        if constexpr (sizeof(T) == 8) _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), (__m512d)x);
        else _mm512_mask_storeu_ps(p, static_cast<__mmask16>(mask), (__m512)x);
        return;
    }
#endif
    for (int i = 0; i < N; i++)
        if (i < n) p[i] = x[i];
}

// The same number in every lane.
template <int N, class T> AFA_INLINE Vec<T, N> spread(T a) { return a - Vec<T, N>{}; }

template <int N, class T> AFA_INLINE T sum(Vec<T, N> x) {
    T total = x[0];
    for (int i = 1; i < N; i++) total += x[i];
    return total;
}

}  // namespace afa
