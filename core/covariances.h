// Covariances of the Kalman filter and the RTS smoother along a chain of nodes (steps: kalman.h).
//
//     filter    roots of P, gains W and K
//     smooth    P_s = (L Z) (L Z)^T, Z the root of xi's covariance given everything: Z Z^T = T Z' Z'^T T^T + D D^T
//
// Means follow from what is left here, path by path: means.h. On a constant stretch both recursions stop
// once the root has reached its fixed point to rounding.
#pragma once
#include "kalman.h"

namespace afa {
inline namespace AFA_LEVEL {

constexpr double CONVERGED = 1e-13, SHRINKING = 0.9;   // greatest factor of shrinking changes that is trusted to go on
constexpr int64_t SHORTEST_WINDOW = 16;

// What `has_converged` remembers: two earlier roots, when the second is due, the last change and whether it promised to be
// the last.
template <int D> struct Trace {
    Scratch<double, D * D> now, near, far;
    int64_t due = 0;
    double last = 0.0;
    bool predicted = false;
    explicit Trace(int64_t d) : now(d * d), near(d * d), far(d * d) {}
};

// Largest change of a row between two roots by columns, relative to the row.
template <int D> double change(const Scratch<double, D * D>& A, const Scratch<double, D * D>& B, Size<D> d) {
    double largest = 0.0;
    for (int i = 0; i < d; i++) {
        double total = 0.0, moved = 0.0;
        for (int j = 0; j < d; j++) {
            const double x = A[j * d + i], y = x - B[j * d + i];
            total += x * x;
            moved += y * y;
        }
        if (moved > largest * total) largest = total > 0.0 ? moved / total : INFINITY;
    }
    return std::sqrt(largest);
}

// Whether a root (columns of A) has reached its fixed point, asked after each of `run` equal steps.
//
// Changes over SHORTEST_WINDOW steps that shrink by a factor q leave q / (1 - q) of the last one to come; that counts when it is
// seen twice, since a quick component that dies away may hide a slow one. Near rounding q says nothing; there the root is
// compared over a fifth of the run, so that slow convergence is not taken for a fixed point.
template <int D, class C>
__attribute__((noinline)) bool test_convergence(const C& A, int64_t run, Trace<D>& trace, Size<D> d) {
    bool converged = false;
    write_columns(A, 0, 0, &trace.now[0], d, d);
    if (run % SHORTEST_WINDOW == 0) {
        const double moved = change<D>(trace.now, trace.near, d);
        const double q = moved / trace.last;
        const bool predicted = trace.last > 0.0 && std::isfinite(trace.last) && q < SHRINKING && moved * q <= CONVERGED * (1.0 - q);
        converged = predicted && trace.predicted;
        trace.last = moved, trace.predicted = predicted;
        std::memcpy(&trace.near[0], &trace.now[0], sizeof(double) * static_cast<size_t>(d * d));
    }
    if (run == trace.due) {
        converged = converged || change<D>(trace.now, trace.far, d) <= CONVERGED;
        std::memcpy(&trace.far[0], &trace.now[0], sizeof(double) * static_cast<size_t>(d * d));
        trace.due = run + (SHORTEST_WINDOW > run / 4 ? SHORTEST_WINDOW : run / 4);
    }
    return converged;
}
template <int D, class C> AFA_INLINE bool has_converged(const C& A, int64_t run, Trace<D>& trace, Size<D> d) {
    if (run == 0) return false;
    if (run == 1) {   // the first of a stretch: changes count from here
        trace.due = SHORTEST_WINDOW;
        trace.last = 0.0, trace.predicted = false;
        write_columns(A, 0, 0, &trace.near[0], d, d);
        write_columns(A, 0, 0, &trace.far[0], d, d);
        return false;
    }
    return (run % SHORTEST_WINDOW == 0 || run == trace.due) && test_convergence(A, run, trace, d);
}

// Whether node k repeats its predecessor: same step, same observation row, same gaps.
AFA_INLINE bool same_setting(const Chain& chain, const Flags<2>& seen, const In<1>& scale, int64_t k) {
    if (chain.step[k] != chain.step[k - 1]) return false;
    const int64_t o = chain.obs[k], q = chain.obs[k - 1];
    if (o < 0 || q < 0) return o < 0 && q < 0;
    if (chain.cfg[o] != chain.cfg[q] || scale[o] != scale[q]) return false;
    const uint8_t *now = seen.row(o), *before = seen.row(q);
    for (int64_t a = 0; a < seen.shape[1]; a++)
        if (now[a] != before[a]) return false;
    return true;
}

// Matrix `now` of a stack <- matrix `before`.
inline void repeat(const Out<3>& x, int64_t before, int64_t now) {
    std::memcpy(x.row(now), x.row(before), sizeof(double) * static_cast<size_t>(x.shape[1] * x.shape[2]));
}

template <bool SMOOTH, int D, int P>
int64_t filter_covariances_of(const Chain& chain, int64_t first, int64_t stop, double* L, const Flags<2>& seen,
                              const In<1>& scale, const Out<3>& cov, const Out<3>& S, const Gains& gains, Size<D> d,
                              Size<P> p) {
    StateSpace<D, SMOOTH> space(d);
    ObservationSpace<D, P> observed(d, p);
    Trace<D> trace(d);
    auto& A = space.A;
    read_columns(L, A, d, d);
    int64_t run = 0, set_row = -1;
    bool converged = false, correlated = false;
    for (int64_t k = first; k < stop; k++) {
        const int64_t o = chain.obs[k];
        if (k > first + 1 && same_setting(chain, seen, scale, k)) {
            run++;
            if (converged) {
                gains.slot[k] = gains.slot[k - 1];
                repeat(cov, k - 1, k);
                if (o >= 0) repeat(S, chain.obs[k - 1], o);
                continue;
            }
        } else {
            run = 0;
            converged = false;
        }
        gains.slot[k] = k;
        if (k > 0) predict_root(chain.F.row(chain.step[k]), chain.root.row(chain.step[k]), space, d);
        if (SMOOTH) write_columns(A, d, d, gains.D.row(k), d, d);
        if (o >= 0) {
            const int64_t c = chain.cfg[o];
            if (c != set_row) set_observation(chain.H.row(c), observed, d, p);
            set_row = c;
            innovation_cov(chain.R.row(c), scale[o], A, S.row(o), observed, d, p);
            if (run == 0) correlated = split_noise(chain.R.row(c), scale[o], seen.row(o), observed, p);
            gains.half[k] = update_root<SMOOTH>(seen.row(o), S.row(o), A, gains.W.row(k), gains.K.row(k), gains.V.row(k),
                                                observed, correlated, d, p);
            if (std::isnan(gains.half[k])) {
                write_columns(A, 0, 0, L, d, d);
                return k;
            }
        }
        if (SMOOTH) {
            write_columns(A, 0, 0, gains.root.row(k), d, d);
            write_columns(A, 0, d, gains.T.row(k), d, d);
        }
        gram(A, cov.row(k), d, d);
        converged = has_converged(A, run, trace, d);
    }
    write_columns(A, 0, 0, L, d, d);
    return -1;
}

// Covariances cov (N, d, d) and S (T, p, p) of nodes first, ..., stop - 1 and the gains.
//
// L, by columns, is the root at node first - 1 (at first = 0: before the first observation) and becomes that
// at node stop - 1. Returns -1, or the node at which the innovation covariance is singular.
inline int64_t filter_covariances(Chain chain, int64_t first, int64_t stop, Out<2> L, Flags<2> seen, In<1> scale,
                                  bool smooth, Out<3> cov, Out<3> S, Gains gains) {
    return with_sizes(L.shape[0], seen.shape[1], [&](auto d, auto p) {
        return smooth ? filter_covariances_of<true>(chain, first, stop, L.data, seen, scale, cov, S, gains, d, p)
                      : filter_covariances_of<false>(chain, first, stop, L.data, seen, scale, cov, S, gains, d, p);
    });
}

template <int D> void smooth_covariances_of(int64_t last, const Gains& gains, const Out<3>& cov, double* start, Size<D> d) {
    using Cols = Columns<2 * D, D>;
    const int blocks = (d + Cols::W - 1) / Cols::W;
    Cols A(2 * d, d);
    Columns<D, D> Z(d, d), LZ(d, d);
    Scratch<double, 2 * D> v(2 * d);
    Trace<D> trace(d);
    read_columns(start, Z, d, d);
    int64_t run = 0;
    bool converged = false;
    for (int64_t k = cov.shape[0] - 2; k >= last; k--) {
        const int64_t s = gains.slot[k + 1], g = gains.slot[k];
        if (k < cov.shape[0] - 2 && s == gains.slot[k + 2] && g == s) {
            run++;
            if (converged) {
                repeat(cov, k + 1, k);
                continue;
            }
        } else {
            run = 0;
            converged = false;
        }
        // Z Z^T <- T Z Z^T T^T + D D^T  (Bierman 1977, chapter X)
        const double *T = gains.T.row(s), *noise = gains.D.row(s), *L = gains.root.row(g);
        each<D>(0, d, [&](int c) {
            put_product(A, c, T, d, c, d, [&](int j) { return Z.at(c, j); });
            each<D>(0, blocks, [&](int b) { A(d + c, b) = Cols::read(noise + c * d, b, d); });
        });
        triangularise(A, v, d, Size<2 * D>(2 * d), Size<2 * D>(2 * d));
        each<D>(0, d, [&](int c) { each<D>(0, blocks, [&](int b) { Z(c, b) = A(c, b); }); });
        // P = (L Z) (L Z)^T
        each<D>(0, d, [&](int c) { put_product(LZ, c, L, d, c, d, [&](int j) { return Z.at(c, j); }); });
        gram(LZ, cov.row(k), d, d);
        converged = has_converged(Z, run, trace, d);
    }
    write_columns(Z, 0, 0, start, d, d);
}

// cov (N, d, d) of nodes N - 2, ..., last: filtered in, smoothed out.
//
// Z (d, d), by columns, is the root of xi's covariance at node N - 1 (the identity where nothing is known after
// it) and becomes that at node `last`.
inline void smooth_covariances(int64_t last, Gains gains, Out<3> cov, Out<2> Z) {
    with_size(Z.shape[0], [&](auto d) { smooth_covariances_of(last, gains, cov, Z.data, d); });
}

// How much roundings are magnified. doubts[0]: the greatest variance S_aa of a prediction over that of its observation's noise;
// doubts[1]: the greatest square of a number that is observed over that variance (unscaled) and, of a sensor without noise, the greatest
// variance of a prediction over the least. S (G, T, p, p), noise R of the row cfg times scale (G or 1, T; G = n), z (n, T, p).
inline void magnification(In<4> S, Index<1> cfg, In<3> R, In<2> scale, In<3> z, Out<1> doubts) {
    const int64_t T = S.shape[1], p = S.shape[2];
    const auto noise = [&](int64_t g, int64_t o, int64_t a) {
        return R.row(cfg[o])[a * p + a] * scale.row(scale.shape[0] > 1 ? g : 0)[o];
    };
    double lost = 0.0, far = 0.0;
    Scratch<double, 0> least(p), most(p);                                    // of sensors without noise
    for (int64_t a = 0; a < p; a++) least[a] = HUGE_VAL;
    for (int64_t g = 0; g < S.shape[0]; g++)
        for (int64_t o = 0; o < T; o++)
            for (int64_t a = 0; a < p; a++) {
                const double variance = S.row(g)[(o * p + a) * p + a], own = noise(g, o, a);
                if (!(variance < HUGE_VAL)) continue;
                if (own > 0.0 && variance > lost * own) lost = variance / own;
                if (own > 0.0 || !(variance > 0.0)) continue;
                least[a] = variance < least[a] ? variance : least[a], most[a] = larger(most[a], variance);
            }
    for (int64_t path = 0; path < z.shape[0]; path++)
        for (int64_t o = 0; o < T; o++)
            for (int64_t a = 0; a < p; a++) {
                const double value = z.row(path)[o * p + a], own = R.row(cfg[o])[a * p + a];
                if (own > 0.0 && value * value > far * own) far = value * value / own;
            }
    for (int64_t a = 0; a < p; a++)
        if (most[a] > far * least[a]) far = most[a] / least[a];
    doubts[0] = lost, doubts[1] = far;
}

}
}  // namespace afa
