"""Filter attention in its raw form: queries, keys and values on a time axis.

`isotropic_attention` costs what ordinary attention costs; `tensor_attention` gives every channel
its own dynamics and precision. Source: arXiv:2509.04154.

Symbols used inside: mu decay, omega frequency, sigma^2 process_var, eta^2 key_var, gamma^2
query_var, beta inverse_temperature, E = e^{-mu |tau|}, S the variance of a pulled-forward key.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, choice, positive_int, scalar
from afafilter._base.threads import thread_count
from afafilter.attention.heads import AttentionResult, Request, attend
from afafilter.attention.inputs import (
    Inputs,
    Projections,
    check_structure,
    each,
    future,
    leading_axes,
    noises,
    per_head,
    prepare,
    rotation,
    times_matrix,
    value_noises,
    value_rotation,
)
from afafilter.attention.law import law_of
from afafilter.models.structured_noise import StructuredNoise
from afafilter.weights import Weight, as_weight

__all__ = ["AttentionResult", "isotropic_attention", "tensor_attention"]

GATES = ("robust", "none")


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
    value_process_var: ArrayLike | None = None,
    value_key_var: ArrayLike | None = None,
    value_query_var: ArrayLike | None = None,
    prior: str = "dle",
    structure: StructuredNoise | None = None,
    gate: str = "robust",
    weight: Weight | str | None = None,
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
    q : array_like, shape (..., Nq, d), optional
        Queries (anchors); None allowed when `weight` is None, where they do not count.
        With a robust weight, a query holding a NaN has a NaN output and precision 0.
    k, v : array_like, shape (..., N, d)
        And (..., N, m) keys and values. Each array is complex, or real with paired
        channels (2k, 2k+1); an odd last real channel does not rotate. A row of k or v holding a NaN
        is a missing key. Leading axes are paths, batches, heads, and broadcast. k may be None when
        `weight` is None.
    t : array_like, shape (N,)
        Non-decreasing times of the keys.
    decay : array_like
        mu >= 0, 1/time; scalar or of the shape of (trailing) leading axes: one per head. So are
        process_var, key_var, query_var, inverse_temperature and value_decay.
    frequency : array_like
        Omega, radian/time: scalar, or (..., n) with n complex channels or n = d // 2 pairs.
    process_var : array_like
        sigma^2 >= 0 per unit time.
    key_var : array_like
        eta^2 >= 0.
    query_var : array_like
        gamma^2 >= 0.
        Variances are per real component; key_var + query_var must be > 0.
    value_decay, value_frequency : array_like, optional
        Dynamics of the values if they differ from those of the keys.
    value_process_var, value_key_var, value_query_var : array_like, optional
        Noises of the prior weight P^v, where they
        differ from those of the gate's distances (process_var, key_var, query_var, each the default
        of its own); its decay is value_decay. Then A_ij = softmax_j(beta log(P^v_ij w(d2_ij))).
    prior : str
        P^v as a function of the lag: "dle", 1/(Vp(tau) + eta^2 E^2 + gamma^2), the solution of
        the differential Lyapunov equation; "flat", 1; "linear", its tangent, log P^v =
        -log(eta^2 + gamma^2) - sigma^2 tau / (eta^2 + gamma^2) (ALiBi); or "structured", "dle" with
        process noise that depends on the lag.
    structure : StructuredNoise, optional
        Of prior="structured" (origin 0): q as a function of the time s since the key, so that
        Vp(tau) = sigma^2 int_0^tau e^{-2 mu (tau - s)} q(s) ds: a Toeplitz kernel, another thing
        than q in absolute time (`structured_adaptive_filter`). Not with window_tolerance.
    gate : str
        "robust", or "none": w = 1 whatever the weight.
    weight : Weight or str, optional
        Robust weight w(d2, d), or None (w = 1).
    inverse_temperature : array_like
        beta > 0.
    causal : bool
        Only past keys. False: also future ones.
    backward : str
        Future keys are pulled back "exact" (e^{+mu tau}, the smoother) or "symmetric":
        decayed by ``e^{-mu |tau|}`` like past ones, as the author's published code does.
    t_query : array_like, shape (Nq,), optional
        Non-decreasing query times, default t.
    n_visible : array_like, shape (Nq,), optional
        Non-decreasing: the past of query i is keys j < n_visible[i], its future the
        others. Default: i + 1 (by index, so that equal stamps count in order), and with t_query all
        keys at or before the query time.
    window : int, optional
        Use only so many past (and future) keys nearest to the query.
    window_tolerance : float
        eps > 0: leave out keys that together weigh at most eps times those kept; the output then
        changes by at most ``eps (|out_i| + max_j |v_j|)``. Only weights that fall with the lag
        gain: a diffusive model with beta > 1, or the future of a decaying one.
    projections : Projections, optional
        (W_q, W_k, W_v, W_o), each an array or None: x @ W before and after attention.
        A leading head axis in W makes heads; sum the output over it for the usual multi-head form.
    residual_step : float, optional
        s: return v + s (out - v), the innovation step from the values (before W_o); the
        output itself where v is missing. Not with t_query.
    return_weights : bool
        Also form and return A.
    threads : int, optional
        Default: all processors this process may use, at most `AFAFILTER_NUM_THREADS`.

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
    Time O(Nq N d), with window O(Nq (window + 256) d); power-weighted keys beyond some 45 / decay
    (float32: 25) cost little. Memory O((Nq + N) d) beyond 5 MiB per thread; `return_weights` forms
    Nq x N. float32 and complex64 input is computed in that precision (times and running sums in
    float64): error 1e-4 of the spread of the pulled values, usually 1e-6. Where ``|q|^2`` is so
    large against the variances that the matrix product would lose more than 1e-11 (float32: 5e-5)
    of a distance, it is centred first or, if need be, replaced by differences, which is slower.

    The author's first published code (AFA) has logits tau^2 (-log V - log(1 + R2 / (nu n V))) for n
    complex channels: `weight=Power(nu=nu * n, kappa=1.0)`, `inverse_temperature=tau**2`,
    `backward="symmetric"`, decay = -mu. The second (Robust Filter Attention) has logits
    beta_s (-log V - kappa log(1 + R2 / (nu V))), kappa = (nu + d) / d with d = 2n:
    `weight=Power(nu)`, `inverse_temperature=beta_s`; nu and beta_s are softplus of its parameters.

    Logits of each channel's own residual (the paper's A.5) are channels as heads, (n, ..., N, 1)
    complex; one logit from residuals summed over channels (B.1) is what `d2` gives here.
    Stacked layers whose keys are the estimates below over-smooth: keep k and v, move q.

    A common noise in every prior and every distance is a choice. Rows of the usual ablation, with
    weight=Exponential(nu), q and k of fixed length, decay = process_var = key_var = 0 for
    distances, and scores <q, e^{Omega tau} k> 2 beta / (nu query_var):

    ===========================  ===================================================================
    rotary, values not turned    prior="flat", value_frequency=0
    rotary with value rotation   prior="flat"
    ALiBi                        prior="linear", frequency=0, slope value_process_var /
                                 (value_key_var + value_query_var)
    decayed rotary               the same with frequency; or value_decay for the values alone
    xPos, RetNet                 `tensor_attention` with decay, process_var = key_var = 0
    gated linear attention       prior="linear", gate="none": a linear recurrence
    RFA                          the defaults; SC-RFA: decay from `spectral_bank`
    ===========================  ===================================================================

    Examples
    --------
    >>> import numpy as np
    >>> from afafilter import isotropic_attention
    >>> z = np.eye(4)
    >>> isotropic_attention(z, z, z, range(4), decay=0.1, process_var=0.2, key_var=1.0).output.shape
    (4, 4)
    """
    given = locals()
    robust = as_weight(weight) if choice(gate, "gate", GATES) == "robust" else None
    inputs = prepare(given, robust is None)
    p = {
        "decay": per_head(decay, "decay"),
        "value_decay": per_head(decay if value_decay is None else value_decay, "value_decay"),
        "beta": per_head(inverse_temperature, "inverse_temperature", strict=True),
        "omega": rotation(frequency, "frequency", inputs.k),
        "omega_value": value_rotation(frequency, value_frequency, inputs),
        **noises(given),
        **value_noises(given),
    }
    check_structure(structure, prior, inputs, window_tolerance)
    return _attention(given, inputs, robust, p, apart=False)


def tensor_attention(
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
    prior_precision: ArrayLike = 0.0,
    weight: Weight | str | None = None,
    inverse_temperature: ArrayLike = 1.0,
    causal: bool = True,
    backward: str = "exact",
    t_query: ArrayLike | None = None,
    n_visible: ArrayLike | None = None,
    window: int | None = None,
    projections: Projections | None = None,
    residual_step: float | None = None,
    return_weights: bool = False,
    threads: int | None = None,
) -> AttentionResult:
    """Attention in which every mode has its own dynamics, noise and precision.

    A mode is a complex channel, or a pair (2k, 2k+1) of real ones (an odd last real channel is a
    mode of its own). With P_ijm the precision of mode m of key j at query i, as in
    `isotropic_attention` but with the mode's parameters, and one robust weight for all modes::

        out_im = sum_j W_ij P_ijm zhat_ijm / (prior_m + sum_j W_ij P_ijm)
        d2_ij  = sum_m P_ijm |q_im - zhat_ijm|^2
        W_ij   = det(P_ij)^((beta - 1) / d) w(d2_ij)^beta

    Parameters
    ----------
    q, k, v, t
        As in `isotropic_attention`; k and v have the same channels.
    decay, process_var, key_var, query_var : array_like
        Scalars or (..., n), one per mode; leading axes are
        heads and broadcast with those of the data.
    frequency : array_like
        Scalar or (..., n); (..., d // 2) for d real channels.
    prior_precision : array_like
        Scalar or (..., n), precision of a prior of mean 0 on every mode, default 0.
    weight, inverse_temperature, causal, backward, t_query, n_visible, window
        As in `isotropic_attention`.
    projections, residual_step, threads
        As in `isotropic_attention`.
    return_weights : bool
        Also form and return the normalised weights W_ij P_ijm / (prior_m + sum).

    Returns
    -------
    AttentionResult
        output (..., Nq, d); weights (..., n, Nq, N) or None; precision (..., Nq, n), the
        denominators: with inverse_temperature = 1 the inverse of the claimed variances.

    Raises
    ------
    ValueError, TypeError
        Wrong shapes, parameters out of range, unsorted times.

    Notes
    -----
    Source: arXiv:2509.04154 (tensor form). Time O(Nq N d), about twenty elementwise passes per
    mode, much slower than `isotropic_attention`; memory O((Nq + N) d) beyond about 30 MiB per
    thread, except for `return_weights`.

    Examples
    --------
    >>> import numpy as np
    >>> from afafilter import tensor_attention
    >>> z = np.eye(4)
    >>> found = tensor_attention(None, None, z, range(4), decay=0.1, process_var=0.2, key_var=1.0)
    >>> found.precision.shape
    (4, 2)
    """
    given = locals()
    robust = as_weight(weight)
    inputs = prepare(given, robust is None)
    d = inputs.v.shape[-1]
    if inputs.dim != d:
        raise ValueError(f"k and v must have the same channels, got {inputs.dim} and {d} real ones")
    modal = {name: per_head(given[name], name) for name in ("decay", "prior_precision")}
    p = {name: each(x, name, (d + 1) // 2) for name, x in {**modal, **noises(given)}.items()}
    p["value_decay"] = p["decay"]
    p["omega"] = p["omega_value"] = rotation(frequency, "frequency", inputs.v)
    p["beta"] = per_head(inverse_temperature, "inverse_temperature", strict=True)
    return _attention(given, inputs, robust, p, apart=True)


def _attention(
    given: dict[str, Any],
    inputs: Inputs,
    robust: Weight | None,
    parameters: dict[str, Array],
    *,
    apart: bool,
) -> AttentionResult:
    """Attention with the other arguments `given`: residual step, complex channels, projection."""
    window, threads, step = given["window"], given["threads"], given["residual_step"]
    request = Request(
        inputs,
        leading_axes(inputs, parameters, apart),
        parameters,
        law_of(robust, inputs.dim),
        future(given["backward"], given["causal"]),
        None if window is None else positive_int(window, "window"),
        scalar(given.get("window_tolerance", 0.0), "window_tolerance", low=0.0),
        given["return_weights"],
        thread_count() if threads is None else positive_int(threads, "threads"),
        given.get("prior", "dle"),
        given.get("structure"),
        apart,
    )
    step = None if step is None else scalar(step, "residual_step")
    if step is not None and given["t_query"] is not None:
        raise ValueError(
            "residual_step moves from the values v, which have no value at t_query; "
            "leave out t_query, or interpolate the output yourself"
        )
    result = attend(request)
    output, weights = result.output, result.weights
    if robust is not None and inputs.q is not None and not inputs.q_complete:
        lost = np.broadcast_to(np.isnan(inputs.q).any(axis=-1), output.shape[:-1])
        output[lost], result.precision[lost] = np.nan, 0.0
        if weights is not None:
            (np.moveaxis(weights, -2, -3) if apart else weights)[lost] = 0.0
    if step is not None:
        here = np.where(np.isnan(inputs.v).any(axis=-1, keepdims=True), output, inputs.v)
        output = here + output.dtype.type(step) * (output - here)
    if inputs.complex_values:
        output = output.view(np.complex64 if output.dtype == np.float32 else np.complex128)
    if given["projections"] is not None and given["projections"][3] is not None:
        output = times_matrix(output, given["projections"][3], "o")
    return result._replace(output=output)
