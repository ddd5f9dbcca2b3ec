// Whole series along a flat start: filter until delta is integrated out, smoother back from there, reports.
//
// Symbols as in flat.h. Per node k of the flat part, c of them, kept for the smoother and for reports: directions
// (c, q, d), the first count[k] of which some observation up to k has seen, `tolerance` (c, q, d) up to where an
// entry of the open ones counts as 0, T (c, q, q) and s (n, c, q).
#pragma once
#include <algorithm>

#include "flat.h"

namespace afa {
inline namespace AFA_LEVEL {

struct FlatKept {
    Out<3> M, tolerance, T, s, E;            // E (T, p, q)
    View<int64_t, 1> count;
    Out<2> turned;                       // (q, q): the columns D in terms of the final directions' delta and gamma
    template <class Visit> void members(Visit&& visit) { visit(M, tolerance, T, s, E, count, turned); }
};
constexpr const char* KEPT = "M(c,q,d) tolerance(c,q,d) T(c,q,q) s(paths,c,q) E(T,p,q) count(c) turned(q,q) ";

// What is known before the first observation (`FlatState`), and afterwards; and what `DiffuseDirections` says of directions besides.
struct FlatLaw {
    Out<2> L, m, M, T, s;
    template <class Visit> void members(Visit&& visit) { visit(L, m, M, T, s); }
};
constexpr const char* FLAT_LAW = "L(d,d) m(paths,d) M(q,d) T(q,q) s(paths,q) ";
struct OpenDoubts {
    Out<3> error;                        // (q, d, d)
    Out<2> peak, late;                   // (q, d)
    template <class Visit> void members(Visit&& visit) { visit(error, peak, late); }
};

inline double stamp_at(const In<1>& times, int64_t k) {
    return k > 0 ? larger(std::fabs(times[k]), std::fabs(times[k - 1])) : 0.0;
}

// The change of directions a and b (see `close_direction`) at the first `nodes` nodes too.
inline void turn_kept(const Out<3>& M, const Out<3>& tolerance, int64_t nodes, int a, int b, double c, double back, double s,
                      double angle_error) {
    const int d = static_cast<int>(M.shape[2]);
    for (int64_t k = 0; k < nodes; k++) {
        move_pair(M.row(k) + a * d, M.row(k) + b * d, d, c, back, s);
        double *u = tolerance.row(k) + a * d, *v = tolerance.row(k) + b * d;
        for (int i = 0; i < d; i++) {
            const double x = u[i], y = v[i];
            u[i] = std::fabs(c) * x + std::fabs(back) * y;
            v[i] = std::fabs(c) * y + std::fabs(s) * x + angle_error * std::fabs(M.row(k)[a * d + i]);
        }
    }
}

// Direction j at the nodes before k in the units that the last step has left it in, unless it would leave the
// floating-point range there.
inline void same_units(const Out<3>& M, const Out<3>& tolerance, int64_t k, DiffuseDirections& diffuse, int j) {
    constexpr double MOST = 0x1p400;
    const int d = diffuse.d;
    const double unit = std::exp(-diffuse.grown[j] < 250.0 ? -diffuse.grown[j] : 250.0);
    for (int64_t l = 0; l < k && unit != 1.0; l++) {
        double *before = M.row(l) + j * d, *zero = tolerance.row(l) + j * d, size = 0.0;
        for (int i = 0; i < d; i++) size = larger(size, std::fabs(before[i]));
        const double factor = size * unit < MOST ? unit : MOST / size;
        for (int i = 0; i < d; i++) before[i] *= factor, zero[i] *= factor;
    }
}

// What observations that show H x (p, d) leave open of a flat state, node by node, until nothing is; how many nodes
// that took. F (k, d, d), by columns, leads into each; seen (k, p). At every node the directions M (k, d, d), as rows,
// those seen so far first, `tolerance`, up to where an entry of the others counts as 0, and count (k) of those seen; scaled:
// as in `forget`, the transitions e^{rate tau} F; turned: whether nodes keep their directions by what is seen later, too.
inline int64_t observability(In<3> F, In<1> times, ComponentSizes sizes, In<2> H, Flags<2> seen, Out<3> M, Out<3> tolerance,
                        View<int64_t, 1> count, In<1> rate, bool scaled, bool turned) {
    const int d = static_cast<int>(H.shape[1]);
    DiffuseDirections diffuse(d, d);
    diffuse.scaled = scaled;
    Scratch<double, 0> start(d * d);
    for (int i = 0; i < d; i++) start[i * d + i] = 1.0;
    begin_diffuse(&start[0], diffuse);
    if (scaled) tell_apart(diffuse, rate);
    else tell_apart(diffuse, sizes.growth);
    int64_t k = 0;
    for (; k < F.shape[0] && diffuse.first < d; k++) {
        if (k > 0) carry_directions(F.row(k), times[k] - times[k - 1], stamp_at(times, k), sizes, diffuse, scaled ? rate.row(0) : nullptr);
        for (int j = diffuse.first; scaled && turned && k > 0 && j < d; j++) same_units(M, tolerance, k, diffuse, j);
        for (int64_t a = 0; a < H.shape[0] && diffuse.first < d; a++)
            if (seen.row(k)[a] && observes(H.row(a), diffuse))
                close_direction(H.row(a), diffuse, [&](int i, int j, double c, double back, double s, double angle_error) {
                    if (turned) turn_kept(M, tolerance, k, i, j, c, back, s, angle_error);
                });
        for (int j = 0; j < d; j++)
            for (int i = 0; i < d; i++) {
                M.row(k)[j * d + i] = j < diffuse.first ? 0.0 : diffuse.direction(j)[i];
                tolerance.row(k)[j * d + i] = j < diffuse.first ? 0.0 : rounding(diffuse, j, i);
            }
        count[k] = diffuse.first;
    }
    return k;
}

// The node after k at which an open direction is next seen, the number of nodes if none ever is.
inline int64_t next_observed(Chain& chain, const In<1>& times, const ComponentSizes& sizes, const Flags<2>& seen, int64_t k,
                          const DiffuseDirections& now, DiffuseDirections& ahead) {
    const int64_t nodes = chain.step.shape[0], p = seen.shape[1];
    ahead.copy(now);
    for (k++; k < nodes; k++) {
        carry_directions(chain.F.row(chain.step[k]), times[k] - times[k - 1], stamp_at(times, k), sizes, ahead);
        const int64_t o = chain.obs[k];
        if (o < 0) continue;
        const double* H = chain.H.row(chain.cfg[o]);
        for (int64_t a = 0; a < p; a++)
            if (seen.row(o)[a] && observes(H + a * ahead.d, ahead)) return k;
    }
    return k;
}

// directions (nodes - from, r, d) and tolerance at the nodes from `from` on, where they are `start` after so many steps.
inline void carry_open(Chain chain, In<1> times, ComponentSizes sizes, int64_t from, In<2> start, OpenDoubts doubts, double steps,
                       Out<3> directions, Out<3> tolerance) {
    const int d = static_cast<int>(start.shape[1]), r = static_cast<int>(start.shape[0]);
    DiffuseDirections diffuse(d, r);
    begin_diffuse(start.data, diffuse);
    std::copy_n(doubts.error.data, doubts.error.size(), &diffuse.Omega[0]);
    std::copy_n(doubts.peak.data, doubts.peak.size(), &diffuse.peak[0]);
    std::copy_n(doubts.late.data, doubts.late.size(), &diffuse.late[0]);
    diffuse.steps = steps;
    for (int64_t k = from; k < chain.step.shape[0]; k++) {
        if (k > from) carry_directions(chain.F.row(chain.step[k]), times[k] - times[k - 1], stamp_at(times, k), sizes, diffuse);
        for (int j = 0; j < r; j++)
            for (int i = 0; i < d; i++) {
                directions.row(k - from)[j * d + i] = diffuse.direction(j)[i];
                tolerance.row(k - from)[j * d + i] = rounding(diffuse, j, i);
            }
    }
}

// Nodes 0, 1, ... until delta is integrated out and what is open will not be seen, or as many as `kept` holds.
//
// law is left as it is after the last node (L and m with delta integrated out once that happened; rotation: see `integrate_out`). Filled
// per node: gains, cov and means given delta = 0; per observation S and the innovation given delta = 0. smooth: whether earlier means
// follow where the origin of a direction is moved; without a smoother they are right as they are, and keep digits where that is far.
// outcome: nodes done, whether integrated, node of a singular innovation or -1, count. facts: doubts, steps of the open directions.
inline void filter_flat(Chain chain, Gains gains, In<1> times, ComponentSizes sizes, FlatLaw law, Given<0> given, Filled<0> out,
                        FlatKept kept, OpenDoubts doubts, Out<1> rotation, View<int64_t, 1> outcome, Out<1> facts) {
    const auto& [L, m, M, T, s] = law;
    const In<3>& z = given.z;
    const int d = static_cast<int>(L.shape[0]), p = static_cast<int>(z.shape[2]), q = static_cast<int>(M.shape[0]);
    const int64_t n = z.shape[0], nodes = chain.step.shape[0], obs = z.shape[1], room = kept.M.shape[0];
    const Size<0> D(d);
    FlatState x{d, p, q, 0, M.data, T.data, s.data, L.data, m.data, n};
    FlatWork work(d, p, q, n);
    DiffuseDirections& diffuse = work.diffuse;
    auto& A = work.space.A;
    tell_apart(diffuse, sizes.growth);
    begin_diffuse(M.data, diffuse);
    read_columns(L.data, A, D, D);
    outcome[0] = 0, outcome[1] = 0, outcome[2] = -1;
    int64_t k = 0, next_node = -1;
    for (; k < nodes && k < room; k++) {
        auto turn = [&](int a, int b, double c, double back, double s_, double angle_error) {
            turn_kept(kept.M, kept.tolerance, k, a, b, c, back, s_, angle_error);
        };
        auto shift = [&](int64_t path, int j, double by) {
            for (int64_t earlier = 0; given.smooth && earlier < k; earlier++)
                for (int i = 0; i < d; i++)
                    out.mean.data[(path * nodes + earlier) * d + i] += kept.M.row(earlier)[j * d + i] * by;
        };
        const int64_t o = chain.obs[k];
        gains.slot[k] = k;
        if (k > 0) {
            predict_flat(chain, chain.step[k], times[k] - times[k - 1], stamp_at(times, k), sizes, x, work);
        }
        write_columns(A, d, d, gains.D.row(k), D, D);
        if (o >= 0) {
            const int64_t c = chain.cfg[o];
            const double half = update_flat(chain.H.row(c), chain.off.row(c), chain.R.row(c), given.scale[o], given.seen.row(o),
                                            z.data + o * p, obs * p, x, out.S.row(o), kept.E.row(o), out.innovation.data + o * p,
                                            out.loglik.data + o, obs, gains.W.row(k), gains.K.row(k), gains.V.row(k), work, turn, shift);
            if (std::isnan(half)) {
                outcome[2] = k;
                break;
            }
        }
        write_columns(A, 0, 0, L.data, D, D);
        write_columns(A, 0, 0, gains.root.row(k), D, D);
        write_columns(A, 0, d, gains.T.row(k), D, D);
        if ((o >= 0 || x.count == 0) && (x.count == q || next_node <= k) && can_collapse(x, L.data, &work.inverse[0])) {
            if (x.count < q && next_node <= k) next_node = next_observed(chain, times, sizes, given.seen, k, diffuse, work.ahead);
            if (x.count == q || next_node == nodes) {
                outcome[1] = 1;
                integrate_out(x, L.data, &work.inverse[0], rotation.data);
                read_columns(L.data, A, D, D);
                write_columns(A, 0, 0, gains.root.row(k), D, D);
            }
        }
        gram(A, out.cov.row(k), D, D);
        for (int64_t path = 0; path < n; path++)
            std::copy_n(m.data + path * d, d, out.mean.data + (path * nodes + k) * d);
        for (int j = x.count; j < q; j++) std::copy_n(diffuse.direction(j), d, M.data + j * d);
        if (outcome[1] == 1) {
            k++;
            break;
        }
        std::copy_n(M.data, q * d, kept.M.row(k));
        for (int j = 0; j < q; j++)
            for (int i = 0; i < d; i++) kept.tolerance.row(k)[j * d + i] = j < x.count ? 0.0 : rounding(diffuse, j, i);
        std::copy_n(T.data, q * q, kept.T.row(k));
        for (int64_t path = 0; path < n; path++)
            std::copy_n(s.data + path * q, q, kept.s.data + (path * room + k) * q);
        kept.count[k] = x.count;
    }
    outcome[0] = k, outcome[3] = x.count;
    work.measures.write(facts.data);
    facts[3] = diffuse.steps;
    std::copy_n(&diffuse.start[0], q * q, kept.turned.data);
    std::copy_n(&diffuse.Omega[0], q * d * d, doubts.error.data);
    std::copy_n(&diffuse.peak[0], q * d, doubts.peak.data);
    std::copy_n(&diffuse.late[0], q * d, doubts.late.data);
}

// Add to x = m + M delta + noise what T delta = s + N(0, I) says of delta: m += M T^-1 s, P += (M T^-1) (M T^-1)^T.
//
// M (q, d), of which `count` rows count, T (q, q), s (n rows `to_s` apart), m (n rows `to_m` apart), P (d, d).
struct DeltaMarginal {
    Scratch<double, 0> inverse, root;
    DeltaMarginal(int64_t q, int64_t d) : inverse(q * q), root(q * d) {}

    void add_delta(const double* M, const double* T, const double* s, int64_t to_s, int c, int q, int d, int64_t n, double* m,
                int64_t to_m, double* P) {
        invert_lower(T, &inverse[0], c, q);
        for (int j = 0; j < c; j++)
            for (int i = 0; i < d; i++) {
                root[j * d + i] = 0.0;
                for (int l = j; l < c; l++) root[j * d + i] += M[l * d + i] * inverse[l * q + j];
            }
        for (int i = 0; i < d; i++)
            for (int l = 0; l < d; l++)
                for (int j = 0; j < c; j++) P[i * d + l] += root[j * d + i] * root[j * d + l];
        for (int64_t path = 0; path < n; path++)
            for (int j = 0; j < c; j++)
                for (int i = 0; i < d; i++) m[path * to_m + i] += root[j * d + i] * s[path * to_s + j];
    }
};
// The same at each of k nodes: M (k, q, d), T (k, q, q), s (n, k, q), m (n, k, d), P (k, d, d).
inline void add_delta(In<3> M, In<3> T, In<3> s, Index<1> count, Out<3> m, Out<3> P) {
    const int64_t k = M.shape[0], n = m.shape[0];
    const int q = static_cast<int>(M.shape[1]), d = static_cast<int>(M.shape[2]);
    DeltaMarginal space(q, d);
    for (int64_t at = 0; at < k; at++)
        space.add_delta(M.row(at), T.row(at), s.data + at * q, k * q, static_cast<int>(count[at]), q, d, n, m.data + at * d, k * d,
                     P.row(at));
}

// Report what is undetermined of a law, m (n rows `to_m` apart) and P (d, d): NaN means, infinite variances, no covariances.
// diffuse(i): whether a direction without prior moves component i. Returns whether one does.
template <class Open> bool mark(double* m, int64_t to_m, int64_t n, double* P, int d, Open diffuse) {
    bool any = false;
    for (int i = 0; i < d; i++) {
        const bool moved = diffuse(i);
        any = any || moved;
        if (!moved && std::isfinite(P[i * d + i])) continue;
        for (int64_t path = 0; path < n; path++) m[path * to_m + i] = NAN;
        for (int l = 0; l < d; l++)
            if (l != i) P[i * d + l] = P[l * d + i] = 0.0;
        P[i * d + i] = HUGE_VAL;
    }
    return any;
}

// The laws at the nodes 0, ..., c - 1 as they are reported, from those given delta = 0 (smoothed: from those of the smoother),
// and as they are given gamma = 0: means `given` (n, c, d), `cov` (c, d, d), and which directions, M and `tolerance`, are open:
// others become 0. Returns at how many nodes one moves a component.
inline int64_t report_states(Out<3> M, Out<3> tolerance, In<3> T, In<3> s, Index<1> count, bool smoothed, Out<3> mean, Out<3> P,
                             Out<3> given, Out<3> cov) {
    const int64_t nodes = M.shape[0], n = mean.shape[0], N = mean.shape[1];
    const int q = static_cast<int>(M.shape[1]), d = static_cast<int>(M.shape[2]);
    DeltaMarginal space(q, d);
    int64_t diffuse = 0;
    for (int64_t k = 0; k < nodes; k++) {
        const int c = static_cast<int>(count[k]);
        double *m = mean.data + k * d, *directions = M.row(k), *zero = tolerance.row(k);
        if (!smoothed) space.add_delta(directions, T.row(k), s.data + k * q, nodes * q, c, q, d, n, m, N * d, P.row(k));
        std::fill(directions, directions + c * d, 0.0), std::fill(zero, zero + c * d, 0.0);
        for (int64_t path = 0; path < n; path++) std::copy(m + path * N * d, m + path * N * d + d, given.row(path) + k * d);
        std::copy(P.row(k), P.row(k) + d * d, cov.row(k));
        diffuse += mark(m, N * d, n, P.row(k), d, [&](int i) {
            bool moved = false;
            for (int j = c; j < q; j++) moved = moved || !(std::fabs(directions[j * d + i]) <= zero[j * d + i]);
            return moved;
        });
    }
    return diffuse;
}

// Innovations v (n, T, p) and S (T, p, p) of the nodes 0, ..., stop - 1, given delta = 0, with delta as it was known before
// each: v -= E T^-1 s, E (T, p, q); undetermined where they show a direction that no earlier observation saw. count (k) of
// the first k of the c nodes for which T and s have room.
inline void report_innovations(Index<1> obs, int64_t stop, In<3> E, In<3> T, In<3> s, Index<1> count, Out<3> v, Out<3> S) {
    const int64_t n = v.shape[0], total = v.shape[1], nodes = s.shape[1];
    const int p = static_cast<int>(E.shape[1]), q = static_cast<int>(E.shape[2]);
    DeltaMarginal space(q, p);
    Scratch<double, 0> less(q * p);
    for (int64_t k = 0; k < stop && k <= std::min(count.shape[0], nodes); k++) {
        const int64_t o = obs[k];
        if (o < 0) continue;
        const double* shown = E.row(o);
        const int c = k > 0 ? static_cast<int>(count[k - 1]) : 0;
        for (int j = 0; j < q; j++)
            for (int a = 0; a < p; a++) less[j * p + a] = -shown[a * q + j];
        if (c > 0)
            space.add_delta(&less[0], T.row(k - 1), s.data + (k - 1) * q, nodes * q, c, q, p, n, v.data + o * p, total * p, S.row(o));
        mark(v.data + o * p, total * p, n, S.row(o), p, [&](int a) {
            bool moved = false;
            for (int j = c; j < q; j++) moved = moved || !(shown[a * q + j] == 0.0);
            return moved;
        });
    }
}

// Nodes last - 1, ..., 0 from the joint law of (xi, delta) after node `last` (Park & Kailath 1995 for the root).
//
// J (d + c, d + c), by rows, is its root, y (n, d + c) its means; c = count of the end. innovation holds those given
// delta = 0; mean (n, N, d) and P (N, d, d), filtered given delta = 0, become the smoothed marginals.
inline void smooth_flat(Chain chain, int64_t last, Gains gains, In<3> M, In<3> E, In<3> innovation, Flags<2> seen, Out<2> J,
                        Out<2> y, Out<3> mean, Out<3> P) {
    const int d = static_cast<int>(M.shape[2]), q = static_cast<int>(M.shape[1]), wide = static_cast<int>(J.shape[0]);
    const int c = wide - d, p = static_cast<int>(innovation.shape[2]);
    const int64_t paths = innovation.shape[0], nodes = mean.shape[1], obs = innovation.shape[1];
    Columns<0, 0> A(wide + d, wide), X(wide, d);
    Scratch<double, 0> v(wide + d), joint(d * wide), fresh(d);
    for (int64_t k = last - 1; k >= 0; k--) {
        const int64_t o = chain.obs[k + 1];
        const double *T = gains.T.row(k + 1), *V = gains.V.row(k + 1), *K = gains.K.row(k + 1), *D = gains.D.row(k + 1);
        for (int i = 0; i < d; i++) {                                        // xi = T xi' + V K (v - E delta) + D eta
            for (int l = 0; l < wide; l++) joint[i * wide + l] = l < d ? T[l * d + i] : 0.0;
            if (o < 0) continue;
            for (int a = 0; a < p; a++)
                for (int b = 0; b <= a; b++)
                    for (int j = 0; j < c; j++) joint[i * wide + d + j] -= V[a * d + i] * K[b * p + a] * E.row(o)[b * q + j];
        }
        for (int l = 0; l < wide; l++) {                                     // [joint J, D; (0 I) J, 0]
            for (int i = 0; i < d; i++) {
                double t = 0.0;
                for (int j = 0; j < wide; j++) t += joint[i * wide + j] * J[j * wide + l];
                A.set(l, i, t);
            }
            for (int j = d; j < wide; j++) A.set(l, j, J[j * wide + l]);
        }
        for (int l = 0; l < d; l++)
            for (int i = 0; i < wide; i++) A.set(wide + l, i, i < d ? D[l * d + i] : 0.0);
        triangularise(A, v, Size<0>(wide), Size<0>(wide + d), Size<0>(wide + d));
        for (int i = 0; i < wide; i++)
            for (int l = 0; l < wide; l++) J[i * wide + l] = A.at(l, i);
        const double *root = gains.root.row(k), *moved = M.row(k);
        for (int l = 0; l < wide; l++)
            for (int i = 0; i < d; i++) {                                    // (L, M) J
                double t = 0.0;
                for (int j = 0; j < wide; j++) t += (j < d ? root[j * d + i] : moved[(j - d) * d + i]) * J[j * wide + l];
                X.set(l, i, t);
            }
        gram(X, P.row(k), Size<0>(d), Size<0>(wide));
        for (int64_t path = 0; path < paths; path++) {
            double *own = y.row(path), *m = mean.data + (path * nodes + k) * d;
            for (int i = 0; i < d; i++) {
                fresh[i] = 0.0;
                for (int l = 0; l < wide; l++) fresh[i] += joint[i * wide + l] * own[l];
            }
            for (int a = 0; o >= 0 && a < p; a++) {
                double e = 0.0;
                for (int b = 0; b <= a; b++)
                    if (seen.row(o)[b]) e += K[b * p + a] * innovation.data[(path * obs + o) * p + b];
                for (int i = 0; i < d; i++) fresh[i] += V[a * d + i] * e;
            }
            for (int i = 0; i < d; i++) own[i] = fresh[i];
            for (int j = 0; j < wide; j++)
                for (int i = 0; i < d; i++) m[i] += (j < d ? root[j * d + i] : moved[(j - d) * d + i]) * own[j];
        }
    }
}

}
}  // namespace afa
