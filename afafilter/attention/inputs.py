"""Arguments of the attention functions: checked once, complex channels as pairs of real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import Array, choice, is_complete, real_array
from afafilter._base.labels import refuse_other_times
from afafilter._base.masks import unmasked
from afafilter._base.steps import asked_times
from afafilter._base.tables import given_times
from afafilter.attention.law import PRIORS
from afafilter.models.structured_noise import StructuredNoise

Projections = tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None, ArrayLike | None]
Numbers = NDArray[Any]
Index = NDArray[np.int64]

NOISES = ("process_var", "key_var", "query_var")


class Inputs(NamedTuple):
    """Checked arguments, complex channels as pairs of real ones.

    known (..., N) : where k and v are complete, None if everywhere; t (N,), t_query (Nq,) : since
    the first key; n_visible (Nq,) int64.
    """

    q: Numbers | None
    k: Numbers | None
    v: Numbers
    known: NDArray[np.bool_] | None
    q_complete: bool
    complex_values: bool
    t: Array
    t_query: Array
    n_visible: Index

    @property
    def dim(self) -> int:
        """Real components of keys (of values where keys do not count)."""
        return int((self.v if self.k is None else self.k).shape[-1])

    @property
    def lead(self) -> tuple[int, ...]:
        """Leading axes of the data."""
        return np.broadcast_shapes(
            *(x.shape[:-2] for x in (self.q, self.k, self.v) if x is not None)
        )


def channels_of(value: ArrayLike, name: str, rows: int) -> Numbers:
    """An argument (..., N, d) as real channels in float32 or float64."""
    raw = unmasked(value, name)
    if raw.dtype.kind not in "buifc":
        raw = real_array(raw, name, allow_nan=True, check=False)
    if raw.ndim < 2 or raw.shape[-1] == 0 or raw.shape[-2] != rows:
        raise ValueError(
            f"{name} must have shape (..., {rows}, d), one row per time, got {raw.shape}"
        )
    single = raw.dtype in (np.float16, np.float32, np.complex64)
    real = np.float32 if single else np.float64
    if raw.dtype.kind == "c":
        return np.ascontiguousarray(raw, np.complex64 if single else np.complex128).view(real)
    return np.asarray(raw, dtype=real)


def prepare(given: Mapping[str, Any], plain: bool) -> Inputs:
    """Queries, keys and values of the arguments `given` by name; plain: distances do not count."""
    q, k, v, t, t_query = (given[name] for name in ("q", "k", "v", "t", "t_query"))
    grid = given_times(t)
    queries = asked_times(t_query, grid, "t_query")
    for name, x in (("q", q), ("k", k), ("v", v)):
        refuse_other_times(x, t if name != "q" or t_query is None else t_query, x, name)
    if not plain and (q is None or k is None):
        raise ValueError(
            "q and k must be given with a robust weight; only weight=None can do without"
        )
    if given["projections"] is not None:
        q, k, v = project(q, k, v, given["projections"])
    values = channels_of(v, "v", len(grid))
    keys = values if k is v else None if k is None else channels_of(k, "k", len(grid))
    shared = q is k and t_query is None
    anchors = keys if shared else None if q is None else channels_of(q, "q", len(queries))
    if len({x.dtype for x in (anchors, keys, values) if x is not None}) > 1:
        values = values.astype(np.float64)
        anchors, keys = (None if x is None else x.astype(np.float64) for x in (anchors, keys))
    if not plain and anchors.shape[-1] != keys.shape[-1]:  # type: ignore[union-attr]
        raise ValueError(
            "q and k must have the same number of channels, "
            f"got {anchors.shape[-1]} and {keys.shape[-1]} real ones"  # type: ignore[union-attr]
        )
    v_complete = is_complete(values, "v", "key")
    k_complete = v_complete if keys is None or keys is values else is_complete(keys, "k", "key")
    q_complete = True
    if anchors is not None:
        q_complete = k_complete if anchors is keys else is_complete(anchors, "q", "key")
    leads = [x.shape[:-2] for x in (anchors, keys, values) if x is not None]
    try:
        np.broadcast_shapes(*leads)
    except ValueError:
        raise ValueError(
            "leading axes (batch, heads) of q, k and v must broadcast, got "
            + ", ".join(map(str, leads))
        ) from None
    known = None if v_complete and k_complete else known_keys(keys, values)
    seen = visible(given["n_visible"], grid, queries, t_query is None, given["causal"])
    channels = anchors, keys, values, known, q_complete, np.iscomplexobj(v)
    since = grid - grid[0]
    return Inputs(*channels, since, since if queries is grid else queries - grid[0], seen)


def known_keys(keys: Numbers | None, values: Numbers) -> NDArray[np.bool_] | None:
    """Which keys are complete; None when all are."""
    known: NDArray[np.bool_] = np.asarray(~np.isnan(values).any(axis=-1))
    if keys is not None and keys is not values:
        known = known & ~np.isnan(keys).any(axis=-1)
    return None if known.all() else known


def visible(
    n_visible: ArrayLike | None, t: Array, t_query: Array, on_grid: bool, causal: bool
) -> Index:
    """How many keys belong to the past of each query."""
    if n_visible is None:
        if on_grid:
            return np.arange(1, len(t) + 1, dtype=np.int64)
        return np.searchsorted(t, t_query, side="right").astype(np.int64, copy=False)
    given = unmasked(n_visible, "n_visible", allow_nan=False)
    if given.dtype.kind not in "iu":
        raise TypeError(f"n_visible must be whole numbers, got dtype {given.dtype}")
    if given.shape != t_query.shape:
        raise ValueError(f"n_visible must have shape {t_query.shape}, got {given.shape}")
    seen = given.astype(np.int64)
    if seen.min() < 0 or seen.max() > len(t) or (np.diff(seen) < 0).any():
        raise ValueError(f"n_visible must not decrease and lie in 0..{len(t)}")
    past, future = seen > 0, seen < len(t)
    if (t[seen[past] - 1] > t_query[past]).any():
        raise ValueError("n_visible counts a key later than its query as past")
    if not causal and (t[seen[future]] < t_query[future]).any():
        raise ValueError("n_visible leaves a key earlier than its query to the future")
    return seen


def project(
    q: ArrayLike | None, k: ArrayLike | None, v: ArrayLike, projections: Projections
) -> tuple[Numbers | None, Numbers | None, Numbers]:
    """x @ W for q, k and v."""
    if not isinstance(projections, tuple | list) or len(projections) != 4:
        raise ValueError("projections must be (W_q, W_k, W_v, W_o), each an array or None")
    done = [
        None if x is None else unmasked(x, name) if W is None else times_matrix(x, W, name)
        for x, W, name in zip((q, k, v), projections, "qkv")
    ]
    assert done[2] is not None
    return done[0], done[1], done[2]


def times_matrix(x: ArrayLike, W: ArrayLike, name: str) -> Numbers:
    a, b = unmasked(x, name), unmasked(W, f"W_{name}", False)
    if b.dtype.kind not in "buifc" or not np.isfinite(b).all():
        raise ValueError(f"W_{name} must hold finite numbers")
    if b.ndim < 2 or a.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"W_{name} must have shape (..., {a.shape[-1]}, m), got {b.shape}")
    try:
        return np.asarray(a @ b)
    except ValueError:
        raise ValueError(
            f"leading axes of W_{name} must broadcast with the data, got {b.shape} for {a.shape}"
        ) from None


def per_head(value: ArrayLike, name: str, *, strict: bool = False) -> Array:
    """A parameter >= 0 (`strict`: > 0), one or one per head."""
    out = real_array(value, name)
    if (out < 0).any() or (strict and (out == 0).any()):
        raise ValueError(f"{name} must be {'>' if strict else '>='} 0, got {out.min():g}")
    return out


def each(given: Array, name: str, n: int) -> Array:
    """(..., n) of one number for all, or one for each of n modes or pairs."""
    if given.ndim == 0:
        return np.full(n, given)
    if given.shape[-1] != n:
        raise ValueError(f"{name} must be a scalar or have shape (..., {n}), got {given.shape}")
    return given


def noises(given: Mapping[str, Any], prefix: str = "") -> dict[str, Array]:
    """Variances of process, keys and queries, by their names with the prefix."""
    p = {prefix + name: per_head(given[prefix + name], prefix + name) for name in NOISES}
    key_var, query_var = p[f"{prefix}key_var"], p[f"{prefix}query_var"]
    try:
        total = key_var + query_var
    except ValueError:
        raise ValueError(
            f"{prefix}key_var and {prefix}query_var must broadcast, "
            f"got {key_var.shape} and {query_var.shape}"
        ) from None
    if (total == 0).any():
        raise ValueError(
            f"{prefix}key_var + {prefix}query_var must be > 0: without noise a key at the "
            "query's own time has infinite precision"
        )
    return p


def value_noises(given: Mapping[str, Any]) -> dict[str, Array]:
    """Variances of the prior weight where they are not those of distances.

    ValueError: They are given, but all weights are 1.
    """
    own = {f"value_{name}": given[f"value_{name}"] for name in NOISES}
    some = [name for name, value in own.items() if value is not None]
    if choice(given["prior"], "prior", PRIORS) == "flat" and some:
        raise ValueError(
            f"{some[0]} would change nothing with prior='flat', whose weights are all 1"
        )
    if given["prior"] == "dle" and not some:
        return {}
    usual = {f"value_{name}": given[name] for name in NOISES}
    return noises({**usual, **{name: own[name] for name in some}}, "value_")


def check_structure(
    structure: StructuredNoise | None, prior: str, inputs: Inputs, window_tolerance: float
) -> None:
    """That a course of noise over the lag is there where it is used, and is one.

    ValueError, TypeError: Missing, superfluous, of another kind, with an origin, negative at some
    lag; a window_tolerance, which counts on weights that are monotone in the lag.
    """
    if (prior == "structured") != (structure is not None):
        raise ValueError(
            "prior='structured' and structure=StructuredNoise(amplitudes, rates) go together, got "
            f"prior={prior!r} and structure={'none' if structure is None else 'one'}"
        )
    if structure is None:
        return
    if not isinstance(structure, StructuredNoise):
        raise TypeError(f"structure must be a StructuredNoise, got {type(structure).__name__}")
    if structure.origin != 0:
        raise ValueError(f"structure depends on the lag: origin must be 0, got {structure.origin}")
    if window_tolerance:
        raise ValueError("window_tolerance must be 0 with prior='structured'; use a window")
    ends = [x[k] for x in (inputs.t, inputs.t_query) for k in (0, -1) if len(x)]
    if ends:
        structure.require_nonnegative(0.0, float(max(ends) - min(ends)))


def rotation(value: ArrayLike, name: str, data: Numbers | None) -> Array:
    """Rotation rates (..., n) for data of n channel pairs."""
    out = real_array(value, name)
    if data is None:
        return out if out.ndim else out[None]
    n = data.shape[-1] // 2
    if out.ndim == 0 and n == 0 and out != 0:
        raise ValueError(f"{name} must be 0 for one real channel: there is no pair to rotate")
    return each(out, name, n)


def value_rotation(
    frequency: ArrayLike, value_frequency: ArrayLike | None, inputs: Inputs
) -> Array:
    if value_frequency is not None:
        return rotation(value_frequency, "value_frequency", inputs.v)
    given = np.asarray(frequency)
    if given.ndim and given.shape[-1] != inputs.v.shape[-1] // 2:
        if not given.any():
            return rotation(0.0, "frequency", inputs.v)
        raise ValueError(
            "value_frequency must be given where v and k differ in channels: frequency has shape "
            f"{given.shape}, v has {inputs.v.shape[-1] // 2} pairs"
        )
    return rotation(frequency, "frequency", inputs.v)


def has_channels(name: str, apart: bool) -> bool:
    """Whether a parameter has a last axis of channels or, with modes apart, of modes."""
    return name.startswith("omega") or (apart and name != "beta")


def leading_axes(inputs: Inputs, parameters: dict[str, Array], apart: bool) -> tuple[int, ...]:
    """Leading axes of the result."""
    lead = inputs.lead
    for name, value in parameters.items():
        shape = value.shape[:-1] if has_channels(name, apart) else value.shape
        try:
            lead = np.broadcast_shapes(lead, shape)
        except ValueError:
            raise ValueError(
                f"parameters must broadcast against the leading axes {lead} (batch, heads), "
                f"got {name} of shape {shape}"
            ) from None
    return lead


def future(backward: str, causal: bool) -> str | None:
    """How future keys are pulled back, checked; None where none count."""
    side = choice(backward, "backward", ("exact", "symmetric"))
    if causal and side != "exact":
        raise ValueError(
            f"backward={side!r} would change nothing with causal=True: no key is in the future"
        )
    return None if causal else side
