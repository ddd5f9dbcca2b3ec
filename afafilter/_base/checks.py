"""Argument checks: each says which argument, what was given, what is wanted.

Checks run once, at the public door; inner loops trust their input.
"""

from __future__ import annotations

from datetime import date
from math import isfinite
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.masks import unmasked

Array: TypeAlias = NDArray[np.float64]
ObsMask: TypeAlias = NDArray[np.bool_]

FLOAT64 = np.dtype(np.float64)
EXACT = 2**53
"""Whole numbers up to here are floats without loss."""
MANY = 10_000
"""Numbers from which passes over them count."""
SYMMETRY_RTOL = 1e-9
"""Largest asymmetry of a covariance, relative to its largest entry, that counts as rounding."""
SEMIDEFINITE_ATOL = 1e-9
"""How far below 0, per dimension, an eigenvalue of a correlation matrix may lie by rounding."""
ROUNDING_SQUARED = 1e-28
"""Variances below this part of the largest entry are squares of rounding errors."""


def real_array(
    value: ArrayLike,
    name: str,
    *,
    allow_nan: bool = False,
    booleans: bool | None = None,
    copy: bool = True,
    check: bool = True,
) -> Array:
    """`value` as a float64 array; TypeError if it is not real numbers, ValueError if not finite.

    booleans: whether these count as 1 and 0. None: of data, where numbers may be missing; a matrix,
    a variance or a time of booleans is a mistake.
    copy=False: for callers that only read; still contiguous and writable, so that compiled code
    meets one type only. check=False: for callers that look for missing numbers themselves.
    """
    plain = type(value) is np.ndarray and value.dtype is FLOAT64
    booleans = allow_nan if booleans is None else booleans
    raw: Any = value if plain else _real(value, name, allow_nan, booleans)
    if copy:
        out = np.array(raw, dtype=np.float64)
    elif plain and raw.flags.carray:
        out = raw
    else:
        out = np.require(raw, np.float64, ["C", "A", "W"])
    if check and allow_nan:
        is_complete(out, name)
    elif check and not all_finite(out):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return out


def _real(value: ArrayLike, name: str, allow_nan: bool, booleans: bool) -> NDArray[Any]:
    """`value` as an array of numbers that a float64 array can hold."""
    raw = unmasked(value, name, allow_nan)
    if raw.dtype.kind == "c":
        raise TypeError(f"{name} must be real, got complex numbers (dtype {raw.dtype})")
    first = raw.flat[0] if raw.dtype.kind == "O" and raw.size else None
    if not booleans and (raw.dtype.kind == "b" or isinstance(first, bool)):
        raise TypeError(f"{name} must be numbers, got booleans")
    if raw.dtype.kind in "mM" or isinstance(first, (date, np.datetime64)):
        raise TypeError(
            f"{name} must be numbers, got dates; count them in one unit first, e.g. "
            f"(dates - dates[0]) / numpy.timedelta64(1, 'D'), or read the file by io.read_series"
        )
    if raw.dtype.kind in "SU":
        raise TypeError(
            f"{name} must be numbers, got text ({str(raw.flat[0])[:20]!r}); numpy.asarray(..., "
            "float) reads numbers, pandas.to_datetime dates"
        )
    if raw.dtype.kind not in "buif":
        raw = _numbers_of(raw, name)
    return raw


def _numbers_of(raw: NDArray[Any], name: str) -> Array:
    """Python objects as floats; None and the missing values of tables (pd.NA, pd.NaT) are NaN."""
    if raw.dtype.kind == "O":
        empty = [x is None or type(x).__name__ in ("NAType", "NaTType") for x in raw.flat]
        if any(empty):
            raw = raw.copy()
            raw.flat[np.flatnonzero(empty)] = np.nan
    try:
        return raw.astype(np.float64)
    except OverflowError:
        raise ValueError(f"{name} must be numbers that floats can hold (below 1.8e308)") from None
    except (TypeError, ValueError):
        kinds = sorted({type(x).__name__ for x in raw.flat}) if raw.dtype.kind == "O" else []
        got = f"objects ({', '.join(kinds[:3])})" if kinds else f"dtype {raw.dtype}"
        raise TypeError(f"{name} must be numbers, got {got}") from None


def is_complete(x: NDArray[Any], name: str, what: str = "value") -> bool:
    """Whether no number is missing; ValueError where one is infinite."""
    complete = all_finite(x)
    if not complete and np.isinf(x).any():
        raise ValueError(f"{name} must not contain infinities; mark a missing {what} by NaN")
    return complete


def all_finite(x: NDArray[Any]) -> bool:
    """Whether all numbers are finite: where a sum that any other would spoil is, in one pass."""
    if x.size > MANY:
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(x.sum()):
                return True
    return bool(np.count_nonzero(np.isfinite(x)) == x.size)


def frozen(array: NDArray[Any]) -> Any:
    """The same array, read-only."""
    array.flags.writeable = False
    return array


def scalar(value: Any, name: str, *, low: float = -np.inf, strict: bool = False) -> float:
    """A finite real number, at least (`strict`: above) `low`."""
    if type(value) is float and isfinite(value):
        x = value
    else:
        number = real_array(value, name)
        if number.ndim != 0:
            raise ValueError(f"{name} must be one number, got shape {number.shape}")
        x = float(number)
    if x < low or (strict and x == low):
        raise ValueError(f"{name} must be {'>' if strict else '>='} {low:g}, got {x:g}")
    return x


def fraction(value: Any, name: str) -> float:
    """A number in (0, 1)."""
    x = scalar(value, name)
    if not 0 < x < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {x:g}")
    return x


LARGEST_DIM = 1000
"""Components of a state, and its parts, in numbers that a file may ask for: matrices are dense."""


def is_whole(value: Any) -> bool:
    """Whether this is one whole number: no boolean, and no span of time, which numpy counts so."""
    kinds = (int, np.integer)
    return isinstance(value, kinds) and not isinstance(value, (bool, np.timedelta64))


def positive_int(value: Any, name: str, *, low: int = 1, high: float = float("inf")) -> int:
    """A whole number from `low` to `high`."""
    if not is_whole(value):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be >= {low}, got {value}")
    if value > high:
        raise ValueError(f"{name} must be <= {high}, got {value}")
    return int(value)


def shaped(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    """A finite real array of exactly this shape."""
    out = real_array(value, name)
    if out.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {_given(out)}{_remedy(out, shape)}")
    return out


def _remedy(out: Array, shape: tuple[int, ...]) -> str:
    """How the numbers given become what is wanted, where that can be told."""
    n = shape[-1] if shape else 0
    if len(shape) >= 2 and shape[-2] == n and out.ndim == 0:
        return f"; write {float(out):g} * np.eye({n})"
    if shape == (n, n) and out.shape == (n,):
        return "; write np.diag(...) of it"
    if len(shape) == 2 and out.shape == (n,):
        return "; write one row, [[...]]"
    if len(shape) == 3 and out.shape == shape[:2]:
        return f"; variances (T, p) become x[..., None] * np.eye({n})"
    if len(shape) == 3 and n == 1 and out.shape == shape[:1]:
        return "; variances (T,) become x[:, None, None]"
    return ""


def square(value: ArrayLike, name: str, size: str = "d") -> Array:
    """A finite real square matrix."""
    out = real_array(value, name)
    if out.ndim != 2 or out.shape[0] != out.shape[1] or out.shape[0] == 0:
        hint = f"; write {float(out):g} * np.eye({size})" if out.ndim == 0 else ""
        hint = "; write np.diag(...) of it" if out.ndim == 1 else hint
        raise ValueError(
            f"{name} must be a square matrix ({size}, {size}), got {_given(out)}{hint}"
        )
    return out


def covariance(
    value: ArrayLike, name: str, shape: tuple[int, ...], *, definite: bool = False
) -> Array:
    """A symmetric positive semidefinite (`definite`: definite) matrix, or stack of them."""
    out = shaped(value, name, shape)
    if out.size == 0:
        return out
    variance = out.diagonal()
    apart = shape == (len(variance),) * 2 and np.count_nonzero(out) == np.count_nonzero(variance)
    if apart and not definite and variance.min() >= 0:
        return out  # of independent components: nothing to decide
    transposed = np.swapaxes(out, -1, -2)
    scale = np.abs(out).max(axis=(-1, -2))
    if (np.abs(out - transposed).max(axis=(-1, -2)) > SYMMETRY_RTOL * scale).any():
        raise ValueError(
            f"{name} must be symmetric, got asymmetry {np.abs(out - transposed).max():.3g}"
        )
    out = 0.5 * (out + transposed)
    sd, correlation = correlations(out)
    lowest = np.linalg.eigvalsh(correlation)[..., 0]
    indefinite = np.asarray((lowest < -SEMIDEFINITE_ATOL * shape[-1]) | (sd < 0).any(axis=-1))
    if indefinite.any():
        worst = np.linalg.eigvalsh(out[indefinite])[..., 0].min()
        raise ValueError(
            f"{name} must be positive semidefinite, got smallest eigenvalue {worst:.3g}"
        )
    if definite and (singular := ~is_definite(out)).any():
        worst = np.linalg.eigvalsh(out[singular])[..., 0].min()
        raise ValueError(
            f"{name} must be positive definite, got a singular matrix "
            f"(smallest eigenvalue {worst:.3g})"
        )
    return out


def correlations(cov: Array) -> tuple[Array, Array]:
    """Standard deviations (..., d) and correlation matrices (..., d, d) of symmetric cov.

    A variance of 0, up to rounding of the largest one, has standard deviation 0 and its covariances
    count against the largest; a variance below 0 has standard deviation -1.
    """
    variance = np.diagonal(cov, axis1=-2, axis2=-1)
    largest = np.abs(cov).max(axis=(-1, -2))[..., None]
    # Squares of rounding errors allow no covariance; errors of differences may be below 0.
    null = np.abs(variance) <= np.where(variance < 0, 1e-12, ROUNDING_SQUARED) * largest
    if null.any():
        root = (1.0 + SYMMETRY_RTOL) * np.sqrt(np.maximum(variance, 0.0))
        allowed = root[..., :, None] * root[..., None, :]
        null &= (variance <= 0) | (np.abs(cov) > allowed).any(axis=-1)
    sd = np.where(null, 0.0, np.where(variance < 0, -1.0, np.sqrt(np.abs(variance))))
    unit = np.where(sd > 0, sd, np.sqrt(np.where(largest > 0, largest, 1.0)))
    return sd, cov / unit[..., :, None] / unit[..., None, :]


def is_definite(cov: Array) -> ObsMask:
    """Whether symmetric matrices (..., d, d) are positive definite: decided on correlations."""
    sd, correlation = correlations(cov)
    lowest = np.linalg.eigvalsh(correlation)[..., 0]
    return np.asarray((sd > 0).all(axis=-1) & (lowest > cov.shape[-1] * np.finfo(float).eps))


def times(value: ArrayLike, name: str = "t") -> Array:
    """Finite, non-decreasing times, shape (T,), T >= 1. Equal stamps are legal."""
    plain = type(value) is np.ndarray and value.dtype is FLOAT64
    out: Array = np.array(value) if plain else real_array(value, name, check=False)
    rises = out.ndim == 1 and np.count_nonzero(out[1:] >= out[:-1]) == out.size - 1
    ascends = rises and isfinite(out.item(0)) and isfinite(out.item(-1))  # and so is all between
    if not (ascends or all_finite(out)):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if out.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional (T,), got shape {out.shape}")
    if not plain:
        _refuse_lost_steps(value, out, name)
    if ascends:
        return out
    if out.size == 0:
        raise ValueError(f"{name} must hold at least one time, got none")
    k = int((out[1:] < out[:-1]).argmax()) + 1
    raise ValueError(
        f"{name} must not decrease, got {name}[{k}] = {out[k]:g} after {out[k - 1]:g}; "
        "sort the rows by time first"
    )


def _refuse_lost_steps(value: ArrayLike, out: Array, name: str) -> None:
    """ValueError where numbers of a finer type than floats have steps that floats do not keep."""
    raw = unmasked(value, name)
    kept = raw.dtype.kind in "bf" and np.can_cast(raw.dtype, np.float64)
    if kept or (raw.dtype.kind in "iu" and np.abs(out).max(initial=0.0) <= EXACT):
        return
    fine = raw.astype(object) if raw.dtype.kind in "iu" else raw
    steps = np.diff(out)
    lost = np.array([float(x) for x in np.diff(fine)]) - steps
    wrong = np.flatnonzero(np.abs(lost) > 1e-6 * np.abs(steps + lost))
    if wrong.size:
        k = int(wrong[0])
        raise ValueError(
            f"{name} must hold numbers whose steps floats keep, got {raw[k]} and {raw[k + 1]}: "
            f"count from the first stamp, {name} - {name}[0]"
        )


def stamp(value: Any, name: str = "t") -> float:
    """One finite time, no whole number that floats do not hold."""
    if is_whole(value) and abs(int(value)) > EXACT:
        raise ValueError(
            f"{name} must be a number that floats hold, got the whole number {value} beyond 2^53: "
            "count from the first stamp, t - t_first"
        )
    return scalar(value, name)


def observations(
    z: ArrayLike | None, n_times: int, obs_dim: int, *, copy: bool = True, check: bool = True
) -> Array:
    """Data (..., T, p) with NaN where a component is missing; (T,) is accepted when p = 1."""
    out = real_array(given(z), "z", allow_nan=True, copy=copy, check=check)
    if out.ndim == 1 and obs_dim == 1 and out.shape[0] == n_times:
        return out[:, None]
    if out.ndim < 2 or out.shape[-2:] != (n_times, obs_dim):
        hint = ""
        if out.ndim >= 2 and out.shape[-2:] == (obs_dim, n_times):
            hint = "; time comes second-last: pass z.swapaxes(-1, -2)"
        raise ValueError(
            f"z must have shape (..., T, p) = (..., {n_times}, {obs_dim}), got {out.shape}{hint}"
        )
    if out.size == 0:
        raise ValueError(f"z must hold at least one path, got shape {out.shape}")
    return out


def given(z: ArrayLike | None, name: str = "z") -> ArrayLike:
    """Data that are not left out."""
    if z is None:
        raise TypeError(f"{name} is missing: give t and {name}, or a table that holds its times")
    return z


def observation_covariances(
    obs_cov: ArrayLike | None,
    n_times: int,
    obs_dim: int,
    default: Array,
    data: Array | None = None,
    *,
    definite: bool = False,
) -> Array:
    """Per-observation noise (T, p, p), or the model's R broadcast (a read-only view).

    A variance of 0, an exact measurement, is legal unless definite. data (..., T, p): where a
    component is missing from every path its variance and covariances may be NaN; they become 1
    and 0, which nothing uses.
    """
    if obs_cov is None:
        return np.broadcast_to(default, (n_times, obs_dim, obs_dim))
    shape = (n_times, obs_dim, obs_dim)
    given = real_array(obs_cov, "obs_cov", allow_nan=True, booleans=False)
    unknown = np.isnan(given)
    if given.shape == shape and data is not None and unknown.any():
        missing: ObsMask = np.asarray(np.isnan(data).all(axis=tuple(range(data.ndim - 2))))
        unused = missing & unknown.any(axis=-1)
        given[unused[:, :, None] | unused[:, None, :]] = 0.0
        given[unused[:, :, None] & np.eye(obs_dim, dtype=bool)] = 1.0
        if np.isnan(given).any():
            k, i, j = np.argwhere(np.isnan(given))[0]
            raise ValueError(
                f"obs_cov must be finite where something is observed, got NaN in obs_cov[{k}, {i}, "
                f"{j}] beside an observation; NaN is for missing components only"
            )
    return covariance(given, "obs_cov", shape, definite=definite)


def generator(rng: Any) -> np.random.Generator:
    """A generator: `rng` itself, or a fresh one from it where it is a whole number, the seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    if is_whole(rng):
        if rng < 0:
            raise ValueError(f"rng must be a seed >= 0 or a numpy Generator, got {rng}")
        return np.random.default_rng(int(rng))
    raise TypeError(
        f"rng must be a numpy Generator (np.random.default_rng(seed)) or a seed, got {rng!r}"
    )


def choice(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    """One of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return str(value)


def _given(array: Array) -> str:
    return f"the scalar {float(array):g}" if array.ndim == 0 else f"shape {array.shape}"
