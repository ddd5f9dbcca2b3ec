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
    Room<3> W, K, root, e, m, F, V;              // F, V: columns of the steps and of their noise's roots
    Filtered(const LinearChain& chain, const PathData& data)
        : Filtered(chain, data.z.shape[0], chain.mean.shape[0], data.z.shape[1], data.z.shape[2]) {}
    Filtered(const LinearChain& chain, int64_t T, int64_t d_, int64_t p_, int64_t n_)
        : d(static_cast<int>(d_)), p(static_cast<int>(p_)), n(n_), W(T, p_, d_), K(T, p_, p_), root(T, d_, d_), e(T, p_, n_),
          m(T, d_, n_), F(chain.F.shape[0], d_, d_), V(chain.V.shape[0], d_, d_) {
        for (int64_t k = 0; k < F.shape[0]; k++)
            for (int i = 0; i < d; i++)
                for (int j = 0; j < d; j++) F.row(k)[j * d + i] = chain.F.row(k)[i * d + j];
        if (chain.root.size() > 0) std::copy_n(chain.root.data, chain.root.size(), V.data);
        else lower_roots(chain.V, V);
    }
};

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
    for (int64_t t = first; t < T; t++) {
        const double* before = t > first ? kept.m.row(t - 1) : m;
        double *now = kept.m.row(t), *W = kept.W.row(t), *K = kept.K.row(t), *e = kept.e.row(t);
        if (t > 0) {
            const int64_t f = chain.index[t];
            const double *F = chain.F.row(f), *b = chain.b.row(f);
            predict_root<D, false>(kept.F.row(f), kept.V.row(f), space, d);
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
            const double half = observe_root<false>(H, chain.R.row(c), data.scale[t], seen, space, &S[0], W, K, observed);
            keep_largest_ratio(&S[0], chain.R.row(c), data.scale[t], seen, p, lost);
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
        write_columns(space.A, 0, 0, kept.root.row(t), d, d);
    }
    return -1;
}

// ---------------------------------------------------------------- backward

// What is carried of c directions delta, counted by omega: Y^T (c, d); w (c, n) and turns A (c, c), whose rows follow those of Z_w in
// `Costates::Z`; omega = s + omega^ (c, n), C (c, c), T^-T (c, c); of the node in hand B^T (c, d), its
// observation's e_turns and U (p, c), own and KE = K^T own (p, p), and of the step from it Y-, `settled` Y- and UN (`settle_unseen`).
template <bool FLAT> struct CarriedDelta {
    int c;
    Room<2> Y, Y_before, settled, B, UN, w, omega, turns, C, inverse_t, e_turns, U, own, KE;
    CarriedDelta(int d, int p, int c_, int64_t n)
        : c(c_), Y(c, d), Y_before(c, d), settled(c, d), B(c, d), UN(d, d), w(c, n), omega(c, n), turns(c, c), C(c, c), inverse_t(c, c),
          e_turns(p, c), U(p, c), own(p, p), KE(p, p) {}
};
template <> struct CarriedDelta<false> {
    static constexpr int c = 0;
    CarriedDelta(int, int, int, int64_t) {}
};

// Costates r (d, n) and their root at work: k = d + c + p columns Z of d rows, Z_w (c rows) below, of which the last p are 0 between
// nodes; of the node in hand L (by columns), smoothed states x (d, n) and Z^T L (d + c, d).
template <int D, int P, int PATHS, bool FLAT> struct Costates : CarriedDelta<FLAT> {
    static constexpr int WIDE = D == 0 || P == 0 ? 0 : D + P;
    Size<D> d, alive;                            // alive = d + c
    Size<P> p;
    Size<PATHS> n;
    Size<WIDE> k;
    Columns<WIDE, D> Z{k, alive};
    Scratch<double, WIDE> v{k};
    Scratch<double, D * PATHS> r{d * n}, r_before{d * n}, x{d * n};
    Scratch<double, PATHS> xi{n};
    Scratch<double, D * D> ZL{alive * d}, rows{alive * d}, ZLs{d * d}, NFP{d * d};   // rows (d + c, d): Z^T
    Scratch<double, P * PATHS> e{p * n}, u{p * n};
    Scratch<double, P * D> De{p * alive}, KD{p * alive}, DZL{p * d}, B_{p * d}, KB{p * d}, G{p * d};
    Scratch<double, P * P> M{p * p};
    const double* L = nullptr;
    using CarriedDelta<FLAT>::c;
    Costates(int d_, int p_, int c_, int64_t n_) : CarriedDelta<FLAT>(d_, p_, c_, n_), d(d_), alive(d_ + c_), p(p_), n(n_), k(d_ + c_ + p_) {}
};

// x = m + L L^T r at a node with this root L (by columns) and these means m (d, n).
template <class At> AFA_INLINE void smooth_states(const double* L, const double* m, At& at) {
    const int d = at.d, n = at.n;
    for (int i = 0; i < d * n; i++) at.x[i] = m[i];
    for (int c = 0; c < d; c++) {
        for (int j = 0; j < n; j++) at.xi[j] = 0.0;
        for (int i = 0; i < d; i++)
            for (int j = 0; j < n; j++) at.xi[j] += L[c * d + i] * at.r[i * n + j];
        for (int i = 0; i < d; i++)
            for (int j = 0; j < n; j++) at.x[i * n + j] += L[c * d + i] * at.xi[j];
    }
}
// Go to that node: x and Z^T L there; with directions M (q, d) B = M T^-1 too, and x += B omega.
template <int D, int P, int PATHS, bool FLAT>
AFA_INLINE void go_to(const double* L, const double* m, const double* directions, Costates<D, P, PATHS, FLAT>& at) {
    const int d = at.d, n = at.n, c = at.c;
    at.L = L;
    smooth_states(L, m, at);
    fill<D, D>(&at.ZL[0], at.alive, at.d, [&](int l, int j) AFA_HERE {
        return sum_of<D, double>(0, at.d, [&](int i) AFA_HERE { return at.Z.at(l, i) * L[j * d + i]; });
    });
    if constexpr (FLAT) {
        multiply(at.inverse_t.data, directions, at.B.data, c, c, d);
        for (int l = 0; l < c; l++)
            for (int i = 0; i < d; i++)
                for (int j = 0; j < n; j++) at.x[i * n + j] += at.B[l * d + i] * at.omega[l * n + j];
    }
}

// Gradients by H, off, R of the observation at t, and costates before it. e (p, n): the whitened innovations, and [De (p, d + c), own (p, p)]
// = Z_e, where directions are carried; else [0, I].
template <int D, int P, int PATHS, bool FLAT>
AFA_INLINE void score_observation(const LinearChain& chain, const PathData& data, const Filtered& kept, int64_t t,
                                  Costates<D, P, PATHS, FLAT>& at, Slopes& slopes, SmoothedMoments& out) {
    const auto d = at.d, alive = at.alive;
    const auto p = at.p;
    const auto n = at.n;
    const int64_t row = chain.cfg[t];
    const double *H = chain.H.row(row), *W = kept.W.row(t), *K = kept.K.row(t), *KE = K;   // W^T and K^T by rows
    const double paths = static_cast<double>(n), half = 0.5 * data.scale[t];
    double *gH = slopes.H.row(row), *gR = slopes.R.row(row), *goff = slopes.off.row(row);
    write_columns(at.Z, 0, 0, &at.rows[0], alive, d);
    add_product_t(W, &at.rows[0], -1.0, &at.De[0], p, d, alive);             // D = Z_e - W^T Z,  e - W^T r
    for (int a = 0; a < p; a++)
        for (int i = 0; i < d; i++)
            for (int j = 0; j < n; j++) at.e[a * n + j] -= W[a * d + i] * at.r[i * n + j];
    multiply(K, &at.e[0], &at.u[0], p, p, n);                                // u = K^T (e - W^T r)
    multiply(K, &at.De[0], &at.KD[0], p, p, alive);
    if constexpr (FLAT) {
        multiply(K, at.own.data, at.KE.data, p, p, p);
        KE = at.KE.data;
    }
    for (int i = 0; i < p * p; i++) at.M[i] = 0.0;
    add_product_t(&at.KD[0], &at.KD[0], 1.0, &at.M[0], p, alive, p);         // M = (K^T D) (K^T D)^T
    add_product_t(KE, KE, 1.0, &at.M[0], p, p, p);
    multiply(&at.De[0], &at.ZL[0], &at.DZL[0], p, alive, d);                 // W^T + D (Z^T L) L^T + U B^T
    multiply(&at.DZL[0], at.L, &at.B_[0], p, d, d);
    for (int i = 0; i < p * d; i++) at.B_[i] += W[i];
    if constexpr (FLAT) {                                                    // U = E C + W^T Y
        const int c = at.c;
        multiply(at.e_turns.data, at.C.data, at.U.data, p, c, c);
        add_product_t(W, at.Y.data, 1.0, at.U.data, p, d, c);
        for (int a = 0; a < p; a++)
            for (int l = 0; l < c; l++)
                for (int i = 0; i < d; i++) at.B_[a * d + i] += at.U[a * c + l] * at.B[l * d + i];
    }
    multiply(K, &at.B_[0], &at.KB[0], p, p, d);
    for (int a = 0; a < p; a++) {
        for (int i = 0; i < d; i++) {                                        // H: u x_s^T - n K^T (...)
            double x = -paths * at.KB[a * d + i];
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
    t_multiply(K, H, &at.G[0], p, p, d);
    for (int i = 0; i < d; i++) {
        for (int a = 0; a < p; a++)
            for (int j = 0; j < n; j++) at.r[i * n + j] += H[a * d + i] * at.u[a * n + j];   // r- = r + H^T u
        for (int l = 0; l < alive; l++) {                                    // Z- = [Z + G^T D] Theta
            double x = at.rows[l * d + i];
            for (int a = 0; a < p; a++) x += at.G[a * d + i] * at.De[a * alive + l];
            at.Z.set(l, i, x);
        }
        for (int b = 0; b < p; b++) {
            double x = at.G[b * d + i];
            if constexpr (FLAT) {
                x = 0.0;
                for (int a = 0; a < p; a++) x += at.G[a * d + i] * at.own[a * p + b];
            }
            at.Z.set(alive + b, i, x);
        }
        if constexpr (FLAT)
            for (int l = 0; l < at.c; l++)
                for (int a = 0; a < p; a++) at.Y[l * d + i] -= at.G[a * d + i] * at.U[a * at.c + l];   // Y- = Y - G^T U
    }
    triangularise(at.Z, at.v, alive, at.k, at.k);
}

// G += (r r^T - n Z Z^T) / 2.
template <class At> AFA_INLINE void add_noise_score(const At& at, double* G) {
    const int d = at.d, n = at.n, alive = at.alive;
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int l = 0; l < alive; l++) x -= at.Z.at(l, i) * at.Z.at(l, k);
            x *= static_cast<double>(n);
            for (int j = 0; j < n; j++) x += at.r[i * n + j] * at.r[k * n + j];
            G[i * d + k] += 0.5 * x;
        }
}

// Gradients by F, b, V of the step into t, and costates after the observation at t - 1, where directions are those of that node.
// settle: see `settle_unseen`.
template <int D, int P, int PATHS, bool FLAT, class Settle>
AFA_INLINE void score_step(const LinearChain& chain, const Filtered& kept, int64_t t, const double* directions,
                           Costates<D, P, PATHS, FLAT>& at, Slopes& slopes, SmoothedMoments& out, Settle settle) {
    const int d = at.d, n = at.n, c = at.c, alive = at.alive;
    const int64_t f = chain.index[t];
    const double *F = chain.F.row(f), paths = static_cast<double>(n);
    double *gF = slopes.F.row(f), *gb = slopes.b.row(f), *NFP = &at.NFP[0];
    if constexpr (FLAT) {
        std::copy_n(at.Y.data, c * d, at.Y_before.data);
        settle(F, t, at);
    }
    add_noise_score(at, slopes.V.row(f));
    for (int i = 0; i < d * n; i++) at.r_before[i] = at.r[i];
    write_columns(at.Z, 0, 0, &at.rows[0], at.alive, at.d);
    for (int i = 0; i < d; i++) {                                            // r = F^T r-,  Z = F^T Z-,  Y = F^T Y-
        for (int j = 0; j < n; j++) gb[i] += at.r_before[i * n + j], at.r[i * n + j] = 0.0;
        for (int l = 0; l < d; l++)
            for (int j = 0; j < n; j++) at.r[i * n + j] += F[l * d + i] * at.r_before[l * n + j];
        for (int k = 0; k < alive; k++) {
            double x = 0.0;
            for (int l = 0; l < d; l++) x += F[l * d + i] * at.rows[k * d + l];
            at.Z.set(k, i, x);
        }
    }
    if constexpr (FLAT) multiply(at.Y_before.data, F, at.Y.data, c, d, d);
    go_to(kept.root.row(t - 1), kept.m.row(t - 1), directions, at);
    t_multiply(&at.rows[0], &at.ZL[0], &at.ZLs[0], at.d, at.alive, at.d);
    multiply(&at.ZLs[0], at.L, NFP, at.d, at.d, at.d);                       // N F P' = Z- (Z^T L) L^T
    if constexpr (FLAT)                                                      // ... - Y- B'^T, from which nothing unseen is left
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) {
                NFP[i * d + j] += at.UN[i * d + j];
                for (int l = 0; l < c; l++) NFP[i * d + j] -= at.settled[l * d + i] * at.B[l * d + j];
            }
    for (int i = 0; i < d; i++)                                              // F: r- x_s'^T - n (...)
        for (int k = 0; k < d; k++) {
            double x = -paths * NFP[i * d + k];
            for (int j = 0; j < n; j++) x += at.r_before[i * n + j] * at.x[k * n + j];
            gF[i * d + k] += x;
        }
    if (out.lag.shape[0] == 0) return;
    // Cov(x_t, x_t-1 | z) = F P' - (F P' F^T + V) N F P', where directions are carried + F B' (C B'^T + Y-^T F P')
    Scratch<double, D * D> cov(d * d), FP(d * d), ahead(d * d);
    double* lag = out.lag.row(t);
    t_multiply(at.L, at.L, &cov[0], d, d, d);
    multiply(F, &cov[0], &FP[0], d, d, d);
    for (int i = 0; i < d * d; i++) ahead[i] = chain.V.row(f)[i];
    add_product_t(&FP[0], F, 1.0, &ahead[0], d, d, d);
    multiply(&ahead[0], NFP, lag, d, d, d);
    for (int i = 0; i < d * d; i++) lag[i] = FP[i] - lag[i];
    if constexpr (FLAT) {
        Room<2> FB(d, c), right(c, d), CB(c, d);
        add_product_t(F, at.B.data, 1.0, FB.data, d, d, c);
        multiply(at.Y_before.data, &FP[0], right.data, c, d, d);
        multiply(at.C.data, at.B.data, CB.data, c, c, d);
        for (int i = 0; i < c * d; i++) right[i] += CB[i];
        for (int i = 0; i < d; i++)
            for (int l = 0; l < c; l++)
                for (int j = 0; j < d; j++) lag[i * d + j] += FB[i * c + l] * right[l * d + j];
    }
}

// Smoothed states and covariances at t, where they are wanted: P - P N P = L (I - (Z^T L)^T Z^T L) L^T, where directions are
// carried + B C B^T + P Y B^T + B Y^T P.
template <int D, int P, int PATHS, bool FLAT>
AFA_INLINE void keep_states(int64_t t, const Costates<D, P, PATHS, FLAT>& at, SmoothedMoments& out) {
    if (out.x.shape[0] == 0) return;
    const int d = at.d, n = at.n, c = at.c;
    Scratch<double, D * D> C(d * d), LC(d * d);
    double* cov = out.P.row(t);
    for (int i = 0; i < d * n; i++) out.x.row(t)[i] = at.x[i];
    t_multiply(&at.ZL[0], &at.ZL[0], &C[0], d, d + c, d);
    for (int i = 0; i < d * d; i++) C[i] = (i % (d + 1) == 0 ? 1.0 : 0.0) - C[i];
    t_multiply(at.L, &C[0], &LC[0], d, d, d);
    multiply(&LC[0], at.L, cov, d, d, d);
    if constexpr (FLAT) {
        Room<2> YL(c, d), YP(c, d), CB(c, d);
        add_product_t(at.Y.data, at.L, 1.0, YL.data, c, d, d);
        multiply(YL.data, at.L, YP.data, c, d, d);
        multiply(at.C.data, at.B.data, CB.data, c, c, d);
        for (int l = 0; l < c; l++)
            for (int i = 0; i < d; i++)
                for (int j = 0; j < d; j++)
                    cov[i * d + j] += at.B[l * d + i] * (CB[l * d + j] + YP[l * d + j]) + YP[l * d + i] * at.B[l * d + j];
    }
}

// From the last node to node `first`. At first = 0 the gradients by the first state's law are added, else r (d, n) and
// Z (d, d), by columns, become costates and their root after the observation at node first - 1.
template <int D, int P, int PATHS>
void score_pass(const LinearChain& chain, const PathData& data, int64_t first, const Filtered& kept, Slopes& slopes,
                SmoothedMoments& out, double* r, double* Z, Size<D> d, Size<P> p, Size<PATHS> n) {
    const int64_t T = data.z.shape[0];
    Costates<D, P, PATHS, false> at(kept.d, kept.p, 0, kept.n);
    if (T > 0) go_to(kept.root.row(T - 1), kept.m.row(T - 1), nullptr, at);
    for (int64_t t = T - 1; t >= first; t--) {
        keep_states(t, at, out);
        if (any_seen(data.seen.row(t), p)) {
            for (int i = 0; i < p * n; i++) at.e[i] = kept.e.row(t)[i];
            for (int i = 0; i < p * d; i++) at.De[i] = 0.0;
            score_observation(chain, data, kept, t, at, slopes, out);
        }
        if (t > 0) score_step(chain, kept, t, nullptr, at, slopes, out, nullptr);
    }
    if (first == 0) {
        add_noise_score(at, slopes.cov.data);
        for (int i = 0; i < d; i++)
            for (int j = 0; j < n; j++) slopes.mean[i] += at.r[i * n + j];
        return;
    }
    for (int i = 0; i < d * n; i++) r[i] = at.r[i];
    write_columns(at.Z, 0, 0, Z, d, d);
}

}
}  // namespace afa
