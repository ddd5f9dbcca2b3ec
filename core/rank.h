// What is determined, and what only rounding touches: the one place where that is decided.
//
// A flat direction n of the state (a column, x = ... + n gamma, gamma without prior) is seen by a row h where h n
// differs from 0 by more than rounding. Rounding is not measured against h n itself, nor against another
// component, but followed from where it arises: every column n carries a bound Omega (d, d) on the second moment
// of its own error, in units of EPS^2, and
//
//     h n = 0   where   |h n| <= RANK EPS ( sqrt(h Omega h^T) + |h| |n| ).
//
// A step x -> F x, F = e^{A tau}, moves what there is and adds a rounding of F n. The entries of F are as exact as
// A and tau let them be: within a set of components that drive each other (a strongly connected `block` of A) an
// entry is right to EPS (1 + rate tau) of the largest one, counted in the components' own units; so that
// sin(pi k), which is 1e-16 k in floating point, is 0. Errors of several steps may all have one sign: with
// (a + b)^2 <= (1 + 1/k) a^2 + (1 + k) b^2, equal for b = a / k,
//
//     Omega <- (1 + 1/k) F Omega F^T + (1 + k) diag(added)^2      in the k-th step.
//
// Time stamps have a rounding of their own, EPS |t|, which moves x at a node by EPS |t| A x, all directions alike: for rows at this node
// alone, h n_j is known to EPS |h late_j|, late_j = A n_j times the sizes of the stamps so far, which follows n_j through steps and turns.
//
// Everything scales with the units of components, rows, time and gamma: no number here has a unit.
#pragma once
#include <algorithm>
#include <tuple>
#include <utility>

#include "array.h"
#include "linalg.h"

namespace afa {
inline namespace AFA_LEVEL {

// Roundings by which h n may differ from 0 before it counts as seen, beyond the bound itself.
constexpr double RANK = 32.0;
// What is seen by this many times the unit in which its rounding is counted is seen clearly: nine digits stand.
constexpr double CLEAR = 1e-9;
// What has decayed to this share of others is left to them.
constexpr double UNDECAYED = 1e-3;
inline double rank_rounding() { return RANK * EPS; }
// A block along which a direction has decayed by this much, by fifty decades, has forgotten it.
constexpr double DECAYED = 1e-50;
inline double rank_decayed() { return DECAYED; }
// The square of a smaller number in units of its rounding is no number.
constexpr double UNDERFLOWN = 1e-150;

// Of each component: its block, its unit within the block (a scale at which A is balanced), and the block's
// rate, 1/time: the norm of A in these units; growth, 1/time: the largest of the mean growth rates, tr A / size, of its block and of those
// that it drives; A (d, d) itself (the last three 0 for steps F that are given as they are).
struct ComponentSizes {
    Index<1> block;
    In<1> unit, rate, growth;
    In<2> A;
    template <class Visit> void members(Visit&& visit) { visit(block, unit, rate, growth, A); }
};
constexpr const char* SIZES = "block(d)<d unit(d) rate(d) growth(d) A(d,d) ";

// `ComponentSizes` of dynamics A (d, d), or of transitions that are given: blocks by reachability, units by balancing
// each block (Osborne, J. ACM 7 (1960) 338-345, all components at once by half a step each).
inline void component_sizes(In<2> A, bool given, View<int64_t, 1> block, Out<1> unit, Out<1> rate, Out<1> growth) {
    const int d = static_cast<int>(A.shape[0]);
    Scratch<double, 0> size(d * d), reachable(d * d), factor(d);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) {
            size[i * d + j] = std::fabs(A.row(i)[j]);
            reachable[i * d + j] = i == j || size[i * d + j] > 0.0 ? 1.0 : 0.0;
        }
    for (int k = 0; k < d; k++)                                              // Warshall
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) reachable[i * d + j] = larger(reachable[i * d + j], reachable[i * d + k] * reachable[k * d + j]);
    for (int i = 0; i < d; i++) {
        unit[i] = 1.0, rate[i] = growth[i] = 0.0;
        int64_t first = 0;
        while (reachable[i * d + first] == 0.0 || reachable[first * d + i] == 0.0) first++;
        block[i] = first;
    }
    for (int round = 0; round < 200; round++) {                              // rows and columns of about equal sums
        double change = 0.0;
        for (int i = 0; i < d; i++) {
            double column = 0.0, row = 0.0;
            for (int j = 0; j < d; j++)
                if (j != i && block[j] == block[i]) column += size[j * d + i], row += size[i * d + j];
            factor[i] = column > 0.0 && row > 0.0 ? std::sqrt(std::sqrt(row / column)) : 1.0;
            change = larger(change, std::fabs(std::log(factor[i])));
        }
        for (int i = 0; i < d; i++) {
            unit[i] *= factor[i];
            for (int j = 0; j < d; j++) size[i * d + j] *= factor[j] / factor[i];
        }
        if (change < 0.1) break;
    }
    if (given) return;
    for (int i = 0; i < d; i++)                                              // the block's largest row
        for (int j = 0; j < d; j++) {
            if (block[j] != block[i]) continue;
            double row = 0.0;
            for (int k = 0; k < d; k++)
                if (block[k] == block[i]) row += size[j * d + k];
            rate[i] = larger(rate[i], row);
        }
    for (int i = 0; i < d; i++) {                                            // work space: of the block alone
        double trace = 0.0, members = 0.0;
        for (int j = 0; j < d; j++)
            if (block[j] == block[i]) trace += A.row(j)[j], members += 1.0;
        factor[i] = trace / members;
    }
    for (int i = 0; i < d; i++) {
        growth[i] = factor[i];
        for (int j = 0; j < d; j++)
            if (reachable[j * d + i] != 0.0) growth[i] = larger(growth[i], factor[j]);
    }
}

// What rounding may have done to an answer: barely, the largest relative rounding of what determines a direction; hidden, by how
// many standard deviations an observation is off that counted as showing nothing of one, or by which rows that determine them cancel; lost, the
// largest variance of a prediction over that of its observation.
struct RoundingMeasures {
    double barely = 0.0, hidden = 0.0, lost = 0.0;
    void write(double* out) const { out[0] = barely, out[1] = hidden, out[2] = lost; }
};

// Directions at work: q columns of d entries, of which those from `first` on are open.
struct DiffuseDirections {
    int d, q, first = 0;
    bool scaled = false;                     // only the direction counts, never its size: see `forget`
    const double* growth = nullptr;          // (d): see `ComponentSizes`; where nobody says, directions are all alike
    bool oblique = false;                    // whether they need not stay orthonormal in terms of those they have come from
    double steps = 0;                        // k
    Scratch<double, 0> N{q * d}, Omega{q * d * d}, peak{q * d}, late{q * d};   // (q, d), (q, d, d), (q, d): the largest that an entry of N has been, and (q, d)
    Scratch<double, 0> start{q * q};                           // (q, q): directions, as rows, in terms of those they have come from
    Scratch<double, 0> w{q}, noise{q}, below{q};               // (q): h n, its rounding in EPS, and |h n| where that is all it shows
    Scratch<double, 0> own{q};                                 // (q): the rounding without that of stamps
    Scratch<double, 0> hidden{q};                              // (q): the largest |h n| that counted as 0, in standard deviations of the observation
    Scratch<double, 0> added{q * d}, turned{q * d};            // (q, d): rounding that a step, a rotation adds
    Scratch<double, 0> size{d * d}, moved{d * d}, lift{d * d}, column{d};
    Scratch<double, 0> grown{q};                               // (q): where directions are scaled, the logarithm of what a step has made of their size

    DiffuseDirections(int64_t d_, int64_t q_) : d(static_cast<int>(d_)), q(static_cast<int>(q_)) {}
    double* direction(int j) { return &N[static_cast<int64_t>(j) * d]; }
    double* error(int j) { return &Omega[static_cast<int64_t>(j) * d * d]; }
    void copy(const DiffuseDirections& from) {
        first = from.first, steps = from.steps;
        std::copy_n(&from.N[0], q * d, &N[0]);
        std::copy_n(&from.Omega[0], q * d * d, &Omega[0]);
        std::copy_n(&from.peak[0], q * d, &peak[0]);
        std::copy_n(&from.late[0], q * d, &late[0]);
        std::copy_n(&from.start[0], q * q, &start[0]);
        std::copy_n(&from.hidden[0], q, &hidden[0]);
    }
};

// Begin with the columns of D (q, d), by columns, right to one rounding each.
inline void begin_diffuse(const double* D, DiffuseDirections& diffuse) {
    const int d = diffuse.d;
    diffuse.first = 0, diffuse.steps = 0;
    for (int j = 0; j < diffuse.q * diffuse.q; j++) diffuse.start[j] = j % (diffuse.q + 1) == 0 ? 1.0 : 0.0;
    for (int j = 0; j < diffuse.q; j++) {
        diffuse.hidden[j] = 0.0;
        for (int i = 0; i < d; i++) {
            const double x = D[j * d + i];
            diffuse.direction(j)[i] = x;
            diffuse.peak[j * d + i] = std::fabs(x), diffuse.late[j * d + i] = 0.0;
            for (int l = 0; l < d; l++) diffuse.error(j)[i * d + l] = i == l ? x * x : 0.0;
        }
    }
}

// Tell open directions apart by how fast they grow, where not all do so alike; growth without data: they do not, and are not told apart.
inline void tell_apart(DiffuseDirections& diffuse, const In<1>& growth) {
    diffuse.growth = nullptr, diffuse.oblique = growth.data == nullptr;
    for (int64_t i = 1; !diffuse.oblique && i < growth.shape[0]; i++)
        if (growth[i] != growth[0]) diffuse.growth = growth.data, diffuse.oblique = true;
}

inline bool is_identity(const double* F, int d) {
    for (int i = 0; i < d; i++)
        for (int l = 0; l < d; l++)
            if (F[l * d + i] != (i == l ? 1.0 : 0.0)) return false;
    return true;
}

// size (d, d): rounding of the entries of F (by columns) in EPS, with `largest` (d, d) as work space: (1 + rate tau) max |F| over the pair of
// blocks, in the components' units.
inline void step_sizes(const double* F, double tau, const ComponentSizes& sizes, double* largest, double* size, int d) {
    for (int i = 0; i < d * d; i++) largest[i] = 0.0;                       // by pairs of blocks
    for (int l = 0; l < d; l++)
        for (int i = 0; i < d; i++) {
            double& most = largest[sizes.block[i] * d + sizes.block[l]];
            most = larger(most, std::fabs(F[l * d + i]) * sizes.unit[l] / sizes.unit[i]);
        }
    for (int i = 0; i < d; i++)
        for (int l = 0; l < d; l++) {
            const double rate = larger(sizes.rate[i], sizes.rate[l]);
            size[i * d + l] = largest[sizes.block[i] * d + sizes.block[l]] * (sizes.unit[i] / sizes.unit[l]) *
                              (1.0 + rate * tau);
        }
}

// How large entry i of a direction would be that has come, over the step F, from an entry of one in l, had nothing decayed:
// |F_il| over what the slower of the two blocks keeps. What drives a block along its way is no new beginning there, so
// that the answer does not depend on whether there is a node in between. largest: as `step_sizes` leaves it.
inline double undecayed(const double* F, const ComponentSizes& sizes, const double* largest, int i, int l, int d) {
    const int64_t a = sizes.block[i], b = sizes.block[l];
    const double x = std::fabs(F[l * d + i]);
    return a == b || x == 0.0 ? 0.0 : x / larger(largest[a * d + a], largest[b * d + b]);
}

// Whether more than nothing is left of a direction n, or of rough(l), the rounding of its entries, in the block of component i; peak:
// the largest that its entries have been.
template <class Rough> inline bool is_left(const ComponentSizes& sizes, const double* n, const double* peak, int i, int d, Rough rough) {
    double now = 0.0, most = 0.0;
    for (int l = 0; l < d; l++)
        if (sizes.block[l] == sizes.block[i]) {
            now = larger(now, larger(std::fabs(n[l]), rough(l)) / sizes.unit[l]);
            most = larger(most, peak[l] / sizes.unit[l]);
        }
    return now > 0.0 && !(now < DECAYED * most);
}

// What is left of a direction n beside the largest that its entries have been, in the block of which most is left.
inline double most_left(const ComponentSizes& sizes, const double* n, const double* peak, int d) {
    double most = 0.0;
    for (int i = 0; i < d; i++) {
        double now = 0.0, before = 0.0;
        for (int l = 0; l < d; l++)
            if (sizes.block[l] == sizes.block[i]) {
                now = larger(now, std::fabs(n[l]) / sizes.unit[l]);
                before = larger(before, peak[l] / sizes.unit[l]);
            }
        if (before > 0.0) most = larger(most, now / before);
    }
    return most < 1.0 ? most : 1.0;
}

// Whether h sees of a direction n hardly any but components that have decayed beside others.
inline bool sees_decayed(const double* h, const double* n, const double* peak, int d) {
    double shown = 0.0, most = 0.0;
    for (int i = 0; i < d; i++) {
        const double left = peak[i] > 0.0 ? std::fabs(n[i]) / peak[i] : 0.0;
        most = larger(most, left);
        if (h[i] != 0.0) shown = larger(shown, left);
    }
    return shown < UNDECAYED * most;
}

// Count as rounding the blocks along which a direction n has decayed to nothing, in the components' units: within a block what was
// large in one component is now in another. What else the direction shows settles them, too, so that they are kept. peak: the largest
// that its entries have been, n's own included after the call; scaled: only the direction counts, so beside the block that has decayed
// least, since what no observation shows stays open however small it becomes. rough(l): rounding of an entry;
// gone(i): called for every component that counts as 0 now.
template <class Rough, class Gone>
inline void forget(const ComponentSizes& sizes, double* n, double* peak, int d, bool scaled, Rough rough, Gone gone) {
    for (int i = 0; i < d; i++) peak[i] = larger(peak[i], std::fabs(n[i]));
    const double left = scaled ? most_left(sizes, n, peak, d) : 1.0;
    for (int i = 0; i < d; i++) peak[i] *= left;
    for (int i = 0; i < d; i++) {
        if (is_left(sizes, n, peak, i, d, rough)) continue;
        if (scaled || !(std::fabs(n[i]) > UNDERFLOWN)) n[i] = 0.0;
        gone(i);
    }
}

// Entry i of direction j counts as 0 up to this size.
inline double rounding(DiffuseDirections& diffuse, int j, int i) {
    const double square = diffuse.error(j)[i * diffuse.d + i];
    return RANK * EPS * (std::sqrt(square > 0.0 ? square : 0.0) + std::fabs(diffuse.direction(j)[i])) +
           EPS * std::fabs(diffuse.late[j * diffuse.d + i]);
}

// Where only the direction counts: n_i <- e^{growth_i - top} n_i, top (returned) the largest growth of an entry that is more than its
// rounding, so that what decays fast keeps its digits where nothing slower is with it; entries that grow more are rounding and become
// 0. growth (d) becomes the factors.
template <class Rough> inline double level_growth(double* n, double* growth, int d, Rough rough) {
    constexpr double MOST = 300.0;
    double top = -HUGE_VAL;
    for (int i = 0; i < d; i++)
        if (std::fabs(n[i]) > rough(i)) top = larger(top, growth[i]);
    if (top == -HUGE_VAL) top = 0.0;
    for (int i = 0; i < d; i++) {
        const double more = growth[i] - top;
        growth[i] = std::exp(more < MOST ? more : MOST);
        n[i] *= more > 0.0 ? 0.0 : growth[i];
    }
    return top;
}

// late <- late + stamp A n, by as much as EPS of it a rounding of time stamps of this size moves n.
inline void add_late(const ComponentSizes& sizes, double stamp, const double* n, double* late, int d) {
    for (int i = 0; i < d; i++) {
        double x = 0.0;
        for (int l = 0; l < d; l++) x += sizes.A.row(i)[l] * n[l];
        late[i] += stamp * x;
    }
}

// n <- F n for all open directions, F by columns, over a step of length tau; stamp: size of its time stamps. rate (d), where directions are
// scaled: n <- e^{rate tau} F n.
inline void carry_directions(const double* F, double tau, double stamp, const ComponentSizes& sizes, DiffuseDirections& diffuse,
                             const double* rate = nullptr) {
    const int d = diffuse.d;
    if (diffuse.first == diffuse.q || (rate == nullptr && is_identity(F, d))) return;
    diffuse.steps += 1.0;
    step_sizes(F, tau, sizes, &diffuse.moved[0], &diffuse.size[0], d);
    for (int i = 0; i < d; i++)
        for (int l = 0; l < d; l++) diffuse.lift[i * d + l] = undecayed(F, sizes, &diffuse.moved[0], i, l, d);
    const double grown = 1.0 + 1.0 / diffuse.steps, fresh = 1.0 + diffuse.steps;
    double* x = &diffuse.column[0];
    for (int j = diffuse.first; j < diffuse.q; j++) {
        double *n = diffuse.direction(j), *Omega = diffuse.error(j), *added = &diffuse.added[j * d], *half = &diffuse.moved[0];
        double *peak = &diffuse.peak[j * d], *late = &diffuse.late[j * d];
        for (int i = 0; i < d; i++) {
            x[i] = 0.0;
            for (int l = 0; l < d; l++) x[i] += F[l * d + i] * late[l];
        }
        for (int i = 0; i < d; i++) late[i] = x[i];
        for (int i = 0; i < d; i++) {
            x[i] = added[i] = 0.0;
            for (int l = 0; l < d; l++) {
                x[i] += F[l * d + i] * n[l];
                added[i] += diffuse.size[i * d + l] * std::fabs(n[l]);
            }
        }
        for (int i = 0; i < d; i++)
            for (int l = 0; l < d; l++) peak[i] = larger(peak[i], diffuse.lift[i * d + l] * peak[l]);
        for (int i = 0; i < d; i++) n[i] = x[i];
        for (int i = 0; i < d * d; i++) half[i] = 0.0;
        for (int l = 0; l < d; l++)                                          // F Omega
            for (int i = 0; i < d; i++)
                if (const double f = F[l * d + i]; f != 0.0)
                    for (int c = 0; c < d; c++) half[i * d + c] += f * Omega[l * d + c];
        for (int i = 0; i < d * d; i++) Omega[i] = 0.0;
        for (int l = 0; l < d; l++)                                          // F Omega F^T
            for (int c = 0; c < d; c++)
                if (const double f = grown * F[l * d + c]; f != 0.0)
                    for (int i = 0; i < d; i++) Omega[i * d + c] += half[i * d + l] * f;
        for (int i = 0; i < d; i++) Omega[i * d + i] += fresh * added[i] * added[i];
        if (rate != nullptr) {
            for (int i = 0; i < d; i++) x[i] = rate[i] * tau;
            double most = 0.0;
            diffuse.grown[j] = level_growth(n, x, d, [&](int i) { return rounding(diffuse, j, i); });
            for (int i = 0; i < d; i++) most = larger(most, std::fabs(n[i]));
            for (int i = 0; i < d; i++)                                      // rounding of what is slower, up to the size of n
                if (const double rough = x[i] * EPS * std::sqrt(larger(Omega[i * d + i], 0.0)); x[i] > 1.0 && rough > most) x[i] *= most / rough;
            for (int i = 0; i < d; i++)
                for (int l = 0; l < d; l++) Omega[i * d + l] *= x[i] * x[l];
            for (int i = 0; i < d; i++) late[i] = std::fabs(late[i] * x[i]) * EPS > most ? most / EPS : late[i] * x[i];
        }
        add_late(sizes, stamp, n, late, d);
        forget(sizes, n, peak, d, diffuse.scaled, [&](int l) { return EPS * std::sqrt(larger(Omega[l * d + l], 0.0)); }, [&](int i) {
            for (int l = 0; l < d; l++) Omega[i * d + l] = Omega[l * d + i] = 0.0;
            Omega[i * d + i] = d * std::pow(n[i] / rank_rounding(), 2);      // d: in sums over directions, too
            late[i] = 0.0;
        });
    }
}

// |h late_j|
inline double shown_late(const double* h, DiffuseDirections& diffuse, int j) {
    double x = 0.0;
    for (int i = 0; i < diffuse.d; i++) x += h[i] * diffuse.late[j * diffuse.d + i];
    return std::fabs(x);
}

// h n_j and its rounding in EPS: `noise`, of which `own` is not that of stamps. h Omega h^T is known to a rounding of its terms, which
// cancel where they have been turned away.
inline double observed(const double* h, DiffuseDirections& diffuse, int j, double& noise, double& own) {
    const int d = diffuse.d;
    const double *n = diffuse.direction(j), *Omega = diffuse.error(j);
    double x = 0.0, size = 0.0, square = 0.0, terms = 0.0;
    for (int i = 0; i < d; i++) {
        x += h[i] * n[i];
        size += std::fabs(h[i] * n[i]);
        if (h[i] != 0.0)
            for (int l = 0; l < d; l++) {
                const double term = h[i] * Omega[i * d + l] * h[l];
                square += term, terms += std::fabs(term);
            }
    }
    own = std::sqrt((square > 0.0 ? square : 0.0) + d * EPS * terms) + size;
    noise = own + shown_late(h, diffuse, j) / RANK;
    return x;
}
inline bool is_rounding(double x, double noise) { return std::fabs(x) <= RANK * EPS * noise; }

// w_j = h n_j for the open directions, 0 where it is only rounding, and its rounding `noise`; whether any of them is seen.
inline bool observes(const double* h, DiffuseDirections& diffuse) {
    bool any = false;
    for (int j = diffuse.first; j < diffuse.q; j++) {
        const double w = observed(h, diffuse, j, diffuse.noise[j], diffuse.own[j]);
        const bool nothing = is_rounding(w, diffuse.noise[j]);
        diffuse.w[j] = nothing ? 0.0 : w, diffuse.below[j] = nothing ? std::fabs(w) : 0.0;
        any = any || diffuse.w[j] != 0.0;
    }
    return any;
}

// n <- F n and `tolerance` (what counts as 0) after one step: k steps F (k, d, d), by columns, of lengths tau between
// stamps of a size, directions and tolerance (k, q, d); scaled: as in `forget`, growth (k, d) to the power of e beside F.
inline void move_directions(In<3> F, In<1> tau, In<1> stamp, ComponentSizes sizes, Out<3> directions, Out<3> tolerance, In<2> growth,
                            bool scaled) {
    const int d = static_cast<int>(F.shape[1]), q = static_cast<int>(directions.shape[1]);
    Scratch<double, 0> size(d * d), largest(d * d), moved(d), rough(d), whole(d), factor(d), late(d);
    for (int64_t k = 0; k < F.shape[0]; k++) {
        const double* step = F.row(k);
        if (!scaled && is_identity(step, d)) continue;
        step_sizes(step, tau[k], sizes, &largest[0], &size[0], d);
        for (int j = 0; j < q; j++) {
            double *n = directions.row(k) + j * d, *t = tolerance.row(k) + j * d;
            for (int i = 0; i < d; i++) {
                moved[i] = rough[i] = 0.0;
                whole[i] = std::fabs(n[i]), late[i] = 0.0;
                for (int l = 0; l < d; l++) {
                    moved[i] += step[l * d + i] * n[l];
                    rough[i] += std::fabs(step[l * d + i]) * t[l] + RANK * EPS * size[i * d + l] * std::fabs(n[l]);
                }
            }
            for (int i = 0; i < d; i++)
                for (int l = 0; l < d; l++)
                    whole[i] = larger(whole[i], undecayed(step, sizes, &largest[0], i, l, d) * std::fabs(n[l]));
            if (scaled) {
                for (int i = 0; i < d; i++) factor[i] = growth.row(k)[i];
                level_growth(&moved[0], &factor[0], d, [&](int i) { return rough[i]; });
                for (int i = 0; i < d; i++) rough[i] *= factor[i];
            }
            for (int i = 0; i < d; i++) n[i] = moved[i];
            add_late(sizes, stamp[k], n, &late[0], d);
            for (int i = 0; i < d; i++) t[i] = rough[i] += EPS * std::fabs(late[i]);
            forget(sizes, n, &whole[0], d, scaled, [&](int l) { return rough[l]; }, [&](int i) { t[i] = std::fabs(n[i]); });
        }
    }
}

// (u, v) <- (c u + back v, c v - s u), n numbers each: a rotation where back = s.
inline void move_pair(double* u, double* v, int n, double c, double back, double s) {
    for (int i = 0; i < n; i++) {
        const double x = u[i], y = v[i];
        u[i] = c * x + back * y, v[i] = c * y - s * x;
    }
}

// The rows of M (count, n) as a basis of the space they span in which `count` columns are those of the identity: Gauss-Jordan with complete
// pivoting, where sizes (n) are given in units of them and of each row's largest entry. Returns log|the product of the pivots|.
inline double reduce_rows(double* M, const double* sizes, int count, int n) {
    double sum = 0.0;
    for (int k = 0; k < count; k++) {
        int row = k, column = 0;
        double most = 0.0;
        for (int j = k; j < count; j++) {
            double whole = sizes == nullptr ? 1.0 : 0.0;
            for (int i = 0; sizes != nullptr && i < n; i++) whole = larger(whole, sizes[i] * std::fabs(M[j * n + i]));
            for (int i = 0; i < n; i++)
                if (const double share = (sizes != nullptr ? sizes[i] : 1.0) * std::fabs(M[j * n + i]) / whole; share > most)
                    most = share, row = j, column = i;
        }
        std::swap_ranges(M + k * n, M + (k + 1) * n, M + row * n);
        sum += std::log(std::fabs(M[k * n + column]));
        for (int i = 0; i < n; i++)
            if (i != column) M[k * n + i] /= M[k * n + column];
        M[k * n + column] = 1.0;
        for (int j = 0; j < count; j++)
            if (const double share = M[j * n + column]; j != k && share != 0.0)
                for (int i = 0; i < n; i++) M[j * n + i] -= share * M[k * n + i];
    }
    return sum;
}

// log of the volume that the directions from `first` on span in those that they have come from, which are orthonormal: 0 as long as
// all turns were rotations. With C = U_11 [I, Y]: |U_11| |[I, Y]|, Y of moderate size.
inline double log_volume(const DiffuseDirections& diffuse) {
    const int q = diffuse.q, r = q - diffuse.first;
    if (!diffuse.oblique || r == 0) return 0.0;
    Scratch<double, 0> C(r * q), square(r * r);
    std::copy_n(&diffuse.start[diffuse.first * q], r * q, &C[0]);
    const double sum = reduce_rows(&C[0], nullptr, r, q);
    add_product_t(&C[0], &C[0], 1.0, &square[0], r, q, r);                   // I + Y Y^T
    return sum + 0.5 * cholesky(&square[0], 0.0, &square[0], r);
}

// How fast direction j may grow: the largest growth of a component in which it is more than rounding.
inline double growth_of(DiffuseDirections& diffuse, int j) {
    if (diffuse.growth == nullptr) return 0.0;
    double most = -HUGE_VAL;
    for (int i = 0; i < diffuse.d; i++)
        if (std::fabs(diffuse.direction(j)[i]) > rounding(diffuse, j, i)) most = larger(most, diffuse.growth[i]);
    return most;
}
// The direction that h closes: of those that are seen clearly and have not decayed much more than others, those that decay fastest, so that
// nothing slower is left in what decays as they do, where it would hide it soon; of these, or if there are none, the clearest one.
inline int direction_to_close(const double* h, DiffuseDirections& diffuse) {
    const int first = diffuse.first;
    int best = first;
    double least = HUGE_VAL, most = -1.0, largest = 0.0;
    double* share = &diffuse.grown[0];                                       // of h n before anything decayed
    for (int j = first; j < diffuse.q; j++) {
        double whole = 0.0;
        for (int i = 0; i < diffuse.d; i++) whole += std::fabs(h[i]) * diffuse.peak[j * diffuse.d + i];
        share[j] = whole > 0.0 ? std::fabs(diffuse.w[j]) / whole : 0.0;
        largest = larger(largest, share[j]);
    }
    for (int j = first; j < diffuse.q; j++) {
        const double clear = std::fabs(diffuse.w[j]) / diffuse.noise[j];
        const double growth = clear > CLEAR && share[j] > UNDECAYED * largest ? growth_of(diffuse, j) : HUGE_VAL;
        if (diffuse.w[j] == 0.0 || growth > least || (growth == least && !(clear > most))) continue;
        best = j, least = growth, most = clear;
    }
    return best;
}

// After `observes` saw something: turn the open directions so that the first one alone is seen by h, and close it.
//
// turn(j, l, cos, back, sin, angle_error) is called for every change (n_j, n_l) <- (cos n_j + back n_l, cos n_l - sin n_j), so that what
// else is counted along these directions follows: rotations of those that grow alike, back = sin, and then a shear of each other
// direction, back = 0, by what h shows of it: of one turned only rounding, which is small beside n_1 but may not be beside n_l (where
// directions are scaled, of those alone that no rotation has turned). angle_error: how far rounding may have turned it.
// What h would show of the errors of the others has been turned away: n -> Pi n, Pi = I - n_1 h / (h n_1). Returns h n_1.
template <class Turn> inline double close_direction(const double* h, DiffuseDirections& diffuse, Turn turn) {
    const int d = diffuse.d, first = diffuse.first;
    double *w = &diffuse.w[0], *own = &diffuse.own[0];
    for (int i = first * d; i < diffuse.q * d; i++) diffuse.turned[i] = 0.0;
    auto move = [&](int j, double c, double back, double s, double angle_error) {
        double *a = diffuse.direction(first), *b = diffuse.direction(j), *p = &diffuse.peak[first * d], *r = &diffuse.peak[j * d];
        double *A = diffuse.error(first), *B = diffuse.error(j), *fresh = &diffuse.turned[j * d];
        double *u = &diffuse.late[first * d], *v = &diffuse.late[j * d];
        for (int i = 0; i < d; i++) {
            const double x = a[i], y = b[i], most = p[i], early = u[i];
            u[i] = c * early + back * v[i], v[i] = c * v[i] - s * early;
            if (c != 0.0) fresh[i] += std::fabs(s * x) + std::fabs(c * y);   // an exchange rounds nothing
            a[i] = c * x + back * y, b[i] = c * y - s * x;
            p[i] = std::fabs(c) * most + std::fabs(back) * r[i], r[i] = std::fabs(c) * r[i] + std::fabs(s) * most;
        }
        for (int i = 0; i < d * d; i++) {
            const double x = A[i], y = B[i];
            A[i] = c * c * x + back * back * y, B[i] = s * s * x + c * c * y;
        }
        const double most = diffuse.hidden[first];
        diffuse.hidden[first] = std::fabs(c) * most + std::fabs(back) * diffuse.hidden[j];
        diffuse.hidden[j] = std::fabs(c) * diffuse.hidden[j] + std::fabs(s) * most;
        move_pair(&diffuse.start[first * diffuse.q], &diffuse.start[j * diffuse.q], diffuse.q, c, back, s);
        turn(first, j, c, back, s, angle_error);
    };
    const int clearest = direction_to_close(h, diffuse);
    if (clearest != first) {                                                 // the clearest one first: angles are exact
        move(clearest, 0.0, 1.0, 1.0, 0.0);
        std::swap(w[first], w[clearest]);
        std::swap(own[first], own[clearest]);
    }
    const double growth = growth_of(diffuse, first);
    for (int j = first + 1; j < diffuse.q; j++) {
        if (w[j] == 0.0 || growth_of(diffuse, j) != growth) continue;
        const double x = j == clearest ? -w[j] : w[j];                       // an exchange changed its sign
        const double length = std::hypot(w[first], x), c = w[first] / length, s = x / length;
        const double angle_error = RANK * EPS * (std::fabs(c) * own[j] + std::fabs(s) * own[first]) / length;
        own[first] = std::fabs(c) * own[first] + std::fabs(s) * own[j];
        w[first] = length, w[j] = 0.0;
        move(j, c, s, s, angle_error);
    }
    const double seen = w[first];
    const double* n = diffuse.direction(first);
    double *Pi = &diffuse.size[0], *half = &diffuse.moved[0];
    for (int j = first + 1; j < diffuse.q; j++) {
        double *m = diffuse.direction(j), *Omega = diffuse.error(j), *fresh = &diffuse.turned[j * d], left = 0.0;
        bool turned = false;
        for (int i = 0; i < d; i++) {
            turned = turned || fresh[i] != 0.0;
            left += h[i] * m[i];
        }
        auto add_late_error = [&] {                                         // n_j moves along n_1 with the time of the row
            const double late = shown_late(h, diffuse, j) / std::fabs(seen);
            if (late == 0.0) return;
            for (int i = 0; i < d; i++)
                for (int l = 0; l < d; l++) Omega[i * d + l] += late / RANK * n[i] * (late / RANK * n[l]);
            turn(first, j, 1.0, 0.0, 0.0, EPS * late);
        };
        if (!turned && own[j] == 0.0) {
            add_late_error();
            continue;
        }
        if (!(turned && diffuse.scaled)) {                                      // the shear
            for (int i = 0; i < d; i++) Omega[i * d + i] += fresh[i] * fresh[i], fresh[i] = 0.0;
            move(j, 1.0, 0.0, left / seen, turned ? 0.0 : RANK * EPS * own[j] / std::fabs(seen));
        }
        for (int i = 0; i < d; i++) {                                        // Pi_ii = sum_l n_l h_l / (h n), l != i
            double own = 0.0;
            for (int l = 0; l < d; l++) {
                if (l != i) own += h[l] * n[l];
                Pi[i * d + l] = -n[i] * h[l] / seen;
            }
            Pi[i * d + i] = own / seen;
        }
        multiply(Pi, Omega, half, d, d, d);                                  // Pi Omega Pi^T
        for (int i = 0; i < d * d; i++) Omega[i] = 0.0;
        add_product_t(half, Pi, 1.0, Omega, d, d, d);
        for (int i = 0; i < d; i++) Omega[i * d + i] += fresh[i] * fresh[i];
        add_late_error();
    }
    diffuse.first++;
    return seen;
}

}
}  // namespace afa
