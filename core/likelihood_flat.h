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

// Columns L of the first state's root.
inline void first_root(const LinearChain& chain, double spare, double* L) {
    const int d = static_cast<int>(chain.cov.shape[0]);
    Room<3> cov(1, d, d);
    std::copy_n(chain.cov.data, d * d, cov.data);
    for (int64_t j = 0; j < chain.flat.shape[0]; j++) add_product_t(chain.flat.row(j), chain.flat.row(j), spare, cov.data, d, 1, d);
    lower_roots(cov, {L, {1, d, d}});
}

// A flat start along one series, with everything that the kernels of flat_start.h keep.
struct FlatPart {
    int d, p, q;
    int64_t n, T, nodes;
    Room<2> L{d, d}, m{n, d}, M{q, d}, R{q, q}, s{n, q};
    Room<3> steps{nodes, d, d}, V{nodes, p, d}, D{nodes, d, d}, P{T, d, d}, S{T, p, p}, mean{n, T, d}, innovation{n, T, p}, z{n, T, p};
    Room<3> directions{nodes, q, d}, tolerance{nodes, q, d}, Rs{nodes, q, q}, ss{n, nodes, q}, E{T, p, q}, error{q, d, d};
    Room<2> loglik{n, T}, turned{q, q}, peak{q, d}, late{q, d};
    Room<1> half{T}, rotation{(d + q) * (d + q)}, facts{4};
    Room<1, int64_t> slot{T}, obs{T}, count{nodes}, outcome{4};
    int64_t done() const { return outcome[0]; }
    bool integrated() const { return outcome[1] == 1; }

    // spare = 1: N(0, D D^T) is added to the first state's law, which is flat there anyway. alike: whether directions are only rotated.
    FlatPart(const LinearChain& chain, const PathData& data, Filtered& kept, int64_t room, double spare, bool alike)
        : d(kept.d), p(kept.p), q(static_cast<int>(chain.flat.shape[0])), n(kept.n), T(data.z.shape[0]), nodes(room) {
        for (int64_t t = 0; t < T; t++) {
            obs[t] = t;
            for (int a = 0; t < room && a < p; a++)
                for (int64_t j = 0; j < n; j++) z.row(j)[t * p + a] = data.seen.row(t)[a] ? data.z.row(t)[a * n + j] : NAN;
        }
        first_root(chain, spare, L.data);
        std::copy_n(chain.flat.data, q * d, M.data);
        for (int64_t j = 0; j < n; j++) std::copy_n(chain.mean.data, d, m.row(j));
        ComponentSizes sizes = chain.sizes;
        if (alike) sizes.growth.data = nullptr;
        filter_flat({chain.index, kept.F, chain.b, kept.V, obs, chain.cfg, chain.H, chain.off, chain.R},
                    {slot, kept.W, kept.K, half, kept.root, steps, V, D}, chain.times, sizes, {L, m, M, R, s},
                    {data.seen, data.scale, true, z}, {mean, P, innovation, S, loglik},
                    {directions, tolerance, Rs, ss, E, count, turned}, {error, peak, late}, rotation, outcome, facts);
    }
};

// The flat nodes' means, e = K v given delta = 0 and the log-likelihood, in the order of likelihood.h.
inline void take_over(const FlatPart& flat, const PathData& data, Filtered& kept, double& value) {
    const int d = flat.d, p = flat.p;
    const int64_t n = flat.n;
    for (int64_t t = 0; t < flat.done(); t++) {
        const bool seen = any_seen(data.seen.row(t), p);
        for (int64_t j = 0; j < n; j++) {
            for (int i = 0; i < d; i++) kept.m.row(t)[i * n + j] = flat.mean.row(j)[t * d + i];
            if (!seen) continue;
            value += flat.loglik.row(j)[t];
            for (int a = 0; a < p; a++) {
                double e = 0.0;
                for (int c = 0; c <= a; c++)
                    if (data.seen.row(t)[c]) e += kept.K.row(t)[c * p + a] * flat.innovation.row(j)[t * p + c];
                kept.e.row(t)[a * n + j] = e;
            }
        }
    }
}

// ---------------------------------------------------------------- backward

// How the rows of whitened innovations went into T delta = s, once more: turns (done, p, q, 2), cosine and sine by
// direction; left (done, p, n) what they left of e; own (done, p) the direction that the row itself closed, or -1.
struct Regression {
    Room<4> turns;
    Room<3> left;
    Room<2, int64_t> own;
    Room<2> T, s;                                        // T (q, q), s (n, q)
    Regression(const PathData& data, const Filtered& kept, const FlatPart& flat)
        : turns(flat.done(), flat.p, flat.q, 2), left(flat.done(), flat.p, flat.n), own(flat.done(), flat.p), T(flat.q, flat.q),
          s(flat.n, flat.q) {
        const int p = flat.p, q = flat.q;
        FlatState x{flat.d, p, q, 0, nullptr, T.data, s.data, nullptr, nullptr, flat.n};
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
                    for (int g = 0; g <= a; g++) row[j] += kept.K.row(t)[g * p + a] * flat.E[(t * p + g) * q + j];
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

using FlatCostates = Costates<0, 0, 0, true>;

// What is carried, at the last flat node: see above. Z (d, d), by columns: the costates' root after its observation.
inline void settle_directions(const Regression& done, const Filtered& kept, int64_t t, const double* Z, const double* L, const double* directions,
                              FlatCostates& at) {
    const int d = at.d, c = at.c, n = at.n, q = static_cast<int>(done.T.shape[0]);
    Room<2> T(c, c), BZ(c, d), Br(c, n);
    for (int i = 0; i < c; i++) std::copy_n(done.T.row(i), c, T.row(i)), at.inverse_t.row(i)[i] = at.turns.row(i)[i] = at.C.row(i)[i] = 1.0;
    solve_lower_t(T.data, at.inverse_t.data, c, c);
    multiply(at.inverse_t.data, directions, at.B.data, c, c, d);
    read_columns(Z, at.Z, at.d, at.d);
    add_product_t(at.B.data, Z, 1.0, BZ.data, c, d, d);
    multiply(at.B.data, &at.r[0], Br.data, c, d, n);
    add_product_t(BZ.data, BZ.data, -1.0, at.C.data, c, d, c);
    multiply(BZ.data, Z, at.Y.data, c, d, d);
    for (int i = 0; i < c * d; i++) at.Y[i] = -at.Y[i];
    for (int l = 0; l < c; l++) {
        for (int i = 0; i < d; i++) at.Z.set(i, d + l, -BZ.row(l)[i]);
        for (int j = 0; j < n; j++) at.w.row(l)[j] = -Br.row(l)[j], at.omega.row(l)[j] = done.s[j * q + l] + Br.row(l)[j];
    }
    go_to(L, kept.m.row(t), directions, at);
}

// (w, e) <- Theta^T (w, left) for the observation at t, its components from the last to the first.
inline void turn_back(const Regression& done, const PathData& data, int64_t t, FlatCostates& at) {
    const int d = at.d, p = at.p, c = at.c, k = d + c + p, n = at.n;
    for (int a = p - 1; a >= 0; a--) {
        double *De = &at.De[a * (d + c)], *own = at.own.row(a), *e = &at.e[a * n], *turns = at.e_turns.row(a);
        std::fill_n(De, d + c, 0.0), std::fill_n(own, p, 0.0), std::fill_n(e, n, 0.0), std::fill_n(turns, c, 0.0);
        if (!data.seen.row(t)[a]) continue;
        const auto turn = [&](int j, double cosine, double sine) {          // (w_j, e) <- (cos w_j - sin e, cos e + sin w_j)
            for (int l = 0; l < k; l++) {
                double w = at.Z.at(l, d + j);
                move_pair(&w, l < d + c ? De + l : own + l - d - c, 1, cosine, -sine, -sine);
                at.Z.set(l, d + j, w);
            }
            move_pair(at.w.row(j), e, n, cosine, -sine, -sine);
            move_pair(at.turns.row(j), turns, c, cosine, -sine, -sine);
        };
        if (const int64_t closed = done.own.row(t)[a]; closed >= 0) {       // the row itself
            turn(static_cast<int>(closed), 0.0, 1.0);
            continue;
        }
        own[a] = 1.0;
        std::copy_n(done.left.row(t) + a * n, n, e);
        for (int j = 0; j < c; j++)
            if (const double* by = done.turns.row(t) + (a * done.T.shape[0] + j) * 2; by[1] != 0.0) turn(j, by[0], by[1]);
    }
}

// Nothing depends on the basis and the origin of the directions O (columns of M-) that no observation before node t has seen:
//
//     O^T r- = 0,   O^T Z- = 0,   O^T Y- = -(columns of T that are theirs)^T,
//
// so that -Y- B'^T = U N'^T - Y B'^T with any basis N' of them at the node before, N'^T F^T U = I and O^T Y = 0. B' is as large as what has
// decayed since is small: what rounding leaves of r, Z and Y along O is taken out, and UN (d, d) becomes U N'^T.
inline void settle_unseen(const double* F, const FlatPart& flat, int64_t t, FlatCostates& at) {
    const int d = at.d, c = at.c, n = at.n, seen = static_cast<int>(flat.count[t - 1]), open = c - seen;
    double* Y = at.settled.data;
    std::copy_n(at.Y.data, c * d, Y), std::fill_n(at.UN.data, d * d, 0.0);
    if (open <= 0) return;
    Scratch<double, 0> size(d), earlier(d), N(open * d), moved(open * d), length(open), L(open * open), v(d);
    Columns<0, 0> O(d, open + d);                                            // [O^T; I] Theta = [L, 0; Theta], in units of the rows
    for (int i = 0; i < d; i++) {
        for (int j = 0; j < n; j++) size[i] = larger(size[i], std::fabs(at.r[i * n + j]));
        for (int j = 0; j < d + c; j++) size[i] = larger(size[i], std::fabs(at.Z.at(j, i)));
        for (int j = 0; j < c; j++) size[i] = larger(size[i], std::fabs(Y[j * d + i]));
        if (!(size[i] > 0.0)) size[i] = 1.0;
        for (int j = 0; j < d; j++) earlier[j] += std::fabs(F[i * d + j]) * size[i];
    }
    std::copy_n(flat.directions.row(t - 1) + seen * d, open * d, &N[0]);
    reduce_rows(&N[0], &earlier[0], open, d);
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
    const auto settle = [&](auto get, auto set) {
        for (int i = 0; i < d; i++) v[i] = get(i) / size[i];
        for (int j = 0; j < 3 * open; j++) {                                 // each time all but a rounding of it
            double along = 0.0;
            for (int i = 0; i < d; i++) along += O.at(j % open, open + i) * v[i];
            for (int i = 0; i < d; i++) v[i] -= O.at(j % open, open + i) * along;
        }
        for (int i = 0; i < d; i++) set(i, v[i] * size[i]);
    };
    for (int l = 0; l < n; l++) settle([&](int i) { return at.r[i * n + l]; }, [&](int i, double x) { at.r[i * n + l] = x; });
    for (int l = 0; l < d + c; l++) settle([&](int i) { return at.Z.at(l, i); }, [&](int i, double x) { at.Z.set(l, i, x); });
    for (int l = 0; l < c; l++) settle([&](int i) { return Y[l * d + i]; }, [&](int i, double x) { Y[l * d + i] = x; });
    solve_lower(&L[0], &N[0], open, d);                                      // U = Theta L^-1
    for (int i = 0; i < d; i++)
        for (int j = 0; j < open; j++)
            for (int l = 0; l < d; l++) at.UN[i * d + l] += size[i] * O.at(j, open + i) * N[j * d + l];
}

// The root at the last flat node given delta: what integrating out overwrote is made again from the node before.
inline void root_given_delta(const LinearChain& chain, const PathData& data, const Filtered& kept, int64_t t, double spare,
                             double* L) {
    const int d = kept.d, p = kept.p;
    const Size<0> D(d);
    StateSpace<0, false> space(d);
    ObservationSpace<0, 0> observed(d, p);
    Scratch<double, 0> S(p * p), W(p * d), K(p * p);
    if (t > 0) {
        const int64_t f = chain.index[t];
        read_columns(kept.root.row(t - 1), space.A, D, D);
        predict_root<0, false>(kept.F.row(f), kept.V.row(f), space, D);
    } else {
        first_root(chain, spare, L);
        read_columns(L, space.A, D, D);
    }
    if (any_seen(data.seen.row(t), p)) {
        const int64_t c = chain.cfg[t];
        observe_root<false>(chain.H.row(c), chain.R.row(c), data.scale[t], data.seen.row(t), space, &S[0], &W[0], &K[0], observed);
    }
    write_columns(space.A, 0, 0, L, D, D);
}

// From node done - 1 to the first state; at.r and Z: costates and their root after the observation at node done - 1.
inline void score_flat(const LinearChain& chain, const PathData& data, const Filtered& kept, const FlatPart& flat, double spare,
                       const double* Z, FlatCostates& at, Slopes& slopes, SmoothedMoments& out) {
    const int d = at.d, c = at.c, n = at.n, q = flat.q;
    const int64_t last = flat.done() - 1;
    const Regression done(data, kept, flat);
    Scratch<double, 0> L(d * d);
    root_given_delta(chain, data, kept, last, spare, &L[0]);
    settle_directions(done, kept, last, Z, &L[0], flat.M.data, at);
    if (flat.integrated()) smooth_states(kept.root.row(last), kept.m.row(last), at);   // x = m' + P' r
    for (int64_t t = last; t >= 0; t--) {
        keep_states(t, at, out);
        if (any_seen(data.seen.row(t), at.p)) {
            turn_back(done, data, t, at);
            score_observation(chain, data, kept, t, at, slopes, out);
        }
        if (t > 0)
            score_step(chain, kept, t, flat.directions.row(t - 1), at, slopes, out,
                       [&](const double* F, int64_t now, FlatCostates& of) { settle_unseen(F, flat, now, of); });
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
        for (int j = 0; j < n; j++) {
            double x = at.x[i * n + j] - chain.mean[i];
            for (int k = 0; k < d; k++) x -= chain.cov[i * d + k] * at.r[k * n + j];
            for (int l = 0; l < q; l++) delta[l * n + j] += chain.flat.row(l)[i] * x;
            slopes.mean[i] += at.r[i * n + j];
        }
    t_multiply(at.inverse_t.data, at.Y.data, &Y[0], c, c, d);                  // T^-1 Y^T
    cholesky(&DD[0], 0.0, &root[0], q);
    solve_lower(&root[0], &delta[0], q, n);
    solve_lower_t(&root[0], &delta[0], q, n);
    for (int j = 0; j < q; j++)                                              // r delta^^T + n Y T^-T
        for (int i = 0; i < d; i++) {
            double x = 0.0;
            for (int l = 0; l < n; l++) x += at.r[i * n + l] * delta[j * n + l];
            for (int l = 0; l < c; l++) x += static_cast<double>(n) * Y[l * d + i] * flat.turned[l * q + j];
            for (int k = 0; k < d; k++) x += 2.0 * spare * G[i * d + k] * chain.flat.row(j)[k];
            slopes.flat.row(j)[i] += x;
        }
}

// ---------------------------------------------------------------- one group of paths

// Where the ordinary filter begins: after the flat part, if there is one, at node `first` with the root L (columns) and the
// means m (d, n) of the node before. spare: see `FlatPart`; bad: node whose innovation is known exactly, or -1.
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
                flat.emplace(chain, data, kept, room, spare, alike);
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
        } else first_root(chain, 0.0, &L[0]);
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
    const int64_t U = steps.shape[0], d = model.u.shape[0];
    Room<3> F(U, d, d), V(U, d, d), gF(U, d, d), gV(U, d, d);
    Room<2> b(U, d), gb(U, d);
    Room<1> unit(d), rate(d), growth(d);
    Room<1, int64_t> block(d);
    transitions(model.A, model.Q, model.u, steps, F, b, V);
    component_sizes(model.A, false, block, unit, rate, growth);
    const LinearChain chain{F, b, V, index, model.C, model.off, model.R, cfg, model.mean, model.cov, flat, times,
                            {block, unit, rate, growth, model.A}, {}};
    const Slopes slopes{gF, gb, gV, g.C, g.off, g.R, g.mean, g.cov, g.flat};
    const int64_t bad = loglik_group(chain, data, true, slopes, {}, {found, {4}});
    if (bad < 0) transition_adjoint(model.A, model.Q, model.u, steps, gF, gb, gV, g.A, g.Q, g.u);
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
