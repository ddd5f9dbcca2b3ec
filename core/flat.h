// The part of a series in which flat directions are not yet determined: exact diffuse start.
//
//     x_k = m_k + M_k delta + N_k gamma + noise,   noise ~ N(0, L L^T),   delta (c,), gamma (q - c,) without prior
//
// Of the flat directions delta have been seen by some observation and gamma by none (see rank.h). Given delta this
// is the ordinary recursion; M is carried like c more means without data. Every whitened innovation
// e = E delta + noise is one more row of the regression T delta = s. T (c, c) is lower triangular with a full
// diagonal: the observation that sees a new direction brings a row of its own, any other one is rotated in (Givens),
// and what the rotation leaves of its right side is its residual. No row is ever dropped. Once T is safely inverted, delta
// is integrated out and the ordinary filter goes on (de Jong, Annals of Statistics 19 (1991) 1073-1083). No number is ever
// made big, and the origin of gamma is moved to where the observation that first sees it wants it, so that the
// data's level does not cancel.
//
// Where directions have been told apart by more than rotations, what is left open is not orthogonal to delta, whose measure on the
// orthogonal complement is then 1 / |open ones| of d delta: `log_volume`.
//
// Likelihood: -(n log 2 pi + log|S| + log|T|^2 + residuals^2) / 2, the flat measure being that of the orthonormal
// columns D of the prior (Durbin & Koopman 2012, section 7.2). Directions that the data leave open are left out.
//
// L, F, W, K, V, the gains and directions (M, N) are kept by columns; T, E and rotations by rows.
#pragma once
#include "kalman.h"
#include "rank.h"

namespace afa {
inline namespace AFA_LEVEL {

// delta is integrated out as soon as that adds no variance greater than COLLAPSE_GAIN times what is there: what it does add
// cancels in gradients. Where nothing is there (no process noise) PATIENCE more observations for each direction do, once T is
// better conditioned than COLLAPSE_COND (columns scaled).
constexpr double COLLAPSE_COND = 1e3, COLLAPSE_GAIN = 1e6;
constexpr int PATIENCE = 4;
// What rounding hides is counted in standard deviations, or in this share of the data, of which 1e-5 is RANK roundings.
constexpr double DATA_RESOLUTION = RANK * EPS / 1e-5;
// An origin is moved where the observation sees the direction by more than this much of its size, and not by what has decayed alone:
// what makes up for the data there would be beyond all data elsewhere.
constexpr double ORIGIN = 1e-3;

// What is known at a node: count of delta; directions (q, d), delta's first; T (q, q), s (n, q); waited: observations since
// one last saw a new direction (from the beginning enough, where nobody counts).
struct FlatState {
    int d, p, q, count = 0;
    double* M;
    double *T, *s, *L, *m;
    int64_t paths;
    int64_t waited = PATIENCE * (q + 2);
};

// Work space of one observation. E (p, q): delta's share in the prediction; pivot_of (p): direction that a component
// closed, or -1; pivot_error (q): rounding of T_jj in EPS; row_error (q): that of what observations see of the direction.
struct FlatWork {
    int64_t d, p, q, n;
    DiffuseDirections diffuse{d, q}, ahead{d, q};
    StateSpace<0, true> space{d};
    ObservationSpace<0, 0> observed{d, p};
    Scratch<double, 0> row{q}, left{n}, pivot_error{q}, row_error{q}, inverse{q * q}, column{d};
    Scratch<int64_t, 0> pivot_of{p};
    double opening = 0.0;                    // log of the volume (`log_volume`) that directions spanned before the observation
    RoundingMeasures measures;
    FlatWork(int64_t d_, int64_t p_, int64_t q_, int64_t n_) : d(d_), p(p_), q(q_), n(n_) {}
};

// ---------------------------------------------------------------- steps

// m (n, d) <- F m + b and M <- F M, N <- F N, L as everywhere: one step of the chain, of length tau between stamps of a size.
inline void predict_flat(const Chain& chain, int64_t step, double tau, double stamp, const ComponentSizes& sizes, FlatState& x, FlatWork& work) {
    const double *F = chain.F.row(step), *b = chain.b.row(step);
    predict_root<0, true>(F, chain.root.row(step), work.space, Size<0>(x.d));
    for (int j = 0; j < x.count; j++) predict_mean(F, nullptr, x.M + j * x.d, &work.column[0], x.d);
    for (int64_t path = 0; path < x.paths; path++) predict_mean(F, b, x.m + path * x.d, &work.column[0], x.d);
    carry_directions(F, tau, stamp, sizes, work.diffuse);
}

// Close the directions that the seen components of H (p, d) see, one component after the other, and fill E = H M, for those
// that are missing along open directions too. S (p, p): covariance of the observation given delta.
//
// turn: as in `close_direction`. The origin of a direction n is moved by (z - off - H m) / (H n) times n: gamma is flat;
// shift(path, j, by) says so to whoever keeps earlier means.
template <class Turn, class Shift>
inline void close_observed(const double* H, const double* off, const uint8_t* seen, const double* z, int64_t stride,
                           FlatState& x, const double* S, double* E, FlatWork& work, Turn turn, Shift shift) {
    const int d = x.d;
    DiffuseDirections& diffuse = work.diffuse;
    const int before = x.count;
    auto show = [&](const double* h, int j) {
        double noise, own;
        const double w = observed(h, diffuse, j, noise, own);
        return is_rounding(w, noise) ? 0.0 : w;
    };
    for (int a = 0; a < x.p; a++) {
        const double* h = H + a * d;
        for (int j = 0; j < x.q; j++) E[a * x.q + j] = 0.0;
        work.pivot_of[a] = -1;
        if (!seen[a]) continue;
        double own = 0.0;
        const bool sees = diffuse.first < diffuse.q && observes(h, diffuse);
        double resolution = std::sqrt(S[a * x.p + a]);                            // no number tells more than its own rounding lets it
        for (int64_t path = 0; path < x.paths; path++) {
            const double value = std::fabs(z[path * stride + a]);
            if (value * DATA_RESOLUTION > resolution) resolution = value * DATA_RESOLUTION;
        }
        for (int j = diffuse.first; !sees && j < diffuse.q; j++)                   // else it is pivot_of out of them with what is seen
            if (diffuse.below[j] > 0.0) diffuse.hidden[j] = larger(diffuse.hidden[j], diffuse.below[j] / resolution);
        if (sees) {
            if (x.count == before) work.opening = log_volume(diffuse);
            int best = diffuse.first;
            double clearest = 0.0, noise = 0.0;
            for (int j = diffuse.first; j < diffuse.q; j++) {
                noise = larger(noise, diffuse.own[j]);
                if (std::fabs(diffuse.w[j]) / diffuse.noise[j] > clearest)
                    best = j, clearest = std::fabs(diffuse.w[j]) / diffuse.noise[j];
            }
            const bool move_origin =
                clearest > ORIGIN && !sees_decayed(h, diffuse.direction(best), &diffuse.peak[best * d], d);
            for (int64_t path = 0; (move_origin || diffuse.hidden[best] > 0.0) && path < x.paths; path++) {
                double* m = x.m + path * d;
                const double shows = z[path * stride + a], by = residual(shows, off[a], h, m, d) / diffuse.w[best];
                if (std::isnan(by)) continue;
                work.measures.hidden = larger(work.measures.hidden, std::fabs(by) * diffuse.hidden[best]);
                if (!move_origin) continue;
                for (int i = 0; i < d; i++) m[i] += diffuse.direction(best)[i] * by;
                shift(path, best, by);
            }
            const int j = diffuse.first;
            own = close_direction(h, diffuse, turn);
            work.pivot_error[j] = work.row_error[j] = noise;
            for (int i = 0; i < d; i++) x.M[j * d + i] = diffuse.direction(j)[i];
            work.pivot_of[a] = j;
            x.count = diffuse.first;
        }
        for (int j = 0; j < before; j++)
            for (int i = 0; i < d; i++) E[a * x.q + j] += h[i] * x.M[j * d + i];
        for (int j = before; j < x.count; j++) E[a * x.q + j] = j == work.pivot_of[a] ? own : show(h, j);
    }
    for (int a = 0; a < x.p; a++) {                                          // of what is missing: for its prediction alone
        if (seen[a]) continue;
        for (int j = 0; j < before; j++)
            for (int i = 0; i < d; i++) E[a * x.q + j] += H[a * d + i] * x.M[j * d + i];
        for (int j = before; j < x.q; j++) E[a * x.q + j] = show(H + a * d, j);
    }
}

// By how many standard deviations rounding leaves the first `count` rows of T delta = s unmet where their terms cancel, for one path;
// delta: work space. Numbers beyond TELLS tell no more than that lets them.
inline double unmet(const double* T, const double* s, double* delta, int count, int q) {
    double terms = 0.0, largest = 0.0;
    for (int i = 0; i < count; i++) {
        double x = s[i], row = 0.0;
        for (int j = 0; j < i; j++) {
            const double term = T[i * q + j] * delta[j];
            x -= term, row += std::fabs(term);
        }
        delta[i] = x / T[i * q + i];
        terms = larger(terms, row), largest = larger(largest, std::fabs(s[i]));
    }
    return EPS * terms / larger(1.0, DATA_RESOLUTION * largest);
}

// Rotate the row (count,) of path-wise values `left` (n,) into T delta = s; left becomes what it leaves over. rounded(j) is the
// rounding of entry j of the row, in EPS.
// turned(j, cos, sin) is called for every rotation (T_j, row) <- (cos T_j + sin row, cos row - sin T_j).
template <class Rounded, class Turned>
inline void rotate_in(double* row, int count, double* left, FlatState& x, double* pivot_error, Rounded rounded, Turned turned) {
    const int q = x.q;
    for (int j = count - 1; j >= 0; j--) {
        if (row[j] == 0.0) continue;
        double* T = x.T + j * q;
        const double length = std::hypot(T[j], row[j]), c = T[j] / length, s = row[j] / length;
        for (int i = 0; i <= j; i++) {
            const double t = T[i];
            T[i] = c * t + s * row[i], row[i] = c * row[i] - s * t;
        }
        for (int64_t path = 0; path < x.paths; path++) {
            double& right = x.s[path * q + j];
            const double t = right;
            right = c * t + s * left[path], left[path] = c * left[path] - s * t;
        }
        pivot_error[j] = std::fabs(c) * pivot_error[j] + std::fabs(s) * rounded(j);
        turned(j, c, s);
    }
}

// What `restore` is to L, of the directions: M <- M - k (h M - noise K row), k = K W, for component a and its row of whitened shares.
inline void restore_directions(const double* H, int a, int count, const double* row, const double* W, const double* K, FlatState& x,
                               FlatWork& work) {
    const int d = x.d, p = x.p;
    const double scaled = K[a * p + a];
    for (int i = 0; i < d; i++) {
        work.column[i] = 0.0;
        for (int c = 0; c <= a; c++) work.column[i] += work.observed.mix[a * p + c] * H[c * d + i];
    }
    for (int j = 0; j < count; j++) {
        double* n = x.M + j * d;
        double off = -work.observed.noise[a] * scaled * row[j];
        for (int i = 0; i < d; i++) off += work.column[i] * n[i];
        for (int i = 0; i < d; i++) n[i] -= scaled * W[a * d + i] * off;
    }
}

// Condition m, M, L (the first columns of space.A) and T delta = s on observation z (n rows `stride` apart).
//
// Fills S (p, p), E (p, q), the innovations v (n rows, `stride` apart) given delta = 0, loglik (n entries, `every`
// apart) and W, K, V. Returns NaN where an innovation is known exactly.
template <class Turn, class Shift>
inline double update_flat(const double* H, const double* off, const double* R, double scale, const uint8_t* seen,
                          const double* z, int64_t stride, FlatState& x, double* S, double* E, double* v, double* loglik,
                          int64_t every, double* W, double* K, double* V, FlatWork& work, Turn turn,
                          Shift shift) {
    const int d = x.d, p = x.p, q = x.q;
    const Size<0> D(d), P(p);
    const int before = x.count;
    set_observation(H, work.observed, D, P);
    innovation_cov(R, scale, work.space.A, S, work.observed, D, P);
    close_observed(H, off, seen, z, stride, x, S, E, work, turn, shift);
    keep_largest_ratio(S, R, scale, seen, p, work.measures.lost);
    const bool correlated = split_noise(R, scale, seen, work.observed, P);
    const double half = update_root<true>(seen, S, work.space.A, W, K, V, work.observed, correlated, D, P);
    if (std::isnan(half)) return half;
    for (int64_t path = 0; path < x.paths; path++) {
        const double* m = x.m + path * d;
        for (int a = 0; a < p; a++) {
            const int64_t at = path * stride + a;
            v[at] = seen[a] ? residual(z[at], off[a], H + a * d, m, d) : NAN;
        }
        loglik[path * every] = half;
    }
    int count = before;
    double *row = &work.row[0], *left = &work.left[0], volume = 0.0;
    for (int j = 0; j < before; j++) volume += std::log(std::fabs(x.T[j * q + j]));
    for (int a = 0; a < p; a++) {
        if (!seen[a]) continue;
        const int64_t own = work.pivot_of[a];
        if (own >= 0) count = static_cast<int>(own) + 1;
        for (int j = 0; j < count; j++) {                                    // row = K E,  M <- M - W row
            row[j] = 0.0;
            for (int c = 0; c <= a; c++) row[j] += K[c * p + a] * E[c * q + j];
            for (int i = 0; i < d; i++) x.M[j * d + i] -= W[a * d + i] * row[j];
        }
        for (int64_t path = 0; path < x.paths; path++) {                     // left = K v,  m <- m + W left
            left[path] = 0.0;
            for (int c = 0; c <= a; c++)
                if (seen[c]) left[path] += K[c * p + a] * v[path * stride + c];
            for (int i = 0; i < d; i++) x.m[path * d + i] += W[a * d + i] * left[path];
        }
        if (work.observed.noise[a] * K[a * p + a] * K[a * p + a] < PRECISE)
            restore_directions(H, a, count, row, W, K, x, work);
        if (own >= 0) {
            for (int j = 0; j < count; j++) x.T[own * q + j] = row[j];
            for (int64_t path = 0; path < x.paths; path++) x.s[path * q + own] = left[path];
            work.pivot_error[own] *= K[a * p + a];
        } else {
            rotate_in(row, count, left, x, &work.pivot_error[0], [&](int j) { return K[a * p + a] * work.row_error[j]; },
                      [](int, double, double) {});
            for (int64_t path = 0; path < x.paths; path++) loglik[path * every] -= 0.5 * left[path] * left[path];
        }
    }
    if (count > before) volume += work.opening - log_volume(work.diffuse);
    x.waited = count > before ? 0 : x.waited + 1;
    work.measures.barely = 0.0;
    for (int j = 0; j < count; j++) {
        const double size = std::fabs(x.T[j * q + j]);
        volume -= std::log(size);
        work.measures.barely = larger(work.measures.barely, EPS * work.pivot_error[j] / size);
    }
    for (int64_t path = 0; path < x.paths; path++) {
        loglik[path * every] += volume;
        work.measures.hidden = larger(work.measures.hidden, unmet(x.T, x.s + path * q, row, count, q));
    }
    return half;
}

// inverse (q, q) = T^-1, T (count, count) lower triangular, both with rows of q.
inline void invert_lower(const double* T, double* inverse, int count, int q) {
    for (int j = 0; j < count; j++)
        for (int i = 0; i < count; i++) {
            double x = i == j ? 1.0 : 0.0;
            for (int l = j; l < i; l++) x -= T[i * q + l] * inverse[l * q + j];
            inverse[i * q + j] = i < j ? 0.0 : x / T[i * q + i];
        }
}

// Innovation v (p) of observation z given all before it, the covariance S (p, p) of its prediction without noise and whether
// (p) the data so far determine that. share (p, q): work space.
inline void predict_shown(const double* H, const double* off, const double* R, const double* z, const FlatState& x, FlatWork& work,
                          double* v, double* S, double* share, uint8_t* known) {
    const int d = x.d, p = x.p, q = x.q;
    set_observation(H, work.observed, Size<0>(d), Size<0>(p));
    innovation_cov(R, 0.0, work.space.A, S, work.observed, Size<0>(d), Size<0>(p));
    invert_lower(x.T, &work.inverse[0], x.count, q);
    for (int a = 0; a < p; a++) {
        const double* h = H + a * d;
        known[a] = !observes(h, work.diffuse);
        v[a] = residual(z[a], off[a], h, x.m, d);
        for (int j = 0; j < x.count; j++) {                                  // share = E T^-1
            share[a * q + j] = 0.0;
            for (int l = j; l < x.count; l++) {
                double along = 0.0;
                for (int i = 0; i < d; i++) along += h[i] * x.M[l * d + i];
                share[a * q + j] += along * work.inverse[l * q + j];
            }
            v[a] -= share[a * q + j] * x.s[j];
        }
        for (int c = 0; c <= a; c++) {
            for (int j = 0; j < x.count; j++) S[a * p + c] += share[a * q + j] * share[c * q + j];
            S[c * p + a] = S[a * p + c];
        }
    }
}

// Whether delta can be integrated out without losing digits; fills inverse = T^-1.
inline bool can_collapse(const FlatState& x, const double* L, double* inverse) {
    const int d = x.d, q = x.q, count = x.count;
    invert_lower(x.T, inverse, count, q);
    bool small = true;
    for (int i = 0; i < d && small; i++) {
        double given = 0.0, added = 0.0;
        for (int j = 0; j < d; j++) given += L[j * d + i] * L[j * d + i];
        for (int j = 0; j < count; j++) {
            double t = 0.0;
            for (int l = j; l < count; l++) t += x.M[l * d + i] * inverse[l * q + j];
            added += t * t;
        }
        small = added <= COLLAPSE_GAIN * given;
    }
    if (small || x.waited < PATIENCE * (q + 2)) return small;
    for (int j = 0; j < count; j++) {
        double column = 0.0, row = 0.0;
        for (int i = 0; i < count; i++) {
            column += x.T[i * q + j] * x.T[i * q + j];
            row += inverse[j * q + i] * inverse[j * q + i];
        }
        if (!(column * row <= COLLAPSE_COND * COLLAPSE_COND)) return false;
    }
    return true;
}

// L, m <- state with delta = T^-1 (s + omega), omega ~ N(0, I), integrated out: x = m + M delta + L xi becomes
// m' + L' xi'. rotation (d + c, d + c) gives (xi, T^-1 omega) in terms of xi' and of what is independent of it.
inline void integrate_out(FlatState& x, double* L, const double* inverse, double* rotation) {
    const int d = x.d, q = x.q, c = x.count, wide = d + c;
    Columns<0, 0> A(wide, d + wide);
    Scratch<double, 0> v(wide);
    for (int j = 0; j < d; j++) {
        for (int i = 0; i < d; i++) A.set(j, i, L[j * d + i]);
        A.set(j, d + j, 1.0);
    }
    for (int j = 0; j < c; j++) {
        for (int i = 0; i < d; i++) {
            double t = 0.0;
            for (int l = j; l < c; l++) t += x.M[l * d + i] * inverse[l * q + j];
            A.set(d + j, i, t);
            for (int64_t path = 0; path < x.paths; path++) x.m[path * d + i] += t * x.s[path * q + j];
        }
        for (int l = j; l < c; l++) A.set(d + j, 2 * d + l, inverse[l * q + j]);
    }
    triangularise(A, v, Size<0>(d), Size<0>(wide), Size<0>(wide));
    for (int j = 0; j < d; j++)
        for (int i = 0; i < d; i++) L[j * d + i] = A.at(j, i);
    for (int i = 0; i < wide; i++)
        for (int j = 0; j < wide; j++) rotation[i * wide + j] = A.at(j, d + i);
}

}
}  // namespace afa
