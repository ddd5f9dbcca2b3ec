"""Tables of other libraries against the same numbers as arrays; labels, zones and masks kept."""

from __future__ import annotations

import datetime
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from afafilter import (
    AdaptiveFilterStream,
    DiscreteModel,
    Forcing,
    KalmanStream,
    LinearSDE,
    Prior,
    adaptive_filter,
    brownian,
    datasets,
    diagnose,
    families,
    filterpy_filter,
    fit,
    fit_each,
    forecast,
    isotropic_attention,
    kalman_filter,
    linear_time_filter,
    loglik,
    ornstein_uhlenbeck,
    raw_observation,
    rts_smoother,
    score,
    simulate,
    spiral,
)

NILE = datasets.load_nile()
MODEL = datasets.nile_model()
FLOW = pd.Series(NILE.z[:, 0], index=NILE.t.astype(int), name="flow")
TWO = LinearSDE(np.diag([-0.1, -0.2]), Q=np.eye(2), R=np.eye(2))
ESTIMATORS = [kalman_filter, rts_smoother, adaptive_filter, filterpy_filter, raw_observation]


@pytest.fixture
def dated() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin", name="when")
    frame = pd.DataFrame(rng.standard_normal((60, 2)), index=index, columns=["a", "b"])
    frame.iloc[3, 1] = np.nan
    return frame


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_frames_go_in_directly_and_come_back_with_their_index(estimator, dated):
    found = estimator(TWO, dated, time_unit="h")
    wanted = estimator(TWO, np.arange(60.0), dated.to_numpy())
    np.testing.assert_array_equal(found.mean, wanted.mean)
    back = found.to_pandas(["u", "v"])
    assert back.index.equals(dated.index)
    assert back.index.name == "when"
    assert list(back) == ["u", "u_sd", "v", "v_sd"]


def test_a_series_of_years_keeps_them():
    found = kalman_filter(MODEL, FLOW)
    assert found.loglik == pytest.approx(-633.4646, abs=1e-4)
    assert found.to_pandas().index.equals(FLOW.index)
    assert list(forecast(MODEL, FLOW, horizon_times=[1971, 1972]).to_pandas().index) == [1971, 1972]


def test_the_index_decides_which_row_is_which():
    shuffled = FLOW.sample(frac=1, random_state=3)
    found = kalman_filter(MODEL, NILE.t, shuffled)
    assert found.loglik == pytest.approx(-633.4646, abs=1e-4)
    times = pd.Series(NILE.t, index=range(100))
    values = pd.Series(NILE.z[:, 0], index=range(100)).sample(frac=1, random_state=1)
    assert kalman_filter(MODEL, times, values).loglik == pytest.approx(-633.4646, abs=1e-4)


def test_rows_that_cannot_be_told_are_refused():
    with pytest.raises(ValueError, match=r"must not decrease.*sort_index"):
        kalman_filter(
            MODEL, pd.Series([1.0, 2.0], index=pd.to_datetime(["2024-02-01", "2024-01-01"]))
        )
    other = pd.Series([1.0, 2.0, 3.0], index=[7, 3, 5])
    with pytest.raises(ValueError, match=r"neither in order nor that of the times.*to_numpy"):
        kalman_filter(MODEL, [0, 1, 2], other)
    with pytest.raises(ValueError, match="the same index"):
        kalman_filter(MODEL, pd.Series([0.0, 1.0, 2.0]), other)


def test_a_default_index_gives_way_to_a_column_of_times():
    frame = pd.DataFrame({"flow": NILE.z[:, 0], "t": NILE.t})
    assert kalman_filter(MODEL, frame).loglik == pytest.approx(-633.4646, abs=1e-4)
    plain = kalman_filter(MODEL, pd.Series(NILE.z[:, 0]))
    assert plain.loglik == pytest.approx(-633.4646, abs=1e-4)


def test_fit_remembers_the_unit_of_dates(dated):
    one = dated["a"]
    found = fit(families.brownian() + families.noise(), one, time_unit="h")
    wanted = fit(families.brownian() + families.noise(), np.arange(60.0), one.to_numpy())
    assert found.loglik == pytest.approx(wanted.loglik, abs=1e-9)
    assert found.model.time_unit == "h"
    assert kalman_filter(found.model, one).loglik == pytest.approx(found.loglik, abs=1e-8)
    assert repr(diagnose(found, one)) == repr(diagnose(wanted, np.arange(60.0), one.to_numpy()))
    with pytest.raises(ValueError, match=r"time_unit must be 'h'.*got 'D'"):
        kalman_filter(found.model, one, time_unit="D")
    with pytest.raises(ValueError, match="time_unit must be one of"):
        kalman_filter(MODEL, one, time_unit="month")


def test_units_of_models_that_are_added_agree():
    day = LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]], time_unit="D")
    hour = LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]], time_unit="h")
    assert (day + brownian()).time_unit == (brownian() + day).time_unit == "D"
    with pytest.raises(ValueError, match="count time in the same unit"):
        day + hour
    with pytest.raises(ValueError, match="time_unit must be one of"):
        LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]], time_unit="month")


def test_query_times_as_dates_of_the_data(dated):
    asked = ["2024-03-31T05:30", "2024-04-05"]
    found = kalman_filter(TWO, dated, query_times=asked, time_unit="h")
    # clocks went forward in between: 24 + 5.5 - 1 hours and 24 * 6 - 1
    np.testing.assert_allclose(found.t, [28.5, 143.0], rtol=1e-14)
    assert list(found.to_pandas().index) == list(
        pd.DatetimeIndex(asked).tz_localize("Europe/Berlin")
    )
    same = pd.DatetimeIndex(asked).tz_localize("Europe/Berlin")
    np.testing.assert_array_equal(
        kalman_filter(TWO, dated, query_times=same, time_unit="h").mean, found.mean
    )
    for one in (same[1], pd.Timestamp(asked[1]), same[1].tz_convert("UTC"), asked[1]):
        lone = kalman_filter(TWO, dated, query_times=one, time_unit="h")
        np.testing.assert_array_equal(lone.mean[-1], found.mean[-1])
    with pytest.raises(ValueError, match="query_times must be numbers or ISO dates, got 'soon'"):
        kalman_filter(TWO, dated, query_times=["soon"])


@pytest.mark.parametrize("step", [100, 250, 255])
def test_nanoseconds_since_1970_keep_their_differences(step):
    stamps = 1_700_000_000_000_000_000 + step * np.arange(100)
    z = NILE.z[:, 0] / 100
    model = ornstein_uhlenbeck(rate=1e-3, process_var=0.01, obs_var=1.0)
    wanted = kalman_filter(model, step * np.arange(100.0), z)
    found = kalman_filter(model, stamps, z)
    assert found.loglik == wanted.loglik
    np.testing.assert_array_equal(found.to_pandas().index, stamps)
    dates = kalman_filter(model, stamps.astype("datetime64[ns]"), z, time_unit="ns")
    assert dates.loglik == wanted.loglik
    for exact in (int, np.longdouble, Decimal):  # other types that hold them
        others = np.array([exact(int(x)) for x in stamps], object)
        assert kalman_filter(model, others, z).loglik == wanted.loglik
    asked = kalman_filter(model, stamps, z, query_times=stamps[-1:] + 7)
    assert asked.t[0] == step * 99 + 7
    timed = LinearSDE(model.A, Q=model.Q, R=model.R, prior=Prior([0.0], [[1.0]], float(stamps[0])))
    assert np.isfinite(kalman_filter(timed, stamps, z).loglik)


def test_whole_numbers_that_spell_dates_are_warned_of():
    with pytest.warns(UserWarning, match="spell dates"):
        kalman_filter(brownian(), [20240131, 20240201], [1.0, 2.0])
    with pytest.warns(UserWarning, match="spell dates"):
        kalman_filter(brownian(), np.array([202312.0, 202401.0]), np.array([1.0, 2.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kalman_filter(brownian(), [20240131, 20240230], [1.0, 2.0])
        kalman_filter(brownian(), [1900, 1901], [1.0, 2.0])


def test_python_dates():
    days = [datetime.date(2024, 1, 31), datetime.date(2024, 2, 1), datetime.date(2024, 2, 4)]
    wanted = kalman_filter(brownian(), [0.0, 1.0, 4.0], [1.0, 2.0, 3.0]).mean
    np.testing.assert_array_equal(kalman_filter(brownian(), days, [1.0, 2.0, 3.0]).mean, wanted)
    utc = datetime.timezone.utc  # noqa: UP017
    moments = [datetime.datetime(d.year, d.month, d.day, 3, tzinfo=utc) for d in days]
    found = kalman_filter(brownian(), moments, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(found.mean, wanted)
    assert str(found.to_pandas().index[0]) == "2024-01-31 03:00:00+00:00"


def test_absurd_units_are_warned_of(dated):
    slow = LinearSDE([[-1e-9]], Q=[[1.0]], R=[[1.0]])
    with pytest.warns(UserWarning, match="counted in days.*unit of time"):
        kalman_filter(slow, dated["a"])
    fast = LinearSDE([[-1e7]], Q=[[1.0]], R=[[1.0]])
    with pytest.warns(UserWarning, match="usual step"):
        kalman_filter(fast, dated["a"])


MASKED = np.ma.masked_equal(np.where(np.arange(100) % 7 == 5, -9999.0, NILE.z[:, 0]), -9999.0)
HOLES = np.where(np.arange(100) % 7 == 5, np.nan, NILE.z[:, 0])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_masks_are_missing_values_everywhere(estimator):
    found, wanted = (estimator(MODEL, NILE.t, z) for z in (MASKED, HOLES))
    np.testing.assert_array_equal(found.mean, wanted.mean)
    assert found.loglik == wanted.loglik


def test_masks_are_missing_values_in_a_fit():
    found, wanted = (fit(MODEL, NILE.t, z, free=["R"]) for z in (MASKED, HOLES))
    assert found.loglik == wanted.loglik
    assert found.n_obs == wanted.n_obs == np.isfinite(HOLES).sum()


def test_masks_of_whole_numbers_and_in_attention():
    whole = np.ma.masked_equal(np.array([1, -9999, 3]), -9999)
    found = kalman_filter(brownian(), [0, 1, 2], whole)
    np.testing.assert_array_equal(
        found.mean, kalman_filter(brownian(), [0, 1, 2], [1, np.nan, 3]).mean
    )
    v = np.ma.masked_greater(np.random.default_rng(2).standard_normal((20, 2)), 1.0)
    options = {"decay": 0.1, "process_var": 1.0, "key_var": 1.0}
    found, wanted = (
        isotropic_attention(None, None, x, np.arange(20.0), **options)
        for x in (v, v.filled(np.nan))
    )
    np.testing.assert_array_equal(found.output, wanted.output)


def test_masked_times_are_refused():
    with pytest.raises(ValueError, match="t must not hold masked entries, got 1 of 3"):
        kalman_filter(brownian(), np.ma.masked_equal([0.0, 1.0, 2.0], 1.0), [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="Q must not hold masked entries"):
        LinearSDE([[-1.0]], Q=np.ma.masked_equal([[1.0]], 1.0), R=[[1.0]])


def test_missing_values_of_tables():
    holes = pd.Series(pd.array([1.0, None, 3.0], dtype="Float64"), index=[0.0, 1.0, 2.0])
    wanted = kalman_filter(brownian(), [0.0, 1.0, 2.0], [1.0, np.nan, 3.0]).mean
    for series in (holes, holes.astype(object)):
        np.testing.assert_array_equal(kalman_filter(brownian(), series).mean, wanted)
    with pytest.raises(TypeError, match="column 'x' must be numbers, got objects"):
        kalman_filter(brownian(), pd.DataFrame({"x": [1.0, "a", 2.0]}, dtype=object))


def test_panels_by_a_multiindex(dated):
    both = pd.concat({"north": dated, "south": 2 * dated}, names=["site"])
    found = kalman_filter(TWO, both, time_unit="h")
    assert found.mean.shape == (2, 60, 2)
    np.testing.assert_array_equal(found.mean[1], kalman_filter(TWO, 2 * dated, time_unit="h").mean)
    assert found.to_pandas().index.equals(both.index)
    with pytest.raises(ValueError, match="share their times"):
        kalman_filter(TWO, both.iloc[:-1])


def test_polars(dated):
    pl = pytest.importorskip("polars")
    naive = dated.tz_localize(None)
    frame = pl.DataFrame(
        {
            "when": naive.index.to_numpy(),
            "a": naive["a"].to_numpy(),
            "b": [None if np.isnan(x) else x for x in naive["b"]],
        }
    )
    found = kalman_filter(TWO, frame, time_unit="h")
    wanted = kalman_filter(TWO, naive, time_unit="h")
    np.testing.assert_array_equal(found.mean, wanted.mean)
    with pytest.raises(ValueError, match="one column must hold the times"):
        kalman_filter(TWO, frame.drop("when"))


def test_xarray_there_and_back(dated):
    xr = pytest.importorskip("xarray")
    naive = dated.tz_localize(None)
    array = xr.DataArray(naive.to_numpy(), dims=("when", "what"), coords={"when": naive.index})
    wanted = kalman_filter(TWO, naive, time_unit="h")
    found = kalman_filter(TWO, array, time_unit="h")
    np.testing.assert_array_equal(found.mean, wanted.mean)
    np.testing.assert_array_equal(
        kalman_filter(TWO, naive.to_xarray(), time_unit="h").mean, wanted.mean
    )
    back = found.to_xarray(["u", "v"])
    np.testing.assert_array_equal(back["mean"].sel(state="v"), wanted.mean[:, 1])
    np.testing.assert_array_equal(back["sd"].transpose("when", "state"), wanted.std)
    np.testing.assert_array_equal(back["when"], naive.index)
    paths = xr.DataArray(np.stack([FLOW, FLOW + 1]), dims=("site", "t"), coords={"t": FLOW.index})
    assert kalman_filter(MODEL, paths).mean.shape == (2, 100, 1)


def test_arrays_of_floats_pass_untouched():
    found = kalman_filter(MODEL, NILE.t, NILE.z)
    assert found.index is None
    assert list(found.to_pandas()) == ["t", "x0", "x0_sd"]


INDEX = pd.date_range("2024-03-30", periods=8, tz="Europe/Berlin")
ROWS = pd.DataFrame({"a": np.arange(8.0) ** 2, "b": np.cos(np.arange(8.0))}, index=INDEX)
LAST_FIRST = ROWS.iloc[::-1]
WALK = brownian(process_var=1.0, obs_var=1.0)
DISORDERED = {
    "attention": lambda: isotropic_attention(
        ROWS, ROWS, LAST_FIRST, np.arange(8.0), decay=0.1, process_var=0.1, key_var=1.0
    ),
    "truth": lambda: score(kalman_filter(spiral(), np.arange(8.0), ROWS), LAST_FIRST),
    "stream": lambda: KalmanStream(spiral()).update(0.0, pd.Series([1.0, 2.0], index=[1, 0])),
    "times": lambda: simulate(WALK, pd.Series(np.arange(3.0)).iloc[::-1], rng=0, x0=[0.0]),
    "forcing": lambda: Forcing(np.arange(8.0), LAST_FIRST),
    "xarray": lambda: kalman_filter(
        WALK,
        np.arange(3.0),
        pytest.importorskip("xarray").DataArray([1.0, 2.0, 3.0], [("time", [2, 1, 0])]),
    ),
}


@pytest.mark.parametrize("case", DISORDERED)
def test_labels_out_of_order_are_never_taken_as_rows(case):
    with pytest.raises(ValueError, match=r"out of order.*(sort_index|sortby).*to_numpy"):
        DISORDERED[case]()


def test_known_inputs_go_with_the_labels_of_the_data():
    want = fit("brownian + noise", ROWS[["b"]], inputs=ROWS[["a"]])
    for given in (LAST_FIRST[["a"]], {"a": LAST_FIRST["a"]}, ROWS[["a"]].to_numpy()):
        found = fit("brownian + noise", ROWS[["b"]], inputs=given)
        assert found.loglik == pytest.approx(want.loglik, rel=1e-12)
    with pytest.raises(ValueError, match="inputs must have the index of the data"):
        fit("brownian + noise", ROWS[["b"]], inputs=ROWS[["a"]].iloc[:-1])


@pytest.mark.parametrize("kind", ["array", "nullable", "object", "masked"])
def test_values_of_any_kind_are_the_same_numbers(kind):
    """Streams, attention and linear time take what the estimators take."""
    z = np.where(np.arange(8)[:, None] == 3, np.nan, ROWS.to_numpy())
    given = {
        "array": z,
        "nullable": pd.DataFrame(z).astype("Float64"),
        "object": np.where(np.isnan(z), None, z),
        "masked": np.ma.masked_invalid(z),
    }[kind]
    t, model = np.arange(8.0), spiral()
    np.testing.assert_array_equal(
        linear_time_filter(model, t, given).mean, linear_time_filter(model, t, z).mean
    )
    found, wanted = (
        isotropic_attention(None, None, v, t, decay=0.1, process_var=0.1, key_var=1.0).output
        for v in (given, z)
    )
    np.testing.assert_array_equal(found, wanted)
    one = given.iloc[3] if kind == "nullable" else given[3]
    for stream in (KalmanStream(model), AdaptiveFilterStream(model, window=3)):
        stream.update(0.0, z[0])
        ahead = stream.predict(1.0)
        np.testing.assert_allclose(stream.update(1.0, one).mean, ahead.mean, rtol=1e-14)
    column = z[:, 0] if kind != "nullable" else pd.array(z[:, 0], dtype="Float64")
    assert kalman_filter(WALK, t, column).loglik == kalman_filter(WALK, t, z[:, 0]).loglik


PLACES = pd.Series([1.0, 3.0], index=["x1", "x0"])
LETTERS = pd.Index(list("dcba"))


def _four(columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(np.arange(8.0).reshape(4, 2), index=np.arange(4.0), columns=columns)


SWAPPED = {
    "x0": lambda: simulate(TWO, np.arange(3.0), x0=PLACES, rng=0),
    "prior mean": lambda: Prior(PLACES, np.eye(2)),
    "A": lambda: LinearSDE(
        pd.DataFrame([[0.0, 1], [0, 0]], PLACES.index, PLACES.index), Q=np.eye(2), R=np.eye(2)
    ),
    "truth": lambda: score(
        kalman_filter(TWO, np.arange(4.0), np.ones((4, 2))), _four(["x1", "x0"])
    ),
    "z": lambda: kalman_filter(TWO, _four(["z1", "z0"])),
    "z beside t": lambda: kalman_filter(TWO, np.arange(4.0), _four(["z1", "z0"])),
}


@pytest.mark.parametrize("case", SWAPPED)
def test_labels_named_like_components_are_never_taken_in_another_order(case):
    with pytest.raises(ValueError, match=r"labelled [xz]1, [xz]0.*order [xz]0, [xz]1"):
        SWAPPED[case]()


def test_labels_in_the_order_of_the_components_are_taken():
    given = simulate(TWO, np.arange(3.0), x0=PLACES.sort_index(), rng=0).x
    np.testing.assert_array_equal(given, simulate(TWO, np.arange(3.0), x0=[3.0, 1.0], rng=0).x)
    ten = pd.Series(np.arange(11.0), index=[f"x{k}" for k in range(11)])  # x10 after x9
    assert len(Prior(ten, np.eye(11)).mean) == 11


def test_words_out_of_order_beside_arrays_are_refused_as_labels_of_rows():
    """Nothing tells which time a row labelled by a word belongs to."""
    t, z = np.arange(4.0), np.ones((4, 2))
    truth = pd.DataFrame(np.eye(4)[:, :2], index=LETTERS)
    with pytest.raises(ValueError, match="truth has labels that are out of order"):
        score(kalman_filter(TWO, t, z), truth)
    with pytest.raises(ValueError, match="inputs has labels that are out of order"):
        fit(brownian(), np.arange(4.0), z[:, :1], inputs=pd.Series(np.ones(4), index=LETTERS))


def test_an_index_called_as_a_column_is_refused():
    frame = pd.DataFrame({"t": np.arange(4.0), "z": 1.0}, index=pd.Index(range(4), name="t"))
    with pytest.raises(ValueError, match="index and a column are both called 't'"):
        kalman_filter(TWO, frame)


def test_what_holds_no_numbers_yet():
    polars, xarray = pytest.importorskip("polars"), pytest.importorskip("xarray")
    model, t = brownian(1.0, 1.0), np.arange(3.0)
    for value, said in (
        (polars.LazyFrame({"z": t}), "got a polars LazyFrame: collect() it"),
        (polars.col("z"), "got a polars Expr"),
        (xarray.Dataset({"z": ("time", t)}), "got a xarray Dataset: take one of its variables"),
        (pd.DataFrame({"z": t}).groupby("z"), "got a pandas DataFrameGroupBy"),
    ):
        for name, given in (("z", (t, value)), ("t", (value, t))):
            with pytest.raises(TypeError) as caught:
                kalman_filter(model, *given)
            wanted = f"{name} must be an array or a table of numbers, {said}"
            assert str(caught.value) == wanted


def test_tables_of_arrow():
    arrow = pytest.importorskip("pyarrow")
    model, t, z = brownian(1.0, 1.0), np.arange(3.0), np.array([1.0, np.nan, 3.0])
    given = arrow.table({"z": arrow.array([1.0, None, 3.0])})
    want = kalman_filter(model, t, z).mean
    np.testing.assert_array_equal(kalman_filter(model, t, given).mean, want)


def test_a_column_without_a_name_is_z():
    with pytest.raises(TypeError, match=r"^z must be numbers, got objects"):
        kalman_filter(brownian(1.0, 1.0), np.arange(2.0), pd.Series(["a", "b"], dtype="category"))


@pytest.mark.parametrize("function", [kalman_filter, loglik, fit, diagnose, fit_each])
@pytest.mark.parametrize("form", [list, np.asarray, lambda z: np.asarray(z)[..., None]])
def test_a_discrete_model_needs_no_times(function, form):
    model = DiscreteModel([[0.5]], Q=[[1.0]], H=[[1.0]], R=[[0.5]])
    z = np.random.default_rng(0).standard_normal((2, 20) if function is fit_each else 20)
    first, *others = (
        function(model, *args) for args in ((form(z),), (None, form(z)), (range(20), z))
    )
    for part in ("loglik", "nis", "mean", "converged"):
        for other in others:
            if hasattr(first, part):
                np.testing.assert_allclose(getattr(other, part), getattr(first, part), rtol=1e-12)
            elif isinstance(first, float):
                assert other == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("function", [kalman_filter, loglik, diagnose])
@pytest.mark.parametrize("z", [5.0, [], np.zeros((2, 0, 1))])
def test_without_times_it_is_z_that_has_no_steps(function, z):
    model = DiscreteModel([[0.5]], Q=[[1.0]], H=[[1.0]], R=[[0.5]])
    with pytest.raises(ValueError, match=r"^z must have shape .* with T >= 1, got \("):
        function(model, z)
