"""The same case told in other words: order of sensors, units, rows without data, batches, threads.

Whatever a view changes must change nothing in the answer, so that estimators run on a view of a
case and are held against the exact answer of the case itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from afafilter import DiscreteModel, Prior
from afafilter._base.checks import is_definite
from tests.fuzz.cases import Case, Pick


@dataclass(frozen=True)
class View:
    """A case in other words and the way back.

    at (T,) where the case's observations are; unit (d,) what states were multiplied by, log_unit
    what that adds to the log-likelihood of a flat start and time what times were; path: which path
    of z is the case's, None where there is one; order (p,): where the case's sensors are.
    """

    name: str
    case: Case
    at: Any
    unit: Any
    order: Any
    row_unit: Any
    time: float = 1.0
    path: int | None = None
    threads: int | None = None

    def own(self, value: Any) -> Any:
        """The case's part of what has leading axes of paths."""
        return value if self.path is None else value[self.path]

    def law(self, mean: Any, cov: Any) -> tuple[Any, Any]:
        """Mean (d,) and covariance (d, d) of a state, in the case's own words."""
        return mean / self.unit, cov / np.outer(self.unit, self.unit)


def itself(case: Case) -> View:
    d, p = case.model.dim, case.model.obs_dim
    return View("itself", case, np.arange(len(case.t)), np.ones(d), np.arange(p), np.ones(p))


def sensors(case: Case, pick: Pick) -> View:
    """The sensors in another order."""
    p = case.model.obs_dim
    order = pick.rng().permutation(p)
    new = _seen_through(case, lambda x: x[..., order], lambda x: x[..., order, :])
    return replace(itself(case), name="sensors", case=new, order=np.argsort(order))


def units(case: Case, pick: Pick) -> View:
    """States, sensors and time in other units, powers of two: nothing is rounded anew."""
    m, rng = case.model, pick.rng()
    s = 2.0 ** rng.integers(-20, 21, m.dim)
    if isinstance(m.prior, Prior) and m.prior.diffuse is not None:
        s[:] = s[0]  # its basis is orthonormal in one unit only
    r = 2.0 ** rng.integers(-20, 21, m.obs_dim)
    new = _seen_through(case, lambda x: x * r, lambda x: r[:, None] * x / s)
    m, prior, pair = new.model, case.model.prior, np.outer(s, s)
    if isinstance(prior, Prior):
        flat = None if prior.diffuse is None else prior.diffuse
        prior = Prior(prior.mean * s, prior.cov * pair, prior.t0, flat)
    turned = s[:, None] / s
    if isinstance(m, DiscreteModel):
        model = replace(m, F=m.F * turned, Q=m.Q * pair, b=m.b * s, prior=prior)
        return replace(
            itself(case), name="units", case=replace(new, model=model), unit=s, row_unit=r
        )
    c = 2.0 ** int(rng.integers(-30, 31))
    if isinstance(prior, Prior) and prior.t0 is not None:
        prior = Prior(prior.mean, prior.cov, prior.t0 * c, prior.diffuse)
    model = replace(
        m,
        A=m.A * turned / c,
        Q=m.Q * pair / c,
        drift=m.drift * s / c,
        delay=m.delay * c,
        prior=prior,
    )
    whole = replace(new, model=model, t=case.t * c, queries=case.queries * c)
    return replace(itself(case), name="units", case=whole, unit=s, row_unit=r, time=c)


def silent_rows(case: Case, pick: Pick) -> View:
    """Rows in which nothing is observed, after the first one."""
    if isinstance(case.model, DiscreteModel):
        return sensors(case, pick)
    rng, T = pick.rng(), len(case.t)
    extra = np.append(case.t[-1] * np.ones(1), case.t[0] + np.ptp(case.t) * rng.random(3))
    t = np.concatenate([case.t, extra])
    order = np.argsort(t, kind="stable")
    z = np.concatenate([case.z, np.full((len(extra), case.z.shape[1]), np.nan)])[order]
    R = case.obs_cov
    if R is not None:
        R = np.concatenate([R, np.broadcast_to(case.model.R, (len(extra), *R.shape[1:]))])[order]
    new = replace(case, t=t[order], z=z, obs_cov=R)
    return replace(itself(case), name="silent rows", case=new, at=np.flatnonzero(order < T))


def batch(case: Case, pick: Pick) -> View:
    """One path of several, with other gaps, under one or more threads.

    Where an exact measurement may leave nothing to chance, no path has more of them.
    """
    rng, n = pick.rng(), 5
    noise = case.model.R if case.obs_cov is None else case.obs_cov
    more = rng.standard_normal(case.z.shape) if is_definite(noise).all() else np.nan
    z = np.where(np.isnan(case.z), more, case.z)
    z = np.repeat(z[None], n, axis=0) + rng.standard_normal((n, *case.z.shape))
    z[rng.random(z.shape) < 0.3] = np.nan
    k = int(rng.integers(n))
    z[k] = case.z
    new = replace(case, z=z)
    return replace(itself(case), name="batch", case=new, path=k, threads=pick.choice([1, 4]))


def own_noise(case: Case, pick: Pick) -> View:
    """The model's R given for every observation."""
    if case.obs_cov is not None:
        return units(case, pick)
    R = np.repeat(case.model.R[None], len(case.t), axis=0)
    return replace(itself(case), name="own noise", case=replace(case, obs_cov=R))


VIEWS: tuple[Callable[[Case, Pick], View], ...] = (
    lambda case, pick: itself(case),
    sensors,
    units,
    silent_rows,
    batch,
    own_noise,
)


def draw_view(case: Case, pick: Pick) -> View:
    return pick.choice(VIEWS)(case, pick)


def _seen_through(case: Case, rows: Callable[[Any], Any], matrix: Callable[[Any], Any]) -> Case:
    """The case with rows of the data changed: z and the offset by `rows`, C by `matrix`."""
    m = case.model

    def noise(R: Any) -> Any:
        return np.swapaxes(rows(np.swapaxes(rows(R), -1, -2)), -1, -2)

    R = None if case.obs_cov is None else noise(case.obs_cov)
    if isinstance(m, DiscreteModel):
        model = replace(m, H=matrix(m.H), d=rows(m.d), R=noise(m.R))
    else:
        model = replace(m, C=matrix(m.C), offset=rows(m.offset), R=noise(m.R))
    return replace(case, model=model, z=rows(case.z), obs_cov=R)
