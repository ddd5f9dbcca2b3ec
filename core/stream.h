// One step of the Kalman filter for one series without open directions: what a stream needs of every observation.
#pragma once
#include "mixture.h"

namespace afa {

struct StreamStep {
    bool moved;
    In<2> F;
    In<1> b;
    In<2> root, H;
    In<1> off;
    In<2> R;
    In<1> z;
    Out<2> L;
    Out<1> m;
    Out<2> cov;
    Out<1> v;
    Out<2> S;
};

// L (by columns) and m, those of the node before, become those of this one: a step F, b, root = V^1/2 (F and root by
// columns; moved: whether there is any) and the observation z of H x + off with noise R. Fills cov = L L^T, the
// innovation v, NaN where z is, and its covariance S. Returns the log-likelihood, NaN where an innovation is known exactly.
template <int D, int P> double step_filter_of(const StreamStep& x, Size<D> d_, Size<P> p_) {
    const int d = d_, p = p_;
    StateSpace<D, false> space(d);
    ShownSpace<D, P> shown(d, p);
    Scratch<double, D> state(d);
    Scratch<double, D * P> W(d * p);
    Scratch<double, P * P> K(p * p), own(p * p);
    Scratch<uint8_t, P> seen(p);
    read_columns(x.L.data, space.A, d_, d_);
    for (int i = 0; i < d; i++) state[i] = x.m[i];
    if (x.moved) {
        predict_root(x.F.data, x.root.data, space, d_);
        for (int i = 0; i < d; i++) state[i] = x.b[i];
        for (int l = 0; l < d; l++)
            for (int i = 0; i < d; i++) state[i] += x.F.data[l * d + i] * x.m[l];
    }
    bool any = false;
    for (int a = 0; a < p; a++) {
        seen[a] = x.z[a] == x.z[a];
        any = any || seen[a];
        x.v[a] = x.z[a] - x.off[a];
        for (int i = 0; i < d; i++) x.v[a] -= x.H.data[a * d + i] * state[i];
    }
    face(x.H.data, shown, d_, p_);
    innovation_cov(x.R.data, 1.0, space.A, x.S.data, shown, d_, p_);
    const double loglik =
        any ? update_branch(x.R.data, 1.0, &seen[0], x.v.data, space, &state[0], &own[0], &W[0], &K[0], shown, d_, p_) : 0.0;
    write_columns(space.A, 0, 0, x.L.data, d_, d_);
    gram(space.A, x.cov.data, d_, d_);
    for (int i = 0; i < d; i++) x.m[i] = state[i];
    return loglik;
}
inline double step_filter(bool moved, In<2> F, In<1> b, In<2> root, In<2> H, In<1> off, In<2> R, In<1> z, Out<2> L, Out<1> m,
                          Out<2> cov, Out<1> v, Out<2> S) {
    const StreamStep x{moved, F, b, root, H, off, R, z, L, m, cov, v, S};
    return with_sizes(m.shape[0], z.shape[0], [&](auto d, auto p) { return step_filter_of(x, d, p); });
}

}  // namespace afa
