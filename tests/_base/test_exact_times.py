"""Times finer than floats, of every container: steps are kept or refused, zones and starts too."""

import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import afafilter as a

N = 12
Z = np.random.default_rng(0).normal(size=N).cumsum()
MODEL = a.brownian(1.0, 0.5, prior=a.Prior(np.zeros(1), np.eye(1)))
DATES = np.datetime64("2024-03-30") + np.arange(N)
NS = 1711756800_000000000 + np.arange(N) * 100
SPIRAL = a.spiral(decay=0.1)


def by_hand(t: np.ndarray) -> float:
    """Log-likelihood of a random walk with a known start, from its joint covariance."""
    cov = 1.0 + np.minimum.outer(t - t[0], t - t[0]) + 0.5 * np.eye(N)
    return float(-0.5 * (Z @ np.linalg.solve(cov, Z) + np.linalg.slogdet(2 * np.pi * cov)[1]))


@pytest.mark.parametrize(
    "wrap", [pd.Index, pd.Series, lambda t: pd.DataFrame({"gone": t})], ids=["index", "series", "f"]
)
@pytest.mark.parametrize("unit", ["D", "h", "ns"])
def test_timedeltas_beside_values_count_in_the_unit(wrap, unit) -> None:
    gone = pd.to_timedelta(np.arange(N), unit="D").as_unit("us")
    wanted = by_hand(np.arange(N) * {"D": 1.0, "h": 24.0, "ns": 86400e9}[unit])
    found = a.kalman_filter(MODEL, wrap(gone), Z, time_unit=unit).loglik
    assert found == pytest.approx(wanted, rel=1e-9)


def test_spans_beyond_int64_are_counted() -> None:
    stamps = np.array(["1700-01-01", "1720-01-01", "2250-01-01"] + ["2260-01-01"] * (N - 3))
    t = (stamps.astype("M8[D]") - np.datetime64("1700-01-01")).astype(float)
    found = a.kalman_filter(MODEL, stamps.astype("M8[ns]"), Z).loglik
    assert found == pytest.approx(by_hand(t), rel=1e-9)


@pytest.mark.parametrize(
    "t",
    [
        [Decimal("1711756800") + Decimal(k) / 10**9 for k in range(N)],
        [Fraction(3 * 1711756800_000000000 + 100 * k, 3) for k in range(N)],
        [2**65 + 100 * k for k in range(N)],
        np.uint64(2**63) + 100 * np.arange(N, dtype="u8"),
        1711756800 + np.arange(N) * np.longdouble("1e-8"),
    ],
    ids=["decimal", "fraction", "large", "uint64", "longdouble"],
)
def test_steps_that_floats_lose_are_refused(t) -> None:
    if isinstance(t, np.ndarray) and t.dtype == np.float64:
        pytest.skip("long doubles are doubles here")
    for ask in (a.kalman_filter, a.rts_smoother):
        with pytest.raises(ValueError, match="count from the first"):
            ask(MODEL, t, Z)


@pytest.mark.parametrize(
    "use",
    [
        lambda t: a.simulate(MODEL, t, rng=0),
        lambda t: a.simulate(MODEL, np.arange(3.0), rng=0, fine_times=t),
        lambda t: a.Scenario(t),
        lambda t: a.Forcing(t, np.ones(N)),
        lambda t: a.isotropic_attention(
            None, None, Z[:, None], t, decay=0.1, process_var=1.0, key_var=1.0
        ),
        lambda t: a.AdaptiveFilterStream(SPIRAL).update(int(t[1]) + 1, [1.0, 2.0]),
        lambda t: a.kalman_filter(MODEL, t, Z, query_times=t.astype(float)),
    ],
)
def test_nanoseconds_since_1970_lose_no_steps_anywhere(use) -> None:
    with pytest.raises(ValueError, match=r"floats|from the first"):
        use(NS)


def test_dates_finer_than_nanoseconds() -> None:
    whole = (1000 * np.arange(N)).astype("M8[ps]")
    found = a.kalman_filter(MODEL, whole, Z, time_unit="ns").loglik
    assert found == pytest.approx(by_hand(np.arange(N) * 1.0), rel=1e-9)
    with pytest.raises(ValueError, match="whole nanoseconds"):
        a.kalman_filter(MODEL, np.arange(N).astype("M8[ps]"), Z)


def test_dates_with_and_without_a_zone_are_not_mixed() -> None:
    mixed = [pd.Timestamp("2024-01-01") + pd.Timedelta(k, "D") for k in range(N)]
    mixed[5] = mixed[5].tz_localize("Europe/Berlin")
    with pytest.raises(TypeError, match="of one kind"):
        a.kalman_filter(MODEL, mixed, Z)


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
def test_columns_keep_their_zone(kind) -> None:
    library = pytest.importorskip(kind)
    here = pd.date_range("2024-03-30", periods=N, tz="Europe/Berlin")
    if kind == "polars":  # old versions turn Python's dates to UTC
        in_utc = library.Series(here.tz_convert("UTC").to_pydatetime().tolist())
        column = in_utc.dt.convert_time_zone("Europe/Berlin")
    else:
        column = library.array(here.to_pydatetime().tolist())
    index = a.kalman_filter(MODEL, column, Z).to_pandas().index
    assert (index == here).all()
    assert str(index.tz) == "Europe/Berlin"


@pytest.mark.parametrize("first", [20240110, 202401])
@pytest.mark.parametrize("dtype", ["i8", "f8", "Int64"])
def test_an_index_that_spells_dates_warns(first, dtype) -> None:
    index = pd.Index(np.arange(first, first + N), dtype=dtype)
    for t, z in ((index, Z), (pd.Series(Z, index=index), None), (pd.Series(index), Z)):
        with pytest.warns(UserWarning, match="spell dates"):
            a.kalman_filter(MODEL, t, z)


@pytest.mark.parametrize("target", [3, np.datetime64("2024-04-02"), "2024-04-02"])
def test_a_target_is_a_stamp_of_the_data(target) -> None:
    z = np.stack([Z, Z], axis=-1)
    wanted = a.pull_forward(SPIRAL, np.arange(N) * 1.0, z, 3.0)
    np.testing.assert_allclose(a.pull_forward(SPIRAL, DATES, z, target).mean, wanted.mean)
    near = a.pull_forward(SPIRAL, np.arange(N) * 100.0, z, 300.0)
    stamp = int(NS[3])
    np.testing.assert_allclose(a.pull_forward(SPIRAL, NS, z, target=stamp).cov, near.cov)


def test_noise_in_absolute_time_counts_like_the_data() -> None:
    z = np.stack([Z, Z], axis=-1)
    noise = a.StructuredNoise([1.0, 0.5], [0.0, -0.01 + 0.02j], origin=0.0)
    wanted = a.structured_adaptive_filter(SPIRAL, noise, np.arange(N) * 100.0, z)
    moved = a.StructuredNoise([1.0, 0.5], [0.0, -0.01 + 0.02j], origin=float(NS[0]))
    found = a.structured_adaptive_filter(SPIRAL, moved, NS, z)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-6)
    assert (found.to_pandas().index == NS).all()


@pytest.mark.parametrize("stamps", [DATES, NS], ids=["dates", "ns"])
def test_fitted_inputs_belong_to_their_dates(stamps, tmp_path) -> None:
    u = np.sin(np.arange(N))
    fitted = a.fit(MODEL, stamps, Z + 3 * u, inputs=u, free=["Q"])
    path = a.io.write_model(fitted.model, tmp_path / "m.toml")
    for model in (fitted.model, a.io.read_model(path)):
        found = a.kalman_filter(model, stamps[5:], np.full(N - 5, np.nan)).observed().mean[:, 0]
        np.testing.assert_allclose(found, fitted.params["input"] * u[5:], atol=1e-12)
        assert model.forcing.at([0.0], [1.0]).start is None
        with pytest.raises(ValueError, match="count from"):
            a.kalman_filter(model, pd.Index(np.arange(N)), Z)
    with pytest.raises(ValueError, match=r"its \.model"):
        a.diagnose(fitted, stamps[5:], Z[5:])


def test_a_prior_in_nanoseconds_survives_a_fit() -> None:
    early = a.Prior(np.zeros(1), np.eye(1), t0=float(NS[0] - NS[0] % 1024))
    fitted = a.fit(a.brownian(1.0, 0.5, prior=early), NS, Z, free=["Q"])
    assert fitted.model.prior.t0 == early.t0


def test_fit_afa_remembers_the_unit() -> None:
    z = np.stack([Z, Z[::-1]], axis=-1)
    with pytest.warns(a.FitWarning):
        fitted = a.fit_afa(SPIRAL, DATES, z, time_unit="h", max_iter=1)
    assert fitted.model.time_unit == "h"


def test_labels_of_values_beside_dates_are_those_dates() -> None:
    days = pd.DatetimeIndex(DATES)
    wanted = a.kalman_filter(MODEL, days, Z).loglik
    assert a.kalman_filter(MODEL, days, pd.Series(Z, index=days)[::-1]).loglik == wanted
    for other in (days + pd.Timedelta(days=100), days[:1].repeat(N)):
        with pytest.raises(ValueError, match="index of z"):
            a.kalman_filter(MODEL, days, pd.Series(Z, index=other))
    turned = pd.Series(Z)[::-1]
    found = a.kalman_filter(MODEL, np.arange(N) * 1.0, turned).loglik
    assert found == pytest.approx(by_hand(np.arange(N) * 1.0))
    with pytest.raises(ValueError, match="index of z"):
        a.kalman_filter(MODEL, np.arange(N) * 1.0 + 0.5, turned)
    with pytest.raises(ValueError, match="at least one"):
        a.kalman_filter(MODEL, pd.Series(Z, index=days).iloc[:0])


@pytest.mark.parametrize("make", [a.lorenz, a.spiral_3d, a.coupled_van_der_pol])
def test_simulated_scenarios_go_to_other_processes(make) -> None:
    model = make()
    again = pickle.loads(pickle.dumps(model))
    x = np.linspace(0.1, 1.0, model.dim)
    np.testing.assert_array_equal(again.drift(x), model.drift(x))


@pytest.mark.parametrize("far", ["1500-01-01", "2500-01-01"])
def test_dates_that_nanoseconds_do_not_reach_are_no_others(far) -> None:
    """numpy before 2.5 wraps them round, to dates five centuries away."""
    fine = NS.astype("M8[ns]")
    with pytest.raises(ValueError, match="cannot be told in ns"):
        a.kalman_filter(MODEL, fine, Z, query_times=np.array([far], "M8[us]"))


def test_forecasts_beyond_the_reach_of_nanoseconds_have_their_dates() -> None:
    ahead = a.forecast(MODEL, NS.astype("M8[ns]"), Z, horizon_times=[1e6])
    wanted = np.datetime64("2024-03-30") + np.timedelta64(10**6, "D")
    assert ahead.index.at(ahead.t)[0].astype("M8[D]") == wanted


@pytest.mark.parametrize("unit", ["D", "ps"])
def test_dates_beyond_int64_are_refused(unit) -> None:
    stamps = np.array([0, 2**62] if unit == "D" else [0, 1], dtype=f"M8[{unit}]")
    with pytest.raises(ValueError, match="whole nanoseconds"):
        a.kalman_filter(MODEL, stamps, Z[:2])
