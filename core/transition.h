// Exact discretisation over many intervals side by side, and its derivative in reverse mode.
//
//     Phi(t) = e^{At},   psi(t) = int_0^t e^{As} u ds,   V(t) = int_0^t e^{As} Q e^{A^T s} ds
//
// A short interval is a Taylor series, a long one a short one doubled by the semigroup laws
//
//     Phi(s + t) = Phi(s) Phi(t),   psi(s + t) = Phi(s) psi(t) + psi(s),   V(s + t) = Phi(s) V(t) Phi(s)^T + V(s).
//
// The series' coefficients are the same for all intervals (`series`): each costs a polynomial. As many intervals
// as a register has lanes go side by side; matrices of lanes are kept by rows.
#pragma once
#include <algorithm>

#include "array.h"
#include "linalg.h"

namespace afa {
inline namespace AFA_LEVEL {

using Lanes = Vec<double, LANES<double>>;

constexpr int TAYLOR_TERMS = 15;
constexpr double TAYLOR_REACH = 0.25;   // ||A|| h of the series; (2 ||A|| h)^14 / 15! is half of EPS / 4

// How many numbers [Phi - I, psi, V] are.
constexpr int64_t transition_size(int64_t d) { return 2 * d * d + d; }

// Lanes of `values` from `start` on, zeros beyond n.
inline Lanes gather(const double* values, int64_t start, int64_t n) {
    return load_some<LANES<double>>(values + start, static_cast<int>(std::min<int64_t>(n - start, LANES<double>)));
}

// X = sum over k >= 1 of row k - 1 of `coefficients` (terms, size) times x^k (Horner).
inline void polynomial(const double* coefficients, int64_t terms, int64_t size, Lanes x, Lanes* X) {
    for (int64_t e = 0; e < size; e++) {
        Lanes total = spread<Lanes>(coefficients[(terms - 1) * size + e]);
        for (int64_t k = terms - 2; k >= 0; k--) total = total * x + coefficients[k * size + e];
        X[e] = total * x;
    }
}

// Lower root, by rows, of semidefinite matrices side by side: Cholesky with null columns for null pivots.
inline void lower_root(const Lanes* V, Lanes* root_, int d) {
    const Lanes zero = {};
    for (int j = 0; j < d; j++) {
        Lanes pivot = V[j * d + j];
        const Lanes floor = (4 * d * EPS) * pivot;
        for (int k = 0; k < j; k++) pivot -= root_[j * d + k] * root_[j * d + k];
        const Lanes scaled = where_positive(Lanes(pivot - floor), Lanes(1.0 / root(pivot)), zero);
        for (int i = 0; i < d; i++) {
            if (i < j) {
                root_[i * d + j] = zero;
                continue;
            }
            Lanes x = V[i * d + j];
            for (int k = 0; k < j; k++) x -= root_[i * d + k] * root_[j * d + k];
            root_[i * d + j] = x * scaled;   // 0 for a null pivot, NaN where V is not finite
        }
    }
}

// Columns of the lower roots of semidefinite V (n, d, d): root[u, j] is column j.
inline void lower_roots(In<3> V, Out<3> roots) {
    const int64_t n = V.shape[0];
    const int d = static_cast<int>(V.shape[1]), dd = d * d;
    Scratch<Lanes, 0> given(dd), made(dd);
    for (int64_t start = 0; start < n; start += LANES<double>) {
        const int lanes = static_cast<int>(std::min<int64_t>(n - start, LANES<double>));
        for (int l = 0; l < lanes; l++)
            for (int e = 0; e < dd; e++) given[e][l] = V.row(start + l)[e];
        lower_root(&given[0], &made[0], d);
        for (int l = 0; l < lanes; l++)
            for (int i = 0; i < d; i++)
                for (int j = 0; j < d; j++) roots.row(start + l)[j * d + i] = made[i * d + j][l];
    }
}

// Phi, psi, V over tau_k = tau0 + r_k, where entry base[k] of Phi0, psi0, V0 holds those over tau0.
//
// coefficients (K, 2 d^2 + d) of r, r^2, ... in [Phi - I, psi, V]. columns: Phi by columns, and in place of V the
// columns of its lower root, as the Kalman filter wants them.
inline void from_base(In<2> coefficients, In<1> r, Index<1> base, In<3> Phi0, In<2> psi0, In<3> V0, Out<3> Phi,
                      Out<2> psi, Out<3> V, bool columns) {
    const int64_t n = r.shape[0];
    const int d = static_cast<int>(psi.shape[1]), dd = d * d;
    Scratch<Lanes, 0> X(transition_size(d)), F(dd), W(dd), whole(dd), half(dd), b(d);
    for (int64_t start = 0; start < n; start += LANES<double>) {
        const int lanes = static_cast<int>(std::min<int64_t>(n - start, LANES<double>));
        for (int l = 0; l < lanes; l++) {
            const int64_t u = base[start + l];
            for (int i = 0; i < d; i++) b[i][l] = psi0.row(u)[i];
            for (int e = 0; e < dd; e++) F[e][l] = Phi0.row(u)[e], W[e][l] = V0.row(u)[e];
        }
        polynomial(coefficients.data, coefficients.shape[0], transition_size(d), gather(r.data, start, n), &X[0]);
        Lanes *Phi_r = &X[0], *psi_r = &X[dd], *V_r = &X[dd + d];
        for (int i = 0; i < d; i++) Phi_r[i * d + i] += 1.0;
        multiply(Phi_r, &F[0], &whole[0], d, d, d);          // Phi = Phi_r Phi0
        multiply(Phi_r, &W[0], &half[0], d, d, d);
        for (int i = 0; i < d; i++) {
            for (int k = 0; k < d; k++) psi_r[i] += Phi_r[i * d + k] * b[k];   // psi = Phi_r psi0 + psi_r
            for (int j = 0; j <= i; j++) {                                     // V = Phi_r V0 Phi_r^T + V_r
                Lanes x = 0.5 * (V_r[i * d + j] + V_r[j * d + i]);
                for (int k = 0; k < d; k++) x += half[i * d + k] * Phi_r[j * d + k];
                W[i * d + j] = W[j * d + i] = x;
            }
        }
        if (columns) lower_root(&W[0], &half[0], d);
        for (int l = 0; l < lanes; l++) {
            double *F_out = Phi.row(start + l), *V_out = V.row(start + l);
            for (int i = 0; i < d; i++) {
                psi.row(start + l)[i] = psi_r[i][l];
                for (int j = 0; j < d; j++) {
                    const int at = columns ? j * d + i : i * d + j;
                    F_out[at] = whole[i * d + j][l];
                    V_out[at] = columns ? half[i * d + j][l] : W[i * d + j][l];
                }
            }
        }
    }
}

// ---------------------------------------------------------------- from the model alone, and back

// The largest column sum of |A|.
inline double column_norm(const double* A, int d) {
    double norm = 0.0;
    for (int j = 0; j < d; j++) {
        double x = 0.0;
        for (int i = 0; i < d; i++) x += std::fabs(A[i * d + j]);
        norm = std::max(norm, x);
    }
    return norm;
}

// The model's Taylor coefficients in x = unit * t: with A, u, Q in this unit of time,
//     Phi - I = sum A^k / k! x^k,   psi = sum A^(k-1) u / k! x^k,   V = sum N_k x^k,
//     N_1 = Q,   (k + 1) N_(k+1) = A N_k + N_k A^T.
struct Series {
    int d;
    double unit;
    Scratch<double, 0> A, rows;   // (d, d); (TAYLOR_TERMS, 2 d^2 + d)

    double* phi(int k) { return &rows[(k - 1) * transition_size(d)]; }
    double* drive(int k) { return phi(k) + d * d; }
    double* noise(int k) { return drive(k) + d; }

    Series(const double* A_, const double* Q, const double* u, int d_)
        : d(d_), unit(column_norm(A_, d_)), A(d_ * d_), rows(TAYLOR_TERMS * transition_size(d_)) {
        if (!(unit > 0.0)) unit = 1.0;
        for (int e = 0; e < d * d; e++) A[e] = phi(1)[e] = A_[e] / unit, noise(1)[e] = Q[e] / unit;
        for (int i = 0; i < d; i++) drive(1)[i] = u[i] / unit;
        for (int k = 1; k < TAYLOR_TERMS; k++) {
            const double c = 1.0 / (k + 1);
            multiply(&A[0], phi(k), phi(k + 1), d, d, d);
            multiply(&A[0], drive(k), drive(k + 1), d, d, 1);
            double* N = noise(k + 1);
            multiply(&A[0], noise(k), N, d, d, d);
            for (int i = 0; i < d; i++)
                for (int j = 0; j <= i; j++) N[i * d + j] = N[j * d + i] = c * (N[i * d + j] + N[j * d + i]);
            for (int e = 0; e < d * d; e++) phi(k + 1)[e] *= c;
            for (int i = 0; i < d; i++) drive(k + 1)[i] *= c;
        }
    }
};

// Intervals side by side: t = 2^halvings h, of each lane, x = ||A|| h; deepest: the most halvings.
struct Halved {
    Lanes x, halvings;
    int deepest = 0;

    Halved(const double* steps, int64_t start, int64_t n, double unit) {
        x = gather(steps, start, n) * unit;
        for (int l = 0; l < LANES<double>; l++) {
            const int times = x[l] > TAYLOR_REACH ? static_cast<int>(std::ceil(std::log2(x[l] / TAYLOR_REACH))) : 0;
            halvings[l] = times;
            x[l] = std::ldexp(x[l], -times);
            deepest = std::max(deepest, times);
        }
    }
    // Above 0 in the lanes that take part in doubling number m = 0, 1, ...
    Lanes takes_part(int m) const { return halvings - static_cast<double>(m); }
};

// The most halvings that any interval needs.
inline int deepest_halving(const double* steps, int64_t n, double unit) {
    int deepest = 0;
    for (int64_t start = 0; start < n; start += LANES<double>)
        deepest = std::max(deepest, Halved(steps, start, n, unit).deepest);
    return deepest;
}

// Phi, psi, V on their way through the doublings: Phi = B + X, psi = s and V = Y. B is diagonal, 1 as long as an entry of Phi is
// nearer to 1, else 0: what is slow keeps its digits in X = Phi - I, what has decayed keeps its own.
struct Doubling {
    Lanes *X, *s, *Y, *B;
    static int64_t size(int64_t d) { return transition_size(d) + d; }
    Doubling(Lanes* at, int d) : X(at), s(at + d * d), Y(s + d), B(Y + d * d) {}
};

// The series over the first, short interval: of its Phi - I no entry is far from 0.
inline void begin_doubling(const Series& series, Lanes x, Doubling to) {
    polynomial(&series.rows[0], TAYLOR_TERMS, transition_size(series.d), x, to.X);
    for (int i = 0; i < series.d; i++) to.B[i] = spread<Lanes>(1.0);
}
// One doubling; a: (d, d).
//     Phi' = Phi Phi,   s' = s + Phi s,   Y' = Y + Phi Y Phi^T
inline void double_step(Lanes part, Doubling now, Doubling next, Lanes* a, int d) {
    const Lanes *X = now.X, *s = now.s, *Y = now.Y, *B = now.B;
    multiply(X, X, next.X, d, d, d);
    multiply(X, s, next.s, d, d, 1);
    multiply(X, Y, a, d, d, d);
    for (int i = 0; i < d; i++) {
        next.s[i] = where_positive(part, Lanes((1.0 + B[i]) * s[i] + next.s[i]), s[i]);
        for (int j = 0; j < d; j++)
            next.X[i * d + j] = where_positive(part, Lanes((B[i] + B[j]) * X[i * d + j] + next.X[i * d + j]), X[i * d + j]);
        for (int j = 0; j <= i; j++) {
            Lanes x = (1.0 + B[i] * B[j]) * Y[i * d + j] + B[j] * a[i * d + j] + B[i] * a[j * d + i];
            for (int k = 0; k < d; k++) x += a[i * d + k] * X[j * d + k];
            next.Y[i * d + j] = next.Y[j * d + i] = where_positive(part, x, Y[i * d + j]);
        }
    }
    for (int i = 0; i < d; i++) {
        Lanes& own = next.X[i * d + i];
        next.B[i] = where_positive(Lanes(-0.5 - own), Lanes{}, B[i]);
        own += B[i] - next.B[i];                             // nothing is rounded between -2 and -1/2
    }
}

// Phi, psi, V over every interval. Error about EPS ||A|| t: what is stiffer wants Python's `Discretiser`.
inline void transitions(In<2> A, In<2> Q, In<1> u, In<1> steps, Out<3> Phi, Out<2> psi, Out<3> V) {
    const int64_t n = steps.shape[0], size = Doubling::size(u.shape[0]);
    const int d = static_cast<int>(u.shape[0]), dd = d * d;
    Series series(A.data, Q.data, u.data, d);
    Scratch<Lanes, 0> first(size), second(size), a(dd);
    for (int64_t start = 0; start < n; start += LANES<double>) {
        const Halved halved(steps.data, start, n, series.unit);
        Doubling now(&first[0], d), next(&second[0], d);
        begin_doubling(series, halved.x, now);
        for (int m = 0; m < halved.deepest; m++) {
            double_step(halved.takes_part(m), now, next, &a[0], d);
            std::swap(now, next);
        }
        const int lanes = static_cast<int>(std::min<int64_t>(n - start, LANES<double>));
        for (int l = 0; l < lanes; l++) {
            for (int e = 0; e < dd; e++) Phi.row(start + l)[e] = now.X[e][l], V.row(start + l)[e] = now.Y[e][l];
            for (int i = 0; i < d; i++) psi.row(start + l)[i] = now.s[i][l], Phi.row(start + l)[i * d + i] += now.B[i][l];
        }
    }
}

// One doubling backward: gradients by Phi', s', Y' (g; that by Y' symmetric) become those by Phi, s, Y; now.X holds Phi itself.
// work: 4 d^2 + d.
//     gY = gY' + Phi^T gY' Phi,   gs = gs' + Phi^T gs',   gPhi = Phi^T gPhi' + gPhi' Phi^T + gs' s^T + 2 gY' Phi Y
inline void double_step_adjoint(Lanes part, Doubling now, Doubling g, Lanes* work, int d) {
    const int dd = d * d;
    const Lanes *Phi = now.X, *s = now.s;
    Lanes *b = work, *c = work + dd, *e = work + 2 * dd, *f = work + 3 * dd, *gs = work + 4 * dd;
    multiply(Phi, now.Y, b, d, d, d);
    multiply(g.Y, b, c, d, d, d);
    t_multiply(Phi, g.X, e, d, d, d);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) {
            Lanes x = 2.0 * c[i * d + j] + e[i * d + j] + g.s[i] * s[j];
            for (int k = 0; k < d; k++) x += g.X[i * d + k] * Phi[j * d + k];
            f[i * d + j] = x;
        }
    for (int i = 0; i < dd; i++) g.X[i] = where_positive(part, f[i], g.X[i]);
    t_multiply(Phi, g.s, gs, d, d, 1);
    for (int i = 0; i < d; i++) g.s[i] = where_positive(part, Lanes(g.s[i] + gs[i]), g.s[i]);
    multiply(g.Y, Phi, b, d, d, d);
    t_multiply(Phi, b, c, d, d, d);
    for (int i = 0; i < dd; i++) g.Y[i] = where_positive(part, Lanes(g.Y[i] + c[i]), g.Y[i]);
}

// The series backward: gradients `rows` (TAYLOR_TERMS, 2 d^2 + d) by its coefficients are added to those by A, Q, u.
inline void series_adjoint(Series& series, double* rows, double* gA, double* gQ, double* gu) {
    const int d = series.d, dd = d * d;
    const double* A = &series.A[0];
    Scratch<double, 0> sum(dd), a(dd);
    for (int k = TAYLOR_TERMS - 1; k >= 1; k--) {
        const double c = 1.0 / (k + 1);
        double *next = rows + k * transition_size(d), *now = next - transition_size(d);
        double *g_phi = next, *g_drive = next + dd, *g_noise = next + dd + d;
        add_product_t(g_phi, series.phi(k), c, &sum[0], d, d, d);       // phi' = c A phi
        add_product_t(g_drive, series.drive(k), c, &sum[0], d, 1, d);
        add_product_t(g_noise, series.noise(k), 2.0 * c, &sum[0], d, d, d);
        t_multiply(A, g_phi, &a[0], d, d, d);
        for (int e = 0; e < dd; e++) now[e] += c * a[e];
        t_multiply(A, g_drive, &a[0], d, d, 1);
        for (int i = 0; i < d; i++) now[dd + i] += c * a[i];
        t_multiply(A, g_noise, &a[0], d, d, d);
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) now[dd + d + i * d + j] += c * (a[i * d + j] + a[j * d + i]);
    }
    for (int e = 0; e < dd; e++) gA[e] += (sum[e] + rows[e]) / series.unit, gQ[e] += rows[dd + d + e] / series.unit;
    for (int i = 0; i < d; i++) gu[i] += rows[dd + i] / series.unit;
}

// Gradients by A, Q, u (added to) from those by Phi, psi, V over every interval, in reverse mode through
// `transitions`: right for every A (defective, singular, unstable), and nothing like e^{-At} occurs.
inline void transition_adjoint(In<2> A, In<2> Q, In<1> u, In<1> steps, In<3> gPhi, In<2> gpsi, In<3> gV, Out<2> gA,
                               Out<2> gQ, Out<1> gu) {
    const int64_t n = steps.shape[0], size = transition_size(u.shape[0]), level = Doubling::size(u.shape[0]);
    const int d = static_cast<int>(u.shape[0]), dd = d * d;
    Series series(A.data, Q.data, u.data, d);
    Scratch<Lanes, 0> levels((deepest_halving(steps.data, n, series.unit) + 1) * level), g(level), work(4 * dd + d);
    Scratch<Lanes, 0> sums(TAYLOR_TERMS * size);
    const Doubling slope(&g[0], d);
    for (int64_t start = 0; start < n; start += LANES<double>) {
        const Halved halved(steps.data, start, n, series.unit);
        begin_doubling(series, halved.x, {&levels[0], d});
        for (int m = 0; m < halved.deepest; m++) {
            const Doubling now(&levels[m * level], d);
            if (m + 1 < halved.deepest) double_step(halved.takes_part(m), now, {&levels[(m + 1) * level], d}, &work[0], d);
            for (int i = 0; i < d; i++) now.X[i * d + i] += now.B[i];
        }
        const int lanes = static_cast<int>(std::min<int64_t>(n - start, LANES<double>));
        for (int64_t e = 0; e < size; e++) g[e] = Lanes{};
        for (int l = 0; l < lanes; l++) {
            const double* G = gV.row(start + l);
            for (int i = 0; i < d; i++) {
                slope.s[i][l] = gpsi.row(start + l)[i];
                for (int j = 0; j < d; j++) {
                    slope.X[i * d + j][l] = gPhi.row(start + l)[i * d + j];
                    slope.Y[i * d + j][l] = 0.5 * (G[i * d + j] + G[j * d + i]);
                }
            }
        }
        for (int m = halved.deepest - 1; m >= 0; m--)
            double_step_adjoint(halved.takes_part(m), {&levels[m * level], d}, slope, &work[0], d);
        Lanes power = halved.x;
        for (int k = 0; k < TAYLOR_TERMS; k++, power *= halved.x)
            for (int64_t e = 0; e < size; e++) sums[k * size + e] += power * g[e];
    }
    Scratch<double, 0> rows(TAYLOR_TERMS * size);
    for (int64_t e = 0; e < TAYLOR_TERMS * size; e++)
        for (int l = 0; l < LANES<double>; l++) rows[e] += sums[e][l];
    series_adjoint(series, &rows[0], gA.data, gQ.data, gu.data);
}

}
}  // namespace afa
