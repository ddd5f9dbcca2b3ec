"""Random attention of every kind against the N x N formulas, and its rotary limit."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import Exponential, Power, isotropic_attention, tensor_attention
from tests.attention.test_functions import WEIGHTS, dense_attention, softmax_attention, unit_vectors

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:tests.attention")
"""Of the formula, where decay is 0 and that form is not taken."""


def draw(rng):
    n, d = int(rng.integers(1, 30)), int(rng.integers(1, 4))
    unit, second = 10.0 ** rng.integers(-6, 7), 10.0 ** rng.integers(-3, 4)
    t = second * (np.cumsum(rng.choice([0.0, 0.1, 0.4], n)) + rng.choice([0.0, -3.0, 100.0]))
    q, k, v = unit * (rng.standard_normal((3, n, d, 2)) @ [1, 1j])
    k[rng.random(n) < 0.1, 0] = np.nan
    v[rng.random(n) < 0.1, -1] = np.nan
    options = {
        "decay": rng.choice([0.0, 0.2, 2.0]) / second,
        "frequency": rng.normal(size=d) / second,
        "process_var": rng.choice([0.0, 0.3]) * unit**2 / second,
        "key_var": rng.choice([0.0, 0.5]) * unit**2,
        "query_var": rng.choice([0.1, 1.0]) * unit**2,
        "weight": WEIGHTS[rng.integers(len(WEIGHTS))],
        "inverse_temperature": rng.choice([1.0, 2.3]),
        "causal": bool(rng.integers(2)),
        "backward": str(rng.choice(["exact", "symmetric"])),
        "window": [None, 1, 4][rng.integers(3)],
    }
    if options["causal"]:
        options["backward"] = "exact"
    if rng.random() < 0.3:
        m = int(rng.integers(1, n + 1))
        options["t_query"] = np.sort(rng.uniform(t[0] - second, t[-1] + second, m))
        options["n_visible"] = np.searchsorted(t, options["t_query"], side="right")
        q = q[:m]
    return q, k, v, t, options


def compare(found, q, k, v, t, options):
    """With the formula for the keys that are complete: the others do not count, nor in windows."""
    known = ~(np.isnan(k).any(axis=1) | np.isnan(v).any(axis=1))
    seen = options.get("n_visible", np.arange(1, len(t) + 1))
    alone = {
        "t_query": t,
        **options,
        "n_visible": np.append(0, np.cumsum(known))[seen],
    }
    output, weights, precision = dense_attention(q, k[known], v[known], t[known], **alone)
    if found.precision.ndim == 1:
        precision, weights = precision[:, 0], weights[0]
    np.testing.assert_allclose(found.precision, precision, rtol=1e-8)
    some = precision > 0 if precision.ndim == 1 else (precision > 0).all(axis=-1)
    assert (found.weights[..., ~known] == 0).all()
    got, wanted = found.weights[..., some, :][..., known], weights[..., some, :]
    np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-9)
    size = np.abs(np.append(v[known], output[some])).max(initial=0.0)
    np.testing.assert_allclose(found.output[some], output[some], rtol=1e-8, atol=1e-8 * size)
    assert np.isnan(found.output[~some]).any(axis=-1).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("attention", [isotropic_attention, tensor_attention])
def test_is_the_dense_formula(attention, seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        q, k, v, t, options = draw(rng)
        if attention is tensor_attention:
            d = q.shape[1]
            for name in ("decay", "process_var", "key_var", "query_var"):
                options[name] = options[name] * rng.uniform(0.5, 1.5, d)
            if rng.random() < 0.5:
                options["prior_precision"] = rng.uniform(0.1, 1.0, d) / options["query_var"]
        found = attention(q, k, v, t, **options, return_weights=True)
        compare(found, q, k, v, t, options)


@pytest.mark.parametrize("seed", range(4))
def test_the_rotary_limit(seed):
    """Still dynamics, q and k of one length: rotary softmax attention, up to 1 / (nu gamma^2)."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        n, d, unit = int(rng.integers(2, 30)), int(rng.integers(1, 4)), 10.0 ** rng.integers(-4, 5)
        t = np.cumsum(rng.choice([0.0, 0.1, 0.4], n)) + rng.choice([0.0, -3.0])
        q, k = unit_vectors(rng, n, d), unit_vectors(rng, n, d)
        v, frequency = rng.standard_normal((n, d)) + 0j, rng.normal(size=d)
        sharpness, kappa, nu = rng.uniform(0.5, 5.0), rng.uniform(0.5, 2.0), rng.uniform(2.0, 8.0)
        wanted, _ = softmax_attention(q, k, v, t, frequency, sharpness)
        still = {"decay": 0.0, "frequency": frequency, "process_var": 0.0, "key_var": 0.0}
        still["query_var"] = 0.5 * unit**2
        exact = isotropic_attention(
            unit * q,
            unit * k,
            v,
            t,
            **still,
            weight=Exponential(nu),
            inverse_temperature=sharpness * nu / 4,
        )
        np.testing.assert_allclose(exact.output, wanted, atol=1e-12)
        scale = 1e5
        still["query_var"] = scale / nu * unit**2
        near = isotropic_attention(
            unit * q,
            unit * k,
            v,
            t,
            **still,
            weight=Power(nu, kappa),
            inverse_temperature=sharpness * scale / (2 * kappa),
        )
        off = np.abs(near.output - wanted).max()
        assert off <= 8 * sharpness / scale * np.abs(v).max()
