"""Comparisons: paired, reproducible whatever n_jobs is, and complete when an estimator fails."""

from __future__ import annotations

from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest

from afafilter import Comparison, Estimate, LinearSDE, Outliers, Score, Shell, compare

MODEL = LinearSDE.isotropic(0.5, 1.0, process_var=0.8, obs_var=0.4)
T = np.linspace(0.0, 3.0, 16)
P = 0.8 / (2 * 0.5)
BEST_MSE = P * 0.4 / (P + 0.4)


def one_at_a_time(model, t, z, *, claimed=1.0, shrink=1.0):
    """E[x_k | z_k] and its covariance under the stationary law: exact, by hand."""
    prior = model.stationary_covariance()
    gain = prior @ np.linalg.inv(prior + model.R)
    cov = claimed * (prior - gain @ prior)
    shape = (*z.shape[:-1], *cov.shape)
    return Estimate(t, shrink * z @ gain.T, np.broadcast_to(cov, shape), label="Bayes")


def raw(model, t, z):
    cov = np.broadcast_to(model.R, (*z.shape[:-1], *model.R.shape))
    unseen = np.isnan(z)
    if unseen.any():
        pair = unseen[..., :, None] | unseen[..., None, :]
        cov = np.where(pair, np.where(np.eye(len(model.R)) > 0, np.inf, 0.0), cov)
    return Estimate(t, z, cov, label="raw")


def broken(model, t, z):
    raise RuntimeError("no luck_today & never")


BOTH = {"Bayes": one_at_a_time, "raw": raw}


def run(estimators=BOTH, n=200, seed=0, **options):
    return compare(
        estimators, MODEL, T, n, rng=np.random.default_rng(seed), progress=False, **options
    )


def test_scores_are_right():
    result = run(n=2000)
    frame = result.scores.set_index(["estimator", "metric", "component"])
    for name, mse in (("Bayes", BEST_MSE), ("raw", 0.4)):
        row = frame.loc[(name, "rmse", "all")]
        assert abs(row["value"] - np.sqrt(mse)) < 4 * row["se"]
        assert row["se"] < 0.01
        assert 0.97 < frame.loc[(name, "nees", "all"), "value"] < 1.03
    times = result.times.set_index("estimator")
    assert (times["seconds"] > 0).all()
    assert times.loc["raw", "seconds_per_path"] == times.loc["raw", "seconds"] / 2000
    assert len(result.paths.query("estimator == 'raw' and metric == 'rmse'")) == 2000 * 3
    over = result.over_time().query("estimator == 'raw' and metric == 'nees'")
    assert over["value"].between(over["band_low"], over["band_high"]).mean() > 0.7


def test_every_estimator_sees_the_same_data():
    result = run({"a": raw, "b": raw}, n=20)
    a, b = (result.paths[result.paths["estimator"] == k] for k in "ab")
    np.testing.assert_array_equal(a["value"], b["value"])
    difference = result.differences("a").iloc[0]
    assert difference["difference"] == difference["low"] == difference["high"] == 0.0


def same(first: Comparison, second: Comparison) -> None:
    pd.testing.assert_frame_equal(first.scores, second.scores, check_exact=True)
    pd.testing.assert_frame_equal(first.paths, second.paths, check_exact=True)
    pd.testing.assert_frame_equal(first.over_time(), second.over_time(), check_exact=True)


def test_numbers_do_not_depend_on_jobs_or_backend():
    options = {
        "n": 70,
        "chunk_size": 30,
        "outliers": Outliers(0.1),
        "missing": 0.2,
        "x0": Shell(20.0, 3.0),
    }
    alone = run(n_jobs=1, **options)
    same(alone, run(n_jobs=2, **options))
    same(alone, run(**options))
    with joblib.parallel_config(backend="threading", n_jobs=3):
        same(alone, run(**options))


def test_callers_backend_takes_over():
    from joblib._parallel_backends import ThreadingBackend
    from joblib.parallel import register_parallel_backend

    seen = []

    class Recording(ThreadingBackend):
        def submit(self, func, callback=None):
            seen.append(func)
            return super().submit(func, callback)

    register_parallel_backend("recording", Recording)
    with joblib.parallel_config(backend="recording", n_jobs=2):
        run(n=40, chunk_size=10)
    assert seen


def test_seed_decides():
    pd.testing.assert_frame_equal(run(n=10).scores, run(n=10).scores)
    assert not run(n=10).scores["value"].equals(run(n=10, seed=1).scores["value"])


def test_differences_are_paired_and_their_intervals_honest():
    """Against the normal interval of the per-path differences of the mean error."""
    result = run(n=400)
    got = result.differences("raw", ["bias"], component="x0").iloc[0]
    bias = result.paths.query("metric == 'bias' and component == 'x0'")
    wide = bias.pivot(index="path", columns="estimator", values="value")
    gap = wide["Bayes"] - wide["raw"]
    assert got["difference"] == pytest.approx(gap.mean(), rel=1e-9)
    half = 1.96 * gap.std() / np.sqrt(400)
    assert got["high"] - got["difference"] == pytest.approx(half, rel=0.15)
    assert got["difference"] - got["low"] == pytest.approx(half, rel=0.15)

    rmse = result.differences("raw", "rmse").iloc[0]
    assert rmse["high"] < 0
    assert rmse["ratio_low"] < np.sqrt(BEST_MSE / 0.4) < rmse["ratio_high"] < 1
    alone = result.intervals("rmse").set_index("estimator")
    width = alone["upper"] - alone["lower"]
    assert rmse["high"] - rmse["low"] < 0.8 * np.hypot(*width)
    pd.testing.assert_frame_equal(result.differences("raw"), result.differences("raw"))


def test_a_failing_estimator_is_recorded_and_the_rest_finishes():
    result = run({"Bayes": one_at_a_time, "bad": broken, "raw": raw}, n=50)
    assert result.errors == {"bad": "RuntimeError: no luck_today & never"}
    bad = result.scores.query("estimator == 'bad'")
    assert bad["value"].isna().all()
    assert (bad["error"] == "RuntimeError: no luck_today & never").all()
    good = result.scores.query("estimator != 'bad'").reset_index(drop=True)
    pd.testing.assert_frame_equal(good, run(n=50).scores)
    assert result.table().loc["bad"].isna().all()
    assert "failed" in result.to_latex()
    assert len(result.differences("raw")) == 1
    with pytest.raises(ValueError, match="no luck_today"):
        result.differences("bad")


def test_estimators_cannot_change_the_data_of_the_others():
    def vandal(model, t, z):
        z += 100.0
        return raw(model, t, z)

    result = run({"vandal": vandal, "raw": raw}, n=20)
    assert "read-only" in result.errors["vandal"]
    assert result.results["raw"].value("rmse") == run(n=20).results["raw"].value("rmse")


def test_wrong_returns_are_recorded():
    result = run({"array": lambda m, t, z: z, "short": lambda m, t, z: raw(m, t[1:], z[:, 1:])})
    assert result.errors["array"].startswith("TypeError: an estimator must return an Estimate")
    assert "same times" in result.errors["short"]
    with pytest.raises(ValueError, match="every estimator failed"):
        _ = result.paths


def test_list_of_estimators_is_named_by_labels():
    result = run([one_at_a_time, raw, broken, partial(broken)][:3], n=5)
    assert result.names == ("Bayes", "raw", "broken")
    with pytest.raises(ValueError, match="same name"):
        run([raw, partial(raw)])


def test_mismatch_steps_and_simulator():
    assumed = LinearSDE.isotropic(0.5, 1.0, process_var=0.1, obs_var=0.4)
    wrong = run({"Bayes": one_at_a_time}, n=300, estimator_model=assumed)
    assert wrong.results["Bayes"].value("nees") > 2.0
    late = run(n=10, steps=slice(10, None))
    np.testing.assert_array_equal(late.results["raw"].t, T[10:])
    calls = []

    def simulator(model, t, n_paths, **options):
        from afafilter import simulate

        calls.append(n_paths)
        return simulate(model, t, n_paths, **options)

    same(run(n=10), run(n=10, simulator=simulator))
    assert calls == [10]


def test_array_starts_are_split_like_the_paths():
    starts = np.arange(100.0).reshape(50, 2) * 100

    class Spy:
        first = ()

        def __call__(self, model, t, z):
            if len(z) > 2:
                Spy.first = (*Spy.first, z[:, 0].copy())
            return raw(model, t, z)

    compare(
        {"spy": Spy()},
        MODEL,
        T,
        50,
        rng=np.random.default_rng(0),
        x0=starts,
        chunk_size=20,
        progress=False,
    )
    np.testing.assert_allclose(np.concatenate(Spy.first), starts, atol=5 * np.sqrt(0.4) * 1.5)


def test_shell():
    x = Shell(20.0, 3.0, dim=3)(np.random.default_rng(0), 4000)
    radius = np.linalg.norm(x, axis=1)
    assert abs(radius.mean() - 20.0) < 4 * 3.0 / np.sqrt(4000)
    assert abs(radius.std() - 3.0) < 0.2
    assert np.abs((x / radius[:, None]).mean(0)).max() < 4 / np.sqrt(3 * 4000)


def hand_made() -> Comparison:
    """Two estimators of a still target, errors chosen by hand."""
    from afafilter import score

    t = np.arange(2.0)
    truth = np.zeros((2, 2, 1))
    scores = {}
    for name, errors in {"good_one": [1.0, 1.0], "50% & more": [2.0, 4.0]}.items():
        mean = np.array(errors)[:, None, None] * np.array([1.0, -1.0])[None, :, None]
        scores[name] = score(Estimate(t, mean, np.full((2, 2, 1, 1), 4.0)), truth)
    seconds = {"good_one": 0.5, "50% & more": 0.002, "bad": np.nan}
    return Comparison(scores, seconds, {"bad": "ValueError: x"}, t, 2, (*scores, "bad"))


def test_latex_table():
    got = hand_made().to_latex(
        ("rmse", "nees", "time"), caption="Errors of $x$.", label="tab:x", uncertainty=False
    )
    assert (
        got
        == r"""\begin{table}
\centering
\caption{Errors of $x$.}
\label{tab:x}
\begin{tabular}{lrrr}
\toprule
Estimator & RMSE & NEES & ms / path \\
\midrule
good\_one & $\mathbf{1.00}$ & $0.250$ & $250$ \\
50\% \& more & $3.16$ & $\mathbf{2.50}$ & $\mathbf{1.00}$ \\
bad & failed & failed & failed \\
\bottomrule
\end{tabular}
\end{table}
"""
    )
    # MSE per path: 4 and 16; standard error 6, of the root 6 / (2 sqrt(10)).
    told = hand_made().to_latex(("rmse",))
    assert r"$3.2 \pm 0.9$" in told
    said = r"\multicolumn{2}{l}{\footnotesize $\pm$ one standard error} \\"
    assert told.splitlines()[-2:] == [said, r"\end{tabular}"]
    assert hand_made().to_markdown(("rmse",)).endswith("|\n\n± one standard error\n")
    assert "± one standard error" in str(hand_made())


def test_nees_nearest_to_one_is_best_on_a_ratio_scale():
    frame = hand_made()
    assert abs(np.log(2.5)) < abs(np.log(0.25))
    latex = frame.to_latex(("nees",), uncertainty=False)
    assert r"$\mathbf{2.50}$" in latex
    assert r"\mathbf{0.250}" not in latex


def test_markdown_and_plain_table():
    got = hand_made().to_markdown(("rmse",), uncertainty=False)
    assert got == (
        "| Estimator | RMSE |\n| --- | ---: |\n| good\\_one | **1.00** |\n"
        "| 50% & more | 3.16 |\n| bad | failed |\n"
    )
    table = hand_made().table(("rmse", "time"))
    assert table.loc["50% & more", "rmse"] == pytest.approx(np.sqrt(10))
    assert table.loc["good_one", "time"] == pytest.approx(250.0)
    assert "coverage95" in hand_made().table().columns


def test_plot_and_summary_show_every_estimator(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    result = run({"Bayes": one_at_a_time, "bad": broken, "raw": raw}, n=20)
    intervals = result.intervals()
    assert list(intervals["estimator"]) == ["Bayes", "bad", "raw"]
    summary = result.summary()
    np.testing.assert_array_equal(summary["rmse_low"], intervals["lower"])
    assert {"nees", "coverage95_high", "time"} <= set(summary.columns)
    ax = result.plot("rmse")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert {"Bayes", "raw"} <= set(labels)
    assert ax.get_xlabel() == "RMSE"


def test_bad_input():
    with pytest.raises(ValueError, match="at least one estimator"):
        run({})
    with pytest.raises(TypeError, match=r"estimators\['x'\] must be a function"):
        run({"x": 3})
    with pytest.raises(TypeError, match="rng"):
        compare(BOTH, MODEL, T, 3, rng="0")
    with pytest.raises(ValueError, match="n_paths"):
        run(n=0)
    with pytest.raises(ValueError, match="must not decrease"):
        compare(BOTH, MODEL, T[::-1], 3, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="chunk_size"):
        run(chunk_size=0)
    with pytest.raises(ValueError, match="x0"):
        run(x0=np.zeros(3))
    result = run(n=3)
    with pytest.raises(ValueError, match="metric must be one of"):
        result.table(["mse"])
    with pytest.raises(ValueError, match="reference must be one of"):
        result.differences("Kalman")
    with pytest.raises(ValueError, match="component"):
        result.intervals("nees", "x0")
    with pytest.raises(ValueError, match="radius"):
        Shell(-1.0)


def test_scores_are_those_of_score():
    """One batch: the comparison's Score is that of the data simulated by hand."""
    from afafilter import score, simulate

    result = run({"raw": raw}, n=12)
    (child,) = np.random.default_rng(0).spawn(1)
    _, noise = child.spawn(2)
    data = simulate(MODEL, T, 12, rng=noise)
    expected: Score = score(raw(MODEL, T, data.z), data)
    pd.testing.assert_frame_equal(result.results["raw"].frame, expected.frame)


def test_kalman_filter_is_calibrated_and_with_the_wrong_noise_it_is_not():
    from afafilter import kalman_filter, rts_smoother

    estimators = {"Kalman": kalman_filter, "RTS": rts_smoother}
    grid = np.linspace(0.0, 6.0, 60)

    def rows(**options):
        result = compare(
            estimators, MODEL, grid, 200, rng=np.random.default_rng(4), progress=False, **options
        )
        return result, result.scores.set_index(["estimator", "metric", "component"])

    def deviation(row, expected):
        """In standard errors over paths; 4 is exceeded by chance once in 15 000 draws."""
        return abs(row["value"] - expected) / ((row["high"] - row["low"]) / (2 * 1.96))

    result, right = rows()
    for name in estimators:
        assert deviation(right.loc[(name, "nees", "all")], 1.0) < 4
        over = result.over_time().query(f"estimator == '{name}' and metric == 'nees'")
        # Neighbouring times are correlated: of 60, as few as 45 may be inside.
        assert over["value"].between(over["band_low"], over["band_high"]).mean() > 0.75
        assert deviation(right.loc[(name, "coverage90", "all")], 0.9) < 4
    for metric in ("nis", "ljung_box"):
        assert deviation(right.loc[("Kalman", metric, "all")], 1.0) < 4
    better = result.differences("Kalman", ["rmse", "nlpd"])
    assert (better["high"] < 0).all()

    _, wrong = rows(estimator_model=LinearSDE.isotropic(0.5, 1.0, process_var=0.2, obs_var=0.1))
    for metric in ("nees", "nis"):
        row = wrong.loc[("Kalman", metric, "all")]
        assert row["value"] > row["band_high"]


def test_missing_and_undetermined_with_real_estimators():
    """AFA starts flat: what it cannot know yet is left out and counted, for it alone."""
    from afafilter import adaptive_filter, kalman_filter

    result = compare(
        {"Kalman": kalman_filter, "AFA": adaptive_filter},
        MODEL,
        T,
        50,
        missing=0.5,
        rng=np.random.default_rng(5),
        progress=False,
    )
    assert not result.errors
    rows = result.scores.set_index(["estimator", "metric", "component"])
    assert rows.loc[("Kalman", "rmse", "all"), "undetermined"] == 0
    assert rows.loc[("AFA", "rmse", "all"), "undetermined"] > 0
    assert np.isfinite(rows.loc[("AFA", "nlpd", "all"), "value"])


def test_ranks_and_probabilities_of_a_comparison():
    """Places by scipy on the errors of each path; a point estimator has a place, but no PIT."""
    from scipy.stats import rankdata

    from afafilter import Estimate, kalman_filter, simulate

    def point(model, t, z):
        return Estimate(t, z)

    def bold(model, t, z):
        found = kalman_filter(model, t, z)
        return Estimate(t, 0.9 * found.mean, 0.1 * found.cov)

    estimators = {"Kalman": kalman_filter, "point": point, "bold": bold, "again": kalman_filter}
    data = simulate(MODEL, T, 30, rng=8)
    result = compare(
        estimators,
        MODEL,
        T,
        30,
        rng=1,
        progress=False,
        simulator=lambda *a, **k: data,
        chunk_size=30,
    )
    errors = np.array(
        [((f(MODEL, T, data.z).mean - data.x) ** 2).mean(axis=(1, 2)) for f in estimators.values()]
    )
    places = rankdata(errors.round(12), axis=0)
    ranks = result.ranks().set_index("estimator")
    np.testing.assert_allclose(ranks.loc[list(estimators), "rank"], places.mean(axis=1))
    first = (errors <= errors.min(axis=0) + 1e-12).mean(axis=1)
    np.testing.assert_allclose(ranks.loc[list(estimators), "first"], first)
    assert ranks.loc["Kalman", "rank"] == ranks.loc["again", "rank"]
    assert list(result.ranks("nlpd")["estimator"]) == ["Kalman", "bold", "again"]
    shown = result.reliability().query("component == 'all' and level == 0.9")
    covered = shown.set_index("estimator")["coverage"]
    assert list(covered.index) == ["Kalman", "bold", "again"]
    assert covered["bold"] < covered["Kalman"]
    assert result.pit_histogram().groupby("estimator")["share"].sum().tolist() == pytest.approx(
        3 * [1.0 + MODEL.dim]
    )
    assert "interval95" in set(result.scores["metric"])
    assert result.table(["rmse", "nlpd"]).loc["point"].isna().tolist() == [False, True]
