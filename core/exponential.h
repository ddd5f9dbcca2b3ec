// The recurrence behind sums of exponentials: with weights sum_k c_k e^{-s_k tau} of an observation tau ago,
//
//     state_k(t + dt) = e^{-(s_k + rate) dt} state_k(t),     sum(t) = Re sum_k c_k state_k(t).
#pragma once
#include <algorithm>
#include <cmath>
#include <complex>
#include <type_traits>

#include "powers.h"

namespace afa {
inline namespace AFA_LEVEL {

// e^-300 of a state is dropped: its successors would be subnormal.
constexpr double FADED = 300.0;

// States (D, K) and factors (K,), real and imaginary parts apart, padded by zeros to whole registers.
template <class C> struct Lines {
    static constexpr bool COMPLEX = !std::is_same_v<C, double>;
    int64_t K, padded;
    Scratch<double, 0> re, im;
    Lines(int64_t rows, int64_t k)
        : K(k), padded((k + LANES<double> - 1) / LANES<double> * LANES<double>), re(rows * padded),
          im(COMPLEX ? rows * padded : 1) {}
    bool is_there() const { return re.entries != nullptr && im.entries != nullptr; }
    void set(int64_t row, int64_t k, C x) {
        if constexpr (COMPLEX) re[row * padded + k] = x.real(), im[row * padded + k] = x.imag();
        else re[row * padded + k] = x;
    }
    C get(int64_t row, int64_t k) const {
        if constexpr (COMPLEX) return {re[row * padded + k], im[row * padded + k]};
        else return re[row * padded + k];
    }
    // e^{-i Im(rates) dt}; nothing where rates are real
    void set_turns(const Lines& rates, double dt) {
        for (int64_t k = 0; COMPLEX && k < K; k++) re[k] = std::cos(rates.im[k] * dt), im[k] = -std::sin(rates.im[k] * dt);
    }
    // e^{-(rates + rate) dt}, both exponents together: either may be out of range by itself; 0 where they exceed `faded`
    void set_decays(const Lines& rates, const Lines& turns, double rate, double dt, double faded) {
        constexpr int N = LANES<double>;
        using V = Vec<double, N>;
        for (int64_t k = 0; k < padded; k += N) {
            const V x = (load<N>(&rates.re[k]) + rate) * dt, size = where_positive(V(faded - x), exp(V(-x)), V{});
            if constexpr (COMPLEX) {
                store<N>(&re[k], V(size * load<N>(&turns.re[k])));
                store<N>(&im[k], V(size * load<N>(&turns.im[k])));
            } else store<N>(&re[k], size);
        }
        for (int64_t k = K; k < padded; k++) set(0, k, 0.0);
    }
    // row 0 times that of others
    void multiply(const Lines& other) {
        for (int64_t k = 0; k < padded; k++) set(0, k, get(0, k) * other.get(0, k));
    }
    // row = factor row + entry
    void advance(int64_t row, const Lines& factor, double entry) {
        constexpr int N = LANES<double>;
        for (int64_t k = 0; k < padded; k += N) {
            double *a = &re[row * padded + k], *b = COMPLEX ? &im[row * padded + k] : nullptr;
            const auto x = load<N>(a), f = load<N>(&factor.re[k]);
            if constexpr (COMPLEX) {
                const auto y = load<N>(b), g = load<N>(&factor.im[k]);
                store<N>(a, f * x - g * y + entry);
                store<N>(b, f * y + g * x);
            } else store<N>(a, f * x + entry);
        }
    }
    // Re sum_k coefs_k row_k
    double answer(int64_t row, const Lines& coefs) const {
        constexpr int N = LANES<double>;
        Vec<double, N> total = {};
        for (int64_t k = 0; k < padded; k += N) {
            total += load<N>(&coefs.re[k]) * load<N>(&re[row * padded + k]);
            if constexpr (COMPLEX) total -= load<N>(&coefs.im[k]) * load<N>(&im[row * padded + k]);
        }
        double out = 0.0;
        for (int l = 0; l < N; l++) out += total[l];
        return out;
    }
};

// Advance the states num (D, K), den (K,) over t (T,), answering each query on the way: query q comes after
// observations 0, ..., visible_q - 1. clock: the time of the states; that of the last observation is returned (NaN
// where memory is out).
template <class C>
double sweep(View<const C, 1> rates, View<const C, 1> coefs, double num_rate, double den_rate, In<1> t, In<1> weight,
             In<2> signal, In<1> t_query, Index<1> visible, double clock, View<C, 2> num, View<C, 1> den, Out<2> num_out,
             Out<1> den_out) {
    const int64_t K = rates.shape[0], D = num.shape[0];
    Lines<C> states(D + 1, K), s(1, K), c(1, K), turns(1, K);   // the last state is the denominator's
    Lines<C> num_step(1, K), den_step(1, K), ahead(1, K);
    for (const Lines<C>* of : {&states, &s, &c, &turns, &num_step, &den_step, &ahead})
        if (!of->is_there()) return NAN;
    for (int64_t k = 0; k < K; k++) s.set(0, k, rates[k]), c.set(0, k, coefs[k]);
    for (int64_t i = 0; i <= D; i++)
        for (int64_t k = 0; k < K; k++) states.set(i, k, i < D ? num.row(i)[k] : den[k]);
    double known = -1.0;
    int64_t o = 0;
    for (int64_t q = 0; q < t_query.shape[0]; q++) {
        for (; o < visible[q]; o++) {
            const double dt = t[o] - clock;
            if (dt != known) {
                turns.set_turns(s, dt);
                num_step.set_decays(s, turns, num_rate, dt, FADED);
                den_step.set_decays(s, turns, den_rate, dt, FADED);
            }
            known = dt;
            for (int64_t i = 0; i < D; i++) states.advance(i, num_step, weight[o] * signal.row(o)[i]);
            states.advance(D, den_step, weight[o]);
            clock = t[o];
        }
        // before the first observation nothing has come in, and factors would grow without bound
        const double dt = std::max(t_query[q] - clock, 0.0);
        if (dt != 0.0) turns.set_turns(s, dt);
        for (const bool of_num : {true, false}) {   // Re sum_k c_k e^{-(s_k + rate) dt} state_k
            if (dt != 0.0) ahead.set_decays(s, turns, of_num ? num_rate : den_rate, dt, HUGE_VAL), ahead.multiply(c);
            const Lines<C>& now = dt == 0.0 ? c : ahead;
            if (!of_num) den_out[q] = states.answer(D, now);
            else
                for (int64_t i = 0; i < D; i++) num_out.row(q)[i] = states.answer(i, now);
        }
    }
    for (int64_t i = 0; i <= D; i++)
        for (int64_t k = 0; k < K; k++) (i < D ? num.row(i)[k] : den[k]) = states.get(i, k);
    return clock;
}

}
}  // namespace afa
