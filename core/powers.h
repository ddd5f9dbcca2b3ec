// Logarithms, powers, exponentials and angles of numbers side by side, to a few roundings.
//
//     log2 r = e + (2 / ln 2) artanh f,   f = (m - 1) / (m + 1),   r = 2^e m,  1/sqrt 2 <= m < sqrt 2
//     2^y    = 2^n 2^{y - n},             n the integer next to y
//
// Where a processor looks lanes up in its registers (AVX-512), a table of 16 entries shortens both series
// and spares log2 its division:  log2 r = e - log2 c + log2(1 + f),  f = m c - 1,  c about 1 / m.
// Adding 1.5 2^52 (1.5 2^23 in single precision) rounds to a whole number, whose bits stand lowest. Bits are
// unsigned: carries out of the top are meant. Coefficients: tools/core_tables.py.
#pragma once
#include "tables.h"
#include "vec.h"

namespace afa {
inline namespace AFA_LEVEL {

// A register's worth of numbers of type T, and their bits.
template <class T> using Wide = Vec<T, LANES<T>>;
template <class T> using WideBits = Vec<typename Tables<T>::Bits, LANES<T>>;

template <class T> AFA_INLINE WideBits<T> bits_of(Wide<T> x) { return reinterpret_cast<WideBits<T>>(x); }
template <class T> AFA_INLINE Wide<T> number_of(WideBits<T> x) { return reinterpret_cast<Wide<T>>(x); }

// c[0] + c[1] x + ...
template <class T, int N> AFA_INLINE Wide<T> polynomial(const T (&c)[N], Wide<T> x) {
    Wide<T> value = x * c[N - 1] + c[N - 2];
    AFA_UNROLL
    for (int k = N - 3; k >= 0; k--) value = value * x + c[k];
    return value;
}

// 1 / x where that and x are normal numbers. A division keeps its unit busy for as long as twenty other
// operations; Newton's iteration from the 14 bits that AVX-512 has at once loses less than a unit in the last place.
template <class T> AFA_INLINE Wide<T> inverse(Wide<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 8) {
        Wide<T> r = (Wide<T>)_mm512_maskz_rcp14_pd(0xff, (__m512d)x);
        r += r * (1.0 - x * r);
        return r + r * (1.0 - x * r);
    } else {
        const Wide<T> r = (Wide<T>)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
        return r + r * (1.0f - x * r);
    }
#else
    return T(1) / x;
#endif
}

#if defined(__AVX512F__)
AFA_INLINE Wide<double> look_up(const double* table, WideBits<double> i) {
    return (Wide<double>)_mm512_permutex2var_pd(_mm512_load_pd(table), (__m512i)i, _mm512_load_pd(table + 8));
}
AFA_INLINE Wide<float> look_up(const float* table, WideBits<float> i) {
    return (Wide<float>)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)i, _mm512_load_ps(table));
}
#endif

// Binary logarithm of positive normal numbers.
template <class T> AFA_INLINE Wide<T> log2(Wide<T> r) {
    using K = Tables<T>;
    using Bits = typename K::Bits;
    constexpr Bits mask = (Bits(1) << K::MANTISSA) - 1;
    const Bits whole = bits_of<T>(Wide<T>{} + K::ROUNDING)[0];   // that number's bits, to which an integer may be added
#if defined(__AVX512F__)
    const WideBits<T> bits = bits_of<T>(r), entry = bits >> (K::MANTISSA - 4);
    const Wide<T> f = number_of<T>((bits & mask) | K::ONE) * look_up(K::INVERSES, entry) - T(1);
    const Wide<T> e = number_of<T>((bits >> K::MANTISSA) + whole) - (K::ROUNDING + T(K::ONE >> K::MANTISSA));
    return polynomial<T>(K::LOG_TABLE, f) * f + (e + look_up(K::LOGARITHMS, entry));
#else
    constexpr Bits bias = Bits(1) << (sizeof(T) * 8 - 2);   // keeps e positive
    const WideBits<T> bits = bits_of<T>(r) + (bias - K::ROOT_HALF);
    const Wide<T> m = number_of<T>((bits & mask) + K::ROOT_HALF), f = (m - T(1)) / (m + T(1));
    const Wide<T> e = number_of<T>((bits >> K::MANTISSA) + whole) - (K::ROUNDING + T(bias >> K::MANTISSA));
    return polynomial<T>(K::LOG_SERIES, f * f) * f + e;
#endif
}

// 2^y where that is a normal number.
template <class T> AFA_INLINE Wide<T> exp2(Wide<T> y) {
    using K = Tables<T>;
#if defined(__AVX512F__)
    const T rounding = K::ROUNDING / 16;
    const Wide<T> k = y + rounding;
    const WideBits<T> bits = bits_of<T>(k);
    const Wide<T> root = number_of<T>(bits_of<T>(look_up(K::ROOTS, bits)) + (bits << (K::MANTISSA - 4)));
    return root * polynomial<T>(K::EXP_TABLE, y - (k - rounding));
#else
    const Wide<T> n = y + K::ROUNDING;
    const Wide<T> value = polynomial<T>(K::EXP_SERIES, y - (n - K::ROUNDING));
    return number_of<T>(bits_of<T>(value) + (bits_of<T>(n) << K::MANTISSA));
#endif
}

constexpr double LOG2_E = 0x1.71547652b82fep+0, LOG2_E_REST = 0x1.777d0ffda0d24p-56, LN_2 = 0x1.62e42fefa39efp-1;

// e^x: 0 below -708 (where it would be subnormal), infinite above 709.
AFA_INLINE Wide<double> exp(Wide<double> x) {
    const Wide<double> low = spread<Wide<double>>(-708.0), high = spread<Wide<double>>(709.0);
    const Wide<double> bounded = x > low ? (x < high ? x : high) : low;
    const Wide<double> y = bounded * LOG2_E, n = y + Tables<double>::ROUNDING, whole = n - Tables<double>::ROUNDING;
    // y - n with the digits that the product lost: x = n ln 2 + rest, in two pieces of ln 2
    constexpr double high_part = 0x1.62e42feep-1, low_part = 0x1.a39ef35793c76p-33;
    const Wide<double> rest = ((bounded - whole * high_part) - whole * low_part) * LOG2_E;
    const Wide<double> value = number_of<double>(bits_of<double>(polynomial<double>(Tables<double>::EXP_SERIES, rest)) +
                                                 (bits_of<double>(n) << Tables<double>::MANTISSA));
    return x < low ? Wide<double>{} : x > high ? spread<Wide<double>>(HUGE_VAL) : value;
}

// Natural logarithm of positive numbers, also of those that are not normal.
AFA_INLINE Wide<double> log(Wide<double> x) {
    if (__builtin_expect(all_between(x, 0x1p-1022, HUGE_VAL), 1)) return log2<double>(x) * LN_2;
    for (int l = 0; l < LANES<double>; l++) x[l] = std::log(x[l]);
    return x;
}

// 1 - e^{-x}, also where x is small.
AFA_INLINE Wide<double> one_minus_exp(Wide<double> x) {
    // x - x^2/2 + ...: fourteen terms reach the last digit for |x| < 0.35
    Wide<double> series = spread<Wide<double>>(1.0);
    AFA_UNROLL
    for (int k = 13; k >= 2; k--) series = 1.0 - x * series * (1.0 / k);
    const Wide<double> far = 1.0 - exp(-x);
    return magnitude(x) < spread<Wide<double>>(0.35) ? x * series : far;
}

// Cosine and sine: x less multiples of pi/2 in three pieces, then series. Angles beyond 2^20 lose the digits
// that they have lost anyway.
AFA_INLINE void cos_sin(Wide<double> x, Wide<double>& cosine, Wide<double>& sine) {
    constexpr double over = 0x1.45f306dc9c883p-1;
    constexpr double first = 0x1.921fb544p+0, second = 0x1.0b4611a6p-34, third = 0x1.3198a2e037073p-69;
    const Wide<double> n = x * over + Tables<double>::ROUNDING, whole = n - Tables<double>::ROUNDING;
    const Wide<double> r = ((x - whole * first) - whole * second) - whole * third, r2 = r * r;
    const Wide<double> s = r * polynomial<double>(Tables<double>::SINE, r2);
    const Wide<double> c = polynomial<double>(Tables<double>::COSINE, r2);
    const WideBits<double> quarter = bits_of<double>(n), swap = -(quarter & 1);
    constexpr uint64_t sign = uint64_t(1) << 63;
    const WideBits<double> cb = bits_of<double>(c), sb = bits_of<double>(s);
    const WideBits<double> c_sign = ((quarter + 1) << 62) & sign, s_sign = (quarter << 62) & sign;
    cosine = number_of<double>(((cb & ~swap) | (sb & swap)) ^ c_sign);
    sine = number_of<double>(((sb & ~swap) | (cb & swap)) ^ s_sign);
}

}
}  // namespace afa
