// Matrix products for tiles that a cache holds: sums stay in registers.
//
// Where one factor is narrow (a head has 64 channels) and the product is used at once, copying operands for a
// general product costs as much as the product. Here B is laid out once as panels of contiguous rows, as wide
// as a few registers, and a product runs down all rows of A. Sources and targets do not overlap.
#pragma once
#include <algorithm>

#include "powers.h"

namespace afa {
inline namespace AFA_LEVEL {

// Rows whose sums are in registers together, and for what is left of them; vectors of a wide panel.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int WIDE_VECTORS = 4;
#else
constexpr int WIDE_VECTORS = 2;
#endif
constexpr int MANY_ROWS = 6, FEW_ROWS = 4, PAIR_ROWS = 3;
template <class T> constexpr int PANEL = WIDE_VECTORS * LANES<T>;

enum class Into { FRESH, ADD, INVERSE };   // C = A B, C += A B, C = 1 / (A B)

// R rows of C, V vectors of each: A[:, :depth] times a panel B (depth, V vectors).
template <class T, int R, int V, Into INTO>
AFA_INLINE void product_tile(const T* A, int64_t lda, const T* B, int64_t depth, T* C, int64_t ldc) {
    constexpr int N = LANES<T>;
    Wide<T> total[R][V];
    AFA_UNROLL
    for (int r = 0; r < R; r++)
        AFA_UNROLL
        for (int v = 0; v < V; v++) total[r][v] = INTO == Into::ADD ? load<N>(C + r * ldc + v * N) : Wide<T>{};
    for (int64_t k = 0; k < depth; k++) {
        Wide<T> right[V];
        AFA_UNROLL
        for (int v = 0; v < V; v++) right[v] = load<N>(B + (k * V + v) * N);
        AFA_UNROLL
        for (int r = 0; r < R; r++)
            AFA_UNROLL
            for (int v = 0; v < V; v++) total[r][v] += A[r * lda + k] * right[v];
    }
    AFA_UNROLL
    for (int r = 0; r < R; r++)
        AFA_UNROLL
        for (int v = 0; v < V; v++)
            store<N>(C + r * ldc + v * N, INTO == Into::INVERSE ? inverse<T>(total[r][v]) : total[r][v]);
}

// All rows of A: C (rows, V vectors) of a matrix with ldc columns.
template <class T, int V, Into INTO>
void product(const T* A, int64_t lda, int64_t rows, const T* B, int64_t depth, T* C, int64_t ldc) {
    int64_t i = 0;
    for (; i + MANY_ROWS <= rows; i += MANY_ROWS)
        product_tile<T, MANY_ROWS, V, INTO>(A + i * lda, lda, B, depth, C + i * ldc, ldc);
    if (rows - i >= FEW_ROWS) {
        product_tile<T, FEW_ROWS, V, INTO>(A + i * lda, lda, B, depth, C + i * ldc, ldc);
        i += FEW_ROWS;
    }
    for (; i < rows; i++) product_tile<T, 1, V, INTO>(A + i * lda, lda, B, depth, C + i * ldc, ldc);
}

// C_ij = |a_i - E_ij b_j|^2, or |b_j - E_ij a_i|^2 (LATE_ROW false), by differences: no cancellation of large
// products. The panel of E is where C goes: C holds E when it begins.
template <class T, int R, bool LATE_ROW>
AFA_INLINE void square_tile(const T* A, int64_t lda, const T* B, int64_t depth, T* C, int64_t ldc) {
    constexpr int N = LANES<T>, V = WIDE_VECTORS;
    Wide<T> total[R][V], E[R][V];
    AFA_UNROLL
    for (int r = 0; r < R; r++)
        AFA_UNROLL
        for (int v = 0; v < V; v++) total[r][v] = Wide<T>{}, E[r][v] = load<N>(C + r * ldc + v * N);
    for (int64_t k = 0; k < depth; k++)
        AFA_UNROLL
        for (int v = 0; v < V; v++) {
            const Wide<T> b = load<N>(B + (k * V + v) * N);
            AFA_UNROLL
            for (int r = 0; r < R; r++) {
                const Wide<T> step = LATE_ROW ? A[r * lda + k] - E[r][v] * b : b - E[r][v] * A[r * lda + k];
                total[r][v] += step * step;
            }
        }
    AFA_UNROLL
    for (int r = 0; r < R; r++)
        AFA_UNROLL
        for (int v = 0; v < V; v++) store<N>(C + r * ldc + v * N, total[r][v]);
}
template <class T, bool LATE_ROW>
void squares(const T* A, int64_t lda, int64_t rows, const T* B, int64_t depth, T* C, int64_t ldc) {
    int64_t i = 0;
    for (; i + PAIR_ROWS <= rows; i += PAIR_ROWS)
        square_tile<T, PAIR_ROWS, LATE_ROW>(A + i * lda, lda, B, depth, C + i * ldc, ldc);
    for (; i < rows; i++) square_tile<T, 1, LATE_ROW>(A + i * lda, lda, B, depth, C + i * ldc, ldc);
}

// out (panels, extra + d, PANEL) such that A out[q] = A M[q PANEL : (q + 1) PANEL].T for the rows of
// M = [outer (n, extra), scale_i points_i (n, d)]; zeros beyond its end.
template <class T>
void turn_into_panels(const T* outer, int64_t extra, const T* points, int64_t d, const T* scale, int64_t n, T* out) {
    constexpr int64_t w = PANEL<T>, block = 8;   // blocks of 8 x 8, so that neither side jumps
    for (int64_t begin = 0; begin < n; begin += w, out += (extra + d) * w) {
        const int64_t count = std::min(n - begin, w);
        for (int64_t k = 0; k < extra; k++)
            for (int64_t l = 0; l < count; l++) out[k * w + l] = outer[(begin + l) * extra + k];
        T* to = out + extra * w;
        for (int64_t l0 = 0; l0 < count; l0 += block)
            for (int64_t k0 = 0; k0 < d; k0 += block) {
                const int64_t l1 = std::min(l0 + block, count), k1 = std::min(k0 + block, d);
                if (l1 - l0 == block && k1 - k0 == block) {
                    T square[block][block];
                    for (int64_t l = 0; l < block; l++)
                        for (int64_t k = 0; k < block; k++)
                            square[k][l] = points[(begin + l0 + l) * d + k0 + k] * scale[begin + l0 + l];
                    for (int64_t k = 0; k < block; k++)
                        for (int64_t l = 0; l < block; l++) to[(k0 + k) * w + l0 + l] = square[k][l];
                } else
                    for (int64_t k = k0; k < k1; k++)
                        for (int64_t l = l0; l < l1; l++) to[k * w + l] = points[(begin + l) * d + k] * scale[begin + l];
            }
        for (int64_t k = 0; k < extra + d; k++)
            for (int64_t l = count; l < w; l++) out[k * w + l] = 0;
    }
}

// out (panels, depth, w): columns first, ..., stop - 1 of scale_i M_i (n, m); zeros beyond the last.
template <class T, int V>
void column_panels(const T* M, int64_t m, const T* scale, int64_t n, int64_t first, int64_t stop, T* out, int64_t depth) {
    constexpr int N = LANES<T>, w = V * N;
    for (int64_t begin = first; begin < stop; begin += w, out += depth * w)
        for (int64_t i = 0; i < n; i++)
            for (int64_t l = 0; l < w; l += N) {
                const int64_t left = std::clamp<int64_t>(stop - begin - l, 0, N);
                const Wide<T> row = left == 0 ? Wide<T>{} : load_some<N>(M + i * m + begin + l, static_cast<int>(left));
                store<N>(out + i * w + l, row * scale[i]);
            }
}

// Sum of products.
template <class T> T dot(const T* a, const T* b, int64_t n) {
    constexpr int N = LANES<T>;
    Wide<T> even = {}, odd = {};
    int64_t j = 0;
    for (; j + 2 * N <= n; j += 2 * N) {
        even += load<N>(a + j) * load<N>(b + j);
        odd += load<N>(a + j + N) * load<N>(b + j + N);
    }
    even += odd;
    T total = 0;
    for (int l = 0; l < N; l++) total += even[l];
    for (; j < n; j++) total += a[j] * b[j];
    return total;
}

}
}  // namespace afa
