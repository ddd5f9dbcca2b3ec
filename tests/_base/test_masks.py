"""Masks where nobody looks for them: noise, truths, counts, lists of lists."""

import numpy as np
import pytest

import afafilter as a

N = 8
T = np.arange(N) * 1.0
RNG = np.random.default_rng(1)
Z = RNG.normal(size=N).cumsum()
HIDDEN = np.arange(N) == 4
MODEL = a.brownian(1.0, 0.5)
FILL = 9999.0


def masked(values: np.ndarray) -> np.ma.MaskedArray:
    """The row that is hidden, full of what would spoil everything."""
    hide = np.broadcast_to(HIDDEN.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    return np.ma.array(np.where(hide, FILL, values), mask=hide)


def test_held_out_noise_behind_a_mask_is_not_used() -> None:
    holes = np.where(HIDDEN, np.nan, Z)
    noise = RNG.uniform(0.3, 1.0, (N, 1, 1))
    spoilt = np.where(HIDDEN[:, None, None], np.nan, noise)
    wanted = a.held_out_score(MODEL, T, holes, 6, obs_cov=spoilt)
    assert a.held_out_score(MODEL, T, masked(Z), 6, obs_cov=masked(noise)) == wanted


def test_a_stream_refuses_masked_noise_and_takes_a_masked_value() -> None:
    hidden = np.ma.array([[5.0]], mask=[[True]])
    with pytest.raises(ValueError, match="beside an observation"):
        a.KalmanStream(MODEL).update(0.0, 1.0, obs_cov=hidden)
    found = a.KalmanStream(MODEL).update(0.0, np.ma.array([FILL], mask=[True]), obs_cov=hidden)
    assert np.isnan(found.mean).all()


def test_masked_truths_are_not_scored() -> None:
    estimate = a.kalman_filter(MODEL, T, Z)
    x = Z[:, None] + 0.3
    truth = a.Trajectories(T, masked(x), Z[:, None])
    error = (estimate.mean - x)[~HIDDEN]
    wanted = float(np.sqrt(np.mean(error**2)))
    assert a.score(estimate, truth).value("rmse") == pytest.approx(wanted)
    frame = a.breakdown_curve(a.kalman_filter, MODEL, truth, rates=[0.0], size=1.0)
    assert frame["rmse"][0] == pytest.approx(wanted)


def test_counts_and_matrices_behind_a_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="n_visible must not hold masked"):
        a.isotropic_attention(
            None,
            None,
            Z[:, None],
            T,
            decay=0.1,
            process_var=1.0,
            key_var=1.0,
            n_visible=np.ma.array(np.arange(1, N + 1), mask=HIDDEN),
        )
    with pytest.raises(ValueError, match="H must not hold masked"):
        a.kalman_filter(MODEL, T, Z).through(np.ma.array([[1.0]], mask=[[True]]))


def test_lists_of_lists_of_masked_rows() -> None:
    z = np.stack([Z, Z[::-1]], axis=-1)
    model = a.spiral()
    holes = np.where(HIDDEN[:, None], np.nan, z)
    wanted = a.kalman_filter(model, T, holes).mean
    for given in ([list(masked(z))] * 2, [tuple(masked(z)), list(z[:4]) + list(masked(z)[4:])]):
        for path in a.kalman_filter(model, T, given).mean:
            np.testing.assert_allclose(path, wanted)


def test_series_side_by_side_in_one_masked_array() -> None:
    found = a.fit_each(MODEL, T, np.ma.stack([masked(Z)] * 2), free=["Q"]).loglik
    wanted = a.fit(MODEL, T, np.where(HIDDEN, np.nan, Z), free=["Q"]).loglik
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_masked_objects_are_missing() -> None:
    z = masked(Z)
    wanted = a.kalman_filter(MODEL, T, z).loglik
    assert (
        a.kalman_filter(MODEL, T, np.ma.array(z.data.astype(object), mask=z.mask)).loglik == wanted
    )
