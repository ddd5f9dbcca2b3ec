"""Who wins and who ties in a study."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import LinearSDE, Scenario, Study, kalman_filter, raw_observation
from afafilter.studies.winners import against_best, winners


def inflated(model, t, z):
    """The same estimates as the Kalman filter's."""
    return kalman_filter(model, t, z).relabel("copy")


def test_ties_are_not_wins(tmp_path):
    t = 0.3 * np.arange(20)
    study = Study(
        {f"noise {q}": LinearSDE([[-0.5]], Q=[[q]], R=[[1.0]]) for q in (0.1, 0.3)},
        {"Kalman": kalman_filter, "raw": raw_observation, "copy": inflated},
        {"clean": Scenario(t, 20)},
        columns={f"noise {q}": {"q": q} for q in (0.1, 0.3)},
    )
    result = study.run(tmp_path)
    tied = winners(result)
    assert not tied["won"].any()
    np.testing.assert_array_equal(tied["margin"], 0.0)
    won = winners(result, among=["Kalman", "raw"])
    assert won["won"].all()
    assert list(won["best"]) == ["Kalman", "Kalman"]
    assert list(won["q"]) == [0.1, 0.3]
    assert (won["margin"] > 0.1).all()
    every = against_best(result)
    beaten = every[every["estimator"] == "raw"]
    assert (beaten["p_holm"] < 1e-6).all()
    assert (every.loc[every["estimator"] != "raw", "p_holm"] == 1.0).all()
    # Holm over the four comparisons that were made: the smallest p counts fourfold.
    np.testing.assert_allclose(beaten["p_holm"].min(), 4 * beaten["p"].min(), rtol=1e-12)
    with pytest.raises(ValueError, match="among must name"):
        winners(result, among=["Kalman", "nobody"])
    with pytest.raises(ValueError, match="level"):
        winners(result, level=1.5)
