// Robust attention of one head in one direction of time, by running sums over tiles; and its pairs one by one.
//
// For a query i, a key j and tau = |t_i - t_j|, with E = e^{-mu tau} and V(tau) = sigma^2 (1 - E^2) / (2 mu),
// the sides of a pair are "late" and "early":
//
//     S   = V(tau) + var_late + E^2 var_early            |R|^2 = |x_late - E x_early|^2
//     W   = S^-beta w(|R|^2 / S)^beta                    (x in the co-rotating frame)
//
// Causal pairs have the query late; so have acausal ones with the symmetric decay. Exact acausal pairs have
// the key late, and a factor E^{2 beta} in the denominator and E^{2 beta} / E_v in the numerator, because there
// S and R carry E^-2 and the value E_v^-1: combined, nothing overflows.
//
// Distances of query a and of key b from a reference time between them make every factor separable,
//     E = e_a e_b,   V(a + b) = V(a) + e_a^2 V(b),   |R|^2 = |x_late|^2 + E^2 |x_early|^2 - 2 E <x_late, x_early>,
// so X = S + |R|^2 / nu is one matrix product and w = (S / X)^kappa. Where that product would lose digits,
// differences are taken instead. Tiles that the diagonal crosses have keys with b < 0; blocks of queries are
// so short that their factors stay in range and exact. Source: arXiv:2509.04154, isotropic case.
#pragma once
#include <cfloat>
#include <cmath>
#include <tuple>

#include "array.h"
#include "panels.h"

namespace afa {
inline namespace AFA_LEVEL {

// One direction of time: the model, the noises of a pair's late and early side, the power law
// w = (1 + d2/scale)^-exponent (exponent 1 and no channels: w = 1), and the inverse temperature.
struct Dynamics {
    double decay, value_decay, process_var, var_late, var_early, scale, exponent, beta;
    bool causal, query_late;
    template <class Visit> void members(Visit&& visit) {
        visit(decay, value_decay, process_var, var_late, var_early, scale, exponent, beta, causal, query_late);
    }

    // V(tau)
    double growth(double tau) const {
        return decay < 1e-200 ? process_var * tau : process_var * (-std::expm1(-2.0 * decay * tau) / (2.0 * decay));
    }
    Wide<double> growth(Wide<double> tau) const {
        return decay < 1e-200 ? process_var * tau : one_minus_exp(2.0 * decay * tau) * (process_var / (2.0 * decay));
    }
    // S(tau)
    double variance(double tau) const { return growth(tau) + var_late + var_early * std::exp(-2.0 * decay * tau); }
    // The least S of some lags: it is monotone, so at an end.
    double least(double shortest, double longest) const { return std::min(variance(shortest), variance(longest)); }
    // Decay rates of weights and of weighted values beyond W.
    double weight_rate() const { return query_late ? 0.0 : 2.0 * beta * decay; }
    double value_rate() const { return query_late ? value_decay : 2.0 * beta * decay - value_decay; }
};

// Rounding that a product may lose of S + |R|^2 / nu before differences are taken, and the largest exponent of a
// factor.
template <class T> constexpr double LOST = sizeof(T) == 8 ? 1e-11 : 5e-5;
template <class T> constexpr double REACH = 0.4 * (sizeof(T) == 8 ? 709.0 : 88.0);
template <class T> constexpr double EPSILON = sizeof(T) == 8 ? DBL_EPSILON : static_cast<double>(FLT_EPSILON);
template <class T> constexpr double SMALLEST = sizeof(T) == 8 ? DBL_MIN : static_cast<double>(FLT_MIN);

constexpr size_t CACHE_LINE = 64;
constexpr int64_t STRIP = 256;    // keys of a strip: the caches hold them, their values and their weights
constexpr int64_t SUMMED = 1024;  // keys whose sums are added up in the numbers' own type
constexpr int64_t CHUNK = 48;     // queries that go through a strip together
constexpr int64_t BAND = 1024;    // queries that share the panels made of a strip

// e^{-mu s}, e^{-2 mu s}, V(s) and two more decays at distances s.
struct Factors {
    double e, e2, growth, weight, value;
};

// The factors at distances s; `lead` (or null) is the part of the distance that the last two leave out.
inline void make_factors(const Dynamics& model, const double* s, const double* lead, int64_t n, double tiny, Factors* out) {
    constexpr int N = LANES<double>;
    const double mu = model.decay, weight = model.weight_rate(), value = model.value_rate();
    for (int64_t i = 0; i < n; i += N) {
        const int left = static_cast<int>(std::min<int64_t>(N, n - i));
        const Wide<double> at = load_some<N>(s + i, left), rest = lead ? at - load_some<N>(lead + i, left) : at;
        const Wide<double> one = spread<Wide<double>>(1.0), e_raw = mu == 0.0 ? one : exp(-mu * at);
        const Wide<double> e = e_raw < spread<Wide<double>>(tiny) ? Wide<double>{} : e_raw;
        const Wide<double> growth = model.growth(at);
        const Wide<double> w = weight == 0.0 ? one : exp(-weight * rest), v = value == 0.0 ? one : exp(-value * rest);
        for (int l = 0; l < left; l++) out[i + l] = {e[l], e[l] * e[l], growth[l], w[l], v[l]};
    }
}

// |x_i|^2 of rows (n, d).
template <class T> void squared_lengths(const T* x, int64_t n, int64_t d, T* out) {
    for (int64_t i = 0; i < n; i++) out[i] = dot(x + i * d, x + i * d, d);
}

// ---------------------------------------------------------------- weights of a row

enum class Law { INVERSE, STEEP, GENERAL };

// (S^{exponent - 1} / X^exponent)^beta
template <class T, Law LAW> AFA_INLINE Wide<T> weight(Wide<T> X, Wide<T> S, T exponent, T beta) {
    if constexpr (LAW == Law::INVERSE) return inverse<T>(X);
    else if constexpr (LAW == Law::STEEP) {
        const Wide<T> over = inverse<T>(X);
        return exp2<T>((exponent - T(1)) * log2<T>(S * over)) * over;
    } else return exp2<T>(beta * ((exponent - T(1)) * log2<T>(S) - exponent * log2<T>(X)));
}

// X (n) becomes its weights; S = late + early second. Several vectors at a time: long chains need not wait.
template <class T, Law LAW> void weigh(T* X, int64_t n, T late, T early, const T* second, T exponent, T beta) {
    constexpr int N = LANES<T>, SEVERAL = 4;
    int64_t j = 0;
    for (; j + SEVERAL * N <= n; j += SEVERAL * N) {
        Wide<T> w[SEVERAL];
        AFA_UNROLL
        for (int u = 0; u < SEVERAL; u++)
            w[u] = weight<T, LAW>(load<N>(X + j + u * N), late + early * load<N>(second + j + u * N), exponent, beta);
        AFA_UNROLL
        for (int u = 0; u < SEVERAL; u++) store<N>(X + j + u * N, w[u]);
    }
    for (; j < n; j += N) {
        const int left = static_cast<int>(std::min<int64_t>(N, n - j));
        const Wide<T> S = late + early * load_some<N>(second + j, left);
        store_some<N>(X + j, weight<T, LAW>(load_some<N>(X + j, left), S, exponent, beta), left);
    }
}

// ---------------------------------------------------------------- running sums

// What a call reads and where its sums go. Row i sees keys low_i, ..., high_i - 1; neither decreases with i.
template <class T> struct Pairs {
    View<const T, 2> q, k, v, known;   // (B, d), (N, d), (N, m), (N, h): which of h groups of paths a key serves
    In<1> t_query, t;
    Index<1> low, high;
    In<1> lead;                        // (B,) distance that decays leave out
    Out<2> num, den;                   // (B, m), (B, max(h, 1))
    template <class Visit> void members(Visit&& visit) { visit(q, k, v, known, t_query, t, low, high, lead, num, den); }
};

// Work space of a call with at most so many rows: one block of memory, laid out by `lay_out`.
template <class T> struct Workspace {
    int64_t rows, c, m, h, wide, narrow, ldp;   // c: columns of X; values in wide and narrow panels, ldp of them in all
    T *columns, *late, *early, *queries, *part;                                    // of queries
    T *turned, *left, *right, *W, *outer, *second, *scale, *fade, *mass, *lengths;  // of a strip
    double* distance;
    Factors *row, *key;
    char* memory = nullptr;

    template <class Place> void lay_out(Place place) {
        place(columns, rows * c), place(late, rows), place(early, rows), place(queries, rows), place(part, rows * ldp);
        place(turned, STRIP * c), place(left, wide * STRIP * PANEL<T>), place(right, narrow * STRIP * LANES<T>);
        place(W, CHUNK * STRIP), place(outer, STRIP * 4), place(second, STRIP), place(scale, STRIP);
        place(fade, STRIP), place(mass, STRIP), place(lengths, STRIP);
        place(distance, std::max(rows, STRIP)), place(row, rows), place(key, STRIP);
    }
    Workspace(const Pairs<T>& p, const Dynamics& model, int64_t most)
        : rows(most), c((model.query_late ? 2 : 4) + p.q.shape[1]), m(p.v.shape[1]), h(p.known.shape[1]),
          wide(m / PANEL<T>), narrow((m - wide * PANEL<T> + LANES<T> - 1) / LANES<T>),
          ldp(wide * PANEL<T> + narrow * LANES<T>) {
        size_t total = CACHE_LINE;
        lay_out([&](auto*& pointer, int64_t n) { total += room(n, sizeof(*pointer)); });
        memory = static_cast<char*>(std::malloc(total));
        if (!memory) return;
        char* at = memory + (CACHE_LINE - reinterpret_cast<uintptr_t>(memory) % CACHE_LINE);
        lay_out([&](auto*& pointer, int64_t n) {
            pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(at);
            at += room(n, sizeof(*pointer));
        });
        std::fill(part, part + rows * ldp, T(0));
    }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    ~Workspace() { std::free(memory); }
    static size_t room(int64_t n, size_t item) { return (static_cast<size_t>(n) * item + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE; }
};

// Rows [first, first + rows) of a call against their keys, all from one reference time.
template <class T> struct Block {
    const Pairs<T>& p;
    const Dynamics& model;
    Workspace<T>& space;
    int64_t first, rows;
    double reference, longest;   // greatest distance of a query
    double far;                  // greatest |q|^2
    int64_t from, to;            // rows that still want keys

    double gap(int64_t j) const { return model.causal ? reference - p.t[j] : p.t[j] - reference; }
};

// Columns of the queries: products with those of the keys are X.
template <class T> void prepare_queries(Block<T>& b) {
    Workspace<T>& s = b.space;
    const Dynamics& model = b.model;
    const int64_t d = b.p.q.shape[1], extra = s.c - d;
    const double over = 1.0 / model.scale;
    b.longest = b.far = 0.0;
    for (int64_t i = 0; i < b.rows; i++) {
        const double at = b.p.t_query[b.first + i];
        s.distance[i] = model.causal ? at - b.reference : b.reference - at;
        b.longest = std::max(b.longest, s.distance[i]);
    }
    const double* lead = model.query_late ? nullptr : b.p.lead.data + b.first;
    make_factors(model, s.distance, lead, b.rows, SMALLEST<T>, s.row);
    squared_lengths(b.p.q.data + b.first * d, b.rows, d, s.queries);
    for (int64_t i = 0; i < b.rows; i++) {
        const Factors f = s.row[i];
        const T* q = b.p.q.data + (b.first + i) * d;
        const double length = static_cast<double>(s.queries[i]);
        b.far = std::max(b.far, length);
        const double late = f.growth + model.var_late;
        s.late[i] = static_cast<T>(late), s.early[i] = static_cast<T>(f.e2);
        T* to = &s.columns[i * s.c];
        if (model.query_late) {   // |q|^2/nu joins the column that multiplies 1
            to[0] = static_cast<T>(late + length * over), to[1] = static_cast<T>(f.e2);
        } else {
            to[0] = static_cast<T>(late), to[1] = static_cast<T>(f.e2);
            to[2] = T(1), to[3] = static_cast<T>(f.e2 * length * over);
        }
        const T factor = static_cast<T>(-2.0 * over * f.e);
        for (int64_t k = 0; k < d; k++) to[extra + k] = factor * q[k];
    }
}

// Panels of the keys [begin, end) and of their values; returns whether X must be made of differences.
template <class T> bool prepare_keys(Block<T>& b, int64_t begin, int64_t end) {
    Workspace<T>& s = b.space;
    const Dynamics& model = b.model;
    const int64_t d = b.p.k.shape[1], n = end - begin, extra = s.c - d;
    const T* k = b.p.k.data + begin * d;
    double nearest = HUGE_VAL, farthest = -HUGE_VAL, far = 0.0;
    for (int64_t j = 0; j < n; j++) {
        s.distance[j] = b.gap(begin + j);
        nearest = std::min(nearest, s.distance[j]), farthest = std::max(farthest, s.distance[j]);
    }
    make_factors(model, s.distance, nullptr, n, SMALLEST<T>, s.key);
    squared_lengths(k, n, d, s.lengths);
    const double over = 1.0 / model.scale;
    for (int64_t j = 0; j < n; j++) {
        const Factors f = s.key[j];
        const double length = static_cast<double>(s.lengths[j]), second = f.growth + model.var_early * f.e2;
        far = std::max(far, length);
        s.second[j] = static_cast<T>(second);
        s.scale[j] = static_cast<T>(f.e), s.fade[j] = static_cast<T>(f.value), s.mass[j] = static_cast<T>(f.weight);
        T* outer = &s.outer[j * extra];
        outer[0] = T(1);
        if (model.query_late) outer[1] = static_cast<T>(second + f.e2 * length * over);
        else outer[1] = s.second[j], outer[2] = static_cast<T>(length * over), outer[3] = static_cast<T>(f.e2);
    }
    column_panels<T, WIDE_VECTORS>(b.p.v.data + begin * s.m, s.m, s.fade, n, 0, s.wide * PANEL<T>, s.left, STRIP);
    column_panels<T, 1>(b.p.v.data + begin * s.m, s.m, s.fade, n, s.wide * PANEL<T>, s.m, s.right, STRIP);
    const double lost = 5.0 * EPSILON<T> * std::min(b.far, far);
    const double least = model.least(std::max(nearest, 0.0), std::max(farthest + b.longest, 0.0));
    const bool direct = d > 0 && lost > LOST<T> * model.scale * least;
    if (direct)
        for (int64_t j = 0; j < n; j++) s.lengths[j] = T(1);
    turn_into_panels<T>(s.outer, direct ? 0 : extra, k, d, direct ? s.lengths : s.scale, n, s.turned);
    return direct;
}

// X of some rows and the keys [begin, stop) of a strip, whole panels.
template <class T>
void make_products(const Block<T>& b, int64_t above, int64_t count, int64_t begin, int64_t stop, bool direct, bool invert) {
    Workspace<T>& s = b.space;
    const int64_t d = b.p.q.shape[1], w = PANEL<T>, depth = direct ? d : s.c;
    const T over = static_cast<T>(1.0 / b.model.scale);
    for (int64_t j = begin; j < stop; j += w) {
        const T* panel = &s.turned[j * depth];
        T* X = &s.W[j];
        const T* columns = &s.columns[above * s.c];
        if (!direct) {
            if (invert) product<T, WIDE_VECTORS, Into::INVERSE>(columns, s.c, count, panel, depth, X, STRIP);
            else product<T, WIDE_VECTORS, Into::FRESH>(columns, s.c, count, panel, depth, X, STRIP);
            continue;
        }
        const T* q = b.p.q.data + (b.first + above) * d;
        for (int64_t i = 0; i < count; i++)
            for (int64_t l = 0; l < w; l++) X[i * STRIP + l] = static_cast<T>(s.row[above + i].e) * s.scale[j + l];
        if (b.model.query_late) squares<T, true>(q, d, count, panel, d, X, STRIP);
        else squares<T, false>(q, d, count, panel, d, X, STRIP);
        for (int64_t i = 0; i < count; i++)
            for (int64_t l = 0; l < w; l++) {
                const T S = s.late[above + i] + s.early[above + i] * s.second[j + l], sum = S + X[i * STRIP + l] * over;
                X[i * STRIP + l] = invert ? T(1) / sum : sum;
            }
    }
}

// Add the strip [begin, end) that `prepare_keys` has laid out to the sums of all rows that see some of it.
template <class T> void add_strip(Block<T>& b, int64_t begin, int64_t end, bool direct) {
    Workspace<T>& s = b.space;
    const Dynamics& model = b.model;
    const T exponent = static_cast<T>(b.p.q.shape[1] ? model.exponent : 1.0), beta = static_cast<T>(model.beta);
    const Law law = exponent == T(1) && beta == T(1)  ? Law::INVERSE
                    : beta == T(1) && exponent > T(1) ? Law::STEEP
                                                      : Law::GENERAL;
    for (int64_t above = b.from; above < b.to; above += CHUNK) {
        const int64_t count = std::min(CHUNK, b.to - above), at = b.first + above;
        // limits do not decrease: the first row sees the earliest keys, the last one the latest
        int64_t start = std::max(b.p.low[at], begin) - begin;
        const int64_t stop = std::min(b.p.high[at + count - 1], end) - begin;
        if (start >= stop) continue;
        start -= start % PANEL<T>;
        make_products(b, above, count, start, stop, direct, law == Law::INVERSE);
        for (int64_t i = 0; i < count; i++) {
            const int64_t low = std::clamp(b.p.low[at + i] - begin, start, stop);
            const int64_t high = std::clamp(b.p.high[at + i] - begin, low, stop);
            T* row = &s.W[i * STRIP];
            std::fill(row + start, row + low, T(0));
            std::fill(row + high, row + stop, T(0));
            const T late = s.late[above + i], early = s.early[above + i], *second = &s.second[low];
            if (law == Law::STEEP) weigh<T, Law::STEEP>(row + low, high - low, late, early, second, exponent, beta);
            if (law == Law::GENERAL) weigh<T, Law::GENERAL>(row + low, high - low, late, early, second, exponent, beta);
            const T* mass = &s.mass[low];
            if (s.h == 0)
                b.p.den.row(at + i)[0] += s.row[above + i].weight * static_cast<double>(dot(row + low, mass, high - low));
            else
                for (int64_t g = 0; g < s.h; g++) {
                    T total = 0;
                    for (int64_t j = low; j < high; j++) total += row[j] * s.mass[j] * b.p.known.row(begin + j)[g];
                    b.p.den.row(at + i)[g] += s.row[above + i].weight * static_cast<double>(total);
                }
        }
        T* part = &s.part[above * s.ldp];
        for (int64_t g = 0; g < s.wide; g++)
            product<T, WIDE_VECTORS, Into::ADD>(&s.W[start], STRIP, count, &s.left[(g * STRIP + start) * PANEL<T>],
                                                stop - start, part + g * PANEL<T>, s.ldp);
        for (int64_t g = 0; g < s.narrow; g++)
            product<T, 1, Into::ADD>(&s.W[start], STRIP, count, &s.right[(g * STRIP + start) * LANES<T>], stop - start,
                                     part + s.wide * PANEL<T> + g * LANES<T>, s.ldp);
    }
}

// num += decay of the query times the sums since the last time, which begin anew.
template <class T> void take_sums(Block<T>& b) {
    Workspace<T>& s = b.space;
    for (int64_t i = 0; i < b.rows; i++) {
        double* num = b.p.num.row(b.first + i);
        T* part = &s.part[i * s.ldp];
        for (int64_t j = 0; j < s.m; j++) num[j] += s.row[i].value * static_cast<double>(part[j]);
        std::fill(part, part + s.ldp, T(0));
    }
}

// Whether `left` keys beyond key j together weigh less than the tolerance in every row (log of it, of w(0)).
template <class T>
bool negligible(const Block<T>& b, int64_t j, int64_t end, int64_t left, double log_tolerance) {
    const Dynamics& model = b.model;
    const double edge = b.p.t[j], last = b.p.t[end], rate = model.weight_rate();
    const double slowest = model.query_late ? 0.0 : std::min(rate, model.value_rate());
    for (int64_t i = b.first + b.from; i < b.first + b.to; i++) {
        const double near = std::fabs(b.p.t_query[i] - edge), far = std::fabs(b.p.t_query[i] - last);
        const double fading = model.query_late ? 0.0 : slowest * (slowest > 0.0 ? near : far) - rate * b.p.lead[i];
        const double bound = std::log(static_cast<double>(left)) - model.beta * std::log(model.least(near, far)) - fading;
        const double* den = b.p.den.row(i);
        if (!(bound - log_tolerance <= std::log(*std::min_element(den, den + b.p.den.shape[1])))) return false;
    }
    return true;
}

// How many keys of a call, the farthest ones, are so far from its farthest row that the squares of their decays are rounding.
template <class T> int64_t far_keys(const Pairs<T>& p, const Dynamics& model) {
    const int64_t B = p.t_query.shape[0], begin = p.low[0], keys = p.high[B - 1] - begin;
    if (!model.query_late || p.known.shape[1] > 0 || keys <= STRIP) return 0;
    const double at = p.t_query[model.causal ? B - 1 : 0], slower = std::min(model.decay, model.value_decay);
    int64_t far = 0;
    while (far < keys) {
        const double lag = std::fabs(at - p.t[model.causal ? begin + far : begin + keys - 1 - far]);
        if (!(std::exp(-2.0 * slower * lag) < EPSILON<T>)) break;
        far++;
    }
    return far;
}

// What the far keys of a call have at most, |k| and each channel of their values; and, at each edge of strips among them,
// e^{-nu tau}, e^{-mu tau} k and e^{-nu tau} v of all keys beyond it added up, tau from the nearest of them (nu: decay of values).
template <class T> struct Remote {
    const bool causal;
    const int64_t begin, end, d, m, size;
    int64_t count;
    double key = 0.0;
    Scratch<double, 0> value, total, edges;
    Remote(const Pairs<T>& p, const Dynamics& model)
        : causal(model.causal), begin(p.low[0]), end(p.high[p.high.shape[0] - 1]), d(p.k.shape[1]), m(p.v.shape[1]),
          size(1 + m + d), count(far_keys(p, model)), value(m), total(size),
          edges(count > 0 ? (end / STRIP - begin / STRIP + 1) * size : 0) {
        if (!value.entries || !total.entries || !edges.entries) count = 0;
        double before = count > 0 ? p.t[causal ? begin : end - 1] : 0.0;
        for (int64_t l = 0; l < count; l++) {
            const int64_t j = causal ? begin + l : end - 1 - l;
            const double lag = std::fabs(p.t[j] - before), fade = std::exp(-model.value_decay * lag);
            const double E = std::exp(-model.decay * lag), length = std::sqrt(static_cast<double>(dot(p.k.row(j), p.k.row(j), d)));
            before = p.t[j], key = std::max(key, length), total[0] = fade * total[0] + 1.0;
            bool finite = length < HUGE_VAL;
            for (int64_t c = 0; c < m; c++) {
                const double v = static_cast<double>(p.v.row(j)[c]);
                total[1 + c] = fade * total[1 + c] + v, value[c] = std::max(value[c], std::fabs(v));
                finite = finite && std::fabs(v) < HUGE_VAL;
            }
            for (int64_t c = 0; c < d; c++) total[1 + m + c] = E * total[1 + m + c] + static_cast<double>(p.k.row(j)[c]);
            if (!finite) count = 0;   // NaN reaches who sees it
            if ((causal ? j + 1 : j) % STRIP == 0) std::copy_n(total.entries, size, &edges[place(j)]);
        }
    }
    // Whether key `next` and all beyond it are far, and where their sums are.
    bool reaches(int64_t next) const { return (causal ? next - begin : end - 1 - next) < count; }
    int64_t place(int64_t next) const { return ((causal ? next + 1 : next) / STRIP - begin / STRIP) * size; }
};

// Add the far keys of row i of a block, key `next` and all beyond it, to its sums; returns whether that could be done.
//
// Where E x_early is small, with S = V(inf) + var_late, X = S + |q|^2 / nu and exponent kappa,
//
//     W = (S^{kappa - 1} / X^kappa)^beta (1 + 2 beta kappa E <q, k> / (nu X) + rest),
//
// |rest| <= p (1 + p) (a^2 + E^2 |var_early - V| / S), p = beta (2 kappa + 1), a = E |k| / sqrt(nu S), as 2 |q| <= sqrt(nu / S) X.
// Rounding, if need be: then den takes the first two terms, num, whose values decay as well, the first. A row that does not see
// all those keys waits until the second is rounding, too, and the values are.
template <class T> bool add_remote(Block<T>& b, int64_t i, int64_t next, const Remote<T>& remote) {
    const Dynamics& model = b.model;
    const int64_t at = b.first + i, d = remote.d, m = remote.m;
    const int64_t low = model.causal ? b.p.low[at] : std::max(b.p.low[at], next);
    const int64_t count = (model.causal ? std::min(b.p.high[at], next + 1) : b.p.high[at]) - low;
    if (count <= 0) return true;
    const bool whole = count == (model.causal ? next + 1 - remote.begin : remote.end - next);
    const double V = model.process_var / (2.0 * model.decay), S = V + model.var_late, over = 1.0 / model.scale;
    const double exponent = d ? model.exponent : 1.0, p = model.beta * (2.0 * exponent + 1.0);
    const double lag = std::fabs(b.p.t_query[at] - b.p.t[next]), E = std::exp(-model.decay * lag);
    const double a = E * remote.key * std::sqrt(over / S), second = a * a + E * E * std::fabs(model.var_early - V) / S;
    if (!(p * (whole ? (1.0 + p) * second : a + second) <= EPSILON<T>)) return false;
    const double X = S + static_cast<double>(b.space.queries[i]) * over;
    const double W = std::exp(model.beta * ((exponent - 1.0) * std::log(S) - exponent * std::log(X)));
    const double fade = W * std::exp(-model.value_decay * lag), *sums = &remote.edges[remote.place(next)];
    const double *v = sums + 1, *k = v + m, lost = fade * sums[0] * (whole ? p * (a + second) : 1.0);
    double *num = b.p.num.row(at), most = 0.0, share = 0.0;
    for (int64_t c = 0; c < m; c++) {
        most = std::max(most, remote.value[c]);
        if (remote.value[c] > 0.0) share = std::max(share, std::fabs(num[c]) / remote.value[c]);
    }
    if (most > 0.0 && !(lost <= EPSILON<T> * share)) return false;
    double along = 0.0;
    for (int64_t c = 0; whole && c < d; c++) along += k[c] * static_cast<double>(b.p.q.row(at)[c]);
    for (int64_t c = 0; whole && c < m; c++) num[c] += fade * v[c];
    b.p.den.row(at)[0] += W * (static_cast<double>(count) + 2.0 * model.beta * exponent * over / X * E * along);
    return true;
}

// How many rows from `first` on can share a reference time: factors of keys behind it stay in range and exact.
template <class T> int64_t rows_together(const Pairs<T>& p, const Dynamics& model, int64_t first) {
    const int64_t B = p.t_query.shape[0], N = p.t.shape[0];
    int64_t count = std::min(BAND, B - first);
    const double longest = std::max(std::fabs(p.t_query[B - 1] - p.t[0]), std::fabs(p.t[N - 1] - p.t_query[first]));
    const double least = model.least(0.0, longest), fastest = std::max(2.0, 2.0 * model.beta);
    for (; count > 1; count = (count + 1) / 2) {
        const double behind = p.t_query[first + count - 1] - p.t_query[first];
        const double exponent = fastest * std::max(model.decay, model.value_decay) * behind;
        if (exponent <= REACH<T> && EPSILON<T> * (8.0 + exponent) * model.growth(behind) <= LOST<T> * least) break;
        if (count == 2) return 1;
    }
    return count;
}

// num, den += sums over all keys that each row sees, nearest first. log_tolerance: keys that weigh less together,
// relative to those summed, may be left out (-inf: none). Returns -1 where memory is out, else 0.
template <class T> int64_t attend(Pairs<T> p, Dynamics model, double log_tolerance) {
    const int64_t B = p.t_query.shape[0], N = p.t.shape[0];
    if (B == 0 || N == 0) return 0;
    Workspace<T> space(p, model, std::min(B, BAND));
    if (!space.memory) return -1;
    const Remote<T> remote(p, model);
    for (int64_t first = 0, rows = 0; first < B; first += rows) {
        rows = rows_together(p, model, first);
        const int64_t low = p.low[first], high = p.high[first + rows - 1];
        if (low >= high) continue;
        Block<T> b{p, model, space, first, rows, 0.0, 0.0, 0.0, 0, rows};
        b.reference = model.causal ? p.t_query[first] : std::max(p.t_query[first + rows - 1], p.t[0]);
        prepare_queries(b);
        for (int64_t begin = low, end = high, since = 0, n; begin < end && b.from < b.to;
             (model.causal ? end : begin) += model.causal ? -n : n) {   // strips end where those of all rows do
            n = model.causal ? end - std::max(begin, (end - 1) / STRIP * STRIP) : std::min(end, (begin / STRIP + 1) * STRIP) - begin;
            const int64_t start = model.causal ? end - n : begin, left = end - begin - n;
            add_strip(b, start, start + n, prepare_keys(b, start, start + n));
            since += n;
            const int64_t next = model.causal ? start - 1 : start + n;
            const bool far = left > 0 && remote.reaches(next);
            if (left == 0 || (!far && since < SUMMED)) continue;
            take_sums(b), since = 0;
            while (far && b.from < b.to && add_remote(b, model.causal ? b.to - 1 : b.from, next, remote))
                model.causal ? b.to-- : b.from++;
            if (log_tolerance > -HUGE_VAL && negligible(b, next, model.causal ? low : high - 1, left, log_tolerance)) break;
        }
        take_sums(b);
    }
    return 0;
}

// ---------------------------------------------------------------- pairs, and what becomes of sums

// log_p (B, K) = log P_ij up to a common factor, d2 (B, K) += |R|^2 / S, or log(1 + |R|^2 / (scale S)) where the
// exponent is not 0: for weights of any kind and for those that are wanted themselves. q (B, d), k (K, d) of one mode;
// tau is formed pair by pair. Exact acausal pairs carry log E^2 in log_p. Where S is E^2 var_early and nothing else,
// its logarithm outlives it.
template <class T>
int64_t pair_up(View<T, 2> log_p, View<T, 2> d2, View<const T, 2> q, View<const T, 2> k, In<1> t_query, In<1> t, Dynamics model) {
    constexpr int N = LANES<double>;
    const int64_t B = q.shape[0], K = k.shape[0], d = q.shape[1], w = PANEL<T>;
    const int64_t ld = (K + w - 1) / w * w;
    Scratch<T, 0> panels(ld * d), R(PAIR_ROWS * ld), ones(K);
    Scratch<double, 0> lag(K), variance(K), log_variance(K);
    if (!panels.entries || !R.entries || !ones.entries) return -1;
    if (!lag.entries || !variance.entries || !log_variance.entries) return -1;
    std::fill(&ones[0], &ones[0] + K, T(1));
    turn_into_panels<T>(nullptr, 0, k.data, d, &ones[0], K, &panels[0]);
    const bool degenerate = model.process_var == 0.0 && model.var_late == 0.0;
    const double log_early = std::log(model.var_early), most = sizeof(T) == 8 ? DBL_MAX : static_cast<double>(FLT_MAX);
    for (int64_t first = 0; first < B; first += PAIR_ROWS) {
        const int64_t rows = std::min<int64_t>(PAIR_ROWS, B - first);
        for (int64_t r = 0; r < rows; r++) {
            const double at = t_query[first + r];
            T *E = &R[r * ld], *log_row = log_p.row(first + r);
            for (int64_t j = 0; j < K; j++) lag[j] = std::fabs(at - t[j]);
            for (int64_t j = 0; j < K; j += N) {
                const int left = static_cast<int>(std::min<int64_t>(N, K - j));
                const Wide<double> tau = load_some<N>(&lag[j], left), x = model.decay * tau, e = exp(-x);
                const Wide<double> S = model.growth(tau) + model.var_late + model.var_early * e * e;
                const Wide<double> log_s = degenerate ? log_early - 2.0 * x : log(S);
                const Wide<double> log_weight = model.query_late ? -log_s : -log_s - 2.0 * x;
                store_some<N>(&variance[j], S, left), store_some<N>(&log_variance[j], log_s, left);
                for (int l = 0; l < left; l++) E[j + l] = static_cast<T>(e[l]), log_row[j + l] = static_cast<T>(log_weight[l]);
            }
            if (d == 0) continue;
            for (int64_t j = K; j < ld; j++) E[j] = T(0);
            for (int64_t j = 0; j < ld; j += w) {
                const T* row = q.row(first + r);
                if (model.query_late) squares<T, true>(row, d, 1, &panels[j * d], d, E + j, ld);
                else squares<T, false>(row, d, 1, &panels[j * d], d, E + j, ld);
            }
            T* out = d2.row(first + r);
            for (int64_t j = 0; model.exponent == 0.0 && j < K; j++) {
                const double squares = static_cast<double>(E[j]) / std::max(variance[j], SMALLEST<T>);
                out[j] = static_cast<T>(std::min(static_cast<double>(out[j]) + squares, most));
            }
            for (int64_t j = 0; model.exponent != 0.0 && j < K; j += N) {
                const int left = static_cast<int>(std::min<int64_t>(N, K - j));
                Wide<double> X = load_some<N>(&variance[j], left);
                for (int l = 0; l < left; l++) X[l] = std::max(X[l] + static_cast<double>(E[j + l]) / model.scale, DBL_MIN);
                const Wide<double> log_ratio = log(X) - load_some<N>(&log_variance[j], left);
                for (int l = 0; l < left; l++) out[j + l] = static_cast<T>(log_ratio[l]);
            }
        }
    }
    return 0;
}

// cos and sin of omega t_i, n of them.
inline void phases(double t, const double* omega, int64_t n, double* c, double* s) {
    constexpr int N = LANES<double>;
    for (int64_t k = 0; k < n; k += N) {
        const int left = static_cast<int>(std::min<int64_t>(N, n - k));
        Wide<double> cosine, sine;
        cos_sin(t * load_some<N>(omega + k, left), cosine, sine);
        store_some<N>(c + k, cosine, left), store_some<N>(s + k, sine, left);
    }
}

// Pairs (2k, 2k + 1) of x (d) turned by angles with these cosines and sines (n), into out; others stay.
template <class X, class T> void turn_row(const X* x, const double* c, const double* s, int64_t n, int64_t d, double factor, T* out) {
    for (int64_t k = 0; k < n; k++) {
        const double a = factor * static_cast<double>(x[2 * k]), b = factor * static_cast<double>(x[2 * k + 1]);
        out[2 * k] = static_cast<T>(a * c[k] - b * s[k]);
        out[2 * k + 1] = static_cast<T>(b * c[k] + a * s[k]);
    }
    for (int64_t k = 2 * n; k < d; k++) out[k] = static_cast<T>(factor * static_cast<double>(x[k]));
}

// out (P, N, d) = channel pairs of x turned by sign omega t; channels beyond 2 n stay.
template <class T> int64_t rotate(In<1> t, In<1> omega, double sign, View<const T, 3> x, View<T, 3> out) {
    const int64_t P = x.shape[0], N = x.shape[1], d = x.shape[2], n = omega.shape[0];
    Scratch<double, 0> c(n + 1), s(n + 1);
    if (!c.entries || !s.entries) return -1;
    for (int64_t i = 0; i < N; i++) {
        phases(sign * t[i], omega.data, n, &c[0], &s[0]);
        for (int64_t p = 0; p < P; p++) turn_row(x.data + (p * N + i) * d, &c[0], &s[0], n, d, 1.0, out.data + (p * N + i) * d);
    }
    return 0;
}

// out (B, m) = e^{lift} num / den turned by omega t, group by group; precision (B, g) = e^{scale} den. NaN where den
// is 0.
template <class T>
int64_t finish(View<T, 2> out, View<T, 2> precision, In<2> num, In<2> den, In<1> t, In<1> omega, In<1> lift, In<1> scale) {
    const int64_t B = num.shape[0], g = den.shape[1], d = num.shape[1] / g, n = omega.shape[0];
    Scratch<double, 0> c(n + 1), s(n + 1);
    if (!c.entries || !s.entries) return -1;
    for (int64_t i = 0; i < B; i++) {
        phases(t[i], omega.data, n, &c[0], &s[0]);
        for (int64_t p = 0; p < g; p++) {
            const double total = den.row(i)[p], factor = total == 0.0 ? NAN : std::exp(lift[i]) / total;
            turn_row(num.row(i) + p * d, &c[0], &s[0], n, d, factor, out.row(i) + p * d);
            precision.row(i)[p] = static_cast<T>(total * std::exp(scale[i]));
        }
    }
    return 0;
}

// What a head knows besides its data: how many keys (`window`, -1: all) count on each side; rotation rates of queries and of the
// output; past and (sides = 2) back, the directions of time; log_peak, the logarithm of w(0).
struct Rules {
    int64_t window;
    In<1> omega, omega_out;
    Dynamics past, back;
    int64_t sides;
    double log_tolerance, log_peak;
    template <class Visit> void members(Visit&& visit) { visit(window, omega, omega_out, past, back, sides, log_tolerance, log_peak); }
};

// out (B, m) and precision (B, g) of the queries q (B, d), not yet rotated, of which row i sees seen_i keys as its past.
template <class T>
int64_t output_rows(View<const T, 2> q, View<const T, 2> k, View<const T, 2> v, View<const T, 2> known, In<1> t_query, In<1> t,
                    Index<1> seen, Rules rules, View<T, 2> out, View<T, 2> precision) {
    const int64_t B = q.shape[0], N = k.shape[0], d = q.shape[1], m = v.shape[1], g = precision.shape[1];
    const int64_t sums = std::max<int64_t>(known.shape[1], 1);
    const Dynamics &past = rules.past, &back = rules.back;
    if (sums != 1 && sums != g) return -1;
    Scratch<T, 0> turned(B * d);
    Scratch<double, 0> num(B * m), den(B * sums), each(B * g), lead(B), lift(B), scale(B);
    Scratch<int64_t, 0> low(B), high(B);
    for (const void* block : {turned.block, num.block, den.block, each.block, lead.block, lift.block, scale.block, low.block, high.block})
        if (!block) return -1;
    if (d > 0 && rules.omega.shape[0] > 0) {
        if (rotate<T>(t_query, rules.omega, -1.0, {q.data, {1, B, d}}, {turned.entries, {1, B, d}}) != 0) return -1;
        q.data = turned.entries;
    }
    // Queries before the first key: the common factor e^{-2 beta mu lag} of all their weights may underflow, so it is left
    // out here and put back at the end.
    if (rules.sides == 2 && !back.query_late && N > 0)
        for (int64_t i = 0; i < B; i++) lead[i] = std::max(t[0] - t_query[i], 0.0);
    for (int64_t side = 0; side < rules.sides; side++) {
        const Dynamics& model = side == 0 ? past : back;
        for (int64_t i = 0; i < B; i++) {
            low[i] = side == 1 ? seen[i] : rules.window < 0 ? 0 : std::max<int64_t>(seen[i] - rules.window, 0);
            high[i] = side == 0 ? seen[i] : rules.window < 0 ? N : std::min(seen[i] + rules.window, N);
        }
        const Pairs<T> pairs{q, k, v, known, t_query, t, {low.entries, {B}}, {high.entries, {B}}, {lead.entries, {B}},
                             {num.entries, {B, m}}, {den.entries, {B, sums}}};
        if (attend(pairs, model, rules.log_tolerance) != 0) return -1;
    }
    for (int64_t i = 0; i < B; i++) {
        for (int64_t a = 0; a < g; a++) each[i * g + a] = den[i * sums + (sums == 1 ? 0 : a)];
        lift[i] = past.value_decay * lead[i];
        scale[i] = past.beta * rules.log_peak - 2.0 * past.beta * past.decay * lead[i];
    }
    return finish<T>(out, precision, {num.entries, {B, m}}, {each.entries, {B, g}}, t_query, rules.omega_out, {lift.entries, {B}},
                     {scale.entries, {B}});
}

}
}  // namespace afa
