// AFA with full matrices: least squares over the equations of all pairs, by orthogonal triangularisation.
//
// min_x sum_j s_ij |T_ij y_j - G_ij x|^2 for every query i (P. Racioppo, arXiv:2509.04154, section 4). The condition
// number is not squared, and the rank of the triangle tells what the data determine. Queries lie side by side in
// BUNDLEs: arrays end in an axis of that length. A pair's equation is kept as G (r, d) and then T (r, r).
#pragma once
#include "pairs.h"

namespace afa {
inline namespace AFA_LEVEL {

// Calls f with a compile-time dimension for small states: f(std::integral_constant<int, D>).
template <class F> void by_dimension(int64_t d, F&& f) {
    if constexpr (MANY_INSTANCES) {
        if (d == 2) return f(std::integral_constant<int, 2>());
        if (d == 4) return f(std::integral_constant<int, 4>());
    }
    return f(std::integral_constant<int, 0>());
}

using Unaligned = VecOf<double, W>::unaligned;   // a pack anywhere in memory

// Least squares in triangular form, R x = s: triangle (d + m, d) holds R^T above and the columns s of m data below.
template <int D> struct Triangle {
    static constexpr int MOST = 8;   // equations that wait to be rotated in together
    Size<D> d_;
    int pending = 0;
    Scratch<Pack, D * MOST> rows{d_ * MOST};   // (d, MOST): column c is the left side of equation c
    Scratch<Pack, D> head{d_}, beta{d_}, live{d_};
    Scratch<Pack, 2 * D * MOST> places{2 * d_ * MOST};   // gap and sign of the exchange with row a of the triangle, (d, 2, MOST)
    Scratch<char, D> exchanged{d_};            // whether there was one

    explicit Triangle(int64_t d) : d_(d) {}
    AFA_INLINE int dim() const { return d_; }

    // The left sides that wait become part of R; what the rotation was stays in rows, head, beta.
    AFA_INLINE void factor(Unaligned* triangle, int64_t stride) {
        const int d = dim();
        for (int a = 0; a < d; a++)
            for (int c = pending; c < MOST; c++) rows[a * MOST + c] = Pack{};
        each<D>(0, d, [&](int a) AFA_HERE {
            Pack* own = &rows[a * MOST];
            Pack sum_squares = sum_of<MOST, Pack>(0, MOST, [&](int c) AFA_HERE { return own[c] * own[c]; }), unit = spread<Pack>(1.0);
            Unaligned& entry = triangle[(a * d + a) * stride];
            exchanged[a] = !all_between(Pack(Pack(entry) * Pack(entry) - sum_squares), 0.0, HUGE_VAL);
            if (exchanged[a]) {
                pivot_rows(own, static_cast<int>(MOST), Pack(entry), [&](int c, Pack gap, Pack sign) {
                    places[2 * a * MOST + c] = gap, places[(2 * a + 1) * MOST + c] = sign;
                    if (!any_positive(gap)) return;
                    for (int b = a; b < d; b++) exchange(triangle[(b * d + a) * stride], rows[b * MOST + c], gap, sign);
                });
                sum_squares = sum_of<0, Pack>(0, MOST, [&](int c) AFA_HERE { return own[c] * own[c]; });
            }
            Pack pivot = entry;
            if (__builtin_expect(!all_between(Pack(pivot * pivot + sum_squares), LEAST_SQUARE, LARGEST_SQUARE), 0))
                unit = rescale_pivot(own, static_cast<int>(MOST), pivot, sum_squares);
            const Pack norm = root(Pack(pivot * pivot + sum_squares));
            head[a] = pivot + norm;
            live[a] = sum_squares;
            beta[a] = where_positive(sum_squares, Pack(1.0 / (norm * head[a])), Pack{});
            entry = norm * unit;
            each<D>(a + 1, d, [&](int b) AFA_HERE { rotate(triangle[(b * d + a) * stride], &rows[b * MOST], a); });
        });
    }
    AFA_INLINE void rotate(Unaligned& to, Pack* row, int a) {
        reflect<MOST>(to, row, &rows[a * MOST], Pack(head[a]), Pack(beta[a]), Pack(live[a]), static_cast<int>(MOST));
    }
    // The right sides of one data column follow; s: its d entries.
    AFA_INLINE void apply(Unaligned* s, int64_t stride, Pack* right) {
        each<D>(0, dim(), [&](int a) AFA_HERE {
            if (exchanged[a])
                for (int c = 0; c < MOST; c++)
                    exchange(s[a * stride], right[c], places[2 * a * MOST + c], places[(2 * a + 1) * MOST + c]);
            rotate(s[a * stride], right, a);
        });
    }
    // All that waits becomes part of R, and right(c, path), the right sides of equation c, of the m columns s.
    template <class Right> AFA_INLINE void flush(Unaligned* triangle, int64_t stride, int64_t m, Right&& right) {
        if (pending == 0) return;
        factor(triangle, stride);
        Pack sides[MOST];
        for (int64_t path = 0; path < m; path++) {
            for (int c = 0; c < MOST; c++) sides[c] = c < pending ? right(c, path) : Pack{};
            apply(triangle + (dim() + path) * dim() * stride, stride, sides);
        }
        pending = 0;
    }
};

// Estimates with weights 1, all data columns y (n, r, m) at once: triangle (bundles, d + m, d, BUNDLE), zeros at first.
template <int D>
void plain_part(const Flow& flow, const Channels& channels, const Queries& queries, bool reversed, const In<3>& y,
                const Out<4>& triangle) {
    PairRecursion<D> recursion(flow, channels, queries);
    Triangle<D> sum(recursion.dim());
    const int d = recursion.dim();
    const int64_t r = recursion.r, m = y.shape[2];
    constexpr int64_t STRIDE = BUNDLE / W;
    Scratch<Pack, 0> T(Triangle<D>::MOST * r);
    int64_t seen[Triangle<D>::MOST] = {};
    for (int64_t b = 0; b < triangle.shape[0]; b++)
        for (int64_t part = 0; part < STRIDE; part++) {
            Unaligned* here = reinterpret_cast<Unaligned*>(triangle.row(b)) + part;
            recursion.take(b * BUNDLE + part * W);
            const auto flush = [&] {
                sum.flush(here, STRIDE, m, [&](int c, int64_t path) {
                    Pack x = {};
                    for (int64_t e = 0; e < r; e++) x += T[c * r + e] * y.data[(seen[c] * r + e) * m + path];
                    return x;
                });
            };
            const auto equation = [&](int64_t j) {
                const int rank = static_cast<int>(channels.rank[j]);
                for (int a = 0; a < rank; a++) {
                    const int c = sum.pending++;
                    each<D>(0, d, [&](int k) AFA_HERE { sum.rows[k * Triangle<D>::MOST + c] = recursion.G[a * d + k]; });
                    for (int64_t e = 0; e < r; e++) T[c * r + e] = recursion.T[a * r + e];
                    seen[c] = j;
                    if (sum.pending == Triangle<D>::MOST) flush();
                }
            };
            recursion.sides(reversed, equation);
            flush();
        }
}

inline void plain_triangles(Flow flow, Channels channels, Queries queries, bool reversed, In<3> y, Out<4> triangle) {
    by_dimension(flow.rate.shape[0], [&](auto D) {
        plain_part<decltype(D)::value>(flow, channels, queries, reversed, y, triangle);
    });
}

// The equations of all pairs of these queries with the observations low, low + 1, ...: pairs (bundles, n, r (d + r), BUNDLE).
inline void pair_equations(Flow flow, Channels channels, Queries queries, bool reversed, int64_t low, Out<4> pairs) {
    by_dimension(flow.rate.shape[0], [&](auto D) {
        constexpr int dim = decltype(D)::value;
        constexpr int64_t STRIDE = BUNDLE / W;
        PairRecursion<dim> recursion(flow, channels, queries);
        const int64_t d = recursion.dim(), r = recursion.r, n = pairs.shape[1], numbers = pairs.shape[2];
        std::memset(pairs.data, 0, static_cast<size_t>(pairs.size()) * sizeof(double));
        for (int64_t b = 0; b < pairs.shape[0]; b++)
            for (int64_t part = 0; part < STRIDE; part++) {
                Unaligned* here = reinterpret_cast<Unaligned*>(pairs.row(b)) + part;
                recursion.take(b * BUNDLE + part * W);
                recursion.sides(reversed, [&](int64_t j) {
                    if (j < low || j >= low + n) return;
                    Unaligned* to = here + (j - low) * numbers * STRIDE;
                    for (int64_t i = 0; i < r * d; i++) to[i * STRIDE] += recursion.G[i];   // past and future: one of the two is zero
                    for (int64_t i = 0; i < r * r; i++) to[(r * d + i) * STRIDE] += recursion.T[i];
                });
            }
    });
}

// d2 (P, bundles, n, BUNDLE) = |T y - G a|^2 + sum_squares: y (P, n, r), sum_squares (P, n), anchors a (P, bundles, d, BUNDLE).
inline void pair_distances(In<4> pairs, In<3> y, In<2> sum_squares, In<4> anchor, Out<4> d2) {
    const int64_t n = pairs.shape[1], r = y.shape[2], d = anchor.shape[2], numbers = pairs.shape[2];
    constexpr int64_t STRIDE = BUNDLE / W;
    by_dimension(d, [&](auto D) {
        const Size<decltype(D)::value> dim(d);
        Scratch<Pack, decltype(D)::value> a(d);
        for (int64_t p = 0; p < y.shape[0]; p++)
            for (int64_t b = 0; b < pairs.shape[0]; b++)
                for (int64_t part = 0; part < STRIDE; part++) {
                    const int64_t at = p * pairs.shape[0] + b;
                    for (int k = 0; k < dim; k++) a[k] = load<W>(anchor.data + (at * d + k) * BUNDLE + part * W);
                    const double* equation = pairs.row(b) + part * W;
                    double* out = d2.data + at * n * BUNDLE + part * W;
                    for (int64_t j = 0; j < n; j++, equation += numbers * BUNDLE, out += BUNDLE) {
                        Pack total = spread<Pack>(sum_squares[p * n + j]);
                        for (int64_t i = 0; i < r; i++) {
                            Pack e = {};
                            for (int64_t l = 0; l < r; l++)
                                e += y.data[(p * n + j) * r + l] * load<W>(equation + (r * d + i * r + l) * BUNDLE);
                            for (int k = 0; k < dim; k++) e -= a[k] * load<W>(equation + (i * d + k) * BUNDLE);
                            total += e * e;
                        }
                        store<W>(out, total);
                    }
                }
    });
}

// Adds the equations root (T y = G x) of all pairs to triangle (P, bundles, (d + m) d, BUNDLE), with the same root
// (P, bundles, n, BUNDLE) for each of m data columns y (P, n, r, m).
inline void weighted_triangles(In<4> pairs, In<4> y, In<4> root, Out<4> triangle, int64_t d) {
    const int64_t n = pairs.shape[1], r = y.shape[2], m = y.shape[3], numbers = pairs.shape[2];
    constexpr int64_t STRIDE = BUNDLE / W;
    by_dimension(d, [&](auto D) {
        using Sum = Triangle<decltype(D)::value>;
        Sum sum(d);
        Pack weight[Sum::MOST] = {};
        const double *transform[Sum::MOST] = {}, *data[Sum::MOST] = {};
        for (int64_t p = 0; p < y.shape[0]; p++)
            for (int64_t b = 0; b < pairs.shape[0]; b++)
                for (int64_t part = 0; part < STRIDE; part++) {
                    const int64_t at = p * pairs.shape[0] + b;
                    Unaligned* to = reinterpret_cast<Unaligned*>(triangle.data + at * triangle.shape[2] * BUNDLE) + part;
                    const double* equation = pairs.row(b) + part * W;
                    const auto flush = [&] {
                        sum.flush(to, STRIDE, m, [&](int c, int64_t path) {
                            Pack x = {};
                            for (int64_t l = 0; l < r; l++) x += data[c][l * m + path] * load<W>(transform[c] + l * BUNDLE);
                            return Pack(x * weight[c]);
                        });
                    };
                    for (int64_t j = 0; j < n; j++, equation += numbers * BUNDLE) {
                        const Pack w = load<W>(root.data + (at * n + j) * BUNDLE + part * W);
                        for (int64_t i = 0; i < r; i++) {
                            const int c = sum.pending;
                            weight[c] = w;
                            transform[c] = equation + (r * d + i * r) * BUNDLE;
                            data[c] = y.row(p) + j * r * m;
                            for (int k = 0; k < sum.dim(); k++)
                                sum.rows[k * Sum::MOST + c] = w * load<W>(equation + (i * d + k) * BUNDLE);
                            if (++sum.pending == Sum::MOST) flush();
                        }
                    }
                    flush();
                }
    });
}

// Rows r of a pair's equation that is kept in r (d + r) numbers.
inline int64_t rows_of(int64_t numbers, int64_t d) {
    int64_t r = 1;
    while (r * (d + r) < numbers) r++;
    return r;
}

// |G X|^2 root^2 (P, bundles, n, BUNDLE): what each pair adds to tr X^T (sum of root^2 G^T G) X; X (P, bundles, d d, BUNDLE).
inline void pair_shares(In<4> pairs, In<4> X, In<4> root, Out<4> share, int64_t d) {
    const int64_t n = pairs.shape[1], numbers = pairs.shape[2], r = rows_of(numbers, d);
    for (int64_t p = 0; p < X.shape[0]; p++)
        for (int64_t b = 0; b < pairs.shape[0]; b++)
            for (int64_t j = 0; j < n; j++)
                for (int64_t part = 0; part < BUNDLE; part += W) {
                    const int64_t at = p * pairs.shape[0] + b;
                    const double* G = pairs.row(b) + j * numbers * BUNDLE + part;
                    const double* x = X.data + at * d * d * BUNDLE + part;
                    Pack total = {};
                    for (int64_t i = 0; i < r; i++)
                        for (int64_t c = 0; c < d; c++) {
                            Pack e = {};
                            for (int64_t k = 0; k < d; k++)
                                e += load<W>(G + (i * d + k) * BUNDLE) * load<W>(x + (k * d + c) * BUNDLE);
                            total += e * e;
                        }
                    const Pack w = load<W>(root.data + (at * n + j) * BUNDLE + part);
                    store<W>(share.data + (at * n + j) * BUNDLE + part, Pack(total * w * w));
                }
}

// log det^{1/r} of the information on x of each pair (the product of its nonzero eigenvalues), with G in units
// (bundles, d, BUNDLE) of its states and turned to x: log|G unit W^-1| row by row, by Gram-Schmidt.
inline void pair_log_dets(In<4> pairs, In<3> unit, In<2> inverse, Index<1> rank, Out<3> logs) {
    const int64_t n = pairs.shape[1], numbers = pairs.shape[2], d = inverse.shape[0], r = rows_of(numbers, d);
    Scratch<Pack, 0> row(r * d);
    for (int64_t b = 0; b < pairs.shape[0]; b++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t part = 0; part < BUNDLE; part += W) {
                const double* G = pairs.row(b) + j * numbers * BUNDLE + part;
                Pack sum = {};
                for (int64_t a = 0; a < rank[j]; a++) {
                    for (int64_t c = 0; c < d; c++) {
                        Pack x = {};
                        for (int64_t k = 0; k < d; k++)
                            x += load<W>(G + (a * d + k) * BUNDLE) * load<W>(unit.row(b) + k * BUNDLE + part) * inverse[k * d + c];
                        row[a * d + c] = x;
                    }
                    for (int64_t e = 0; e < 2 * a; e++) {   // all rows before, twice
                        const int64_t before = e % a;
                        Pack dot = {}, square = {};
                        for (int64_t c = 0; c < d; c++) {
                            dot += row[before * d + c] * row[a * d + c];
                            square += row[before * d + c] * row[before * d + c];
                        }
                        dot = where_positive(square, Pack(dot / square), Pack{});
                        for (int64_t c = 0; c < d; c++) row[a * d + c] -= dot * row[before * d + c];
                    }
                    Pack square = {};
                    for (int64_t c = 0; c < d; c++) square += row[a * d + c] * row[a * d + c];
                    for (int l = 0; l < W; l++) sum[l] += std::log(square[l]);
                }
                store<W>(logs.data + (b * n + j) * BUNDLE + part, Pack(sum / static_cast<double>(rank[j])));
            }
}

}
}  // namespace afa
