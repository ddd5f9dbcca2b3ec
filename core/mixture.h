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

// One observation: z of H x + off with noise R, of which some components are seen.
struct Shown {
    const double *H, *off, *R, *z;
    const uint8_t* seen;
};

// (z - off - H m)^T R^-1 (z - off - H m) + tr(R^-1 H L L^T H^T) over the seen components; NaN if R is singular there. L: the first d columns
// of A; root, work: room for R and [H L, z - off - H m].
template <class C> inline double expected_distance(const Shown& at, const double* m, const C& A, int d, int p, double* root, double* work) {
    int n = 0, entry = 0;
    for (int a = 0; a < p; a++) n += at.seen[a] != 0;
    for (int a = 0, row = 0; a < p; a++) {
        if (!at.seen[a]) continue;
        for (int j = 0; j < d; j++) {
            double& x = work[row * (d + 1) + j] = 0.0;
            for (int i = 0; i < d; i++) x += at.H[a * d + i] * A.at(j, i);
        }
        work[row++ * (d + 1) + d] = residual(at.z[a], at.off[a], at.H + a * d, m, d);
        for (int c = 0; c < p; c++)
            if (at.seen[c]) root[entry++] = at.R[a * p + c];
    }
    if (std::isnan(cholesky(root, EPS, root, n))) return NAN;
    solve_lower(root, work, n, d + 1);
    double total = 0.0;
    for (int i = 0; i < n * (d + 1); i++) total += work[i] * work[i];
    return total;
}

// m0 and the first d columns of A0 <- the collapsed law; X (2 d + 1 columns of d rows), v: work space.
template <class C0, class C1, class X_, class S, class D_, class Wide>
AFA_INLINE void collapse(double r, double* m0, const double* m1, C0& A0, const C1& A1, X_& X, S& v, D_ d, Wide wide_) {
    const double kept = std::sqrt(1.0 - r), moved = std::sqrt(r), apart = std::sqrt(r * (1.0 - r));
    for (int i = 0; i < d; i++) {
        for (int j = 0; j < d; j++) {
            X.set(j, i, kept * A0.at(j, i));
            X.set(d + j, i, moved * A1.at(j, i));
        }
        X.set(2 * d, i, apart * (m0[i] - m1[i]));
        m0[i] += r * (m1[i] - m0[i]);
    }
    triangularise(X, v, d, wide_, wide_);
    for (int j = 0; j < d; j++)
        for (int i = 0; i < d; i++) A0.set(j, i, X.at(j, i));
}

// ---------------------------------------------------------------- branches

// A law at work where no directions are open: mean m, root in the first d columns of `space.A`.
template <int D, int P> struct Branch {
    Size<D> d;
    Size<P> p;
    StateSpace<D, false> space{d};
    ObservationSpace<D, P> observed{d, p};
    Scratch<double, D> state{d}, column{d};
    Scratch<double, D * P> W{d * p};
    Scratch<double, P * P> K{p * p}, S{p * p};
    Branch(int64_t d_, int64_t p_, const double* L, const double* m) : d(d_), p(p_) {
        read_columns(L, space.A, d, d);
        std::copy_n(m, d, &state[0]);
    }
    double* mean() { return &state[0]; }
    void predict(const double* F, const double* b, const double* root) {
        predict_root(F, root, space, d);
        predict_mean(F, b, &state[0], &column[0], d);
    }
    void predict(const Chain& chain, int64_t k) {
        const int64_t u = chain.step[k];
        predict(chain.F.row(u), chain.b.row(u), chain.root.row(u));
    }
    // Innovation v and covariance of the observation with noise scale R.
    void show(const Shown& at, double scale, double* v, double* cov) {
        for (int a = 0; a < p; a++) v[a] = residual(at.z[a], at.off[a], at.H + a * d, &state[0], d);
        set_observation(at.H, observed, d, p);
        innovation_cov(at.R, scale, space.A, cov, observed, d, p);
    }
    // Condition on it; v: as `show` has it. The log-likelihood, or NaN (see update_root).
    double update(const Shown& at, double scale, const double* v) {
        double loglik = observe_root<false>(at.H, at.R, scale, at.seen, space, &S[0], &W[0], &K[0], observed);
        for (int a = 0; a < p; a++) {
            if (!at.seen[a]) continue;
            double e = 0.0;
            for (int c = 0; c <= a; c++)
                if (at.seen[c]) e += K[c * p + a] * v[c];
            loglik -= 0.5 * e * e;
            for (int i = 0; i < d; i++) state[i] += W[a * d + i] * e;
        }
        return loglik;
    }
    void copy(const Branch& from) {
        for (int j = 0; j < d; j++)
            for (int b = 0; b < space.A.blocks(); b++) space.A(j, b) = from.space.A(j, b);
        for (int i = 0; i < d; i++) state[i] = from.state[i];
    }
    void settle() {}
};

// The same while directions are open (`x`, `work`); `earlier` nodes follow where directions turn and origins move.
struct FlatBranch {
    int d, p, q;
    const In<1>& times;
    const ComponentSizes& sizes;
    const MixtureKept& kept;
    const MixtureOutput& out;
    Room<2> M{q, d}, T{q, q}, L{d, d}, S{p, p}, E{p, q}, V{p, d}, W{p, d}, K{p, p};
    Room<1> s{q}, m{d}, v{p}, rotation{(d + q) * (d + q)};
    Room<1, uint8_t> known{p};
    FlatState x{d, p, q, 0, M.data, T.data, s.data, L.data, m.data, 1};
    FlatWork work{d, p, q, 1};
    StateSpace<0, true>& space = work.space;
    int64_t earlier = 0;
    FlatBranch(int64_t d_, int64_t p_, int64_t q_, const In<1>& times_, const ComponentSizes& sizes_, const MixtureKept& kept_,
               const MixtureOutput& out_)
        : d(static_cast<int>(d_)), p(static_cast<int>(p_)), q(static_cast<int>(q_)), times(times_), sizes(sizes_), kept(kept_), out(out_) {
        tell_apart(work.diffuse, sizes.growth);
    }
    double* mean() { return m.data; }
    void take_root() { read_columns(L.data, space.A, Size<0>(d), Size<0>(d)); }
    void leave_root() { write_columns(space.A, 0, 0, L.data, Size<0>(d), Size<0>(d)); }
    void predict(const Chain& chain, int64_t k) {
        earlier = k;
        predict_flat(chain, chain.step[k], times[k] - times[k - 1], stamp_at(times, k), sizes, x, work);
    }
    void show(const Shown& at, double, double* innovation, double* cov) {
        predict_shown(at.H, at.off, at.R, at.z, x, work, innovation, cov, E.data, known.data);
        for (int a = 0; a < p; a++) {
            if (!known[a]) innovation[a] = NAN;
            for (int c = 0; c < p; c++)
                if (!known[a] || !known[c]) cov[a * p + c] = a == c ? INFINITY : 0.0;
        }
    }
    double update(const Shown& at, double scale, const double*) {
        double loglik = 0.0;
        const double half = update_flat(
            at.H, at.off, at.R, scale, at.seen, at.z, 0, x, S.data, E.data, v.data, &loglik, 0, W.data, K.data, V.data, work,
            [&](int a, int b, double c, double back, double sine, double angle_error) {
                turn_kept(kept.M, kept.tolerance, earlier, a, b, c, back, sine, angle_error);
            },
            [&](int64_t, int j, double by) {
                for (int64_t k = 0; k < earlier; k++)
                    for (int i = 0; i < d; i++) out.mean.row(k)[i] += kept.M.row(k)[j * d + i] * by;
            });
        return std::isnan(half) ? half : loglik;
    }
    void copy(FlatBranch& from) {
        x.count = from.x.count;
        std::copy_n(from.M.data, q * d, M.data), std::copy_n(from.T.data, q * q, T.data);
        std::copy_n(from.s.data, q, s.data), std::copy_n(from.m.data, d, m.data);
        from.leave_root(), std::copy_n(from.L.data, d * d, L.data), take_root();
        work.diffuse.copy(from.work.diffuse);
    }
    // What is known of delta goes into m and L: its directions become zero, and T the identity.
    void settle() {
        if (x.count > 0) {
            invert_lower(x.T, &work.inverse[0], x.count, q);
            leave_root();
            integrate_out(x, x.L, &work.inverse[0], rotation.data);
            take_root();
        }
        for (int j = 0; j < x.count; j++) {
            for (int i = 0; i < d; i++) M.row(j)[i] = 0.0;
            for (int i = 0; i < q; i++) T.row(j)[i] = i == j ? 1.0 : 0.0;
            s[j] = 0.0;
        }
    }
    // At the end of node k, which is kept: whether nothing of the flat start is left, or no room.
    bool end_node(int64_t k, bool single) {
        leave_root();
        if (x.count == q && (!single || can_collapse(x, x.L, &work.inverse[0]))) {
            settle(), leave_root();
            return true;
        }
        if (k == kept.M.shape[0]) return true;
        for (int j = 0; j < q; j++)
            for (int i = 0; i < d; i++) {
                kept.M.row(k)[j * d + i] = j < x.count ? x.M[j * d + i] : work.diffuse.direction(j)[i];
                kept.tolerance.row(k)[j * d + i] = j < x.count ? 0.0 : rounding(work.diffuse, j, i);
            }
        std::copy_n(T.data, q * q, kept.T.row(k));
        std::copy_n(s.data, q, kept.s.row(k));
        kept.count[k] = x.count;
        return false;
    }
};

// ---------------------------------------------------------------- along the nodes

// Nodes k, k + 1, ... of one series, until end(k) says that k was the last. -1, or a node at which an innovation is known exactly.
template <int D, int P, class Law, class End>
int64_t filter_nodes(const Chain& chain, int64_t& k, const Mixture& noise, const In<2>& z, const Flags<2>& seen, Law& now, Law& other,
                     const MixtureOutput& out, Size<D> d, Size<P> p, End end) {
    constexpr int WIDE = D > 0 ? 2 * D + 1 : 0;
    const Size<WIDE> wide(2 * d + 1);
    Columns<WIDE, D> X(wide, d);
    Scratch<double, WIDE> spare(wide);
    Scratch<double, 0> root(p * p), work(p * (d + 1));
    const bool single = noise.single();
    for (; k < chain.step.shape[0]; k++) {
        if (k > 0) now.predict(chain, k);
        if (const int64_t o = chain.obs[k]; o >= 0) {
            const int64_t c = chain.cfg[o];
            const Shown at{chain.H.row(c), chain.off.row(c), chain.R.row(c), z.row(o), seen.row(o)};
            double* v = out.innovation.row(o);
            now.show(at, 0.0, v, out.S.row(o));
            for (int a = 0; a < p; a++)
                if (!at.seen[a]) v[a] = NAN;
            out.loglik[o] = 0.0, out.outlier[o] = NAN, out.distance[o] = NAN;
            if (any_seen(at.seen, p)) {
                double log1 = 0.0;
                if (!single) other.copy(now), log1 = other.update(at, noise.scale, v);
                const double log0 = now.update(at, 1.0, v);
                if (std::isnan(log0 + log1)) return k;
                out.loglik[o] = log0, out.outlier[o] = noise.rate;
                if (!single) {
                    now.settle(), other.settle();
                    out.distance[o] = expected_distance(at, other.mean(), other.space.A, d, p, &root[0], &work[0]);
                    out.outlier[o] = posterior_odds(noise, log0, log1, out.loglik[o]);
                    collapse(out.outlier[o], now.mean(), other.mean(), now.space.A, other.space.A, X, spare, d, wide);
                }
            }
        }
        const bool last = end(k);
        gram(now.space.A, out.cov.row(k), d, d);
        for (int i = 0; i < d; i++) out.mean.row(k)[i] = now.mean()[i];
        if (last) return -1;
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
    const auto go_on = [&](int64_t first, const double* root, const double* mean) {
        outcome[1] = with_sizes(d, p, [&](auto D, auto P) {
            Branch<known<decltype(D)>, known<decltype(P)>> now(d, p, root, mean), other(d, p, root, mean);
            return filter_nodes(chain, first, noise, z, seen, now, other, out, D, P, [](int64_t) { return false; });
        });
    };
    outcome[0] = 0;
    if (q == 0) return go_on(0, L.data, m.data);
    FlatBranch now(d, p, q, times, sizes, kept, out), other(d, p, q, times, sizes, kept, out);
    std::copy_n(M.data, q * d, now.M.data), std::copy_n(m.data, d, now.m.data), std::copy_n(L.data, d * d, now.L.data);
    begin_diffuse(M.data, now.work.diffuse);
    now.take_root();
    int64_t done = 0;
    outcome[1] = filter_nodes(chain, done, noise, z, seen, now, other, out, Size<0>(d), Size<0>(p),
                              [&](int64_t k) { return now.end_node(k, noise.single()); });
    const bool still_open = done == chain.step.shape[0];
    outcome[0] = done + (done == kept.M.shape[0] && !still_open && now.x.count < q ? 1 : 0);
    if (outcome[1] < 0 && !still_open && outcome[0] == done) go_on(done + 1, now.L.data, now.m.data);
}

}
}  // namespace afa
