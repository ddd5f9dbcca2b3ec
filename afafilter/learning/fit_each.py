"""Many series fitted in one call, each with parameters of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, given, observations, positive_int, scalar, times
from afafilter._base.containers import takes_tables
from afafilter._base.masks import unmasked
from afafilter._base.progress import waiting
from afafilter._base.shown import ShownAsText
from afafilter.learning.family import Family
from afafilter.learning.family_text import model_or_family
from afafilter.learning.fit import fit, refuse_degenerate, refuse_few
from afafilter.learning.likelihood_each import EachObjective
from afafilter.learning.optimise_each import ENOUGH, Stopping
from afafilter.learning.parameters.parametrisation import FamilyParameters, family_start
from afafilter.learning.problem import FitWarning, Problem
from afafilter.learning.result import FitResult
from afafilter.learning.search_each import promising, search_each
from afafilter.learning.solve import solve
from afafilter.likelihood.data import SeriesBatch
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class FitResults(ShownAsText):
    """Fits of many series: a table, and a `FitResult` of each.

    `results[k]`, `len` and iteration give single fits.

    Attributes
    ----------
    names : tuple of str
        The parameters.
    labels : tuple
        What each series is called; 0, 1, ... unless given.
    errors : dict
        Position -> why that series could not be fitted.
    time_unit : str
        As of `FitResult`.
    """

    names: tuple[str, ...]
    labels: tuple[Any, ...]
    errors: dict[int, str]
    found: tuple[FitResult | None, ...]
    time_unit: str = ""

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, k: int) -> FitResult:
        """The fit of series k.

        Raises
        ------
        ValueError
            If that series could not be fitted; the message says why.
        """
        one = self.found[k]
        if one is None:
            k %= len(self)
            raise ValueError(f"series {self.labels[k]!r} was not fitted: {self.errors[k]}")
        one.verified()
        return replace(one, time_unit=self.time_unit) if self.time_unit else one

    def __iter__(self) -> Iterator[FitResult]:
        return (self[k] for k in range(len(self)))

    @cached_property
    def params(self) -> Array:
        """Estimates (S, n); NaN where a series was not fitted."""
        return self._values(lambda one: list(one.params.values()), len(self.names))

    @cached_property
    def std_errors(self) -> Array:
        """Standard errors (S, n) of `params`."""
        return self._values(lambda one: list(one.std_errors.values()), len(self.names))

    @cached_property
    def loglik(self) -> Array:
        """Maximised log-likelihoods (S,)."""
        return self._values(lambda one: [one.loglik], 1)[:, 0]

    @property
    def converged(self) -> Any:
        """(S,) bool."""
        return np.array([one is not None and one.converged for one in self.found])

    def _values(self, of: Any, n: int) -> Array:
        rows = [[np.nan] * n if one is None else of(one) for one in self.found]
        return np.array(rows, float).reshape(len(rows), n)

    def to_pandas(self) -> pd.DataFrame:
        """One row per series.

        Columns: each parameter and its standard error ("<name>_std_error"), loglik, n_obs,
        converged, message.
        """
        import pandas as pd

        columns: dict[str, Any] = {}
        for i, name in enumerate(self.names):
            columns[name] = self.params[:, i]
            columns[f"{name}_std_error"] = self.std_errors[:, i]
        columns["loglik"] = self.loglik
        columns["n_obs"] = [0 if one is None else one.n_obs for one in self.found]
        columns["converged"] = self.converged
        columns["message"] = [
            self.errors[k] if one is None else one.trouble or one.message
            for k, one in enumerate(self.found)
        ]
        return pd.DataFrame(columns, index=pd.Index(self.labels, name="series"))

    def __str__(self) -> str:
        head = f"Fits of {len(self)} series, {int(self.converged.sum())} of them converged"
        low, middle, high = np.nanquantile(self.params, (0.0, 0.5, 1.0), axis=0)
        width = max(map(len, self.names))
        lines = [head, "", f"{'':<{width}} {'least':>12} {'median':>12} {'largest':>12}"]
        lines += [
            f"{name:<{width}} {a:>12.5g} {b:>12.5g} {c:>12.5g}"
            for name, a, b, c in zip(self.names, low, middle, high, strict=True)
        ]
        return "\n".join(lines)


@takes_tables
def fit_each(
    model: LinearSDE | DiscreteModel | Family | str,
    t: ArrayLike | None = None,
    z: ArrayLike | None = None,
    *,
    labels: Sequence[Any] | None = None,
    max_iter: int = 500,
    tolerance: float = 1e-6,
    **options: Any,
) -> FitResults:
    """Fit a model to each of many series, which share nothing but their times.

    (`fit` takes such data as paths of one model, with one set of parameters.)

    Parameters
    ----------
    model : LinearSDE or DiscreteModel or Family or str
        As in `fit`. Starting values that are guessed are guessed for each series.
    t : array_like, shape (T,), optional
        Times, common to all series; what a series does not have is NaN. A
        `DiscreteModel` may leave them out.
    z : array_like, shape (S, T, p) or (S, T) where p = 1
        Observations, NaN = missing, booleans 0 and 1.
    labels : sequence, optional
        S names of the series, for the table.
    max_iter, tolerance
        As in `fit`.
    **options
        Further options of `fit` (free, method, starts, ...).

    Returns
    -------
    FitResults
        A series that cannot be fitted (no observation, too few, all equal) has its reason there
        and NaN in the table; the others are fitted.

    Raises
    ------
    ValueError, TypeError
        Arguments that are bad for every series.

    Warns
    -----
    FitWarning
        Once: how many did not converge, leave parameters open or lack a constant.

    Notes
    -----
    Of a `Family` without further options the searches go side by side (BFGS, then the Newton
    steps of `fit`), all likelihoods and gradients of a round in one call of the core, on all
    threads. Otherwise series are fitted one after the other. Either way the optimum is the one that
    `fit` reports, within the tolerance; a cycle is searched from the same peaks of a periodogram.

    Examples
    --------
    >>> import numpy as np
    >>> from afafilter import fit_each
    >>> rng = np.random.default_rng(0)
    >>> z = np.cumsum(rng.standard_normal((3, 50)), axis=1) + rng.standard_normal((3, 50))
    >>> found = fit_each("brownian + noise", np.arange(50.0), z, labels=["a", "b", "c"])
    >>> list(found.to_pandas().index), found.converged.all()
    (['a', 'b', 'c'], np.True_)
    """
    max_iter = positive_int(max_iter, "max_iter")
    tolerance = scalar(tolerance, "tolerance", low=0.0, strict=True)
    model = model_or_family(model, t)
    values = _series(z, None if t is None else len(times(t)), model.obs_dim)
    named = tuple(range(len(values)) if labels is None else labels)
    if len(named) != len(values):
        raise ValueError(f"labels must name {len(values)} series, got {len(named)}")
    stopping = Stopping(max_iter, tolerance)
    errors: dict[int, str] = {}
    with waiting(f"fitting {len(values)} series"):
        if isinstance(model, Family) and not options:
            found = _fit_side_by_side(model, times(given(t, "t")), values, stopping, errors)
        else:
            found = _fit_one_by_one(model, t, values, {**options, **stopping._asdict()}, errors)
    fits = [one for one in found if one is not None]
    if not fits:
        raise ValueError(f"no series can be fitted; the first: {errors[0]}")
    _warn(fits, errors)
    return FitResults(tuple(fits[0].params), named, errors, tuple(found))


def _series(z: Any, T: int | None, p: int) -> Array:
    """Observations (S, T, p)."""
    shape = np.shape(given(z))
    if p == 1 and len(shape) == 2 and T in (None, shape[1]):
        z = unmasked(z, "z")[..., None]
        shape = z.shape
    if len(shape) != 3:
        raise ValueError(
            f"z must have shape (S, T, p), one series of T rows for each of S, got {shape}; "
            "one series: use fit"
        )
    return observations(z, shape[1] if T is None else T, p)


def _warn(fits: Sequence[FitResult], errors: dict[int, str]) -> None:
    lost = sum(not one.converged for one in fits)
    vague = sum(one.converged and bool(one.unidentified) for one in fits)
    counts = {"did not converge": lost, "leave parameters open": vague}
    counts["lack a constant"] = sum(bool(one.off_level) for one in fits)
    counts["were not fitted"] = len(errors)
    said = [f"{number} {what}" for what, number in counts.items() if number]
    if said:
        total = len(fits) + len(errors)
        words = f"of {total} series " + ", ".join(said) + "; to_pandas() says which and why"
        warnings.warn(words, FitWarning, stacklevel=3)


def _fit_one_by_one(
    model: Any, t: Any, values: Array, options: dict[str, Any], errors: dict[int, str]
) -> list[FitResult | None]:
    """`fit` of each series; why it refuses one goes to `errors`."""
    found: list[FitResult | None] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        for k, z in enumerate(values):
            try:
                found.append(fit(model, t, z, **options))
            except ValueError as error:
                errors[k] = str(error)
                found.append(None)
    return found


def _fit_side_by_side(
    family: Family, t: Array, values: Array, stopping: Stopping, errors: dict[int, str]
) -> list[FitResult | None]:
    """All fits by batched searches."""
    batch = SeriesBatch.of(t, values)
    problems: list[Problem] = []
    kept: list[int] = []
    par: Any = None
    for k, z in enumerate(values):
        try:
            data = batch.data(k)
            refuse_degenerate(z, data)
            begin = family_start(family, t, z)
            par = FamilyParameters(family, *begin) if par is None else par.restarted(*begin)
            refuse_few(data, len(par.names), par.flat.shape[1])
        except ValueError as error:
            errors[k] = str(error)
            continue
        problems.append(Problem(par, data, z, stopping))
        kept.append(k)
    found: list[FitResult | None] = [None] * len(values)
    if not problems:
        return found
    for k, one in zip(kept, _search(par, batch.subset(kept), problems), strict=True):
        if isinstance(one, str):
            errors[k] = one
        else:
            found[k] = one
    return found


def _search(
    par: FamilyParameters, batch: SeriesBatch, problems: Sequence[Problem]
) -> Iterator[FitResult | str]:
    """The fit of each problem, or the reason why there is none."""
    objective = EachObjective(problems, (par, batch))
    starts = promising(objective, [problem.parametrisation.starts() for problem in problems])
    found = search_each(objective, starts, ENOUGH)
    for problem, each in zip(problems, found, strict=True):
        yield (
            "the likelihood does not exist at the start"
            if each is None
            else FitResult.of(problem, *each, solve)
        )
