// One node at a time for many paths, each with its own covariance: what reweighting needs. Symbols as in flat.h.
#pragma once
#include "flat.h"

namespace afa {
inline namespace AFA_LEVEL {

// Of each path: L (n, d, d) and directions M (n, q, d) by columns, means m (n, d), T (n, q, q), s (n, q), error (n, q, d, d), peak
// and late (n, q, d) of open directions after so many steps (n), and count (n) of those seen; -1 once delta is integrated out. doubt (n, q, 3):
// pivot_error, row_error and hidden of each direction (flat.h, rank.h), start (n, q, q): see rank.h.
struct FlatPaths {
    Out<3> L;
    Out<2> m;
    Out<3> M, T;
    Out<2> s;
    Out<4> error;
    Out<3> peak, late;
    Out<1> steps;
    Out<3> doubt, start;
    View<int64_t, 1> count;
    template <class Visit> void members(Visit&& visit) { visit(L, m, M, T, s, error, peak, late, steps, doubt, start, count); }
};
constexpr const char* PATHS =
    "L(paths,d,d) m(paths,d) M(paths,q,d) T(paths,q,q) s(paths,q) error(paths,q,d,d) peak(paths,q,d) late(paths,q,d) steps(paths) doubt(paths,q,3) start(paths,q,q) count(paths) ";

// move(in work, in all, how many numbers) for everything that `work` holds of a path.
template <class Move> void for_each_part(FlatPaths& all, int64_t path, FlatWork& work, Move move) {
    DiffuseDirections& diffuse = work.diffuse;
    const int d = diffuse.d, q = diffuse.q, first = diffuse.first, open = q - first;
    move(&diffuse.steps, &all.steps[path], 1);
    for (int j = 0; j < q; j++) {
        double* doubt = all.doubt.row(path) + 3 * j;
        move(&work.pivot_error[j], doubt, 1), move(&work.row_error[j], doubt + 1, 1), move(&diffuse.hidden[j], doubt + 2, 1);
    }
    move(diffuse.direction(first), all.M.row(path) + first * d, open * d);
    move(diffuse.error(first), all.error.row(path) + first * d * d, open * d * d);
    move(&diffuse.peak[first * d], all.peak.row(path) + first * d, open * d);
    move(&diffuse.late[first * d], all.late.row(path) + first * d, open * d);
    move(&diffuse.start[0], all.start.row(path), q * q);
}
// One path, with what `work` needs of it; a path without open directions needs none of it.
inline FlatState take_path(FlatPaths& all, int64_t path, int p, FlatWork& work) {
    const int d = work.diffuse.d, q = work.diffuse.q, count = static_cast<int>(all.count[path]);
    work.diffuse.first = count < 0 ? q : count;
    for_each_part(all, path, work, [](double* own, const double* given, int n) { std::copy_n(given, n, own); });
    read_columns(all.L.row(path), work.space.A, Size<0>(d), Size<0>(d));
    return {d, p, q, count < 0 ? 0 : count, all.M.row(path), all.T.row(path), all.s.row(path), all.L.row(path), all.m.row(path), 1};
}
inline void leave_path(FlatPaths& all, int64_t path, FlatWork& work) {
    for_each_part(all, path, work, [](const double* own, double* to, int n) { std::copy_n(own, n, to); });
    write_columns(work.space.A, 0, 0, all.L.row(path), Size<0>(work.diffuse.d), Size<0>(work.diffuse.d));
}

// Carry every path over one step of length tau; stamp: size of its time stamps.
inline void predict_all(Chain chain, int64_t k, double tau, double stamp, ComponentSizes sizes, FlatPaths all) {
    const int64_t d = all.m.shape[1], p = chain.H.shape[1], q = all.s.shape[1];
    FlatWork work(d, p, q, 1);
    for (int64_t path = 0; path < all.m.shape[0]; path++) {
        FlatState x = take_path(all, path, static_cast<int>(p), work);
        predict_flat(chain, chain.step[k], tau, stamp, sizes, x, work);
        leave_path(all, path, work);
    }
}

// Innovations v (n, p) of observation o, the covariance S (n, p, p) of its prediction without measurement noise, and
// whether (n, p) the data so far determine the prediction.
inline void innovations_all(Chain chain, int64_t o, In<3> z, FlatPaths all, Out<2> v, Out<3> S, View<uint8_t, 2> known) {
    const int64_t d = all.m.shape[1], p = v.shape[1], q = all.s.shape[1], c = chain.cfg[o];
    FlatWork work(d, p, q, 1);
    Scratch<double, 0> share(p * q);
    for (int64_t path = 0; path < v.shape[0]; path++) {
        const FlatState x = take_path(all, path, static_cast<int>(p), work);
        predict_shown(chain.H.row(c), chain.off.row(c), chain.R.row(c), z.row(path) + o * p, x, work, v.row(path), S.row(path),
                      &share[0], known.row(path));
    }
}

// Condition every path on observation o, noise covariance times scale (n); seen (n, p). Fills loglik (n), that of the
// observation given those before it; facts: doubts. Whether an innovation was known exactly.
inline bool update_all(Chain chain, int64_t o, In<3> z, Flags<2> seen, In<1> scale, ComponentSizes sizes, FlatPaths all, Out<1> loglik, Out<1> facts) {
    const int64_t d = all.m.shape[1], p = z.shape[2], q = all.s.shape[1];
    const int64_t c = chain.cfg[o];
    FlatWork work(d, p, q, 1);
    tell_apart(work.diffuse, sizes.growth);
    Scratch<double, 0> S(p * p), E(p * q), v(p), W(p * d), K(p * p), V(p * d), rotation((d + q) * (d + q));
    for (int64_t path = 0; path < z.shape[0]; path++) {
        FlatState x = take_path(all, path, static_cast<int>(p), work);
        const double half = update_flat(chain.H.row(c), chain.off.row(c), chain.R.row(c), scale[path], seen.row(path),
                                        z.row(path) + o * p, 0, x, &S[0], &E[0], &v[0], &loglik[path], 0, &W[0], &K[0], &V[0], work,
                                        [](int, int, double, double, double, double) {}, [](int64_t, int, double) {});
        if (std::isnan(half)) return true;
        leave_path(all, path, work);
        if (all.count[path] < 0) continue;
        all.count[path] = x.count;
        if (x.count == q && can_collapse(x, x.L, &work.inverse[0])) {
            integrate_out(x, x.L, &work.inverse[0], &rotation[0]);
            all.count[path] = -1;
        }
    }
    work.measures.write(facts.data);
    return false;
}

}
}  // namespace afa
