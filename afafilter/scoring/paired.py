"""Which estimator is better, and by how much: paired differences, tests and losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from afafilter._base.checks import Array, ObsMask, fraction, positive_int
from afafilter.scoring.tally import BAND, Ratio

DIFFERENCE_COLUMNS = ("difference", "low", "high", "ratio", "ratio_low", "ratio_high", "p")


def paired_differences(
    ratios: Mapping[str, Ratio],
    reference: str,
    level: float = BAND,
    n_boot: int = 2000,
    rng: np.random.Generator | None = None,
) -> list[dict[str, Any]]:
    """Rows estimator, reference and `DIFFERENCE_COLUMNS`: every metric minus the reference's.

    All estimators see the same resamples of the paths (Efron's percentile intervals); p is that
    of `paired_test`.
    """
    level = fraction(level, "level")
    positive_int(n_boot, "n_boot")
    rng = np.random.default_rng(0) if rng is None else rng
    base = ratios[reference]
    n = len(base.sums)
    sums = np.stack([r.sums for r in ratios.values()], axis=1)
    counts = np.stack([r.counts for r in ratios.values()], axis=1)
    draws = []
    block = max(1, min(n_boot, 4_000_000 // n))
    for start in range(0, n_boot, block):
        size = min(block, n_boot - start)
        weight = rng.multinomial(n, np.full(n, 1.0 / n), size=size).astype(np.float64)
        with np.errstate(invalid="ignore"):
            draws.append(base.of(weight @ sums, weight @ counts))
    values = np.concatenate(draws)
    at = list(ratios).index(reference)
    tails = (0.5 * (1.0 - level), 0.5 * (1.0 + level))
    rows = []
    for k, (name, ratio) in enumerate(ratios.items()):
        if name == reference:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            gap, factor = values[:, k] - values[:, at], values[:, k] / values[:, at]
            value = ratio.value - base.value
            quotient = float(np.divide(ratio.value, base.value))
            low, high = np.quantile(gap, tails) if n > 1 else (np.nan, np.nan)
            first, last = np.quantile(factor, tails) if n > 1 else (np.nan, np.nan)
        tested = paired_test(base, ratio)[1]
        numbers = (value, float(low), float(high), quotient, float(first), float(last), tested)
        rows.append(
            {"estimator": name, "reference": reference, **dict(zip(DIFFERENCE_COLUMNS, numbers))}
        )
    return rows


def paired_test(a: Ratio, b: Ratio) -> tuple[float, float]:
    """Student's test that two metrics on the same paths are equal: (t, two-sided p).

    Of a positive metric the logarithms of each path's values are compared: a filter that loses one
    path in fifty has a mean error that says little and an interval that spans everything, while
    its typical path can be told from another's. Metrics that take both signs are compared by
    linearised ratios u_i = (s_i - r c_i) / mean(c), difference r_b - r_a, error
    sd(u_b - u_a) / sqrt(n). t > 0: b is the larger. (0, 1) where no path differs or fewer than two
    can be compared; paths without a value are left out.
    """
    from scipy.special import stdtr

    used = (a.counts > 0) & (b.counts > 0)
    values = [r.of(r.sums[used], r.counts[used]) for r in (a, b)]
    if all((v > 0).all() for v in values):
        gap = np.log(values[1]) - np.log(values[0])
        mean, spread = (gap.mean(), gap) if len(gap) else (0.0, gap)
    else:
        (first, u), (second, w) = (_influence(r, used) for r in (a, b))
        mean, spread = second - first, w - u
    n = len(spread)
    if n < 2:
        return 0.0, 1.0
    error = float(np.std(spread, ddof=1) / np.sqrt(n))
    if error == 0.0:
        return (0.0, 1.0) if mean == 0.0 else (float(np.copysign(np.inf, mean)), 0.0)
    t = float(mean) / error
    return t, float(2.0 * stdtr(n - 1, -abs(t)))


def _influence(ratio: Ratio, used: ObsMask) -> tuple[float, Array]:
    """A ratio of sums, and what each path moves it."""
    sums, counts = ratio.sums[used], ratio.counts[used]
    mean = sums.sum() / counts.sum()
    return float(mean), (sums - mean * counts) / counts.mean()


def worse_p_value(best: Ratio, rival: Ratio) -> float:
    """Of `paired_test` where the rival is the larger one on the typical path; else 1, a tie."""
    t, p = paired_test(best, rival)
    return p if t > 0 else 1.0


def holm(p: Array, level: float) -> tuple[Array, ObsMask]:
    """Holm's adjusted p-values, and which are at most `level`.

    (Scandinavian Journal of Statistics 6 (1979) 65-70.)
    """
    m = len(p)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(np.maximum.accumulate((m - np.arange(m)) * p[order]), 1.0)
    out = np.empty(m)
    out[order] = stepped
    return out, np.asarray(out <= level)


def loss(metric: str, value: float) -> float:
    """What is smallest for the best estimator."""
    if metric in ("nees", "nis", "ljung_box"):
        return abs(float(np.log(value))) if value > 0 else np.inf
    if metric.startswith("coverage"):
        return abs(value - float(metric.removeprefix("coverage")) / 100.0)
    return abs(value) if metric == "bias" else value


def ranks(metric: str, ratios: Mapping[str, Ratio]) -> list[dict[str, Any]]:
    """Rows estimator, rank, low, high, first: the place of each on every path, 1 for the best.

    Equal losses share the mean of their places. `rank` is the mean over paths with its 95 % Student
    interval, `first` the share of paths where nobody is better. Paths on which one has no value are
    left out.
    """
    from scipy.stats import rankdata

    losses = np.array([[loss(metric, v) for v in r.of(r.sums, r.counts)] for r in ratios.values()])
    places = rankdata(losses[:, np.isfinite(losses).all(axis=0)], axis=0)
    first = places == places.min(axis=0, initial=np.inf)
    rows = []
    for name, own, leads in zip(ratios, places, first):
        rank = Ratio(own, np.ones(len(own))).row("rank")
        best = float(leads.mean()) if len(leads) else np.nan
        rows.append({"estimator": name, **rank, "first": best})
    return rows
