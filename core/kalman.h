// Steps of the Kalman filter in square-root form, and the chain of nodes that they go along.
//
// Covariances never appear inside: only roots, P = L L^T, so that no rounding makes them indefinite.
//
//     predict   [F L, V^1/2; I, 0] Theta = [L', 0; B, D]    (Theta orthogonal)
//               L' L'^T = F P F^T + V,  xi = B xi' + D eta
//     update    component by component after R = low noise low^T:  phi = L^T h, f = phi^T phi + noise,
//               L <- L Pi,  Pi = I - phi phi^T / (f (1 + sqrt(noise / f)))
//               e = K v has unit variance, m <- m + W e,  W = L U             (v = z - H m - off)
//
// A state is x = m + L xi, xi of unit covariance: what is learnt later is learnt about xi. From the next
// state's xi' = U e + Pi xi+ (xi+ after its update) follows xi = T xi+ + V e + D eta, T = B Pi and V = B U:
// products of contractions, and no covariance is ever inverted.
//
// Matrices are kept by columns here: F[j] is column j of F, and likewise V^1/2, L, W, K, T, V and D (not H).
//
// Sources: Potter (in Battin, Astronautical Guidance, 1964) for the update; Kaminski, Bryson & Schmidt, IEEE
// TAC 16 (1971) 727-736 for the array forms; Bierman, Factorization Methods for Discrete Sequential
// Estimation (1977), chapters V, VI and X for components one by one and for square-root smoothers.
//
// D, P: dimensions of state and observation (0: at run time). SMOOTH: whether the smoother wants T, V, D.
// Number: double, or a vector of as many series side by side as it has lanes.
#pragma once
#include <tuple>

#include "array.h"
#include "linalg.h"

namespace afa {
inline namespace AFA_LEVEL {

// Nodes in processing order and the matrices that they share. step (N) row of F, b, root = V^1/2 for the step
// into the node, F and root by columns; obs (N) observation shown by the node or -1; cfg (T) row of H, off, R.
struct Chain {
    Index<1> step;
    In<3> F;
    In<2> b;
    In<3> root;
    Index<1> obs, cfg;
    In<3> H;
    In<2> off;
    In<3> R;
    template <class Visit> void members(Visit&& visit) { visit(step, F, b, root, obs, cfg, H, off, R); }
};
constexpr const char* CHAIN = "step(N)<U F(U,d,d) b(U,d) root(U,d,d) obs(N)<T? cfg(T)<C H(C,p,d) off(C,p) R(C,p,p) ";

// What covariances leave for the means and for the smoother. slot (N) row of the rest for a node; equal
// consecutive nodes share one. By columns W, K, root = L updated; half = -(n log 2 pi + log|S|) / 2; for the
// step into the node, by columns, T, V, D.
struct Gains {
    View<int64_t, 1> slot;
    Out<3> W, K;
    Out<1> half;
    Out<3> root, T, V, D;
    template <class Visit> void members(Visit&& visit) { visit(slot, W, K, half, root, T, V, D); }
};
constexpr const char* GAINS = "slot(*) W(n,p,d) K(n,p,p) half(n) root(n,d,d) T(n,d,d) V(n,p,d) D(n,d,d) ";

// Data of paths that share their gaps (G = 0), or with gaps of their own for each (G = 1, a leading axis): z (n, T, p), what is seen of
// it (T, p), the scale (T) of the noise covariance, and whether what the smoother wants is left. What a filter fills: means (n, N, d),
// cov (N, d, d), innovations (n, T, p), NaN where nothing is seen, S (T, p, p), and loglik (n, T).
template <int G> struct Given {
    Flags<2 + G> seen;
    In<1 + G> scale;
    bool smooth;
    In<3> z;
    template <class Visit> void members(Visit&& visit) { visit(seen, scale, smooth, z); }
};
template <int G> struct Filled {
    Out<3> mean;
    Out<3 + G> cov;
    Out<3> innovation;
    Out<3 + G> S;
    Out<2> loglik;
    template <class Visit> void members(Visit&& visit) { visit(mean, cov, innovation, S, loglik); }
};
constexpr const char *GIVEN = "seen(T,p) scale(T) smooth z(paths,T,p) ",
                     *FILLED = "mean(paths,N,d) cov(N,d,d) innovation(paths,T,p) S(T,p,p) loglik(paths,T) ",
                     *GIVEN_EACH = "seen(all,T,p) scale(all,T) smooth z(all,T,p) ",
                     *FILLED_EACH = "mean(all,N,d) cov(all,N,d,d) innovation(all,T,p) S(all,T,p,p) loglik(all,T) ";

// A state at work. The first d columns of A hold L; with SMOOTH the rows below it hold B (after a prediction),
// which becomes T = B Pi; below the later d columns is D.
template <int D, bool SMOOTH, class Number = double> struct StateSpace {
    static constexpr int ROWS = SMOOTH ? 2 * D : D;
    Size<D> d;
    Columns<2 * D, ROWS, Number> A{2 * d, SMOOTH ? 2 * d : d};
    Columns<1, ROWS, Number> spare{1, SMOOTH ? 2 * d : d};
    Scratch<Number, 2 * D> v{2 * d};
    explicit StateSpace(int64_t d_) : d(d_) {}
};

// An observation at work. across: columns of H; Y: columns of H L, for rows of H whose noise is independent;
// scale R = low noise low^T, mix the inverse of low; link: covariance of e_a with later components; seen: 1 or 0.
template <int D, int P, class Number = double> struct ObservationSpace {
    Size<D> d;
    Size<P> p;
    Columns<D, P, Number> Y{d, p};
    Columns<D, P, double, Columns<D, P, Number>::W> across{d, p};
    Columns<P, P, Number> link{p, p}, cov{p, p};
    Scratch<Number, P * P> low{p * p}, mix{p * p};
    Scratch<Number, P> noise{p}, seen{p};
    Scratch<Number, D> phi{d}, gain{d}, row{d};
    ObservationSpace(int64_t d_, int64_t p_) : d(d_), p(p_) {}
};

// ---------------------------------------------------------------- predict

// L <- root of F P F^T + V = [F L, V^1/2] [F L, V^1/2]^T; F and root = V^1/2 (lower triangular) by columns (M: double, or
// side by side a number for each lane).
//
// With SMOOTH the later rows become [B, D]: the present state's noise in terms of the next one's and of what
// is independent of it (Kaminski, Bryson & Schmidt 1971, eq. 24; rows [I, 0] carried along).
template <int D, bool SMOOTH, class Number, class M>
AFA_INLINE void predict_root(const M* F, const M* root, StateSpace<D, SMOOTH, Number>& space, Size<D> d) {
    return apart_unless_known<D>([&] {
        const int blocks = space.A.blocks();
        using Cols = Columns<2 * D, StateSpace<D, SMOOTH, Number>::ROWS, Number>;
        using Pack = typename Cols::Pack;
        constexpr int W = Cols::W;
        Cols& A = space.A;
        auto& before = space.spare;
        each<D>(0, d, [&](int c) {
            each<D>(0, (d + W - 1) / W, [&](int b) { before(0, b) = A(c, b); });
            in_groups<Cols::BLOCKS>(0, blocks, [&](auto group, int b) {
                constexpr int G = decltype(group)::COUNT;
                Pack x[G] = {};
                if (b * W < d) add_columns<G, Cols>(x, F, b, d, 0, d, [&](int j) { return before.at(0, j); });   // F L
                AFA_UNROLL
                for (int g = 0; g < G; g++) {
                    A(d + c, b + g) = Cols::read(root + c * d, b + g, d) + Pack{};                                // V^1/2
                    if (SMOOTH && b + g == (d + c) / W) {                                                         // I
                        if constexpr (W == 1) x[g] += spread<Pack>(1.0);
                        else x[g] += with_lane(Pack{}, (d + c) % W, 1.0);
                    }
                    A(c, b + g) = x[g];
                }
            });
        });
        triangularise(A, space.v, d, Size<2 * D>(2 * d), d);
    });
}

// m <- F m + b, F by columns; b: nullptr for none; column: work space.
inline void predict_mean(const double* F, const double* b, double* m, double* column, int d) {
    for (int i = 0; i < d; i++) column[i] = b != nullptr ? b[i] : 0.0;
    for (int l = 0; l < d; l++)
        for (int i = 0; i < d; i++) column[i] += F[l * d + i] * m[l];
    for (int i = 0; i < d; i++) m[i] = column[i];
}

// ---------------------------------------------------------------- update

inline bool any_seen(const uint8_t* seen, int p) {
    for (int a = 0; a < p; a++)
        if (seen[a]) return true;
    return false;
}

// z - off - h m
inline double residual(double z, double off, const double* h, const double* m, int d) {
    double v = z - off;
    for (int i = 0; i < d; i++) v -= h[i] * m[i];
    return v;
}

// Take up an observation that shows H x, H (p, d) by rows.
template <int D, int P, class Number>
AFA_INLINE void set_observation(const double* H, ObservationSpace<D, P, Number>& observed, Size<D> d, Size<P> p) {
    for (int i = 0; i < d; i++)
        for (int a = 0; a < p; a++) observed.across.set(i, a, H[a * d + i]);
}

// cov = H P H^T + scale R and Y = H L, after `set_observation`.
template <int D, int P, class C, class Number>
AFA_INLINE void innovation_cov(const double* R, Number scale, const C& A, ObservationSpace<D, P, Number>& observed, Size<D> d,
                               Size<P> p) {
    using Shows = Columns<D, P, Number>;
    using Pack = typename Shows::Pack;
    constexpr int W = Shows::W;
    each<D>(0, d, [&](int j) {
        for (int b = 0; b * W < p; b++) {
            Pack y = {};
            each<D>(0, d, [&](int i) { y += A.at(j, i) * observed.across(i, b); });
            observed.Y(j, b) = y;
        }
    });
    each<D>(0, p, [&](int a) {
        for (int b = 0; b * W < p; b++) {
            Pack s = scale * Shows::read(R + a * p, b, p);
            each<D>(0, d, [&](int j) { s += observed.Y.at(j, a) * observed.Y(j, b); });
            observed.cov(a, b) = s;
        }
    });
}
// The same for one series, S (p, p).
template <int D, int P, class C>
AFA_INLINE void innovation_cov(const double* R, double scale, const C& A, double* S, ObservationSpace<D, P>& observed, Size<D> d,
                               Size<P> p) {
    innovation_cov(R, scale, A, observed, d, p);
    write_columns(observed.cov, 0, 0, S, p, p);
}

// most: the largest variance of a seen component, S (p, p), over that of its noise, so far.
inline void keep_largest_ratio(const double* S, const double* R, double scale, const uint8_t* seen, int p, double& most) {
    for (int a = 0; a < p; a++) {
        const double noise = scale * R[a * p + a];
        if (seen[a] && noise > 0.0 && S[a * p + a] > most * noise) most = S[a * p + a] / noise;
    }
}

// scale R = low noise low^T (low of unit diagonal; Bierman 1977, section III.4) among the components that are seen
// (observed.seen); whether any may be correlated. A pivot that is only rounding is 0.
template <int D, int P, class Number>
AFA_INLINE bool split_noise(const double* R, Number scale, ObservationSpace<D, P, Number>& observed, Size<P> p) {
    auto [low, mix, noise] = std::tie(observed.low, observed.mix, observed.noise);
    const Number zero = spread<Number>(0.0);
    bool correlated = false;
    for (int a = 0; a < p; a++)
        for (int c = 0; c < a; c++) correlated = correlated || R[a * p + c] != 0.0;
    for (int a = 0; a < p; a++) {
        const Number whole = scale * R[a * p + a];
        Number pivot = whole;
        for (int c = 0; c < p; c++) mix[a * p + c] = spread<Number>(c == a ? 1.0 : 0.0);
        for (int c = 0; c < a && correlated; c++) {
            Number s = scale * R[a * p + c];
            for (int e = 0; e < c; e++) s -= low[a * p + e] * low[c * p + e] * noise[e];
            const Number share = where_positive(Number(noise[c] * observed.seen[a]), Number(s / noise[c]), zero);
            low[a * p + c] = share;
            pivot -= share * share * noise[c];
            for (int e = 0; e <= c; e++) mix[a * p + e] -= share * mix[c * p + e];
        }
        noise[a] = where_positive(Number((pivot - 4 * p * EPS * whole) * observed.seen[a]), pivot, zero);
    }
    return correlated;
}
// The same for one series.
template <int D, int P>
AFA_INLINE bool split_noise(const double* R, double scale, const uint8_t* seen, ObservationSpace<D, P>& observed, Size<P> p) {
    for (int a = 0; a < p; a++) observed.seen[a] = seen[a] ? 1.0 : 0.0;
    return split_noise(R, scale, observed, p);
}
// Y <- rows of H after low^-1, so that their noise is independent.
template <int D, int P, class Number>
AFA_INLINE void make_independent(ObservationSpace<D, P, Number>& observed, Size<D> d, Size<P> p) {
    for (int a = 1; a < p; a++)
        for (int c = 0; c < a; c++)
            for (int j = 0; j < d; j++)
                observed.Y.set(j, a, observed.Y.at(j, a) - observed.low[a * p + c] * observed.Y.at(j, c));
}

// phi = column a of Y^T, and f = phi^T phi + noise, the variance of component a given those before it.
template <int D, int P, class Number>
AFA_INLINE Number innovation_variance(ObservationSpace<D, P, Number>& observed, int a, Size<D> d) {
    Number f = observed.noise[a];
    each<D>(0, d, [&](int j) {
        observed.phi[j] = observed.Y.at(j, a);
        f += observed.phi[j] * observed.phi[j];
    });
    return f;
}

// Condition the first d columns of A, block b of theirs, on one component: with g = L phi, returns g / sqrt(f)
// and leaves L <- L - shrink g phi^T, shrink = 1 / (f + sqrt(f noise)) (Potter).
template <class C, class Phi, class Number, class N>
AFA_INLINE typename C::Pack condition(C& A, int b, const Phi& phi, Number scaled, Number shrink, N d) {
    typename C::Pack moved = {};
    each<C::BLOCKS>(0, d, [&](int j) { moved += phi[j] * A(j, b); });
    const typename C::Pack less = shrink * moved;
    each<C::BLOCKS>(0, d, [&](int j) { A(j, b) -= phi[j] * less; });
    return scaled * moved;
}

// Noise below this share of f leaves an update fewer than twelve digits: see `restore`.
constexpr double PRECISE = 1e-8;

// After component a has conditioned the first d columns of A, where its noise is less than PRECISE f: L' is what is left of a
// much larger L, of which it bears the rounding. What that does to h L' = s phi^T, s = sqrt(noise / f), is taken out along the
// gain k = L phi / f (observed.gain), so that L' is as exact as if L alone had been rounded; and what later components see is made anew:
//
//     L' <- L' - k (h L' - s phi^T),   Y = H L'
//
// precise: 1 where this is wanted, else 0.
template <class Number>
__attribute__((noinline, noclone)) void restore_row(Entries<Number> A, Entries<Number> Y, Entries<double> across, const Number* phi, const Number* gain,
                                           const Number* mix, Number* h, int a, Number s, Number precise, int d, int p) {
    const auto take_row = [&](int b) {                                       // row b of low^-1 H
        for (int i = 0; i < d; i++) {
            h[i] = Number{};
            for (int c = 0; c <= b; c++) h[i] += mix[b * p + c] * across.at(i, c);
        }
    };
    take_row(a);
    for (int j = 0; j < d; j++) {
        Number off = -s * phi[j];
        for (int i = 0; i < d; i++) off += h[i] * A.at(j, i);
        off *= precise;
        for (int i = 0; i < d; i++) A(j, i) -= gain[i] * off;
    }
    for (int b = a + 1; b < p; b++) {
        take_row(b);
        for (int j = 0; j < d; j++) {
            Number y = Number{};
            for (int i = 0; i < d; i++) y += h[i] * A.at(j, i);
            Y(j, b) = where_positive(precise, y, Y.at(j, b));
        }
    }
}
template <int D, int P, class C, class Number>
AFA_INLINE void restore(C& A, ObservationSpace<D, P, Number>& observed, int a, Number s, Number precise, int d, int p) {
    restore_row(Entries<Number>(A), Entries<Number>(observed.Y), Entries<double>(observed.across), &observed.phi[0], &observed.gain[0],
                &observed.mix[0], &observed.row[0], a, s, precise, d, p);
}

// A variance below this share of the whole counts as none: the innovation is known exactly.
constexpr double KNOWN_EXACTLY = 1e-28;

// Condition L on the seen components, after `innovation_cov` and `split_noise` (correlated: what it said).
//
// Fills W (p, d), K (p, p) and, with SMOOTH, V = B U (p, d), all by columns, zeros where nothing is seen.
// Returns -(n log 2 pi + log|S|) / 2, or NaN where an innovation is known exactly.
template <bool SMOOTH, int D, int P, class C>
AFA_INLINE double update_root(const uint8_t* seen, const double* S, C& A, double* W_, double* K, double* V,
                              ObservationSpace<D, P>& observed, bool correlated, Size<D> d, Size<P> p) {
    return apart_unless_known<D>([&]() -> double {
        const int blocks = A.blocks();
        using Shows = Columns<D, P>;
        constexpr int W = C::W, WP = Shows::W;
        auto& Y = observed.Y;
        auto& phi = observed.phi;
        double half = 0.0;
        if (correlated) make_independent(observed, d, p);
        for (int a = 0; a < p; a++) {
            for (int c = 0; c < p; c++) K[c * p + a] = 0.0;
            if (!seen[a]) {
                for (int i = 0; i < d; i++) {
                    W_[a * d + i] = 0.0;
                    if (SMOOTH) V[a * d + i] = 0.0;
                }
                continue;
            }
            const double f = innovation_variance(observed, a, d);
            if (!(f > KNOWN_EXACTLY * S[a * p + a])) return NAN;
            const double width = std::sqrt(f), scaled = 1.0 / width;
            const double shrink = 1.0 / (f + width * std::sqrt(observed.noise[a]));
            for (int c = 0; c <= a; c++) K[c * p + a] = observed.mix[a * p + c];   // e_a = (v_a - E[v_a | e_c, c < a]) / width
            for (int c = 0; c < a; c++)
                if (seen[c])
                    for (int j = 0; j <= c; j++) K[j * p + a] -= observed.link.at(c, a) * K[j * p + c];
            for (int c = 0; c <= a; c++) K[c * p + a] *= scaled;
            each<D>(0, blocks, [&](int b) {
                const typename C::Pack gain = condition(A, b, phi, scaled, shrink, d);
                each<W>(0, W, [&](int l) {
                    const int i = b * W + l;
                    if (i < d) W_[a * d + i] = lane(gain, l);
                    else if (SMOOTH && i < 2 * d) V[a * d + i - d] = lane(gain, l);
                });
            });
            for (int b = a / WP; b * WP < p; b++) observed.link(a, b) = condition(Y, b, phi, scaled, shrink, d);
            if (__builtin_expect(observed.noise[a] < PRECISE * f, 0)) {
                for (int i = 0; i < d; i++) observed.gain[i] = W_[a * d + i] * scaled;
                restore(A, observed, a, std::sqrt(observed.noise[a] / f), 1.0, d, p);
            }
            half -= 0.5 * (LOG_2PI + std::log(f));
        }
        return half;
    });
}

// The same of an observation that shows H x with noise scale R, S its covariance.
template <bool SMOOTH, int D, int P>
AFA_INLINE double observe_root(const double* H, const double* R, double scale, const uint8_t* seen, StateSpace<D, SMOOTH>& space, double* S,
                               double* W, double* K, ObservationSpace<D, P>& observed) {
    set_observation(H, observed, observed.d, observed.p);
    innovation_cov(R, scale, space.A, S, observed, observed.d, observed.p);
    const bool correlated = split_noise(R, scale, seen, observed, observed.p);
    return update_root<SMOOTH>(seen, S, space.A, W, K, nullptr, observed, correlated, observed.d, observed.p);
}

}
}  // namespace afa
