// The likelihood's gradient along the part of a series in which flat directions are open (flat.h).
//
//     x = m + M delta + L xi,   delta ~ N(delta^, Sigma) given all data
//
// Given delta the score is that of likelihood.h, with costates r + R delta; over delta it is averaged. What that needs
// of R is Y = R Sigma, and N below is Z Z^T - R Sigma R^T: once delta is integrated out this is the costates'
// covariance of the collapsed law, and no large number is ever subtracted. With J = I - W K H, E = K (H M-) the
// whitened share of delta in the innovation, and G = K H:
//
//     e = K v - E delta^,   u = K^T (e - W^T r),   r- = r + H^T u
//     Y- = J^T Y - G^T E Sigma
//     N- = J^T N J + G^T (I - E Sigma E^T) G + J^T Y E^T G + G^T E Y^T J
//     M  = K^T (I - E Sigma E^T - E Y^T W - W^T Y E^T + W^T N W) K
//     H:   u x_s^T - n K^T (W^T - W^T N P + E Sigma M^T + E Y^T P + W^T Y M^T)
//     F:   r- x_s'^T - n (N- F P' - Y- M'^T),   V: (r- r-^T - n N-) / 2,   flat basis: r- delta^^T + n Y-
//
// (Derived from Fisher's identity under the flat measure; de Jong, Annals of Statistics 19 (1991) 1073-1083, for delta.)
#pragma once
#include <memory>
#include <vector>

#include "likelihood.h"

namespace afa {

// A flat start along one series, with everything that the kernels of flat_start.h keep.
struct FlatPart {
    using Room = Scratch<double, 0>;
    int d, p, q;
    int64_t n, T, room;
    Room step, root, T_, V, D, half, P, S, mean, innovation, loglik, z, L, m, M, Tm, s, Ms, touch, Ts, ss, E, turned, error,
        peak, rotation, facts;
    std::vector<int64_t> slot, obs, count;
    int64_t outcome[4] = {0, 0, -1, 0};
    int64_t done() const { return outcome[0]; }
    bool integrated() const { return outcome[1] == 1; }

    FlatPart(const LinearChain& chain, const PathData& data, const Filtered& kept, int64_t room_)
        : d(kept.d), p(kept.p), q(static_cast<int>(chain.flat.shape[0])), n(kept.n), T(data.z.shape[0]), room(room_), step(0), root(0),
          T_(room * d * d), V(room * p * d), D(room * d * d), half(T), P(T * d * d), S(T * p * p), mean(n * T * d),
          innovation(n * T * p), loglik(n * T), z(n * T * p), L(d * d), m(n * d), M(q * d), Tm(q * q), s(n * q), Ms(room * q * d),
          touch(room * q * d), Ts(room * q * q), ss(n * room * q), E(T * p * q), turned(q * q), error(q * d * d),
          peak(q * d), rotation((d + q) * (d + q)), facts(2), slot(static_cast<size_t>(T)), obs(static_cast<size_t>(T)),
          count(static_cast<size_t>(room)) {
        for (int64_t t = 0; t < T; t++) {
            obs[static_cast<size_t>(t)] = t;
            for (int a = 0; t < room && a < p; a++)
                for (int64_t j = 0; j < n; j++) z[(j * T + t) * p + a] = data.seen.row(t)[a] ? data.z.row(t)[a * n + j] : NAN;
        }
    }
    // spare = 1: N(0, D D^T) is added to the first state's law, which is flat there anyway.
    void run(const LinearChain& chain, const PathData& data, Filtered& kept, double spare) {
        Room cov(d * d), lower(d * d);
        for (int i = 0; i < d * d; i++) cov[i] = chain.cov[i];
        for (int j = 0; j < q; j++)
            for (int i = 0; i < d; i++) {
                M[j * d + i] = chain.flat.row(j)[i];
                for (int k = 0; k < d; k++) cov[i * d + k] += spare * chain.flat.row(j)[i] * chain.flat.row(j)[k];
            }
        lower_roots(In<3>{&cov[0], {1, d, d}}, Out<3>{&L[0], {1, d, d}});
        for (int64_t j = 0; j < n; j++)
            for (int i = 0; i < d; i++) m[j * d + i] = chain.mean[i];
        const int64_t U = chain.F.shape[0], t = T;
        Chain along{chain.index, {&kept.F[0], {U, d, d}}, chain.b, {&kept.V[0], {U, d, d}}, {obs.data(), {t}}, chain.cfg,
                    chain.H, chain.off, chain.R};
        Gains gains{{slot.data(), {t}}, {&kept.W[0], {t, p, d}}, {&kept.K[0], {t, p, p}}, {&half[0], {t}},
                    {&kept.root[0], {t, d, d}}, {&T_[0], {room, d, d}}, {&V[0], {room, p, d}}, {&D[0], {room, d, d}}};
        FlatKept store{{&Ms[0], {room, q, d}}, {&touch[0], {room, q, d}}, {&Ts[0], {room, q, q}}, {&ss[0], {n, room, q}},
                       {&E[0], {t, p, q}}, {count.data(), {room}}, {&turned[0], {q, q}}};
        filter_flat(along, gains, chain.times, chain.sizes, {&L[0], {d, d}}, {&m[0], {n, d}}, {&M[0], {q, d}}, {&Tm[0], {q, q}},
                    {&s[0], {n, q}}, data.seen, data.scale, {&z[0], {n, t, p}}, {&P[0], {t, d, d}}, {&S[0], {t, p, p}},
                    {&mean[0], {n, t, d}}, {&innovation[0], {n, t, p}}, {&loglik[0], {n, t}}, store, {&error[0], {q, d, d}}, {&peak[0], {q, d}},
                    {&rotation[0], {(d + q) * (d + q)}}, {outcome, {4}}, {&facts[0], {2}});
    }
};

// The flat nodes' means, e = K v given delta = 0 and the log-likelihood, in the order of likelihood.h.
inline void take_over(const FlatPart& flat, const PathData& data, Filtered& kept, double& value) {
    const int d = flat.d, p = flat.p;
    const int64_t n = flat.n, T = flat.T;
    for (int64_t t = 0; t < flat.done(); t++) {
        const bool seen = any_seen(data.seen.row(t), p);
        for (int64_t j = 0; j < n; j++) {
            for (int i = 0; i < d; i++) kept.m[(t * d + i) * n + j] = flat.mean[(j * T + t) * d + i];
            if (!seen) continue;
            value += flat.loglik[j * T + t];
            for (int a = 0; a < p; a++) {
                double e = 0.0;
                for (int c = 0; c <= a; c++)
                    if (data.seen.row(t)[c]) e += kept.K[(t * p + c) * p + a] * flat.innovation[(j * T + t) * p + c];
                kept.e[(t * p + a) * n + j] = e;
            }
        }
    }
}

// ---------------------------------------------------------------- backward

// At work: r (d, n), N (d, d), Y (d, c) as above; delta (c, n) and Sigma (c, c); of the node in hand M (d, c), P (d, d) and
// smoothed states x (d, n). Products of small matrices are written out by `multiply` (rows).
struct FlatCostates {
    using Room = Scratch<double, 0>;
    int d, p, c;
    int64_t n;
    Room r, N, Y, delta, Sigma, M, P, x;
    FlatCostates(int d_, int p_, int c_, int64_t n_)
        : d(d_), p(p_), c(c_), n(n_), r(d * n), N(d * d), Y(d * c), delta(c * n), Sigma(c * c), M(d * c), P(d * d), x(d * n) {}
};

// The node's root L by columns -> P; M <- the first c of the directions (q, d).
inline void at_node(const double* L, const double* directions, FlatCostates& at) {
    const int d = at.d;
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = 0.0;
            for (int c = 0; c < d; c++) x += L[c * d + i] * L[c * d + k];
            at.P[i * d + k] = x;
        }
    for (int j = 0; j < at.c; j++)
        for (int i = 0; i < d; i++) at.M[i * at.c + j] = directions[j * d + i];
}

// delta^, Sigma and Y from what T delta = s + N(0, I) said where it ended and what r, N say of the state there:
//     B = M T^-1,  Sigma = T^-1 (I - B^T N B) T^-T,  delta^ = T^-1 (s + B^T r),  Y = -N B T^-T
inline void settle_directions(FlatPart& flat, FlatCostates& at) {
    const int d = at.d, c = at.c, q = flat.q;
    const int64_t n = at.n;
    Scratch<double, 0> inverse(q * q), X(c * c), B(d * c), NB(d * c), C(c * c), XC(c * c), right(c * n);
    invert_lower(&flat.Tm[0], &inverse[0], c, q);
    for (int i = 0; i < c; i++)
        for (int j = 0; j < c; j++) X[i * c + j] = inverse[i * q + j];
    multiply(&at.M[0], &X[0], &B[0], d, c, c);
    multiply(&at.N[0], &B[0], &NB[0], d, d, c);
    t_multiply(&B[0], &NB[0], &C[0], c, d, c);
    for (int i = 0; i < c; i++)
        for (int j = 0; j < c; j++) C[i * c + j] = (i == j ? 1.0 : 0.0) - C[i * c + j];
    multiply(&X[0], &C[0], &XC[0], c, c, c);
    add_product_t(&XC[0], &X[0], 1.0, &at.Sigma[0], c, c, c);
    add_product_t(&NB[0], &X[0], -1.0, &at.Y[0], d, c, c);
    t_multiply(&B[0], &at.r[0], &right[0], c, d, n);
    for (int i = 0; i < c; i++)
        for (int64_t j = 0; j < n; j++) right[i * n + j] += flat.s[j * q + i];
    multiply(&X[0], &right[0], &at.delta[0], c, c, n);
}

inline void score_flat_observation(const LinearChain& chain, const PathData& data, const Filtered& kept, const FlatPart& flat,
                                   int64_t t, FlatCostates& at, Slopes& slopes, SmoothedMoments& out) {
    const int d = at.d, p = at.p, c = at.c, q = flat.q;
    const int64_t n = at.n, cfg = chain.cfg[t];
    const double paths = static_cast<double>(n), half = 0.5 * data.scale[t];
    using Room = Scratch<double, 0>;
    const double* H = chain.H.row(cfg);
    Room W(d * p), K(p * p), E(p * c), G(p * d), J(d * d);                   // by rows
    for (int a = 0; a < p; a++) {
        for (int i = 0; i < d; i++) W[i * p + a] = kept.W[(t * p + a) * d + i];
        for (int g = 0; g <= a; g++) K[a * p + g] = kept.K[(t * p + g) * p + a];
    }
    for (int a = 0; a < p; a++)
        for (int j = 0; j < c; j++)
            for (int g = 0; g <= a; g++) E[a * c + j] += K[a * p + g] * flat.E[(t * p + g) * q + j];
    multiply(&K[0], H, &G[0], p, p, d);
    multiply(&W[0], &G[0], &J[0], d, p, d);
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) J[i * d + k] = (i == k ? 1.0 : 0.0) - J[i * d + k];
    Room ES(p * c), C(p * p), WY(p * c), WN(p * d), WMY(p * p), B(p * d), EY(p * d), u(p * n), e(p * n), KB(p * d), KC(p * p);
    multiply(&E[0], &at.Sigma[0], &ES[0], p, c, c);
    add_product_t(&ES[0], &E[0], -1.0, &C[0], p, c, p);                      // C = I - E Sigma E^T
    for (int a = 0; a < p; a++) C[a * p + a] += 1.0;
    t_multiply(&W[0], &at.Y[0], &WY[0], p, d, c);
    t_multiply(&W[0], &at.N[0], &WN[0], p, d, d);
    add_product_t(&WY[0], &E[0], 1.0, &WMY[0], p, c, p);                     // W^T Y E^T
    add_product_t(&E[0], &at.Y[0], 1.0, &EY[0], p, c, d);                    // E Y^T
    // u = K^T (K v - E delta - W^T r)
    multiply(&E[0], &at.delta[0], &e[0], p, c, n);
    for (int a = 0; a < p; a++)
        for (int64_t j = 0; j < n; j++) {
            double x = kept.e[(t * p + a) * n + j] - e[a * n + j];
            for (int i = 0; i < d; i++) x -= W[i * p + a] * at.r[i * n + j];
            e[a * n + j] = x;
        }
    t_multiply(&K[0], &e[0], &u[0], p, p, n);
    // M = K^T (C - E Y^T W - W^T Y E^T + W^T N W) K
    Room inner(p * p), M(p * p);
    multiply(&WN[0], &W[0], &inner[0], p, d, p);
    for (int a = 0; a < p; a++)
        for (int g = 0; g < p; g++) inner[a * p + g] += C[a * p + g] - WMY[a * p + g] - WMY[g * p + a];
    multiply(&inner[0], &K[0], &KC[0], p, p, p);
    t_multiply(&K[0], &KC[0], &M[0], p, p, p);
    // B = W^T - W^T N P + E Sigma M^T + E Y^T P + W^T Y M^T
    for (int a = 0; a < p; a++)
        for (int i = 0; i < d; i++) {
            double x = W[i * p + a];
            for (int k = 0; k < d; k++) x += (EY[a * d + k] - WN[a * d + k]) * at.P[k * d + i];
            for (int j = 0; j < c; j++) x += (ES[a * c + j] + WY[a * c + j]) * at.M[i * c + j];
            B[a * d + i] = x;
        }
    t_multiply(&K[0], &B[0], &KB[0], p, p, d);
    double *gH = slopes.H.row(cfg), *gR = slopes.R.row(cfg), *goff = slopes.off.row(cfg);
    for (int a = 0; a < p; a++) {
        for (int i = 0; i < d; i++) {
            double x = -paths * KB[a * d + i];
            for (int64_t j = 0; j < n; j++) x += u[a * n + j] * at.x[i * n + j];
            gH[a * d + i] += x;
        }
        for (int g = 0; g < p; g++) {
            double x = -paths * M[a * p + g];
            for (int64_t j = 0; j < n; j++) x += u[a * n + j] * u[g * n + j];
            gR[a * p + g] += half * x;
        }
        for (int64_t j = 0; j < n; j++) goff[a] += u[a * n + j];
    }
    if (out.u.shape[0] > 0) {
        for (int64_t i = 0; i < p * n; i++) out.u.row(t)[i] = u[i];
        for (int i = 0; i < p * p; i++) out.M.row(t)[i] = M[i];
    }
    for (int i = 0; i < d; i++)                                              // r- = r + H^T u
        for (int a = 0; a < p; a++)
            for (int64_t j = 0; j < n; j++) at.r[i * n + j] += H[a * d + i] * u[a * n + j];
    Room JY(d * c), JN(d * d), N(d * d), CG(p * d), JYE(d * p), YG(d * d);
    t_multiply(&J[0], &at.Y[0], &JY[0], d, d, c);
    t_multiply(&J[0], &at.N[0], &JN[0], d, d, d);
    multiply(&JN[0], &J[0], &N[0], d, d, d);
    multiply(&C[0], &G[0], &CG[0], p, p, d);
    add_product_t(&JY[0], &E[0], 1.0, &JYE[0], d, c, p);
    multiply(&JYE[0], &G[0], &YG[0], d, p, d);
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = N[i * d + k] + YG[i * d + k] + YG[k * d + i];
            for (int a = 0; a < p; a++) x += G[a * d + i] * CG[a * d + k];
            at.N[i * d + k] = x;
        }
    for (int i = 0; i < d; i++)                                              // Y- = J^T Y - G^T E Sigma
        for (int j = 0; j < c; j++) {
            double x = JY[i * c + j];
            for (int a = 0; a < p; a++) x -= G[a * d + i] * ES[a * c + j];
            at.Y[i * c + j] = x;
        }
}

// G += (r r^T - n N) / 2.
inline void add_noise_score(const FlatCostates& at, double* G) {
    for (int i = 0; i < at.d; i++)
        for (int k = 0; k < at.d; k++) {
            double x = -static_cast<double>(at.n) * at.N[i * at.d + k];
            for (int64_t j = 0; j < at.n; j++) x += at.r[i * at.n + j] * at.r[k * at.n + j];
            G[i * at.d + k] += 0.5 * x;
        }
}

// x = m + M delta + P r at node t.
inline void smooth_flat_states(const Filtered& kept, int64_t t, FlatCostates& at) {
    for (int i = 0; i < at.d; i++)
        for (int64_t j = 0; j < at.n; j++) {
            double x = kept.m[(t * at.d + i) * at.n + j];
            for (int l = 0; l < at.c; l++) x += at.M[i * at.c + l] * at.delta[l * at.n + j];
            for (int k = 0; k < at.d; k++) x += at.P[i * at.d + k] * at.r[k * at.n + j];
            at.x[i * at.n + j] = x;
        }
}

// P - P N P + M Sigma M^T + P Y M^T + M Y^T P: smoothed covariance of the state in hand.
inline void keep_flat_states(int64_t t, const FlatCostates& at, SmoothedMoments& out) {
    if (out.x.shape[0] == 0) return;
    const int d = at.d, c = at.c;
    Scratch<double, 0> PN(d * d), PY(d * c), MS(d * c), cov(d * d);
    for (int64_t i = 0; i < d * at.n; i++) out.x.row(t)[i] = at.x[i];
    multiply(&at.P[0], &at.N[0], &PN[0], d, d, d);
    multiply(&PN[0], &at.P[0], &cov[0], d, d, d);
    multiply(&at.P[0], &at.Y[0], &PY[0], d, d, c);
    multiply(&at.M[0], &at.Sigma[0], &MS[0], d, c, c);
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = at.P[i * d + k] - cov[i * d + k];
            for (int j = 0; j < c; j++)
                x += (MS[i * c + j] + PY[i * c + j]) * at.M[k * c + j] + at.M[i * c + j] * PY[k * c + j];
            out.P.row(t)[i * d + k] = x;
        }
}

// The step into t; L and directions: of node t - 1.
inline void score_flat_step(const LinearChain& chain, const Filtered& kept, const FlatPart& flat, int64_t t, FlatCostates& at,
                            Slopes& slopes, SmoothedMoments& out) {
    const int d = at.d, c = at.c;
    const int64_t n = at.n, f = chain.index[t];
    const double *F = chain.F.row(f), paths = static_cast<double>(n);
    double *gF = slopes.F.row(f), *gb = slopes.b.row(f);
    Scratch<double, 0> r(d * n), N(d * d), Y(d * c), FP(d * d), NFP(d * d);
    add_noise_score(at, slopes.V.row(f));
    for (int64_t i = 0; i < d * n; i++) r[i] = at.r[i];
    for (int i = 0; i < d * d; i++) N[i] = at.N[i];
    for (int i = 0; i < d * c; i++) Y[i] = at.Y[i];
    for (int i = 0; i < d; i++)
        for (int64_t j = 0; j < n; j++) gb[i] += r[i * n + j];
    Scratch<double, 0> FN(d * d);
    t_multiply(F, &r[0], &at.r[0], d, d, n);
    t_multiply(F, &N[0], &FN[0], d, d, d);
    multiply(&FN[0], F, &at.N[0], d, d, d);
    t_multiply(F, &Y[0], &at.Y[0], d, d, c);
    at_node(&kept.root[(t - 1) * d * d], &flat.Ms[(t - 1) * flat.q * d], at);
    smooth_flat_states(kept, t - 1, at);
    multiply(F, &at.P[0], &FP[0], d, d, d);
    multiply(&N[0], &FP[0], &NFP[0], d, d, d);
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = -NFP[i * d + k];
            for (int j = 0; j < c; j++) x += Y[i * c + j] * at.M[k * c + j];
            NFP[i * d + k] = -x;                                             // N- F P' - Y- M'^T
            x *= paths;
            for (int64_t j = 0; j < n; j++) x += r[i * n + j] * at.x[k * n + j];
            gF[i * d + k] += x;
        }
    if (out.lag.shape[0] == 0) return;
    // Cov(x_t, x_t-1 | z) = F P' - P- (N- F P' - Y- M'^T) + F M' (Sigma M'^T + Y-^T F P')
    Scratch<double, 0> ahead(d * d), FM(d * c), right(c * d);
    const double* V = chain.V.row(f);
    for (int i = 0; i < d * d; i++) ahead[i] = V[i];
    add_product_t(&FP[0], F, 1.0, &ahead[0], d, d, d);
    multiply(F, &at.M[0], &FM[0], d, d, c);
    t_multiply(&Y[0], &FP[0], &right[0], c, d, d);
    add_product_t(&at.Sigma[0], &at.M[0], 1.0, &right[0], c, c, d);
    double* lag = out.lag.row(t);
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++) {
            double x = FP[i * d + k];
            for (int l = 0; l < d; l++) x -= ahead[i * d + l] * NFP[l * d + k];
            for (int j = 0; j < c; j++) x += FM[i * c + j] * right[j * d + k];
            lag[i * d + k] = x;
        }
}

// The root at the last flat node given delta: what integrating out overwrote is made again from the node before.
inline void root_given_delta(const LinearChain& chain, const PathData& data, const Filtered& kept, int64_t t, double spare,
                             double* L) {
    const int d = kept.d, p = kept.p, q = static_cast<int>(chain.flat.shape[0]);
    const Size<0> D(d), P(p);
    StateSpace<0, false> space(d);
    ShownSpace<0, 0> shown(d, p);
    Scratch<double, 0> cov(d * d), S(p * p), W(p * d), K(p * p);
    if (t > 0) {
        const int64_t f = chain.index[t];
        read_columns(&kept.root[(t - 1) * d * d], space.A, D, D);
        predict_root<0, false>(&kept.F[f * d * d], &kept.V[f * d * d], space, D);
    } else {
        for (int i = 0; i < d * d; i++) cov[i] = chain.cov[i];
        for (int j = 0; j < q; j++)
            for (int i = 0; i < d * d; i++) cov[i] += spare * chain.flat.row(j)[i / d] * chain.flat.row(j)[i % d];
        lower_roots(In<3>{&cov[0], {1, d, d}}, Out<3>{L, {1, d, d}});
        read_columns(L, space.A, D, D);
    }
    if (any_seen(data.seen.row(t), p)) {
        const double* R = chain.R.row(chain.cfg[t]);
        face(chain.H.row(chain.cfg[t]), shown, D, P);
        innovation_cov(R, data.scale[t], space.A, &S[0], shown, D, P);
        const bool correlated = split_noise(R, data.scale[t], data.seen.row(t), shown, P);
        update_root<false>(data.seen.row(t), &S[0], space.A, &W[0], &K[0], static_cast<double*>(nullptr), shown, correlated, D, P);
    }
    write_columns(space.A, 0, 0, L, D, D);
}

// From node done - 1 to the first state; at.r and at.N: costates after the observation at node done - 1.
inline void score_flat(const LinearChain& chain, const PathData& data, const Filtered& kept, FlatPart& flat, double spare,
                       FlatCostates& at, Slopes& slopes, SmoothedMoments& out) {
    const int d = at.d, c = at.c, q = flat.q;
    const int64_t n = at.n, last = flat.done() - 1;
    Scratch<double, 0> L(d * d);
    root_given_delta(chain, data, kept, last, spare, &L[0]);
    at_node(&L[0], &flat.M[0], at);
    settle_directions(flat, at);
    if (!flat.integrated()) smooth_flat_states(kept, last, at);
    else {                                                                   // collapsed: x = m' + P' r
        const double* root = &kept.root[last * d * d];
        for (int64_t j = 0; j < n; j++) {
            for (int i = 0; i < d; i++) at.x[i * n + j] = kept.m[(last * d + i) * n + j];
            for (int k = 0; k < d; k++) {
                double xi = 0.0;
                for (int i = 0; i < d; i++) xi += root[k * d + i] * at.r[i * n + j];
                for (int i = 0; i < d; i++) at.x[i * n + j] += root[k * d + i] * xi;
            }
        }
    }
    for (int64_t t = last; t >= 0; t--) {
        keep_flat_states(t, at, out);
        if (any_seen(data.seen.row(t), at.p)) score_flat_observation(chain, data, kept, flat, t, at, slopes, out);
        if (t > 0) score_flat_step(chain, kept, flat, t, at, slopes, out);
    }
    Scratch<double, 0> G(d * d);
    add_noise_score(at, &G[0]);
    for (int i = 0; i < d * d; i++) slopes.cov[i] += G[i];
    // delta^ in the given directions, origins included: D delta^ = x - m0 - P0 r
    Scratch<double, 0> delta(q * n), DD(q * q), root(q * q);
    for (int j = 0; j < q; j++)
        for (int l = 0; l < q; l++)
            for (int i = 0; i < d; i++) DD[j * q + l] += chain.flat.row(j)[i] * chain.flat.row(l)[i];
    for (int i = 0; i < d; i++)
        for (int64_t j = 0; j < n; j++) {
            double x = at.x[i * n + j] - chain.mean[i];
            for (int k = 0; k < d; k++) x -= chain.cov[i * d + k] * at.r[k * n + j];
            for (int l = 0; l < q; l++) delta[l * n + j] += chain.flat.row(l)[i] * x;
            slopes.mean[i] += at.r[i * n + j];
        }
    cholesky(&DD[0], 0.0, &root[0], q);
    solve_lower(&root[0], &delta[0], q, n);
    solve_lower_t(&root[0], &delta[0], q, n);
    for (int j = 0; j < q; j++)                                              // r delta^^T + n Y
        for (int i = 0; i < d; i++) {
            double x = 0.0;
            for (int64_t l = 0; l < n; l++) x += at.r[i * n + l] * delta[j * n + l];
            for (int l = 0; l < c; l++) x += static_cast<double>(n) * at.Y[i * c + l] * flat.turned[l * q + j];
            for (int k = 0; k < d; k++) x += 2.0 * spare * G[i * d + k] * chain.flat.row(j)[k];
            slopes.flat.row(j)[i] += x;
        }
}

// ---------------------------------------------------------------- one group of paths

// Where the ordinary filter begins: after the flat part, if there is one, at node `first` with the root L (columns) and the
// means m (d, n) of the node before. spare: see `FlatPart::run`; bad: node whose innovation is known exactly, or -1.
struct Beginning {
    std::unique_ptr<FlatPart> flat;
    Scratch<double, 0> L, m;
    double spare = 0.0;
    int64_t first = 0, bad = -1;

    Beginning(const LinearChain& chain, const PathData& data, Filtered& kept, double& value) : L(kept.d * kept.d), m(kept.d * kept.n) {
        const int64_t T = data.z.shape[0], q = chain.flat.shape[0], d = kept.d, n = kept.n;
        if (q > 0)
            for (int64_t room = std::min<int64_t>(T, 4 * q + 16);;) {
                flat = std::make_unique<FlatPart>(chain, data, kept, room);
                flat->run(chain, data, kept, spare);
                if (flat->outcome[2] >= 0) {
                    bad = flat->outcome[2];
                    if (spare > 0.0) return;
                    spare = 1.0;                                             // without measurement noise: keeps S definite
                } else if (flat->integrated() || room == T) break;
                else room = std::min<int64_t>(T, 4 * room);
            }
        bad = -1;
        if (flat) {
            first = flat->done();
            take_over(*flat, data, kept, value);
        } else lower_roots(In<3>{chain.cov.data, {1, d, d}}, Out<3>{&L[0], {1, d, d}});
        for (int64_t i = 0; flat && i < d * d; i++) L[i] = flat->L[i];
        for (int64_t i = 0; i < d; i++)
            for (int64_t j = 0; j < n; j++) m[i * n + j] = flat ? flat->m[j * d + i] : chain.mean[i];
    }
};

// Filter and, if asked, gradient (added to `slopes`) and smoothed moments. value: the log-likelihood. Returns -1, or
// the node whose innovation is known exactly.
inline int64_t loglik_group(LinearChain chain, PathData data, bool gradient, Slopes slopes, SmoothedMoments out, Out<1> value) {
    Filtered kept(chain, data);
    const int d = kept.d, p = kept.p;
    value[0] = 0.0;
    Beginning start(chain, data, kept, value[0]);
    if (start.bad >= 0) return start.bad;
    FlatCostates at(d, p, start.flat ? static_cast<int>(start.flat->outcome[3]) : 0, kept.n);
    const auto passes = [&](auto D, auto P, auto PATHS) {
        constexpr int d_ = decltype(D)::value, p_ = decltype(P)::value, paths = decltype(PATHS)::value;
        const int64_t bad = filter_pass<d_, p_, paths>(chain, data, start.first, &start.L[0], &start.m[0], kept, value[0]);
        if (bad < 0 && gradient) score_pass<d_, p_, paths>(chain, data, start.first, kept, slopes, out, &at.r[0], &at.N[0]);
        return bad;
    };
    const int64_t bad = by_sizes(d, p, kept.n, passes);
    if (bad < 0 && gradient && start.flat) score_flat(chain, data, kept, *start.flat, start.spare, at, slopes, out);
    return bad;
}

// Everything of a continuous-time model in one call, for short series: transitions over `steps`, `loglik_group` and the
// gradient by A, Q, prior cov, C, R, offset, u, prior mean and flat (q, d), end to end.
inline int64_t loglik_sde(In<2> A, In<2> Q, In<1> u, In<3> C, In<2> off, In<3> R, In<1> mean, In<2> cov, In<2> flat, In<1> steps,
                          Index<1> index, Index<1> cfg, In<1> times, PathData data, Out<1> gradient, Out<1> value) {
    const int64_t U = steps.shape[0], d = u.shape[0], p = off.shape[1], q = flat.shape[0], none = 0;
    Scratch<double, 0> moves(U * (2 * d * d + d)), gmoves(U * (2 * d * d + d)), unit(d), rate(d);
    std::vector<int64_t> block(static_cast<size_t>(d));
    auto views = [&](double* at) {
        return std::make_tuple(Out<3>{at, {U, d, d}}, Out<2>{at + U * d * d, {U, d}}, Out<3>{at + U * (d * d + d), {U, d, d}});
    };
    auto [F, b, V] = views(&moves[0]);
    auto [gF, gb, gV] = views(&gmoves[0]);
    transitions(A, Q, u, steps, F, b, V);
    component_sizes(A, false, {block.data(), {d}}, {&unit[0], {d}}, {&rate[0], {d}});
    double* end = gradient.data;
    auto take = [&](int64_t size) { return end += size, end - size; };
    const Out<2> gA{take(d * d), {d, d}}, gQ{take(d * d), {d, d}}, gcov{take(d * d), {d, d}};
    const Out<3> gC{take(p * d), {1, p, d}}, gR{take(p * p), {1, p, p}};
    const Out<2> goff{take(p), {1, p}};
    const Out<1> gu{take(d), {d}}, gmean{take(d), {d}};
    const Out<2> gflat{take(q * d), {q, d}};
    const LinearChain chain{{F.data, {U, d, d}}, {b.data, {U, d}}, {V.data, {U, d, d}}, index, C, off, R, cfg, mean, cov, flat,
                            times, {{block.data(), {d}}, {&unit[0], {d}}, {&rate[0], {d}}}};
    const Slopes slopes{gF, gb, gV, gC, goff, gR, gmean, gcov, gflat};
    const SmoothedMoments out{{nullptr, {none}}, {nullptr, {none}}, {nullptr, {none}}, {nullptr, {none}}, {nullptr, {none}}};
    const int64_t bad = loglik_group(chain, data, true, slopes, out, value);
    if (bad < 0)
        transition_adjoint(A, Q, u, steps, {gF.data, {U, d, d}}, {gb.data, {U, d}}, {gV.data, {U, d, d}}, gA, gQ, gu);
    return bad;
}

// `loglik_sde` of many models, each with a series of its own, (which) of those on one grid: z (K, T, p). The gradients go
// to the rows of `gradient`, which are 0 at first; value NaN where an innovation is known exactly.
inline void loglik_sdes(In<3> A, In<3> Q, In<2> u, In<3> C, In<2> off, In<3> R, In<2> mean, In<3> cov, In<2> flat, In<1> steps,
                        Index<1> index, Index<1> cfg, In<1> times, Index<1> which, In<3> z, Flags<3> seen, In<1> scale,
                        Out<2> gradient, Out<1> value) {
    const int64_t d = u.shape[1], p = off.shape[1], T = z.shape[1], G = gradient.shape[1];
    for (int64_t s = 0; s < which.shape[0]; s++) {
        const PathData data{{z.row(which[s]), {T, p, 1}}, {seen.row(which[s]), {T, p}}, scale};
        const int64_t bad = loglik_sde({A.row(s), {d, d}}, {Q.row(s), {d, d}}, {u.row(s), {d}}, {C.row(s), {1, p, d}},
                                       {off.row(s), {1, p}}, {R.row(s), {1, p, p}}, {mean.row(s), {d}}, {cov.row(s), {d, d}}, flat,
                                       steps, index, cfg, times, data, {gradient.row(s), {G}}, {value.data + s, {1}});
        if (bad >= 0) value[s] = NAN;
    }
}

}  // namespace afa
