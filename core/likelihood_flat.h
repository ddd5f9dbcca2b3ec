// The likelihood's gradient along the part of a series in which flat directions are open (flat.h).
//
//     x = m + M delta + L xi,   T delta = s + omega,   omega ~ N(omega^, C) given all data
//
// Given delta the score is that of likelihood.h, with costates r + R delta; over delta it is averaged. Directions that the
// data hardly determine have a posterior covariance as large as the square of what T loses: nothing is formed of it.
// delta is counted by omega, T and s being those of the last flat node: B = M T^-1 in place of M, Y = R T^-1 C in place of
// R; and E = (share of delta in an innovation) T^-1 comes from the rotations that have made T, run backward:
//
//     forward    (T, row) <- Theta (T, row),  (s, e) <- Theta (s, e)     e, row = K (v, H M-) given delta = 0
//     backward   (A, E) <- Theta^T (A, 0)     A = I at the end           E: the row of Q in QR
//                (w, e) <- Theta^T (w, left)  w = s - T delta^           e = K v - (its row) delta^
//
// The roots of r's and w's joint covariance over data of the model, (Z; Z_w), follow likewise: `left` is N(0, 1)
// apart from everything later. With G = K H and Z_e from that rotation:
//
//     D = Z_e - W^T Z,   U = E C + W^T Y                    u = K^T (e - W^T r),   r- = r + H^T u
//     Z- = Z + G^T D,    Y- = Y - G^T U                     M = K^T D D^T K
//     H:   u x_s^T - n K^T (W^T + D Z^T P + U B^T)
//     F:   r- x_s'^T - n (Z- Z-^T F P' - Y- B'^T),   V: (r- r-^T - n Z- Z-^T) / 2
//     flat basis: r- delta^^T + n Y- T^-T
//     at the end  omega^ = B^T r,  C = I - B^T Z Z^T B,  w = -B^T r,  Z_w = -B^T Z,  Y = -Z Z^T B
//
// T^-1 is formed once, row by row, so that T^-1 T = I within rounding for all nodes alike: products with rows of
// T, which cancel over the nodes wherever a parameter only turns the directions, cancel in floating point as well.
// (Derived from Fisher's identity under the flat measure; de Jong, Annals of Statistics 19 (1991) 1073-1083, for delta.)
#pragma once
#include <optional>

#include "likelihood.h"

namespace afa {
inline namespace AFA_LEVEL {

// A flat start along one series, with everything that the kernels of flat_start.h keep.
struct FlatPart {
    using Room = Scratch<double, 0>;
    int d, p, q;
    int64_t n, T, room;
    Room step, root, T_, V, D, half, P, S, mean, innovation, loglik, z, L, m, M, Tm, s, Ms, tolerance, Ts, ss, E, turned, error,
        peak, late, rotation, facts;
    Scratch<int64_t, 0> slot, obs, count;
    int64_t outcome[4] = {0, 0, -1, 0};
    int64_t done() const { return outcome[0]; }
    bool integrated() const { return outcome[1] == 1; }

    FlatPart(const LinearChain& chain, const PathData& data, const Filtered& kept, int64_t room_)
        : d(kept.d), p(kept.p), q(static_cast<int>(chain.flat.shape[0])), n(kept.n), T(data.z.shape[0]), room(room_), step(0), root(0),
          T_(room * d * d), V(room * p * d), D(room * d * d), half(T), P(T * d * d), S(T * p * p), mean(n * T * d),
          innovation(n * T * p), loglik(n * T), z(n * T * p), L(d * d), m(n * d), M(q * d), Tm(q * q), s(n * q), Ms(room * q * d),
          tolerance(room * q * d), Ts(room * q * q), ss(n * room * q), E(T * p * q), turned(q * q), error(q * d * d),
          peak(q * d), late(q * d), rotation((d + q) * (d + q)), facts(4), slot(T), obs(T), count(room) {
        for (int64_t t = 0; t < T; t++) {
            obs[t] = t;
            for (int a = 0; t < room && a < p; a++)
                for (int64_t j = 0; j < n; j++) z[(j * T + t) * p + a] = data.seen.row(t)[a] ? data.z.row(t)[a * n + j] : NAN;
        }
    }
    // spare = 1: N(0, D D^T) is added to the first state's law, which is flat there anyway. alike: whether directions are only rotated.
    void run(const LinearChain& chain, const PathData& data, Filtered& kept, double spare, bool alike) {
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
        Chain along{chain.index, {&kept.F[0], {U, d, d}}, chain.b, {&kept.V[0], {U, d, d}}, {&obs[0], {t}}, chain.cfg,
                    chain.H, chain.off, chain.R};
        Gains gains{{&slot[0], {t}}, {&kept.W[0], {t, p, d}}, {&kept.K[0], {t, p, p}}, {&half[0], {t}},
                    {&kept.root[0], {t, d, d}}, {&T_[0], {room, d, d}}, {&V[0], {room, p, d}}, {&D[0], {room, d, d}}};
        FlatKept store{{&Ms[0], {room, q, d}}, {&tolerance[0], {room, q, d}}, {&Ts[0], {room, q, q}}, {&ss[0], {n, room, q}},
                       {&E[0], {t, p, q}}, {&count[0], {room}}, {&turned[0], {q, q}}};
        ComponentSizes sizes = chain.sizes;
        if (alike) sizes.growth.data = nullptr;
        filter_flat(along, gains, chain.times, sizes,
                    {{&L[0], {d, d}}, {&m[0], {n, d}}, {&M[0], {q, d}}, {&Tm[0], {q, q}}, {&s[0], {n, q}}},
                    {data.seen, data.scale, true, {&z[0], {n, t, p}}},
                    {{&mean[0], {n, t, d}}, {&P[0], {t, d, d}}, {&innovation[0], {n, t, p}}, {&S[0], {t, p, p}}, {&loglik[0], {n, t}}},
                    store, {{&error[0], {q, d, d}}, {&peak[0], {q, d}}, {&late[0], {q, d}}}, {&rotation[0], {(d + q) * (d + q)}}, {outcome, {4}}, {&facts[0], {4}});
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

// How the rows of whitened innovations went into T delta = s, once more: turns (done, p, q, 2), cosine and sine by
// direction; left (done, p, n) what they left of e; own (done, p) the direction that the row itself closed, or -1.
struct Regression {
    Scratch<double, 0> turns, left, T, s;                // T (q, q), s (n, q)
    Scratch<int64_t, 0> own;
    Regression(const PathData& data, const Filtered& kept, const FlatPart& flat)
        : turns(flat.done() * flat.p * flat.q * 2), left(flat.done() * flat.p * flat.n), T(flat.q * flat.q), s(flat.n * flat.q),
          own(flat.done() * flat.p) {
        const int p = flat.p, q = flat.q;
        FlatState x{flat.d, p, q, 0, nullptr, &T[0], &s[0], nullptr, nullptr, flat.n};
        Scratch<double, 0> row(q), pivot_error(q);
        for (int64_t t = 0; t < flat.done(); t++)
            for (int a = 0; a < p; a++) {
                const int64_t at = t * p + a;
                own[at] = -1;
                if (!data.seen.row(t)[a]) continue;
                const bool closes = x.count < q && flat.E[at * q + x.count] != 0.0;
                if (closes) own[at] = x.count++;
                for (int j = 0; j < x.count; j++) {
                    row[j] = 0.0;
                    for (int g = 0; g <= a; g++) row[j] += kept.K[(t * p + g) * p + a] * flat.E[(t * p + g) * q + j];
                    turns[(at * q + j) * 2] = 1.0;
                }
                for (int64_t j = 0; j < flat.n; j++) left[at * flat.n + j] = kept.e[at * flat.n + j];
                if (closes) {
                    for (int j = 0; j < x.count; j++) T[(x.count - 1) * q + j] = row[j];
                    for (int64_t j = 0; j < flat.n; j++) s[j * q + x.count - 1] = left[at * flat.n + j];
                } else
                    rotate_in(&row[0], x.count, &left[at * flat.n], x, &pivot_error[0], [](int) { return 0.0; }, [&](int j, double c, double sine) {
                        turns[(at * q + j) * 2] = c, turns[(at * q + j) * 2 + 1] = sine;
                    });
            }
    }
};

// At work: r (d, n), Z (d, k), k = d + c + p columns of which the last p are 0 between nodes, Y^T (c, d); w (c, k + n + c)
// the rows [Z_w, w, A], e (p, k + n + c) likewise; omega = s + omega^ (c, n), C (c, c), T^-T (c, c); of the node in hand B^T (c, d),
// L (by columns), Z^T L (k, d) and smoothed states x (d, n).
struct FlatCostates {
    using Room = Scratch<double, 0>;
    int d, p, c, k;
    int64_t n, wide;
    Room r, Z, Y, w, e, omega, C, inverse_t, B, L, ZL, x, move;
    Columns<0, 0> A;
    Room v;
    FlatCostates(int d_, int p_, int c_, int64_t n_)
        : d(d_), p(p_), c(c_), k(d + c + p), n(n_), wide(k + n + c), r(d * n), Z(d * k), Y(c * d), w(c * wide), e(p * wide),
          omega(c * n), C(c * c), inverse_t(c * c), B(c * d), L(d * d), ZL(k * d), x(d * n), move(n), A(k, d + c), v(k) {}
};

// The node's root L by columns, B = M T^-1 from its directions M (q, d) and Z^T L.
inline void at_node(const double* L, const double* directions, FlatCostates& at) {
    const int d = at.d, c = at.c, k = at.k;
    for (int i = 0; i < d * d; i++) at.L[i] = L[i];
    multiply(&at.inverse_t[0], directions, &at.B[0], c, c, d);
    for (int i = 0; i < k * d; i++) at.ZL[i] = 0.0;
    for (int i = 0; i < d; i++)
        for (int l = 0; l < k; l++)
            for (int j = 0; j < d; j++) at.ZL[l * d + j] += at.Z[i * k + l] * L[j * d + i];
}

// x = m + B omega + L L^T r at node t.
inline void smooth_flat_states(const Filtered& kept, int64_t t, FlatCostates& at) {
    const int d = at.d;
    const int64_t n = at.n;
    for (int i = 0; i < d; i++)
        for (int64_t j = 0; j < n; j++) {
            double x = kept.m[(t * d + i) * n + j];
            for (int l = 0; l < at.c; l++) x += at.B[l * d + i] * at.omega[l * n + j];
            at.x[i * n + j] = x;
        }
    for (int l = 0; l < d; l++) {
        for (int64_t j = 0; j < n; j++) at.move[j] = 0.0;
        for (int i = 0; i < d; i++)
            for (int64_t j = 0; j < n; j++) at.move[j] += at.L[l * d + i] * at.r[i * n + j];
        for (int i = 0; i < d; i++)
            for (int64_t j = 0; j < n; j++) at.x[i * n + j] += at.L[l * d + i] * at.move[j];
    }
}

// What is carried, at the last flat node: see above. Z (d, d), by columns: the costates' root after its observation.
inline void settle_directions(const Regression& done, const double* Z, const double* L, const double* directions, int q,
                              FlatCostates& at) {
    const int d = at.d, c = at.c, k = at.k;
    const int64_t n = at.n, wide = at.wide;
    Scratch<double, 0> T(c * c), BZ(c * d), Br(c * n);
    for (int i = 0; i < c; i++)
        for (int j = 0; j < c; j++) T[i * c + j] = done.T[i * q + j], at.inverse_t[i * c + j] = i == j ? 1.0 : 0.0;
    solve_lower_t(&T[0], &at.inverse_t[0], c, c);
    for (int i = 0; i < d; i++)
        for (int l = 0; l < d; l++) at.Z[i * k + l] = Z[l * d + i];
    at_node(L, directions, at);
    add_product_t(&at.B[0], Z, 1.0, &BZ[0], c, d, d);
    multiply(&at.B[0], &at.r[0], &Br[0], c, d, n);
    add_product_t(&BZ[0], &BZ[0], -1.0, &at.C[0], c, d, c);
    for (int l = 0; l < c; l++) {
        double* w = &at.w[l * wide];
        at.C[l * c + l] += 1.0;
        w[k + n + l] = 1.0;
        for (int i = 0; i < d; i++) w[i] = -BZ[l * d + i];
        for (int64_t j = 0; j < n; j++) {
            w[k + j] = -Br[l * n + j];
            at.omega[l * n + j] = done.s[j * q + l] + Br[l * n + j];
        }
    }
    for (int l = 0; l < c; l++)
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) at.Y[l * d + i] -= BZ[l * d + j] * Z[j * d + i];
}

// (w, e) <- Theta^T (w, left) for the observation at t, its components from the last to the first.
inline void turn_back(const Regression& done, const PathData& data, int64_t t, int q, FlatCostates& at) {
    const int p = at.p, k = at.k;
    const int64_t n = at.n, wide = at.wide;
    for (int a = p - 1; a >= 0; a--) {
        double* e = &at.e[a * wide];
        for (int64_t i = 0; i < wide; i++) e[i] = 0.0;
        if (!data.seen.row(t)[a]) continue;
        const int64_t row = t * p + a, own = done.own[row];
        if (own >= 0) {
            for (int64_t i = 0; i < wide; i++) std::swap(e[i], at.w[own * wide + i]);
            continue;
        }
        e[k - p + a] = 1.0;
        for (int64_t j = 0; j < n; j++) e[k + j] = done.left[row * n + j];
        for (int j = 0; j < at.c; j++) {
            const double c = done.turns[(row * q + j) * 2], s = done.turns[(row * q + j) * 2 + 1];
            if (s != 0.0) move_pair(&at.w[j * wide], e, static_cast<int>(wide), c, -s, -s);
        }
    }
}

// Z and Z_w <- [Z; Z_w] Theta, the last p columns zero again.
inline void shrink_root(FlatCostates& at) {
    const int d = at.d, c = at.c, k = at.k;
    for (int l = 0; l < k; l++)
        for (int i = 0; i < d + c; i++) at.A.set(l, i, i < d ? at.Z[i * k + l] : at.w[(i - d) * at.wide + l]);
    triangularise(at.A, at.v, Size<0>(d + c), Size<0>(k), Size<0>(k));
    for (int l = 0; l < k; l++)
        for (int i = 0; i < d + c; i++) (i < d ? at.Z[i * k + l] : at.w[(i - d) * at.wide + l]) = l < d + c ? at.A.at(l, i) : 0.0;
}

// Gradients by H, off, R of the observation at t, and what is carried before it.
inline void score_flat_observation(const LinearChain& chain, const PathData& data, const Filtered& kept, const Regression& done,
                                   int64_t t, FlatCostates& at, Slopes& slopes, SmoothedMoments& out) {
    const int d = at.d, p = at.p, c = at.c, k = at.k;
    const int64_t n = at.n, wide = at.wide, cfg = chain.cfg[t];
    const double paths = static_cast<double>(n), half = 0.5 * data.scale[t];
    using Room = Scratch<double, 0>;
    const double *H = chain.H.row(cfg), *W = &kept.W[t * p * d];
    turn_back(done, data, t, static_cast<int>(chain.flat.shape[0]), at);
    Room K(p * p), G(p * d), WZ(p * k), WY(p * c), Wr(p * n), D(p * k), U(p * c), e(p * n), u(p * n), DK(p * k), M(p * p);
    for (int a = 0; a < p; a++)
        for (int g = 0; g <= a; g++) K[a * p + g] = kept.K[(t * p + g) * p + a];
    multiply(&K[0], H, &G[0], p, p, d);
    multiply(W, &at.Z[0], &WZ[0], p, d, k);                                  // W^T Z, W^T Y, W^T r
    add_product_t(W, &at.Y[0], 1.0, &WY[0], p, d, c);
    multiply(W, &at.r[0], &Wr[0], p, d, n);
    for (int a = 0; a < p; a++) {
        const double* row = &at.e[a * wide];
        for (int l = 0; l < k; l++) D[a * k + l] = row[l] - WZ[a * k + l];
        for (int64_t j = 0; j < n; j++) e[a * n + j] = row[k + j] - Wr[a * n + j];
        for (int l = 0; l < c; l++) {
            double x = WY[a * c + l];
            for (int j = 0; j < c; j++) x += row[k + n + j] * at.C[j * c + l];
            U[a * c + l] = x;
        }
    }
    t_multiply(&K[0], &e[0], &u[0], p, p, n);
    t_multiply(&K[0], &D[0], &DK[0], p, p, k);                               // M = (K^T D) (K^T D)^T
    add_product_t(&DK[0], &DK[0], 1.0, &M[0], p, k, p);
    Room DZL(p * d), B(p * d), KB(p * d);                                    // B = W^T + D (Z^T L) L^T + U B^T
    multiply(&D[0], &at.ZL[0], &DZL[0], p, k, d);
    multiply(&DZL[0], &at.L[0], &B[0], p, d, d);
    for (int a = 0; a < p; a++)
        for (int i = 0; i < d; i++) {
            double x = W[a * d + i];
            for (int l = 0; l < c; l++) x += U[a * c + l] * at.B[l * d + i];
            B[a * d + i] += x;
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
    for (int a = 0; a < p; a++)
        for (int i = 0; i < d; i++) {
            const double h = H[a * d + i], g = G[a * d + i];
            for (int64_t j = 0; j < n; j++) at.r[i * n + j] += h * u[a * n + j];
            for (int l = 0; l < k; l++) at.Z[i * k + l] += g * D[a * k + l];
            for (int l = 0; l < c; l++) at.Y[l * d + i] -= g * U[a * c + l];
        }
    shrink_root(at);
}

// G += (r r^T - n Z Z^T) / 2.
inline void add_noise_score(const FlatCostates& at, double* G) {
    add_product_t(&at.Z[0], &at.Z[0], -0.5 * static_cast<double>(at.n), G, at.d, at.k, at.d);
    add_product_t(&at.r[0], &at.r[0], 0.5, G, at.d, at.n, at.d);
}

// L (I - (Z^T L)^T Z^T L) L^T + B C B^T + P Y B^T + B Y^T P: smoothed covariance of the state in hand.
inline void keep_flat_states(int64_t t, const FlatCostates& at, SmoothedMoments& out) {
    if (out.x.shape[0] == 0) return;
    const int d = at.d, c = at.c;
    Scratch<double, 0> inner(d * d), LI(d * d), YL(c * d), YP(c * d), CB(c * d), half(c * d);
    for (int64_t i = 0; i < d * at.n; i++) out.x.row(t)[i] = at.x[i];
    t_multiply(&at.ZL[0], &at.ZL[0], &inner[0], d, at.k, d);
    for (int i = 0; i < d * d; i++) inner[i] = (i % (d + 1) == 0 ? 1.0 : 0.0) - inner[i];
    t_multiply(&at.L[0], &inner[0], &LI[0], d, d, d);
    double* P = out.P.row(t);
    multiply(&LI[0], &at.L[0], P, d, d, d);
    add_product_t(&at.Y[0], &at.L[0], 1.0, &YL[0], c, d, d);
    multiply(&YL[0], &at.L[0], &YP[0], c, d, d);
    multiply(&at.C[0], &at.B[0], &CB[0], c, c, d);
    for (int l = 0; l < c; l++)
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++)
                P[i * d + j] += at.B[l * d + i] * (CB[l * d + j] + YP[l * d + j]) + YP[l * d + i] * at.B[l * d + j];
}

// The columns of M (count, d), by columns, as a basis of the space they span in which `count` rows are those of the identity: Gauss-Jordan
// with complete pivoting, rows in units of their `size`.
inline void reduce_columns(double* M, const double* size, int count, int d) {
    for (int k = 0; k < count; k++) {
        int column = k, row = 0;
        double most = 0.0;
        for (int j = k; j < count; j++) {
            double whole = 0.0;
            for (int i = 0; i < d; i++) whole = larger(whole, size[i] * std::fabs(M[j * d + i]));
            for (int i = 0; i < d; i++)
                if (const double share = size[i] * std::fabs(M[j * d + i]) / whole; share > most) most = share, column = j, row = i;
        }
        std::swap_ranges(M + k * d, M + (k + 1) * d, M + column * d);
        for (int i = 0; i < d; i++)
            if (i != row) M[k * d + i] /= M[k * d + row];
        M[k * d + row] = 1.0;
        for (int j = 0; j < count; j++)
            if (const double share = M[j * d + row]; j != k && share != 0.0)
                for (int i = 0; i < d; i++) M[j * d + i] -= share * M[k * d + i];
    }
}

// Nothing depends on the basis and the origin of the directions O (columns of M-) that no observation before node t has seen:
//
//     O^T r- = 0,   O^T Z- = 0,   O^T Y- = -(columns of T that are theirs)^T,
//
// so that -Y- B'^T = U N'^T - Y B'^T with any basis N' of them at the node before, N'^T F^T U = I and O^T Y = 0. B' is as large as what has
// decayed since is small: what rounding leaves of r, Z and Y along O is taken out, and NFP (d, d) becomes U N'^T.
inline void settle_unseen(const double* F, const FlatPart& flat, int64_t t, FlatCostates& at, double* Y, double* NFP) {
    const int d = at.d, c = at.c, k = at.k, seen = static_cast<int>(flat.count[t - 1]), open = c - seen;
    if (open <= 0) return;
    const int64_t n = at.n;
    Scratch<double, 0> size(d), earlier(d), N(open * d), moved(open * d), length(open), L(open * open), v(d);
    Columns<0, 0> O(d, open + d);                                            // [O^T; I] Theta = [L, 0; Theta], in units of the rows
    for (int i = 0; i < d; i++) {
        for (int64_t j = 0; j < n; j++) size[i] = larger(size[i], std::fabs(at.r[i * n + j]));
        for (int j = 0; j < k; j++) size[i] = larger(size[i], std::fabs(at.Z[i * k + j]));
        for (int j = 0; j < c; j++) size[i] = larger(size[i], std::fabs(Y[j * d + i]));
        if (!(size[i] > 0.0)) size[i] = 1.0;
        for (int j = 0; j < d; j++) earlier[j] += std::fabs(F[i * d + j]) * size[i];
    }
    std::copy_n(&flat.Ms[((t - 1) * flat.q + seen) * d], open * d, &N[0]);
    reduce_columns(&N[0], &earlier[0], open, d);
    add_product_t(&N[0], F, 1.0, &moved[0], open, d, d);
    for (int j = 0; j < open; j++) {
        for (int i = 0; i < d; i++) moved[j * d + i] *= size[i], length[j] = larger(length[j], std::fabs(moved[j * d + i]));
        if (!(length[j] > 0.0)) return;
    }
    for (int j = 0; j < open; j++) {                                         // what has decayed most comes first: L^-1 mixes nothing into it
        const int64_t least = std::min_element(&length[j], &length[0] + open) - &length[0];
        std::swap(length[j], length[least]);
        std::swap_ranges(&N[j * d], &N[j * d] + d, &N[least * d]);
        std::swap_ranges(&moved[j * d], &moved[j * d] + d, &moved[least * d]);
        for (int i = 0; i < d; i++) O.set(i, j, moved[j * d + i] / length[j]), N[j * d + i] /= length[j];
    }
    for (int i = 0; i < d; i++) O.set(i, open + i, 1.0);
    triangularise(O, v, Size<0>(open), Size<0>(d), Size<0>(d));
    for (int j = 0; j < open; j++) {
        if (!(O.at(j, j) > 0.0)) return;
        for (int l = 0; l <= j; l++) L[j * open + l] = O.at(l, j);
    }
    const auto settle = [&](auto entry) {
        for (int j = 0; j < 3 * open; j++) {                                 // each time all but a rounding of it
            double along = 0.0;
            for (int i = 0; i < d; i++) along += O.at(j % open, open + i) * (entry(i) / size[i]);
            for (int i = 0; i < d; i++) entry(i) -= size[i] * (O.at(j % open, open + i) * along);
        }
    };
    for (int64_t l = 0; l < n; l++) settle([&](int i) -> double& { return at.r[i * n + l]; });
    for (int l = 0; l < k; l++) settle([&](int i) -> double& { return at.Z[i * k + l]; });
    for (int l = 0; l < c; l++) settle([&](int i) -> double& { return Y[l * d + i]; });
    solve_lower(&L[0], &N[0], open, d);                                      // U = Theta L^-1
    for (int i = 0; i < d; i++)
        for (int j = 0; j < open; j++)
            for (int l = 0; l < d; l++) NFP[i * d + l] += size[i] * O.at(j, open + i) * N[j * d + l];
}

// The step into t; L and directions: of node t - 1.
inline void score_flat_step(const LinearChain& chain, const Filtered& kept, const FlatPart& flat, int64_t t, FlatCostates& at,
                            Slopes& slopes, SmoothedMoments& out) {
    const int d = at.d, c = at.c, k = at.k;
    const int64_t n = at.n, f = chain.index[t];
    const double *F = chain.F.row(f), paths = static_cast<double>(n);
    double *gF = slopes.F.row(f), *gb = slopes.b.row(f);
    Scratch<double, 0> r(d * n), Z(d * k), Y(c * d), settled(c * d), ZLs(d * d), NFP(d * d), UN(d * d);
    for (int i = 0; i < c * d; i++) settled[i] = at.Y[i];
    settle_unseen(F, flat, t, at, &settled[0], &UN[0]);
    add_noise_score(at, slopes.V.row(f));
    for (int64_t i = 0; i < d * n; i++) r[i] = at.r[i];
    for (int i = 0; i < d * k; i++) Z[i] = at.Z[i];
    for (int i = 0; i < c * d; i++) Y[i] = at.Y[i];
    for (int i = 0; i < d; i++)
        for (int64_t j = 0; j < n; j++) gb[i] += r[i * n + j];
    t_multiply(F, &r[0], &at.r[0], d, d, n);                                 // r = F^T r-, Z = F^T Z-, Y = F^T Y-
    t_multiply(F, &Z[0], &at.Z[0], d, d, k);
    multiply(&Y[0], F, &at.Y[0], c, d, d);
    at_node(&kept.root[(t - 1) * d * d], &flat.Ms[(t - 1) * flat.q * d], at);
    smooth_flat_states(kept, t - 1, at);
    multiply(&Z[0], &at.ZL[0], &ZLs[0], d, k, d);
    multiply(&ZLs[0], &at.L[0], &NFP[0], d, d, d);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) {
            double x = NFP[i * d + j] + UN[i * d + j];
            for (int l = 0; l < c; l++) x -= settled[l * d + i] * at.B[l * d + j];
            NFP[i * d + j] = x;                                              // Z- Z-^T F P' - Y- B'^T
            x *= -paths;
            for (int64_t l = 0; l < n; l++) x += r[i * n + l] * at.x[j * n + l];
            gF[i * d + j] += x;
        }
    if (out.lag.shape[0] == 0) return;
    // Cov(x_t, x_t-1 | z) = F P' - P- (Z- Z-^T F P' - Y- B'^T) + F B' (C B'^T + Y-^T F P')
    Scratch<double, 0> P(d * d), FP(d * d), ahead(d * d), FB(d * c), right(c * d);
    const double* V = chain.V.row(f);
    t_multiply(&at.L[0], &at.L[0], &P[0], d, d, d);
    multiply(F, &P[0], &FP[0], d, d, d);
    for (int i = 0; i < d * d; i++) ahead[i] = V[i];
    add_product_t(&FP[0], F, 1.0, &ahead[0], d, d, d);
    add_product_t(F, &at.B[0], 1.0, &FB[0], d, d, c);
    multiply(&Y[0], &FP[0], &right[0], c, d, d);
    for (int l = 0; l < c; l++)
        for (int j = 0; j < c; j++)
            for (int i = 0; i < d; i++) right[l * d + i] += at.C[l * c + j] * at.B[j * d + i];
    double* lag = out.lag.row(t);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) {
            double x = FP[i * d + j];
            for (int l = 0; l < d; l++) x -= ahead[i * d + l] * NFP[l * d + j];
            for (int l = 0; l < c; l++) x += FB[i * c + l] * right[l * d + j];
            lag[i * d + j] = x;
        }
}

// The root at the last flat node given delta: what integrating out overwrote is made again from the node before.
inline void root_given_delta(const LinearChain& chain, const PathData& data, const Filtered& kept, int64_t t, double spare,
                             double* L) {
    const int d = kept.d, p = kept.p, q = static_cast<int>(chain.flat.shape[0]);
    const Size<0> D(d), P(p);
    StateSpace<0, false> space(d);
    ObservationSpace<0, 0> observed(d, p);
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
        set_observation(chain.H.row(chain.cfg[t]), observed, D, P);
        innovation_cov(R, data.scale[t], space.A, &S[0], observed, D, P);
        const bool correlated = split_noise(R, data.scale[t], data.seen.row(t), observed, P);
        update_root<false>(data.seen.row(t), &S[0], space.A, &W[0], &K[0], static_cast<double*>(nullptr), observed, correlated, D, P);
    }
    write_columns(space.A, 0, 0, L, D, D);
}

// From node done - 1 to the first state; at.r and Z: costates and their root after the observation at node done - 1.
inline void score_flat(const LinearChain& chain, const PathData& data, const Filtered& kept, const FlatPart& flat, double spare,
                       const double* Z, FlatCostates& at, Slopes& slopes, SmoothedMoments& out) {
    const int d = at.d, c = at.c, q = flat.q;
    const int64_t n = at.n, last = flat.done() - 1;
    const Regression done(data, kept, flat);
    Scratch<double, 0> L(d * d);
    root_given_delta(chain, data, kept, last, spare, &L[0]);
    settle_directions(done, Z, &L[0], &flat.M[0], q, at);
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
        if (any_seen(data.seen.row(t), at.p)) score_flat_observation(chain, data, kept, done, t, at, slopes, out);
        if (t > 0) score_flat_step(chain, kept, flat, t, at, slopes, out);
    }
    Scratch<double, 0> G(d * d);
    add_noise_score(at, &G[0]);
    for (int i = 0; i < d * d; i++) slopes.cov[i] += G[i];
    // delta^ in the given directions, origins included: D delta^ = x - m0 - P0 r
    Scratch<double, 0> delta(q * n), DD(q * q), root(q * q), Y(c * d);
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
    t_multiply(&at.inverse_t[0], &at.Y[0], &Y[0], c, c, d);                  // T^-1 Y^T
    cholesky(&DD[0], 0.0, &root[0], q);
    solve_lower(&root[0], &delta[0], q, n);
    solve_lower_t(&root[0], &delta[0], q, n);
    for (int j = 0; j < q; j++)                                              // r delta^^T + n Y T^-T
        for (int i = 0; i < d; i++) {
            double x = 0.0;
            for (int64_t l = 0; l < n; l++) x += at.r[i * n + l] * delta[j * n + l];
            for (int l = 0; l < c; l++) x += static_cast<double>(n) * Y[l * d + i] * flat.turned[l * q + j];
            for (int k = 0; k < d; k++) x += 2.0 * spare * G[i * d + k] * chain.flat.row(j)[k];
            slopes.flat.row(j)[i] += x;
        }
}

// ---------------------------------------------------------------- one group of paths

// Where the ordinary filter begins: after the flat part, if there is one, at node `first` with the root L (columns) and the
// means m (d, n) of the node before. spare: see `FlatPart::run`; bad: node whose innovation is known exactly, or -1.
struct Beginning {
    std::optional<FlatPart> flat;
    Scratch<double, 0> L, m;
    double spare = 0.0;
    int64_t first = 0, bad = -1;

    Beginning(const LinearChain& chain, const PathData& data, Filtered& kept, double& value) : L(kept.d * kept.d), m(kept.d * kept.n) {
        const int64_t T = data.z.shape[0], q = chain.flat.shape[0], d = kept.d, n = kept.n;
        const double* growth = chain.sizes.growth.data;
        bool alike = false;
        const bool differ = std::any_of(growth, growth + d, [&](double x) { return x != *growth; });
        if (q > 0)
            for (int64_t room = std::min<int64_t>(T, 8 * q + 24);;) {
                flat.emplace(chain, data, kept, room);
                flat->run(chain, data, kept, spare, alike);
                if (flat->outcome[2] >= 0) {
                    bad = flat->outcome[2];
                    if (spare > 0.0) return;
                    spare = 1.0;                                             // without measurement noise: keeps S definite
                } else if (flat->outcome[3] < q && differ && !alike && (flat->integrated() || room == T)) {
                    alike = true;                                            // the gradient wants delta orthogonal to what is left open
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

// Filter and, if asked, gradient (added to `slopes`) and smoothed moments. value: the log-likelihood and doubts. Returns -1, or
// the node whose innovation is known exactly.
inline int64_t loglik_group(LinearChain chain, PathData data, bool gradient, Slopes slopes, SmoothedMoments out, Out<1> value) {
    Filtered kept(chain, data);
    const int d = kept.d, p = kept.p;
    RoundingMeasures measures;
    value[0] = 0.0;
    Beginning start(chain, data, kept, value[0]);
    if (start.bad >= 0) return start.bad;
    if (start.flat) measures = {start.flat->facts[0], start.flat->facts[1], start.flat->facts[2]};
    FlatCostates at(d, p, start.flat ? static_cast<int>(start.flat->outcome[3]) : 0, kept.n);
    Scratch<double, 0> Z(d * d);
    const auto passes = [&](auto D, auto P, auto PATHS) {
        const int64_t bad = filter_pass(chain, data, start.first, &start.L[0], &start.m[0], kept, value[0], measures.lost, D, P, PATHS);
        if (bad < 0 && gradient) score_pass(chain, data, start.first, kept, slopes, out, &at.r[0], &Z[0], D, P, PATHS);
        return bad;
    };
    const int64_t bad = kept.n != 1 ? passes(Size<0>(d), Size<0>(p), Size<0>(kept.n))
                                   : with_sizes(d, p, [&](auto D, auto P) { return passes(D, P, Size<1>(1)); });
    measures.write(&value[1]);
    if (bad < 0 && gradient && start.flat) score_flat(chain, data, kept, *start.flat, start.spare, &Z[0], at, slopes, out);
    return bad;
}

// A model's arrays, or the gradient by them, end to end: A, Q, cov, C, R, off, u, mean, and of the gradient flat (q, d).
template <class T> struct EndToEnd {
    View<T, 2> A, Q, cov;
    View<T, 3> C, R;
    View<T, 2> off;
    View<T, 1> u, mean;
    View<T, 2> flat;
    EndToEnd(T* at, int64_t d, int64_t p, int64_t q) {
        const auto take = [&](int64_t size) { return at += size, at - size; };
        A = {take(d * d), {d, d}}, Q = {take(d * d), {d, d}}, cov = {take(d * d), {d, d}};
        C = {take(p * d), {1, p, d}}, R = {take(p * p), {1, p, p}}, off = {take(p), {1, p}};
        u = {take(d), {d}}, mean = {take(d), {d}}, flat = {take(q * d), {q, d}};
    }
    static int64_t size(int64_t d, int64_t p) { return 3 * d * d + p * d + p * p + p + 2 * d; }
};
// The times of the observations: distinct intervals, the one that ends at each time, and the row of C, off, R there.
struct TimeGrid {
    In<1> steps;
    Index<1> index, cfg;
    In<1> times;
    template <class Visit> void members(Visit&& visit) { visit(steps, index, cfg, times); }
};

// Everything of a continuous-time model, dx = (A x + u) dt + dw, Cov(dw) = Q dt; z = C x + off + N(0, R);
// x_0 ~ N(mean, cov) + flat (q, d), for short series: transitions over `steps`, `loglik_group` and the gradient, which is 0
// at first. found: value and doubts (4), then the node whose innovation is known exactly, or -1.
inline void loglik_sde(const EndToEnd<const double>& model, In<2> flat, TimeGrid grid, PathData data,
                       const EndToEnd<double>& g, double* found) {
    const auto& [steps, index, cfg, times] = grid;
    const int64_t U = steps.shape[0], d = model.u.shape[0], none = 0;
    Scratch<double, 0> moves(U * (2 * d * d + d)), gmoves(U * (2 * d * d + d)), unit(d), rate(d), growth(d);
    Scratch<int64_t, 0> block(d);
    auto views = [&](double* at) {
        return std::make_tuple(Out<3>{at, {U, d, d}}, Out<2>{at + U * d * d, {U, d}}, Out<3>{at + U * (d * d + d), {U, d, d}});
    };
    auto [F, b, V] = views(&moves[0]);
    auto [gF, gb, gV] = views(&gmoves[0]);
    transitions(model.A, model.Q, model.u, steps, F, b, V);
    component_sizes(model.A, false, {&block[0], {d}}, {&unit[0], {d}}, {&rate[0], {d}}, {&growth[0], {d}});
    const LinearChain chain{{F.data, {U, d, d}}, {b.data, {U, d}}, {V.data, {U, d, d}}, index, model.C, model.off, model.R, cfg,
                            model.mean, model.cov, flat, times,
                            {{&block[0], {d}}, {&unit[0], {d}}, {&rate[0], {d}}, {&growth[0], {d}}, model.A},
                            {nullptr, {none, d, d}}};
    const Slopes slopes{gF, gb, gV, g.C, g.off, g.R, g.mean, g.cov, g.flat};
    const SmoothedMoments out{{nullptr, {none}}, {nullptr, {none}}, {nullptr, {none}}, {nullptr, {none}}, {nullptr, {none}}};
    const int64_t bad = loglik_group(chain, data, true, slopes, out, {found, {4}});
    if (bad < 0)
        transition_adjoint(model.A, model.Q, model.u, steps, {gF.data, {U, d, d}}, {gb.data, {U, d}}, {gV.data, {U, d, d}},
                           g.A, g.Q, g.u);
    found[4] = static_cast<double>(bad);
}

// `loglik_sde` of many models (S, W), each with a series of its own, (which) of those on one grid: z (K, T, p, paths). The
// flat directions are common. Returns whether the rows are as long as `EndToEnd` has them.
inline bool loglik_sdes(In<2> models, In<2> flat, TimeGrid grid, Index<1> which, In<4> z, Flags<3> seen, In<1> scale,
                        Out<2> gradient, Out<2> found) {
    const int64_t T = z.shape[1], p = z.shape[2], n = z.shape[3], q = flat.shape[0], d = flat.shape[1];
    const int64_t size = EndToEnd<double>::size(d, p);
    if (models.shape[1] != size || gradient.shape[1] != size + q * d) return false;
    for (int64_t s = 0; s < which.shape[0]; s++) {
        const PathData data{{z.row(which[s]), {T, p, n}}, {seen.row(which[s]), {T, p}}, scale};
        loglik_sde({models.row(s), d, p, 0}, flat, grid, data, {gradient.row(s), d, p, q}, found.row(s));
    }
    return true;
}

}
}  // namespace afa
