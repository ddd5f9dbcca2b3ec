"""The command: what it writes and how it fails, numbers against the library's functions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from afafilter import (
    LinearSDE,
    Prior,
    adaptive_filter,
    datasets,
    io,
    kalman_filter,
    rts_smoother,
    weights,
)
from afafilter.catalog import CATALOG, WEIGHT_PARAMETERS, estimator_from_spec
from afafilter.cli import main, options
from afafilter.cli.estimate import observed
from afafilter.models import presets
from tests.cli import runner

DATA = datasets.DATA
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the command in an empty directory that holds spiral.toml."""
    monkeypatch.chdir(tmp_path)
    Path("spiral.toml").write_text('[model]\npreset = "spiral"\n')

    def call(*arguments: str | Path, status: int = 0) -> Result:
        result = runner().invoke(main, [str(a) for a in arguments])
        assert result.exit_code == status, result.output
        return result

    return call


def config_of(path: str) -> Any:
    return json.loads(Path(path).read_text())["config"]


# ---------------------------------------------------------------------------------------- simulate


def test_simulate_writes_table_and_configuration(run: Run) -> None:
    result = run(
        "simulate", "spiral.toml", "--n", 50, "--dt", 0.1, "--paths", 3, "--seed", 7, "--missing",
        0.2, "--outlier-rate", 0.1, "-o", "d.csv",
    )  # fmt: skip
    assert "wrote d.csv (150 rows)" in result.stdout
    frame = pd.read_csv("d.csv", float_precision="round_trip")
    assert list(frame) == ["path", "t", "x0", "x1", "z0", "z1", "outlier"]
    wanted = presets_simulated(50, 3)
    np.testing.assert_array_equal(frame[["x0", "x1"]], wanted.x.reshape(-1, 2))
    np.testing.assert_array_equal(frame[["z0", "z1"]], wanted.z.reshape(-1, 2))
    np.testing.assert_array_equal(frame["outlier"], wanted.outliers.ravel())
    config = config_of("d.config.json")
    assert config["seed"] == 7
    assert config["model"]["Q"] == [[0.3, 0.0], [0.0, 0.3]]
    assert config["outliers"]["scale"] == 10.0
    first = Path("d.csv").read_bytes()
    run("simulate", "spiral.toml", "--n", 50, "--dt", 0.1, "--paths", 3, "--seed", 7, "--missing",
        0.2, "--outlier-rate", 0.1, "-o", "d.csv", "--force")  # fmt: skip
    assert Path("d.csv").read_bytes() == first


def presets_simulated(n: int, paths: int) -> Any:
    from afafilter import Outliers, simulate

    return simulate(
        presets.spiral(),
        0.1 * np.arange(n),
        paths,
        rng=np.random.default_rng(7),
        outliers=Outliers(0.1),
        missing=0.2,
    )


def test_simulate_at_the_times_of_a_file_with_a_new_seed(run: Run) -> None:
    Path("times.csv").write_text("when\n0\n0.5\n0.5\n3\n")
    run("simulate", "spiral.toml", "--times", "times.csv", "--x0", "20,0")
    frame = pd.read_csv("spiral-simulated.csv")
    np.testing.assert_array_equal(frame["t"], [0, 0.5, 0.5, 3])
    assert list(frame.loc[0, ["x0", "x1"]]) == [20, 0]
    seed = config_of("spiral-simulated.config.json")["seed"]
    run("simulate", "spiral.toml", "--times", "times.csv", "--x0", "20,0", "--seed", seed, "-o",
        "again.csv")  # fmt: skip
    assert Path("again.csv").read_bytes() == Path("spiral-simulated.csv").read_bytes()


def test_simulate_at_the_times_of_simulated_paths(run: Run) -> None:
    """A file of the tool's own goes round without options: its paths share their times."""
    run("simulate", "spiral.toml", "--n", 4, "--paths", 2, "--seed", 1, "-o", "d.csv")
    run("estimate", "d.csv", "--model", "spiral.toml", "-o", "e.csv")
    for name in ("d.csv", "e.csv"):
        run("simulate", "spiral.toml", "--times", name, "--force", "-o", "again.csv")
        np.testing.assert_array_equal(pd.read_csv("again.csv")["t"], range(4))
    pd.read_csv("d.csv").iloc[:-1].to_csv("ragged.csv", index=False)
    result = run("simulate", "spiral.toml", "--times", "ragged.csv", status=2)
    assert "the paths have times of their own" in result.output


# ---------------------------------------------------------------------------------------- estimate


def test_nile_by_the_command_is_the_published_level(run: Run) -> None:
    result = run(
        "estimate", DATA / "nile.csv", "--model", DATA / "nile.toml", "--estimator", "rts",
        "--figure", "nile.png",
    )  # fmt: skip
    assert "log-likelihood -633.4646" in result.stdout
    frame = pd.read_csv("nile-rts.csv")
    series = datasets.load_nile()
    wanted = rts_smoother(datasets.nile_model(), series.t, series.z)
    np.testing.assert_allclose(frame["x0"], wanted.mean[:, 0], rtol=1e-14)
    np.testing.assert_allclose(frame["x0_sd"], wanted.std[:, 0], rtol=1e-14)
    np.testing.assert_allclose(frame["flow_fit"], wanted.mean[:, 0], rtol=1e-14)
    assert Path("nile.png").read_bytes()[:4] == b"\x89PNG"
    config = config_of("nile-rts.config.json")
    assert config["model"]["R"] == [[15099.0]]
    assert config["loglik"] == pytest.approx(-633.4646, abs=1e-4)


def test_dates_gaps_and_forecast(run: Run) -> None:
    run("estimate", DATA / "co2.csv", "--model", DATA / "co2.toml", "--time-unit", "Y",
        "--forecast", "0.5", "-o", "co2.parquet")  # fmt: skip
    frame = pd.read_parquet("co2.parquet")
    assert len(frame) == 2284 + 26
    assert str(frame["date"].iloc[-1])[:10] == "2002-06-29"
    series = io.read_series(DATA / "co2.csv", time_unit="Y")
    ahead = series.t[-1] + 7 / 365.25 * np.arange(1, 27)
    wanted = kalman_filter(
        datasets.co2_model(), series.t, series.z, query_times=np.concatenate([series.t, ahead])
    )
    np.testing.assert_allclose(frame["x0"], wanted.mean[:, 0], rtol=1e-9)
    C = datasets.co2_model().C
    np.testing.assert_allclose(frame["co2_fit"].iloc[-1], (C @ wanted.mean[-1])[0], rtol=1e-9)
    variance = (C @ wanted.cov[-1] @ C.T)[0, 0]
    np.testing.assert_allclose(frame["co2_fit_sd"].iloc[-1], np.sqrt(variance), rtol=1e-8)


def test_simulated_paths_are_estimated_robustly(run: Run) -> None:
    run("simulate", "spiral.toml", "--n", 30, "--dt", 0.1, "--paths", 2, "--seed", 1, "-o", "d.csv")
    run(
        "estimate", "d.csv", "--model", "spiral.toml", "--time", "t", "--values", "z0, z1", "--by",
        "path", "--estimator", "afa", "--weight", "student_t", "--nu", 4, "--anchor", "estimate",
        "--iterations", 5, "--set", "step=.5", "-o", "e.csv",
    )  # fmt: skip
    series = io.read_series("d.csv", "t", ["z0", "z1"], by="path")
    wanted = adaptive_filter(
        presets.spiral(), series.t, series.z, weight=weights.StudentT(4.0), anchor="estimate",
        iterations=5, step=0.5,
    )  # fmt: skip
    frame = pd.read_csv("e.csv")
    assert list(frame["path"].unique()) == [0, 1]
    np.testing.assert_allclose(frame[["x0", "x1"]], wanted.mean.reshape(-1, 2), rtol=1e-9)
    assert config_of("e.config.json")["options"]["weight"] == {"type": "StudentT", "nu": 4.0}


def test_query_times_and_error_bars(run: Run) -> None:
    Path("m.toml").write_text('[model]\npreset = "brownian"\n')
    Path("d.csv").write_text("t,x,sd\n0,1,0.5\n1,,\n2,3,0.1\n")
    run("estimate", "d.csv", "--model", "m.toml", "--values", "x", "--errors", "sd",
        "--query-times", "0:2:0.5", "-o", "e.csv")  # fmt: skip
    wanted = kalman_filter(
        presets.brownian(),
        [0, 1, 2],
        [[1.0], [np.nan], [3.0]],
        obs_cov=np.array([0.25, 1.0, 0.01])[:, None, None],
        query_times=[0, 0.5, 1, 1.5, 2],
    )
    frame = pd.read_csv("e.csv")
    np.testing.assert_array_equal(frame["t"], [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(frame["x0"], wanted.mean[:, 0], rtol=1e-12)
    np.testing.assert_allclose(frame["x0_sd"], wanted.std[:, 0], rtol=1e-12)
    run("estimate", "d.csv", "--model", "m.toml", "--values", "x", "--query-times", "2.5,0",
        "-o", "q.csv")  # fmt: skip
    np.testing.assert_array_equal(pd.read_csv("q.csv")["t"], [0, 2.5])


def test_dated_data_take_ranges_of_numbers_and_of_dates(run: Run) -> None:
    Path("d.csv").write_text("day,x\n2020-01-01,1\n2020-01-05,2\n2020-01-11,0\n")
    for k, asked in enumerate(("0:10:2", "2020-01-01:2020-01-11:2")):
        run("estimate", "d.csv", "--model", DATA / "nile.toml", "--query-times", asked,
            "-o", f"e{k}.csv", "--figure", f"e{k}.svg")  # fmt: skip
        frame = pd.read_csv(f"e{k}.csv")
        np.testing.assert_allclose(frame["t"], [0, 2, 4, 6, 8, 10])
        assert list(frame["day"])[1] == "2020-01-03"
    assert ">2020-Jan</text>" in Path("e0.svg").read_text()  # dates on the axis
    run("estimate", "d.csv", "--model", DATA / "nile.toml", "--query-times",
        "2020-01-01T12:00:00", "--time-unit", "h", "-o", "f.csv")  # fmt: skip
    assert list(pd.read_csv("f.csv")["t"]) == [12]


def test_labels_of_paths_are_kept(run: Run) -> None:
    Path("d.csv").write_text("t,s,x\n0,north,1\n1,north,2\n0,a south,5\n1,a south,7\n")
    run("estimate", "d.csv", "--model", DATA / "nile.toml", "--by", "s", "-o", "e.csv",
        "--figure", "e.svg")  # fmt: skip
    frame = pd.read_csv("e.csv")
    assert list(frame["s"]) == ["north", "north", "a south", "a south"]
    assert frame.loc[frame["s"] == "a south", "x0"].iloc[0] == pytest.approx(5.0)
    assert "path" not in frame
    assert "s = north, the first of 2" in Path("e.svg").read_text()
    run("estimate", "d.csv", "--model", DATA / "nile.toml", "--by", "s", "-o", "f.csv",
        "--figure", "f.svg", "--forecast", 2)  # fmt: skip
    assert "wider: of measurements" in Path("f.svg").read_text()


def test_figures_follow_the_estimate_into_gaps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The band between distant observations is that of the model, not a straight line."""
    from afafilter import plotting

    drawn = []
    original = plotting.band
    monkeypatch.setattr(
        plotting, "band", lambda seen, *a, **k: (drawn.append(seen), original(seen, *a, **k))[1]
    )
    Path("d.csv").write_text("t,x\n0,1\n1,2\n2,3\n20,0\n21,0\n")
    Path("m.toml").write_text('[model]\npreset = "brownian"\n')
    run("estimate", "d.csv", "--model", "m.toml", "--estimator", "rts", "--figure", "e.pdf")
    (seen,) = drawn
    assert {0, 1, 2, 20, 21} <= set(seen.t)
    middle = np.argmin(abs(seen.t - 11))
    ends = [seen.std[np.flatnonzero(seen.t == t)[0], 0] for t in (2, 20)]
    assert seen.std[middle, 0] > 1.9 * max(ends)
    assert len(pd.read_csv("d-rts.csv")) == 5


def test_bands_of_figures_are_named_and_forecasts_show_measurements(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nile: one year ahead sd 74 of the signal, 144 of a measurement (published steady state)."""
    from afafilter import plotting

    drawn, original = [], plotting.band
    monkeypatch.setattr(
        plotting, "band", lambda seen, *a, **k: (drawn.append(seen), original(seen, *a, **k))[1]
    )
    given = ("estimate", DATA / "nile.csv", "--model", DATA / "nile.toml", "-o", "e.csv", "--force")
    run(*given, "--figure", "e.svg")
    assert len(drawn) == 1
    assert "95 % of the signal" in Path("e.svg").read_text()
    assert "of measurements" not in Path("e.svg").read_text()
    run(*given, "--figure", "f.svg", "--forecast", 1)
    _, signal, measured = drawn
    assert signal.std[-1, 0] == pytest.approx(np.sqrt(4032.16 + 1469.1), abs=0.01)
    assert measured.std[-1, 0] == pytest.approx(np.hypot(signal.std[-1, 0], np.sqrt(15099.0)))
    assert (measured.t > 1970).all()
    assert "wider: of measurements" in Path("f.svg").read_text()


def test_models_in_steps_are_drawn_at_their_steps(run: Run) -> None:
    Path("d.csv").write_text("t,x\n0,1\n1,2\n2,0\n")
    for k, R in enumerate(("[[1.0]]", '[[[1.0]], [[2.0]], [[1.0]]]\ntime_varying = ["R"]')):
        Path("m.toml").write_text(f"[model]\nF = [[0.9]]\nQ = [[1.0]]\nH = [[1.0]]\nR = {R}\n")
        run("estimate", "d.csv", "--model", "m.toml", "-o", f"e{k}.csv", "--figure", f"e{k}.svg")
        assert "95 % of the signal" in Path(f"e{k}.svg").read_text()


def test_robust_afa_judges_by_its_estimate_unless_told(run: Run) -> None:
    Path("d.csv").write_text("t,x\n0,1\n1,2\n2,900\n3,0\n")
    Path("m.toml").write_text('[model]\npreset = "brownian"\n')
    arguments = ("estimate", "d.csv", "--model", "m.toml", "--estimator", "afa", "--weight",
                 "student_t", "--nu", 4)  # fmt: skip
    run(*arguments, "-o", "a.csv")
    run(*arguments, "--anchor", "estimate", "-o", "b.csv")
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    assert config_of("a.config.json")["options"]["anchor"] == "estimate"
    run("estimate", "d.csv", "--model", "m.toml", "--weight", "huber", "--c", 2, "-o", "k.csv")
    assert config_of("k.config.json")["options"]["anchor"] == "prediction"
    run(*arguments, "--anchor", "observation", "-o", "o.csv", "--figure", "o.png")
    assert config_of("o.config.json")["options"]["anchor"] == "observation"


def test_only_missing_values_give_blanks(run: Run) -> None:
    Path("d.csv").write_text("t,x\n0,\n1,\n")
    run("estimate", "d.csv", "--model", DATA / "nile.toml", "--figure", "e.pdf", "-o", "e.csv")
    frame = pd.read_csv("e.csv")
    assert frame["x0"].isna().all()
    assert np.isinf(frame["x0_sd"]).all()
    assert frame["x_fit"].isna().all()


def test_observed_leaves_open_only_what_needs_an_open_state() -> None:
    model = LinearSDE(
        np.zeros((2, 2)),
        Q=np.eye(2),
        R=np.eye(2),
        C=[[1.0, 0.0], [1.0, 2.0]],
        offset=[5.0, 0.0],
        prior=Prior([0.0, 0.0], np.eye(2), diffuse=[[0.0], [1.0]]),
    )
    estimate = kalman_filter(model, [0.0], [[7.0, np.nan]])
    seen = observed(estimate, model)
    np.testing.assert_allclose(seen.mean[0], [6.0, np.nan])
    np.testing.assert_allclose(seen.cov[0], [[0.5, 0.0], [0.0, np.inf]])


@pytest.mark.parametrize("name", CATALOG)
def test_every_name_of_the_catalog_estimates(run: Run, name: str) -> None:
    run("simulate", "spiral.toml", "--n", 12, "--dt", 0.1, "--seed", 3, "-o", "d.csv")
    run("estimate", "d.csv", "--model", "spiral.toml", "--values", "z0,z1", "--estimator", name,
        "-o", "e.csv")  # fmt: skip
    frame = pd.read_csv("e.csv")
    assert len(frame) == 12
    assert frame["x1"].notna().any()


def test_catalog_weights_can_be_replaced() -> None:
    robust = estimator_from_spec("wolf", {"weight": {"name": "imq", "c": 5.0}})
    assert robust.keywords["weight"] == weights.IMQ(5.0)
    assert estimator_from_spec("irkf").keywords["weight"] == weights.StudentT(4.0)


# --------------------------------------------------------------------------------------------- fit


def test_fit_reaches_the_published_optimum_and_its_model_can_be_used(run: Run) -> None:
    """Nile: Durbin and Koopman, Time Series Analysis by State Space Methods, sec. 2.10.3."""
    result = run("fit", DATA / "nile.csv", "--family", "brownian + noise", "-o", "level.toml")
    assert "converged" in result.stdout
    table = pd.read_csv("level.csv").set_index("parameter")["value"]
    assert sorted(table) == pytest.approx([1469.1, 15099.0], rel=1e-3)
    assert sorted([io.read_model("level.toml").Q[0, 0], io.read_model("level.toml").R[0, 0]]) == (
        pytest.approx(sorted(table), rel=1e-12)
    )
    assert config_of("level.config.json")["loglik"] == pytest.approx(-633.4646, abs=1e-3)
    run("estimate", DATA / "nile.csv", "--model", "level.toml", "-o", "e.csv")


def test_fit_from_a_model_with_some_matrices_free(run: Run) -> None:
    Path("start.toml").write_text(
        '[model]\npreset = "brownian"\nprocess_var = 1e3\nobs_var = 1e4\n'
    )
    run("fit", DATA / "nile.csv", "--model", "start.toml", "--free", "Q,R", "-o", "f.toml")
    model = io.read_model("f.toml")
    assert model.R[0, 0] == pytest.approx(15099.0, rel=1e-3)
    assert model.A[0, 0] == 0


def test_fit_of_a_sum_keeps_its_structure(run: Run) -> None:
    """The same optimum as the family with the other parameters held."""
    from afafilter import families, fit

    Path("m.toml").write_text(
        '[[model.sum]]\npreset = "ornstein_uhlenbeck"\nrate = 0.5\nprocess_var = 1e4\n'
        '[[model.sum]]\npreset = "brownian"\nprocess_var = 500.0\nobs_var = 1e4\n'
    )
    result = run("fit", DATA / "nile.csv", "--model", "m.toml", "-o", "f.toml")
    assert "fitted its noise levels only" in result.stderr
    table = pd.read_csv("f.csv").set_index("parameter")["value"]
    assert list(table.index) == [
        "ornstein_uhlenbeck.process_var",
        "brownian.process_var",
        "obs_var",
    ]
    model, start = io.read_model("f.toml"), io.read_model("m.toml")
    np.testing.assert_array_equal(model.A, start.A)
    assert model.Q[0, 1] == 0
    assert isinstance(model.prior, Prior)
    np.testing.assert_allclose(model.prior.cov[0, 0], table.iloc[0] / (2 * 0.5), rtol=1e-9)
    series = datasets.load_nile()
    family = families.ornstein_uhlenbeck() + families.brownian() + families.noise()
    wanted = fit(family.fix({"ou.rate": 0.5}), series.t, series.z)
    assert config_of("f.config.json")["loglik"] == pytest.approx(wanted.loglik, abs=1e-4)
    whole = run("fit", DATA / "nile.csv", "--model", "m.toml", "--free", "R", "-o", "g.toml")
    assert whole.stderr == ""


def test_fit_of_a_sum_with_a_prior_of_its_own_keeps_it(run: Run) -> None:
    Path("m.toml").write_text(
        "[model]\nprior = { mean = [1000.0, 0.0], cov = [[4e4, 0.0], [0.0, 1e3]] }\n"
        '[[model.sum]]\npreset = "brownian"\nprocess_var = 500.0\nobs_var = 1e4\n'
        '[[model.sum]]\npreset = "ornstein_uhlenbeck"\nrate = 0.5\nprocess_var = 1e4\n'
    )
    run("fit", DATA / "nile.csv", "--model", "m.toml", "-o", "f.toml")
    prior = io.read_model("f.toml").prior
    assert isinstance(prior, Prior)
    np.testing.assert_array_equal(prior.cov, np.diag([4e4, 1e3]))


def test_student_t_fit_says_how_to_use_its_degrees_of_freedom(run: Run) -> None:
    import shlex

    rng = np.random.default_rng(0)
    t = np.arange(150.0)
    z = np.cumsum(0.3 * rng.standard_normal(150)) + rng.standard_t(3, 150)
    pd.DataFrame({"t": t, "my z": z}).to_csv("d.csv", index=False)
    result = run(
        "fit", "d.csv", "--family", "brownian + noise", "--method", "student_t", "--values",
        "my z", "-o", "f.toml",
    )  # fmt: skip
    dof = config_of("f.config.json")["dof"]
    assert 1 < dof < 10
    assert "degrees of freedom" in Path("f.toml").read_text()
    line = result.stdout.split("with this noise: ")[1].splitlines()[0]
    run(*shlex.split(line)[1:], "-o", "e.csv")
    model = io.read_model("f.toml")
    wanted = rts_smoother(
        model, t, z, weight=weights.StudentT(float(f"{dof:.6g}")), anchor="estimate"
    )
    np.testing.assert_allclose(pd.read_csv("e.csv")["x0"], wanted.mean[:, 0], rtol=1e-9)


def test_families_are_parsed_with_their_arguments() -> None:
    from afafilter import families
    from afafilter.cli.fit import parse_family

    parsed = parse_family("local_linear_trend + seasonal(1.0, harmonics=2) + noise()")
    wanted = families.local_linear_trend() + families.seasonal(1.0, 2) + families.noise()
    assert list(parsed.parameters) == list(wanted.parameters)
    assert parsed.dim == wanted.dim == 6


# ----------------------------------------------------------------------------------------- compare

STUDY = """
seeds = 2
[models.spiral]
preset = "spiral"
[estimators.raw]
function = "raw_observation"
[estimators.kalman]
function = "kalman_filter"
[scenarios.ring]
t = { step = 0.1, count = 20 }
n_paths = 10
"""


def test_compare_writes_scores_and_resumes(run: Run) -> None:
    Path("study.toml").write_text(STUDY)
    result = run("compare", "study.toml", "--reference", "kalman")
    assert "kalman" in result.stdout
    pooled = pd.read_csv("study/rmse.csv").set_index("estimator")["value"]
    assert pooled["kalman"] < 0.8 * pooled["raw"]
    assert pooled["raw"] == pytest.approx(np.sqrt(0.5), rel=0.1)
    differences = pd.read_csv("study/differences.csv").set_index("estimator")
    assert differences.loc["raw", "low"] > 0
    assert len(pd.read_csv("study/scores.csv")) > 0
    assert config_of("study/study.config.json")["seeds"] == [0, 1]
    assert "study/scores.csv exists already" in run("compare", "study.toml", status=2).stderr
    for name in ("scores", "times", "rmse"):
        Path(f"study/{name}.csv").unlink()
    assert "differences.csv exists" in run("compare", "study.toml", status=2).stderr
    before = {p: p.stat().st_mtime_ns for p in Path("study/cells").iterdir()}
    run("compare", "study.toml", "--force")
    assert not Path("study/differences.csv").exists()
    assert {p: p.stat().st_mtime_ns for p in Path("study/cells").iterdir()} == before


def test_compare_plans_a_study_before_it_runs(run: Run) -> None:
    Path("study.toml").write_text(STUDY)
    said = run("compare", "study.toml", "--plan", "--jobs", "3").stdout
    assert "2 cells of" in said
    assert "study/plan.csv, study/plan.html" in said
    plan = pd.read_csv("study/plan.csv")
    assert set(plan["cells"]) == {2, 1_000_000}
    assert 3 in set(plan["workers"])
    assert not Path("study/scores.csv").exists()
    before = {p: p.stat().st_mtime_ns for p in Path("study/cells").iterdir()}
    run("compare", "study.toml")
    assert {p: p.stat().st_mtime_ns for p in Path("study/cells").iterdir()} == before
    assert "plan.csv exists" in run("compare", "study.toml", "--plan", status=2).stderr


def test_compare_draws_and_prints_in_the_style_of_a_journal(run: Run) -> None:
    Path("study.toml").write_text(STUDY)
    options = ("--figure", "--latex", "--style", "icml", "--formats", "png,svg")
    said = run("compare", "study.toml", *options).stdout
    assert "study/rmse.png, study/rmse.svg, study/rmse.tex" in said
    assert 'width="234pt"' in Path("study/rmse.svg").read_text()  # 3.25 inches of 72 points
    pooled = pd.read_csv("study/rmse.csv").set_index("estimator")
    printed = Path("study/rmse.tex").read_text()
    assert r"\toprule" in printed
    assert "_" not in printed
    for name, bold in (("raw", False), ("kalman", True)):
        row = next(line for line in printed.splitlines() if line.startswith(name))
        value, error = re.search(r"([\d.]+)\}? \\pm ([\d.]+)", row).groups()
        assert float(value) == pytest.approx(pooled.loc[name, "value"], abs=float(error))
        assert (r"\mathbf" in row) == bold
    Path("study/rmse.csv").rename("kept.csv")
    for name in ("scores", "times"):
        Path(f"study/{name}.csv").unlink()
    assert "rmse.png exists" in run("compare", "study.toml", *options, status=2).stderr
    assert (
        "formats must be among"
        in run("compare", "study.toml", "--force", "--figure", "--formats", "eps", status=2).stderr
    )


@pytest.mark.filterwarnings("default:afa failed in every cell:RuntimeWarning")
def test_compare_reports_failures(run: Run) -> None:
    failing = STUDY.replace(
        "[scenarios", '[estimators.afa]\nfunction = "adaptive_filter"\n[scenarios'
    )
    failing = failing.replace('preset = "spiral"', 'preset = "spiral"\nobs_var = 0.0')
    Path("study.toml").write_text(failing)
    result = run("compare", "study.toml", status=1)
    assert "FAILED: afa in spiral, ring (seeds: 2): " in result.stdout
    assert Path("study/scores.csv").exists()


# ----------------------------------------------------------------------------------------- figures

GOOD = '''"""good: draws nothing much."""
def main(out_dir, *, full=False, n_jobs=1):
    path = out_dir / "good.txt"
    path.write_text(f"{full} {n_jobs}")
    return [path]
'''
BAD = '"""bad: fails."""\ndef main(out_dir, *, full=False, n_jobs=1):\n    1 / 0\n'


@pytest.fixture
def checkout(run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path("simulations")
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "_common.py").touch()
    (folder / "good.py").write_text(GOOD)
    (folder / "bad.py").write_text(BAD)
    for name in [name for name in sys.modules if name.split(".")[0] == "simulations"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(Path.cwd()), *sys.path])
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "simulations"]:
        del sys.modules[name]


@pytest.mark.usefixtures("checkout")
def test_figures_go_on_after_a_failure(run: Run) -> None:
    result = run("figures", "--jobs", 2, "--full", status=1)
    assert Path("figures/good.txt").read_text() == "True 1"
    assert "bad: FAILED (ZeroDivisionError" in result.stdout
    assert "1 of 2 experiments failed: bad" in result.stdout
    assert [p.name for p in Path("figures").iterdir()] == ["good.txt"]
    assert "figures/good.txt exists already" in run("figures", "good", status=2).stderr
    run("figures", "good", "--force", "--jobs", 2)
    assert Path("figures/good.txt").read_text() == "False 2"


@pytest.mark.usefixtures("checkout")
def test_figures_are_listed_and_named(run: Run) -> None:
    lines = run("figures", "--list").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["bad", "fails."],
        ["good", "draws", "nothing", "much."],
    ]
    assert "did you mean 'good'" in run("figures", "goood", status=2).stderr


def test_the_repository_has_experiments_with_a_summary_each() -> None:
    from afafilter.cli.figures import find_experiments

    experiments = find_experiments()
    assert "first_figure" in [e.name for e in experiments]
    assert all(e.summary for e in experiments)


# --------------------------------------------------------------------------------------- bad input

SPIRAL = ["--model", "spiral.toml"]
ONE = ["--model", str(DATA / "nile.toml")]
BAD_INPUT: dict[str, tuple[list[Any], str]] = {
    "no command": ([], "Usage"),
    "unknown command": (["simulat"], "No such command"),
    "unknown option": (["simulate", "spiral.toml", "--m", 3], "No such option"),
    "no model file": (["simulate", "absent.toml", "--n", 3], "absent.toml: No such file"),
    "model not TOML": (["simulate", "d.csv", "--n", 3], "not valid TOML"),
    "unknown key": (["simulate", "typo.toml", "--n", 3], "did you mean 'decay'"),
    "no times": (["simulate", "spiral.toml"], "either --n"),
    "both times": (["simulate", "spiral.toml", "--n", 3, "--times", "d.csv"], "either --n"),
    "no count": (["simulate", "spiral.toml", "--n", 0], "--n"),
    "count no number": (["simulate", "spiral.toml", "--n", "x"], "--n"),
    "backward": (["simulate", "spiral.toml", "--n", 3, "--dt", -1], "--dt must be >= 0"),
    "infinite": (["simulate", "spiral.toml", "--n", 3, "--dt", "inf"], "must be finite"),
    "negative rate": (["simulate", "spiral.toml", "--n", 3, "--outlier-rate", -1], "rate must be"),
    "unknown law": (
        ["simulate", "spiral.toml", "--n", 3, "--outlier-rate", 0.1, "--outlier-law", "x"],
        "law must be one of",
    ),
    "scale alone": (["simulate", "spiral.toml", "--n", 3, "--outlier-scale", 2], "--outlier-rate"),
    "missing rate": (["simulate", "spiral.toml", "--n", 3, "--missing", 2], "missing must be"),
    "x0": (["simulate", "spiral.toml", "--n", 3, "--x0", "a,b"], "--x0 must be numbers"),
    "x0 shape": (["simulate", "spiral.toml", "--n", 3, "--x0", "1"], "x0 must have shape"),
    "diffuse": (["simulate", DATA / "nile.toml", "--n", 3], "prior is diffuse: nothing"),
    "suffix": (["simulate", "spiral.toml", "--n", 3, "-o", "x.xls"], "must end in one of"),
    "directory": (["simulate", "spiral.toml", "--n", 3, "-o", "no/x.csv"], "no such directory"),
    "no data file": (["estimate", "absent.csv", *ONE], "absent.csv: No such file"),
    "empty file": (["estimate", "empty.csv", *ONE], "the file is empty"),
    "no column": (["estimate", "d.csv", *ONE, "--values", "y"], "no column 'y'; the columns are"),
    "no time": (["estimate", "d.csv", *ONE, "--time", "when"], "no column 'when'"),
    "duplicates": (["estimate", "twice.csv", *ONE], "two columns are called 'x'"),
    "unparsable": (["estimate", "words.csv", *ONE], "line 3: x must be a number, got 'abc'"),
    "unsorted": (["estimate", "unsorted.csv", *ONE], "line 3: time 0 comes after 1"),
    "too many values": (["estimate", "three.csv", *ONE], "observes 1 component, but there are 2"),
    "estimator": (["estimate", "d.csv", *ONE, "--estimator", "kalmn"], "did you mean 'kalman'"),
    "weight": (["estimate", "d.csv", *ONE, "--weight", "cauchy"], "weight must be one of"),
    "weight parameter": (["estimate", "d.csv", *ONE, "--weight", "imq", "--nu", 4], "takes"),
    "parameter alone": (["estimate", "d.csv", *ONE, "--nu", 4], "--nu needs --weight"),
    "option": (["estimate", "d.csv", *ONE, "--set", "windw=3"], "unknown key 'windw'"),
    "setting": (["estimate", "d.csv", *ONE, "--set", "window"], "KEY=VALUE"),
    "method": (
        ["estimate", "d.csv", *ONE, "--estimator", "afa", "--set", "method=x"],
        "method must be",
    ),
    "query": (["estimate", "d.csv", *ONE, "--query-times", "soon"], "times must be numbers"),
    "query range": (["estimate", "d.csv", *ONE, "--query-times", "3:1:1"], "go upwards"),
    "forecast": (["estimate", "d.csv", *ONE, "--forecast", -1], "--forecast"),
    "errors": (["estimate", "d.csv", *ONE, "--errors", "x"], "errors (--errors) need values"),
    "error bars": (
        ["estimate", "three.csv", *ONE, "--values", "x", "--errors", "y"],
        "must be positive",
    ),
    "figure": (["estimate", "d.csv", *ONE, "--figure", "a.txt"], "must end in .png"),
    "time unit": (["estimate", "d.csv", *ONE, "--time-unit", "M"], "time_unit must be one of"),
    "names": (["estimate", "d.csv", *ONE, "--values", "a,,b"], "list of names"),
    "no query": (
        ["estimate", "d.csv", *ONE, "--estimator", "raw", "--set", "weight=1"],
        "key 'weight'",
    ),
    "no header": (["estimate", "bare.csv", *ONE], "bare.csv, line 1: a header"),
    "no header, dates": (["estimate", "dates.csv", *ONE], "dates.csv, line 1: a header"),
    "anchor alone": (["estimate", "d.csv", *ONE, "--anchor", "x"], "--anchor needs --weight"),
    "rounds alone": (["estimate", "d.csv", *ONE, "--iterations", 3], "--iterations needs --weight"),
    "far": (["estimate", "d.csv", *ONE, "--forecast", "1e9"], "--forecast asks for 1e+09 times"),
    "endless": (["estimate", "d.csv", *ONE, "--forecast", "inf"], "--forecast asks for"),
    "many": (["estimate", "d.csv", *ONE, "--query-times", "0:1e12:1e-3"], "asks for 1e+15 times"),
    "step": (["estimate", "d.csv", *ONE, "--query-times", "0:1:x"], "a number as STEP"),
    "nothing to fit": (["fit", "d.csv"], "either --model or --family"),
    "family": (["fit", "d.csv", "--family", "brownan + noise"], "did you mean 'brownian'"),
    "no family": (["fit", "d.csv", "--family", "noise + exit.now()"], "names joined by +"),
    "no sum": (["fit", "d.csv", "--family", "noise +"], "names joined by +"),
    "family argument": (["fit", "d.csv", "--family", "seasonal(x) + noise"], "family 'seasonal'"),
    "family arguments": (
        ["fit", "d.csv", "--family", "brownian(rate=3) + noise"],
        "family 'brownian' takes (dim=1, diagonal=False), got brownian(rate=3)",
    ),
    "family signature": (
        ["fit", "d.csv", "--family", "seasonal + noise"],
        "family 'seasonal' takes (period, harmonics=1, dim=1, diagonal=False), got seasonal",
    ),
    "no state": (["fit", "d.csv", "--family", "noise"], "no state that moves: add a component"),
    "no states": (["fit", "d.csv", "--family", "constant + noise"], "no state that moves"),
    "noises": (["fit", "d.csv", "--family", "noise + noise"], "no state that moves"),
    "weight table": (
        ["estimate", "d.csv", *ONE, "--set", 'weight={nam="imq",c=2}'],
        "did you mean 'name'",
    ),
    "too few": (["fit", "d.csv", "--family", "brownian + noise"], "too few"),
    "fit method": (["fit", "d.csv", *ONE, "--method", "magic"], "method must be one of"),
    "no study": (["compare", "absent.toml"], "absent.toml: No such file"),
    "empty study": (["compare", "spiral.toml"], "unknown key 'model'"),
    "unknown estimator": (["compare", "study.toml", "--reference", "x"], "--reference must be one"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_status_2(run: Run, case: str) -> None:
    files = {
        "typo.toml": '[model]\npreset = "spiral"\ndecy = 1\n', "study.toml": STUDY,
        "d.csv": "t,x\n0,1\n1,2\n", "empty.csv": "", "twice.csv": "t,x,x\n0,1,2\n",
        "words.csv": "t,x\n0,1\n1,abc\n", "unsorted.csv": "t,x\n1,1\n0,2\n",
        "bare.csv": "0,1.5\n1,2\n", "dates.csv": "2020-01-01,\n2020-01-02,2\n",
        "three.csv": "t,x,y\n0,1,0\n1,2,3\n",
    }  # fmt: skip
    for name, text in files.items():
        Path(name).write_text(text)
    arguments, message = BAD_INPUT[case]
    before = sorted(Path.cwd().rglob("*"))
    result = run(*arguments, status=2)
    assert result.stdout == ""
    assert message in result.stderr
    if arguments:
        assert len(result.stderr.splitlines()) == 1
    assert sorted(Path.cwd().rglob("*")) == before


def test_existing_files_are_kept_without_force(run: Run) -> None:
    arguments = ("simulate", "spiral.toml", "--n", 3, "--seed", 1, "-o", "d.csv")
    run(*arguments)
    Path("d.csv").write_text("mine")
    assert "d.csv exists already; --force" in run(*arguments, status=2).stderr
    assert Path("d.csv").read_text() == "mine"
    Path("d.csv").unlink()
    assert "d.config.json exists already" in run(*arguments, status=2).stderr
    run(*arguments, "--force")
    assert len(pd.read_csv("d.csv")) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("estimate", "d.csv", "--model", "m.toml", "-o", "d.csv"),
        ("estimate", "d.csv", "--model", "m.toml", "-o", "../here/d.csv"),
        ("fit", "d.csv", "--model", "m.toml", "-o", "m.toml"),
        ("fit", "d.csv", "--family", "brownian + noise", "-o", "d.toml"),
        ("simulate", "m.toml", "--times", "d.csv", "-o", "d.csv"),
    ],
)
def test_no_command_overwrites_its_input(
    run: Run, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("here").mkdir()
    monkeypatch.chdir("here")
    files = {"d.csv": "t,x\n0,1\n1,2\n2,1\n3,5\n", "m.toml": '[model]\npreset = "brownian"\n'}
    for name, text in files.items():
        Path(name).write_text(text)
    result = run(*arguments, "--force", status=2)
    assert "is read as input" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert {path.name: path.read_text() for path in Path().iterdir()} == files


def test_internal_errors_have_status_1_and_debug_shows_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def broken() -> None:
        raise KeyError("lost")

    monkeypatch.setitem(main.commands, "broken", broken)
    result = runner().invoke(main, ["broken"])
    assert result.exit_code == 1
    assert "internal error: KeyError" in result.stderr
    assert isinstance(runner().invoke(main, ["--debug", "broken"]).exception, KeyError)


def test_help_has_examples(run: Run) -> None:
    for command in ("simulate", "estimate", "fit", "compare", "figures", "completion"):
        assert f"afafilter {command} " in run(command, "--help").stdout
    assert "afafilter, version" in run("--version").stdout


def test_help_shows_the_toml_formats(run: Run) -> None:
    for command in ("simulate", "estimate", "fit", "report"):
        assert "[[model.sum]]" in run(command, "--help").stdout
    assert "[scenarios.ring]" in run("compare", "--help").stdout
    assert "::" not in run("simulate", "--help").stdout


def test_as_a_real_process(tmp_path: Path) -> None:
    """No traceback, one line, nothing on stdout; and a good run says where it wrote."""
    command = [sys.executable, "-m", "afafilter.cli"]

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    bad = call("estimate", "absent.csv", "--model", "absent.toml")
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr == "afafilter: absent.toml: No such file or directory\n"
    good = call("estimate", str(DATA / "nile.csv"), "--model", str(DATA / "nile.toml"))
    assert good.returncode == 0, good.stderr
    assert good.stderr == ""
    assert "wrote nile-kalman.csv (100 rows)" in good.stdout


# ------------------------------------------------------------------------------------------- words


def test_help_completion_and_page_know_every_estimator_and_weight(run: Run) -> None:
    assert tuple(CATALOG) == options.ESTIMATORS
    assert set(options.WEIGHTS) == set(weights._NAMES)
    told = " ".join(run("estimate", "--help").output.split())
    page = (Path(__file__).parents[2] / "docs" / "command.rst").read_text()
    parameters = {field.name for kind in weights._NAMES.values() for field in fields(kind)}
    assert parameters == set(WEIGHT_PARAMETERS)
    assert all(f"--{name} " in told for name in parameters)
    for word in (*CATALOG, *options.WEIGHTS):
        assert re.search(rf"\b{word}\b", told), word
        assert f"``{word}``" in page, word
