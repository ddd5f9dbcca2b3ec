"""Cells of a study: what identifies one, how it is computed, and its file.

A cell's file name is the hash of everything that decides its numbers, so that a study can be
resumed, extended or changed without asking which of its files still hold.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import types
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afafilter._version import __version__
from afafilter.scoring.score import COLUMNS
from afafilter.studies.batch import Experiment, Outcome, chunk_bounds, join_outcomes, run_batch

FORMAT = 1
CHUNK = 256
PACKAGE = "afafilter"


def describe(value: Any) -> Any:
    """A JSON value that is the same in every process, and differs when `value` does.

    Functions of this package are known by their public name, wherever they lie in it, and by what
    they enclose; others by their name, compiled code, defaults and closure.

    Raises
    ------
    TypeError
        If the object has no such description.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return describe(value.item())
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(describe(v), sort_keys=True) for v in value)
    if isinstance(value, slice):
        return {"slice": [describe(v) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if isinstance(value, functools.partial):
        return {
            "partial": describe(value.func),
            "args": describe(value.args),
            "keywords": describe(value.keywords),
        }
    if isinstance(value, types.MethodType):
        return {"method": value.__func__.__qualname__, "of": describe(value.__self__)}
    if isinstance(value, types.FunctionType):
        return _function(value)
    if isinstance(value, (type, types.BuiltinFunctionType, np.ufunc)):
        return _name(value)
    if isinstance(value, types.ModuleType):
        return value.__name__
    if hasattr(value, "py_func"):
        return describe(value.py_func)
    kind = {"class": _name(type(value))}
    if is_dataclass(value):
        told = [f for f in fields(value) if not _as_before(f, getattr(value, f.name))]
        return kind | {f.name: describe(getattr(value, f.name)) for f in told}
    if hasattr(value, "__dict__"):
        return kind | describe(vars(value))
    raise TypeError(
        f"cannot tell two objects like {value!r} apart, so a study with it cannot be resumed; "
        "use a function, functools.partial or a dataclass"
    )


def _as_before(field: Field[Any], value: Any) -> bool:
    """Whether a field that older versions lack has its default: their cells stay valid."""
    return bool(field.metadata.get("later")) and value == field.default


def _array(value: Any) -> Any:
    if value.dtype.kind not in "biufc":
        return {"array": describe(value.tolist())}
    if value.size <= 16 and value.dtype.kind != "c":
        return value.tolist()
    digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return {"shape": list(value.shape), "dtype": value.dtype.str, "sha256": digest}


def _name(value: Any) -> str:
    """Name with its module; without it inside this package, so that a move leaves cells valid."""
    module = getattr(value, "__module__", None) or "numpy"
    name = getattr(value, "__qualname__", value.__name__)
    return f"{PACKAGE if _is_own(module) else module}.{name}"


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _function(value: types.FunctionType) -> Any:
    name = _name(value)
    if _is_own(value.__module__):
        value = inspect.unwrap(value)
    closure = [describe(cell.cell_contents) for cell in value.__closure__ or ()]
    if _is_own(value.__module__):
        return {"function": name, "closure": closure} if closure else name
    return {
        "function": name,
        "code": _code(value.__code__),
        "defaults": describe(value.__defaults__),
        "keyword_defaults": describe(value.__kwdefaults__),
        "closure": closure,
    }


def _code(code: types.CodeType) -> str:
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, frozenset):
            constant = sorted(map(repr, constant))
        part = _code(constant) if isinstance(constant, types.CodeType) else repr(constant)
        digest.update(part.encode())
    return digest.hexdigest()


def cell_key(description: Mapping[str, Any]) -> str:
    """File name of a cell: hash of its description."""
    text = json.dumps({"format": FORMAT, "version": __version__, **description}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def run_cell(job: Experiment, n_paths: int, seed: int) -> dict[str, Any]:
    """All estimators on one cell's data; an exception outside of them is the cell's error."""
    try:
        bounds = chunk_bounds(n_paths, len(job.t), job.model.dim, None, largest=CHUNK)
        children = np.random.default_rng(seed).spawn(len(bounds) - 1)
        joined = join_outcomes(
            run_batch(job, low, high - low, child)
            for low, high, child in zip(bounds, bounds[1:], children)
        )
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        joined = {name: Outcome(None, np.nan, message) for name in job.estimators}
    return {name: _pack(outcome) for name, outcome in joined.items()}


def _pack(outcome: Outcome) -> dict[str, Any]:
    if outcome.score is None:
        return {"error": outcome.error, "seconds": None, "rows": [], "paths": {}}
    paths = {}
    for metric in outcome.score.metrics:
        if "all" in outcome.score.components(metric):
            ratio = outcome.score.ratio(metric)
            counts = ratio.counts.tolist()
            paths[metric] = {
                "sums": ratio.sums.tolist(),
                "counts": counts[0] if len(set(counts)) == 1 else counts,
            }
    rows = [[row[name] for name in COLUMNS] for row in outcome.score.rows()]
    return {"error": "", "seconds": outcome.seconds, "rows": rows, "paths": paths}


def write_cell(path: Path, content: Any) -> None:
    """Write all of a file or nothing: a reader, or a run after a crash, never sees a part."""
    from afafilter.io.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def read_cell(path: Path) -> dict[str, Any] | None:
    """A finished cell, or None if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return content if isinstance(content, dict) and "estimators" in content else None
