"""limits: six limits in which AFA becomes something known, each with its measured rate.

Rotary and softmax attention, ALiBi, the Kalman filter, the raw observation and unitary dynamics:
the largest deviation from the limit against the parameter that is driven to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from afafilter import Power, adaptive_filter, elliptic_spiral, isotropic_attention, kalman_filter
from afafilter.plotting import figure, paper_style, shades
from simulations._common import save

Array = NDArray[np.float64]
N, D = 48, 8
SCALE = 2.0
"""2 kappa beta / (nu gamma^2): the logit scale of the dot product, held fixed."""


def softmax_attention(q: Array, k: Array, v: Array, t: Array, frequency: Array) -> Array:
    """Causal rotary dot-product attention with value rotation, written out plainly."""

    def turn(x: Array, sign: float) -> Array:
        c = (x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(sign * 1j * np.outer(t, frequency))
        return c

    qs, ks, vs = (turn(x, -1.0) for x in (q, k, v))
    logits = SCALE * (qs @ ks.conj().T).real
    logits[np.triu_indices(len(t), 1)] = -np.inf
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    c = (weights @ vs) * np.exp(1j * np.outer(t, frequency))
    return np.stack([c.real, c.imag], axis=-1).reshape(v.shape)


def unit_rows(rng: np.random.Generator) -> Array:
    x = rng.standard_normal((N, D))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def dot_product_error(frequency: Array) -> Callable[[float], float]:
    """Distance to (rotary) dot-product attention when nu gamma^2 = value."""
    rng = np.random.default_rng(0)
    q, k, v = unit_rows(rng), unit_rows(rng), rng.standard_normal((N, D))
    t = np.sort(rng.uniform(0, 10, N))
    wanted = softmax_attention(q, k, v, t, frequency)

    def error(value: float) -> float:
        got = isotropic_attention(
            q, k, v, t, decay=0.0, frequency=frequency, process_var=0.0, key_var=0.0,
            query_var=value, weight=Power(nu=1.0, kappa=SCALE * value / 2),
        ).output  # fmt: skip
        return float(np.abs(got - wanted).max())

    return error


def alibi_error(value: float) -> float:
    """Distance of the centred log weight from -slope * lag when sigma^2 = value."""
    t = np.arange(N, dtype=float)
    weights = adaptive_filter(
        elliptic_spiral(0.0, 1.0, process_var=value, obs_var=1.0),
        t,
        np.zeros((N, 2)),
        return_weights=True,
    ).weights
    assert weights is not None
    bias = np.log(weights[-1] / weights[-1, -1])
    return float(np.abs(bias + value * (t[-1] - t)).max())


def filter_error(model_of: Callable[[float], object], limit: str) -> Callable[[float], float]:
    """Distance of plain AFA from the flat-prior Kalman filter or from the raw observation."""
    t = np.cumsum(np.random.default_rng(1).exponential(0.2, N))
    z = np.random.default_rng(2).standard_normal((N, 2))

    def error(value: float) -> float:
        model = model_of(value)
        got = adaptive_filter(model, t, z).mean
        wanted = z if limit == "raw" else kalman_filter(model, t, z).mean
        return float(np.abs(got - wanted).max())

    return error


def unitary_error(value: float) -> float:
    """Distance from the running mean of unrotated observations when mu = sigma^2 = value."""
    t = np.cumsum(np.random.default_rng(1).exponential(0.2, N))
    z = np.random.default_rng(2).standard_normal((N, 2))
    model = elliptic_spiral(value, 1.0, process_var=value, obs_var=1.0)
    to_circle = np.linalg.inv(np.linalg.cholesky(model.R)).T
    got = adaptive_filter(model, t, z).mean @ to_circle
    turning = z @ to_circle @ [1, 1j] * np.exp(-1j * t)
    c = np.exp(1j * t) * np.cumsum(turning) / np.arange(1, N + 1)
    return float(np.abs(got @ [1, 1j] - c).max())


def flat(**settings: float) -> object:
    return replace(elliptic_spiral(0.1, 1.0, **settings), prior="diffuse")


PANELS: dict[str, tuple[str, Array, Callable[[float], float]]] = {
    "rotary attention": (
        r"$\nu\gamma^2$",
        10.0 ** np.arange(1, 7),
        dot_product_error(np.array([1.0, 0.5, 0.2, 0.1])),
    ),
    "softmax attention": (
        r"$\nu\gamma^2$",
        10.0 ** np.arange(1, 7),
        dot_product_error(np.zeros(4)),
    ),
    "ALiBi": (r"$\sigma^2$", 10.0 ** -np.arange(2.0, 8.0), alibi_error),
    "Kalman filter": (
        r"$\sigma^2$",
        10.0 ** -np.arange(1.0, 7.0),
        filter_error(lambda s: flat(process_var=s, obs_var=1.0), "kalman"),
    ),
    "raw observation": (
        r"$\sigma^2$",
        10.0 ** np.arange(2, 8),
        filter_error(lambda s: flat(process_var=s, obs_var=1.0), "raw"),
    ),
    "unitary dynamics": (r"$\mu=\sigma^2$", 10.0 ** -np.arange(2.0, 8.0), unitary_error),
}


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write limits.{png,pdf,csv,tex,json} into `out_dir`."""
    rows = []
    with paper_style():
        fig, axes = figure(3, 2, height=4.8)
        for ax, (name, (symbol, values, error)) in zip(axes.flat, PANELS.items(), strict=True):
            errors = np.array([error(float(value)) for value in values])
            rate = np.polyfit(np.log(values[-3:]), np.log(errors[-3:]), 1)[0]
            ax.loglog(values, errors, "o-", color=shades(1)[0])
            ax.set_title(name, loc="left")
            low = rate < 0  # the curve falls: room on the right
            ax.text(
                0.95 if low else 0.05,
                0.93,
                f"rate ${rate:+.2f}$",
                transform=ax.transAxes,
                ha="right" if low else "left",
                va="top",
            )
            ax.set_xlabel(f"{symbol} " + (r"$\to\infty$" if values[-1] > values[0] else r"$\to0$"))
            rows.append({"limit": name, "driven": symbol, "rate": rate, "last error": errors[-1]})
        for ax in axes[:, 0]:
            ax.set_ylabel("largest deviation")
        return save(
            fig,
            out_dir,
            "limits",
            pd.DataFrame(rows),
            caption=(
                "The paper's elliptical spiral: largest deviation of AFA from six known limits "
                "against the parameter that is driven to the limit, with the slope of the last "
                "three points in log-log scale."
            ),
            config={"n": N, "d": D, "scale": SCALE},
        )
