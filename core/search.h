// Maxima of smooth functions: BFGS with a line search to the Wolfe conditions (Nocedal & Wright, Numerical Optimization, 2006,
// secs. 3.1, 3.5, 6.1), many searches side by side, each at its own pace.
//
// Functions are evaluated elsewhere: a search names a trial point, is told value and gradient there, and names the next.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "array.h"

namespace afa {
inline namespace AFA_LEVEL {

constexpr double LONGEST_STEP = 10.0;          // of a coordinate, in scaled units
constexpr double SUFFICIENT_INCREASE = 1e-3;   // c1 of the first Wolfe (Armijo) condition, f(x + a p) >= f(x) + c1 a g^T p
constexpr double CURVATURE_CONDITION = 0.9;    // c2 of the second, g(x + a p)^T p <= c2 g^T p
constexpr int TRIALS = 12, EXPANSIONS = 3;     // of a line search, and how many of them may fail the second condition alone

// Iterates (S, n) with value and gradient, trial points, scales and bounds of the coordinates, and what searches remember.
struct Searches {
    Out<2> theta;
    Out<1> value;
    Out<2> grad, trial;
    In<2> scale, lower, upper;
    Out<2> room;
    double tolerance;   // a search ends when g^T H g / 2 is at most this
    template <class Visit> void members(Visit&& visit) { visit(theta, value, grad, trial, scale, lower, upper, room, tolerance); }
};

// One search. H, the inverse of minus the Hessian in scaled units, is gamma W W^T + M.
struct Search {
    struct Tried {
        double alpha, gain, slope;   // step length; rise of f and directional derivative there
    };
    // The line search: the best step length so far, the one before, and the nearest that lies too far.
    struct Line {
        double alpha, increase, trials, iterations, value;
        Tried inner, former, outer;
    };
    static constexpr int64_t LINE = sizeof(Line) / sizeof(double);
    static int64_t size(int64_t n) { return LINE + 4 * n * (n + 1); }

    int64_t n;
    const double *scale, *lower, *upper;
    double *theta, *value, *grad, *trial;
    Line& line;
    double *H, *W, *M, *spare, *step, *best, *slope;   // step: direction; best, slope: point of line.inner, its gradient

    Search(const Searches& all, int64_t s)
        : n(all.theta.shape[1]), scale(all.scale.row(s)), lower(all.lower.row(s)), upper(all.upper.row(s)),
          theta(all.theta.row(s)), value(all.value.row(s)), grad(all.grad.row(s)), trial(all.trial.row(s)),
          line(*reinterpret_cast<Line*>(all.room.row(s))), H(all.room.row(s) + LINE), W(H + n * n), M(W + n * n),
          spare(M + n * n), step(spare + n * (n + 1)), best(step + n), slope(best + n) {}

    // Sets the first trial point along p = H g; false if there is no more than the tolerance to gain.
    bool aim(double tolerance) {
        for (int64_t i = 0; i < n; i++) {
            step[i] = 0.0;
            for (int64_t j = 0; j < n; j++) step[i] += H[i * n + j] * grad[j] * scale[j];
        }
        std::copy_n(H, n * n, spare);
        for (int64_t k = 0; k < n; k++) {                 // p_k = 0 at active bounds: the multiplier of k is eliminated
            if (grad[k] > 0 ? theta[k] < upper[k] : theta[k] > lower[k]) continue;
            for (int64_t i = 0; i < n; i++) {
                if (i == k) continue;
                const double share = spare[i * n + k] / spare[k * n + k];
                step[i] -= share * step[k];
                for (int64_t j = 0; j < n; j++) spare[i * n + j] -= share * spare[k * n + j];
            }
            for (int64_t i = 0; i < n; i++) spare[i * n + k] = spare[k * n + i] = 0.0;
            step[k] = 0.0;
        }
        double increase = 0.0, length = 0.0, largest = 0.0;
        for (int64_t i = 0; i < n; i++) {
            increase += step[i] * grad[i] * scale[i];
            length += step[i] * step[i];
            largest = std::max(largest, std::abs(step[i]));
        }
        if (!(increase > 2.0 * tolerance)) return false;
        const double reach = line.iterations == 0.0 ? 1.0 / std::sqrt(length) : LONGEST_STEP / largest;
        constexpr double far = std::numeric_limits<double>::infinity();
        line = {std::min(1.0, reach), increase, 0.0, line.iterations, *value, {0.0, 0.0, increase}, {}, {far, far, far}};
        move();
        return true;
    }
    void move() {
        for (int64_t i = 0; i < n; i++)
            trial[i] = std::min(std::max(theta[i] + line.alpha * step[i] * scale[i], lower[i]), upper[i]);
    }
    // The next step length: inside the bracket (inner, outer), or beyond inner where it is still open. Where the cubic through
    // two points and their slopes is largest (Nocedal & Wright, eq. 3.59).
    double cubic_step() const {
        const bool open = std::isinf(line.outer.alpha);
        const Tried &a = line.inner, &b = open ? line.former : line.outer;
        const double mean = a.slope + b.slope - 3.0 * (a.gain - b.gain) / (a.alpha - b.alpha);
        const double root = std::copysign(std::sqrt(mean * mean - a.slope * b.slope), b.alpha - a.alpha);
        const double top = b.alpha - (b.alpha - a.alpha) * (mean + root - b.slope) / (a.slope - b.slope + 2.0 * root);
        const double wide = open ? a.alpha : line.outer.alpha - a.alpha;
        const double wanted = std::isfinite(top) ? top : a.alpha + (open ? 3.0 : 0.1) * wide;
        return std::min(std::max(wanted, a.alpha + (open ? 0.1 : 0.01) * wide), a.alpha + (open ? 3.0 : 0.9) * wide);
    }
    // H <- (I - s y^T / s^T y) H (I - y s^T / s^T y) + s s^T / s^T y after a step s over which the gradient fell by y. The
    // first H, gamma I, has gamma = s^T y / y^T y of the last step, as limited memory has it (sec. 7.2), here with all steps.
    void update_inverse() {
        double *s = spare, *y = spare + n, sy = 0.0, yy = 0.0;
        for (int64_t i = 0; i < n; i++) {
            s[i] = (best[i] - theta[i]) / scale[i];
            y[i] = (grad[i] - slope[i]) * scale[i];
            sy += s[i] * y[i];
            yy += y[i] * y[i];
        }
        if (!(sy > 1e-10 * yy)) {                         // no positive curvature along s: lengthen the step
            for (int64_t i = 0; i < n * n; i++) H[i] *= 4.0;
            return;
        }
        const auto project = [&](double* X, int64_t row, int64_t column) {   // X <- (I - s y^T / s^T y) X
            for (int64_t j = 0; j < n; j++) {
                double x = 0.0;
                for (int64_t i = 0; i < n; i++) x += y[i] * X[i * row + j * column];
                for (int64_t i = 0; i < n; i++) X[i * row + j * column] -= s[i] * x / sy;
            }
        };
        project(W, n, 1);
        project(M, n, 1);
        project(M, 1, n);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                double x = 0.0;
                for (int64_t k = 0; k < n; k++) x += W[i * n + k] * W[j * n + k];
                H[i * n + j] = sy / yy * x + (M[i * n + j] += s[i] * s[j] / sy);
            }
    }
    // Takes f and its gradient g at the trial point. moved: there is a new iterate. Returns whether there is a new trial point.
    bool tell(double f, const double* g, double tolerance, uint8_t& moved) {
        double along = 0.0;
        for (int64_t i = 0; i < n; i++)
            if (trial[i] > lower[i] && trial[i] < upper[i]) along += g[i] * step[i] * scale[i];
        const Tried now = {line.alpha, f - *value, along};
        const bool up = now.gain > std::max(SUFFICIENT_INCREASE * now.alpha * line.increase, line.inner.gain);
        const bool more = !up || (line.trials < EXPANSIONS && along > CURVATURE_CONDITION * line.increase);
        if (up) {
            line.former = line.inner;
            line.inner = now;
            line.value = f;
            std::copy_n(trial, n, best);
            std::copy_n(g, n, slope);
        } else line.outer = now;
        if (more && ++line.trials < TRIALS) {
            line.alpha = cubic_step();
            move();
            return true;
        }
        if (line.inner.alpha == 0.0) return false;
        update_inverse();
        *value = line.value;
        std::copy_n(best, n, theta);
        std::copy_n(slope, n, grad);
        line.iterations += 1.0;
        moved = true;
        return aim(tolerance);
    }
    bool begin(double tolerance) {
        for (int64_t i = 0; i < n; i++) H[i * n + i] = W[i * n + i] = 1.0;
        return aim(tolerance);
    }
};

// Tells searches `which` value and gradient at their trial points; begin: none was named yet, room is 0. What each then is:
// going, with a new trial point, and moved to a new iterate. Returns whether `room` is as wide as `Search` has it.
inline bool search_on(Searches all, Index<1> which, bool begin, In<1> value, In<2> grad, View<uint8_t, 1> going,
                      View<uint8_t, 1> moved) {
    if (all.room.shape[1] != Search::size(all.theta.shape[1])) return false;
    for (int64_t k = 0; k < which.shape[0]; k++) {
        Search one(all, which[k]);
        moved[k] = false;
        going[k] = begin ? one.begin(all.tolerance) : one.tell(value[k], grad.row(k), all.tolerance, moved[k]);
    }
    return true;
}

}
}  // namespace afa
