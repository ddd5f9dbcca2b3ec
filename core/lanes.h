// Filter and smoother of several paths side by side, each with covariances and gaps of its own: paths along the whole of
// a chain, or pieces of a chain that one path goes along.
//
// The recursions of kalman.h with a vector for every number: what one path skips (a missing component, a row
// without a pivot) is multiplied by 0 instead. Means go along, so that no gains need be kept but what the smoother wants.
#pragma once
#include <algorithm>

#include "kalman.h"
#include "powers.h"

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

// What goes along in lane l: path row[l] of the arrays, from node begin[l] of the chain, its node 0, on. It sets out at
// its node start[l], and of its nodes those from first[l] to stop[l] - 1 are wanted.
struct Tracks {
    Index<1> row, begin, start, first, stop;
    template <class Visit> void members(Visit&& visit) { visit(row, begin, start, first, stop); }
    // The nodes that all of them have in a chain of N nodes, at most so many.
    int64_t within(int64_t N, int64_t most) const {
        for (int l = 0; l < row.shape[0]; l++) most = std::min(most, N - begin[l]);
        return most;
    }
    // Bit l: node k of lane l is wanted.
    AFA_INLINE unsigned wanted(int64_t k) const {
        unsigned bits = 0;
        for (int l = 0; l < row.shape[0]; l++) bits |= static_cast<unsigned>(k >= first[l] && k < stop[l]) << l;
        return bits;
    }
};
constexpr const char* TRACKS = "row(paths)<all begin(paths)<N start(paths) first(paths) stop(paths) ";

// The rows of an array that belong to the lanes: lane l's is row at[l], of n numbers.
using Rows = int64_t[LANES<double>];

// The n numbers x of each lane <- its row.
AFA_INLINE void gather(const double* array, const Rows& at, int n, LaneVector* x) {
    constexpr int L = LANES<double>;
    for (int e = 0; e < n; e += L) {
        LaneVector t[L];
        AFA_UNROLL
        for (int l = 0; l < L; l++) t[l] = load_some<L>(array + at[l] * n + e, n - e);
        transpose(t);
        AFA_UNROLL
        for (int i = 0; i < L; i++)
            if (e + i < n) x[e + i] = t[i];
    }
}
// Row at[l] <- the n numbers x of each lane l of active (bit l).
AFA_INLINE void scatter(const LaneVector* x, double* array, const Rows& at, int n, unsigned active) {
    constexpr int L = LANES<double>;
    for (int e = 0; e < n; e += L) {
        LaneVector t[L];
        AFA_UNROLL
        for (int i = 0; i < L; i++) t[i] = e + i < n ? x[e + i] : LaneVector{};
        transpose(t);
        AFA_UNROLL
        for (int l = 0; l < L; l++)
            if (active >> l & 1u) store_some<L>(array + at[l] * n + e, t[l], n - e);
    }
}
// The same, compiled once for all n but the smallest, for which a call would show: N is n where that is known, else 0.
__attribute__((noinline)) inline void gather_apart(const double* array, const Rows& at, int n, LaneVector* x) { gather(array, at, n, x); }
__attribute__((noinline)) inline void scatter_apart(const LaneVector* x, double* array, const Rows& at, int n, unsigned active) {
    scatter(x, array, at, n, active);
}
template <int N> AFA_INLINE void read_rows(const double* array, const Rows& at, int n, LaneVector* x) {
    if constexpr (N > 0 && N <= 4) gather(array, at, N, x);
    else gather_apart(array, at, n, x);
}
template <int N> AFA_INLINE void write_rows(const LaneVector* x, double* array, const Rows& at, int n, unsigned active) {
    if constexpr (N > 0 && N <= 4) scatter(x, array, at, N, active);
    else scatter_apart(x, array, at, n, active);
}

// square (d, d) <- X X^T, X by columns.
template <int D, class C> AFA_INLINE void outer(const C& X, LaneVector* square, int d) {
    each<D>(0, d, [&](int i) {
        each<D>(0, i + 1, [&](int j) {
            LaneVector t = {};
            each<D>(0, d, [&](int c) { t += X.at(c, i) * X.at(c, j); });
            square[i * d + j] = square[j * d + i] = t;
        });
    });
}

// Mean x and, by columns, root X of lane l -> law `which` of its two, mean (lanes, 2, d) and root (lanes, 2, d, d).
template <class S, class C> void record(const S& x, const C& X, int l, int which, const Out<3>& mean, const Out<4>& root, int d) {
    for (int i = 0; i < d; i++) {
        mean.row(l)[which * d + i] = x[i][l];
        for (int j = 0; j < d; j++) root.row(l)[(which * d + j) * d + i] = X.at(j, i)[l];
    }
}

// F, b and V^1/2 of the steps that the lanes make, F and V^1/2 by columns.
template <int D> struct LaneStep {
    Scratch<LaneVector, D * D> F, root;
    Scratch<LaneVector, D> b;
    Rows step;
    explicit LaneStep(int64_t d) : F(d * d), root(d * d), b(d) {
        for (int64_t& each : step) each = -1;
    }
    // Take up the steps into the nodes at.
    template <class N> AFA_INLINE void take(const Chain& chain, const Rows& at, N d) {
        bool same = true;
        for (int l = 0; l < LANES<double>; l++) same &= step[l] == chain.step[at[l]];
        if (same) return;
        for (int l = 0; l < LANES<double>; l++) step[l] = chain.step[at[l]];
        read_rows<D * D>(chain.F.data, step, d * d, &F[0]);
        read_rows<D>(chain.b.data, step, d, &b[0]);
        read_rows<D * D>(chain.root.data, step, d * d, &root[0]);
    }
};

template <bool SMOOTH, int D, int P>
int64_t filter_lanes_of(const Chain& chain, const Tracks& tracks, int64_t nodes, const In<3>& L0, const In<2>& m0,
                        const Given<1>& given, const Filled<1>& out, const LaneMemory& kept, const Out<4>& roots,
                        const Out<3>& means, Size<D> d, Size<P> p) {
    const auto& [seen, scale, smooth, z] = given;
    const auto& [mean, cov, innovation, S, loglik] = out;
    const int paths = static_cast<int>(tracks.row.shape[0]);
    const int64_t N = mean.shape[1], T = z.shape[1];
    const LaneVector zero = {}, one = zero + 1.0;
    StateSpace<D, SMOOTH, LaneVector> space(d);
    ObservationSpace<D, P, LaneVector> observed(d, p);
    Scratch<LaneVector, D * D> square(d * d);
    LaneStep<D> move(d);
    Rows at, obs, filled, shown;   // of each lane at work: in the chain; rows of the arrays that they fill
    auto& A = space.A;
    auto& Y = observed.Y;
    constexpr int ROOM = P == 0 ? 0 : (P * P + LANES<double>) / LANES<double> * LANES<double>;
    Scratch<LaneVector, D> x(d), before(d);
    Scratch<LaneVector, P> v(p), rest(p);
    Scratch<LaneVector, ROOM> written(p * p + LANES<double>);   // what is written of an observation
    unsigned active = 0;                                    // bit l: path l has set out
    LaneVector share = zero;                                 // 1 for those paths
    const auto next_start = [&](int64_t k) {                 // the first node from k on at which a path sets out
        int64_t next = nodes;
        for (int l = 0; l < paths; l++)
            if (tracks.start[l] >= k && tracks.start[l] < next) next = tracks.start[l];
        return next;
    };
    int64_t set_row = -1, start = next_start(0);
    for (int64_t k = start; k < nodes; k++) {
        int64_t o = -1;                                      // an observation that is shown now
        unsigned shows = 0;
        for (int l = 0; l < LANES<double>; l++) {            // lanes without a path repeat the first
            const int lane = l < paths ? l : 0;
            at[l] = tracks.begin[lane] + k, obs[l] = chain.obs[at[l]];
            filled[l] = tracks.row[lane] * N + at[l], shown[l] = tracks.row[lane] * T + obs[l];
            if (obs[l] < 0) continue;
            o = obs[l], shows |= 1u << l;
        }
        for (int l = 0; l < paths && k == start; l++) {      // path l sets out
            if (tracks.start[l] != k) continue;
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
            move.take(chain, at, d);
            predict_root(&move.F[0], &move.root[0], space, d);
            for (int i = 0; i < d; i++) before[i] = x[i];
            for (int i = 0; i < d; i++) {                                      // m <- F m + b
                LaneVector t = move.b[i];
                for (int j = 0; j < d; j++) t += move.F[j * d + i] * before[j];
                x[i] = t;
            }
        }
        if (SMOOTH)
            for (int c = 0; c < d; c++)
                for (int i = 0; i < d; i++) node.D[c * d + i] = A(d + c, d + i);
        if (o < 0 && SMOOTH)
            for (int a = 0; a < p; a++) {
                node.e[a] = zero;
                for (int i = 0; i < d; i++) node.V[a * d + i] = zero;
            }
        if (o >= 0) {
            const int64_t c = chain.cfg[o];
            const double *H = chain.H.row(c), *R = chain.R.row(c), *off = chain.off.row(c);
            if (c != set_row) set_observation(H, observed, d, p);
            set_row = c;
            LaneVector strength = one;
            for (int l = 0; l < paths; l++)
                if (shows >> l & 1u) strength[l] = scale[shown[l]];
            for (int a = 0; a < p; a++) {                                      // v = z - off - H m
                LaneVector t = zero, there = zero;
                for (int l = 0; l < paths; l++)
                    if (shows >> l & 1u) there[l] = seen[shown[l] * p + a], t[l] = z[shown[l] * p + a];
                there *= share;
                t -= off[a];
                for (int i = 0; i < d; i++) t -= H[a * d + i] * x[i];
                observed.seen[a] = there;
                v[a] = rest[a] = where_positive(there, t, zero);
            }
            innovation_cov(R, strength, A, observed, d, p);
            if (split_noise(R, strength, observed, p)) {
                make_independent(observed, d, p);
                for (int a = 0; a < p; a++)
                    for (int b = 0; b < a; b++) rest[a] -= observed.low[a * p + b] * rest[b];
            }
            LaneVector total = zero, worst = one;
            each<P>(0, p, [&](int a) AFA_HERE {
                const LaneVector there = observed.seen[a], f = innovation_variance(observed, a, d), width = root(f);
                const LaneVector scaled = where_positive(there, LaneVector(1.0 / width), zero);
                const LaneVector shrink = where_positive(there, LaneVector(1.0 / (f + width * root(observed.noise[a]))), zero);
                const LaneVector unit = rest[a] * scaled;
                if (SMOOTH) node.e[a] = unit;
                each<D>(0, (SMOOTH ? 2 * d : d), [&](int i) {
                    const LaneVector gain = condition(A, i, observed.phi, scaled, shrink, d);
                    if (i < d) x[i] += gain * unit, observed.gain[i] = gain * scaled;   // m <- m + W e
                    else node.V[a * d + i - d] = gain;
                });
                for (int b = a + 1; b < p; b++) rest[b] -= condition(Y, b, observed.phi, scaled, shrink, d) * unit;
                const LaneVector vague = where_positive(there, LaneVector(PRECISE * f - observed.noise[a]), -one);
                if (__builtin_expect(!all_between(vague, -HUGE_VAL, 0.0), 0))
                    restore(A, observed, a, root(LaneVector(observed.noise[a] * scaled * scaled)), where_positive(vague, one, zero), d, p);
                const LaneVector margin = f - KNOWN_EXACTLY * observed.cov(a, a);
                worst = where_positive(LaneVector(there * (margin > zero ? zero : one)), -one, worst);
                total += where_positive(there, LaneVector(LOG_2PI + log(f) + unit * unit), zero);
            });
            worst = where_positive(share, worst, one);
            if (!all_between(worst, 0.0, HUGE_VAL)) return k;
            const unsigned wanted = active & shows & tracks.wanted(k);
            for (int a = 0; a < p; a++) written[a] = where_positive(observed.seen[a], v[a], zero + NAN);
            write_rows<P>(&written[0], innovation.data, shown, p, wanted);
            for (int a = 0; a < p; a++)
                for (int b = 0; b < p; b++) written[a * p + b] = observed.cov(a, b);
            write_rows<P * P>(&written[0], S.data, shown, p * p, wanted);
            for (int l = 0; l < paths; l++)
                if (wanted >> l & 1u) loglik[shown[l]] = -0.5 * total[l];
        }
        if (SMOOTH)
            for (int i = 0; i < d; i++) {
                node.mean[i] = x[i];
                for (int c = 0; c < d; c++) {
                    node.L[c * d + i] = A(c, i);
                    node.T[c * d + i] = A(c, d + i);
                }
            }
        if (k == nodes - 1 || !SMOOTH) {
            const unsigned wanted = active & tracks.wanted(k);
            outer<D>(A, &square[0], d);
            write_rows<D>(&x[0], mean.data, filled, d, wanted);
            write_rows<D * D>(&square[0], cov.data, filled, d * d, wanted);
        }
        for (int l = 0; l < paths; l++) {
            if (k == tracks.first[l] - 1) record(x, A, l, 0, means, roots, d);
            if (k == tracks.stop[l] - 1) record(x, A, l, 1, means, roots, d);
        }
    }
    return -1;
}

// Filter `nodes` nodes of each track, at most LANES of them, of paths z (n, T, p); where they show something at the same time,
// it is the same row of H, off and R.
//
// L0 (tracks, d, d), by columns, m0 (tracks, d): root and mean one node before a track's start (at its node 0: there, before its
// observation). Fills what is wanted, means and cov with `smooth` of the last node only, and, with `smooth`, what is kept; roots (tracks, 2, d, d) and means (tracks, 2, d): the laws at nodes first - 1 and stop - 1. Returns -1, or a node
// of tracks at which an innovation covariance is singular.
inline int64_t filter_lanes(Chain chain, Tracks tracks, int64_t nodes, In<3> L0, In<2> m0, Given<1> given, Filled<1> out,
                            LaneMemory kept, Out<4> roots, Out<3> means) {
    nodes = tracks.within(out.mean.shape[1], given.smooth ? std::min(nodes, kept.mean.shape[0]) : nodes);
    return with_sizes(out.mean.shape[2], given.z.shape[2], [&](auto d, auto p) {
        return given.smooth ? filter_lanes_of<true>(chain, tracks, nodes, L0, m0, given, out, kept, roots, means, d, p)
                            : filter_lanes_of<false>(chain, tracks, nodes, L0, m0, given, out, kept, roots, means, d, p);
    });
}

template <int D, int P>
void smooth_lanes_of(const LaneMemory& kept, const Tracks& tracks, int64_t nodes, const Out<3>& mean, const Out<4>& cov,
                     const Out<4>& roots, const Out<3>& means, Size<D> d, Size<P> p) {
    const int paths = static_cast<int>(tracks.row.shape[0]);
    const int64_t N = mean.shape[1], last = *std::min_element(tracks.first.data, tracks.first.data + paths);
    Columns<2 * D, D, LaneVector> A(2 * d, d);
    Columns<D, D, LaneVector> LZ(d, d);
    Scratch<LaneVector, 2 * D> scratch(2 * d);
    Scratch<LaneVector, D> y(d), before(d), x(d);
    Scratch<LaneVector, D * D> square(d * d);
    for (int i = 0; i < d; i++) A(i, i) += 1.0;
    for (int64_t k = nodes - 1; k >= last; k--) {
        if (k < nodes - 1) {
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
            triangularise(A, scratch, d, Size<2 * D>(2 * d), Size<2 * D>(2 * d));
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
            Rows filled;
            for (int l = 0; l < paths; l++) filled[l] = tracks.row[l] * N + tracks.begin[l] + k;
            const unsigned wanted = tracks.wanted(k);
            outer<D>(LZ, &square[0], d);
            scatter(&x[0], mean.data, filled, d, wanted);                   // here: a call would cost a tenth
            scatter(&square[0], cov.data, filled, d * d, wanted);
        }
        for (int l = 0; l < paths; l++) {
            if (k == tracks.first[l]) record(y, A, l, 0, means, roots, d);
            if (k == tracks.stop[l]) record(x, LZ, l, 1, means, roots, d);
        }
    }
}

// What is wanted of the means (n, N, d) and cov (n, N, d, d) of every track's nodes but the last, smoothed by all of them.
//
// roots (tracks, 2, d, d), by columns, and means (tracks, 2, d) get root and mean of xi at node `first`, and those of the state
// at node `stop`, where there is one.
inline void smooth_lanes(LaneMemory kept, Tracks tracks, int64_t nodes, Out<3> mean, Out<4> cov, Out<4> roots, Out<3> means) {
    const Size<0> p(kept.e.shape[1]);   // of little weight here: one instance for all
    nodes = tracks.within(mean.shape[1], std::min(nodes, kept.mean.shape[0]));
    with_size(mean.shape[2], [&](auto d) { smooth_lanes_of(kept, tracks, nodes, mean, cov, roots, means, d, p); });
}

}
}  // namespace afa
