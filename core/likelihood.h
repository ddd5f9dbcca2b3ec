// Log-likelihood of a linear Gaussian model and its exact gradient, for paths that share their gaps.
//
// Forward: the square-root filter itself (kalman.h, flat.h), whose gains are kept. Backward: the disturbance-smoother
// score (Koopman & Shephard, Biometrika 79 (1992) 823-826; Durbin & Koopman 2012, section 7.3.3), extended to
// transitions, observation matrices and offsets. With a root Z of the costates' covariance, N = Z Z^T, and per node
//
//     x = m + L xi,   e = K (z - off - H m),   m <- m + W e              (W, K, L of the filter)
//
//     after the observation: costates r, root Z       before it:
//     u = K^T (e - W^T r)                             r- = r + H^T u
//     M = K^T (I + W^T Z Z^T W) K                     Z- Z-^T = (I - W K H)^T Z Z^T (I - W K H) + H^T K^T K H
//     x_s = m + P r,  P = L L^T                       to the node before: r = F^T r-,  Z = F^T Z-
//
// sums over n paths give the gradient by every array of the model:
//
//     R      1/2 (u u^T - n M)                        offset  u
//     H      u x_s^T - n K^T W^T (I - Z Z^T P)
//     V      1/2 (r- r-^T - n Z- Z-^T)                b       r-
//     F      r- x_s'^T - n Z- Z-^T F P'               (' = the node before)
//
// and those by the first state's mean and covariance, as b and V do. No inverse of V or P occurs: Q = 0, singular V
// and repeated times are legal. The part in which flat directions are open: likelihood_flat.h.
//
// Vectors of n paths are kept by rows (d, n); L, W and K by columns, as in kalman.h.
#pragma once
#include "flat_start.h"
#include "transition.h"

namespace afa {
inline namespace AFA_LEVEL {

// The chain of T observations: index (T) the step (F by rows, b, V) into each, cfg (T) row of H, off, R; the first
// state's law, flat (q, d) by rows; times and sizes say how exact the steps are (rank.h); root columns of V's lower
// roots, where they are known better than V tells them, else none.
struct LinearChain {
    In<3> F;
    In<2> b;
    In<3> V;
    Index<1> index;
    In<3> H;
    In<2> off;
    In<3> R;
    Index<1> cfg;
    In<1> mean;
    In<2> cov, flat;
    In<1> times;
    ComponentSizes sizes;
    In<3> root;
    template <class Visit> void members(Visit&& visit) { visit(F, b, V, index, H, off, R, cfg, mean, cov, flat, times, sizes, root); }
};
// Paths: z (T, p, n), 0 where missing; seen (T, p); R_t is scale[t] R.
struct PathData {
    In<3> z;
    Flags<2> seen;
    In<1> scale;
    template <class Visit> void members(Visit&& visit) { visit(z, seen, scale); }
};
// What gradients are added to, by the arrays of the chain.
struct Slopes {
    Out<3> F;
    Out<2> b;
    Out<3> V, H;
    Out<2> off;
    Out<3> R;
    Out<1> mean;
    Out<2> cov, flat;
    template <class Visit> void members(Visit&& visit) { visit(F, b, V, H, off, R, mean, cov, flat); }
};
// Smoothed quantities, where they have rows: u (T, p, n), M (T, p, p), states (T, d, n) with covariances P (T, d, d) and
// lag (T, d, d) = Cov(x_t, x_t-1 | z).
struct SmoothedMoments {
    Out<3> u, M, x, P, lag;
    template <class Visit> void members(Visit&& visit) { visit(u, M, x, P, lag); }
};

// What the forward pass leaves, per node: gains and root L by columns, e (p, n), m (d, n).
struct Filtered {
    int d, p;
    int64_t n;
    Scratch<double, 0> W, K, root, e, m, F, V;   // F, V: columns of the steps and of their noise's roots
    Filtered(const LinearChain& chain, const PathData& data)
        : d(static_cast<int>(chain.mean.shape[0])), p(static_cast<int>(data.z.shape[1])), n(data.z.shape[2]),
          W(data.z.shape[0] * p * d), K(data.z.shape[0] * p * p), root(data.z.shape[0] * d * d), e(data.z.shape[0] * p * n),
          m(data.z.shape[0] * d * n), F(chain.F.size()), V(chain.V.size()) {
        for (int64_t k = 0; k < chain.F.shape[0]; k++)
            for (int i = 0; i < d; i++)
                for (int j = 0; j < d; j++) F[(k * d + j) * d + i] = chain.F.row(k)[i * d + j];
        if (chain.root.size() > 0) std::copy_n(chain.root.data, chain.root.size(), &V[0]);
        else lower_roots(chain.V, {&V[0], {chain.V.shape[0], d, d}});
    }
};

inline bool any_seen(const uint8_t* seen, int p) {
    for (int a = 0; a < p; a++)
        if (seen[a]) return true;
    return false;
}

// ---------------------------------------------------------------- forward

// Nodes first, ..., T - 1. L: columns of the root at node first - 1 (first = 0: of the first state), m (d, n) likewise.
// Adds to `value`, keeps `lost` (see `RoundingMeasures`); returns -1, or the node whose innovation is known exactly.
template <int D, int P, int PATHS>
int64_t filter_pass(const LinearChain& chain, const PathData& data, int64_t first, const double* L, const double* m,
                    Filtered& kept, double& value, double& lost, Size<D> d, Size<P> p, Size<PATHS> n) {
    const int64_t T = data.z.shape[0];
    StateSpace<D, false> space(kept.d);
    ObservationSpace<D, P> observed(kept.d, kept.p);
    Scratch<double, P * P> S(p * p);
    Scratch<double, D * PATHS> predicted(d * n);
    Scratch<double, P * PATHS> v(p * n);
    read_columns(L, space.A, d, d);
    bool correlated = false;
    for (int64_t t = first; t < T; t++) {
        const double* before = t > first ? &kept.m[(t - 1) * d * n] : m;
        double *now = &kept.m[t * d * n], *W = &kept.W[t * p * d], *K = &kept.K[t * p * p], *e = &kept.e[t * p * n];
        if (t > 0) {
            const int64_t f = chain.index[t];
            const double *F = chain.F.row(f), *b = chain.b.row(f);
            predict_root<D, false>(&kept.F[f * d * d], &kept.V[f * d * d], space, d);
            for (int i = 0; i < d; i++) {                                    // m = F m + b
                for (int j = 0; j < n; j++) predicted[i * n + j] = b[i];
                for (int k = 0; k < d; k++)
                    for (int j = 0; j < n; j++) predicted[i * n + j] += F[i * d + k] * before[k * n + j];
            }
        } else
            for (int i = 0; i < d * n; i++) predicted[i] = before[i];
        for (int i = 0; i < d * n; i++) now[i] = predicted[i];
        const uint8_t* seen = data.seen.row(t);
        if (any_seen(seen, p)) {
            const int64_t c = chain.cfg[t];
            const double *H = chain.H.row(c), *off = chain.off.row(c), *z = data.z.row(t);
            set_observation(H, observed, d, p);
            innovation_cov(chain.R.row(c), data.scale[t], space.A, &S[0], observed, d, p);
            correlated = split_noise(chain.R.row(c), data.scale[t], seen, observed, p);
            keep_largest_ratio(&S[0], chain.R.row(c), data.scale[t], seen, p, lost);
            const double half = update_root<false>(seen, &S[0], space.A, W, K, static_cast<double*>(nullptr), observed,
                                                   correlated, d, p);
            if (std::isnan(half)) return t;
            for (int a = 0; a < p; a++) {                                    // v = z - off - H m
                for (int j = 0; j < n; j++) v[a * n + j] = z[a * n + j] - off[a];
                for (int k = 0; k < d; k++)
                    for (int j = 0; j < n; j++) v[a * n + j] -= H[a * d + k] * predicted[k * n + j];
            }
            double total = 0.0;
            for (int a = 0; a < p; a++) {                                    // e = K v,  m <- m + W e
                for (int j = 0; j < n; j++) e[a * n + j] = 0.0;
                for (int c2 = 0; c2 <= a; c2++)
                    for (int j = 0; j < n; j++) e[a * n + j] += K[c2 * p + a] * v[c2 * n + j];
                for (int j = 0; j < n; j++) total += e[a * n + j] * e[a * n + j];
                for (int i = 0; i < d; i++)
                    for (int j = 0; j < n; j++) now[i * n + j] += W[a * d + i] * e[a * n + j];
            }
            value += static_cast<double>(n) * half - 0.5 * total;
        }
        write_columns(space.A, 0, 0, &kept.root[t * d * d], d, d);
    }
    return -1;
}

// ---------------------------------------------------------------- backward

// Costates r (d, n) and their root Z (first d columns) at work, with what is known of the node in hand: smoothed states
// x (d, n) and ZL = Z^T L.
template <int D, int P, int PATHS> struct Costates {
    static constexpr int WIDE = D == 0 || P == 0 ? 0 : D + P;
    Columns<WIDE, D> Z;
    Scratch<double, WIDE> v;
    Scratch<double, D * PATHS> r, x, move;
    Scratch<double, D * D> ZL, A;
    Scratch<double, P * PATHS> u, ew;
    Scratch<double, P * D> WZ, B;
    Scratch<double, P * P> M, KC;
    Costates(int d, int p, int64_t n)
        : Z(d + p, d), v(d + p), r(d * n), x(d * n), move(d * n), ZL(d * d), A(d * d), u(p * n), ew(p * n), WZ(p * d),
          B(p * d), M(p * p), KC(p * p) {}
};

// x = m + L L^T r and ZL = Z^T L, at node t.
template <int D, int P, int PATHS>
AFA_INLINE void smooth_states(const Filtered& kept, int64_t t, Costates<D, P, PATHS>& at, Size<D> d, Size<PATHS> n) {
    const double *L = &kept.root[t * d * d], *m = &kept.m[t * d * n];
    for (int i = 0; i < d * n; i++) at.x[i] = m[i];
    for (int c = 0; c < d; c++) {
        for (int j = 0; j < n; j++) at.move[j] = 0.0;
        for (int i = 0; i < d; i++)
            for (int j = 0; j < n; j++) at.move[j] += L[c * d + i] * at.r[i * n + j];
        for (int i = 0; i < d; i++)
            for (int j = 0; j < n; j++) at.x[i * n + j] += L[c * d + i] * at.move[j];
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int i = 0; i < d; i++) x += at.Z.at(k, i) * L[c * d + i];
            at.ZL[k * d + c] = x;
        }
    }
}

// Gradients by H, off, R of the observation at t, and costates before it.
template <int D, int P, int PATHS>
AFA_INLINE void score_observation(const LinearChain& chain, const PathData& data, const Filtered& kept, int64_t t,
                                  Costates<D, P, PATHS>& at, Slopes& slopes, SmoothedMoments& out, Size<D> d, Size<P> p,
                                  Size<PATHS> n) {
    const int64_t c = chain.cfg[t];
    const double *H = chain.H.row(c), *W = &kept.W[t * p * d], *K = &kept.K[t * p * p], *e = &kept.e[t * p * n];
    const double *L = &kept.root[t * d * d], paths = static_cast<double>(n), half = 0.5 * data.scale[t];
    double *gH = slopes.H.row(c), *gR = slopes.R.row(c), *goff = slopes.off.row(c);
    for (int a = 0; a < p; a++) {                                            // W^T Z,  e - W^T r
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int i = 0; i < d; i++) x += W[a * d + i] * at.Z.at(k, i);
            at.WZ[a * d + k] = x;
        }
        for (int j = 0; j < n; j++) at.ew[a * n + j] = e[a * n + j];
        for (int i = 0; i < d; i++)
            for (int j = 0; j < n; j++) at.ew[a * n + j] -= W[a * d + i] * at.r[i * n + j];
    }
    for (int a = 0; a < p; a++)                                              // I + W^T Z Z^T W
        for (int g = 0; g < p; g++) {
            double x = a == g ? 1.0 : 0.0;
            for (int k = 0; k < d; k++) x += at.WZ[a * d + k] * at.WZ[g * d + k];
            at.KC[a * p + g] = x;
        }
    for (int a = 0; a < p; a++) {                                            // u = K^T (e - W^T r),  M = K^T (.) K
        for (int j = 0; j < n; j++) at.u[a * n + j] = 0.0;
        for (int g = a; g < p; g++)
            for (int j = 0; j < n; j++) at.u[a * n + j] += K[a * p + g] * at.ew[g * n + j];
        for (int g = 0; g < p; g++) {
            double x = 0.0;
            for (int h = a; h < p; h++)
                for (int l = g; l < p; l++) x += K[a * p + h] * at.KC[h * p + l] * K[g * p + l];
            at.M[a * p + g] = x;
        }
    }
    for (int a = 0; a < p; a++)                                              // W^T (I - Z Z^T P) = W^T - WZ (Z^T L) L^T
        for (int i = 0; i < d; i++) at.B[a * d + i] = W[a * d + i];
    for (int a = 0; a < p; a++)
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int l = 0; l < d; l++) x += at.WZ[a * d + l] * at.ZL[l * d + k];
            for (int i = 0; i < d; i++) at.B[a * d + i] -= x * L[k * d + i];
        }
    for (int a = 0; a < p; a++) {
        for (int i = 0; i < d; i++) {                                        // H: u x_s^T - n K^T B
            double x = 0.0;
            for (int g = a; g < p; g++) x -= K[a * p + g] * at.B[g * d + i];
            x *= paths;
            for (int j = 0; j < n; j++) x += at.u[a * n + j] * at.x[i * n + j];
            gH[a * d + i] += x;
        }
        for (int g = 0; g < p; g++) {                                        // R: (u u^T - n M) / 2
            double x = -paths * at.M[a * p + g];
            for (int j = 0; j < n; j++) x += at.u[a * n + j] * at.u[g * n + j];
            gR[a * p + g] += half * x;
        }
        for (int j = 0; j < n; j++) goff[a] += at.u[a * n + j];
    }
    if (out.u.shape[0] > 0) {
        for (int i = 0; i < p * n; i++) out.u.row(t)[i] = at.u[i];
        for (int i = 0; i < p * p; i++) out.M.row(t)[i] = at.M[i];
    }
    for (int i = 0; i < d; i++)                                              // r- = r + H^T u
        for (int a = 0; a < p; a++)
            for (int j = 0; j < n; j++) at.r[i * n + j] += H[a * d + i] * at.u[a * n + j];
    for (int i = 0; i < d; i++)                                              // Z- = [Z - H^T K^T W^T Z, H^T K^T] Theta
        for (int a = 0; a < p; a++) {
            double x = 0.0;
            for (int g = 0; g <= a; g++) x += H[g * d + i] * K[g * p + a];
            for (int k = 0; k < d; k++) at.Z.set(k, i, at.Z.at(k, i) - x * at.WZ[a * d + k]);
            at.Z.set(d + a, i, x);
        }
    using Wide = Size<Costates<D, P, PATHS>::WIDE>;
    triangularise(at.Z, at.v, d, Wide(d + p), Wide(d + p));
}

// G += (r r^T - n Z Z^T) / 2.
template <int D, int P, int PATHS>
AFA_INLINE void add_noise_score(const Costates<D, P, PATHS>& at, double* G, Size<D> d, Size<PATHS> n) {
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int l = 0; l < d; l++) x -= at.Z.at(l, i) * at.Z.at(l, k);
            x *= static_cast<double>(n);
            for (int j = 0; j < n; j++) x += at.r[i * n + j] * at.r[k * n + j];
            G[i * d + k] += 0.5 * x;
        }
}

// Gradients by F, b, V of the step into t, and costates after the observation at t - 1.
template <int D, int P, int PATHS>
AFA_INLINE void score_step(const LinearChain& chain, const Filtered& kept, int64_t t, Costates<D, P, PATHS>& at, Slopes& slopes,
                           SmoothedMoments& out, Size<D> d, Size<PATHS> n) {
    const int64_t f = chain.index[t];
    const double *F = chain.F.row(f), *L = &kept.root[(t - 1) * d * d];
    double *gF = slopes.F.row(f), *gb = slopes.b.row(f);
    Scratch<double, D * D> Z(d * d), NFP(d * d);
    Scratch<double, D * PATHS> r(d * n);
    add_noise_score(at, slopes.V.row(f), d, n);
    for (int i = 0; i < d * n; i++) r[i] = at.r[i];
    for (int k = 0; k < d; k++)
        for (int i = 0; i < d; i++) Z[k * d + i] = at.Z.at(k, i);
    for (int i = 0; i < d; i++) {                                            // r = F^T r-,  Z = F^T Z-
        for (int j = 0; j < n; j++) gb[i] += r[i * n + j];
        for (int j = 0; j < n; j++) at.r[i * n + j] = 0.0;
        for (int l = 0; l < d; l++)
            for (int j = 0; j < n; j++) at.r[i * n + j] += F[l * d + i] * r[l * n + j];
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int l = 0; l < d; l++) x += F[l * d + i] * Z[k * d + l];
            at.Z.set(k, i, x);
        }
    }
    smooth_states(kept, t - 1, at, d, n);
    for (int i = 0; i < d; i++)                                              // N F P = Z- (Z^T L) L^T
        for (int c = 0; c < d; c++) {
            double x = 0.0;
            for (int k = 0; k < d; k++) x += Z[k * d + i] * at.ZL[k * d + c];
            at.A[i * d + c] = x;
        }
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int c = 0; c < d; c++) x += at.A[i * d + c] * L[c * d + k];
            NFP[i * d + k] = x;
            x *= -static_cast<double>(n);
            for (int j = 0; j < n; j++) x += r[i * n + j] * at.x[k * n + j];
            gF[i * d + k] += x;
        }
    if (out.lag.shape[0] == 0) return;
    // Cov(x_t, x_t-1 | z) = F P' - (F P' F^T + V) N F P'
    Scratch<double, D * D> cov(d * d), FP(d * d), ahead(d * d);
    const double* V = chain.V.row(f);
    double* lag = out.lag.row(t);
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++)
            for (int c = 0; c < d; c++) cov[i * d + k] += L[c * d + i] * L[c * d + k];
    multiply(F, &cov[0], &FP[0], d, d, d);
    for (int i = 0; i < d * d; i++) ahead[i] = V[i];
    add_product_t(&FP[0], F, 1.0, &ahead[0], d, d, d);
    multiply(&ahead[0], &NFP[0], lag, d, d, d);
    for (int i = 0; i < d * d; i++) lag[i] = FP[i] - lag[i];
}

// Smoothed states and covariances at t, where they are wanted: P - P N P = L (I - (Z^T L)^T Z^T L) L^T.
template <int D, int P, int PATHS>
AFA_INLINE void keep_states(const Filtered& kept, int64_t t, const Costates<D, P, PATHS>& at, SmoothedMoments& out, Size<D> d,
                            Size<PATHS> n) {
    if (out.x.shape[0] == 0) return;
    const double* L = &kept.root[t * d * d];
    Scratch<double, D * D> C(d * d), LC(d * d);
    for (int i = 0; i < d * n; i++) out.x.row(t)[i] = at.x[i];
    for (int a = 0; a < d; a++)
        for (int b = 0; b < d; b++) {
            C[a * d + b] = a == b ? 1.0 : 0.0;
            for (int k = 0; k < d; k++) C[a * d + b] -= at.ZL[k * d + a] * at.ZL[k * d + b];
        }
    for (int i = 0; i < d; i++)
        for (int b = 0; b < d; b++)
            for (int a = 0; a < d; a++) LC[i * d + b] += L[a * d + i] * C[a * d + b];
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int b = 0; b < d; b++) x += LC[i * d + b] * L[b * d + k];
            out.P.row(t)[i * d + k] = x;
        }
}

// From the last node to node `first`. At first = 0 the gradients by the first state's law are added, else r (d, n) and
// Z (d, d), by columns, become costates and their root after the observation at node first - 1.
template <int D, int P, int PATHS>
void score_pass(const LinearChain& chain, const PathData& data, int64_t first, const Filtered& kept, Slopes& slopes,
                SmoothedMoments& out, double* r, double* Z, Size<D> d, Size<P> p, Size<PATHS> n) {
    const int64_t T = data.z.shape[0];
    Costates<D, P, PATHS> at(kept.d, kept.p, kept.n);
    if (T > 0) smooth_states(kept, T - 1, at, d, n);
    for (int64_t t = T - 1; t >= first; t--) {
        keep_states(kept, t, at, out, d, n);
        if (any_seen(data.seen.row(t), p)) score_observation(chain, data, kept, t, at, slopes, out, d, p, n);
        if (t > 0) score_step(chain, kept, t, at, slopes, out, d, n);
    }
    if (first == 0) {
        add_noise_score(at, slopes.cov.data, d, n);
        for (int i = 0; i < d; i++)
            for (int j = 0; j < n; j++) slopes.mean[i] += at.r[i * n + j];
        return;
    }
    for (int i = 0; i < d * n; i++) r[i] = at.r[i];
    write_columns(at.Z, 0, 0, Z, d, d);
}

}
}  // namespace afa
