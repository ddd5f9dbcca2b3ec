"""How sharply log-likelihoods curve: information matrices and scales, from their exact gradients.

The objective of S problems, `objective(thetas, which)`, gives the values (M,) and gradients (M, n)
at M points, point m of problem which[m]; -inf and zeros where a model is infeasible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from afafilter._base.checks import Array

Objectives: TypeAlias = Callable[[Array, Any], tuple[Array, Array]]
Spectrum: TypeAlias = tuple[Array, Array]

DOUBTFUL_EIGENVALUE = 1e-2
"""Smaller eigenvalues are uncertain by forward differences: central ones are taken."""

SHARP_LIMIT = 8
"""With more coordinates than this their scales are not estimated in advance."""

FIRST_STEP = 0.5
"""Length of the first step, in typical sizes; 1 overshoots more often."""


def search_scales(
    objective: Objectives, start: Array, grad: Array, typical: Array, roots: Any
) -> Array:
    """Scales of the coordinates (S, n): below `typical` where the likelihood is far sharper.

    (So it is in the frequencies of long records.)
    """
    sharp = np.flatnonzero(~roots)
    scale = FIRST_STEP * typical
    if len(sharp) > SHARP_LIMIT or not len(sharp):
        return scale
    which, i = np.repeat(np.arange(len(start)), len(sharp)), np.tile(sharp, len(start))
    size = typical[which, i]
    rows = _rows(objective, (start, grad), which, i, 1e-5 * size)
    curvature = np.abs(rows[np.arange(len(i)), i])
    narrow = curvature * size**2 > 100.0
    scale[which[narrow], i[narrow]] = 10.0 / np.sqrt(curvature[narrow])
    return scale


def curvatures(
    objective: Objectives, thetas: Array, grads: Array, typical: Array
) -> tuple[Array, Spectrum]:
    """`informations` and their `spectra`, by central differences where the sign of an eigenvalue is
    uncertain.
    """
    info = informations(objective, thetas, typical, grads)
    values, vectors = spectra(info, typical)
    doubtful = np.flatnonzero(np.abs(values).min(axis=1) < DOUBTFUL_EIGENVALUE)
    if len(doubtful):

        def those(points: Array, which: Any) -> tuple[Array, Array]:
            return objective(points, doubtful[which])

        info[doubtful] = informations(those, thetas[doubtful], typical[doubtful])
        values[doubtful], vectors[doubtful] = spectra(info[doubtful], typical[doubtful])
    return info, (values, vectors)


def spectra(info: Array, typical: Array) -> Spectrum:
    """Eigenvalues of information matrices (..., n, n), eigenvectors in units of theta.

    Scaled to a unit diagonal, or by typical sizes.
    """
    diagonal = np.abs(np.diagonal(info, axis1=-2, axis2=-1))
    size = np.sqrt(np.maximum(diagonal, 10.0 / typical**2))
    values, vectors = np.linalg.eigh(info / size[..., None, :] / size[..., :, None])
    return values, vectors / size[..., None]


def informations(
    objective: Objectives, thetas: Array, typical: Array, grads: Array | None = None
) -> Array:
    """Minus the Hessians (S, n, n) at S points, by differences of the exact gradient.

    Central differences; forward ones (half the cost, relative error about 1e-5) where the gradients
    at thetas are given.
    """
    S, n = thetas.shape
    H = np.zeros((S, n, n))
    which, i = np.repeat(np.arange(S), n), np.tile(np.arange(n), S)
    h = (1e-4 if grads is None else 1e-5) * typical[which, i]
    for _ in range(4):
        H[which, i] = _rows(objective, (thetas, grads), which, i, h)
        spread = 1.0 / np.sqrt(np.maximum(np.abs(H[which, i, i]), 1e-300))
        wide = h > 0.1 * spread
        if not wide.any():
            break
        # The first step left the region where the likelihood is quadratic.
        which, i, h = which[wide], i[wide], 0.01 * spread[wide]
    return np.asarray(0.5 * (H + H.swapaxes(1, 2)))


def _rows(
    objective: Objectives, at: tuple[Array, Array | None], which: Any, i: Any, h: Array
) -> Array:
    """Row i[k] of minus the Hessian of problem which[k], by a step h[k]: (K, n)."""
    thetas, grads = at
    each = np.arange(len(which))

    def end(step: Array) -> tuple[Array, Array, Any]:
        moved = thetas[which]
        moved[each, i] += step
        value, there = objective(moved, which)
        return moved[each, i], there, np.isfinite(value)

    x, gx, fine = end(h)
    if grads is None:
        y, gy, also = end(-h)
    else:
        y, gy, also = thetas[which, i], grads[which], np.ones(len(which), bool)
    alone = ~(fine & also)
    if alone.any():
        centre = thetas[which, i][alone]
        there = objective(thetas[which[alone]], which[alone])[1] if grads is None else gy[alone]
        x[alone] = np.where(fine[alone], x[alone], y[alone])
        gx[alone] = np.where(fine[alone, None], gx[alone], gy[alone])
        y[alone], gy[alone] = centre, there
    apart = x - y
    known = (apart != 0)[:, None]
    return np.where(known, -(gx - gy) / np.where(known[:, 0], apart, 1.0)[:, None], 0.0)
