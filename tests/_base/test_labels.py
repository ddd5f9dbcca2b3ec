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


DAYS = pd.date_range("2024-01-01", periods=N)
OTHER = {
    "numbers": (T, pd.Index(T + 5)),
    "whole numbers with a name": (T, pd.RangeIndex(1900, 1900 + N, name="year")),
    "a list": (T.tolist(), pd.Index(T + 0.01)),
    "polars": (pl.Series(T), pd.Index(T + 5)),
    "dates of numpy": (DAYS.to_numpy(), DAYS + pd.Timedelta("1D")),
    "dates of Python": ([x.date() for x in DAYS], DAYS + pd.Timedelta("1D")),
    "periods": (DAYS, (DAYS + pd.Timedelta("1D")).to_period("D")),
    "spans": (DAYS - DAYS[0], DAYS - DAYS[0] + pd.Timedelta("1D")),
    "another zone": (DAYS.tz_localize("Europe/Berlin"), DAYS.tz_localize("UTC")),
}


@pytest.mark.parametrize("kind", OTHER)
def test_rows_of_pandas_labelled_by_other_times_are_refused(kind) -> None:
    t, index = OTHER[kind]
    for z in (pd.Series(Z, index=index), pd.DataFrame({"z": Z}, index=index)):
        for use in (a.kalman_filter, a.adaptive_smoother, a.loglik, a.diagnose):
            with pytest.raises(ValueError, match="z is labelled by other times than the data"):
                use(MODEL, t, z)
    with pytest.raises(ValueError, match="inputs is labelled by other times"):
        a.fit("brownian + noise", t, Z, inputs=pd.Series(np.sin(T), index=index))


SAME = {
    "none": (T + 10, None),
    "places": (T + 10, [*range(N)]),
    "rounded": (0.1 * T, pd.Index((0.1 * T).astype(np.float32))),
    "dates in seconds": (DAYS.to_numpy().astype("M8[s]"), DAYS),
    "periods": (DAYS, DAYS.to_period("D")),
    "instants": (
        DAYS.tz_localize("Europe/Berlin"),
        DAYS.tz_localize("Europe/Berlin").tz_convert(0),
    ),
    "dates beside numbers": (T, DAYS),
}


@pytest.mark.parametrize("kind", SAME)
def test_rows_of_pandas_labelled_by_the_same_times_are_taken(kind, recwarn) -> None:
    t, index = SAME[kind]
    wanted = a.kalman_filter(MODEL, t, Z).loglik
    assert a.kalman_filter(MODEL, t, pd.Series(Z, index=index)).loglik == wanted
    assert not recwarn.list


def test_whole_numbers_that_may_number_rows_are_warned_of() -> None:
    chosen = pd.DataFrame({"t": T, "z": Z})[Z.min() < Z]
    wanted = a.kalman_filter(MODEL, chosen["t"], chosen["z"]).loglik
    for index in (chosen.index, pd.Index(chosen.index, dtype="Int64"), range(1900, 1899 + N)):
        rows = pd.Series(chosen["z"].to_numpy(), index=index)
        with pytest.warns(UserWarning, match="labelled by other times.*taken row by row"):
            found = a.kalman_filter(MODEL, chosen["t"].to_numpy() + 0.5, rows)
        assert found.loglik == pytest.approx(wanted, rel=1e-12)


def test_truths_and_inputs_labelled_by_other_times_are_refused() -> None:
    numbered, dated = a.kalman_filter(MODEL, T, Z), a.kalman_filter(MODEL, pd.Series(Z, index=DAYS))
    for estimate, index in ((numbered, pd.Index(T)), (dated, DAYS)):
        one = pd.Timedelta("1D") if estimate is dated else 0.5
        right, wrong = (pd.DataFrame({"x": Z}, index=x) for x in (index, index + one))
        wanted = float(np.sqrt(np.mean((estimate.mean[:, 0] - Z) ** 2)))
        assert a.score(estimate, right).value("rmse") == pytest.approx(wanted)
        for truth in (wrong, xr.DataArray(wrong, dims=("time", "state"))):
            with pytest.raises(ValueError, match="truth is labelled by other times"):
                a.score(estimate, truth)
    with pytest.raises(ValueError, match="forcing u is labelled by other times"):
        a.Forcing(T, pd.Series(Z, index=T + 0.5))
    shown = xr.DataArray(Z, coords={"time": T + 0.5}, dims="time")
    with pytest.raises(ValueError, match="inputs is labelled by other times"):
        a.fit("brownian + noise", T, Z, inputs=shown)


def test_levels_of_labels_are_compared_with_the_times(recwarn) -> None:
    wanted = a.kalman_filter(MODEL, T, Z).loglik
    names = ["x"] * N
    right = {
        "last": pd.MultiIndex.from_arrays([names, T]),
        "first": pd.MultiIndex.from_arrays([T, names], names=["t", None]),
        "numbered": pd.MultiIndex.from_arrays([names, range(N)]),
        "dates": pd.MultiIndex.from_arrays([DAYS, range(N)]),
    }
    for index in right.values():
        assert a.kalman_filter(MODEL, T, pd.Series(Z, index=index)).loglik == wanted
    assert not recwarn.list
    later = {
        "last": (T, pd.MultiIndex.from_arrays([names, T + 5])),
        "first": (T, pd.MultiIndex.from_arrays([T + 5, names], names=["t", None])),
        "dates": (DAYS, pd.MultiIndex.from_arrays([DAYS + pd.Timedelta("1D"), range(N)])),
    }
    for t, index in later.values():
        for use in (a.kalman_filter, a.adaptive_filter, a.loglik):
            with pytest.raises(ValueError, match="z is labelled by other times than the data"):
                use(MODEL, t, pd.Series(Z, index=index))
    station = pd.Series(Z, index=pd.MultiIndex.from_arrays([names, range(7, 7 + N)]))
    with pytest.warns(UserWarning, match="labelled by other times.*taken row by row"):
        assert a.kalman_filter(MODEL, T, station).loglik == wanted


def test_inputs_beside_paths_go_by_their_common_times() -> None:
    paths = pd.MultiIndex.from_product([["a", "b"], T], names=["path", "t"])
    frame = pd.DataFrame({"z": np.r_[Z, Z[::-1]]}, index=paths)
    u = pd.Series(np.sin(T), index=T)
    fitted = (a.fit("brownian + noise", frame, inputs=x) for x in (u.to_numpy(), u, u[::-1]))
    plain, own, turned = (found.params for found in fitted)
    assert own == turned == plain
    with pytest.raises(ValueError, match="inputs must have the index of the data"):
        a.fit("brownian + noise", frame, inputs=pd.Series(np.sin(T), index=T + 0.5))


def test_rows_and_times_of_attention_are_read_as_those_of_estimators() -> None:
    rows = np.stack([Z, Z[::-1]], axis=-1)
    law = {"decay": 0.1, "process_var": 0.3, "key_var": 0.5}
    for attend in (a.isotropic_attention, a.tensor_attention):
        wanted = attend(rows, rows, rows, T, **law).output
        own, other = (pd.DataFrame(rows, index=x) for x in (T, T + 5))
        assert (attend(own, own, own, T, **law).output == wanted).all()
        for k, name in enumerate("qkv"):
            given = [other if i == k else rows for i in range(3)]
            with pytest.raises(ValueError, match=f"{name} is labelled by other times"):
                attend(*given, T, **law)
        with pytest.warns(UserWarning, match="t holds whole numbers that spell dates"):
            attend(rows, rows, rows, 202401 + np.arange(N), **law)
        asked = attend(rows, rows, rows, T, t_query=T + 5, **law).output
        assert (attend(other, rows, own, T, t_query=T + 5, **law).output == asked).all()


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "pandas"])
def test_inputs_of_any_library_keep_their_names(kind) -> None:
    arrow = pytest.importorskip("pyarrow")
    columns = {"u": np.sin(T), "v": T >= 4}
    table = {"polars": pl.DataFrame, "pyarrow": arrow.table, "pandas": pd.DataFrame}[kind]
    wanted, found = (a.fit("brownian + noise", T, Z, inputs=x) for x in (columns, table(columns)))
    assert {"u", "v"} <= {*found.params}
    assert found.params == wanted.params
