"""What `afafilter fit` does: read, fit, write models and parameters, of all paths or of each."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.cli.reading import Task, forced, read, shared
from afafilter.cli.shared import finish, prepare
from afafilter.io.model_toml import read_model, write_model
from afafilter.io.output import table_path, write_table
from afafilter.io.series import Panel
from afafilter.io.sidecar import write_record
from afafilter.learning.family_text import parse_family
from afafilter.learning.parameters.noise_levels import noise_levels

ARRAYS = {*"AQRCFHbd", "drift", "offset", "prior mean", "prior cov", "input", "direct"}
"""What `--free` names of a model's matrices; other names are those of levels that fit prints."""


def fit_command(task: Task) -> Generator[str, None, bool]:
    """Behind `afafilter fit`. Returns whether the fit did not converge."""
    from afafilter.learning.fit import fit

    reading, target, force, options = task.reading, task.target, task.force, task.options
    if target.suffix.lower() != ".toml":
        raise ValueError(f"{target}: the name of the fitted model must end in .toml")
    table = target.with_suffix(".csv")
    prepare(target, force, table, inputs=(reading.data, options["model"]))
    begun = _begin(task)
    found = fit(begun.start, begun.t, begun.z, obs_cov=begun.noise, **begun.asked(options))
    found = replace(found, time_unit=begun.panel.series[0].time_unit)
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
    write_model(_as_named(found.model), target, force, comment=comment)
    write_table(found.to_pandas().reset_index(), table, force)
    inputs = None if begun.inputs is None else list(begun.inputs)
    said = {name: getattr(found, name) for name in ("loglik", "aic", "bic", "converged", "message")}
    config = _config("fit", task, begun, inputs=inputs) | said
    config["dof"] = found.dof if follow else None
    sidecar = write_record(target, config, force)
    yield found.summary()
    if follow:
        yield f"the robust estimate with this noise: {follow}"
    yield f"wrote {target}, {table} and {sidecar}"
    return not found.converged


def fit_each_command(task: Task) -> Generator[str, None, bool]:
    """Behind `afafilter fit --each`: a table of all fits, a model of each path.

    Returns whether a fit did not converge.
    """
    from afafilter.learning.fit_each import fit_each

    reading, target, options = task.reading, task.target, task.options
    if reading.by is None:
        raise ValueError("--each fits every path by itself: --by names the column of the paths")
    folder = table_path(target).with_suffix("")
    if folder.is_file():
        raise ValueError(f"{folder} is a file, where the folder of the models goes: another -o")
    models = [folder / "_.toml", *sorted(folder.glob("*.toml"))] if folder.is_dir() else [folder]
    prepare(target, task.force, *models, inputs=(reading.data, options["model"]))
    begun = _begin(task)
    labels = begun.panel.labels
    found = fit_each(begun.start, begun.t, begun.z, labels=labels, **begun.asked(options))
    found = replace(found, time_unit=begun.panel.series[0].time_unit)
    begun.warn()
    names = _file_names(labels)
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        if k not in found.errors:
            write_model(_as_named(found[k].model), folder / name, task.force)
    table: dict[str, Any] = dict(found.to_pandas().rename_axis(reading.by).reset_index())
    table["model"] = [
        "" if k in found.errors else str(folder / name) for k, name in enumerate(names)
    ]
    yield str(found)
    yield finish(table, task, _config("fit --each", task, begun))
    yield f"wrote {len(names) - len(found.errors)} models into {folder}"
    return not found.converged.all()


def _config(command: str, task: Task, begun: Begin, **more: Any) -> dict[str, Any]:
    """The record of a fit."""
    options = task.options
    return {
        "command": command,
        "start": begun.start if options["family"] is None else options["family"],
        **task.reading.config(),
        **more,
        "bounds": options["bounds"],
        "priors": options["priors"],
        "free": getattr(begun.moving, "names", begun.moving),
        **{key: options[key] for key in ("method", "starts", "seed")},
        "values": begun.panel.columns,
        "time_unit": begun.panel.series[0].time_unit or None,
    }


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

    def asked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of `fit` and `fit_each`: what is not their default."""
        from afafilter.learning import families

        several, method = options["starts"] > 1, options["method"]
        kinds = {"lognormal": families.LogNormal, "normal": families.Normal}
        priors = {name: kinds[kind](*given) for name, (kind, *given) in options["priors"].items()}
        special = {
            "free": self.moving,
            "method": None if method == "ml" else method,
            "starts": options["starts"] if several else None,
            "rng": np.random.default_rng(options["seed"]) if several else None,
            "inputs": self.inputs,
            "bounds": options["bounds"] or None,
            "priors": priors or None,
        }
        return {name: value for name, value in special.items() if value is not None}

    def warn(self) -> None:
        """Say after a fit that only noise levels were fitted."""
        if self.by_levels is not None:
            warnings.warn(
                f"{self.by_levels} is built from presets: fitted its noise levels only "
                f"({', '.join(self.moving.names)}); to fit the presets' other parameters use "
                "--family, for whole matrices --free A,Q,R,drift",
                stacklevel=2,
            )


def _begin(task: Task) -> Begin:
    """Read the data and what --model or --family starts from."""
    model, family, free = (task.options[name] for name in ("model", "family", "free"))
    if (model is None) == (family is None):
        raise ValueError("give either --model or --family")
    start: Any = read_model(model) if model is not None else parse_family(str(family))
    panel = read(task.reading, start)
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


def _as_named(model: Any) -> Any:
    """The model without the values of inputs that have names: those are columns of the data."""
    forcing = getattr(model, "forcing", None)
    if forcing is None or not forcing.names:
        return model
    return replace(model, forcing=forcing.at(np.zeros(0), np.zeros((0, forcing.u.shape[1]))))


def _file_names(labels: Sequence[str]) -> list[str]:
    """A file of its own for each path, called like it as far as files can be."""
    names: list[str] = []
    for label in labels:
        name = plain = re.sub(r"[^\w.-]+", "_", str(label))[:100].lstrip(".") or "_"
        again = 2
        while f"{name}.toml".casefold() in map(str.casefold, names):
            name, again = f"{plain}-{again}", again + 1
        names.append(f"{name}.toml")
    return names
