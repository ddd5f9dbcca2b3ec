// The simulator's recursions. Both work in place on standard normal draws.
//
// Rows are overwritten from the last component to the first: a lower triangular root needs only draws
// that are still there, so that no scratch is needed. D, P: dimensions at compile time, 0: at run time.
#pragma once
#include <algorithm>

#include "array.h"

namespace afa {
inline namespace AFA_LEVEL {

constexpr int64_t PATHS_AT_ONCE = 4;   // none waits for what another of them has just written

// x_k = Phi x_{k-1} + psi + root w_k, entry which[k] of the tables; x[:, 0] holds the start, later rows w.
template <int D>
void propagate_paths(const Out<3>& x, const In<3>& Phi, const In<2>& psi, const In<3>& root, const Index<1>& which) {
    const int64_t n = x.shape[0], T = x.shape[1], d = D ? D : x.shape[2];
    for (int64_t first = 0; first < n; first += PATHS_AT_ONCE)
        for (int64_t k = 1; k < T; k++) {
            const double *F = Phi.data + which[k] * d * d, *L = root.data + which[k] * d * d, *b = psi.data + which[k] * d;
            for (int64_t i = first; i < std::min(first + PATHS_AT_ONCE, n); i++) {
                double* now = x.data + (i * T + k) * d;
                const double* before = now - d;
                for (int64_t a = d - 1; a >= 0; a--) {
                    double value = b[a];
                    for (int64_t c = 0; c <= a; c++) value += L[a * d + c] * now[c];
                    for (int64_t c = 0; c < d; c++) value += F[a * d + c] * before[c];
                    now[a] = value;
                }
            }
        }
}

inline void propagate(Out<3> x, In<3> Phi, In<2> psi, In<3> root, Index<1> which) {
    switch (x.shape[2]) {
    case 1: return propagate_paths<1>(x, Phi, psi, root, which);
    case 2: return propagate_paths<2>(x, Phi, psi, root, which);
    default: return propagate_paths<0>(x, Phi, psi, root, which);
    }
}

// z_k = C x[seen[k]] + offset + root v_k, entry which[k] of the tables; z holds v.
template <int P, int D>
void observe_paths(const Out<3>& z, const In<3>& x, const Index<1>& seen, const In<3>& C, const In<2>& offset,
                   const In<3>& root, const Index<1>& which) {
    const int64_t n = z.shape[0], T = z.shape[1], times = x.shape[1], p = P ? P : z.shape[2], d = D ? D : x.shape[2];
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < T; k++) {
            const double *H = C.data + which[k] * p * d, *L = root.data + which[k] * p * p, *b = offset.data + which[k] * p;
            double* now = z.data + (i * T + k) * p;
            const double* state = x.data + (i * times + seen[k]) * d;
            for (int64_t a = p - 1; a >= 0; a--) {
                double value = b[a];
                for (int64_t c = 0; c <= a; c++) value += L[a * p + c] * now[c];
                for (int64_t c = 0; c < d; c++) value += H[a * d + c] * state[c];
                now[a] = value;
            }
        }
}

inline void observe(Out<3> z, In<3> x, Index<1> seen, In<3> C, In<2> offset, In<3> root, Index<1> which) {
    const int64_t p = z.shape[2], d = x.shape[2];
    if (p == 1 && d == 1) observe_paths<1, 1>(z, x, seen, C, offset, root, which);
    else if (p == 1 && d == 2) observe_paths<1, 2>(z, x, seen, C, offset, root, which);
    else if (p == 2 && d == 2) observe_paths<2, 2>(z, x, seen, C, offset, root, which);
    else observe_paths<0, 0>(z, x, seen, C, offset, root, which);
}

}
}  // namespace afa
