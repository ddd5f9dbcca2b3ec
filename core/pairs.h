// What single observations say about the state elsewhere: the whitened equations of all pairs.
//
// In coordinates xi in which the flow is block diagonal and contracts (time is reversed where it must be), an
// observation y = C xi_j + N(0, I), seen from the query i at the lag tau = |t_i - s_j|, is the equation
//
//     T y = G xi_i + N(0, I)                                                    (r rows, r the rank of C)
//
// (P. Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, section 4, for any C). Queries lie side by
// side in the lanes. A recursion goes from them to observations ever farther away, so that the transitions of all
// lanes compose from steps that they share, and no matrix exponential is formed (differential Lyapunov equation):
//
//     against the flow, x_i = Phi x_j + w:   Phi(tau + s) = Phi(tau) Phi(s),  V(tau + s) = V(tau) + Phi(tau) V(s) Phi(tau)^T
//     along it,         x_j = Phi x_i + w:   Phi(tau + s) = Phi(s) Phi(tau),  V(tau + s) = Phi(s) V(tau) Phi(s)^T + V(s)
//
// V is carried by its root, so that it stays definite to the last digit. Phi = e^{c tau} E, c the mean growth of
// each block: E neither grows nor decays, and the growth is taken exactly from the lag.
#pragma once
#include <tuple>

#include "array.h"
#include "linalg.h"
#include "powers.h"

namespace afa {
inline namespace AFA_LEVEL {

using Pack = Vec<double, LANES<double>>;
constexpr int W = LANES<double>;
constexpr int BUNDLE = 8;   // queries that lie side by side in memory: a whole number of packs on every machine
constexpr double FLOOR = 300.0;   // factors e^x go from e^-300 to e^300: past that a state is known to 1e-130, or not at all
inline const double LEAST = std::exp(-FLOOR);

// Observations in order of time. Entry k of phi, root: Phi and the lower root of V over the step from stamp
// k - 1 to k; of turn, back: E over it and its inverse. unit_rate: the decay that the units of a coordinate follow, or 0.
struct Flow {
    In<1> stamps, rate, unit_rate;
    In<3> phi, turn, back, root;
    template <class Visit> void members(Visit&& visit) { visit(stamps, rate, unit_rate, phi, turn, back, root); }
};
// Observations y = C xi + N(0, I): C (rows beyond the rank are zero), and C^-1 where the rank is d. echelon: rotation^T C,
// whose later rows do not see what grows fastest, one for every order of growth; the order at a lag is how many
// of `change` are below lag / longest_lag.
struct Channels {
    Index<1> rank;
    In<3> C, inverse;
    In<4> echelon, rotation;
    In<1> change;
    template <class Visit> void members(Visit&& visit) { visit(rank, C, inverse, echelon, rotation, change); }
};
// Queries, and E, its inverse and the root of V over the lag to their nearest observation in the past
// (split - 1) and in the future (split). Query i uses the observations first <= j < last; longest_lag: its longest lag.
struct Queries {
    In<1> times, longest_lag;
    Index<1> first, split, last;
    In<3> turn_past, back_past, root_past, turn_next, back_next, root_next;
    template <class Visit> void members(Visit&& visit) {
        visit(times, longest_lag, first, split, last, turn_past, back_past, root_past, turn_next, back_next, root_next);
    }
};

AFA_INLINE Pack clip(Pack x, double low, double high) {
    x = larger(x, spread<Pack>(low));
    return x < high ? x : spread<Pack>(high);
}

// Exchanges, lane by lane, row a of a triangle (its diagonal entry >= 0) with the largest of `columns` rows that wait, where
// that is larger: reflections keep the digits of small rows if the pivot is the largest of its column (Cox & Higham,
// "Stability of Householder QR factorization for weighted least squares problems", 1998). take(c, gap, sign): the
// entries of row c, times sign, and of the triangle change places where gap > 0.
template <class Number, class Rows, class Take>
__attribute__((noinline)) void pivot_rows(const Number* row, Rows columns, Number pivot, Take&& take) {
    Number most = pivot;
    for (int c = 0; c < columns; c++) most = larger(most, magnitude(row[c]));
    for (int c = 0; c < columns; c++) {
        const Number x = row[c], size = magnitude(x), gap = size < most ? spread<Number>(-1.0) : Number(size - pivot);
        take(c, gap, where_positive(x, spread<Number>(1.0), spread<Number>(-1.0)));
    }
}
template <class Number, class Place> AFA_INLINE void exchange(Place& kept, Number& pending, Number gap, Number sign) {
    const Number before = kept, x = pending;
    kept = where_positive(gap, Number(sign * x), before);
    pending = where_positive(gap, before, x);
}
// (pivot, X) in units of the largest of them, where squares would lose digits, or all of them; sigma = |X|^2. The unit.
template <class Number> __attribute__((noinline)) Number rescale_pivot(Number* X, int columns, Number& pivot, Number& sigma) {
    Number unit = magnitude(pivot);
    for (int c = 0; c < columns; c++) unit = larger(unit, magnitude(X[c]));
    unit = where_positive(unit, unit, spread<Number>(1.0));
    pivot /= unit;
    sigma = Number{};
    for (int c = 0; c < columns; c++) X[c] /= unit, sigma += X[c] * X[c];
    return unit;
}
// Another row (entry, X) after the reflection by (u, own), beta = 2 / u^T u; nothing where sigma is 0.
template <int COLUMNS, class Place, class Number>
AFA_INLINE void reflect(Place& place, Number* X, const Number* own, Number u, Number beta, Number sigma, int columns) {
    const Number entry = place;
    const Number dot = beta * (u * entry + sum_of<COLUMNS, Number>(0, columns, [&](int c) AFA_HERE { return own[c] * X[c]; }));
    place = where_positive(sigma, Number(u * dot - entry), entry);
    each<COLUMNS>(0, columns, [&](int c) AFA_HERE { X[c] -= dot * own[c]; });
}

// [L | X] <- [L | X] Theta with Theta orthogonal, so that the first `pivots` rows of X become zero: L (rows, pivots),
// lower triangular with a diagonal >= 0, stays so. Householder reflections of columns (Golub & Van Loan, section
// 5.1): u = (L_aa + |row|, X_a), beta = 2 / u^T u, every row b <- b - beta (b u) u. X (rows, columns) is work space.
// Graded: columns of any size, each of which keeps its digits. PIVOTS, COLUMNS: most of them, where that is known when compiled.
template <int PIVOTS, int COLUMNS, bool Graded = false, class Number>
AFA_INLINE void append(Number* L, int stride, Number* X, int step, int pivots, int rows, int columns) {
    each<PIVOTS>(0, pivots, [&](int a) AFA_HERE {
        Number *own = X + a * step, head = L[a * stride + a], unit = spread<Number>(1.0);
        Number sigma = sum_of<COLUMNS, Number>(0, columns, [&](int c) AFA_HERE { return own[c] * own[c]; });
        if (Graded && !all_between(Number(head * head - sigma), 0.0, HUGE_VAL)) {
            pivot_rows(own, columns, head, [&](int c, Number gap, Number sign) {
                if (!any_positive(gap)) return;
                for (int b = a; b < rows; b++) exchange(L[b * stride + a], X[b * step + c], gap, sign);
            });
            head = L[a * stride + a], sigma = sum_of<0, Number>(0, columns, [&](int c) AFA_HERE { return own[c] * own[c]; });
        }
        if (__builtin_expect(!all_between(Number(head * head + sigma), LEAST_SQUARE, LARGEST_SQUARE), 0))
            unit = rescale_pivot(own, columns, head, sigma);
        const Number norm = root(Number(head * head + sigma)), u = head + norm;
        const Number beta = where_positive(sigma, Number(1.0 / (norm * u)), Number{});
        L[a * stride + a] = norm * unit;
        each<PIVOTS>(a + 1, rows, [&](int b) AFA_HERE { reflect<COLUMNS>(L[b * stride + a], X + b * step, own, u, beta, sigma, columns); });
    });
}
// Inverse of a lower triangular matrix (n, n), row by row: exact zeros, small errors.
template <int N> AFA_INLINE void invert_lower(const Pack* L, Pack* out, int n) {
    each<N>(0, n, [&](int i) AFA_HERE {
        const Pack pivot = 1.0 / L[i * n + i];
        each<N>(0, n, [&](int k) AFA_HERE {
            const Pack x = sum_of<N, Pack>(k, i, [&](int m) AFA_HERE { return -L[i * n + m] * out[m * n + k]; });
            out[i * n + k] = k < i ? x * pivot : k == i ? pivot : Pack{};
        });
    });
}

// One pack of queries on its way through the observations. D: dimension of the state (0: at run time).
template <int D> struct PairRecursion {
    const Flow& flow;
    const Channels& channels;
    const Queries& queries;
    Size<D> d_{flow.rate.shape[0]};
    int r = static_cast<int>(channels.C.shape[1]);             // most rows of an observation
    bool whole = channels.inverse.shape[0] > 0;                // are there ranks = d,
    bool partial = false, level = true;                        // < d; do all coordinates grow alike
    bool faint = false;                                        // may anything be left of an observation by less than e^-300
    int64_t query[W];                                          // of each lane
    Pack time, longest_lag, from, to;                          // from <= j < to: observations of this side
    Scratch<Pack, D * D> turn{d_ * d_}, back{d_ * d_}, noise{d_ * d_};   // E, E^-1, root of V
    Scratch<Pack, D> growth{d_}, factor{d_};                   // c tau + exponent, and e^ of it
    Scratch<Pack, D * D> G{d_ * d_}, T{d_ * d_};               // the equation: (r, d), (r, r)
    Scratch<Pack, D * D> H{d_ * d_}, U{d_ * d_}, M{d_ * d_}, L{d_ * d_}, X{d_ * d_}, out{d_ * d_}, kept_G{d_ * d_}, kept_T{d_ * d_};   // work space
    Scratch<Pack, D> size{d_};

    PairRecursion(const Flow& f, const Channels& s, const Queries& q) : flow(f), channels(s), queries(q) {
        for (int64_t j = 0; j < s.rank.shape[0]; j++) partial = partial || s.rank[j] < d_;
        for (int k = 1; k < d_; k++) level = level && f.rate[k] == f.rate[0] && f.unit_rate[k] == f.unit_rate[0];
    }

    AFA_INLINE int dim() const { return d_; }

    // Takes the queries first, ..., first + W - 1; those beyond the last see nothing.
    void take(int64_t start) {
        const int64_t n = queries.times.shape[0];
        double t[W], far[W];
        for (int l = 0; l < W; l++) {
            query[l] = start + l < n ? start + l : -1;
            t[l] = query[l] < 0 ? 0.0 : queries.times[query[l]];
            far[l] = query[l] < 0 ? 0.0 : queries.longest_lag[query[l]];
        }
        time = load<W>(t);
        longest_lag = load<W>(far);
        const int64_t last = flow.stamps.shape[0] - 1;
        faint = false;
        for (int l = 0; l < W; l++)
            for (int k = 0; k < dim(); k++)
                for (const double end : {flow.stamps[0], flow.stamps[last]})
                    faint = faint || (query[l] >= 0 && flow.rate[k] * std::fabs(t[l] - end) < -FLOOR);
    }

    // Past and future, each from the query outwards; reversed: time is, so that the past lies along the flow.
    template <class F> void sides(bool reversed, F&& equation) {
        if (reversed) {
            side<false>(true, equation);
            side<true>(false, equation);
        } else {
            side<true>(true, equation);
            side<false>(false, equation);
        }
    }
    // Observations of one side, nearest first: equation(j) sees G and T, zero in lanes that do not use j.
    template <bool AGAINST, class F> void side(bool past, F&& equation) {
        const int d = dim();
        int64_t low = INT64_MAX, high = 0, begins[W];
        double first[W], stop[W];
        for (int l = 0; l < W; l++) {
            const int64_t q = query[l];
            const int64_t a = q < 0 ? 0 : past ? queries.first[q] : queries.split[q];
            const int64_t b = q < 0 ? 0 : past ? queries.split[q] : queries.last[q];
            first[l] = static_cast<double>(a);
            stop[l] = static_cast<double>(b);
            begins[l] = a < b ? (past ? b - 1 : a) : -1;
            if (a < b) low = a < low ? a : low, high = b > high ? b : high;
        }
        if (low >= high) return;
        from = load<W>(first);
        to = load<W>(stop);
        for (int i = 0; i < d * d; i++) turn[i] = back[i] = noise[i] = Pack{};
        for (int64_t k = 0; k < high - low; k++) {
            const int64_t j = past ? high - 1 - k : low + k;
            for (int l = 0; l < W; l++)
                if (begins[l] == j) begin(past, l);
            const Pack apart = time - flow.stamps[j];
            form_equation<AGAINST>(j, magnitude(apart));
            equation(j);
            if (k + 1 < high - low) advance<AGAINST>(past ? j : j + 1);
        }
    }

    void begin(bool past, int l) {
        const int d = dim();
        const int64_t at = query[l] * d * d;
        const double *E = (past ? queries.turn_past : queries.turn_next).data + at;
        const double *B = (past ? queries.back_past : queries.back_next).data + at;
        const double *N = (past ? queries.root_past : queries.root_next).data + at;
        for (int i = 0; i < d * d; i++) {
            turn[i] = with_lane(turn[i], l, E[i]);
            back[i] = with_lane(back[i], l, B[i]);
            noise[i] = with_lane(noise[i], l, N[i]);
        }
    }

    // Farther away by the step that leads to stamp k.
    template <bool AGAINST> void advance(int64_t k) {
        const int d = dim();
        const double *E = flow.turn.row(k), *B = flow.back.row(k), *V = flow.root.row(k), *F = flow.phi.row(k);
        bool noisy = false;
        for (int i = 0; i < d * d; i++) noisy = noisy || V[i] != 0.0;
        if constexpr (AGAINST) {
            if (noisy) {   // X = Phi(tau) root V(s)
                fill<D, D>(&X[0], d, d, [&](int i, int c) AFA_HERE {
                    return factor[i] * sum_of<D, Pack>(c, d, [&](int e) AFA_HERE { return turn[i * d + e] * V[e * d + c]; });
                });
                append<D, D>(&noise[0], d, &X[0], d, d, d, d);
            }
        } else {
            fill<D, D>(&X[0], d, d, [&](int i, int c) AFA_HERE {   // X = Phi(s) root V(tau)
                return sum_of<D, Pack>(c, d, [&](int e) AFA_HERE { return F[i * d + e] * noise[e * d + c]; });
            });
            each<D * D>(0, d * d, [&](int i) AFA_HERE { noise[i] = spread<Pack>(V[i]); });
            append<D, D>(&noise[0], d, &X[0], d, d, d, d);
        }
        compose(&turn[0], E);
        if (AGAINST && partial) compose(&back[0], B);
    }
    // A <- A B for a B that all lanes share.
    void compose(Pack* A, const double* B) {
        const int d = dim();
        fill<D, D>(&out[0], d, d, [&](int i, int c) AFA_HERE {
            return sum_of<D, Pack>(0, d, [&](int e) AFA_HERE { return A[i * d + e] * B[e * d + c]; });
        });
        each<D * D>(0, d * d, [&](int i) AFA_HERE { A[i] = out[i]; });
    }

    // G and T of observation j at these lags.
    template <bool AGAINST> __attribute__((noinline)) void form_equation(int64_t j, Pack lag) {
        const int d = dim();
        const int rank = static_cast<int>(channels.rank[j]);
        grow(lag, AGAINST ? 1.0 : -1.0, AGAINST ? -FLOOR : -2 * FLOOR);
        if constexpr (AGAINST) {
            if (whole && rank == d) against_full_rank(channels.inverse.row(j));
            else against_rank_deficient(j, rank, lag);
        } else with_flow(channels.C.row(j), rank);
        const Pack row = spread<Pack>(static_cast<double>(j));
        const auto used = (row >= from) & (row < to);
        for (int a = 0; a < r; a++) {
            each<D>(0, d, [&](int k) AFA_HERE { G[a * d + k] = used && a < rank ? G[a * d + k] : Pack{}; });
            for (int b = 0; b < r; b++) T[a * r + b] = used && a < rank && b < rank ? T[a * r + b] : Pack{};
        }
    }
    // growth = c lag + sign exponent; factor = e^growth, from e^low on (below -300: 0).
    void grow(Pack lag, double sign, double low) {
        const int d = dim();
        for (int k = 0; k < d; k++) {
            const double c = flow.rate[k], q = flow.unit_rate[k];
            if (k > 0 && c == flow.rate[k - 1] && q == flow.unit_rate[k - 1]) {
                growth[k] = growth[k - 1];
                factor[k] = factor[k - 1];
                continue;
            }
            growth[k] = c * lag + (sign * q) * longest_lag;
            if (c == 0.0 && q == 0.0) {
                factor[k] = spread<Pack>(1.0);
                continue;
            }
            const Pack bounded = clip(growth[k], low, FLOOR);
            factor[k] = bounded < -FLOOR ? Pack{} : exp(bounded);
        }
    }

    // U^T x_i = M y + noise: white (V + M M^T) white^T = I, here with U = I and M = e^exponent Phi C^-1.
    void against_full_rank(const double* inverse) {
        const int d = dim();
        fill<D, D>(&M[0], d, d, [&](int i, int c) AFA_HERE {
            return factor[i] * sum_of<D, Pack>(0, d, [&](int e) AFA_HERE { return turn[i * d + e] * inverse[e * d + c]; });
        });
        each<D * D>(0, d * d, [&](int i) AFA_HERE { X[i] = M[i], L[i] = noise[i]; });
        append<D, D>(&L[0], d, &X[0], d, d, d, d);
        for (int i = 0; faint && i < d; i++) {
            const Pack left = growth[i] < -2 * FLOOR ? Pack{} : exp(clip(growth[i] + FLOOR, -FLOOR, 0.0));
            each<D>(0, d, [&](int c) AFA_HERE { M[i * d + c] *= left; });
        }
        invert_lower<D>(&L[0], &G[0], d);
        fill<D, D>(&T[0], d, d, [&](int i, int c) AFA_HERE {   // r = d
            return sum_of<D, Pack>(0, i + 1, [&](int e) AFA_HERE { return G[i * d + e] * M[e * d + c]; });
        });
    }

    // With U an orthonormal basis of the rows of H = C Phi^-1 e^-exponent and M = (H U)^-1: the directions of H are
    // used, never its size. Each order of growth has an echelon form of its own.
    void against_rank_deficient(int64_t j, int rank, Pack lag) {
        const int d = dim();
        const int64_t n = channels.rank.shape[0], orders = channels.echelon.shape[0];
        const bool rotated = channels.rotation.shape[0] > 0;
        for (int64_t o = 0; o < orders; o++) {
            const int64_t at = o * n + j;
            by_directions(channels.echelon.data + at * r * d, rotated ? channels.rotation.data + at * r * r : nullptr, rank);
            if (orders == 1) return;
            Pack passed = {};   // how many changes of order lie between query and observation
            for (int64_t c = 0; c + 1 < orders; c++)
                passed += lag > channels.change[c] * longest_lag ? spread<Pack>(1.0) : Pack{};
            const auto here = passed == spread<Pack>(static_cast<double>(o));
            for (int i = 0; i < d * d; i++) kept_G[i] = here ? G[i] : kept_G[i];
            for (int i = 0; i < r * r; i++) kept_T[i] = here ? T[i] : kept_T[i];
        }
        for (int i = 0; i < d * d; i++) G[i] = kept_G[i];
        for (int i = 0; i < r * r; i++) T[i] = kept_T[i];
    }
    void by_directions(const double* C, const double* rotation, int rank) {
        const int d = dim();
        for (int a = 0; a < rank; a++) {
            // Row a of C E^-1, each coordinate by its growth relative to the fastest that the row sees.
            Pack top = -growth[0];
            if (!level) {
                top = spread<Pack>(-INFINITY);
                for (int k = 0; k < d; k++)
                    if (C[a * d + k] != 0.0) top = larger(top, -growth[k]);
            }
            each<D>(0, d, [&](int k) AFA_HERE {
                const Pack x = sum_of<D, Pack>(0, d, [&](int e) AFA_HERE { return C[a * d + e] * back[e * d + k]; });
                const Pack apart = -growth[k] - top;   // what is e^-600 beside the fastest is not shown
                U[a * d + k] = level ? x : apart < -2 * FLOOR ? Pack{} : Pack(x * exp(clip(apart, -2 * FLOOR, 0.0)));
            });
            size[a] = -top < -2 * FLOOR ? Pack{} : exp(clip(-top, -2 * FLOOR, FLOOR));
            // Gram-Schmidt, twice (Golub & Van Loan, section 5.2.7): C E^-1 = H U^T, H lower triangular.
            for (int b = 0; b < rank; b++) H[a * rank + b] = Pack{};
            for (int pass = 0; pass < 2; pass++)
                for (int b = 0; b < a; b++) {
                    const Pack dot = sum_of<D, Pack>(0, d, [&](int k) AFA_HERE { return U[b * d + k] * U[a * d + k]; });
                    H[a * rank + b] += dot;
                    each<D>(0, d, [&](int k) AFA_HERE { U[a * d + k] -= dot * U[b * d + k]; });
                }
            H[a * rank + a] = root(sum_of<D, Pack>(0, d, [&](int k) AFA_HERE { return U[a * d + k] * U[a * d + k]; }));
            const Pack scale = 1.0 / H[a * rank + a];
            each<D>(0, d, [&](int k) AFA_HERE { U[a * d + k] *= scale; });
        }
        invert_lower<D>(&H[0], &M[0], rank);
        for (int a = 0; a < rank; a++) {
            for (int b = 0; b < rank; b++) {   // noise never ends, what is left of y does
                L[a * rank + b] = M[a * rank + b] * larger(size[b], spread<Pack>(LEAST));
                M[a * rank + b] *= size[b];
            }
            each<D>(0, d, [&](int c) AFA_HERE {   // X = U^T root V
                X[a * d + c] = sum_of<D, Pack>(c, d, [&](int e) AFA_HERE { return U[a * d + e] * noise[e * d + c]; });
            });
        }
        append<D, D>(&L[0], rank, &X[0], d, rank, rank, d);
        whitened(&U[0], &M[0], rank);
        if (rotation == nullptr) return;
        fill<0, 0>(&M[0], rank, rank, [&](int a, int b) AFA_HERE {
            return sum_of<0, Pack>(0, rank, [&](int e) AFA_HERE { return T[a * r + e] * rotation[e * r + b]; });
        });
        for (int a = 0; a < rank; a++)
            for (int b = 0; b < rank; b++) T[a * r + b] = M[a * rank + b];
    }

    // y = H xi_i + noise of covariance I + C V C^T, H = C Phi e^-exponent.
    void with_flow(const double* C, int rank) {
        const int d = dim();
        for (int a = 0; a < rank; a++) {
            each<D>(0, d, [&](int k) AFA_HERE {
                U[a * d + k] = factor[k] * sum_of<D, Pack>(0, d, [&](int e) AFA_HERE { return C[a * d + e] * turn[e * d + k]; });
                X[a * d + k] = sum_of<D, Pack>(k, d, [&](int e) AFA_HERE { return C[a * d + e] * noise[e * d + k]; });
            });
            for (int b = 0; b < rank; b++) M[a * rank + b] = L[a * rank + b] = spread<Pack>(a == b ? 1.0 : 0.0);
        }
        append<D, D>(&L[0], rank, &X[0], d, rank, rank, d);
        whitened(&U[0], &M[0], rank);
    }

    // G = L^-1 rows, T = L^-1 lower.
    void whitened(const Pack* rows, const Pack* lower, int rank) {
        const int d = dim();
        invert_lower<D>(&L[0], &X[0], rank);
        for (int a = 0; a < rank; a++) {
            each<D>(0, d, [&](int k) AFA_HERE {
                G[a * d + k] = sum_of<0, Pack>(0, a + 1, [&](int e) AFA_HERE { return X[a * rank + e] * rows[e * d + k]; });
            });
            for (int b = 0; b < rank; b++)
                T[a * r + b] = sum_of<0, Pack>(b, a + 1, [&](int e) AFA_HERE { return X[a * rank + e] * lower[e * rank + b]; });
        }
    }
};

}
}  // namespace afa
