// Exact correlation: generalised least squares along a chain of observations, in one sweep.
//
// The errors of pulled observations share process noise. Given the state theta at the first observation, flat,
// the state is x = a + B theta + e, Cov(e) = P, and R theta = s + N(0, I) holds what the observations so far say
// about theta: each is predicted from those before it (Kalman filter, conditional on theta), so that its
// residual is news; theta is estimated from the residuals by least squares (generalised least squares by
// prewhitening: Harvey, "Forecasting, structural time series models and the Kalman filter", section 3.4.1).
// What lies in a query's future comes as equations in its own state (backward information filter in root
// form: Bierman, "Factorization methods", chapter 10).
//
// Number = double: m data columns, the same weights for all. Number = Pack: neighbouring queries side by
// side, which share dynamics and data and differ in their weights.
#pragma once
#include "dense.h"

namespace afa {
inline namespace AFA_LEVEL {

// Covariances are carried by their roots, P = L L^T, V = N N^T, lower: noise may be small beside what a step adds.

// Observations in order: F, N lead to each from the one before; y_k = H_k x + N(0, I / w), rank_k rows.
struct Observations {
    In<3> F, N, H;
    Index<1> rank;
    template <class Visit> void members(Visit&& visit) { visit(F, N, H, rank); }
};
// Queries use the observations first <= k < last, their past ends at split. Fq, Nq lead from the last past
// observation to the query, Fn, Nn from the query to the first future one.
struct QuerySteps {
    Index<1> first, split, last;
    In<3> Fq, Nq, Fn, Nn;
    template <class Visit> void members(Visit&& visit) { visit(first, split, last, Fq, Nq, Fn, Nn); }
};
// Of every query: a (P, n, d, m), B and L (P, n, d, d), and [R | s] (P, n, d, d + m).
struct SweepResult {
    Out<4> a, B, L, tri;
    template <class Visit> void members(Visit&& visit) { visit(a, B, L, tri); }
};

// Least squares R x = s: t (d + m, d) holds R^T, the m columns s below it.
template <int D, int M, class Number> struct Equations {
    static constexpr int MOST = D > 0 ? D + 2 : 8;   // rows that wait to be rotated in together
    static constexpr int WIDTH = D > 0 && M > 0 ? D + M : 0;
    Size<D> d_;
    Size<WIDTH> all;
    int pending = 0;
    Scratch<Number, WIDTH * D> t{all * d_};
    Scratch<Number, WIDTH * MOST> rows{all * MOST};   // (d + m, MOST)

    Equations(int64_t d, int64_t m) : d_(d), all(d + m) {}
    AFA_INLINE int dim() const { return d_; }
    AFA_INLINE int width() const { return all; }
    void clear() {
        each<WIDTH>(0, width(), [&](int k) AFA_HERE { each<D>(0, dim(), [&](int i) AFA_HERE { t[k * dim() + i] = Number{}; }); });
        pending = 0;
    }
    AFA_INLINE Number& left(int i, int k) { return t[k * dim() + i]; }   // R_ik, k >= i; from k = d on, s_i
    __attribute__((noinline)) void flush() {
        const int d = dim(), all = width();
        if (pending == 0) return;
        for (int k = 0; k < all; k++)
            for (int c = pending; c < MOST; c++) rows[k * MOST + c] = Number{};
        append<D, MOST, true>(&t[0], d, &rows[0], MOST, d, all, MOST);
        pending = 0;
    }
    // The next equation: coefficients, then right sides, are put to rows[k * MOST + column].
    AFA_INLINE int next() {
        if (pending == MOST) flush();
        return pending++;
    }
};

// What a sweep knows: x = [B | a] (d, d + m), L (d, d), [R | s]; the rest is work space.
template <int D, int M, class Number> struct Sweep {
    static constexpr int WIDTH = D > 0 && M > 0 ? D + M : 0, MOST = Equations<D, M, Number>::MOST;
    Size<D> d_;
    Size<WIDTH> all_;
    Equations<D, M, Number> equations{d_, all_ - d_};
    Scratch<Number, WIDTH * D> x{d_ * all_}, work{d_ * all_};
    Scratch<Number, D * D> L{d_ * d_}, root_{d_ * d_};
    Scratch<Number, WIDTH> row{all_};
    Scratch<Number, D> gain{d_};

    Sweep(int64_t d, int64_t m) : d_(d), all_(d + m) {}
    AFA_INLINE int dim() const { return d_; }
    AFA_INLINE int width() const { return all_; }

    // theta is the state: x = theta.
    void start() {
        const int d = dim(), all = width();
        equations.clear();
        for (int i = 0; i < d * all; i++) x[i] = Number{};
        for (int i = 0; i < d * d; i++) L[i] = Number{};
        for (int i = 0; i < d; i++) x[i * all + i] = spread<Number>(1.0);
    }
    // x <- F x, [L | 0] <- [N | F L] Theta (Sarkka & Svensson, "Bayesian filtering and smoothing", sections 6.3, 6.4).
    void predict(const double* F, const double* N) {
        const int d = dim(), all = width();
        each<WIDTH>(0, all, [&](int j) AFA_HERE {
            each<D>(0, d, [&](int i) AFA_HERE { gain[i] = x[i * all + j]; });
            each<D>(0, d, [&](int i) AFA_HERE {
                x[i * all + j] = sum_of<D, Number>(0, d, [&](int l) AFA_HERE { return F[i * d + l] * gain[l]; });
            });
        });
        fill<D, D>(&work[0], d, d, [&](int i, int j) AFA_HERE {
            return sum_of<D, Number>(j, d, [&](int l) AFA_HERE { return F[i * d + l] * L[l * d + j]; });
        });
        each<D * D>(0, d * d, [&](int i) AFA_HERE { L[i] = spread<Number>(N[i]); });
        append<D, D>(&L[0], d, &work[0], d, d, d, d);
    }
    // Uses y = h x + N(0, 1 / w), y of every column: K = P h^T / S, S = h P h^T + 1 / w; the residual
    // (y - h a) - h B theta, of variance S, is an equation in theta. w = 0: nothing happens.
    //
    // L column by column, with g_j = w^{1/2} h L_j and f_j = 1 + sum of g^2 over this column and those after it
    // (Carlson, AIAA Journal 11 (1973) 1259-1265; Bierman, "Factorization methods", section V.4):
    //     L_j <- (f_{j+1} / f_j)^{1/2} L_j - g_j (f_{j+1} f_j)^{-1/2} sum_{l > j} g_l L_l;  f_0 = w S.
    void update(const double* h, const double* y, Number w) {
        const int d = dim(), all = width();
        const Number size = root(w);
        Number f = spread<Number>(1.0), length = f, over = f;   // over = 1 / length
        each<D>(0, d, [&](int i) AFA_HERE { gain[i] = Number{}; });
        each<D>(0, d, [&](int before) AFA_HERE {
            const int j = d - 1 - before;
            const Number g = size * sum_of<D, Number>(j, d, [&](int i) AFA_HERE { return h[i] * L[i * d + j]; });
            f += g * g;
            const Number longer = root(f), under = 1.0 / longer, kept = length * under, k = g * under * over;
            each<D>(j, d, [&](int i) AFA_HERE {
                const Number entry = L[i * d + j];
                L[i * d + j] = kept * entry - k * gain[i];
                gain[i] += g * entry;
            });
            length = longer, over = under;
        });
        const Number scale = size * over;                                      // S^{-1/2}; gain = w^{1/2} P h^T
        each<WIDTH>(0, all, [&](int j) AFA_HERE {
            const Number total = sum_of<D, Number>(0, d, [&](int l) AFA_HERE { return h[l] * x[l * all + j]; });
            row[j] = scale * (j < d ? total : y[j - d] - total);
        });
        each<D>(0, d, [&](int i) AFA_HERE {
            const Number k = gain[i] * over;
            each<WIDTH>(0, all, [&](int j) AFA_HERE { x[i * all + j] += j < d ? -k * row[j] : k * row[j]; });
        });
        const int c = equations.next();
        each<WIDTH>(0, all, [&](int j) AFA_HERE { equations.rows[j * MOST + c] = row[j]; });
    }
    // Equations [Y | s] in F x + N(0, V) as equations in x: (I + Y V Y^T)^{-1/2} [Y F | s].
    void predict_back(const double* F, const double* N) {
        const int d = dim(), all = width();
        equations.flush();
        fill<D, D>(&work[0], d, d, [&](int i, int j) AFA_HERE {
            root_[i * d + j] = spread<Number>(i == j ? 1.0 : 0.0);
            return sum_of<D, Number>(i > j ? i : j, d, [&](int l) AFA_HERE { return N[l * d + j] * equations.left(i, l); });
        });
        append<D, D>(&root_[0], d, &work[0], d, d, d, d);                      // [root | 0] = [I | Y N] Theta
        Number* rows = &equations.rows[0];                                     // empty since flush()
        each<D>(0, d, [&](int i) AFA_HERE {
            const Number pivot = 1.0 / root_[i * d + i];
            each<WIDTH>(0, all, [&](int j) AFA_HERE {
                Number total = j < d ? Number{} : equations.left(i, j);
                if (j < d) each<D>(i, d, [&](int l) AFA_HERE { total += F[l * d + j] * equations.left(i, l); });
                each<D>(0, i, [&](int l) AFA_HERE { total -= root_[i * d + l] * rows[j * MOST + l]; });
                rows[j * MOST + i] = total * pivot;
            });
        });
        equations.clear();
        equations.pending = d;
    }
    // Equations size (h x = y) join those about the future.
    void collect(const double* h, const double* y, Number size) {
        const int d = dim(), all = width(), c = equations.next();
        each<WIDTH>(0, all, [&](int j) AFA_HERE { equations.rows[j * MOST + c] = size * (j < d ? h[j] : y[j - d]); });
    }
};

// Lane l of a sweep (of a pack of queries, or of one) as a sweep of its own.
template <int D, int M, class Number>
void take_lane(Sweep<D, M, Number>& from, int l, Sweep<D, M, double>& to) {
    const int d = from.dim(), all = from.width();
    from.equations.flush();
    for (int i = 0; i < d * all; i++) to.x[i] = lane(from.x[i], l), to.equations.t[i] = lane(from.equations.t[i], l);
    for (int i = 0; i < d * d; i++) to.L[i] = lane(from.L[i], l);
    to.equations.pending = 0;
}
// The equations of a sweep as rows (d, d + m), to `out`.
template <int D, int M> void write_rows(Sweep<D, M, double>& s, double* out) {
    const int d = s.dim(), all = s.width();
    s.equations.flush();
    for (int i = 0; i < d; i++)
        for (int k = 0; k < all; k++) out[i * all + k] = k < i ? 0.0 : s.equations.left(i, k);
}
// Leaves what is known at query q (equations `future` (d, d + m) included) in entry `at` of what is found.
template <int D, int M>
void finish(Sweep<D, M, double>& s, const QuerySteps& query_steps, int64_t q, bool begun, const double* future, const SweepResult& result, int64_t at) {
    const int d = s.dim(), all = s.width(), m = all - d;
    if (begun) s.predict(query_steps.Fq.row(q), query_steps.Nq.row(q));
    if (future != nullptr)
        for (int i = 0; i < d; i++) s.update(future + i * all, future + i * all + d, 1.0);
    double *a = result.a.data + at * d * m, *B = result.B.data + at * d * d, *L = result.L.data + at * d * d;
    for (int i = 0; i < d; i++) {
        for (int j = 0; j < m; j++) a[i * m + j] = s.x[i * all + d + j];
        for (int j = 0; j < d; j++) B[i * d + j] = s.x[i * all + j], L[i * d + j] = j > i ? 0.0 : s.L[i * d + j];
    }
    write_rows(s, result.tri.data + at * d * all);
}

// Queries start <= q < stop, in order, that use the same observations begin <= k < end (end = 0: none lie ahead).
template <int D, int M>
void sweep_group(const Observations& chain, const QuerySteps& query_steps, const In<3>& y, const SweepResult& result, int64_t start, int64_t stop,
                 int64_t begin, int64_t end, Sweep<D, M, double>& s, Sweep<D, M, double>& own, double* future) {
    const int64_t d = s.dim(), m = s.width() - d, size = d * s.width();
    const auto see = [&](int64_t k, auto&& use) {
        for (int64_t i = 0; i < chain.rank[k]; i++) use(chain.H.row(k) + i * d, y.row(k) + i * m);
    };
    int64_t q = stop - 1;
    while (q >= start && query_steps.split[q] >= end) q--;
    s.start();
    for (int64_t k = end - 1; q >= start; k--) {
        see(k, [&](const double* h, const double* z) { s.collect(h, z, 1.0); });
        for (; q >= start && query_steps.split[q] == k; q--) {
            take_lane(s, 0, own);
            own.predict_back(query_steps.Fn.row(q), query_steps.Nn.row(q));
            write_rows(own, future + (q - start) * size);
        }
        if (q >= start) s.predict_back(chain.F.row(k), chain.N.row(k));
    }
    s.start();
    q = start;
    for (int64_t k = begin; q < stop; k++) {
        for (; q < stop && query_steps.split[q] <= k; q++) {
            take_lane(s, 0, own);
            finish(own, query_steps, q, k > begin, query_steps.split[q] < end ? future + (q - start) * size : nullptr, result, q);
        }
        if (q == stop) break;
        if (k > begin) s.predict(chain.F.row(k), chain.N.row(k));
        see(k, [&](const double* h, const double* z) { s.update(h, z, 1.0); });
    }
}

template <int D, int M> void sweep_groups(const Observations& chain, const QuerySteps& query_steps, const In<3>& y, const SweepResult& result) {
    const int64_t n = query_steps.split.shape[0], d = chain.H.shape[2], m = y.shape[2];
    Sweep<D, M, double> s(d, m), own(d, m);
    bool causal = true;
    for (int64_t q = 0; q < n; q++) causal = causal && query_steps.split[q] >= query_steps.last[q];
    Scratch<double, 0> future(causal ? 1 : n * d * (d + m));
    for (int64_t begin = 0, stop = 0; begin < n; begin = stop) {
        for (stop = begin + 1; stop < n && query_steps.first[stop] == query_steps.first[begin] &&
                               (causal || query_steps.last[stop] == query_steps.last[begin]);)
            stop++;
        const int64_t end = causal ? 0 : query_steps.last[begin];
        sweep_group(chain, query_steps, y, result, begin, stop, query_steps.first[begin], end, s, own, &future[0]);
    }
}
// Weights 1: one sweep for all queries that use the same observations, or have none ahead; y (T, r, m).
inline void sweep_shared(Observations chain, QuerySteps query_steps, In<3> y, SweepResult result) {
    if (y.shape[2] != 1) return sweep_groups<0, 0>(chain, query_steps, y, result);
    by_dimension(chain.H.shape[2], [&](auto D) { sweep_groups<decltype(D)::value, 1>(chain, query_steps, y, result); });
}

// One pack of queries q0, q0 + 1, ... of one path, with the weights w (n, BUNDLE) of the observations from `low` on.
template <int D>
void sweep_pack(const Observations& chain, const QuerySteps& query_steps, const double* y, int64_t low, const double* w, int64_t q0,
                int count, const SweepResult& result, int64_t at, Sweep<D, 1, Pack>& s, Sweep<D, 1, double>& own, double* future) {
    const int64_t d = s.dim(), r = chain.H.shape[1], size = d * s.width();
    int64_t begin = query_steps.first[q0], middle = query_steps.split[q0], end = query_steps.last[q0], nearest = middle;
    double first[W] = {}, last[W] = {};
    for (int l = 0; l < count; l++) {
        const int64_t q = q0 + l;
        first[l] = static_cast<double>(query_steps.first[q]);
        last[l] = static_cast<double>(query_steps.last[q]);
        begin = query_steps.first[q] < begin ? query_steps.first[q] : begin;
        end = query_steps.last[q] > end ? query_steps.last[q] : end;
        middle = query_steps.split[q] > middle ? query_steps.split[q] : middle;
        nearest = query_steps.split[q] < nearest ? query_steps.split[q] : nearest;
    }
    const Pack from = load<W>(first), to = load<W>(last);
    // of the observation k in each lane, 0 where the query does not use it
    const auto weights = [&](int64_t k) {
        const Pack number = spread<Pack>(static_cast<double>(k));
        return (number >= from) & (number < to) ? load<W>(w + (k - low) * BUNDLE) : Pack{};
    };
    s.start();
    for (int64_t k = end - 1; k >= nearest; k--) {
        const Pack size_k = root(weights(k));
        for (int64_t i = 0; i < chain.rank[k]; i++) s.collect(chain.H.row(k) + i * d, y + k * r + i, size_k);
        for (int l = 0; l < count; l++) {
            const int64_t q = q0 + l;
            if (query_steps.split[q] != k || k >= query_steps.last[q]) continue;
            take_lane(s, l, own);
            own.predict_back(query_steps.Fn.row(q), query_steps.Nn.row(q));
            write_rows(own, future + l * size);
        }
        if (k > nearest) s.predict_back(chain.F.row(k), chain.N.row(k));
    }
    s.start();
    for (int64_t k = begin; k <= middle; k++) {
        for (int l = 0; l < count; l++) {
            const int64_t q = q0 + l;
            if (query_steps.split[q] != k) continue;
            own.start();
            if (k > query_steps.first[q]) take_lane(s, l, own);
            finish(own, query_steps, q, k > query_steps.first[q], k < query_steps.last[q] ? future + l * size : nullptr, result, at + q);
        }
        if (k == middle) break;
        if (k > begin) s.predict(chain.F.row(k), chain.N.row(k));
        for (int l = 0; l < count; l++) {   // a query whose window begins here
            if (k != query_steps.first[q0 + l] || k == begin) continue;
            s.equations.flush();
            for (int64_t i = 0; i < size; i++) {
                s.x[i] = with_lane(s.x[i], l, i % (d + 2) == 0 ? 1.0 : 0.0);   // [I | 0], rows of d + 1
                s.equations.t[i] = with_lane(s.equations.t[i], l, 0.0);
            }
            for (int64_t i = 0; i < d * d; i++) s.L[i] = with_lane(s.L[i], l, 0.0);
        }
        const Pack here = weights(k);
        for (int64_t i = 0; i < chain.rank[k]; i++) s.update(chain.H.row(k) + i * d, y + k * r + i, here);
    }
}

// Weights w (P, bundles, n, BUNDLE) of their own for every path and query; y (P, T, r).
inline void sweep_each(Observations chain, QuerySteps query_steps, In<3> y, int64_t low, In<4> w, SweepResult result) {
    by_dimension(chain.H.shape[2], [&](auto D) {
        const int64_t n = query_steps.split.shape[0], d = chain.H.shape[2];
        Sweep<decltype(D)::value, 1, Pack> s(d, 1);
        Sweep<decltype(D)::value, 1, double> own(d, 1);
        Scratch<double, 0> future(W * d * (d + 1));
        for (int64_t p = 0; p < y.shape[0]; p++)
            for (int64_t q = 0; q < n; q += W) {
                const double* weights = w.row(p) + (q / BUNDLE * w.shape[2]) * BUNDLE + q % BUNDLE;
                const int count = static_cast<int>(n - q < W ? n - q : W);
                sweep_pack(chain, query_steps, y.row(p), low, weights, q, count, result, p * n, s, own, &future[0]);
            }
    });
}

}
}  // namespace afa
