"""What `afafilter animate` does: read or draw a series, film adaptive filter attention on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from afafilter._base.checks import Array, scalar
from afafilter.catalog import estimator_from_spec
from afafilter.cli.estimate import estimator_options
from afafilter.cli.reading import Task, one_path, read
from afafilter.cli.shared import prepare
from afafilter.cli.simulate import start_of
from afafilter.io.model_toml import model_from_table, read_model
from afafilter.io.sidecar import write_record

if TYPE_CHECKING:
    from afafilter.models.sde import LinearSDE

DRAWN: dict[str, Any] = {"count": 100, "dt": 0.1, "seed": 0, "x0": None, "outlier_rate": None}
"""What simulated data are drawn by, where nothing else is said."""
OPTION_OF = {"count": "--n", "outlier_rate": "--outlier-rate"}


Shown: TypeAlias = tuple[Array, Array, Array | None, Mapping[str, Any]]
"""Times, observations and the truth of the film, and for the record what they were."""


def animate_command(task: Task) -> Iterator[str]:
    """Behind `afafilter animate`."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    from afafilter.models.sde import LinearSDE
    from afafilter.plotting.animation import animate
    from afafilter.plotting.film import film_path

    target, force, options = task.target, task.force, task.options
    model, preset = options["model"], options["preset"]
    film_path(target)
    prepare(target, force, inputs=(task.data, model))
    if (model is None) == (preset is None):
        raise ValueError("give either --model or --preset")
    system: Any = read_model(model) if model else model_from_table({"preset": preset}, "--preset")
    if not isinstance(system, LinearSDE):
        raise ValueError("animate needs a LinearSDE (A, Q), not a DiscreteModel (F)")
    function = estimator_from_spec("afa", estimator_options("afa", options))
    t, z, truth, record = _drawn(system, options) if task.data is None else _read(system, task)
    look: dict[str, Any] = {name: options[name] for name in ("frames", "fps")}
    if options["components"] is not None:
        look["components"] = _components(options["components"])
    animate(target, system, t, z, truth=truth, force=force, **look, **function.keywords)
    config = {"command": "animate", "model": system, "options": function.keywords}
    config |= look | dict(record)
    sidecar = write_record(target, config, force)
    yield f"wrote {target} ({min(options['frames'], len(t))} frames) and {sidecar}"


def _read(system: LinearSDE, task: Task) -> Shown:
    """One path of the data."""
    reading, path = task.reading, task.options["path"]
    for name in DRAWN:
        if task.options[name] is not None:
            option = OPTION_OF.get(name, f"--{name}")
            raise ValueError(f"{option} is for simulated data: leave it out, or leave out DATA")
    panel = read(reading, system)
    series = one_path(panel, path, "a film is about")
    if series.inputs is not None or series.obs_cov is not None:
        raise ValueError("animate takes no --input and no --errors")
    record = {**reading.config(), "path": path, "values": panel.columns}
    return series.t, series.z, None, record


def _drawn(system: LinearSDE, options: Mapping[str, Any]) -> Shown:
    """Simulated data, from ten standard deviations of the noise along the first state."""
    from afafilter.simulation.contamination import Outliers
    from afafilter.simulation.simulate import simulate

    chosen = {k: usual if options[k] is None else options[k] for k, usual in DRAWN.items()}
    step = scalar(chosen["dt"], "--dt", low=0.0, strict=True)
    t: Array = step * np.arange(chosen["count"], dtype=np.float64)
    start = start_of(chosen["x0"])
    if start is None:
        start = [10.0 * float(np.sqrt(np.diag(system.R).max())), *[0.0] * (system.dim - 1)]
    rate = chosen["outlier_rate"]
    struck = None if rate is None else Outliers(rate, 10.0)
    data = simulate(system, t, 1, rng=chosen["seed"], x0=start, outliers=struck)
    return t, data.z[0], data.x[0], {"simulated": {**chosen, "x0": start}}


def _components(words: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(map(int, words))
    except ValueError:
        given = ",".join(words)
        raise ValueError(f"--components must be whole numbers such as 0,1, got {given!r}") from None
