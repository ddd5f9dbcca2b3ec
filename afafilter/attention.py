"""Filter attention in its raw form: queries, keys and values on a time axis.

`isotropic_attention` costs what ordinary attention costs; `tensor_attention` gives every channel
its own dynamics and precision. Source: arXiv:2509.04154.

Symbols used inside: mu decay, omega frequency, sigma^2 process_var, eta^2 key_var, gamma^2
query_var, beta inverse_temperature, E = e^{-mu |tau|}, S the variance of a pulled-forward key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter import _attention_tiles as tiles
from afafilter._validate import Array, choice, positive_int, real_array, scalar, times
from afafilter.weights import Weight, as_weight

Projections = tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None, ArrayLike | None]
Numbers = NDArray[Any]
Index = NDArray[np.intp]

BATCH_PAIRS = 100_000_000
"""Pairs of query and key to prepare before computing them: bounds the memory of many heads."""
STACKED_COLUMNS = 512
"""Value columns of paths with equal weights that one sweep takes."""


class AttentionResult(NamedTuple):
    """What attention returns.

    Attributes
    ----------
    output : (..., Nq, m), complex when v is. NaN where a query has no key of positive weight.
    weights : (..., Nq, N) normalised weights A_ij, rows summing to one, or None. The coefficient on
        the pulled value E_ij e^{Omega tau} v_j, without that factor. 0 at missing keys.
    precision : (..., Nq) sum_j w_ij P_ij, per real component. With inverse_temperature = 1 its
        inverse is the claimed error variance; otherwise the plain sum of the tempered weights.
    """

    output: NDArray[Any]
    weights: NDArray[Any] | None
    precision: NDArray[Any]


def isotropic_attention(
    q: ArrayLike | None,
    k: ArrayLike | None,
    v: ArrayLike,
    t: ArrayLike,
    *,
    decay: ArrayLike,
    frequency: ArrayLike = 0.0,
    process_var: ArrayLike,
    key_var: ArrayLike,
    query_var: ArrayLike = 0.0,
    value_decay: ArrayLike | None = None,
    value_frequency: ArrayLike | None = None,
    weight: Weight | None = None,
    inverse_temperature: ArrayLike = 1.0,
    causal: bool = True,
    backward: str = "exact",
    t_query: ArrayLike | None = None,
    n_visible: ArrayLike | None = None,
    window: int | None = None,
    window_tolerance: float = 0.0,
    projections: Projections | None = None,
    residual_step: float | None = None,
    return_weights: bool = False,
    threads: int | None = None,
) -> AttentionResult:
    """Attention whose weights are the precisions of keys propagated through a linear SDE.

    Every key is pulled along dx = (-mu I + Omega) x dt + sigma dw to the time of the query and
    weighted by its precision, times a robust weight of its distance from the query::

        out_i = sum_j A_ij E_ij e^{Omega tau} v_j,   A_ij = softmax_j(beta log(P_ij w(d2_ij)))
        1/P_ij = Vp(tau) + eta^2 E^2 + gamma^2,      d2_ij = P_ij |q_i - E e^{Omega tau} k_j|^2

    tau = t_i - t_j, E = e^{-mu tau}, Vp = sigma^2 (1 - E^2) / (2 mu). With q = k = v = z this is
    the paper's adaptive filter for the isotropic model.

    Parameters
    ----------
    q : (..., Nq, d) queries (anchors); None allowed when `weight` is None, where they do not count.
    k, v : (..., N, d) and (..., N, m) keys and values. Each array is complex, or real with paired
        channels (2k, 2k+1); an odd last real channel does not rotate. A row of k or v holding a NaN
        is a missing key. Leading axes are paths, batches, heads, and broadcast. k may be None when
        `weight` is None.
    t : (N,) non-decreasing times of the keys.
    decay : mu >= 0, 1/time; scalar or of the shape of (trailing) leading axes: one per head. So are
        process_var, key_var, query_var, inverse_temperature and value_decay.
    frequency : omega, radian/time: scalar, or (..., n) with n complex channels or n = d // 2 pairs.
    process_var : sigma^2 >= 0 per unit time. key_var : eta^2 >= 0. query_var : gamma^2 >= 0.
        Variances are per real component; key_var + query_var must be > 0.
    value_decay, value_frequency : dynamics of the values if they differ from those of the keys.
    weight : robust weight w(d2, d), or None (w = 1).
    inverse_temperature : beta > 0.
    causal : only past keys. False: also future ones.
    backward : future keys are pulled back "exact" (e^{+mu tau}, the smoother) or "symmetric":
        decayed by e^{-mu |tau|} like past ones, as the author's published code does.
    t_query : (Nq,) non-decreasing query times, default t.
    n_visible : (Nq,) non-decreasing: the past of query i is keys j < n_visible[i], its future the
        others. Default: i + 1 (by index, so that equal stamps count in order), and with t_query all
        keys at or before the query time.
    window : use only so many past (and future) keys nearest to the query.
    window_tolerance : eps > 0: leave out keys that together weigh at most eps times those kept; the
        output then changes by at most eps (|out_i| + max_j |v_j|). Only weights that fall with the
        lag gain: a diffusive model with beta > 1, or the future of a decaying one.
    projections : (W_q, W_k, W_v, W_o), each an array or None: x @ W before and after attention.
        A leading head axis in W makes heads; sum the output over it for the usual multi-head form.
    residual_step : s: return q + s (out - q), the innovation step (before W_o).
    return_weights : also form and return A.
    threads : default: all processors this process may use.

    Returns
    -------
    AttentionResult
        (output, weights, precision).

    Raises
    ------
    ValueError, TypeError
        Wrong shapes, parameters out of range, unsorted times.

    Notes
    -----
    Time O(Nq N d), with window O(Nq (window + 256) d). Memory O((Nq + N) d) beyond about 5 MiB per
    thread; only `return_weights` forms Nq x N. float32 and complex64 input is computed in that
    precision (times and running sums in float64): the error is about 1e-4 of the spread of the
    pulled values, usually 1e-6. Where |q|^2 is so large against the variances that the
    matrix product would lose more than 1e-11 (float32: 5e-5) of a distance, that product is first
    centred and, if that does not do, differences are taken channel by channel, which is slower.

    The author's published code has logits tau^2 (-log V - log(1 + R2 / (nu n V))) for n complex
    channels: `weight=Power(nu=nu * n, kappa=1.0)`, `inverse_temperature=tau**2`,
    `backward="symmetric"`, decay = -mu.
    """
    robust = as_weight(weight)
    inputs = _prepare(q, k, v, t, t_query, n_visible, projections, robust is None, causal)
    beta = _per_head(inverse_temperature, "inverse_temperature", strict=True)
    p = {
        "mu": _per_head(decay, "decay"),
        "mu_value": _per_head(decay if value_decay is None else value_decay, "value_decay"),
        "sigma2": _per_head(process_var, "process_var"),
        "key_var": _per_head(key_var, "key_var"),
        "query_var": _per_head(query_var, "query_var"),
        "beta": beta,
        "omega": _frequency(frequency, "frequency", inputs.k),
        "omega_value": _value_frequency(frequency, value_frequency, inputs),
    }
    _check_noise(p["key_var"], p["query_var"])
    lead = _lead(inputs, p)
    side = choice(backward, "backward", ("exact", "symmetric"))
    result = _empty(inputs, lead, return_weights)
    heads = _Heads(
        inputs, lead, p, tiles.law_of(robust, inputs.dim), None if causal else side,
        None if window is None else positive_int(window, "window"),
        scalar(window_tolerance, "window_tolerance", low=0.0), result,
    )  # fmt: skip
    jobs = heads.stacked() if heads.share_weights() else heads.single(np.ndindex(lead))
    _run(jobs, _threads(threads))
    return _finish(inputs, result, residual_step, projections)


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Checked arguments, complex channels as pairs of real ones, keys with NaN marked."""

    q: Numbers | None
    k: Numbers | None
    v: Numbers
    known: NDArray[np.bool_] | None
    """(..., N) where k and v are complete, None if everywhere."""
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


def _channels(value: ArrayLike, name: str, rows: int | None) -> Numbers:
    """An argument (..., N, d) as real channels in float32 or float64."""
    raw = np.asarray(value)
    if raw.dtype.kind not in "buifc":
        raise TypeError(f"{name} must be numbers, got dtype {raw.dtype}")
    if raw.ndim < 2 or raw.shape[-1] == 0 or (rows is not None and raw.shape[-2] != rows):
        wanted = "(..., N, d)" if rows is None else f"(..., {rows}, d), one row per time"
        raise ValueError(f"{name} must have shape {wanted}, got {raw.shape}")
    single = raw.dtype in (np.float16, np.float32, np.complex64)
    if raw.dtype.kind == "c":
        out = np.ascontiguousarray(raw, dtype=np.complex64 if single else np.complex128)
        out = out.view(np.float32 if single else np.float64)
    else:
        out = np.asarray(raw, dtype=np.float32 if single else np.float64)
    if np.isinf(out).any():
        raise ValueError(f"{name} must not contain infinities; mark a missing key by NaN")
    return out


def _prepare(
    q: ArrayLike | None,
    k: ArrayLike | None,
    v: ArrayLike,
    t: ArrayLike,
    t_query: ArrayLike | None,
    n_visible: ArrayLike | None,
    projections: Projections | None,
    plain: bool,
    causal: bool,
) -> _Inputs:
    grid = times(t)
    queries = grid if t_query is None else times(t_query, "t_query")
    if not plain and (q is None or k is None):
        raise ValueError(
            "q and k must be given with a robust weight; only weight=None can do without"
        )
    if projections is not None:
        q, k, v = _project(q, k, v, projections)
    held: dict[int, Numbers] = {}

    def channels(value: ArrayLike | None, name: str, rows: int) -> Numbers | None:
        if value is None:
            return None
        if id(value) not in held:
            held[id(value)] = _channels(value, name, rows)
        return (
            _channels(value, name, rows) if held[id(value)].shape[-2] != rows else held[id(value)]
        )

    keys, values = channels(k, "k", len(grid)), channels(v, "v", len(grid))
    anchors = channels(q, "q", len(queries))
    assert values is not None
    given = [x for x in (anchors, keys, values) if x is not None]
    dtype = np.result_type(*given)
    cast = {id(x): np.asarray(x, dtype=dtype) for x in given}
    anchors, keys, values = (None if x is None else cast[id(x)] for x in (anchors, keys, values))
    assert values is not None
    if not plain and anchors.shape[-1] != keys.shape[-1]:  # type: ignore[union-attr]
        raise ValueError(
            "q and k must have the same number of channels, "
            f"got {anchors.shape[-1]} and {keys.shape[-1]} real ones"  # type: ignore[union-attr]
        )
    try:
        np.broadcast_shapes(*(x.shape[:-2] for x in given))
    except ValueError:
        raise ValueError(
            "leading axes (batch, heads) of q, k and v must broadcast, got "
            + ", ".join(str(x.shape[:-2]) for x in given)
        ) from None
    return _Inputs(
        anchors, keys, values, _known(keys, values), np.iscomplexobj(v),
        grid, queries, _visible(n_visible, grid, queries, t_query is None, causal),
    )  # fmt: skip


def _known(keys: Numbers | None, values: Numbers) -> NDArray[np.bool_] | None:
    """Which keys are complete; None when all are."""
    known: NDArray[np.bool_] = np.asarray(~np.isnan(values).any(axis=-1))
    if keys is not None and keys is not values:
        known = known & ~np.isnan(keys).any(axis=-1)
    return None if known.all() else known


def _visible(
    n_visible: ArrayLike | None, t: Array, t_query: Array, on_grid: bool, causal: bool
) -> Index:
    """How many keys belong to the past of each query."""
    if n_visible is None:
        if on_grid:
            return np.arange(1, len(t) + 1)
        return np.searchsorted(t, t_query, side="right")
    given = np.asarray(n_visible)
    if given.dtype.kind not in "iu":
        raise TypeError(f"n_visible must be whole numbers, got dtype {given.dtype}")
    if given.shape != t_query.shape:
        raise ValueError(f"n_visible must have shape {t_query.shape}, got {given.shape}")
    seen = given.astype(np.intp)
    if seen.min() < 0 or seen.max() > len(t) or (np.diff(seen) < 0).any():
        raise ValueError(f"n_visible must not decrease and lie in 0..{len(t)}")
    past, future = seen > 0, seen < len(t)
    if (t[seen[past] - 1] > t_query[past]).any():
        raise ValueError("n_visible counts a key later than its query as past")
    if not causal and (t[seen[future]] < t_query[future]).any():
        raise ValueError("n_visible leaves a key earlier than its query to the future")
    return seen


def _project(
    q: ArrayLike | None, k: ArrayLike | None, v: ArrayLike, projections: Projections
) -> tuple[Numbers | None, Numbers | None, Numbers]:
    """x @ W for q, k and v."""
    if not isinstance(projections, tuple | list) or len(projections) != 4:
        raise ValueError("projections must be (W_q, W_k, W_v, W_o), each an array or None")
    out = []
    for x, W, name in zip((q, k, v), projections, ("q", "k", "v")):
        out.append(None if x is None else np.asarray(x) if W is None else _times(x, W, name))
    assert out[2] is not None
    return out[0], out[1], out[2]


def _times(x: ArrayLike, W: ArrayLike, name: str) -> Numbers:
    a, b = np.asarray(x), np.asarray(W)
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


def _per_head(value: ArrayLike, name: str, *, strict: bool = False) -> Array:
    """A parameter >= 0 (`strict`: > 0), one or one per head."""
    out = real_array(value, name)
    if (out < 0).any() or (strict and (out == 0).any()):
        raise ValueError(f"{name} must be {'>' if strict else '>='} 0, got {out.min():g}")
    return out


def _check_noise(key_var: Array, query_var: Array) -> None:
    try:
        total = key_var + query_var
    except ValueError:
        raise ValueError(
            f"key_var and query_var must broadcast, got {key_var.shape} and {query_var.shape}"
        ) from None
    if (total == 0).any():
        raise ValueError(
            "key_var + query_var must be > 0: without noise a key at the query's own time has "
            "infinite precision"
        )


def _frequency(value: ArrayLike, name: str, data: Numbers | None) -> Array:
    """Rotation rates (..., n) for data of n channel pairs."""
    out = real_array(value, name)
    if data is None:
        return out if out.ndim else out[None]
    n = data.shape[-1] // 2
    if out.ndim == 0:
        if n == 0 and out != 0:
            raise ValueError(f"{name} must be 0 for one real channel: there is no pair to rotate")
        return np.full(n, out)
    if out.shape[-1] != n:
        raise ValueError(f"{name} must be a scalar or have shape (..., {n}), got {out.shape}")
    return out


def _value_frequency(
    frequency: ArrayLike, value_frequency: ArrayLike | None, inputs: _Inputs
) -> Array:
    if value_frequency is not None:
        return _frequency(value_frequency, "value_frequency", inputs.v)
    given = np.asarray(frequency)
    if given.ndim and given.shape[-1] != inputs.v.shape[-1] // 2:
        if not given.any():
            return _frequency(0.0, "frequency", inputs.v)
        raise ValueError(
            "value_frequency must be given where v and k differ in channels: frequency has shape "
            f"{given.shape}, v has {inputs.v.shape[-1] // 2} pairs"
        )
    return _frequency(frequency, "frequency", inputs.v)


def _lead(inputs: _Inputs, parameters: dict[str, Array]) -> tuple[int, ...]:
    """Leading axes of the result."""
    shapes = {
        name: x.shape[:-1] if name.startswith("omega") else x.shape
        for name, x in parameters.items()
    }
    lead = inputs.lead
    for name, shape in shapes.items():
        try:
            lead = np.broadcast_shapes(lead, shape)
        except ValueError:
            raise ValueError(
                f"parameters must broadcast against the leading axes {lead} (batch, heads), "
                f"got {name} of shape {shape}"
            ) from None
    return lead


def _empty(inputs: _Inputs, lead: tuple[int, ...], weights: bool) -> AttentionResult:
    """Arrays that the sweeps fill."""
    n, dtype = len(inputs.t_query), inputs.v.dtype
    return AttentionResult(
        np.empty((*lead, n, inputs.v.shape[-1]), dtype),
        np.zeros((*lead, n, len(inputs.t)), dtype) if weights else None,
        np.empty((*lead, n), dtype),
    )


@dataclass(frozen=True, eq=False)
class _Heads:
    """Prepares the heads one by one: drops missing keys, rotates, picks parameters."""

    inputs: _Inputs
    lead: tuple[int, ...]
    p: dict[str, Array]
    law: tiles.Law
    backward: str | None
    window: int | None
    tolerance: float
    result: AttentionResult

    def at(self, name: str, index: tuple[int, ...]) -> Any:
        """A parameter of one head."""
        value = self.p[name]
        if name.startswith("omega"):
            return np.broadcast_to(value, (*self.lead, value.shape[-1]))[index]
        return float(np.broadcast_to(value, self.lead)[index])

    def rows(self, x: Numbers, index: tuple[int, ...]) -> Numbers:
        """Data of one head."""
        return np.asarray(np.broadcast_to(x, (*self.lead, *x.shape[-2:]))[index])

    def single(self, indices: Any) -> Iterator[tiles.Head]:
        """One head per leading index."""
        inputs, result = self.inputs, self.result
        robust = self.law.kind != "plain"
        for index in indices:
            t, seen, columns = inputs.t, inputs.n_visible, None
            if inputs.known is not None:
                known = np.broadcast_to(inputs.known, (*self.lead, len(t)))[index]
                if not known.all():
                    columns = np.flatnonzero(known)
                    t, seen = t[columns], np.concatenate([[0], np.cumsum(known)])[seen]
            pick: Any = slice(None) if columns is None else columns
            omega, omega_value = self.at("omega", index), self.at("omega_value", index)
            v = self.rows(inputs.v, index)[pick]
            k = q = None
            if robust:
                assert inputs.k is not None
                assert inputs.q is not None
                k = self.rows(inputs.k, index)[pick]
                if not np.array_equal(omega, omega_value):
                    (v,) = tiles.to_rotating_frame([v], t, omega_value)
                    (k,) = tiles.to_rotating_frame([k], t, omega)
                elif inputs.k is inputs.v:
                    k = v = tiles.to_rotating_frame([v], t, omega)[0]
                else:
                    k, v = tiles.to_rotating_frame([k, v], t, omega)
                q = self.rows(inputs.q, index)
            else:
                (v,) = tiles.to_rotating_frame([v], t, omega_value)
            yield tiles.Head(
                inputs.t_query, t, seen, q, k, v, None, omega, omega_value,
                self.at("mu", index), self.at("mu_value", index), self.at("sigma2", index),
                self.at("key_var", index), self.at("query_var", index), self.at("beta", index),
                self.law, self.backward, self.window, self.tolerance,
                result.output[index][:, None, :], result.precision[index][:, None],
                None if result.weights is None else result.weights[index], columns,
            )  # fmt: skip

    def share_weights(self) -> bool:
        """Whether all paths have the same weights, up to missing keys."""
        return (
            self.law.kind == "plain"
            and len(self.lead) > 0
            and self.result.weights is None
            and self.window is None
            and self.tolerance == 0
            and all(x.ndim == (1 if name.startswith("omega") else 0) for name, x in self.p.items())
        )

    def stacked(self) -> Iterator[tiles.Head]:
        """Groups of paths as columns of one head: their weights are computed once."""
        inputs, m = self.inputs, self.inputs.v.shape[-1]
        indices = list(np.ndindex(self.lead))
        size = max(1, STACKED_COLUMNS // m)
        origin = (0,) * len(self.lead)
        par = {name: self.at(name, origin) for name in self.p}
        values = np.broadcast_to(inputs.v, (*self.lead, *inputs.v.shape[-2:]))
        flat = values.reshape(-1, *values.shape[-2:])
        out = self.result.output.reshape(flat.shape[0], -1, m)
        precision = self.result.precision.reshape(flat.shape[0], -1)
        known = None
        if inputs.known is not None:
            known = np.broadcast_to(inputs.known, (*self.lead, len(inputs.t))).reshape(
                len(flat), -1
            )
        for start in range(0, len(indices), size):
            group = slice(start, min(start + size, len(indices)))
            v = flat[group]
            mask = None if known is None else known[group]
            if mask is not None:
                v = np.where(mask[..., None], v, 0)
            (v,) = tiles.to_rotating_frame([v], inputs.t, par["omega_value"])
            head = tiles.Head(
                inputs.t_query, inputs.t, inputs.n_visible, None, None,
                np.ascontiguousarray(v.transpose(1, 0, 2)).reshape(len(inputs.t), -1),
                None if mask is None else np.ascontiguousarray(mask.T, dtype=v.dtype),
                None, par["omega_value"], par["mu"], par["mu_value"], par["sigma2"],
                par["key_var"], par["query_var"], par["beta"], self.law, self.backward, None, 0.0,
                out[group].transpose(1, 0, 2), precision[group].T,
            )  # fmt: skip
            if mask is None or head.even_scale:
                yield head
            else:
                yield from self.single(indices[group])


def _run(heads: Iterator[tiles.Head], threads: int) -> None:
    """Sweep all heads, preparing no more than a batch ahead."""
    batch: list[tuple[int, Any]] = []
    pending = 0
    for head in heads:
        for start, stop, cost in head.blocks():
            batch.append((cost, partial(tiles.sweep, head, start, stop)))
            pending += cost
        if pending > BATCH_PAIRS:
            tiles.run(batch, threads)
            batch, pending = [], 0
    tiles.run(batch, threads)


def _threads(threads: int | None) -> int:
    return tiles.available_threads() if threads is None else positive_int(threads, "threads")


def _finish(
    inputs: _Inputs,
    result: AttentionResult,
    residual_step: float | None,
    projections: Projections | None,
) -> AttentionResult:
    """Residual step, complex channels, output projection."""
    output = result.output
    if residual_step is not None:
        step = scalar(residual_step, "residual_step")
        if inputs.q is None or inputs.q.shape[-1] != output.shape[-1]:
            raise ValueError("residual_step needs q with as many channels as v")
        output = inputs.q + output.dtype.type(step) * (output - inputs.q)
    if inputs.complex_values:
        output = output.view(np.complex64 if output.dtype == np.float32 else np.complex128)
    if projections is not None and projections[3] is not None:
        output = _times(output, projections[3], "o")
    return result._replace(output=output)
