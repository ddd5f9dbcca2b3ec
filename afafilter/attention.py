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
from afafilter._attention_blocks import available_threads, run, sweep
from afafilter._attention_inputs import (
    Inputs,
    Numbers,
    Projections,
    check_noise,
    leading_axes,
    per_head,
    prepare,
    rotation,
    times_matrix,
    value_rotation,
)  # fmt: skip
from afafilter._validate import Array, choice, positive_int, scalar
from afafilter.weights import Weight, as_weight

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
        With a robust weight, a query holding a NaN has a NaN output and precision 0.
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
    inputs = prepare(q, k, v, t, t_query, n_visible, projections, robust is None, causal)
    beta = per_head(inverse_temperature, "inverse_temperature", strict=True)
    p = {
        "mu": per_head(decay, "decay"),
        "mu_value": per_head(decay if value_decay is None else value_decay, "value_decay"),
        "sigma2": per_head(process_var, "process_var"),
        "key_var": per_head(key_var, "key_var"),
        "query_var": per_head(query_var, "query_var"),
        "beta": beta,
        "omega": rotation(frequency, "frequency", inputs.k),
        "omega_value": value_rotation(frequency, value_frequency, inputs),
    }
    check_noise(p["key_var"], p["query_var"])
    lead = leading_axes(inputs, p)
    side = choice(backward, "backward", ("exact", "symmetric"))
    result = _empty(inputs, lead, return_weights)
    heads = _Heads(
        inputs, lead, p, tiles.law_of(robust, inputs.dim), None if causal else side,
        None if window is None else positive_int(window, "window"),
        scalar(window_tolerance, "window_tolerance", low=0.0), result,
    )  # fmt: skip
    jobs = heads.stacked() if heads.share_weights() else heads.single(np.ndindex(lead))
    _run(jobs, _threads(threads))
    return _finish(inputs, result, residual_step, projections, robust is not None)


def _empty(inputs: Inputs, lead: tuple[int, ...], weights: bool) -> AttentionResult:
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

    inputs: Inputs
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
                q = np.nan_to_num(self.rows(inputs.q, index))
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
            batch.append((cost, partial(sweep, head, start, stop)))
            pending += cost
        if pending > BATCH_PAIRS:
            run(batch, threads)
            batch, pending = [], 0
    run(batch, threads)


def _threads(threads: int | None) -> int:
    return available_threads() if threads is None else positive_int(threads, "threads")


def _finish(
    inputs: Inputs,
    result: AttentionResult,
    residual_step: float | None,
    projections: Projections | None,
    robust: bool,
) -> AttentionResult:
    """Unknown queries, residual step, complex channels, output projection."""
    output = result.output
    if robust and inputs.q is not None:
        lost = np.broadcast_to(np.isnan(inputs.q).any(axis=-1), result.precision.shape)
        output[lost], result.precision[lost] = np.nan, 0.0
        if result.weights is not None:
            result.weights[lost] = 0.0
    if residual_step is not None:
        step = scalar(residual_step, "residual_step")
        if inputs.q is None or inputs.q.shape[-1] != output.shape[-1]:
            raise ValueError("residual_step needs q with as many channels as v")
        output = inputs.q + output.dtype.type(step) * (output - inputs.q)
    if inputs.complex_values:
        output = output.view(np.complex64 if output.dtype == np.float32 else np.complex128)
    if projections is not None and projections[3] is not None:
        output = times_matrix(output, projections[3], "o")
    return result._replace(output=output)
