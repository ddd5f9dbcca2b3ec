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
    Branch<0, 0> now(d, p, L.data, m.data);
    Scratch<uint8_t, 0> seen(p);
    for (int a = 0; a < p; a++) seen[a] = z[a] == z[a];
    const Shown at{H.data, off.data, R.data, z.data, &seen[0]};
    if (moved) now.predict(F.data, b.data, root.data);
    now.show(at, 1.0, v.data, S.data);
    keep_largest_ratio(S.data, R.data, 1.0, &seen[0], p, doubts[0]);
    for (int a = 0; a < p; a++)
        if (const double noise = R.row(a)[a]; noise > 0.0 && z[a] * z[a] > doubts[1] * noise) doubts[1] = z[a] * z[a] / noise;
    const double loglik = any_seen(&seen[0], p) ? now.update(at, 1.0, v.data) : 0.0;
    write_columns(now.space.A, 0, 0, L.data, d, d);
    gram(now.space.A, cov.data, d, d);
    std::copy_n(now.mean(), d, m.data);
    return loglik;
}

}
}  // namespace afa
