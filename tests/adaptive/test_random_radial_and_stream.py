"""Random cases: RT-AFA against plain loops in long doubles, the stream against the batch form."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from afafilter import (
    IMQ,
    AdaptiveFilterStream,
    Huber,
    LinearSDE,
    LongRecordWarning,
    Power,
    RadialTangentialSDE,
    StudentT,
    adaptive_filter,
    radial_adaptive_filter,
)
from afafilter._base.checks import is_definite
from afafilter._base.doubts import BarelyDetermined
from tests.fuzz.cases import Seeded, draw_case

WEIGHTS = (None, StudentT(3.0), Huber(1.5), Power(4.0), IMQ(2.0))
LONG = np.longdouble


def turned(model, x, tau):
    """e^{Omega tau} x."""
    out = x.copy()
    for k, rate in enumerate(model.frequency):
        c, s = np.cos(LONG(rate) * tau), np.sin(LONG(rate) * tau)
        out[2 * k], out[2 * k + 1] = (
            c * x[2 * k] - s * x[2 * k + 1],
            s * x[2 * k] + c * x[2 * k + 1],
        )
    return out


def pulled(model, x, tau, process, noise, gamma2):
    """Observation x pulled by tau, and the variance of a component with these noises."""
    E = np.exp(-LONG(model.decay) * tau)
    F = abs(tau)
    if model.decay:
        F = abs(-np.expm1(-2 * LONG(model.decay) * tau)) / (2 * LONG(model.decay))
    return E * turned(model, x, tau), process * F + noise * E * E + gamma2


def isotropic_average(model, z, lags, gamma2):
    n = LONG(model.dim - 1)
    process = (LONG(model.radial_var) + n * LONG(model.tangential_var)) / model.dim
    noise = (LONG(model.obs_radial_var) + n * LONG(model.obs_tangential_var)) / model.dim
    total, sums = LONG(0), np.zeros(model.dim, LONG)
    for x, tau in zip(z, lags, strict=True):
        zhat, S = pulled(model, x, tau, process, noise, gamma2)
        total, sums = total + 1 / S, sums + zhat / S
    return sums / total


def radial_average(model, z, lags, a, gamma2, weight):
    """(sum w P)^-1 sum w P zhat and (sum w P)^-1 around the anchor a."""
    d = model.dim
    u = a / np.sqrt(a @ a)
    along, across = np.outer(u, u), np.eye(d, dtype=LONG) - np.outer(u, u)
    P_t, P_r, top = LONG(0), LONG(0), np.zeros(d, LONG)
    for x, tau in zip(z, lags, strict=True):
        zhat, St = pulled(model, x, tau, model.tangential_var, model.obs_tangential_var, gamma2)
        _, Sr = pulled(model, x, tau, model.radial_var, model.obs_radial_var, gamma2)
        r = zhat - a
        if model.radius is not None:
            w = 1.0 if weight is None else float(weight(float(r @ across @ r / St), d - 1))
            P_t, top = P_t + w / St, top + w / St * zhat
            continue
        d2 = r @ across @ r / St + r @ along @ r / Sr
        w = 1.0 if weight is None else float(weight(float(d2), d))
        P_t, P_r = P_t + w / St, P_r + w / Sr
        top = top + w / St * (across @ zhat) + w / Sr * (along @ zhat)
    if model.radius is not None:
        return top / P_t, across / P_t
    return across @ top / P_t + along @ top / P_r, across / P_t + along / P_r


def draw_radial(rng):
    d, unit, second = (
        int(rng.integers(2, 6)),
        10.0 ** rng.integers(-6, 7),
        10.0 ** rng.integers(-3, 4),
    )
    ball = rng.random() < 0.25
    some = unit**2 * 10.0 ** rng.uniform(-2, 0.5, 4)
    some[:2] *= rng.choice([0.0, 1.0], 2) / second
    model = RadialTangentialSDE(
        0.0 if ball else rng.choice([0.0, 0.2, 1.5]) / second,
        rng.normal(size=d // 2) / second,
        radial_var=0.0 if ball else some[0],
        tangential_var=some[1],
        obs_radial_var=some[2],
        obs_tangential_var=some[3],
        dim=d,
        radius=7.0 * unit if ball else None,
    )
    T = int(rng.integers(1, 8))
    t = second * (np.cumsum(rng.choice([0.0, 0.1, 0.4, 1.0], T)) + rng.choice([0.0, -3.0, 50.0]))
    z = unit * (5 * rng.standard_normal(d) + rng.standard_normal((T, d)))
    z[rng.random(T) < 0.2] = np.nan
    z[rng.random(T) < 0.1] *= 4.0
    asked = None
    if rng.random() < 0.4:
        inner = rng.uniform(t[0] - second, t[-1] + 2 * second, 4)
        asked = np.sort(np.append(inner, rng.choice(t)))
    return model, t, z, asked, unit


@pytest.mark.parametrize("seed", range(3))
def test_radial_filter_is_the_plain_loop(seed):
    rng = np.random.default_rng(seed)
    for _ in range(8):
        model, t, z, asked, unit = draw_radial(rng)
        weight, two = WEIGHTS[rng.integers(len(WEIGHTS))], bool(rng.integers(2))
        anchor = str(rng.choice(["observation", "estimate"]))
        rounds, step = int(rng.integers(1, 4)), float(rng.choice([1.0, 0.5]))
        gamma2 = float(rng.choice([0.0, 0.3])) * unit**2
        found = radial_adaptive_filter(
            model, t, z, two_sided=two, weight=weight, anchor=anchor, iterations=rounds, step=step,
            anchor_var=gamma2, query_times=asked, tolerance=0.0,
        )  # fmt: skip
        seen = ~np.isnan(z[:, 0])
        for i, now in enumerate(t if asked is None else asked):
            past = np.arange(len(t)) <= i if asked is None else t <= now
            use = seen & (past | two)
            if not use.any():
                assert np.isnan(found.mean[i]).all()
                assert np.isinf(np.diag(found.cov[i])).all()
                continue
            lags, data = LONG(now) - t[use].astype(LONG), z[use].astype(LONG)
            lags = np.where(past[use], np.abs(lags), -np.abs(lags))
            own = asked is None and anchor == "observation" and seen[i]
            a = z[i].astype(LONG) if own else isotropic_average(model, data, lags, LONG(gamma2))
            if model.radius is not None:
                a = a / np.sqrt(a @ a) * model.radius
            for _ in range(rounds):
                x, cov = radial_average(model, data, lags, a, LONG(gamma2), weight)
                length = np.sqrt(a @ a)
                a = a + step * (x - a)
                if model.radius is not None:
                    a = a / np.sqrt(a @ a) * length
            size = np.abs(data).max() * np.exp(model.decay * max(0.0, float(-lags.min())))
            np.testing.assert_allclose(found.mean[i], a.astype(float), rtol=1e-8, atol=1e-9 * size)
            np.testing.assert_allclose(
                found.cov[i], cov.astype(float), rtol=1e-8, atol=1e-9 * np.abs(cov).max()
            )


@pytest.mark.parametrize("seed", range(4))
def test_stream_is_the_newest_estimate_of_the_batch(seed):
    """Any model of the laws: windows, anchors, rounds, both correlations, predictions."""
    pick = Seeded(seed, 77)
    done = 0
    while done < 6:
        case = draw_case(pick)
        if not isinstance(case.model, LinearSDE) or not is_definite(case.model.R):
            continue
        done += 1
        weight = pick.choice(WEIGHTS)
        options = {"weight": weight, "window": pick.integer(1, 4)}
        options["correlation"] = pick.choice(["independent", "exact"])
        if weight is not None:
            options["anchor"] = pick.choice(["observation", "estimate", "prediction"])
            options["iterations"] = pick.integer(1, 3)
        compare_stream(case.model, case.t, case.z, options, pick.choice([0.0, 0.3, 5.0]))


def compare_stream(model, t, z, options, ahead):
    stream = AdaptiveFilterStream(model, **options)
    seen = ~np.isnan(z).all(axis=1)
    for k in range(len(t)):
        found = answer(stream.update, t[k], z[k])
        if not seen[: k + 1].any():
            assert np.isnan(found[0]).all()
            continue
        wanted = answer(adaptive_filter, model, t[: k + 1], z[: k + 1], **options)
        assert_alike(found, wanted)
        if wanted is None:
            return
    at = float(t[-1] + ahead)
    if seen.any():
        wanted = answer(adaptive_filter, model, t, z, query_times=[at], **options)
        assert_alike(answer(stream.predict, at), wanted)


def answer(call, *given, **options):
    """Mean and covariance at the last time, whether digits are lost; None where it is refused."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = call(*given, **options)
        except ValueError:
            return None
    lost = any(issubclass(warning.category, BarelyDetermined) for warning in said)
    return found.mean[-1], found.cov[-1], lost


def assert_alike(found, wanted):
    assert (wanted is None) == (found is None)
    if wanted is None or found[2] or wanted[2]:
        return
    (x, P, _), (y, S, _) = found, wanted
    np.testing.assert_array_equal(np.isnan(x), np.isnan(y))
    known = ~np.isnan(y)
    sd = np.sqrt(np.diag(S)[known])
    off = np.abs(x - y)[known]
    assert (off <= 1e-6 * sd + 1e-9 * np.abs(y[known])).all()
    both = np.ix_(known, known)
    rounding = 1e-13 * (np.abs(y[known]) / sd).max(initial=0.0)  # robust weights feel it
    assert (np.abs(P[both] - S[both]) <= (1e-6 + rounding) * np.outer(sd, sd)).all()


@pytest.mark.parametrize("seed", range(4))
def test_stream_of_all_observations_is_the_batch(seed):
    rng = np.random.default_rng(seed)
    for _ in range(8):
        unit, second = 10.0 ** rng.integers(-6, 7), 10.0 ** rng.integers(-3, 4)
        d = int(rng.integers(1, 5))
        model = LinearSDE.isotropic(
            rng.choice([0.0, 0.1, 2.0]) / second,
            rng.normal(size=d // 2) / second,
            process_var=rng.choice([0.0, 0.3, 5.0]) * unit**2 / second,
            obs_var=10.0 ** rng.uniform(-3, 0) * unit**2,
            dim=d,
        )
        gamma2 = rng.choice([0.0, 0.2]) * unit**2
        t = second * np.cumsum(rng.choice([0.0, 0.1, 1.0, 7.0], 25))
        z = unit * rng.standard_normal((25, d))
        z[rng.random(25) < 0.2] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LongRecordWarning)
            stream = AdaptiveFilterStream(model, anchor_var=gamma2)
            wanted = adaptive_filter(
                model, t, z, anchor_cov=gamma2 * np.eye(d) if gamma2 else None, method="isotropic"
            )
        for k in range(25):
            found = stream.update(t[k], z[k])
            np.testing.assert_array_equal(np.isnan(found.mean[0]), np.isnan(wanted.mean[k]))
            if not np.isnan(wanted.mean[k]).any():
                atol = 1e-7 * unit
                np.testing.assert_allclose(found.mean[0], wanted.mean[k], rtol=1e-7, atol=atol)
                np.testing.assert_allclose(found.cov[0], wanted.cov[k], rtol=1e-7, atol=0.0)
