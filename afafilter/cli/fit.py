"""What `afafilter fit` does: read, fit, write the model and its parameters."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.cli.reading import Reading, forced, read, shared, with_components
from afafilter.cli.shared import prepare
from afafilter.io.model_toml import read_model, write_model
from afafilter.io.output import write_table
from afafilter.io.series import Panel
from afafilter.io.sidecar import sidecar_path, write_sidecar
from afafilter.learning.family_text import parse_family
from afafilter.learning.parameters.noise_levels import noise_levels

ARRAYS = {*"AQRCFHbd", "drift", "offset", "prior mean", "prior cov", "input", "direct"}
"""What `--free` names of a model's matrices; other names are those of levels that fit prints."""


def fit_command(
    reading: Reading,
    target: Path,
    force: bool,
    *,
    model: Path | None,
    family: str | None,
    free: Sequence[str] | None,
    known: Mapping[str, Mapping[str, Any]],
    method: str,
    starts: int,
    seed: int,
) -> Generator[str, None, bool]:
    """Behind `afafilter fit`; known: bounds and priors. Returns whether the fit converged."""
    from afafilter.learning.fit import fit

    if target.suffix.lower() != ".toml":
        raise ValueError(f"{target}: the name of the fitted model must end in .toml")
    table = target.with_suffix(".csv")
    prepare(target, force, table, inputs=(reading.data, model))
    begun = begin(reading, model, family, free)
    start, panel, inputs = begun.start, begun.panel, begun.inputs
    unit = panel.series[0].time_unit
    found = fit(
        start,
        begun.t,
        begun.z,
        free=begun.moving,
        method=method,
        starts=starts,
        rng=np.random.default_rng(seed),
        obs_cov=begun.noise,
        inputs=inputs,
        bounds=known["bounds"],
        priors=densities_of(known),
    )
    found = replace(found, time_unit=unit)
    begun.warn()
    follow, comment = "", ""
    if np.isfinite(found.dof):
        words = shlex.join(["afafilter", "estimate", str(reading.data), "--model", str(target)])
        follow = (
            f"{words} --estimator irks --weight student_t --nu {found.dof:.6g} {reading.words()}"
        ).strip()
        comment = (
            f"R is the scale of Student-t measurement noise with {found.dof:.6g} degrees of freedom"
            f".\nThis file alone describes Gaussian noise; the robust estimate is\n  {follow}"
        )
    write_model(as_named(found.model), target, force, comment=comment)
    write_table(found.to_pandas().reset_index(), table, force)
    config = {
        "command": "fit",
        "start": start if family is None else family,
        **reading.config(),
        "inputs": None if inputs is None else list(inputs),
        **known,
        "free": begun.free,
        "method": method,
        "starts": starts,
        "seed": seed,
        "values": panel.columns,
        "time_unit": unit or None,
        "loglik": found.loglik,
        "aic": found.aic,
        "bic": found.bic,
        "converged": found.converged,
        "message": found.message,
        "dof": found.dof if follow else None,
    }
    sidecar = write_sidecar(sidecar_path(target), config, force=force)
    yield found.summary()
    if follow:
        yield f"the robust estimate with this noise: {follow}"
    yield f"wrote {target}, {table} and {sidecar}"
    return found.converged


@dataclass(frozen=True)
class Begin:
    """What is fitted to what: the start, the data on one grid, and what may move."""

    start: Any
    panel: Panel
    t: Array
    z: Array
    noise: Array | None
    inputs: Any
    moving: Any
    by_levels: Path | None
    """The model file whose noise levels alone move, because nothing else was asked for."""

    def warn(self) -> None:
        """Say after a fit that only noise levels were fitted."""
        if self.by_levels is not None:
            warnings.warn(
                f"{self.by_levels} is built from presets: fitted its noise levels only "
                f"({', '.join(self.moving.names)}); to fit the presets' other parameters use "
                "--family, for whole matrices --free A,Q,R,drift",
                stacklevel=2,
            )

    @property
    def free(self) -> Any:
        """What may move, as the record names it."""
        return getattr(self.moving, "names", self.moving)


def begin(
    reading: Reading, model: Path | None, family: str | None, free: Sequence[str] | None
) -> Begin:
    """Read the data and what --model or --family starts from."""
    if (model is None) == (family is None):
        raise ValueError("give either --model or --family")
    start: Any = read_model(model) if model is not None else parse_family(str(family))
    panel = with_components(read(reading, start), start.obs_dim, reading)
    t, z, noise = shared(panel)
    inputs = panel.series[0].inputs
    if inputs is not None and getattr(start, "forcing", None) is not None:
        start, inputs = forced(start, panel.series[0]), None
    moving: Any = free
    if free is None and model is not None:
        moving = noise_levels(model, start, noise is not None) or free
    elif free is not None and model is not None and not set(free) & ARRAYS:
        levels = noise_levels(model, start, noise is not None)
        moving = free if levels is None else levels.only(free)
    by_levels = free is None and moving is not None
    return Begin(start, panel, t, z, noise, inputs, moving, model if by_levels else None)


def densities_of(known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The priors of --prior."""
    from afafilter.learning import families

    kinds = {"lognormal": families.LogNormal, "normal": families.Normal}
    return {name: kinds[kind](*given) for name, (kind, *given) in known["priors"].items()}


def as_named(model: Any) -> Any:
    """The model without the values of inputs that have names: those are columns of the data."""
    forcing = getattr(model, "forcing", None)
    if forcing is None or not forcing.names:
        return model
    return replace(model, forcing=forcing.at(np.zeros(0), np.zeros((0, forcing.u.shape[1]))))
