// Numbers side by side: the vector extensions of GCC and Clang, compiled to SSE2, AVX2, AVX-512 or NEON.
//
// `Vec<T, N>` is a vector register's worth of N numbers (N = 1: the plain number, so that one text serves
// both). +, -, *, / work on vectors and on a vector and a number. Vectors are never wider than the level's
// registers: GCC would split them through memory, ten times slower.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "array.h"

// Three things that only a macro can say; AFA_HERE: a lambda's body belongs where it is called. Clang unrolls loops of
// known length by itself, and would unroll those of unknown length as well if it were told to.
#define AFA_INLINE inline __attribute__((always_inline))
#define AFA_HERE __attribute__((always_inline))
#if defined(__clang__)
#define AFA_UNROLL
#pragma clang fp contract(fast)
#else
#define AFA_UNROLL _Pragma("GCC unroll 16")
#endif

namespace afa {
inline namespace AFA_LEVEL {

constexpr double EPS = 2.220446049250313e-16, LOG_2PI = 1.8378770664093453;

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
// Whether small dimensions have instances of their own: not on x86-64-v2, which only processors of before 2013 need.
#if defined(__x86_64__) && !defined(__AVX2__)
constexpr bool MANY_INSTANCES = false;
#else
constexpr bool MANY_INSTANCES = true;
#endif
// How many numbers a register holds.
template <class T> constexpr int LANES = VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T, int N> struct VecOf {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
    typedef T unaligned __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <class T> struct VecOf<T, 1> {
    typedef T type;
    typedef T unaligned;
};
template <class T, int N> using Vec = typename VecOf<T, N>::type;

// ---------------------------------------------------------------- what holds for numbers and vectors alike

// Of a number or a vector: how many lanes.
template <class V> constexpr int lanes_of = static_cast<int>(sizeof(V) / sizeof(double));
template <> inline constexpr int lanes_of<float> = 1;

// The same number in every lane.
template <class V> AFA_INLINE V spread(double x) {
    if constexpr (std::is_same_v<V, double>) return x;
    else return x - V{};
}
template <class V> AFA_INLINE double lane(const V& x, int l) {
    if constexpr (std::is_same_v<V, double>) return (void)l, x;
    else return x[l];
}
// x with lane l replaced; without a detour through memory.
template <class V> AFA_INLINE V with_lane(V x, int l, double value) {
    if constexpr (std::is_same_v<V, double>) return (void)l, (void)x, value;
    else {
        if (__builtin_constant_p(l)) {
            x[l] = value;
            return x;
        }
        Vec<int64_t, lanes_of<V>> number;
        for (int i = 0; i < lanes_of<V>; i++) number[i] = i;
        return number == static_cast<int64_t>(l) ? spread<V>(value) : x;
    }
}
// a where test > 0, b elsewhere (also where test is NaN).
template <class V> AFA_INLINE V where_positive(V test, V a, V b) {
    if constexpr (std::is_same_v<V, double>) return test > 0.0 ? a : b;
    else return test > V{} ? a : b;
}
template <class V> AFA_INLINE V larger(V a, V b) { return a > b ? a : b; }
template <class V> AFA_INLINE V magnitude(V x) {
    if constexpr (std::is_same_v<V, double>) return std::fabs(x);
    else return larger(x, -x);
}
template <class V> AFA_INLINE V root(V x) {
    if constexpr (std::is_same_v<V, double>) return std::sqrt(x);
#if defined(__AVX512F__)
    else if constexpr (sizeof(V) == 64)   // _mm512_sqrt_pd of GCC 12 warns of itself
        return reinterpret_cast<V>(_mm512_maskz_sqrt_pd(0xff, reinterpret_cast<__m512d>(x)));
#endif
#if defined(__AVX__)
    else if constexpr (sizeof(V) == 32) return reinterpret_cast<V>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(x)));
#endif
    else {
        for (int l = 0; l < lanes_of<V>; l++) x[l] = __builtin_sqrt(x[l]);
        return x;
    }
}
// Whether a comparison of vectors holds in every lane.
template <class M> AFA_INLINE bool in_all_lanes(M holds) {
#if defined(__AVX2__)
    if constexpr (sizeof(M) == 32) return _mm256_movemask_epi8(reinterpret_cast<__m256i>(holds)) == -1;
#endif
    int64_t all = -1;
    for (int l = 0; l < lanes_of<M>; l++) all &= holds[l];
    return all != 0;
}
// Whether every lane lies strictly between two numbers.
template <class V> AFA_INLINE bool all_between(V x, double low, double high) {
    if constexpr (std::is_same_v<V, double>) return x > low && x < high;
    else return in_all_lanes((x > low) & (x < high));
}
template <class V> AFA_INLINE bool any_positive(V x) {
    if constexpr (std::is_same_v<V, double>) return x > 0.0;
    else return !in_all_lanes(~(x > V{}));
}

// ---------------------------------------------------------------- memory

template <int N, class T> AFA_INLINE Vec<T, N> load(const T* p) {
    return *reinterpret_cast<const typename VecOf<T, N>::unaligned*>(p);
}
template <int N, class T> AFA_INLINE void store(T* p, Vec<T, N> x) {
    *reinterpret_cast<typename VecOf<T, N>::unaligned*>(p) = x;
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// A mask of n lanes begins 4 - n entries in.
alignas(64) constexpr int64_t MASKS[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
#endif

// The first n (any number) of N entries, zeros beyond; nothing beyond is touched.
template <int N, class T> AFA_INLINE Vec<T, N> load_some(const T* p, int n) {
    if (n >= N) return load<N>(p);
    if (n <= 0) return Vec<T, N>{};
    if constexpr (N == 1) return T(0);
    else {
        const bool known = __builtin_constant_p(n);
#if defined(__AVX512F__)
        if constexpr (N * sizeof(T) == 64) {
            const unsigned mask = (1u << n) - 1u;
            if constexpr (sizeof(T) == 8)
                return reinterpret_cast<Vec<T, N>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), p));
            else return reinterpret_cast<Vec<T, N>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), p));
        }
#elif defined(__AVX2__)
        if constexpr (N == 4 && sizeof(T) == 8)
            if (!known)
                return reinterpret_cast<Vec<T, N>>(
                    _mm256_maskload_pd(p, reinterpret_cast<__m256i>(load<4>(MASKS + 4 - n))));
#endif
        (void)known;
        Vec<T, N> x = {};
        for (int i = 0; i < N; i++)
            if (i < n) x[i] = p[i];
        return x;
    }
}
template <int N, class T> AFA_INLINE void store_some(T* p, Vec<T, N> x, int n) {
    if (n >= N) return store<N>(p, x);
    if (n <= 0) return;
    if constexpr (N > 1) {
#if defined(__AVX512F__)
        if constexpr (N * sizeof(T) == 64) {
            const unsigned mask = (1u << n) - 1u;
            if constexpr (sizeof(T) == 8)
                _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), reinterpret_cast<__m512d>(x));
            else _mm512_mask_storeu_ps(p, static_cast<__mmask16>(mask), reinterpret_cast<__m512>(x));
            return;
        }
#endif
        for (int i = 0; i < N; i++)   // masked stores of AVX2 take twenty cycles on some processors
            if (i < n) p[i] = x[i];
    }
}

// x[l][i] <- x[i][l], as many vectors as they have lanes.
template <class V, int N> AFA_INLINE void transpose(V (&x)[N]) {
#if defined(__AVX__)
    if constexpr (sizeof(V) == 32 && N == 4) {
        const auto packed = [&](int i) AFA_HERE { return reinterpret_cast<__m256d>(x[i]); };
        const __m256d a = _mm256_unpacklo_pd(packed(0), packed(1)), b = _mm256_unpackhi_pd(packed(0), packed(1));
        const __m256d c = _mm256_unpacklo_pd(packed(2), packed(3)), d = _mm256_unpackhi_pd(packed(2), packed(3));
        x[0] = reinterpret_cast<V>(_mm256_permute2f128_pd(a, c, 0x20));
        x[1] = reinterpret_cast<V>(_mm256_permute2f128_pd(b, d, 0x20));
        x[2] = reinterpret_cast<V>(_mm256_permute2f128_pd(a, c, 0x31));
        x[3] = reinterpret_cast<V>(_mm256_permute2f128_pd(b, d, 0x31));
        return;
    }
#endif
    V turned[N];
    AFA_UNROLL
    for (int l = 0; l < N; l++)
        AFA_UNROLL
        for (int i = 0; i < N; i++) turned[l][i] = x[i][l];
    AFA_UNROLL
    for (int l = 0; l < N; l++) x[l] = turned[l];
}

// ---------------------------------------------------------------- dimensions and work space

// A dimension: N where it is known when compiled, else (N = 0) what it is given.
template <int N> struct Size {
    explicit constexpr Size(int64_t) {}
    constexpr operator int() const { return N; }
};
template <> struct Size<0> {
    int n;
    explicit constexpr Size(int64_t given) : n(static_cast<int>(given)) {}
    constexpr operator int() const { return n; }
};

// The dimension that a type tells, or 0.
template <class> constexpr int known = 0;
template <int N> constexpr int known<Size<N>> = N;

// f(Size<D>, Size<P>) and f(Size<D>): dimensions as template arguments where they have instances of their own.
template <class F> AFA_INLINE auto with_sizes(int64_t d, int64_t p, F&& f) {
    if constexpr (MANY_INSTANCES) {
        if (p == 1) {
            if (d == 1) return f(Size<1>(d), Size<1>(p));
            if (d == 2) return f(Size<2>(d), Size<1>(p));
            if (d == 3) return f(Size<3>(d), Size<1>(p));
        } else if (p == 2) {
            if (d == 2) return f(Size<2>(d), Size<2>(p));
            if (d == 4) return f(Size<4>(d), Size<2>(p));
        }
    }
    return f(Size<0>(d), Size<0>(p));
}
template <class F> AFA_INLINE auto with_size(int64_t d, F&& f) {
    if constexpr (MANY_INSTANCES) {
        if (d == 1) return f(Size<1>(d));
        if (d == 2) return f(Size<2>(d));
        if (d == 3) return f(Size<3>(d));
        if (d == 4) return f(Size<4>(d));
    }
    return f(Size<0>(d));
}

// f(i) for i = begin, ..., end - 1; unrolled where the length is known when compiled (SIZE > 0). Loops of unknown length
// stay loops: unrolled they would be slower, and many times as long.
template <int SIZE, class F> AFA_INLINE void each(int begin, int end, F&& f) {
    if constexpr (SIZE > 0) {
        AFA_UNROLL
        for (int i = begin; i < end; i++) f(i);
    } else
        for (int i = begin; i < end; i++) f(i);
}
// term(begin) + ... + term(end - 1).
template <int SIZE, class Number, class F> AFA_INLINE Number sum_of(int begin, int end, F&& term) {
    Number total = {};
    each<SIZE>(begin, end, [&](int i) { total += term(i); });
    return total;
}
// out_ic = entry(i, c), by rows.
template <int ROWS, int COLUMNS, class Number, class F> AFA_INLINE void fill(Number* out, int rows, int columns, F&& entry) {
    each<ROWS>(0, rows, [&](int i) { each<COLUMNS>(0, columns, [&](int c) { out[i * columns + c] = entry(i, c); }); });
}

// Work space, zeros at first unless they are not wanted: on the stack where its size N is known, else allocated (once per call).
template <class T, int N> struct Scratch {
    T entries[N] = {};
    explicit Scratch(int64_t) {}
    T& operator[](int64_t i) { return entries[i]; }
    const T& operator[](int64_t i) const { return entries[i]; }
};
template <class T> struct Scratch<T, 0> {
    void* block;
    T* entries;
    explicit Scratch(int64_t n, bool zeros = true) {
        constexpr size_t align = 64;   // of a register, and of a line of the cache
        const size_t bytes = static_cast<size_t>(n) * sizeof(T);
        block = zeros ? std::calloc(bytes + align, 1) : std::malloc(bytes + align);
        const uintptr_t address = (reinterpret_cast<uintptr_t>(block) + align - 1) / align * align;
        entries = reinterpret_cast<T*>(address);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { std::free(block); }
    T& operator[](int64_t i) { return entries[i]; }
    const T& operator[](int64_t i) const { return entries[i]; }
};
// A view with memory of its own, zeros at first.
template <int N, class T = double> struct Room : View<T, N> {
    Scratch<T, 0> block;
    template <class... Sizes> explicit Room(Sizes... sizes) : View<T, N>{nullptr, {static_cast<int64_t>(sizes)...}}, block(this->size()) {
        static_assert(sizeof...(Sizes) == N);
        this->data = block.entries;
    }
};

}
}  // namespace afa
