"""`plot` of results: what stands in the picture is what the result says."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from afafilter import (
    StudentT,
    brownian,
    families,
    fit,
    forecast,
    kalman_filter,
    rts_smoother,
    seasonal,
    simulate,
    spiral,
)

mpl.use("Agg")
TIMES = np.arange(12.0)


@pytest.fixture(autouse=True)
def _closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def test_an_estimate_draws_its_means_and_says_what_it_is():
    data = simulate(spiral(), TIMES, rng=0)
    found = rts_smoother(spiral(), TIMES, data.z, weight=StudentT(4.0))
    panels = found.plot(units="m")
    assert len(panels) == 2
    for k, ax in enumerate(panels):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.mean[0, :, k])
        assert ax.get_ylabel() == f"x{k} (m)"
    assert panels[0].lines[0].get_label() == "robust RTS, StudentT"
    assert panels[0].get_legend().get_title().get_text() == "band: 95 %"
    with pytest.raises(ValueError, match="axes must be 2"):
        found.plot(axes=[panels[0]])


def test_dates_stand_on_the_axis():
    import pandas as pd

    days = pd.date_range("2024-03-01", periods=12, freq="D")
    series = pd.Series(np.random.default_rng(0).standard_normal(12), index=days)
    found = kalman_filter(brownian(), series)
    (ax,) = found.observed().plot(names=["level"])
    drawn = pd.DatetimeIndex(ax.lines[0].get_xdata())
    assert list(drawn) == list(days)
    assert ax.get_ylabel() == "level"


def test_trajectories_draw_states_and_observations():
    from afafilter import Outliers

    data = simulate(spiral(), TIMES, 2, rng=0, outliers=Outliers(0.5))
    panels = data.plot(path=1)
    np.testing.assert_array_equal(panels[1].lines[0].get_ydata(), data.x[1, :, 1])
    ringed = panels[0].lines[-1]
    np.testing.assert_array_equal(ringed.get_ydata(), data.z[1, data.outliers[1], 0])


def test_a_fit_draws_signal_summands_and_innovations():
    truth = brownian(0.3, 0.5) + seasonal(4.0, process_var=0.05)
    z = simulate(truth, np.arange(60.0), rng=0, x0=[0.0, 2.0, 0.0]).z[0]
    family = families.brownian() + families.seasonal(4.0) + families.noise()
    found = fit(family, np.arange(60.0), z)
    panels = found.plot()
    assert [ax.get_ylabel() for ax in panels[1:3]] == ["brownian", "seasonal"]
    smoothed = rts_smoother(found.model, np.arange(60.0), z)
    signal = (smoothed.mean @ found.model.C.T)[:, 0]
    np.testing.assert_allclose(panels[0].lines[1].get_ydata(), signal)
    total = panels[1].lines[0].get_ydata() + panels[2].lines[0].get_ydata()
    np.testing.assert_allclose(total, signal, atol=1e-9)
    assert "innovation" in panels[-1].get_ylabel()


def test_forecasts_are_drawn_as_observations():
    found = forecast(brownian(), TIMES, np.zeros(12), horizon_times=[13.0, 20.0])
    (ax,) = found.observed().plot()
    assert "a measurement" in ax.lines[0].get_label()
