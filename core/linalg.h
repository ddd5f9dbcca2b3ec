// Small dense matrices: columns at work in registers, orthogonal triangularisation, Cholesky, products.
#pragma once
#include "vec.h"

namespace afa {
inline namespace AFA_LEVEL {

// f(), in place where SIZE is known when compiled. Else a function of its own, one for all who call the text around it.
template <class F> __attribute__((noinline)) auto apart(F&& f) { return f(); }
template <int SIZE, class F> AFA_INLINE auto apart_unless_known(F&& f) {
    if constexpr (SIZE > 0) return f();
    else return apart(f);
}

// COLUMNS columns of ROWS entries (0: known at run time), each padded to whole packs, zeros beyond.
//
// Number = double: a pack holds W entries of one column, so that what happens to a column happens to W of
// its entries at a time. Number = a vector: entry by entry, for as many matrices side by side as it has lanes.
template <class Number> constexpr int pack_width(int rows) {
    const int wanted = rows == 0 ? 8 : rows == 1 ? 1 : rows == 2 ? 2 : rows <= 4 ? 4 : 8;
    return !std::is_same_v<Number, double> ? 1 : wanted < LANES<double> ? wanted : LANES<double>;
}
template <int COLUMNS, int ROWS, class Number_ = double, int W_ = pack_width<Number_>(ROWS)> struct Columns {
    using Number = Number_;
    static constexpr bool ALONE = std::is_same_v<Number, double>;
    static constexpr int W = W_;
    using Pack = std::conditional_t<ALONE, Vec<double, W>, Number>;
    using Shared = std::conditional_t<ALONE, Vec<double, W>, double>;   // a pack of what all lanes share
    static constexpr int BLOCKS = ROWS == 0 ? 0 : (ROWS + W - 1) / W;
    typedef double Plain __attribute__((may_alias));                     // an entry of a pack in memory

    Size<BLOCKS> blocks_;
    Scratch<Pack, COLUMNS * BLOCKS> packs;

    Columns(int columns, int rows) : blocks_((rows + W - 1) / W), packs(columns * ((rows + W - 1) / W)) {}
    AFA_INLINE int blocks() const { return blocks_; }
    AFA_INLINE Pack& operator()(int c, int b) { return packs[c * blocks() + b]; }
    AFA_INLINE const Pack& operator()(int c, int b) const { return packs[c * blocks() + b]; }
    AFA_INLINE Number at(int c, int i) const {
        if constexpr (W == 1) return packs[c * blocks() + i];
        else if constexpr (BLOCKS == 0) return reinterpret_cast<const Plain*>(&packs[0])[c * blocks() * W + i];
        else return packs[c * blocks() + i / W][i % W];
    }
    AFA_INLINE void set(int c, int i, Number x) {
        if constexpr (W == 1) packs[c * blocks() + i] = x;
        else if constexpr (BLOCKS == 0) reinterpret_cast<Plain*>(&packs[0])[c * blocks() * W + i] = x;
        else packs[c * blocks() + i / W][i % W] = x;
    }
    // Block b of n entries that lie in memory side by side: numbers that all lanes share, or (W = 1) one for each lane.
    template <class T> static AFA_INLINE auto read(const T* p, int b, int n) {
        if constexpr (std::is_same_v<T, double>) return load_some<W>(p + b * W, n - b * W);
        else return b < n ? p[b] : T{};
    }
};

// The same columns entry by entry, however they are packed: what happens rarely is compiled once for all shapes.
template <class Number_> struct Entries {
    using Number = Number_;
    using Pack = Number;
    static constexpr int W = 1, BLOCKS = 0;
    typedef Number Plain __attribute__((may_alias));

    Plain* first;
    int rows;
    template <class C> explicit Entries(C& A) : first(reinterpret_cast<Plain*>(&A.packs[0])), rows(A.blocks() * C::W) {}
    AFA_INLINE int blocks() const { return rows; }
    AFA_INLINE Plain& operator()(int c, int i) const { return first[c * rows + i]; }
    AFA_INLINE Number at(int c, int i) const { return first[c * rows + i]; }
};

// f(Group<G>, b) for the blocks b = begin, ..., end - 1 of columns, G of them at a time: sums of several blocks do not
// wait for each other, and what multiplies them is fetched once. BLOCKS: their number where it is known, else 0.
template <int G> struct Group {
    static constexpr int COUNT = G;
};
template <int BLOCKS, class F> AFA_INLINE void in_groups(int begin, int end, F&& f) {
    if constexpr (BLOCKS > 0) {
        AFA_UNROLL
        for (int b = begin; b < end; b++) f(Group<1>(), b);
    } else {
        int b = begin;
        for (; b + 1 < end; b += 2) f(Group<2>(), b);
        if (b < end) f(Group<1>(), b);
    }
}

// Sums of squares beyond this range have lost digits, or all of them.
constexpr double LEAST_SQUARE = 0x1p-900, LARGEST_SQUARE = 0x1p+900;

// One reflection of `triangularise`, which makes row j = (done | v) of A lower triangular, in units of a power of two. BLOCKS: as
// the columns have, where loops shall be unrolled, else 0. With CHECKED nothing is done, and false said, where squares lose digits.
template <int BLOCKS, bool CHECKED, class C, class S>
AFA_INLINE bool reflect(C& A, S& v, int j, int end, double tiny, typename C::Number unit) {
    using Number = typename C::Number;
    using Pack = typename C::Pack;
    constexpr int W = C::W;
    const Number zero = spread<Number>(0.0), one = spread<Number>(1.0);
    const auto squares = [&](int begin, int stop) AFA_HERE {
        Number total = zero;
        each<BLOCKS>(begin, stop, [&](int c) AFA_HERE {
            v[c] = A.at(c, j) / unit;
            total += v[c] * v[c];
        });
        return total;
    };
    const int middle = (j + end) / 2;                               // neither half waits for the other
    const Number done = squares(0, j), sigma = squares(j, middle) + squares(middle, end);
    if (CHECKED && __builtin_expect(!all_between(Number(done + sigma), LEAST_SQUARE, LARGEST_SQUARE), 0)) return false;
    const Number pivot = sigma - (tiny * tiny) * (done + sigma);
    const Number norm = where_positive(pivot, root(sigma), zero);
    const Number flip = where_positive(Number(v[j]), one, -one);
    const Number first = v[j] + flip * norm;                        // u_j
    const Number beta = where_positive(pivot, 1.0 / (sigma + norm * magnitude(Number(v[j]))), zero);
    in_groups<BLOCKS>(j / W, A.blocks(), [&](auto group, int b) AFA_HERE {   // rows above are zero from column j on
        constexpr int G = decltype(group)::COUNT;
        Pack head[G], dots[G];
        AFA_UNROLL
        for (int g = 0; g < G; g++) {
            head[g] = A(j, b + g);
            dots[g] = Pack{};
        }
        each<BLOCKS>(j + 1, end, [&](int c) AFA_HERE {
            AFA_UNROLL
            for (int g = 0; g < G; g++) dots[g] += v[c] * A(c, b + g);
        });
        AFA_UNROLL
        for (int g = 0; g < G; g++) {
            dots[g] = beta * (dots[g] + first * head[g]);
            if (b + g == j / W) {                                   // row j: exactly (norm, 0, 0, ...)
                if constexpr (W == 1) dots[g] = unit;
                else dots[g] = with_lane(dots[g], j % W, unit);
            }
            A(j, b + g) = flip * (first * dots[g] - head[g]);
        }
        each<BLOCKS>(j + 1, end, [&](int c) AFA_HERE {
            AFA_UNROLL
            for (int g = 0; g < G; g++) A(c, b + g) -= v[c] * dots[g];
        });
    });
    return true;
}
// The same where squares lose digits: in units of the row's largest entry.
template <class Number> __attribute__((noinline, cold)) void reflect_in_units(Entries<Number> A, Number* v, int j, int end, double tiny) {
    Number largest = spread<Number>(0x1p-1022);
    for (int c = 0; c < end; c++) largest = larger(largest, magnitude(A.at(c, j)));
    double power[lanes_of<Number>];
    for (int l = 0; l < lanes_of<Number>; l++) {
        const double x = lane(largest, l);
        power[l] = x < 0x1p+1000 ? std::ldexp(1.0, std::ilogb(x)) : 0x1p+1000;
    }
    reflect<0, false>(A, v, j, end, tiny, load<lanes_of<Number>>(power));
}

// A <- A Theta, Theta orthogonal, so that the first `rows` rows are lower triangular with pivots >= 0.
//
// Householder reflections of columns (Golub & Van Loan, section 5.1; as array form of Kalman filters:
// Kaminski, Bryson & Schmidt 1971). Row j = (done | v) becomes (done | norm, 0, ...): with
// u = v + sign(v_j) |v| e_j, beta = 2 / u^T u, every row a <- a - beta (a u) u. Later rows take part. A row
// that depends on those above it (|v| within rounding of the whole row) has the pivot 0. width: columns of A;
// row j is zero from column bandwidth + j + 1 on (bandwidth = width: nothing is). v: width numbers of work space.
template <class C, class S, class Rows, class Width, class Bandwidth>
AFA_INLINE void triangularise(C& A, S& v, Rows rows, Width width, Bandwidth bandwidth) {
    using Number = typename C::Number;
    const double tiny = 8 * width * EPS;
    each<C::BLOCKS>(0, rows, [&](int j) AFA_HERE {
        const int end = width < bandwidth + j + 1 ? width : bandwidth + j + 1;
        std::conditional_t<(C::BLOCKS > 0), S, S&> row(v);   // in registers, where it can be
        const bool regular = reflect<C::BLOCKS, true>(A, row, j, end, tiny, spread<Number>(1.0));
        if (__builtin_expect(!regular, 0)) reflect_in_units(Entries<Number>(A), &v[0], j, end, tiny);
    });
}

// out (columns, n) <- entries row, ..., row + n - 1 of the columns first, first + 1, ... of A.
template <class C, class M, class N>
AFA_INLINE void write_columns(const C& A, int first, int row, double* out, M columns, N n) {
    each<C::BLOCKS>(0, columns, [&](int c) { each<C::BLOCKS>(0, n, [&](int i) { out[c * n + i] = A.at(first + c, row + i); }); });
}
// The first columns of A <- those given (columns, n), zeros below.
template <class C, class M, class N> AFA_INLINE void read_columns(const double* given, C& A, M columns, N n) {
    const int blocks = A.blocks();
    each<C::BLOCKS>(0, columns, [&](int c) { each<C::BLOCKS>(0, blocks, [&](int b) { A(c, b) = C::read(given + c * n, b, n); }); });
}

// P (n, n) = L L^T, L the first `columns` columns of A.
template <class C, class N, class M> AFA_INLINE void gram(const C& A, double* P, N n, M columns) {
    constexpr int W = C::W;
    each<C::BLOCKS>(0, n, [&](int i) {
        in_groups<C::BLOCKS>(0, (n + W - 1) / W, [&](auto group, int b) {
            constexpr int G = decltype(group)::COUNT;
            typename C::Pack x[G] = {};
            each<C::BLOCKS>(0, columns, [&](int c) {
                AFA_UNROLL
                for (int g = 0; g < G; g++) x[g] += A.at(c, i) * A(c, b + g);
            });
            AFA_UNROLL
            for (int g = 0; g < G; g++) store_some<W>(P + i * n + (b + g) * W, x[g], n - (b + g) * W);
        });
    });
}

// t, G blocks of a column from block b on, += M x, M by columns (columns, rows) in memory; x(j) for j >= begin.
template <int G, class C, class M, class X>
AFA_INLINE void add_columns(typename C::Pack (&t)[G], const M* matrix, int b, int rows, int begin, int columns, X&& x) {
    if (C::BLOCKS == 0 && (b + G) * C::W <= rows) {   // whole blocks: nothing to be masked
        const M* from = matrix + b * C::W;
        for (int j = begin; j < columns; j++)
            AFA_UNROLL
            for (int g = 0; g < G; g++) {
                const auto whole = load<C::W>(from + j * rows + g * C::W);
                t[g] += x(j) * whole;
            }
        return;
    }
    each<C::BLOCKS>(begin, columns, [&](int j) {
        AFA_UNROLL
        for (int g = 0; g < G; g++) t[g] += x(j) * C::read(matrix + j * rows, b + g, rows);
    });
}

// Column c of out <- M x, M and x as above.
template <class C, class X>
AFA_INLINE void put_product(C& out, int c, const double* matrix, int rows, int begin, int columns, X&& x) {
    in_groups<C::BLOCKS>(0, (rows + C::W - 1) / C::W, [&](auto group, int b) {
        constexpr int G = decltype(group)::COUNT;
        typename C::Pack t[G] = {};
        add_columns<G, C>(t, matrix, b, rows, begin, columns, x);
        AFA_UNROLL
        for (int g = 0; g < G; g++) out(c, b + g) = t[g];
    });
}

// ---------------------------------------------------------------- matrices by rows, as NumPy keeps them (T: double, or a vector: side by side)

// out_ij = sum_k term(i, k, j): sums in registers where all sizes are known, else by whole rows of out.
template <class T, class N, class M, class C, class Term> AFA_INLINE void sum_products(T* out, N n, M m, C c, Term&& term) {
    if constexpr (known<N> > 0 && known<M> > 0 && known<C> > 0)
        fill<known<N>, known<C>>(out, n, c, [&](int i, int j) AFA_HERE {
            return sum_of<known<M>, T>(0, m, [&](int k) AFA_HERE { return term(i, k, j); });
        });
    else
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < c; j++) out[i * c + j] = T{};
            for (int k = 0; k < m; k++)
                for (int j = 0; j < c; j++) out[i * c + j] += term(i, k, j);
        }
}
// out (n, c) = a (n, m) b (m, c); out overlaps neither.
template <class T, class N, class M, class C> AFA_INLINE void multiply(const T* a, const T* b, T* out, N n, M m, C c) {
    sum_products(out, n, m, c, [&](int i, int k, int j) AFA_HERE { return a[i * m + k] * b[k * c + j]; });
}
// out (n, c) = a^T b, a (m, n), b (m, c).
template <class T, class N, class M, class C> AFA_INLINE void t_multiply(const T* a, const T* b, T* out, N n, M m, C c) {
    sum_products(out, n, m, c, [&](int i, int k, int j) AFA_HERE { return a[k * n + i] * b[k * c + j]; });
}
// out (n, c) += scale a (n, m) b^T, b (c, m).
template <class T, class N, class M, class C>
AFA_INLINE void add_product_t(const T* a, const T* b, double scale, T* out, N n, M m, C c) {
    each<known<N>>(0, n, [&](int i) AFA_HERE {
        each<known<C>>(0, c, [&](int j) AFA_HERE {
            out[i * c + j] += scale * sum_of<known<M>, T>(0, m, [&](int k) AFA_HERE { return a[i * m + k] * b[j * m + k]; });
        });
    });
}

// Lower Cholesky factor of s (n, n), which may be `root` itself, and log|s|; the upper triangle of `root` is
// left alone. NaN where a pivot is not above least s_ii (Golub & Van Loan, section 4.2).
template <class N> AFA_INLINE double cholesky(const double* s, double least, double* root, N n) {
    double logdet = 0.0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            const double whole = s[i * n + j];
            double x = whole;
            for (int k = 0; k < j; k++) x -= root[i * n + k] * root[j * n + k];
            if (i != j) {
                root[i * n + j] = x / root[j * n + j];
                continue;
            }
            if (!(x > least * whole)) return NAN;
            root[i * n + i] = std::sqrt(x);
            logdet += std::log(x);
        }
    return logdet;
}
// x <- L^-1 x and x <- L^-T x for columns x (n, m) and lower triangular L (n, n).
template <class N, class M> AFA_INLINE void solve_lower(const double* L, double* x, N n, M m) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            double t = x[i * m + j];
            for (int k = 0; k < i; k++) t -= L[i * n + k] * x[k * m + j];
            x[i * m + j] = t / L[i * n + i];
        }
}
template <class N, class M> AFA_INLINE void solve_lower_t(const double* L, double* x, N n, M m) {
    for (int i = n - 1; i >= 0; i--)
        for (int j = 0; j < m; j++) {
            double t = x[i * m + j];
            for (int k = i + 1; k < n; k++) t -= L[k * n + i] * x[k * m + j];
            x[i * m + j] = t / L[i * n + i];
        }
}

}
}  // namespace afa
