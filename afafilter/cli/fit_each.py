"""What `afafilter fit --each` does: one fit for every path, a table of all, a model of each."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afafilter.cli.fit import as_named, begin, densities_of
from afafilter.cli.reading import Reading
from afafilter.cli.shared import finish, prepare
from afafilter.io.model_toml import write_model
from afafilter.io.output import table_path


def fit_each_command(
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
    """Behind `afafilter fit --each`. Returns whether all fits converged."""
    from afafilter.learning.fit_each import fit_each

    if reading.by is None:
        raise ValueError("--each fits every path by itself: --by names the column of the paths")
    folder = table_path(target).with_suffix("")
    prepare(target, force, folder, inputs=(reading.data, model))
    begun = begin(reading, model, family, free)
    special = {
        "free": begun.moving,
        "method": None if method == "ml" else method,
        "starts": None if starts == 1 else starts,
        "inputs": begun.inputs,
        "bounds": known["bounds"] or None,
        "priors": densities_of(known) or None,
    }
    options = {name: value for name, value in special.items() if value is not None}
    if starts > 1:
        options["rng"] = np.random.default_rng(seed)
    labels = begun.panel.labels
    found = fit_each(begun.start, begun.t, begun.z, labels=labels, **options)
    begun.warn()
    names = _file_names(labels)
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        if k not in found.errors:
            write_model(as_named(found[k].model), folder / name, force)
    table: dict[str, Any] = dict(found.to_pandas().rename_axis(reading.by).reset_index())
    table["model"] = [
        "" if k in found.errors else str(folder / name) for k, name in enumerate(names)
    ]
    config = {
        "command": "fit --each",
        "start": begun.start if family is None else family,
        **reading.config(),
        **known,
        "free": begun.free,
        "method": method,
        "starts": starts,
        "seed": seed,
        "values": begun.panel.columns,
        "time_unit": begun.panel.series[0].time_unit or None,
    }
    yield str(found)
    yield finish(table, target, force, config)
    yield f"wrote {len(names) - len(found.errors)} models into {folder}"
    return bool(found.converged.all())


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
