"""Held-out scores against the dense Gaussian law of what was hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from afafilter import (
    Estimate,
    adaptive_smoother,
    kalman_filter,
    ornstein_uhlenbeck,
    rts_smoother,
    simulate,
)
from afafilter.studies.hold_out import hold_out

MODEL = ornstein_uhlenbeck(rate=0.3, process_var=1.0, obs_var=0.2)
DATA = simulate(MODEL, np.arange(120.0), 1, rng=3)
T, Z = DATA.t, DATA.z[0]
BOTH = {"filter": kalman_filter, "smoother": rts_smoother}


def _dense(seen: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of z at `asked` given z at `seen`: the joint Gaussian of all."""
    K = 1.0 / 0.6 * np.exp(-0.3 * np.abs(T[:, None] - T[None]))
    S = K + 0.2 * np.eye(len(T))
    gain = K[np.ix_(asked, seen)] @ np.linalg.inv(S[np.ix_(seen, seen)])
    mean = gain @ Z[seen, 0]
    return mean, 1.0 / 0.6 + 0.2 - np.einsum("ij,ij->i", gain, K[np.ix_(asked, seen)])


@pytest.mark.parametrize("kind", ["random", "blocks", "forecast"])
def test_scores_of_the_smoother_are_those_of_the_joint_gaussian(kind):
    hidden = []

    def watched(model, t, z, **options):
        hidden.append(np.isnan(z[:, 0]))
        return rts_smoother(model, t, z, **options)

    reach = {"horizon": 4} if kind == "forecast" else {}
    found = hold_out({"smoother": watched}, MODEL, T, Z, kinds=[kind], pieces=3, rng=1, **reach)
    losses, errors = [], []
    for gone in hidden:
        asked = np.flatnonzero(gone)[: 4 if kind == "forecast" else None]
        mean, var = _dense(np.flatnonzero(~gone), asked)
        losses.append(-norm.logpdf(Z[asked, 0], mean, np.sqrt(var)))
        errors.append(Z[asked, 0] - mean)
    row = found.frame.iloc[0]
    assert row["count"] == sum(map(len, losses))
    assert row["nlpd"] == pytest.approx(np.concatenate(losses).mean(), rel=1e-9)
    assert row["rmse"] == pytest.approx(np.sqrt((np.concatenate(errors) ** 2).mean()), rel=1e-9)


def test_forecasts_of_filter_and_smoother_agree_and_pieces_are_shared():
    found = hold_out(BOTH, MODEL, T, Z, kinds=["forecast", "random"]).frame
    ahead = found[found["kind"] == "forecast"].set_index("estimator")
    assert ahead.loc["filter", "nlpd"] == pytest.approx(ahead.loc["smoother", "nlpd"], rel=1e-9)
    inside = found[found["kind"] == "random"].set_index("estimator")
    assert inside.loc["filter", "count"] == inside.loc["smoother", "count"]
    assert inside.loc["smoother", "nlpd_behind_best"] == 0
    assert inside.loc["filter", "nlpd_behind_best"] > 0


def test_models_side_by_side_and_failures_noted():
    other = ornstein_uhlenbeck(rate=3.0, process_var=0.1, obs_var=0.2)

    def broken(model, t, z):
        raise ValueError("no")

    found = hold_out(
        {"rts": rts_smoother, "afa": adaptive_smoother, "broken": broken},
        {"right": MODEL, "wrong": other},
        T,
        Z,
        kinds=["random"],
    )
    assert found.errors == {(m, "broken"): "ValueError: no" for m in ("right", "wrong")}
    table = found.frame.set_index(["model", "estimator"])["nlpd"]
    assert table["right", "rts"] < table["wrong", "rts"]
    assert "right" in repr(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["often"]}, "kinds must be one of"),
        ({"share": 0.9}, "share must be at most"),
        ({"pieces": 0}, "pieces must be"),
        ({"horizon": 0}, "horizon must be"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        hold_out(BOTH, MODEL, T, Z, **options)
    with pytest.raises(ValueError, match="too few observations"):
        hold_out(BOTH, MODEL, T[:5], Z[:5])


def test_scores_are_of_the_values_that_all_know_and_points_have_no_density():
    """A filter knows nothing before its first observation; a smoother does."""

    def late(model, t, z, **options):
        found = kalman_filter(model, t, z, **options)
        mean = np.where(np.arange(len(t))[:, None] < 60, np.nan, found.mean)
        return replace(found, mean=mean)

    def point(model, t, z):
        return Estimate(t, np.nan_to_num(z))

    def mute(model, t, z):
        return Estimate(t, np.full(z.shape, np.nan), np.full((*z.shape, 1), np.nan))

    tried = {"late": late, "smoother": rts_smoother, "point": point, "mute": mute}
    found = hold_out(tried, MODEL, T, Z, kinds=["random"], rng=2)
    table = found.frame.set_index("estimator")
    assert table["count"].nunique() == 1
    whole = hold_out({"smoother": rts_smoother}, MODEL, T, Z, kinds=["random"], rng=2)
    assert 0 < table["count"].iloc[0] < whole.frame["count"].iloc[0]
    assert table.loc["point", "crps"] == table.loc["point", "mae"]
    assert np.isnan(table.loc["point", "nlpd"])
    assert table.loc["smoother", "nlpd_behind_best"] == 0.0
    assert "says nothing" in found.errors["model", "mute"]


def test_tables_go_in_by_their_labels():
    frame = pd.DataFrame({"z": Z[:, 0]}, index=T)
    want = hold_out(BOTH, MODEL, T, Z).frame
    pd.testing.assert_frame_equal(hold_out(BOTH, MODEL, frame).frame, want)
    shuffled = frame.sample(frac=1.0, random_state=0)
    pd.testing.assert_frame_equal(hold_out(BOTH, MODEL, T, shuffled).frame, want)


def test_noise_beside_a_missing_value_may_be_unknown():
    z = np.where((T % 11 == 4)[:, None], np.nan, Z)
    noise = np.full((len(T), 1, 1), 0.2)
    unknown = np.where(np.isnan(z)[..., None], np.nan, noise)
    want, found = (hold_out(BOTH, MODEL, T, z, rng=2, obs_cov=R).frame for R in (noise, unknown))
    pd.testing.assert_frame_equal(found, want)
    with pytest.raises(ValueError, match="beside an observation"):
        hold_out(BOTH, MODEL, T, Z, rng=2, obs_cov=unknown)
