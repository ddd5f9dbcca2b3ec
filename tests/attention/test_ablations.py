"""Prior and gate switched one by one: each row of the ablation table is what its name says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afafilter import (
    Exponential,
    Power,
    StructuredNoise,
    isotropic_attention,
    spectral_bank,
    tensor_attention,
)

N, CHANNELS, NU, GAMMA2 = 40, 3, 5.0, 0.7
OMEGA = np.array([1.0, 0.3, -0.2])
SCORE = 2 / (NU * GAMMA2)


def inputs(normalised: bool = True) -> Any:
    """Complex q, k, v (N, CHANNELS) and irregular times; q and k of length 1 if wanted."""
    rng = np.random.default_rng(4)
    q, k, v = rng.standard_normal((3, N, CHANNELS, 2)) @ [1, 1j]
    if normalised:
        q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    return q, k, v, np.cumsum(rng.exponential(0.3, N))


def lags(t: Any) -> Any:
    return t[:, None] - t


def scores(q: Any, k: Any, turn: Any) -> Any:
    """Re <q_i, turn_ij k_j> (N, N); turn (N, N, CHANNELS)."""
    return np.einsum("ic,ijc,jc->ij", q.conj(), turn, k).real


def softmax(logits: Any) -> Any:
    """Causal softmax."""
    logits = np.where(np.tril(np.ones(logits.shape, bool)), logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def turns(t: Any, omega: Any = OMEGA) -> Any:
    return np.exp(1j * omega * lags(t)[..., None])


STILL = {"decay": 0.0, "process_var": 0.0, "key_var": 0.0, "query_var": GAMMA2}
ROTARY = {**STILL, "weight": Exponential(NU), "frequency": OMEGA}


def test_rotary_attention_with_and_without_value_rotation():
    q, k, v, t = inputs()
    A = softmax(SCORE * scores(q, k, turns(t)))
    plain = isotropic_attention(q, k, v, t, **ROTARY, prior="flat", value_frequency=0.0)
    np.testing.assert_allclose(plain.output, A @ v, rtol=1e-12, atol=1e-13)
    turned = isotropic_attention(q, k, v, t, **ROTARY, prior="flat")
    wanted = np.einsum("ij,ijc,jc->ic", A, turns(t), v)
    np.testing.assert_allclose(turned.output, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("frequency", [0.0, OMEGA], ids=["alibi", "decayed rotary"])
def test_linear_bias(frequency):
    q, k, v, t = inputs()
    slope = 0.9 / (0.4 + 0.2)
    options = {**ROTARY, "frequency": frequency, "value_frequency": 0.0, "prior": "linear"}
    got = isotropic_attention(
        q, k, v, t, **options, value_process_var=0.9, value_key_var=0.4, value_query_var=0.2,
        return_weights=True,
    )  # fmt: skip
    A = softmax(SCORE * scores(q, k, turns(t, np.broadcast_to(frequency, 3))) - slope * lags(t))
    np.testing.assert_allclose(got.weights, A, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(got.output, A @ v, rtol=1e-11, atol=1e-13)


def test_decay_of_the_values_alone():
    q, k, v, t = inputs()
    got = isotropic_attention(q, k, v, t, **ROTARY, prior="flat", value_decay=0.4)
    A = softmax(SCORE * scores(q, k, turns(t)))
    wanted = np.einsum("ij,ijc,jc->ic", A * np.exp(-0.4 * lags(t)), turns(t), v)
    np.testing.assert_allclose(got.output, wanted, rtol=1e-11, atol=1e-13)


def test_xpos_decays_every_channel_of_the_score():
    q, k, v, t = inputs()
    mu = np.array([0.2, 0.5, 0.05])
    options = {**STILL, "decay": mu, "frequency": OMEGA, "weight": Exponential(NU)}
    got = tensor_attention(q, k, v, t, **options)
    E = np.exp(-mu * np.where(np.tri(N, dtype=bool), lags(t), 0.0)[..., None])
    # |q - E k|^2 holds xPos' score <q, E e^{Omega tau} k>, and the length of what was pulled
    length = np.einsum("ijc,jc->ij", E**2, np.abs(k) ** 2)
    A = softmax(SCORE * (scores(q, k, E * turns(t)) - 0.5 * length))
    wanted = np.einsum("ij,ijc,jc->ic", A, E * turns(t), v)
    np.testing.assert_allclose(got.output, wanted, rtol=1e-11, atol=1e-13)


def test_without_a_gate_and_with_a_linear_prior_it_is_a_linear_recurrence():
    q, k, v, t = inputs(normalised=False)
    got = isotropic_attention(
        q, k, v, t, decay=0.3, frequency=OMEGA, process_var=0.5, key_var=0.2, query_var=0.1,
        weight=Power(3.0), prior="linear", gate="none",
    )  # fmt: skip
    slope, state, mass, out = 0.5 / 0.3, np.zeros(CHANNELS, complex), 0.0, []
    for i in range(N):
        step = t[i] - t[i - 1] if i else 0.0
        state = np.exp((-slope - 0.3 + 1j * OMEGA) * step) * state + v[i]
        mass = np.exp(-slope * step) * mass + 1
        out.append(state / mass)
    np.testing.assert_allclose(got.output, out, rtol=1e-11, atol=1e-13)


def dense_rfa(
    q: Any,
    k: Any,
    v: Any,
    t: Any,
    gate: Any,
    prior: Any,
    nu: float,
    beta: float,
    omega: Any = OMEGA,
) -> Any:
    """Weights and output with noises (mu, sigma2, eta2, gamma2) of the gate and of the prior."""
    tau = np.where(np.tri(N, dtype=bool), lags(t), 0.0)

    def variance(noise: Any) -> Any:
        mu, s2, eta2, gamma2 = noise
        E2 = np.exp(-2 * mu * tau)
        return s2 * (1 - E2) / (2 * mu) + eta2 * E2 + gamma2

    Phi = np.exp(-gate[0] * tau)[..., None] * turns(t, omega)
    d2 = (np.abs(q[:, None] - Phi * k) ** 2).sum(-1) / variance(gate)
    kappa = (nu + 2 * CHANNELS) / (2 * CHANNELS)
    A = softmax(beta * (-np.log(variance(prior)) - kappa * np.log1p(d2 / nu)))
    value = np.exp(-prior[0] * tau)[..., None] * turns(t, omega) * v
    return A, np.einsum("ij,ijc->ic", A, value)


@pytest.mark.parametrize("separate", [False, True])
def test_robust_filter_attention(separate):
    q, k, v, t = inputs(normalised=False)
    gate = (0.2, 0.6, 0.3, 0.1)
    prior = (0.4, 1.1, 0.2, 0.5) if separate else gate
    own = {}
    if separate:
        names = ("value_decay", "value_process_var", "value_key_var", "value_query_var")
        own = dict(zip(names, prior, strict=True))
    names = ("decay", "process_var", "key_var", "query_var")
    got = isotropic_attention(
        q, k, v, t, **dict(zip(names, gate, strict=True)), **own, frequency=OMEGA,
        weight=Power(5.0), inverse_temperature=1.3, return_weights=True,
    )  # fmt: skip
    A, output = dense_rfa(q, k, v, t, gate, prior, 5.0, 1.3)
    np.testing.assert_allclose(got.weights, A, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(got.output, output, rtol=1e-10, atol=1e-12)


def test_spectrally_coupled_heads():
    q, k, v, t = inputs(normalised=False)
    bank = spectral_bank(np.array([0.2, 1.0, 4.0])[:, None] * OMEGA, 0.3)
    got = isotropic_attention(
        q, k, v, t, **bank._asdict(), process_var=0.6, key_var=0.3, query_var=0.1, weight=Power(5.0)
    )
    for h, (mu, omega) in enumerate(zip([0.06, 0.3, 1.2], bank.frequency, strict=True)):
        noise = (mu, 0.6, 0.3, 0.1)
        _, output = dense_rfa(q, k, v, t, noise, noise, 5.0, 1.0, omega)
        np.testing.assert_allclose(got.output[h], output, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(
    ("amplitudes", "rates"),
    [([1.0], [-0.6]), ([1.0, 0.8], [0.0, 2.0j]), ([0.5], [0.4]), ([2.0], [-0.6])],
)
def test_noise_that_depends_on_the_lag(decay, amplitudes, rates):
    """V by quadrature over the time since the key; q at rate -2 mu is the limit of the formula."""
    q, k, v, t = inputs(normalised=False)
    structure = StructuredNoise(amplitudes, rates)
    got = isotropic_attention(
        q, k, v, t, decay=decay, frequency=OMEGA, process_var=0.6, key_var=0.3, query_var=0.1,
        prior="structured", structure=structure, gate="none", return_weights=True,
    )  # fmt: skip
    tau = np.where(np.tri(N, dtype=bool), lags(t), 0.0)
    x, w = np.polynomial.legendre.leggauss(60)
    s = 0.5 * tau[..., None] * (x + 1)
    V = 0.5 * tau * ((np.exp(-2 * decay * (tau[..., None] - s)) * structure(s)) @ w)
    A = softmax(-np.log(0.6 * V + 0.3 * np.exp(-2 * decay * tau) + 0.1))
    np.testing.assert_allclose(got.weights, A, rtol=1e-9, atol=1e-14)


TWO_SIDED: dict[str, Any] = {
    "decay": 0.2,
    "process_var": 0.6,
    "key_var": 0.3,
    "query_var": 0.1,
    "frequency": OMEGA,
    "weight": Power(5.0),
    "causal": False,
}


@pytest.mark.parametrize("backward", ["exact", "symmetric"])
def test_constant_structure_is_the_lyapunov_prior(backward):
    q, k, v, t = inputs(normalised=False)
    options = {**TWO_SIDED, "backward": backward}
    flat = isotropic_attention(
        q, k, v, t, **options, prior="structured", structure=StructuredNoise([1.0], [0.0])
    )
    plain = isotropic_attention(q, k, v, t, **options)
    np.testing.assert_allclose(flat.output, plain.output, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(flat.precision, plain.precision, rtol=1e-10)


@pytest.mark.parametrize("backward", ["exact", "symmetric"])
def test_separate_noises_that_are_equal_change_nothing(backward):
    q, k, v, t = inputs(normalised=False)
    options = {**TWO_SIDED, "backward": backward}
    same = isotropic_attention(
        q, k, v, t, **options, value_process_var=0.6, value_key_var=0.3, value_query_var=0.1
    )
    plain = isotropic_attention(q, k, v, t, **options)
    np.testing.assert_allclose(same.output, plain.output, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(same.precision, plain.precision, rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": "alibi"}, "prior must be one of 'dle', 'flat', 'linear', 'structured'"),
        ({"gate": "off"}, "gate must be one of 'robust', 'none'"),
        ({"prior": "structured"}, "structure=StructuredNoise.* got prior='structured'"),
        ({"structure": StructuredNoise([1.0], [0.0])}, "got prior='dle' and structure=one"),
        (
            {"prior": "structured", "structure": StructuredNoise([1.0], [0.0], origin=3.0)},
            "origin must be 0",
        ),
        (
            {"prior": "structured", "structure": StructuredNoise([1.0], [1.0j])},
            "q must be >= 0",
        ),
        (
            {
                "prior": "structured",
                "structure": StructuredNoise([1.0], [0.0]),
                "window_tolerance": 1e-3,
            },
            "window_tolerance must be 0",
        ),
        ({"value_key_var": -1.0}, "value_key_var must be >= 0"),
        ({"value_key_var": 0.0, "value_query_var": 0.0}, "value_key_var .* must be > 0"),
    ],
)
def test_bad_switches(change, message):
    q, k, v, t = inputs()
    with pytest.raises(ValueError, match=message):
        isotropic_attention(q, k, v, t, **ROTARY, **change)
