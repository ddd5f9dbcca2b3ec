"""What flat directions leave undetermined: NaN means, infinite variances, and functionals of both.

A law with open directions is

    x = mean + N gamma + e,   e ~ N(0, cov),   gamma (r,) without prior,

and what it says of a functional h x depends on h N alone: where that is zero, h x is known, with
mean h mean and variance h cov h, although components of x may not be; where it is not, nothing at
all is known of h x. Zero means: not larger than |h| times the rounding of N, which comes with N
(`afafilter.linalg.subspaces`).

Reported are NaN for an undetermined mean, inf for its variance and 0 for its covariances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, ObsMask

Index = NDArray[np.intp]
RESOLUTION = 1e5 * 32 * np.finfo(float).eps
"""Part of a mean that a few of its roundings are worth as standard deviations (`_base.doubts`)."""


class OpenLaw(NamedTuple):
    """Laws with open directions, at some times of some paths.

    paths (n,) positions among the flattened paths, at (k,) on the time axis; mean (n, k, d) and
    cov (k, d, d) given gamma = 0; directions (k, r, d), each a row, and up to where an entry of
    them counts as zero, rounding (k, r, d).
    """

    paths: Index
    at: Index
    mean: Array
    cov: Array
    directions: Array
    rounding: Array

    def moved(self, H: Array | None = None) -> ObsMask:
        """Which rows of H (p, d) or (k, p, d), of x itself by default, gamma moves: (k, p)."""
        shown, rounding = self._seen(H)
        return np.asarray(~(np.abs(shown) <= rounding).all(axis=-2))

    def _seen(self, H: Array | None) -> tuple[Array, Array]:
        """What rows of H show of the directions (k, r, p), and its rounding."""
        if H is None:
            return self.directions, self.rounding
        turned = np.swapaxes(H, -1, -2)
        return self.directions @ turned, self.rounding @ np.abs(turned)

    def hidden(self, H: Array | None = None, single: bool = False) -> float:
        """By how many standard deviations of H x gamma moves what it counts as not moving.

        gamma is as large as the largest ratio of a mean to what moves it. single: only of rows that
        show one component that gamma moves, and otherwise what it does not.
        """
        shown, rounding = self._seen(H)
        left = np.abs(shown)
        hides = (left <= rounding) & (left > 0)
        if not np.count_nonzero(hides):
            return 0.0
        left = np.where(hides, left, 0.0)
        size, mean, cov = np.abs(self.directions), np.abs(self.mean).max(axis=0), self.cov
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            gamma = np.where(size > self.rounding, mean[:, None] / size, 0.0).max(axis=-1)
            off = (left * gamma[..., None]).sum(axis=1)
            if H is not None:
                mean = np.einsum("...pd,...d->...p", np.abs(H), mean)
                cov = H @ cov @ np.swapaxes(H, -1, -2)
            sd = np.sqrt(np.einsum("kii->ki", cov)) + RESOLUTION * mean
            known = ~self.moved(H)
            if H is not None and single:
                known &= np.count_nonzero((H != 0) & self.moved()[:, None], axis=-1) == 1
            off = np.where((sd > 0) & known, off / sd, 0.0)
        return float(np.nan_to_num(off).max())

    def report(self) -> tuple[Array, Array]:
        """mean (n, k, d) and cov (k, d, d) as they are reported."""
        return mark(self.mean, self.cov, self.moved())


def functional_laws(
    paths: Index, start: int, mean: Array, cov: Array, directions: Array, rounding: Array
) -> list[OpenLaw]:
    """Laws of mean (n, k, d) and cov (1 or n, k, d, d) at the times start, start + 1, ...

    directions, rounding : (1 or n, k, r, d). Only of times at which functionals of undetermined
    components may be known: where the directions are fewer than these.
    """
    laws = []
    for g in range(len(directions)):
        size = np.abs(directions[g]).max(axis=(-2, -1), initial=0.0)
        at = np.flatnonzero((size > 0) & np.isfinite(size))
        size = np.abs(directions[g, at]).max(axis=-1, keepdims=True)
        rank = np.linalg.matrix_rank(directions[g, at] / np.where(size > 0, size, 1.0))
        shows = np.abs(directions[g, at]) > rounding[g, at]
        at = at[rank < np.count_nonzero(np.any(shows, axis=-2), axis=-1)]
        if len(at):
            own = slice(None) if len(directions) == 1 else slice(g, g + 1)
            spread = cov[min(g, len(cov) - 1), at]
            which = directions[g, at], rounding[g, at]
            laws.append(OpenLaw(paths[own], start + at, mean[own, at], spread, *which))
    return laws


def hidden(open_laws: Sequence[OpenLaw], H: Array | None = None, single: bool = False) -> float:
    """The largest of what laws with open directions hide; H (p, d) or (T, p, d) at all times."""
    rows = [H if H is None or H.ndim == 2 else H[law.at] for law in open_laws]
    return max([law.hidden(G, single) for law, G in zip(open_laws, rows, strict=True)], default=0.0)


def barely_known(open_laws: Sequence[OpenLaw], H: Array) -> float:
    """The same of components, and of rows of H that show one component that is open and others."""
    found, mixes = 0.0, np.count_nonzero(H) > 1
    for r in {law.directions.shape[-2] for law in open_laws}:  # all of one rank at once: many paths
        laws = [law for law in open_laws if law.directions.shape[-2] == r]
        directions = np.concatenate([law.directions for law in laws])
        opened = ~(np.abs(directions) <= np.concatenate([law.rounding for law in laws]))
        if np.count_nonzero(directions) > np.count_nonzero(opened):
            found = max(found, hidden(laws))
        if not mixes:
            continue
        rows = H if H.ndim == 2 else H[np.concatenate([law.at for law in laws])]
        shown = (rows != 0) & opened.any(axis=-2)[:, None]
        if 1 in np.add.reduce(shown, axis=-1, dtype=int):
            found = max(found, hidden(laws, H, single=True))
    return found


def mark(mean: Array, cov: Array, unknown: ObsMask) -> tuple[Array, Array]:
    """NaN means, infinite variances and zero covariances where unknown (..., d).

    mean (..., d), cov (..., d, d): leading axes are those of `unknown`, means may have more.
    """
    unknown = unknown | ~np.isfinite(np.diagonal(cov, axis1=-2, axis2=-1))
    mean = np.where(unknown, np.nan, mean)
    cov = np.where(unknown[..., :, None] | unknown[..., None, :], 0.0, cov)
    np.einsum("...ii->...i", cov)[unknown] = np.inf
    return mean, cov


def image(H: Array, mean: Array, open_laws: Sequence[OpenLaw] = ()) -> Array:
    """H x (..., T, p) from the means (..., T, d), NaN where it is undetermined.

    H : (p, d) or (T, p, d). open_laws: what is known where components are undetermined but
    functionals of them may not be.
    """
    H = np.broadcast_to(H, (mean.shape[-2], *H.shape[-2:]))
    unknown = np.isnan(mean)
    out: Array = np.einsum("tpd,...td->...tp", H, np.where(unknown, 0.0, mean))
    if not unknown.any():
        return out
    out[_touched(H, unknown)] = np.nan
    flat = out.reshape(-1, *out.shape[-2:])
    for law in open_laws:
        G = H[law.at]
        known = np.einsum("kpd,nkd->nkp", G, law.mean)
        flat[np.ix_(law.paths, law.at)] = np.where(law.moved(G), np.nan, known)
    return out


def through(
    H: Array, mean: Array, cov: Array, open_laws: Sequence[OpenLaw] = ()
) -> tuple[Array, Array]:
    """Mean (..., T, p) and covariance (..., T, p, p) of H x, undetermined where they are.

    H (p, d) or (T, p, d); mean and cov as reported, NaN and inf where undetermined; cov NaN where
    none is claimed.
    """
    H = np.broadcast_to(H, (mean.shape[-2], *H.shape[-2:]))
    turned = np.swapaxes(H, -1, -2)
    unknown = np.isinf(np.diagonal(cov, axis1=-2, axis2=-1))
    if not unknown.any():
        return image(H, mean), H @ cov @ turned
    pair = unknown[..., :, None] | unknown[..., None, :]
    spread = H @ np.where(pair, 0.0, cov) @ turned
    where = _touched(H, unknown)
    _, spread = mark(np.zeros(where.shape), spread, where)
    flat = spread.reshape(-1, *spread.shape[-3:])
    for law in open_laws:
        G = H[law.at]
        known = G @ law.cov @ np.swapaxes(G, -1, -2)
        flat[np.ix_(law.paths, law.at)] = mark(np.zeros(known.shape[:-1]), known, law.moved(G))[1]
    shown = image(H, mean, open_laws)
    unclaimed = np.asarray(np.isnan(cov).any(axis=(-2, -1)))
    if unclaimed.any():
        point = unclaimed[..., None] & ~np.isnan(shown)
        spread = np.where(point[..., :, None] & point[..., None, :], np.nan, spread)
    return shown, spread


def _touched(H: Array, unknown: ObsMask) -> ObsMask:
    """Which rows of H (T, p, d) take in an unknown component (..., T, d)."""
    touched = np.einsum("tpd,...td->...tp", (H != 0).astype(float), unknown.astype(float)) > 0
    return np.asarray(touched, bool)


def chosen(open_laws: Sequence[OpenLaw], times: Index) -> tuple[OpenLaw, ...]:
    """The laws at some of the times (k,), which become times 0, 1, ..."""
    out = []
    for paths, at, mean, *rest in open_laws:
        where = np.flatnonzero(np.isin(times, at))
        if len(where):
            kept = np.searchsorted(at, times[where])
            out.append(OpenLaw(paths, where, mean[:, kept], *(part[kept] for part in rest)))
    return tuple(out)
