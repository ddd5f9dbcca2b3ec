// One step of the Kalman filter for one series without open directions: what a stream needs of every observation.
#pragma once
#include "mixture.h"

namespace afa {
inline namespace AFA_LEVEL {

// L (by columns) and m, those of the node before, become those of this one: a step F, b, root = V^1/2 (F and root by
// columns; moved: whether there is any) and the observation z of H x + off with noise R. Fills cov = L L^T, the
// innovation v, NaN where z is, and its covariance S; doubts: lost and far of `magnification` so far. Returns the log-likelihood, NaN where an innovation is known exactly.
inline double step_filter(bool moved, In<2> F, In<1> b, In<2> root, In<2> H, In<1> off, In<2> R, In<1> z, Out<2> L, Out<1> m,
                          Out<2> cov, Out<1> v, Out<2> S, Out<1> doubts) {
    const Size<0> d(m.shape[0]), p(z.shape[0]);
    StateSpace<0, false> space(d);
    ObservationSpace<0, 0> observed(d, p);
    Scratch<double, 0> state(d), W(d * p), K(p * p), own(p * p);
    Scratch<uint8_t, 0> seen(p);
    read_columns(L.data, space.A, d, d);
    for (int i = 0; i < d; i++) state[i] = m[i];
    if (moved) {
        predict_root(F.data, root.data, space, d);
        predict_mean(F.data, b.data, &state[0], &W[0], d);
    }
    bool any = false;
    for (int a = 0; a < p; a++) {
        seen[a] = z[a] == z[a];
        any = any || seen[a];
        v[a] = residual(z[a], off[a], H.data + a * d, &state[0], d);
    }
    set_observation(H.data, observed, d, p);
    innovation_cov(R.data, 1.0, space.A, S.data, observed, d, p);
    keep_largest_ratio(S.data, R.data, 1.0, &seen[0], static_cast<int>(p), doubts[0]);
    for (int a = 0; a < p; a++)
        if (const double noise = R.row(a)[a]; noise > 0.0 && z[a] * z[a] > doubts[1] * noise) doubts[1] = z[a] * z[a] / noise;
    const double loglik =
        any ? update_branch(R.data, 1.0, &seen[0], v.data, space, &state[0], &own[0], &W[0], &K[0], observed, d, p) : 0.0;
    write_columns(space.A, 0, 0, L.data, d, d);
    gram(space.A, cov.data, d, d);
    for (int i = 0; i < d; i++) m[i] = state[i];
    return loglik;
}

}
}  // namespace afa
