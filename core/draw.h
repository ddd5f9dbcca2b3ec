// The simulator's recursions. Both work in place on standard normal draws.
//
// Rows are overwritten from the last component to the first: a lower triangular root needs only draws
// that are still there, so that no scratch is needed.
#pragma once
#include <algorithm>

#include "vec.h"

namespace afa {
inline namespace AFA_LEVEL {

constexpr int64_t PATHS_AT_ONCE = 4;   // none waits for what another of them has just written

// y_k = F x_k + b + root w_k, entry which[k] of the tables, for k >= first; y (n, T, rows) holds w, x(i, k) is what path i moves from.
template <class Source, class P, class D>
void draw(const Out<3>& y, int64_t first, const In<3>& F, const In<2>& b, const In<3>& root, const Index<1>& which, P p_, D d_, Source x) {
    const int64_t T = y.shape[1], p = p_, d = d_;
    for (int64_t start = 0; start < y.shape[0]; start += PATHS_AT_ONCE)
        for (int64_t k = first; k < T; k++) {
            const double *H = F.data + which[k] * p * d, *L = root.data + which[k] * p * p, *off = b.data + which[k] * p;
            for (int64_t i = start; i < std::min(start + PATHS_AT_ONCE, y.shape[0]); i++) {
                double* now = y.data + (i * T + k) * p;
                const double* before = x(i, k);
                for (int64_t a = p - 1; a >= 0; a--) {
                    double value = off[a];
                    for (int64_t c = 0; c <= a; c++) value += L[a * p + c] * now[c];
                    for (int64_t c = 0; c < d; c++) value += H[a * d + c] * before[c];
                    now[a] = value;
                }
            }
        }
}
// x_k = Phi x_{k-1} + psi + root w_k; x[:, 0] holds the start, later rows w.
inline void propagate(Out<3> x, In<3> Phi, In<2> psi, In<3> root, Index<1> which) {
    with_size(x.shape[2], [&](auto d) {
        draw(x, 1, Phi, psi, root, which, d, d, [&](int64_t i, int64_t k) { return x.data + (i * x.shape[1] + k - 1) * d; });
    });
}
// z_k = C x[seen[k]] + offset + root v_k; z holds v.
inline void observe(Out<3> z, In<3> x, Index<1> seen, In<3> C, In<2> offset, In<3> root, Index<1> which) {
    with_sizes(x.shape[2], z.shape[2], [&](auto d, auto p) {
        draw(z, 0, C, offset, root, which, p, d, [&](int64_t i, int64_t k) { return x.data + (i * x.shape[1] + seen[k]) * d; });
    });
}

}
}  // namespace afa
