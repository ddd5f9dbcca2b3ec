"""Studies written as TOML.

::

    seeds = 3                        # how many, or a list
    levels = [0.5, 0.9, 0.95]        # optional, like energy and lags

    [models.spiral]                  # a function of afafilter.models.presets and its arguments ...
    preset = "spiral"
    prior = "diffuse"
    vary.process_var = [0.0, 0.3]    # one model per value (per combination, if several vary)
    assumed.obs_var = 2.0            # optional: what estimators believe instead

    [models.drifting]                # ... or matrices or a sum, as in `read_model`
    A = [[-0.5]]
    Q = [[1.0]]
    R = [[0.2]]

    [estimators.kalman]
    function = "kalman_filter"

    [estimators.smoother]            # a name of `afafilter.catalog`; with --allow-import also
    function = "irks"                # "mypackage:my_filter", your own f(model, t, z, **options)

    [estimators."robust AFA"]        # with the function's keyword arguments
    function = "adaptive_filter"
    weight = { name = "student_t", nu = 4.0 }
    anchor_cov = "R"                 # a matrix, or the model's R

    [scenarios.ring]
    t = { start = 0.0, step = 0.1, count = 128 }       # or a list
    n_paths = 100
    x0 = { radius = 20.0, spread = 3.0 }               # or a list, or "stationary"
    outliers = { rate = 0.1, scale = 10.0 }
    missing = 0.0
    burn_in = 20
    vary."outliers.rate" = [0.0, 0.1]

What varies becomes a column of the results (dots as underscores).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from afafilter._base.checks import positive_int, scalar
from afafilter.catalog import CATALOG, estimator_from_spec, functions
from afafilter.io.model_toml import (
    built,
    known_keys,
    model_from_table,
    near,
    parameters,
    place,
    read_toml,
    required,
)
from afafilter.results import Estimate
from afafilter.studies.batch import Shell

TOP = ("models", "estimators", "scenarios", "seeds", "levels", "energy", "lags")
NUMBERS = ("step", "momentum", "inverse_temperature", "tolerance", "diffuse_var")
SWITCHES = ("return_weights", "calibrated")
SCENARIO = ("t", "n_paths", "x0", "outliers", "missing", "burn_in")


@dataclass(frozen=True, eq=False)
class Configured:
    """An estimator with its options; the word "R" stands for the model's R."""

    function: Callable[..., Estimate]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: Any, t: Any, z: Any) -> Estimate:
        options = {
            k: model.R if isinstance(v, str) and v == "R" else v for k, v in self.options.items()
        }
        return self.function(model, t, z, **options)


def study_arguments(path: Path, allow_import: bool = False) -> dict[str, Any]:
    """Keyword arguments of `Study` from a TOML file; messages name file, table and key."""
    content = read_toml(path)
    with place(str(path)):
        known_keys(content, TOP)
        if not isinstance(content.get("energy", False), bool):
            raise TypeError(f"energy must be true or false, got {content['energy']!r}")
        for name in ("models", "estimators", "scenarios"):
            if not isinstance(content.get(name), dict) or not content[name]:
                raise ValueError(f"a study needs at least one table [{name}.<name>]")
        columns: dict[str, dict[str, Any]] = {}
        models = {
            name: _model_pair(table, f"[models.{name}]")
            for name, table in _varied(content["models"], "models", columns)
        }
        scenarios, estimators = {}, {}
        for name, table in _varied(content["scenarios"], "scenarios", columns):
            with place(f"[scenarios.{name}]"):
                scenarios[name] = _scenario(table)
        for name, table in content["estimators"].items():
            with place(f"[estimators.{name}]"):
                estimators[name] = _estimator(table, allow_import)
    found = {"models": models, "estimators": estimators, "scenarios": scenarios}
    return content | found | {"columns": columns}


def _varied(
    tables: Mapping[str, Any], kind: str, columns: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every table, once per combination of the values under `vary`."""
    for name, given in tables.items():
        with place(f"[{kind}.{name}]"):
            table = copy.deepcopy(_table(given))
            vary = _table(table.pop("vary", {}))
            for key, values in vary.items():
                if not isinstance(values, list) or not values:
                    raise ValueError(f"vary.{key} must be a list with at least one value")
        if not vary:
            yield name, table
            continue
        for combination in itertools.product(*vary.values()):
            chosen = dict(zip(vary, combination))
            full = " ".join([name, *(f"{k}={_short(v)}" for k, v in chosen.items())])
            changed = copy.deepcopy(table)
            with place(f"[{kind}.{name}]"):
                if full in columns:
                    raise ValueError(f"values under vary must differ, got {full!r} twice")
                for key, value in chosen.items():
                    *path, last = key.split(".")
                    inner = changed
                    for step in path:
                        inner = _table(inner.setdefault(step, {}))
                    inner[last] = value
            columns[full] = {key.replace(".", "_"): value for key, value in chosen.items()}
            yield full, changed


def _model_pair(table: dict[str, Any], where: str) -> Any:
    assumed = table.pop("assumed", None)
    truth = model_from_table(table, where)
    if assumed is None:
        return truth
    return truth, model_from_table(table | _table(assumed), f"{where} assumed")


def _scenario(table: Mapping[str, Any]) -> Any:
    from afafilter.simulation.contamination import Outliers
    from afafilter.studies.scenario import Scenario

    known_keys(table, SCENARIO)
    options = dict(table)
    if "t" not in options:
        raise ValueError("t is missing: a list, or { start, step, count }")
    if isinstance(options["t"], dict):
        known_keys(options["t"], ("start", "step", "count"))
        grid = {"start": 0.0} | options["t"]
        if grid.keys() != {"start", "step", "count"}:
            raise ValueError("t must be a list, or { start, step, count }")
        start, step = scalar(grid["start"], "t.start"), scalar(grid["step"], "t.step")
        options["t"] = start + step * np.arange(positive_int(grid["count"], "t.count"))
    if isinstance(options.get("x0"), dict):
        options["x0"] = built(Shell, options["x0"])
    if "outliers" in options:
        struck = _table(options["outliers"])
        known_keys(struck, parameters(Outliers))
        required(struck, Outliers)
        options["outliers"] = Outliers(**struck) if struck.get("rate") != 0 else None
    return Scenario(**options)


def _estimator(given: Any, allow_import: bool) -> Configured:
    options = dict(_table(given))
    if "function" not in options:
        raise ValueError(f"function is missing: one of {', '.join((*CATALOG, *functions()))}")
    bound = estimator_from_spec(
        options.pop("function"), options, allow_import=allow_import, what="function"
    )
    _check_options(bound.func, bound.keywords)
    return Configured(bound.func, bound.keywords)


def _check_options(function: Callable[..., Estimate], options: Mapping[str, Any]) -> None:
    """What would stop the estimator in every cell is refused before the first."""
    from afafilter.adaptive import estimators as adaptive
    from afafilter.adaptive import options as allowed
    from afafilter.kalman import inputs as kalman
    from afafilter.kalman.estimators import kalman_filter, rts_smoother
    from afafilter.weights import as_weight

    words: dict[str, tuple[str, ...]] = {"anchor": kalman.ANCHORS, "metric": kalman.METRICS}
    if function in (adaptive.adaptive_filter, adaptive.adaptive_smoother):
        words = {"anchor": allowed.ANCHORS, "correlation": allowed.CORRELATIONS}
        words["method"] = allowed.METHODS
    for key, value in options.items():
        if key in words:
            if value not in words[key]:
                raise ValueError(
                    f"{key} must be one of {', '.join(words[key])}, got {value!r}"
                    f"{near(value, words[key])}"
                )
        elif key in ("iterations", "window"):
            positive_int(value, key)
        elif key in NUMBERS:
            scalar(value, key, low=0.0)
        elif key in SWITCHES and not isinstance(value, bool):
            raise TypeError(f"{key} must be true or false, got {value!r}")
    if "method" in words:
        weight = as_weight(options.get("weight"))
        allowed.Options(**{"causal": True, **options, "weight": weight}).require_use()
    elif function in (rts_smoother, kalman_filter):
        of_weight = kalman.Reweighting._fields
        kalman.Reweighting(**{k: v for k, v in options.items() if k in of_weight}).checked()


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a table is wanted, got {value!r}")
    return value


def _short(value: Any) -> str:
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short
