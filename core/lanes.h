// Filter and smoother of several paths side by side, each with covariances and gaps of its own.
//
// The recursions of kalman.h with a vector for every number: what one path skips (a missing component, a row
// without a pivot) is multiplied by 0 instead. The chain of nodes is the same for all. Means go along, so that
// no gains need be kept but what the smoother wants.
#pragma once
#include "kalman.h"

namespace afa {
inline namespace AFA_LEVEL {

using LaneVector = Vec<double, LANES<double>>;
using Stored = VecOf<double, LANES<double>>::unaligned;   // the same in NumPy's memory, which is aligned to its items only

// How many paths go side by side.
inline int64_t lanes() { return LANES<double>; }

// What the filter leaves for the smoother, per node; lanes last. mean (N, d, .), updated; e (N, p, .), the
// innovations with unit variance; by columns, L, the updated root, and for the step into the node T, D (N, d, d, .)
// and V (N, p, d, .).
struct LaneMemory {
    Out<3> mean, e;
    Out<4> L, T, D, V;
    template <class Visit> void members(Visit&& visit) { visit(mean, e, L, T, D, V); }
};
// The same of node k alone.
struct LaneNode {
    Stored *mean, *e, *L, *T, *D, *V;
    LaneNode(const LaneMemory& kept, int64_t k)
        : mean(row(kept.mean, k)), e(row(kept.e, k)), L(row(kept.L, k)), T(row(kept.T, k)), D(row(kept.D, k)),
          V(row(kept.V, k)) {}
    template <class View> static Stored* row(const View& x, int64_t k) { return reinterpret_cast<Stored*>(x.row(k)); }
};
constexpr const char* LANE_MEMORY =
    "kept_mean(n,d,lanes) e(n,p,lanes) L(n,d,d,lanes) T(n,d,d,lanes) D(n,d,d,lanes) V(n,p,d,lanes) ";

// Row k of an array (paths, rows, n) <- the n numbers x of each path l of active (bit l).
AFA_INLINE void write_paths(const LaneVector* x, double* array, int64_t rows, int64_t k, int n, unsigned active) {
    constexpr int L = LANES<double>;
    for (int e = 0; e < n; e += L) {
        LaneVector t[L];
        AFA_UNROLL
        for (int i = 0; i < L; i++) t[i] = e + i < n ? x[e + i] : LaneVector{};
        transpose(t);
        AFA_UNROLL
        for (int l = 0; l < L; l++)
            if (active >> l & 1u) store_some<L>(array + (l * rows + k) * n + e, t[l], n - e);
    }
}

// A mean x (d) and its covariance X X^T, X by columns: room to write them from.
template <int D> struct LaneLaw {
    Scratch<LaneVector, D * D> square;
    explicit LaneLaw(int64_t d) : square(d * d) {}
    template <class C, class N>
    AFA_INLINE void write(int64_t rows, int64_t k, unsigned active, const LaneVector* x, const C& X, double* mean, double* cov,
                          N d_) {
        const int d = d_;
        each<D>(0, d, [&](int i) {
            each<D>(0, i + 1, [&](int j) {
                LaneVector t = {};
                each<D>(0, d, [&](int c) { t += X.at(c, i) * X.at(c, j); });
                square[i * d + j] = square[j * d + i] = t;
            });
        });
        write_paths(x, mean, rows, k, d, active);
        write_paths(&square[0], cov, rows, k, d * d, active);
    }
};

template <bool SMOOTH, int D, int P>
int64_t filter_lanes_of(const Chain& chain, const Index<1>& first, const In<3>& L0, const In<2>& m0,
                        const Flags<3>& seen, const In<2>& scale, const In<3>& z, const Out<3>& mean, const Out<4>& cov,
                        const Out<3>& innovation, const Out<4>& S, const Out<2>& loglik, const LaneMemory& kept,
                        Size<D> d_, Size<P> p_) {
    const int d = d_, p = p_, paths = static_cast<int>(z.shape[0]);
    const int64_t N = mean.shape[1], T = z.shape[1];
    const LaneVector zero = {}, one = zero + 1.0;
    StateSpace<D, SMOOTH, LaneVector> space(d);
    ObservationSpace<D, P, LaneVector> observed(d, p);
    LaneLaw<D> law(d);
    auto& A = space.A;
    auto& Y = observed.Y;
    constexpr int ROOM = P == 0 ? 0 : (P * P + LANES<double>) / LANES<double> * LANES<double>;
    Scratch<LaneVector, D> x(d), before(d);
    Scratch<LaneVector, P> v(p), rest(p);
    Scratch<LaneVector, ROOM> written(p * p + LANES<double>);   // what is written of an observation
    unsigned active = 0;                                    // bit l: path l has set out
    LaneVector share = zero;                                 // 1 for those paths
    const auto next_start = [&](int64_t k) {                 // the first node from k on at which a path sets out
        int64_t next = N;
        for (int l = 0; l < paths; l++)
            if (first[l] >= k && first[l] < next) next = first[l];
        return next;
    };
    int64_t set_row = -1, start = next_start(0);
    for (int64_t k = start; k < N; k++) {
        for (int l = 0; l < paths && k == start; l++) {      // path l sets out
            if (first[l] != k) continue;
            share[l] = 1.0, active |= 1u << l;
            for (int i = 0; i < d; i++) {
                x[i][l] = m0.row(l)[i];
                for (int j = 0; j < d; j++) A(j, i)[l] = L0.row(l)[j * d + i];
            }
            if (!SMOOTH || k == 0) continue;
            const LaneNode node(kept, k - 1);
            for (int i = 0; i < d; i++) {
                node.mean[i][l] = x[i][l];
                for (int j = 0; j < d; j++) node.L[j * d + i][l] = A(j, i)[l];
            }
        }
        if (k == start) start = next_start(k + 1);
        const LaneNode node(kept, SMOOTH ? k : 0);
        if (k > 0) {
            const double *F = chain.F.row(chain.step[k]), *b = chain.b.row(chain.step[k]);
            predict_root(F, chain.root.row(chain.step[k]), space, d_);
            for (int i = 0; i < d; i++) before[i] = x[i];
            for (int i = 0; i < d; i++) {                                      // m <- F m + b
                LaneVector t = spread<LaneVector>(b[i]);
                for (int j = 0; j < d; j++) t += F[j * d + i] * before[j];
                x[i] = t;
            }
        }
        if (SMOOTH)
            for (int c = 0; c < d; c++)
                for (int i = 0; i < d; i++) node.D[c * d + i] = A(d + c, d + i);
        const int64_t o = chain.obs[k];
        if (o < 0 && SMOOTH)
            for (int a = 0; a < p; a++) {
                node.e[a] = zero;
                for (int i = 0; i < d; i++) node.V[a * d + i] = zero;
            }
        if (o >= 0) {
            const int64_t c = chain.cfg[o];
            const double *H = chain.H.row(c), *R = chain.R.row(c), *off = chain.off.row(c);
            if (c != set_row) set_observation(H, observed, d_, p_);
            set_row = c;
            LaneVector strength = one;
            for (int l = 0; l < paths; l++) strength[l] = scale[l * T + o];
            for (int a = 0; a < p; a++) {                                      // v = z - off - H m
                LaneVector t = zero, there = zero;
                for (int l = 0; l < paths; l++) there[l] = seen[(l * T + o) * p + a], t[l] = z[(l * T + o) * p + a];
                there *= share;
                t -= off[a];
                for (int i = 0; i < d; i++) t -= H[a * d + i] * x[i];
                observed.seen[a] = there;
                v[a] = rest[a] = where_positive(there, t, zero);
            }
            innovation_cov(R, strength, A, observed, d_, p_);
            if (split_noise(R, strength, observed, p_)) {
                make_independent(observed, d_, p_);
                for (int a = 0; a < p; a++)
                    for (int b = 0; b < a; b++) rest[a] -= observed.low[a * p + b] * rest[b];
            }
            LaneVector total = zero, worst = one;
            each<P>(0, p, [&](int a) AFA_HERE {
                const LaneVector there = observed.seen[a], f = innovation_variance(observed, a, d_), width = root(f);
                const LaneVector scaled = where_positive(there, LaneVector(1.0 / width), zero);
                const LaneVector shrink = where_positive(there, LaneVector(1.0 / (f + width * root(observed.noise[a]))), zero);
                const LaneVector unit = rest[a] * scaled;
                if (SMOOTH) node.e[a] = unit;
                each<D>(0, (SMOOTH ? 2 * d : d), [&](int i) {
                    const LaneVector gain = condition(A, i, observed.phi, scaled, shrink, d_);
                    if (i < d) x[i] += gain * unit, observed.gain[i] = gain * scaled;   // m <- m + W e
                    else node.V[a * d + i - d] = gain;
                });
                for (int b = a + 1; b < p; b++) rest[b] -= condition(Y, b, observed.phi, scaled, shrink, d_) * unit;
                const LaneVector vague = where_positive(there, LaneVector(PRECISE * f - observed.noise[a]), -one);
                if (__builtin_expect(!all_between(vague, -HUGE_VAL, 0.0), 0))
                    restore(A, observed, a, root(LaneVector(observed.noise[a] * scaled * scaled)), where_positive(vague, one, zero), d, p);
                const LaneVector margin = f - KNOWN_EXACTLY * observed.cov(a, a);
                worst = where_positive(LaneVector(there * (margin > zero ? zero : one)), -one, worst);
                total += where_positive(there, LaneVector(LOG_2PI + log_of(f) + unit * unit), zero);
            });
            worst = where_positive(share, worst, one);
            if (!all_between(worst, 0.0, HUGE_VAL)) return k;
            for (int a = 0; a < p; a++) written[a] = where_positive(observed.seen[a], v[a], zero + NAN);
            write_paths(&written[0], innovation.data, T, o, p, active);
            for (int a = 0; a < p; a++)
                for (int b = 0; b < p; b++) written[a * p + b] = observed.cov(a, b);
            write_paths(&written[0], S.data, T, o, p * p, active);
            for (int l = 0; l < paths; l++)
                if (active >> l & 1u) loglik[l * T + o] = -0.5 * total[l];
        }
        if (SMOOTH)
            for (int i = 0; i < d; i++) {
                node.mean[i] = x[i];
                for (int c = 0; c < d; c++) {
                    node.L[c * d + i] = A(c, i);
                    node.T[c * d + i] = A(c, d + i);
                }
            }
        if (k == N - 1 || !SMOOTH) law.write(N, k, active, &x[0], A, mean.data, cov.data, d_);
    }
    return -1;
}

// Filter paths z (n, T, p), n at most LANES; path l from node first[l] on.
//
// L0 (n, d, d), by columns, m0 (n, d): root and mean at node first - 1 (at first = 0: before the first observation).
// seen (n, T, p); scale (n, T) of the noise covariance. Fills the means (n, N, d) and cov (n, N, d, d), with
// `smooth` of the last node only, innovations (n, T, p), S (n, T, p, p), loglik (n, T) and, with `smooth`, what is
// kept. Returns -1, or a node at which an innovation covariance is singular.
inline int64_t filter_lanes(Chain chain, Index<1> first, In<3> L0, In<2> m0, Flags<3> seen, In<2> scale, bool smooth,
                            In<3> z, Out<3> mean, Out<4> cov, Out<3> innovation, Out<4> S, Out<2> loglik,
                            LaneMemory kept) {
    return with_sizes(mean.shape[2], z.shape[2], [&](auto d, auto p) {
        return smooth ? filter_lanes_of<true>(chain, first, L0, m0, seen, scale, z, mean, cov, innovation, S, loglik, kept, d, p)
                      : filter_lanes_of<false>(chain, first, L0, m0, seen, scale, z, mean, cov, innovation, S, loglik, kept, d, p);
    });
}

template <int D, int P>
void smooth_lanes_of(const LaneMemory& kept, const Index<1>& last, const Out<3>& mean, const Out<4>& cov, const Out<3>& Z0,
                     const Out<2>& y0, Size<D> d_, Size<P> p_) {
    const int d = d_, p = p_, paths = static_cast<int>(mean.shape[0]);
    const int64_t N = mean.shape[1];
    Columns<2 * D, D, LaneVector> A(2 * d, d);
    Columns<D, D, LaneVector> LZ(d, d);
    Scratch<LaneVector, 2 * D> scratch(2 * d);
    Scratch<LaneVector, D> y(d), before(d), x(d);
    LaneLaw<D> law(d);
    unsigned active = (1u << paths) - 1u;   // bit l: path l goes on
    for (int i = 0; i < d; i++) A(i, i) += 1.0;
    const auto next_end = [&](int64_t k) {   // the first node from k on, backwards, at which a path ends
        int64_t next = -1;
        for (int l = 0; l < paths; l++)
            if (last[l] <= k && last[l] > next) next = last[l];
        return next;
    };
    int64_t end = next_end(N - 1);
    for (int64_t k = N - 1; k >= 0 && active != 0; k--) {
        if (k < N - 1) {
            const LaneNode node(kept, k), later(kept, k + 1);
            for (int i = 0; i < d; i++) before[i] = y[i];
            each<D>(0, d, [&](int i) {
                LaneVector t = {};
                each<D>(0, d, [&](int j) { t += later.T[j * d + i] * before[j]; });     // xi = T xi+ + V e
                each<P>(0, p, [&](int a) { t += later.V[a * d + i] * later.e[a]; });
                y[i] = t;
            });
            each<D>(0, d, [&](int c) {
                each<D>(0, d, [&](int i) {                                  // Z Z^T <- T Z Z^T T^T + D D^T
                    LaneVector t = {};
                    each<D>(c, d, [&](int j) { t += later.T[j * d + i] * A(c, j); });
                    x[i] = t;
                    A(d + c, i) = later.D[c * d + i];
                });
                each<D>(0, d, [&](int i) { A(c, i) = x[i]; });
            });
            triangularise(A, scratch, d_, Size<2 * D>(2 * d), Size<2 * D>(2 * d));
            each<D>(0, d, [&](int i) {
                LaneVector t = node.mean[i];
                each<D>(0, d, [&](int j) { t += node.L[j * d + i] * y[j]; });     // m + L xi
                x[i] = t;
                each<D>(0, d, [&](int c) {
                    LaneVector s = {};
                    each<D>(c, d, [&](int j) { s += node.L[j * d + i] * A(c, j); });
                    LZ(c, i) = s;
                });
            });
            law.write(N, k, active, &x[0], LZ, mean.data, cov.data, d_);
        }
        for (int l = 0; l < paths && k == end; l++) {
            if (k != last[l]) continue;
            active &= ~(1u << l);
            for (int i = 0; i < d; i++) {
                y0.row(l)[i] = y[i][l];
                for (int j = 0; j < d; j++) Z0.row(l)[j * d + i] = A(j, i)[l];
            }
        }
        if (k == end) end = next_end(k - 1);
    }
}

// Means (n, N, d) and cov (n, N, d, d) of nodes N - 2, ..., last[l] of path l.
//
// Z0 (n, d, d), by columns, and y0 (n, d) get root and mean of xi at node last[l].
inline void smooth_lanes(LaneMemory kept, Index<1> last, Out<3> mean, Out<4> cov, Out<3> Z0, Out<2> y0) {
    const Size<0> p(kept.e.shape[1]);   // of little weight here: one instance for all
    with_size(mean.shape[2], [&](auto d) { smooth_lanes_of(kept, last, mean, cov, Z0, y0, d, p); });
}

}
}  // namespace afa
