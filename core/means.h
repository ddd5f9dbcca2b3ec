// Means of the Kalman filter and the RTS smoother, from the gains that the covariances left (covariances.h).
//
//     filter    m = F m + b,  v = z - H m - off,  e = K v,  m <- m + W e
//     smooth    xi = T xi+ + V e,  m_s = m + L xi
//
// Number = double: one path, its components side by side in packs. Number = a vector: as many paths side by side
// as it has lanes.
#pragma once
#include <algorithm>

#include "covariances.h"

namespace afa {
inline namespace AFA_LEVEL {

// Paths side by side: the l-th lane is path path[l]; lanes beyond `count` repeat the last one and are not written.
template <class Number> struct Paths {
    static constexpr int MOST = lanes_of<Number>;
    int count;
    int64_t path[MOST];
    Paths(int64_t start, int64_t paths) : count(static_cast<int>(paths - start < MOST ? paths - start : MOST)) {
        for (int l = 0; l < MOST; l++) path[l] = start + (l < count ? l : count - 1);
    }
    // x <- row k of an array (paths, rows, n).
    template <class C> AFA_INLINE void read(const double* array, int64_t rows, int64_t k, int n, C& x) const {
        if constexpr (C::ALONE) {
            each<C::BLOCKS>(0, (n + C::W - 1) / C::W, [&](int b) { x(0, b) = C::read(array + (path[0] * rows + k) * n, b, n); });
        } else {
            each<C::BLOCKS>(0, n, [&](int i) {
                Number t = {};
                for (int l = 0; l < MOST; l++) t[l] = array[(path[l] * rows + k) * n + i];
                x(0, i) = t;
            });
        }
    }
    // Row k of an array (paths, rows, n) <- x.
    template <class C> AFA_INLINE void write(const C& x, double* array, int64_t rows, int64_t k, int n) const {
        if constexpr (C::ALONE) {
            each<C::BLOCKS>(0, (n + C::W - 1) / C::W, [&](int b) {
                store_some<C::W>(array + (path[0] * rows + k) * n + b * C::W, x(0, b), n - b * C::W);
            });
        } else {
            for (int l = 0; l < count; l++) {
                double* to = array + (path[l] * rows + k) * n;
                each<C::BLOCKS>(0, n, [&](int i) { to[i] = x(0, i)[l]; });
            }
        }
    }
};

// out += M x, M by columns (columns, rows); out and x are first columns.
template <class C, class X, class N, class M>
AFA_INLINE void add_product(const double* matrix, const X& x, C& out, N rows, M columns) {
    in_groups<C::BLOCKS>(0, out.blocks(), [&](auto group, int b) {
        constexpr int G = decltype(group)::COUNT;
        typename C::Pack t[G];
        AFA_UNROLL
        for (int g = 0; g < G; g++) t[g] = out(0, b + g);
        add_columns<G, C>(t, matrix, b, rows, 0, columns, [&](int j) { return x.at(0, j); });
        AFA_UNROLL
        for (int g = 0; g < G; g++) out(0, b + g) = t[g];
    });
}
// x's first column <- 0.
template <class C, class N> AFA_INLINE void clear(C& x, N n) {
    each<C::BLOCKS>(0, (n + C::W - 1) / C::W, [&](int b) { x(0, b) = typename C::Pack{}; });
}
// x's components that are not seen <- 0 (their data may be NaN).
template <class C, class N> AFA_INLINE void drop_unseen(const uint8_t* seen, C& x, N n) {
    each<C::BLOCKS>(0, n, [&](int a) {
        if (!seen[a]) {
            if constexpr (C::W == 1) x(0, a) = typename C::Pack{};
            else x(0, a / C::W) = with_lane(x(0, a / C::W), a % C::W, 0.0);
        }
    });
}

template <class Number, int D, int P>
void filter_means_of(const Chain& chain, int64_t first, const In<2>& m, const Gains& gains, const In<3>& z,
                     const Flags<2>& seen, const Out<3>& mean, const Out<3>& innovation, const Out<2>& loglik, Size<D> d,
                     Size<P> p) {
    const int64_t N = mean.shape[1], T = z.shape[1];
    Columns<1, D, Number> x(1, d), before(1, d);
    using Shown = Columns<1, P, Number>;
    Shown v(1, p), e(1, p);
    Columns<D, P> across(d, p);
    int64_t set_row = -1;
    for (int64_t start = 0; start < mean.shape[0]; start += lanes_of<Number>) {
        const Paths<Number> paths(start, mean.shape[0]);
        paths.read(m.data, 1, 0, d, x);
        for (int64_t k = first; k < N; k++) {
            const int64_t o = chain.obs[k];
            if (o >= 0) paths.read(z.data, T, o, p, v);
            if (k > 0) {                                                       // m <- F m + b
                const int64_t u = chain.step[k];
                each<D>(0, (d + before.W - 1) / before.W, [&](int b) {
                    before(0, b) = x(0, b);
                    x(0, b) = x.read(chain.b.row(u), b, d) + typename Columns<1, D, Number>::Pack{};
                });
                add_product(chain.F.row(u), before, x, d, d);
            }
            if (o >= 0) {
                const int64_t c = chain.cfg[o], g = gains.slot[k];
                const double *H = chain.H.row(c), *off = chain.off.row(c);
                if (c != set_row && Shown::ALONE)
                    for (int i = 0; i < d; i++)
                        for (int a = 0; a < p; a++) across.set(i, a, H[a * d + i]);
                set_row = c;
                each<D>(0, (p + Shown::W - 1) / Shown::W, [&](int b) {                       // v = z - off - H m
                    typename Shown::Pack t = v(0, b) - Shown::read(off, b, p);
                    each<D>(0, d, [&](int i) {
                        if constexpr (Shown::ALONE) t -= x.at(0, i) * across(i, b);
                        else t -= H[b * d + i] * x(0, i);
                    });
                    v(0, b) = t;
                });
                paths.write(v, innovation.data, T, o, p);
                for (int a = 0; a < p; a++)
                    if (!seen.row(o)[a])
                        for (int l = 0; l < paths.count; l++) innovation[(paths.path[l] * T + o) * p + a] = NAN;
                drop_unseen(seen.row(o), v, p);
                clear(e, p);                                                  // e = K v
                add_product(gains.K.row(g), v, e, p, p);
                Number total = {};
                each<P>(0, p, [&](int a) { total += e.at(0, a) * e.at(0, a); });
                for (int l = 0; l < paths.count; l++)
                    loglik[paths.path[l] * T + o] = gains.half[g] - 0.5 * lane(total, l);
                add_product(gains.W.row(g), e, x, d, p);                     // m <- m + W e
            }
            paths.write(x, mean.data, N, k, d);
        }
    }
}

// Means (n, N, d) of paths z (n, T, p) that share covariances, innovations (n, T, p), NaN where nothing is seen,
// and loglik (n, T); m (n, d) is the state at node first - 1.
inline void filter_means(Chain chain, int64_t first, In<2> m, Gains gains, In<3> z, Flags<2> seen, Out<3> mean,
                         Out<3> innovation, Out<2> loglik) {
    with_sizes(mean.shape[2], z.shape[2], [&](auto d, auto p) {
        if (mean.shape[0] == 1) filter_means_of<double>(chain, first, m, gains, z, seen, mean, innovation, loglik, d, p);
        else filter_means_of<Vec<double, LANES<double>>>(chain, first, m, gains, z, seen, mean, innovation, loglik, d, p);
    });
}

template <class Number, int D, int P>
void smooth_means_of(const Chain& chain, int64_t last, const Gains& gains, const In<3>& innovation, const Flags<2>& seen,
                     const Out<3>& mean, const Out<2>& y, Size<D> d, Size<P> p) {
    const int64_t N = mean.shape[1], T = innovation.shape[1];
    Columns<1, D, Number> xi(1, d), before(1, d), x(1, d);
    Columns<1, P, Number> v(1, p), e(1, p);
    for (int64_t start = 0; start < mean.shape[0]; start += lanes_of<Number>) {
        const Paths<Number> paths(start, mean.shape[0]);
        paths.read(y.data, 1, 0, d, xi);
        for (int64_t k = N - 2; k >= last; k--) {
            const int64_t s = gains.slot[k + 1], g = gains.slot[k], o = chain.obs[k + 1];
            paths.read(mean.data, N, k, d, x);
            each<D>(0, (d + before.W - 1) / before.W, [&](int b) { before(0, b) = xi(0, b); });
            clear(xi, d);
            add_product(gains.T.row(s), before, xi, d, d);                   // xi = T xi+ + V e
            if (o >= 0) {
                paths.read(innovation.data, T, o, p, v);
                drop_unseen(seen.row(o), v, p);
                clear(e, p);
                add_product(gains.K.row(s), v, e, p, p);
                add_product(gains.V.row(s), e, xi, d, p);
            }
            add_product(gains.root.row(g), xi, x, d, d);                     // m + L xi
            paths.write(x, mean.data, N, k, d);
        }
        paths.write(xi, y.data, 1, 0, d);
    }
}

// Means (n, N, d) of nodes N - 2, ..., last: filtered in, smoothed out. y (n, d) is the mean of xi at node N - 1 and becomes
// that at `last`.
inline void smooth_means(Chain chain, int64_t last, Gains gains, In<3> innovation, Flags<2> seen, Out<3> mean, Out<2> y) {
    with_sizes(mean.shape[2], innovation.shape[2], [&](auto d, auto p) {
        if (mean.shape[0] == 1) smooth_means_of<double>(chain, last, gains, innovation, seen, mean, y, d, p);
        else smooth_means_of<Vec<double, LANES<double>>>(chain, last, gains, innovation, seen, mean, y, d, p);
    });
}

// Everything of a short series: covariances from node `first` on, then means of its paths, then (smooth) back to node first - 1,
// at which Z and y become root and mean of xi. Arguments and value are those of the kernels that are called.
inline int64_t filter_series(Chain chain, int64_t first, Out<2> L, Out<2> m, Given<0> given, Filled<0> out, Gains gains, Out<2> Z,
                             Out<2> y) {
    const auto& [seen, scale, smooth, z] = given;
    const int64_t bad = filter_covariances(chain, first, out.cov.shape[0], L, seen, scale, smooth, out.cov, out.S, gains);
    if (bad >= 0) return bad;
    filter_means(chain, first, m, gains, z, seen, out.mean, out.innovation, out.loglik);
    if (!smooth) return -1;
    const int64_t last = std::max<int64_t>(first - 1, 0);
    smooth_covariances(last, gains, out.cov, Z);
    smooth_means(chain, last, gains, out.innovation, seen, out.mean, y);
    return -1;
}

// `filter_series` of a series without gaps from node 0 on, where root (d, d), by columns, and start (d) are known of the state.
// What lies between filter and smoother has room here, one block: pieces given back would be paged in anew. doubts: as `magnification` says them.
inline int64_t filter_whole(Chain chain, In<2> root, In<1> start, bool smooth, In<3> z, Filled<0> out, Out<1> doubts) {
    const int64_t n = z.shape[0], T = z.shape[1], p = z.shape[2], N = out.cov.shape[0], d = out.cov.shape[1];
    const int64_t W = N * p * d, K = N * p * p, L = N * d * d;
    Scratch<double, 0> space(W + K + N + L + (smooth ? 2 * L + W : 0) + T + 2 * d * d + 2 * n * d, false);   // little of it is used
    Scratch<int64_t, 0> slot(N, false);                                                                      // where gains settle
    Scratch<uint8_t, 0> seen(T * p, false);
    double* free = &space[0];
    const auto room = [&](int64_t size) { return std::exchange(free, free + size); };
    Gains gains{{&slot[0], {N}}, {room(W), {N, p, d}}, {room(K), {N, p, p}}, {room(N), {N}}, {room(L), {N, d, d}}, {}, {}, {}};
    if (smooth) {
        gains.T = {room(L), {N, d, d}};
        gains.V = {room(W), {N, p, d}};
        gains.D = {room(L), {N, d, d}};
    }
    const Out<2> now{room(d * d), {d, d}}, Z{room(d * d), {d, d}}, m{room(n * d), {n, d}}, y{room(n * d), {n, d}};
    double* scale = room(T);
    std::memset(&seen[0], 1, static_cast<size_t>(T * p));
    std::fill_n(scale, T, 1.0);
    std::copy_n(root.data, d * d, now.data);
    for (int64_t i = 0; i < n; i++) std::copy_n(start.data, d, m.row(i));
    for (int64_t i = 0; i < d * d; i++) Z[i] = i % (d + 1) == 0;
    std::fill_n(y.data, n * d, 0.0);
    const int64_t bad = filter_series(chain, 0, now, m, {{&seen[0], {T, p}}, {scale, {T}}, smooth, z}, out, gains, Z, y);
    if (bad < 0) magnification({out.S.data, {1, T, p, p}}, chain.cfg, chain.R, {scale, {1, T}}, z, doubts);
    return bad;
}

}
}  // namespace afa
