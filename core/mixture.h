// Kalman filter under a two-component measurement noise, collapsed to one Gaussian after every observation.
//
//     v ~ (1 - e) N(0, R) + e N(0, s R)
//     branch i     the Kalman update with noise R_i, R_0 = R and R_1 = s R:  m_i, P_i, likelihood l_i
//     odds         r = e l_1 / ((1 - e) l_0 + e l_1)
//     collapse     m = (1 - r) m_0 + r m_1,   P = (1 - r) P_0 + r P_1 + r (1 - r) (m_0 - m_1)(m_0 - m_1)^T
//
// the generalised pseudo-Bayesian filter of first order (Bar-Shalom, Li & Kirubarajan, Estimation with Applications to
// Tracking and Navigation, 2001, section 11.6.2; Harrison & Stevens, JRSS B 38 (1976) 205-247). Roots are kept: that of P
// comes from [sqrt(1 - r) L_0, sqrt(r) L_1, sqrt(r (1 - r)) (m_0 - m_1)] Theta.
//
// Flat start: the branches see the same directions; after each observation what they know of delta is integrated out
// (flat.h), so that collapse means the same as later. Where e = 0 or s = 1 there is one branch, and nothing to collapse.
#pragma once
#include "flat_start.h"

namespace afa {
inline namespace AFA_LEVEL {

struct Mixture {
    double rate, scale;
    bool single() const { return rate == 0.0 || scale == 1.0; }
};

// Where the answers go: mean (N, d), cov (N, d, d); of every observation innovation (p), S (p, p) of the prediction without
// noise, loglik, outlier = r, and distance = E[|z - H x - off|^2 in the metric R | branch 1].
struct MixtureOutput {
    Out<2> mean;
    Out<3> cov;
    Out<2> innovation;
    Out<3> S;
    Out<1> loglik, outlier, distance;
    template <class Visit> void members(Visit&& visit) { visit(mean, cov, innovation, S, loglik, outlier, distance); }
};
constexpr const char* MIXTURE_OUTPUT =
    "mean(N,d) cov(N,d,d) innovation(T,p) S(T,p,p) loglik(T) outlier(T) distance(T) ";

// Nodes with open directions, c of them: as in flat_start.h's FlatKept, for one series.
struct MixtureKept {
    Out<3> M, tolerance, T;
    Out<2> s;
    View<int64_t, 1> count;
    template <class Visit> void members(Visit&& visit) { visit(M, tolerance, T, s, count); }
};
constexpr const char* MIXTURE_KEPT = "M(c,q,d) tolerance(c,q,d) T(c,q,q) s(c,q) count(c) ";

// r and log((1 - e) l_0 + e l_1) from log l_0 and log l_1.
inline double posterior_odds(const Mixture& noise, double log0, double log1, double& total) {
    const double a = std::log1p(-noise.rate) + log0, b = std::log(noise.rate) + log1, most = larger(a, b);
    const double one = std::exp(b - most), both = std::exp(a - most) + one;
    total = most + std::log(both);
    return one / both;
}

// (x - H m)^T R^-1 (x - H m) + tr(R^-1 H L L^T H^T) over the seen components; NaN if R is singular there. L: the first d columns of A.
template <class C>
inline double expected_distance(const double* H, const double* off, const double* R, const uint8_t* seen, const double* z,
                                const double* m, const C& A, int d, int p, double* root, double* work) {
    int n = 0;
    for (int a = 0; a < p; a++) {
        if (!seen[a]) continue;
        double* row = work + n * (d + 1);                                    // [H L, z - off - H m]
        for (int j = 0; j <= d; j++) row[j] = j < d ? 0.0 : z[a] - off[a];
        for (int i = 0; i < d; i++) {
            for (int j = 0; j < d; j++) row[j] += H[a * d + i] * A.at(j, i);
            row[d] -= H[a * d + i] * m[i];
        }
        root[n * p + n] = 0.0;
        for (int c = 0, k = 0; c <= a; c++)
            if (seen[c]) root[n * p + k++] = R[a * p + c];
        n++;
    }
    double total = 0.0;
    for (int a = 0; a < n; a++) {                                            // Cholesky, and work <- root^-1 work
        const double whole = root[a * p + a];
        for (int c = 0; c <= a; c++) {
            double x = root[a * p + c];
            for (int k = 0; k < c; k++) x -= root[a * p + k] * root[c * p + k];
            if (c < a) root[a * p + c] = x / root[c * p + c];
            else if (x > EPS * whole) root[a * p + a] = std::sqrt(x);
            else return NAN;
        }
        for (int j = 0; j <= d; j++) {
            double x = work[a * (d + 1) + j];
            for (int k = 0; k < a; k++) x -= root[a * p + k] * work[k * (d + 1) + j];
            work[a * (d + 1) + j] = x / root[a * p + a];
            total += work[a * (d + 1) + j] * work[a * (d + 1) + j];
        }
    }
    return total;
}

// m0 and the first d columns of A0 <- the collapsed law; X (2 d + 1 columns of d rows), v: work space.
template <class C0, class C1, class X_, class S, class D_, class Wide>
AFA_INLINE void collapse(double r, double* m0, const double* m1, C0& A0, const C1& A1, X_& X, S& v, D_ d_, Wide wide_) {
    const int d = d_;
    const double kept = std::sqrt(1.0 - r), moved = std::sqrt(r), apart = std::sqrt(r * (1.0 - r));
    for (int i = 0; i < d; i++) {
        for (int j = 0; j < d; j++) {
            X.set(j, i, kept * A0.at(j, i));
            X.set(d + j, i, moved * A1.at(j, i));
        }
        X.set(2 * d, i, apart * (m0[i] - m1[i]));
        m0[i] += r * (m1[i] - m0[i]);
    }
    triangularise(X, v, d_, wide_, wide_);
    for (int j = 0; j < d; j++)
        for (int i = 0; i < d; i++) A0.set(j, i, X.at(j, i));
}

// ---------------------------------------------------------------- no open directions

// Condition A and m on the seen components, noise covariance times scale; the log-likelihood, or NaN (see update_root).
template <int D, int P>
AFA_INLINE double update_branch(const double* R, double scale, const uint8_t* seen, const double* v, StateSpace<D, false>& space,
                                double* m, double* S, double* W, double* K, ObservationSpace<D, P>& observed, Size<D> d_, Size<P> p_) {
    const int d = d_, p = p_;
    innovation_cov(R, scale, space.A, S, observed, d_, p_);
    const bool correlated = split_noise(R, scale, seen, observed, p_);
    double loglik = update_root<false>(seen, S, space.A, W, K, nullptr, observed, correlated, d_, p_);
    for (int a = 0; a < p; a++) {
        if (!seen[a]) continue;
        double e = 0.0;
        for (int c = 0; c <= a; c++)
            if (seen[c]) e += K[c * p + a] * v[c];
        loglik -= 0.5 * e * e;
        for (int i = 0; i < d; i++) m[i] += W[a * d + i] * e;
    }
    return loglik;
}

// Nodes first, first + 1, ... of one series from root L (by columns) and mean m at node first - 1. -1, or a node at which an
// innovation is known exactly.
template <int D, int P>
int64_t filter_mixture_of(const Chain& chain, int64_t first, const Mixture& noise, const double* L, const double* m, const In<2>& z,
                          const Flags<2>& seen, const MixtureOutput& out, Size<D> d_, Size<P> p_) {
    constexpr int WIDE = D > 0 ? 2 * D + 1 : 0;
    const int d = d_, p = p_;
    const Size<WIDE> wide(2 * d + 1);
    StateSpace<D, false> one(d), other(d);
    ObservationSpace<D, P> observed(d, p);
    Columns<WIDE, D> X(2 * d + 1, d);
    Scratch<double, WIDE> spare(2 * d + 1);
    Scratch<double, D> state(d), second(d), moved(d);
    Scratch<double, D * P> W(d * p);
    Scratch<double, P * P> K(p * p), S(p * p), root(p * p);
    Scratch<double, 0> work(p * (d + 1));
    read_columns(L, one.A, d_, d_);
    for (int i = 0; i < d; i++) state[i] = m[i];
    for (int64_t k = first; k < chain.step.shape[0]; k++) {
        if (k > 0) {
            const int64_t u = chain.step[k];
            const double *F = chain.F.row(u), *b = chain.b.row(u);
            predict_root(F, chain.root.row(u), one, d_);
            predict_mean(F, b, &state[0], &moved[0], d);
        }
        const int64_t o = chain.obs[k];
        if (o >= 0) {
            const int64_t c = chain.cfg[o];
            const double *H = chain.H.row(c), *off = chain.off.row(c), *R = chain.R.row(c);
            const uint8_t* shows = seen.row(o);
            double* v = out.innovation.row(o);
            bool any = false;
            for (int a = 0; a < p; a++) {
                any = any || shows[a];
                v[a] = shows[a] ? residual(z.row(o)[a], off[a], H + a * d, &state[0], d) : NAN;
            }
            set_observation(H, observed, d_, p_);
            innovation_cov(R, 0.0, one.A, out.S.row(o), observed, d_, p_);
            out.loglik[o] = 0.0, out.outlier[o] = NAN, out.distance[o] = NAN;
            if (any) {
                double log1 = 0.0;
                if (!noise.single()) {
                    for (int j = 0; j < d; j++)
                        for (int b = 0; b < one.A.blocks(); b++) other.A(j, b) = one.A(j, b);
                    for (int i = 0; i < d; i++) second[i] = state[i];
                    log1 = update_branch(R, noise.scale, shows, v, other, &second[0], &S[0], &W[0], &K[0], observed, d_, p_);
                }
                const double log0 = update_branch(R, 1.0, shows, v, one, &state[0], &S[0], &W[0], &K[0], observed, d_, p_);
                if (std::isnan(log0 + log1)) return k;
                out.loglik[o] = log0, out.outlier[o] = noise.rate;
                if (!noise.single()) {
                    out.distance[o] = expected_distance(H, off, R, shows, z.row(o), &second[0], other.A, d, p, &root[0], &work[0]);
                    out.outlier[o] = posterior_odds(noise, log0, log1, out.loglik[o]);
                    collapse(out.outlier[o], &state[0], &second[0], one.A, other.A, X, spare, d_, wide);
                }
            }
        }
        gram(one.A, out.cov.row(k), d_, d_);
        for (int i = 0; i < d; i++) out.mean.row(k)[i] = state[i];
    }
    return -1;
}

// ---------------------------------------------------------------- while directions are open

// One branch of the flat part, with memory of its own.
struct FlatBranch {
    Scratch<double, 0> M, T, s, L, m;
    FlatState x;
    FlatWork work;
    FlatBranch(int d, int p, int q)
        : M(q * d), T(q * q), s(q), L(d * d), m(d), x{d, p, q, 0, &M[0], &T[0], &s[0], &L[0], &m[0], 1}, work(d, p, q, 1) {}
    void copy(FlatBranch& from) {
        const int d = x.d, q = x.q;
        x.count = from.x.count;
        std::copy_n(from.x.M, q * d, x.M), std::copy_n(from.x.T, q * q, x.T);
        std::copy_n(from.x.s, q, x.s), std::copy_n(from.x.m, d, x.m);
        write_columns(from.work.space.A, 0, 0, x.L, Size<0>(x.d), Size<0>(x.d));
        read_columns(x.L, work.space.A, Size<0>(x.d), Size<0>(x.d));
        work.diffuse.copy(from.work.diffuse);
    }
    // What is known of delta goes into m and L: its directions become zero, and T the identity.
    void settle_delta(double* rotation) {
        const int d = x.d, q = x.q;
        if (x.count > 0) {
            invert_lower(x.T, &work.inverse[0], x.count, q);
            write_columns(work.space.A, 0, 0, x.L, Size<0>(d), Size<0>(d));
            integrate_out(x, x.L, &work.inverse[0], rotation);
            read_columns(x.L, work.space.A, Size<0>(d), Size<0>(d));
        }
        for (int j = 0; j < x.count; j++) {
            for (int i = 0; i < d; i++) x.M[j * d + i] = 0.0;
            for (int i = 0; i < q; i++) x.T[j * q + i] = i == j ? 1.0 : 0.0;
            x.s[j] = 0.0;
        }
    }
};

// Nodes 0, 1, ... while directions are open, as many as `kept` holds. `now` is left as it is after the last of them;
// done: how many. -1, or a node at which an innovation is known exactly.
inline int64_t start_mixture(const Chain& chain, const In<1>& times, const ComponentSizes& sizes, const Mixture& noise, const In<2>& z,
                             const Flags<2>& seen, FlatBranch& now, const MixtureOutput& out, const MixtureKept& kept, int64_t& done) {
    const int d = now.x.d, p = now.x.p, q = now.x.q;
    FlatBranch other(d, p, q);
    tell_apart(now.work.diffuse, sizes.growth), tell_apart(other.work.diffuse, sizes.growth);
    Columns<0, 0> X(2 * d + 1, d);
    Scratch<double, 0> spare(2 * d + 1), S(p * p), E(p * q), v(p), W(p * d), K(p * p), V(p * d), root(p * p), work(p * (d + 1));
    Scratch<double, 0> rotation((d + q) * (d + q));
    Scratch<uint8_t, 0> known(p);
    auto turn = [&](int a, int b, double c, double back, double s_, double angle_error) {
        turn_kept(kept.M, kept.tolerance, done, a, b, c, back, s_, angle_error);
    };
    auto shift = [&](int64_t, int j, double by) {
        for (int64_t k = 0; k < done; k++)
            for (int i = 0; i < d; i++) out.mean.row(k)[i] += kept.M.row(k)[j * d + i] * by;
    };
    for (done = 0; done < chain.step.shape[0]; done++) {
        const int64_t k = done, o = chain.obs[k];
        if (k > 0) predict_flat(chain, chain.step[k], times[k] - times[k - 1], stamp_at(times, k), sizes, now.x, now.work);
        if (o >= 0) {
            const int64_t c = chain.cfg[o];
            const double *H = chain.H.row(c), *off = chain.off.row(c), *R = chain.R.row(c), *own = z.row(o);
            const uint8_t* shows = seen.row(o);
            bool any = false;
            for (int a = 0; a < p; a++) any = any || shows[a];
            double *v_ = out.innovation.row(o), *S_ = out.S.row(o);
            predict_shown(H, off, R, own, now.x, now.work, v_, S_, &E[0], &known[0]);
            for (int a = 0; a < p; a++) {
                if (!shows[a] || !known[a]) v_[a] = NAN;
                for (int c = 0; c < p; c++)
                    if (!known[a] || !known[c]) S_[a * p + c] = a == c ? INFINITY : 0.0;
            }
            out.loglik[o] = 0.0, out.outlier[o] = NAN, out.distance[o] = NAN;
            if (any) {
                double log0 = 0.0, log1 = 0.0, half = 0.0;
                if (!noise.single()) {
                    other.copy(now);
                    half = update_flat(H, off, R, noise.scale, shows, own, 0, other.x, &S[0], &E[0], &v[0], &log1, 0, &W[0], &K[0], &V[0],
                                       other.work, [](int, int, double, double, double, double) {}, [](int64_t, int, double) {});
                }
                half += update_flat(H, off, R, 1.0, shows, own, 0, now.x, &S[0], &E[0], &v[0], &log0, 0, &W[0], &K[0], &V[0], now.work,
                                    turn, shift);
                if (std::isnan(half)) return k;
                out.loglik[o] = log0, out.outlier[o] = noise.rate;
                if (!noise.single()) {
                    now.settle_delta(&rotation[0]);
                    other.settle_delta(&rotation[0]);
                    out.distance[o] = expected_distance(H, off, R, shows, own, other.x.m, other.work.space.A, d, p, &root[0], &work[0]);
                    out.outlier[o] = posterior_odds(noise, log0, log1, out.loglik[o]);
                    collapse(out.outlier[o], now.x.m, other.x.m, now.work.space.A, other.work.space.A, X, spare, Size<0>(d), Size<0>(2 * d + 1));
                }
            }
        }
        write_columns(now.work.space.A, 0, 0, now.x.L, Size<0>(d), Size<0>(d));
        const bool whole = now.x.count == q && (!noise.single() || can_collapse(now.x, now.x.L, &now.work.inverse[0]));
        if (whole) now.settle_delta(&rotation[0]);
        gram(now.work.space.A, out.cov.row(k), Size<0>(d), Size<0>(d));
        for (int i = 0; i < d; i++) out.mean.row(k)[i] = now.x.m[i];
        if (whole) {
            write_columns(now.work.space.A, 0, 0, now.x.L, Size<0>(d), Size<0>(d));
            return -1;
        }
        if (k == kept.M.shape[0]) return -1;
        DiffuseDirections& diffuse = now.work.diffuse;
        for (int j = 0; j < q; j++)
            for (int i = 0; i < d; i++) {
                kept.M.row(k)[j * d + i] = j < now.x.count ? now.x.M[j * d + i] : diffuse.direction(j)[i];
                kept.tolerance.row(k)[j * d + i] = j < now.x.count ? 0.0 : rounding(diffuse, j, i);
            }
        std::copy_n(now.x.T, q * q, kept.T.row(k));
        std::copy_n(now.x.s, q, kept.s.row(k));
        kept.count[k] = now.x.count;
    }
    return -1;
}

// One series from the first node on: root L (by columns), mean m and flat directions M (q, d) before any observation.
// outcome: nodes with open directions, of which `kept` holds c at most: where it is too small, outcome[0] = c + 1 and the answers
// are not complete; node of a singular innovation or -1.
inline void filter_mixture(Chain chain, In<1> times, ComponentSizes sizes, double rate, double scale, In<2> L, In<1> m, In<2> M,
                           In<2> z, Flags<2> seen, MixtureOutput out, MixtureKept kept, View<int64_t, 1> outcome) {
    const int64_t d = L.shape[0], p = z.shape[1], q = M.shape[0];
    const Mixture noise{rate, scale};
    const double *root = L.data, *mean = m.data;
    int64_t first = 0;
    FlatBranch start(static_cast<int>(d), static_cast<int>(p), static_cast<int>(q));
    outcome[0] = 0, outcome[1] = -1;
    if (q > 0) {
        std::copy_n(M.data, q * d, start.x.M);
        std::copy_n(m.data, d, start.x.m);
        begin_diffuse(M.data, start.work.diffuse);
        read_columns(L.data, start.work.space.A, Size<0>(d), Size<0>(d));
        int64_t done = 0;
        outcome[1] = start_mixture(chain, times, sizes, noise, z, seen, start, out, kept, done);
        const bool still_open = done == chain.step.shape[0];
        outcome[0] = done + (done == kept.M.shape[0] && !still_open && start.x.count < q ? 1 : 0);
        if (outcome[1] >= 0 || still_open || outcome[0] > done) return;
        root = start.x.L, mean = start.x.m, first = done + 1;
    }
    outcome[1] = with_sizes(d, p, [&](auto D, auto P) { return filter_mixture_of(chain, first, noise, root, mean, z, seen, out, D, P); });
}

}
}  // namespace afa
