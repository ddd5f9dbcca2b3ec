"""Compare estimators on the same simulated data, with honest uncertainty.

Every estimator sees the same paths (common random numbers), so that differences between
estimators are paired and far better known than the scores themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import generator, positive_int, times
from afafilter._base.progress import watched
from afafilter.results import Trajectories
from afafilter.scoring.inputs import Steps, checked_lags, checked_levels, chosen_steps
from afafilter.scoring.score import LEVELS
from afafilter.studies.batch import (
    Estimator,
    Experiment,
    Outcome,
    batches,
    checked_estimators,
    join_outcomes,
    refuse_other_width,
    run_batch,
)
from afafilter.studies.comparison import Comparison


def compare(
    estimators: Mapping[str, Estimator | str] | Sequence[Estimator | str],
    model: Any,
    t: ArrayLike,
    n_paths: int,
    *,
    rng: np.random.Generator | int,
    n_jobs: int | None = None,
    x0: Any = None,
    outliers: Any = None,
    missing: ArrayLike = 0.0,
    estimator_model: Any = None,
    steps: Steps = None,
    levels: Sequence[float] = LEVELS,
    energy: bool = False,
    lags: int | None = None,
    simulator: Callable[..., Trajectories] | None = None,
    chunk_size: int | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Simulate paths, run every estimator on all of them, and score.

    Parameters
    ----------
    estimators : mapping or sequence of callable
        Name -> f(model, t, z) -> Estimate (bind options by `functools.partial`), or a
        list of such functions, named by the label of what they return. In place of a function
        a name of `afafilter.catalog`, such as "kalman" or "irks".
    model
        The truth.
    estimator_model
        What estimators are given; None = the truth.
    t : array_like, shape (T,)
        Times.
    n_paths : int
        Number of paths.
    rng : Generator or int
        Generator; every batch of paths gets its own child.
    n_jobs : int, optional
        Joblib workers. None: 1, or what the surrounding `joblib.parallel_config` says.
    x0, outliers, missing
        As in `simulate`; x0 may also be a function (rng, n) -> (n, d), e.g.
        `Shell(20, 3)`: radius 20 +- 3 in random directions.
    steps : slice or array_like, optional
        Which times are scored, e.g. slice(20, None); None = all.
    levels, energy, lags
        As in `score`.
    simulator : callable, optional
        Replaces `simulate` (same signature), for a truth that is no linear SDE.
    chunk_size : int, optional
        Paths per batch; None = 64, fewer for long or high-dimensional problems. Another
        size draws other numbers.
    progress : bool, optional
        Bar on stderr; None = when stderr is a terminal.

    Returns
    -------
    Comparison
        Numbers are the same for every n_jobs and backend. An estimator that raises is recorded in
        `.errors`; the others finish.

    Raises
    ------
    ValueError, TypeError
        Bad arguments, before anything runs; whatever the simulator raises.

    Notes
    -----
    Memory: one batch of estimates per worker, plus the sums per path.

    Examples
    --------
    >>> from afafilter import compare, kalman_filter, raw_observation, spiral
    >>> found = compare([kalman_filter, raw_observation], spiral(), range(50), 20, rng=0)
    >>> found.intervals("rmse")["estimator"].tolist()
    ['Kalman', 'raw']
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    grid = times(t)
    n, rng = positive_int(n_paths, "n_paths"), generator(rng)
    assumed = model if estimator_model is None else estimator_model
    refuse_other_width(model, assumed, "estimator_model")
    named = checked_estimators(estimators, assumed, grid)
    checked_levels(levels)
    checked_lags(lags, len(grid[chosen_steps(steps, len(grid))]))
    job = Experiment(
        named, model, assumed, grid, x0, outliers, missing, steps, levels, energy, lags, simulator
    )
    parts = batches(job, n, rng, chunk_size)
    done = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(run_batch)(*x) for x in parts)
    quiet = not (watched() if progress is None else progress)
    shown = tqdm(done, total=len(parts), disable=quiet, unit="batch", leave=False)
    joined: dict[str, Outcome] = join_outcomes(shown)
    return Comparison(
        {name: x.score for name, x in joined.items() if x.score is not None},
        {name: x.seconds for name, x in joined.items()},
        {name: x.error for name, x in joined.items() if x.error is not None},
        grid,
        n,
        tuple(joined),
    )
