"""Every estimator on a case, in other words or its own, against the exact answer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from flint import arb
from scipy.linalg import LinAlgWarning

from afafilter import (
    IMQ,
    DiscreteModel,
    Huber,
    KalmanStream,
    LinearSDE,
    Power,
    StudentT,
    adaptive_filter,
    adaptive_smoother,
    forecast,
    kalman_filter,
    loglik,
    rts_smoother,
)
from afafilter._base.checks import is_definite
from afafilter._base.doubts import BarelyDetermined
from afafilter.linalg.subspaces import rank_of
from afafilter.weights import Weight
from tests.exact_adaptive import Robust, pulled, reweighted
from tests.exact_oracle import ExactGaussian, Imprecise, Law, Singular, exact_balls, to_float
from tests.fuzz.cases import Case, Pick, draw_case
from tests.fuzz.truth import Truth, Verdict, law_apart, number_apart
from tests.fuzz.views import View, draw_view

STEP = arb(2) ** -200
"""Step of the exact derivative: far below what is left of a direction that has decayed to 1e-45."""


ROUNDINGS = 32
"""An innovation z - H m may be off by so many roundings of |z| + |H| |m|: a filter keeps m in
double precision, and every step leaves it a few."""

REFUSALS = ("R is singular", "likelihood does not exist")


def check_case(pick: Pick) -> list[Verdict]:
    """All laws of one case."""
    case = draw_case(pick)
    view = draw_view(case, pick)
    truth = Truth(case, pick.integer(0, 2**31 - 1))
    try:
        truth.ask(lambda exact: exact)
        exists = True
    except (Singular, Imprecise):
        exists = False
    found = []
    with _threads(view.threads):
        for law, check in LAWS.items():
            if law.startswith("afa") and not isinstance(case.model, LinearSDE):
                continue
            found += _guarded(f"{law} | {view.name}", check, view, truth, pick, exists)
    return found


def _guarded(
    name: str,
    check: Callable[..., Iterator[Any]],
    view: View,
    truth: Truth,
    pick: Pick,
    exists: bool,
) -> Iterator[Verdict]:
    """Verdicts of one law; an error of the package is one too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answers = list(check(view, pick))
        except ValueError as error:
            singular = any(words in str(error) for words in REFUSALS)
            needs_noise = name.startswith("afa") and "must be positive definite" in str(error)
            if needs_noise or "floating-point range" in str(error) or (singular and not exists):
                yield Verdict(name, "right", 0.0, "refused")
            else:
                yield Verdict(name, "refused" if singular else "wrong", np.inf, f"error: {error}")
            return
    doubt = any(issubclass(w.category, BarelyDetermined) for w in caught)
    numeric = (w for w in caught if issubclass(w.category, RuntimeWarning | LinAlgWarning))
    others = [str(w.message) for w in numeric if not issubclass(w.category, BarelyDetermined)]
    if others:
        yield Verdict(name, "wrong", np.inf, f"warning: {others[0]}")
    if not exists:
        yield Verdict(name, "unasked", 0.0)
        return
    verdicts = [truth.judge(name, *answer) for answer in answers]
    for verdict in verdicts:
        warned = doubt and verdict.outcome == "wrong"
        yield verdict._replace(outcome="warned") if warned else verdict
    if doubt and all(verdict.outcome == "right" for verdict in verdicts):
        yield Verdict(name, "needless", 0.0)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = os.environ.get("AFAFILTER_NUM_THREADS")
    if count is not None:
        os.environ["AFAFILTER_NUM_THREADS"] = str(count)
    yield
    if count is not None:
        if before is None:
            del os.environ["AFAFILTER_NUM_THREADS"]
        else:
            os.environ["AFAFILTER_NUM_THREADS"] = before


# ------------------------------------------------------------------------------- laws of states


def _own(view: View, estimate: Any, k: int) -> tuple[Any, Any]:
    """The law of the k-th state of an estimate, in the case's own words."""
    mean, cov = view.own(estimate.mean), view.own(estimate.cov)
    return view.law(mean[k], cov[k])


def _some(T: int, pick: Pick) -> list[int]:
    return sorted({T - 1, pick.integer(0, T - 1)})


def _filter(view: View, pick: Pick) -> Iterator[Any]:
    c = view.case
    found = kalman_filter(c.model, c.t, c.z, obs_cov=c.obs_cov)
    yield _likelihood(view, view.own(found.loglik))
    for k in _some(len(view.at), pick):
        t = _time(view, k)
        yield lambda e, t=t, k=k: e.law(t, k + 1), _own(view, found, view.at[k]), law_apart
        yield from _innovation(view, found, k)


def _innovation(view: View, found: Any, k: int) -> Iterator[Any]:
    """z - H E[x | before] and its covariance, of every component with data."""
    at, order = view.at[k], view.order
    v = view.own(found.innovation)[at][order] / view.row_unit[order]
    S = view.own(found.innovation_cov)[at][np.ix_(order, order)]
    S = S / np.outer(view.row_unit[order], view.row_unit[order])
    z = view.own(view.case.z)[at][order] / view.row_unit[order]
    seen = np.flatnonzero(~np.isnan(z))
    if not len(seen):
        return
    rounding = np.zeros(len(seen))

    def law(e: ExactGaussian) -> Law:
        m = e.model
        H, off, R = (m.H, m.d, m.R) if isinstance(m, DiscreteModel) else (m.C, m.offset, m.R)
        given = e.obs_cov
        R = R if given is None else given[k]
        x = e.law_at(e.shown[k], k, H[seen])
        rounding[:] = _rounding(e, k, H)[seen]
        cov = x.cov + np.where(np.isinf(x.cov), 0.0, R[np.ix_(seen, seen)])
        open_ = np.isnan(x.mean)
        cov[np.ix_(open_, ~open_)] = cov[np.ix_(~open_, open_)] = 0.0
        both = np.outer(open_, open_) & ~np.eye(len(open_), dtype=bool)
        cov[both] = 0.0
        return Law(z0[seen] - off[seen] - x.mean, cov)

    z0 = np.where(np.isnan(z), 0.0, z)

    def apart(found: Any, wanted: Law, stretch: float) -> float:
        """Of a difference z - H m, which is known to the rounding of both."""
        return law_apart((_beyond(found[0], wanted.mean, rounding), found[1]), wanted, stretch)

    yield law, (v[seen], S[np.ix_(seen, seen)]), apart


def _beyond(found: Any, wanted: Any, room: Any) -> Any:
    """The mean that is found, nearer to the one that is wanted by this much."""
    off = found - wanted
    return wanted + np.sign(off) * np.maximum(np.abs(off) - room, 0.0)


def _rounding(e: ExactGaussian, k: int, H: Any) -> Any:
    """What rounding may leave of z - H m, per component (0 where nothing is seen)."""
    z, m = e.z[k], e.law_at(e.shown[k], k).mean
    size = np.abs(np.nan_to_num(z)) + np.abs(H) @ np.abs(np.nan_to_num(m))
    return ROUNDINGS * 0.5 * np.finfo(float).eps * size


def _time(view: View, k: int) -> float:
    """The k-th time of the case itself."""
    return float(view.case.t[view.at[k]] / view.time)


def _smoother(view: View, pick: Pick) -> Iterator[Any]:
    c = view.case
    found = rts_smoother(c.model, c.t, c.z, obs_cov=c.obs_cov)
    yield _likelihood(view, view.own(found.loglik))
    for k in _some(len(view.at), pick):
        t = _time(view, k)
        yield lambda e, t=t: e.law(t), _own(view, found, view.at[k]), law_apart


def _queries(view: View, pick: Pick) -> Iterator[Any]:
    c = view.case
    if c.queries is None:
        return
    forward = kalman_filter(c.model, c.t, c.z, obs_cov=c.obs_cov, query_times=c.queries)
    both = rts_smoother(c.model, c.t, c.z, obs_cov=c.obs_cov, query_times=c.queries)
    for i in _some(len(c.queries), pick):
        t = float(c.queries[i] / view.time)
        stop = int(np.searchsorted(c.t[view.at] / view.time, t, side="right"))
        yield lambda e, t=t, stop=stop: e.law(t, stop), _own(view, forward, i), law_apart
        yield lambda e, t=t: e.law(t), _own(view, both, i), law_apart


def _forecast(view: View, pick: Pick) -> Iterator[Any]:
    c = view.case
    if c.queries is None:
        return
    ahead = c.queries[-1]
    found = forecast(c.model, c.t, c.z, obs_cov=c.obs_cov, horizon_times=[ahead])
    order, unit = view.order, view.row_unit[view.order]
    mean = (view.own(found.info["observation_mean"])[0][order]) / unit
    cov = view.own(found.info["observation_cov"])[0][np.ix_(order, order)] / np.outer(unit, unit)

    def law(e: ExactGaussian) -> Law:
        x = e.law(float(ahead / view.time), None, e.model.C)
        return Law(
            x.mean + e.model.offset, x.cov + np.where(np.isinf(x.cov), 0.0, _noise(x, e.model.R))
        )

    yield law, (mean, cov), law_apart


def _noise(x: Law, R: Any) -> Any:
    known = ~np.isnan(x.mean)
    return np.where(np.outer(known, known), R, 0.0)


def _stream(view: View, pick: Pick) -> Iterator[Any]:
    c = view.case
    if not isinstance(c.model, LinearSDE) or view.path is not None:
        return
    stream = KalmanStream(c.model)
    for k in range(len(c.t)):
        last = stream.update(c.t[k], c.z[k], obs_cov=None if c.obs_cov is None else c.obs_cov[k])
    yield _likelihood(view, stream.loglik)
    if view.at[-1] == len(c.t) - 1:
        k, t = len(view.at) - 1, _time(view, -1)
        yield lambda e: e.law(t, k + 1), view.law(last.mean[0], last.cov[0]), law_apart


def _robust(view: View, pick: Pick) -> Iterator[Any]:
    """Weights by the exact innovations, and the law of the model in which they divide R."""
    c = view.case
    given = c.model.R if c.obs_cov is None else c.obs_cov
    weight = pick.choice([StudentT(4.0), IMQ(2.0), Huber(1.5)])
    run = pick.choice([kalman_filter, rts_smoother])
    if not is_definite(given).all():
        return
    found = run(c.model, c.t, c.z, obs_cov=c.obs_cov, weight=weight)
    w = view.own(found.info["robust_weights"])[view.at]
    known: dict[ExactGaussian, ExactGaussian] = {}

    def weighed(e: ExactGaussian) -> ExactGaussian:
        if e not in known:
            R = e.model.R if e.obs_cov is None else e.obs_cov
            known[e] = e.with_noise(R / w[:, None, None])
        return known[e]

    def expected(e: ExactGaussian, k: int) -> tuple[float, float, float, float]:
        """The weight, its relative change where the innovation moves by a standard deviation, and
        the least and the largest that rounding of the innovation leaves."""
        m, z, R = e.model, e.z, e.obs_cov
        seen = ~np.isnan(z[k])
        H, off = (m.H, m.d) if isinstance(m, DiscreteModel) else (m.C, m.offset)
        before = weighed(e).law_at(e.shown[k], k, H)
        R = (m.R if R is None else R[k])[np.ix_(seen, seen)]
        v = (z[k] - off - before.mean)[seen]
        if not seen.any() or np.isnan(before.mean[seen]).any():
            return float(w[k]), 0.0, 0.0, 1.0

        def at(d: float) -> float:
            return float(weight(max(d, 0.0) ** 2, int(seen.sum())))

        root = np.linalg.cholesky(R)
        white = np.linalg.solve(root, before.cov[np.ix_(seen, seen)] + R)
        spread = np.sqrt(np.linalg.norm(np.linalg.solve(root, white.T), 2))
        d = float(np.linalg.norm(np.linalg.solve(root, v)))
        rounding = np.diag(_rounding(weighed(e), k, H)[seen])
        apart = float(np.abs(np.linalg.solve(root, rounding)).sum())
        slope = (at(d) - at(1.001 * d)) / (0.001 * d * at(d)) if d > 0 else 0.0
        return at(d), slope * float(spread), at(d + apart), at(d - apart)

    def apart(found: Any, wanted: tuple[float, ...], stretch: float) -> float:
        weight, slope, least, largest = wanted
        found = found[0] if isinstance(found, tuple) else found
        return max(least - found, found - largest, 0.0) / weight / max(1.0, slope * stretch)

    for k in _some(len(view.at), pick):
        yield lambda e, k=k: expected(e, k), w[k], apart
        t, stop = _time(view, k), k + 1 if run is kalman_filter else None
        law = _own(view, found, view.at[k])
        yield lambda e, t=t, n=stop: weighed(e).law(t, n), law, law_apart


# ------------------------------------------------------------------------------------ likelihood


def _likelihood(view: View, found: Any) -> tuple[Any, Any, Any]:
    """Log-likelihood in the case's own words: units change the measures of data and flat start."""
    z = view.own(view.case.z)
    shift = float((np.log(view.row_unit) * (~np.isnan(z)).sum(axis=0)).sum())

    def wanted(e: ExactGaussian) -> float:
        null = e.null(len(e.last))[0]
        if null.shape[1] and (view.unit != 1).any():
            return float(found)  # the measure of what is left out depends on the unit
        q = e.D.shape[1]
        grown = np.log(view.unit).sum() if q == len(view.unit) else q * np.log(view.unit[0])
        return e.loglik() - shift + (grown if q else 0.0)

    return wanted, float(found), number_apart


def _gradient(view: View, pick: Pick) -> Iterator[Any]:
    """The slope along one direction of one array of the model."""
    c = view.case
    if view.path is not None:
        z = view.own(c.z)
    else:
        z = c.z
    value, slopes = loglik(
        c.model,
        None if isinstance(c.model, DiscreteModel) else c.t,
        z,
        obs_cov=c.obs_cov,
        gradient=True,
    )
    yield _likelihood(view, value)
    if view.name not in ("itself", "batch"):
        return
    name = pick.choice(sorted(slopes))
    short = {"C": "H", "d": "offset", "drift": "u", "prior mean": "mean", "prior cov": "cov"}
    put, slope = short.get(name, name), np.asarray(slopes[name])
    E = pick.rng().standard_normal(slope.shape)
    size = {"prior mean": "mean", "prior cov": "cov"}
    holder = c.model.prior if name in size else c.model
    at = np.asarray(getattr(holder, size.get(name, name)))
    E *= np.abs(at).max() or 1.0
    if put in ("R", "Q", "cov"):
        E = E + np.swapaxes(E, -1, -2)

    def wanted(e: ExactGaussian) -> Any:
        if e.null(len(e.last))[0].shape[1]:
            return float((slope * E).sum())
        ends = []
        for sign in (1, -1):

            def change(which: str, values: Any, sign: int = sign) -> Any:
                balls = e.put(which, values)
                return balls + exact_balls("", E) * STEP * sign if which == put else balls

            moved = e.again(change, steps=put in ("A", "Q", "u", "F", "b"))
            moved.nulls = e.nulls  # nothing is open: a step decides nothing
            ends.append(moved.loglik_ball())
        ball = (ends[0] - ends[1]) / (2 * STEP)
        return to_float(ball)

    yield wanted, float((slope * E).sum()), lambda a, b, stretch: abs(a - b) / (stretch**2 + abs(b))


# ------------------------------------------------------------------------------------------- AFA


def _afa(view: View, pick: Pick, method: str = "dense") -> Iterator[Any]:
    c = view.case
    T = len(view.at)
    two = pick.choice([False, True])
    run = adaptive_smoother if two else adaptive_filter
    found = run(c.model, c.t, c.z, obs_cov=c.obs_cov, method=method)
    bound = found.info.get("error_bound", 0.0)  # of linear time, relative to the estimates

    def apart(found: Any, wanted: Law, stretch: float) -> float:
        near = _beyond(found[0], wanted.mean, bound * np.abs(wanted.mean))
        return law_apart((near, found[1]), wanted, stretch)

    for k in _some(T, pick):
        t, js = _time(view, k), range(T if two else k + 1)
        yield (
            lambda e, t=t, js=js: pulled(e.flat(), t, js),
            _own(view, found, view.at[k]),
            apart,
        )


def _afa_other(view: View, pick: Pick) -> Iterator[Any]:
    method = pick.choice(["isotropic", "modal", "auto", "linear"])
    try:
        yield from _afa(view, pick, method)
    except ValueError as error:
        if "method" not in str(error):
            raise


def _afa_exact(view: View, pick: Pick) -> Iterator[Any]:
    c = view.case
    T = len(view.at)
    two = pick.choice([False, True])
    run = adaptive_smoother if two else adaptive_filter
    found = run(c.model, c.t, c.z, obs_cov=c.obs_cov, correlation="exact")
    for k in _some(T, pick):
        t, stop = _time(view, k), None if two else k + 1
        yield lambda e, t=t, n=stop: e.flat().law(t, n), _own(view, found, view.at[k]), law_apart


WEIGHTS: tuple[Weight, ...] = (StudentT(3.0), Huber(2.0), Power(4.0))


def _afa_robust(view: View, pick: Pick) -> Iterator[Any]:
    """Anchors, rounds and windows, by every form that takes the model."""
    c, m = view.case, view.case.model
    weight, rounds = pick.choice(WEIGHTS), pick.choice([1, 1, 2, 3])
    anchor = pick.choice(["observation", "estimate", "prediction"])
    two, window = pick.choice([False, True]), pick.choice([None, None, 1, 2])
    two = two and (window is None or m.delay == 0)
    options = {"weight": weight, "anchor": anchor, "iterations": rounds, "tolerance": 0.0}
    run = adaptive_smoother if two else adaptive_filter
    method = pick.choice(["dense", "modal", "isotropic", "auto"])
    try:
        found = run(m, c.t, c.z, obs_cov=c.obs_cov, method=method, window=window, **options)
    except ValueError as error:
        if "method" not in str(error):
            raise
        return
    seen = ~np.isnan(view.own(c.z)[view.at])
    whole = m.obs_dim == m.dim and rank_of(m.C) == m.dim
    for k in _some(len(view.at), pick):
        any_ = np.flatnonzero(seen.any(axis=1))
        past, before, ahead = any_[any_ <= k], any_[any_ < k], any_[any_ > k]
        if window is not None:
            past, before, ahead = past[-window:], before[-window:], ahead[:window]
        js = [*past, *ahead] if two else list(past)
        start = {
            "observation": [k] if whole and seen[k].all() else js,
            "estimate": js,
            "prediction": before,
        }[anchor]
        how, t = Robust(js, start, weight, rounds), _time(view, k)
        yield (
            lambda e, t=t, how=how: reweighted(e.flat(), t, how),
            _own(view, found, view.at[k]),
            law_apart,
        )


LAWS: dict[str, Callable[[View, Pick], Iterator[Any]]] = {
    "kalman_filter": _filter,
    "rts_smoother": _smoother,
    "query_times": _queries,
    "forecast": _forecast,
    "KalmanStream": _stream,
    "robust weights": _robust,
    "loglik and gradient": _gradient,
    "afa dense": _afa,
    "afa methods": _afa_other,
    "afa exact": _afa_exact,
    "afa robust": _afa_robust,
}


def describe(case: Case) -> str:
    """The case as Python can read it again."""
    m = case.model
    names = (
        ("F", "Q", "H", "R", "b", "d")
        if isinstance(m, DiscreteModel)
        else ("A", "Q", "C", "R", "drift", "offset", "delay")
    )
    lines = [f"{type(m).__name__}: prior {m.prior!r}"]
    if not isinstance(m.prior, str):
        lines += [f"  mean {m.prior.mean!r} cov {m.prior.cov!r} flat {m.prior.diffuse!r}"]
    lines += [f"  {name} = {getattr(m, name)!r}" for name in names]
    lines += [f"  {name} = {getattr(case, name)!r}" for name in ("t", "z", "obs_cov", "queries")]
    return "\n".join(lines)
