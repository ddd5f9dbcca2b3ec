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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from afafilter._version import __version__
from afafilter.io.files import parse_json
from afafilter.scoring.score import COLUMNS, LEVELS
from afafilter.studies.batch import (
    Estimator,
    Experiment,
    Outcome,
    batches,
    join_outcomes,
    run_batch,
)
from afafilter.studies.scenario import Scenario
from afafilter.studies.uses import PACKAGE, imported, is_own, is_users, looked_up, of_python, top

FORMAT = 1
CHUNK = 256
MINE = 0
"""First of `within` inside a user's own code, where a tuple and an array are no lists."""


class Cell(NamedTuple):
    """One cell: its place in the grid, and the name of its file."""

    model: str
    scenario: str
    seed: int
    key: str


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """What is compared in a study; see `Study`, which checks it."""

    models: Mapping[str, Any]
    estimators: Mapping[str, Estimator]
    scenarios: Mapping[str, Scenario]
    seeds: Sequence[int] | int = 1
    levels: Sequence[float] = LEVELS
    energy: bool = False
    lags: int | None = None
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells in grid order: models outermost, seeds innermost."""
        shared = {
            "estimators": describe(self.estimators),
            "score": describe([list(self.levels), self.energy, self.lags]),
        }
        models = {name: describe(pair) for name, pair in self.models.items()}
        scenarios = {name: describe(x) for name, x in self.scenarios.items()}
        seeds = cast(Sequence[int], self.seeds)
        found = []
        for m, s in product(self.models, self.scenarios):
            place = shared | {"model": [m, models[m]], "scenario": [s, scenarios[s]]}
            found += [Cell(m, s, *own) for own in zip(seeds, cell_keys(place, seeds))]
        return tuple(found)


def describe(value: Any, within: tuple[int, ...] = ()) -> Any:
    """A JSON value that is the same in every process, and differs when `value` does.

    Functions and classes of this package are known by their public name, wherever they lie in it,
    and by what they enclose; others by their name, compiled code, defaults, closure and what they
    use of their own module. Inside users' code a tuple or an array is no list with the same
    entries; elsewhere (x0, a model's matrices) they mean the same. TypeError where there is no such
    description. `within` holds the identities of what `value` is part of: a function that calls
    itself is described once.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        plain = describe(value.item())
        told = within[:1] == (MINE,) and value.dtype != np.float64
        return {"value": plain, "dtype": value.dtype.str} if told else plain
    if isinstance(value, np.ndarray):
        held = _array(value)
        return {"array": held, "dtype": value.dtype.str} if within[:1] == (MINE,) else held
    if isinstance(value, (type, types.BuiltinFunctionType, np.ufunc)):
        return _class(value, within) if isinstance(value, type) else _name(value)
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if id(value) in within:
        return {"again": len(within) - within.index(id(value))}
    inside = (*within, id(value))
    if is_users(type(value).__module__):
        inside = _mine(inside)
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        held = _gathered(value, inside)
        if not is_users(type(value).__module__):
            return held
        own = {
            name: describe(part, inside) for name, part in getattr(value, "__dict__", {}).items()
        }
        return {"class": _class(type(value), inside), "items": held} | own
    if isinstance(value, slice):
        return {"slice": [describe(v) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, functools.partial):
        if is_users(getattr(value.func, "__module__", None)):
            inside = _mine(inside)
        return {
            "partial": describe(value.func, inside),
            "args": describe(list(value.args), inside),
            "keywords": describe(value.keywords, inside),
        }
    if isinstance(value, types.MethodType):
        method, owner = value.__func__.__qualname__, describe(value.__self__, inside)
        return {"method": method, "of": owner}
    if isinstance(value, types.FunctionType):
        return _function(value, inside)
    for inner in ("py_func", "__wrapped__"):
        if isinstance(getattr(value, inner, None), types.FunctionType):
            return describe(getattr(value, inner), inside)
    return {"class": _class(type(value), inside)} | _contents(value, inside)


def _mine(within: tuple[int, ...]) -> tuple[int, ...]:
    """The same place, inside a user's own code."""
    return within if within[:1] == (MINE,) else (MINE, *within)


def _gathered(value: Any, within: tuple[int, ...]) -> Any:
    """What a container holds, each entry described; keys that are no words with their types."""
    if isinstance(value, Mapping):
        names = [k if isinstance(k, str) else f"{type(k).__name__} {k}" for k in value]
        return {name: describe(v, within) for name, v in zip(names, value.values())}
    if isinstance(value, (list, tuple)):
        entries = [describe(v, within) for v in value]
        told = within[:1] == (MINE,) and isinstance(value, tuple)
        return {"tuple": entries} if told else entries
    return sorted(json.dumps(describe(v, within), sort_keys=True) for v in value)


def _contents(value: Any, within: tuple[int, ...]) -> dict[str, Any]:
    """What an object holds, in its slots too."""
    cls = type(value)
    later = {n for c in cls.__mro__ for n, x in vars(c).items() if isinstance(x, cached_property)}
    own = {n: x for n, x in getattr(value, "__dict__", {}).items() if n not in later}
    if is_dataclass(value):
        told = [f.name for f in fields(value) if not _as_before(f, getattr(value, f.name))]
        beside = set(own).difference(f.name for f in fields(value))
        told += sorted(beside) if is_users(cls.__module__) else []
        return {name: describe(getattr(value, name), within) for name in told}
    if top(cls.__module__) == "pandas" and hasattr(value, "to_numpy"):
        table = [getattr(value, "index", None), getattr(value, "columns", None), value]
        return {"table": describe([None if x is None else np.asarray(x) for x in table], within)}
    names = [name for c in cls.__mro__ for name in _slots(c) if hasattr(value, name)]
    if not of_python(cls.__module__) and (names or hasattr(value, "__dict__")):
        held = {name: getattr(value, name) for name in names} | own
        return {name: describe(part, within) for name, part in held.items()}
    try:
        if cls is object or hasattr(value, "__next__"):
            raise TypeError
        made = value.__reduce_ex__(4)
        parts = [x if i < 2 else list(x) for i, x in enumerate(made[1:]) if x is not None]
        return {"made": made if isinstance(made, str) else describe(parts, within)}
    except (TypeError, AttributeError):
        raise TypeError(
            f"cannot tell two objects like {value!r} apart, so a study with it cannot be resumed; "
            "use a function, functools.partial or a dataclass"
        ) from None


def _slots(cls: type) -> list[str]:
    """Names of a class's own slots, as they are looked up."""
    own = cls.__dict__.get("__slots__", ())
    names = [own] if isinstance(own, str) else list(own)
    private = f"_{cls.__name__.lstrip('_')}"
    return [
        f"{private}{name}" if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    ]


def _class(cls: type, within: tuple[int, ...]) -> Any:
    """Name of a class; of one of the user's own, what its methods do, inherited ones too."""
    if id(cls) in within:
        return _name(cls)
    inside = (*within, id(cls))
    methods: dict[str, Any] = {}
    kinds = (kind for kind in inspect.getmro(type(cls)) if isinstance(kind.__module__, str))
    for base in (*cls.__mro__, *kinds):  # metaclasses decide what calling the class does
        if is_own(base.__module__) or of_python(base.__module__):
            continue
        if top(base.__module__) == "pandas":  # its tables are told by what they hold
            continue
        for name, part in vars(base).items():
            for function in _functions(part):
                if function.__module__ == base.__module__ or is_users(function.__module__):
                    methods[f"{base.__qualname__}.{name}"] = _function(function, inside)
            hidden = name.startswith("__") and name != "__call__"
            if not hidden and not _functions(part):
                methods[f"{base.__qualname__}.{name}"] = _as_told(part, inside)
    return {"class": _name(cls), "methods": methods} if methods else _name(cls)


def _functions(part: Any) -> list[types.FunctionType]:
    """The functions behind what a class holds under one name."""
    if isinstance(part, (staticmethod, classmethod)):
        part = part.__func__
    part = part.func if isinstance(part, cached_property) else part
    found = [part.fget, part.fset] if isinstance(part, property) else [part]
    return [x for x in found if isinstance(x, types.FunctionType)]


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
    return f"{PACKAGE if is_own(module) else module}.{name}"


def _function(value: types.FunctionType, within: tuple[int, ...], reach: bool = True) -> Any:
    name = _name(value)
    if is_own(value.__module__):
        value = inspect.unwrap(value)
    else:
        within = _mine(within)
    closure = [describe(_enclosed(cell), within) for cell in value.__closure__ or ()]
    if is_own(value.__module__):
        return {"function": name, "closure": closure} if closure else name
    told = {
        "function": name,
        "code": _code(value.__code__),
        "defaults": describe(value.__defaults__ and list(value.__defaults__), within),
        "keyword_defaults": describe(value.__kwdefaults__, within),
        "closure": closure,
    }
    held = {name: describe(x, within) for name, x in vars(value).items() if name != "__wrapped__"}
    uses = _used(value, within) if reach else {}
    more = {"attributes": held, "uses": uses, "imports": imported(value)}
    return told | {name: found for name, found in more.items() if found}


def _used(function: types.FunctionType, within: tuple[int, ...]) -> dict[str, Any]:
    """What a user's function uses of users' modules, and that of it in turn: name -> description.

    Functions and classes, and numbers, words, arrays and other values, wherever their types are.
    """
    out: dict[str, Any] = {}
    left, known = [function], {id(function)}
    while left:
        for name, part in looked_up(left.pop()):
            if part is None or id(part) in known:
                continue
            known.add(id(part))
            if isinstance(part, types.FunctionType):
                out[name] = _function(part, within, reach=False)
                left.append(part)
            else:
                out[name] = _as_told(part, within)
    return out


def _as_told(value: Any, within: tuple[int, ...]) -> Any:
    """A description, or only the type of what has none."""
    try:
        return describe(value, within)
    except (TypeError, RecursionError):
        return _name(type(value))


def _enclosed(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _code(code: types.CodeType) -> str:
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, frozenset):
            constant = sorted(map(repr, constant))
        part = _code(constant) if isinstance(constant, types.CodeType) else repr(constant)
        digest.update(part.encode())
    return digest.hexdigest()


def cell_keys(place: Mapping[str, Any], seeds: Iterable[int]) -> list[str]:
    """File names of the cells of a place, by seed: hashes of `place` with the seed in it.

    Hashed is the JSON of all that, names in order; what is the same for all seeds only once.
    """
    whole = {"format": FORMAT, "version": __version__, **place}
    before = json.dumps({k: v for k, v in whole.items() if k < "seed"}, sort_keys=True)
    after = json.dumps({k: v for k, v in whole.items() if k > "seed"}, sort_keys=True)
    begun, rest = hashlib.sha256(f'{before[:-1]}, "seed": '.encode()), f", {after[1:]}".encode()
    keys = []
    for seed in seeds:
        digest = begun.copy()
        digest.update(json.dumps(seed).encode() + rest)
        keys.append(digest.hexdigest()[:24])
    return keys


def run_cell(job: Experiment, n_paths: int, seed: int) -> dict[str, Any]:
    """All estimators on one cell's data; an exception outside of them is the cell's error."""
    try:
        parts = batches(job, n_paths, np.random.default_rng(seed), largest=CHUNK)
        joined = join_outcomes(run_batch(*part) for part in parts)
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


def read_cell(path: Path) -> dict[str, Any] | None:
    """A finished cell, or None if there is none that can be read."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and "estimators" in content else None
