"""Labels of states, matrices, inputs and noise: honoured or refused, never passed over."""

import numpy as np
import pandas as pd
import pytest

import afafilter as a

pl, xr = pytest.importorskip("polars"), pytest.importorskip("xarray")

N = 8
T = np.arange(N) * 1.0
Z = np.random.default_rng(1).normal(size=N).cumsum()
MODEL = a.brownian(1.0, 0.5)
BA, AB = [["b", "a"], ["a", "b"]]
BOTH = np.diag([1.0, 2.0])


@pytest.mark.parametrize(
    "x0",
    [
        pd.Series([1.0, 2.0], index=BA),
        pd.Series([1.0, 2.0], index=pd.MultiIndex.from_tuples([("s", "b"), ("s", "a")])),
        pd.DataFrame([[1.0, 2.0]], columns=BA),
        pd.DataFrame([[1.0, 2.0]], columns=[1, 0]),
        xr.DataArray([1.0, 2.0], coords={"state": BA}, dims="state"),
        pl.DataFrame({"x1": [1.0], "x0": [2.0]}),
    ],
    ids=["series", "levels", "frame", "numbers", "xarray", "polars"],
)
def test_labels_of_a_state_out_of_order_are_refused(x0) -> None:
    model, vector = a.constant_velocity(process_var=1.0, obs_var=1.0), x0
    with pytest.raises(ValueError, match=r"in that order|in the order of its rows"):
        a.simulate(model, T, rng=0, x0=x0)
    if np.ndim(vector) == 1:
        for use in (
            lambda: a.Prior(vector, BOTH),
            lambda: a.LinearSDE(A=-BOTH, Q=BOTH, R=BOTH, drift=vector),
            lambda: a.LinearSDE(A=-BOTH, Q=BOTH, R=BOTH, offset=vector),
            lambda: a.DiscreteModel(F=BOTH / 4, H=BOTH, Q=BOTH, R=BOTH, b=vector),
        ):
            with pytest.raises(ValueError, match="in the order of its rows"):
                use()


def test_labels_in_order_and_matrices_of_one_order_are_taken() -> None:
    assert a.Prior(pd.Series([1.0, 2.0], index=AB), BOTH).mean.tolist() == [1.0, 2.0]
    noise = pd.DataFrame(BOTH, index=BA, columns=BA)  # what frame.cov() gives
    assert (a.LinearSDE(A=-BOTH, Q=BOTH, R=noise).R == BOTH).all()


@pytest.mark.parametrize("labels", [(AB, BA), ([0, 1], [1, 0])])
def test_rows_and_columns_of_two_orders_are_refused(labels) -> None:
    frame = pd.DataFrame(BOTH, index=labels[0], columns=labels[1])
    array = xr.DataArray(BOTH, coords={"i": labels[0], "j": labels[1]}, dims=("i", "j"))
    for matrix in (frame, array):
        for use in (
            lambda cov: a.Prior(np.zeros(2), cov),
            lambda cov: a.LinearSDE(A=-BOTH, Q=cov, R=BOTH),
            lambda cov: a.LinearSDE(A=-cov, Q=BOTH, R=BOTH),
        ):
            with pytest.raises(ValueError, match=r"give both in one order|out of order"):
                use(matrix)


def test_arguments_of_two_orders_are_refused() -> None:
    mean, cov = pd.Series([1.0, 2.0], index=AB), pd.DataFrame(BOTH, index=BA, columns=BA)
    with pytest.raises(ValueError, match="prior mean is labelled a, b, but prior cov b, a"):
        a.Prior(mean, cov)
    ordered = pd.DataFrame(BOTH, index=AB, columns=AB)
    with pytest.raises(ValueError, match="A is labelled a, b, but Q b, a"):
        a.LinearSDE(A=-ordered, Q=cov, R=BOTH)
    with pytest.raises(ValueError, match="F is labelled a, b, but Q b, a"):
        a.DiscreteModel(F=ordered / 4, H=BOTH, Q=cov, R=BOTH)


def test_inputs_with_names_are_taken_by_them() -> None:
    u = {"temp": np.arange(3.0), "flow": 10 + np.arange(3.0)}
    frame = pd.DataFrame(u)[["flow", "temp"]]
    wanted = np.stack([u["temp"], u["flow"]], axis=-1)
    for given in (frame, pl.DataFrame(frame.to_dict("list")), dict(frame)):
        forcing = a.Forcing(np.arange(3.0), given, names=("temp", "flow"))
        assert (forcing.u == wanted).all()
        assert (forcing.at(np.arange(3.0), given).u == wanted).all()


def test_noise_labelled_by_other_times_is_refused() -> None:
    noise = np.linspace(0.3, 1.0, N)[:, None, None]
    wanted = a.kalman_filter(MODEL, T, Z, obs_cov=noise).loglik
    frame = pd.Series(Z, index=T)
    for t, z in ((T, Z), (frame, None)):
        own, other = (
            xr.DataArray(noise, coords={"t": s}, dims=("t", "i", "j")) for s in (T, T + 5)
        )
        assert a.kalman_filter(MODEL, t, z, obs_cov=own).loglik == wanted
        with pytest.raises(ValueError, match="labelled by other times"):
            a.kalman_filter(MODEL, t, z, obs_cov=other)


def test_observations_labelled_by_other_times_are_refused() -> None:
    plain = a.kalman_filter(MODEL, T, Z).loglik
    dates = np.datetime64("2024-01-01") + np.arange(N) * np.timedelta64(1, "D")
    wanted = a.kalman_filter(MODEL, dates, Z).loglik
    paths = np.stack([Z, Z])
    for t in (dates, pd.DatetimeIndex(dates), T):
        later = t + np.timedelta64(366, "D") if np.asarray(t).dtype.kind == "M" else t + 5
        for z, dims in ((Z, ("time",)), (Z, ("row",)), (paths[..., None], ("path", "time", "c"))):
            place = dims.index("time") if "time" in dims else 0
            own, other = (
                xr.DataArray(z, coords={dims[place]: np.asarray(s)}, dims=dims) for s in (t, later)
            )
            assert np.allclose(
                a.kalman_filter(MODEL, t, own).loglik, wanted if t is not T else plain
            )
            with pytest.raises(ValueError, match="z is labelled by other times"):
                a.kalman_filter(MODEL, t, other)
    free = xr.DataArray(Z, coords={"time": dates}, dims="time")  # dates beside numbers say nothing
    assert a.kalman_filter(MODEL, T, free).loglik == plain
