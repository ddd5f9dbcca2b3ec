"""Linear SDEs written as TOML.

::

    [model]                       # a function of `afafilter.models.presets` and its arguments ...
    preset = "spiral"
    decay = 0.1
    prior = "diffuse"             # or "stationary", or a table { mean, cov, t0, diffuse }

    [model]                       # ... or the arguments of `LinearSDE` ...
    A = [[-0.5]]
    Q = [[1.0]]
    R = [[0.2]]
    prior = { mean = [0.0], cov = [[4.0]] }

    [[model.sum]]                 # ... or a sum of such models: z = z_a + z_b + noise
    preset = "brownian"
    obs_var = 0.3
    [[model.sum]]
    preset = "seasonal"
    period = 1.0

    [model]                       # ... or the arguments of `DiscreteModel`
    F = [[0.9]]
    Q = [[1.0]]
    H = [[1.0]]
    R = [[0.2]]

Known inputs are `forcing = { t, u, matrix, direct }`, as in `Forcing`; with names = ["temp"] in
place of t and u they are those columns of the data.

Arguments of `LinearSDE` that a preset does not have (drift, offset, delay, forcing) and, for a sum,
prior may be given beside it and replace the model's own.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from afafilter._base.checks import LARGEST_DIM
from afafilter.io.files import read_file, write_text
from afafilter.models import presets
from afafilter.models.discrete import DiscreteModel
from afafilter.models.forcing import Forcing
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE

T = TypeVar("T")
PRESETS = tuple(presets.__all__)
MATRICES = ("A", "Q", "R", "C", "drift", "offset", "delay", "prior", "time_unit", "forcing")
DISCRETE = ("F", "Q", "H", "R", "b", "d", "prior", "time_varying")
EXTRAS = ("drift", "offset", "delay", "prior", "time_unit", "forcing")
_DEEP = re.compile(r"(?<![\w\"'.-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){10000}")
"""A key of ten thousand parts."""


def read_model(path: str | Path) -> LinearSDE | DiscreteModel:
    """The model described in the table [model] of a TOML file.

    Either `preset` and that preset's arguments (`seed` for `random_stable`), or the arguments of
    `LinearSDE`, or several such tables [[model.sum]].

    Raises
    ------
    ValueError, TypeError
        Not TOML, unknown keys (the message lists the known ones and the nearest), missing or bad
        values; the message names file and table.
    OSError
        If the file cannot be read.
    """
    path = Path(path)
    content = read_toml(path)
    with place(str(path)):
        known_keys(content, ("model",))
        if "model" not in content:
            raise ValueError("a table [model] is needed")
        return model_from_table(content["model"])


def model_from_table(table: Any, where: str = "[model]") -> LinearSDE | DiscreteModel:
    """The model that a table of a TOML file describes; see the top of this module."""
    with place(where):
        if not isinstance(table, Mapping):
            raise TypeError(f"a table is wanted, got {table!r}")
        options = dict(table)
        _refuse_booleans(options)
        if isinstance(options.get("prior"), Mapping):
            with place("prior"):
                options["prior"] = built(Prior, options["prior"])
        if "forcing" in options:
            options["forcing"] = _forcing(options["forcing"])
        if "sum" in options:
            return _sum(options, where)
        if "preset" in options:
            return _preset(options)
        if "F" in options:
            return built(DiscreteModel, options, DISCRETE)
        return built(LinearSDE, options, (*MATRICES, "preset", "sum", "F", "H"))


def _refuse_booleans(options: Mapping[str, Any]) -> None:
    """TypeError where a number of a model (not of the parts of its sum) is a boolean."""
    rest = [(key, value) for key, value in options.items() if key != "sum"]
    while rest:
        key, value = rest.pop()
        if isinstance(value, bool):
            raise TypeError(f"{key} must be numbers, got {str(value).lower()}")
        if isinstance(value, Mapping):
            rest += value.items()
        elif isinstance(value, list):
            rest += [(key, x) for x in value]


def _forcing(table: Any) -> Forcing:
    with place("forcing"):
        if not isinstance(table, Mapping):
            raise TypeError(f"a table {{ t, u, matrix, direct, names }} is wanted, got {table!r}")
        known_keys(table, parameters(Forcing))
        options = dict(table)
        names = options.get("names")
        if "u" not in options and "t" not in options:
            if not isinstance(names, list) or not names:
                raise ValueError("either t and u, or names of columns of the data, are needed")
            options |= {"t": np.zeros(0), "u": np.zeros((0, len(names)))}
        required(options, Forcing)
        return Forcing(**options)


def _sum(options: dict[str, Any], where: str) -> LinearSDE:
    parts = options.pop("sum")
    known_keys(options, ("sum", *EXTRAS))
    if not isinstance(parts, list) or not parts:
        raise ValueError("sum must be one or more tables [[model.sum]]")
    models: list[LinearSDE] = []
    for k, part in enumerate(parts, 1):
        model = model_from_table(part, f"sum, model {k}")
        if max(k, model.dim + sum(one.dim for one in models)) > LARGEST_DIM:
            raise ValueError(f"sum must have at most {LARGEST_DIM} models and components of states")
        if not isinstance(model, LinearSDE):
            raise ValueError(f"sum, model {k}: a DiscreteModel (F) cannot be part of a sum")
        models.append(model)
    while len(models) > 1:  # neighbours in pairs: a sum costs what its last addition costs
        pairs = [one + other for one, other in zip(models[::2], models[1::2], strict=False)]
        models = pairs + models[2 * len(pairs) :]
    return replace(models[0], **options)


def _preset(options: dict[str, Any]) -> LinearSDE:
    name = options.pop("preset")
    if name not in PRESETS:
        raise ValueError(
            f"preset must be one of {', '.join(PRESETS)}, got {name!r}{near(name, PRESETS)}"
        )
    function: Callable[..., LinearSDE] = getattr(presets, name)
    takes = parameters(function)
    public = ["seed" if key == "rng" else key for key in takes]
    known_keys(options, ("preset", *public, *(key for key in EXTRAS if key not in takes)))
    if "rng" in takes:
        options["rng"] = np.random.default_rng(options.pop("seed", None))
    required(options, function)
    extra = {key: options.pop(key) for key in EXTRAS if key in options and key not in takes}
    model = function(**options)
    return replace(model, **extra) if extra else model


def model_table(model: LinearSDE | DiscreteModel) -> dict[str, Any]:
    """The table that `model_from_table` turns into this model, defaults left out."""
    if isinstance(model, DiscreteModel):
        table = {name: getattr(model, name).tolist() for name in ("F", "Q", "H", "R")}
        for name in ("b", "d"):
            if getattr(model, name).any() or name in model.time_varying:
                table[name] = getattr(model, name).tolist()
        if model.time_varying:
            table["time_varying"] = list(model.time_varying)
    else:
        table = _sde_table(model)
    prior = model.prior
    if isinstance(prior, Prior):
        table["prior"] = {"mean": prior.mean.tolist(), "cov": prior.cov.tolist()}
        if prior.t0 is not None:
            table["prior"]["t0"] = prior.t0
        if prior.diffuse is not None:
            table["prior"]["diffuse"] = prior.diffuse.tolist()
    else:
        table["prior"] = prior
    return table


def _sde_table(model: LinearSDE) -> dict[str, Any]:
    table: dict[str, Any] = {name: getattr(model, name).tolist() for name in ("A", "Q", "R")}
    if not np.array_equal(model.C, np.eye(model.dim)):
        table["C"] = model.C.tolist()
    for name in ("drift", "offset"):
        if getattr(model, name).any():
            table[name] = getattr(model, name).tolist()
    if model.delay:
        table["delay"] = model.delay
    if model.time_unit:
        table["time_unit"] = model.time_unit
    forcing = model.forcing
    if forcing is not None:
        given: dict[str, Any] = {"t": forcing.t, "u": forcing.u} if len(forcing.t) else {}
        given |= {"matrix": forcing.matrix, "direct": forcing.direct}
        table["forcing"] = {k: v.tolist() for k, v in given.items() if v is not None}
        if forcing.names:
            table["forcing"]["names"] = list(forcing.names)
        if forcing.start is not None:
            whole = isinstance(forcing.start, (int, np.integer))
            table["forcing"]["start"] = int(forcing.start) if whole else str(forcing.start)
    return table


def write_model(
    model: LinearSDE | DiscreteModel, path: str | Path, force: bool = False, *, comment: str = ""
) -> Path:
    """Write a model so that `read_model` gives it back, all or nothing. Returns the path.

    comment : lines to put on top of the file.

    Raises
    ------
    FileExistsError
        If the file exists and `force` is False.
    """
    lines = [*(f"# {line}" for line in comment.splitlines()), "[model]"]
    lines += [f"{key} = {_toml_value(value)}" for key, value in model_table(model).items()]
    write_text(path, "\n".join(lines) + "\n", force=force)
    return Path(path)


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{k} = {_toml_value(v)}' for k, v in value.items())} }}"
    return repr(float(value))


# ------------------------------------------------------------------------- checks of the tables


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; ValueError names the file when it is none."""
    raw = read_file(path)
    try:
        text = raw.decode()
        if _DEEP.search(text):  # which tomllib takes apart in quadratic time and memory
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # of the decoder, or a number of more digits than Python takes
        raise ValueError(f"{path}: not valid TOML: {error}") from None


def known_keys(table: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """ValueError for the first key that is not allowed."""
    names = list(dict.fromkeys(allowed))
    for key in table:
        if key not in names:
            raise ValueError(f"unknown key {key!r}{near(key, names)}; known are {', '.join(names)}")


def near(word: Any, known: Iterable[str]) -> str:
    """A hint at the most similar known word, or nothing."""
    found = difflib.get_close_matches(str(word), list(known), 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names of a function's parameters."""
    return list(inspect.signature(function).parameters)


def built(
    kind: Callable[..., T], options: Mapping[str, Any], known: Iterable[str] | None = None
) -> T:
    """What a table gives all arguments of, and no others."""
    known_keys(options, parameters(kind) if known is None else known)
    required(options, kind)
    return kind(**options)


def required(
    options: Mapping[str, Any], function: Callable[..., Any], given: Iterable[str] = ()
) -> None:
    """ValueError if a parameter without default is neither in `options` nor `given` elsewhere."""
    named = {*options, *given}
    for name, parameter in inspect.signature(function).parameters.items():
        open_ended = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and name not in named and not open_ended:
            raise ValueError(f"key {name!r} is missing")


@contextmanager
def place(where: str) -> Iterator[None]:
    """Prefix of the messages of what goes wrong inside."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(
            f"{where}: {error}"
        ) from None
