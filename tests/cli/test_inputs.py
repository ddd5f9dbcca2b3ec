"""Columns of known inputs, discrete models in files, bounds and densities: by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from afafilter import (
    DiscreteModel,
    LinearSDE,
    Prior,
    brownian,
    families,
    fit,
    hold_out,
    io,
    kalman_filter,
)
from afafilter.cli import main
from afafilter.io import read_model, write_model
from tests.cli import runner

RNG = np.random.default_rng(5)
N = 80
TEMP = RNG.normal(size=N)
Z = 0.5 * np.cumsum(RNG.normal(size=N)) + 2.0 * TEMP + RNG.normal(size=N)
Z[70:] = np.nan
DISCRETE = '[model]\nF = [[1.0]]\nQ = [[0.25]]\nH = [[1.0]]\nR = [[1.0]]\nprior = "diffuse"\n'
LEVEL = "brownian + noise"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"t": np.arange(N), "z": Z, "temp": TEMP}).to_csv("x.csv", index=False)
    Path("hole.csv").write_text("t,z,temp\n0,1,1\n1,2,\n2,3,1\n")
    Path("d.toml").write_text(DISCRETE)
    Path("clock.csv").write_text("Day,Clock,z\n2024-03-01,06:00:00,1\n2024-03-02,06:00:00,2\n")
    return tmp_path


def run(*arguments: Any, status: int = 0) -> Result:
    result = runner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == status, result.output
    return result


@pytest.mark.usefixtures("folder")
def test_an_input_is_fitted_kept_by_name_and_used() -> None:
    run("fit", "x.csv", "--family", LEVEL, "--input", "temp", "-o", "m.toml")
    t = np.arange(float(N))
    wanted = fit(LEVEL, t, Z, inputs={"temp": TEMP})
    table = pd.read_csv("m.csv").set_index("parameter")["value"]
    np.testing.assert_allclose(table[list(wanted.params)], list(wanted.params.values()), rtol=1e-6)
    model = read_model("m.toml")
    assert model.forcing.names == ("temp",)
    with pytest.raises(ValueError, match=r"inputs \(temp\) have no values yet"):
        kalman_filter(model, t, Z)
    run("estimate", "x.csv", "--model", "m.toml", "--values", "z", "-o", "e.csv")
    found = kalman_filter(wanted.model, t, Z)
    shown = pd.read_csv("e.csv")
    np.testing.assert_allclose(shown["z_fit"], found.observed().mean[:, 0], rtol=1e-6)
    said = run("compare", "x.csv", "--hold-out", "--model", "m.toml", "--estimators", "rts",
               "--kinds", "random", "-o", "h.csv")  # fmt: skip
    assert "rts" in said.stdout
    ahead = run("estimate", "x.csv", "--model", "m.toml", "--forecast", 2, "-o", "f.csv")
    assert "keep their last value" in ahead.stderr


@pytest.mark.usefixtures("folder")
def test_bounds_and_densities_by_the_command() -> None:
    bound = ["--bound", "obs_var=3:", "--prior", "process_var=lognormal:0.1:0.2"]
    run("fit", "x.csv", "--family", LEVEL, "--values", "z", *bound, "-o", "m.toml")
    wanted = fit(
        LEVEL,
        np.arange(float(N)),
        Z,
        bounds={"obs_var": (3.0, None)},
        priors={"process_var": families.LogNormal(0.1, 0.2)},
    )
    table = pd.read_csv("m.csv").set_index("parameter")["value"]
    np.testing.assert_allclose(table[list(wanted.params)], list(wanted.params.values()), rtol=1e-6)


@pytest.mark.usefixtures("folder")
def test_a_discrete_model_from_a_file() -> None:
    run("estimate", "x.csv", "--model", "d.toml", "--values", "z", "-o", "e.csv")
    model = DiscreteModel([[1.0]], Q=[[0.25]], H=[[1.0]], R=[[1.0]], prior="diffuse")
    wanted = kalman_filter(model, Z[:, None])
    np.testing.assert_allclose(pd.read_csv("e.csv")["x0"], wanted.mean[:, 0], rtol=1e-12)
    run("fit", "x.csv", "--model", "d.toml", "--values", "z", "--free", "Q,R", "-o", "f.toml")
    found = fit(model, None, Z[:, None], free=["Q", "R"])
    np.testing.assert_allclose(read_model("f.toml").R, found.model.R, rtol=1e-6)
    run("simulate", "d.toml", "--n", 5, "--x0", 1, "-o", "s.csv")
    assert len(pd.read_csv("s.csv")) == 5


@pytest.mark.usefixtures("folder")
def test_a_discrete_model_forecasts_and_is_compared() -> None:
    run("estimate", "x.csv", "--model", "d.toml", "--values", "z", "--forecast", 3, "-o", "e.csv")
    found = pd.read_csv("e.csv")
    model = DiscreteModel([[1.0]], Q=[[0.25]], H=[[1.0]], R=[[1.0]], prior="diffuse")
    last = kalman_filter(model, Z[:, None])
    ahead = found[found["forecast"] == 1]
    assert len(found) == len(Z) + 3
    np.testing.assert_allclose(ahead["x0"], last.mean[-1, 0], rtol=1e-12)
    var = last.cov[-1, 0, 0] + 0.25 * np.arange(1, 4)
    np.testing.assert_allclose(ahead["z_fit_sd"], np.sqrt(var), rtol=1e-12)
    np.testing.assert_allclose(ahead["z_obs_sd"], np.sqrt(var + 1.0), rtol=1e-12)
    words = ["--hold-out", "--values", "z", "--estimators", "kalman,rts", "-o", "h.csv"]
    run("compare", "x.csv", *words, "--model", "d.toml")
    # The same law as a random walk in continuous time, where the rows lie one unit apart.
    scores = hold_out(["kalman", "rts"], brownian(0.25, 1.0), np.arange(len(Z)), Z, rng=0)
    np.testing.assert_allclose(pd.read_csv("h.csv")["nlpd"], scores.frame["nlpd"], rtol=1e-9)


@pytest.mark.usefixtures("folder")
def test_discrete_models_are_asked_at_rows_and_steps_after_them() -> None:
    words = ["estimate", "x.csv", "--model", "d.toml", "--values", "z", "--query-times", "3,79,81"]
    run(*words, "-o", "q.csv")
    model = DiscreteModel([[1.0]], Q=[[0.25]], H=[[1.0]], R=[[1.0]], prior="diffuse")
    want = kalman_filter(model, np.append(Z, [np.nan, np.nan])[:, None])
    found = pd.read_csv("q.csv")
    np.testing.assert_allclose(found["x0"], want.mean[[3, 79, 81], 0], rtol=1e-12)
    np.testing.assert_allclose(found["x0_sd"], want.std[[3, 79, 81], 0], rtol=1e-12)
    assert list(found["forecast"]) == [0, 0, 1]


@pytest.mark.usefixtures("folder")
def test_a_forecast_stands_below_measurements_and_weights() -> None:
    write_model(brownian(0.15, 0.27), Path("m.toml"))
    run("estimate", "x.csv", "--model", "m.toml", "--values", "z", "--estimator", "irks",
        "--weight", "student_t", "--nu", 4, "--forecast", 2, "-o", "f.csv")  # fmt: skip
    run("estimate", "x.csv", "--model", "m.toml", "--values", "z", "--estimator", "irks",
        "--weight", "student_t", "--nu", 4, "-o", "e.csv")  # fmt: skip
    found, alone = pd.read_csv("f.csv"), pd.read_csv("e.csv")
    assert list(found["forecast"]) == [0] * N + [1, 1]
    for name in ("z", "weight", "outlier", "z_obs_sd"):
        np.testing.assert_allclose(found[name][:N], alone[name], rtol=1e-12)
    assert found[["z", "weight"]][N:].isna().all(axis=None)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_the_tools_own_files_go_round_without_options(suffix: str) -> None:
    """simulate -> estimate -> estimate, fit, compare: the same measurements each time."""
    write_model(brownian(0.15, 0.27), Path("m.toml"))
    run("simulate", "m.toml", "--n", 40, "--paths", 2, "--x0", "0", "--missing", 0.1,
        "--seed", 1, "-o", f"s{suffix}")  # fmt: skip
    run("estimate", f"s{suffix}", "--model", "m.toml", "--levels", 90, "-o", f"e{suffix}")
    run("estimate", f"e{suffix}", "--model", "m.toml", "--levels", 90, "-o", f"again{suffix}")
    run("fit", f"s{suffix}", "--family", LEVEL, "-o", "a.toml")
    run("fit", f"e{suffix}", "--family", LEVEL, "-o", "b.toml")
    first, second = (pd.read_csv(name)["value"] for name in ("a.csv", "b.csv"))
    np.testing.assert_allclose(first, second, rtol=1e-9)
    one, two = (pd.DataFrame(columns_of(f"{name}{suffix}")) for name in ("e", "again"))
    pd.testing.assert_frame_equal(one, two)
    words = ["--hold-out", "--model", "m.toml", "--estimators", "rts"]
    run("compare", f"e{suffix}", *words, "--path", 1, "-o", "h.csv")
    said = run("compare", f"e{suffix}", *words, "-o", "i.csv", status=2).stderr
    assert "one path: --path must be one of 0, 1" in said


def columns_of(name: str) -> Any:
    """A file of results as it is."""
    if name.endswith("csv"):
        return pd.read_csv(name)
    return pd.read_parquet(name) if name.endswith("parquet") else pd.read_json(name, lines=True)


@pytest.mark.usefixtures("folder")
def test_estimates_of_dated_tracks_are_read_again() -> None:
    write_model(brownian(0.15, 0.27), Path("m.toml"))
    text = "who,t,z\n" + "".join(
        f"{who},2024-01-{k:02}T06:00:00+01:00,{k % 3 + len(who)}\n"
        for who in ("a", "bb") for k in (1, 2, 4))  # fmt: skip
    Path("two.csv").write_text(text)
    run("estimate", "two.csv", "--by", "who", "--model", "m.toml", "--forecast", 2, "-o", "e.csv")
    run("estimate", "e.csv", "--model", "m.toml", "-o", "f.csv")
    first, second = pd.read_csv("e.csv"), pd.read_csv("f.csv")
    assert list(first["t"]) == list(second["t"])
    np.testing.assert_allclose(first["z_fit"], second["z_fit"], rtol=1e-12)
    assert list(first["who"]) == list(second["who"])


@pytest.mark.usefixtures("folder")
def test_a_warning_about_many_pieces_is_said_once() -> None:
    write_model(brownian(0.15, 0.27), Path("m.toml"))
    said = run("compare", "x.csv", "--hold-out", "--model", "m.toml", "--values", "z",
               "--estimators", "afa", "-o", "h.csv").stderr  # fmt: skip
    assert said.count("critical length") == 1


@pytest.mark.usefixtures("folder")
def test_paths_that_share_an_input_are_fitted_together_others_are_not() -> None:
    both = np.stack([Z, Z + np.random.default_rng(0).normal(size=N)])
    frame = pd.DataFrame({"track": np.repeat(["a", "b"], N), "t": np.tile(np.arange(N), 2),
                          "z": both.ravel(), "temp": np.tile(TEMP, 2)})  # fmt: skip
    frame.to_csv("two.csv", index=False)
    words = ["--family", LEVEL, "--by", "track", "--input", "temp"]
    run("fit", "two.csv", *words, "-o", "m.toml")
    wanted = fit(LEVEL, np.arange(float(N)), both[..., None], inputs={"temp": TEMP})
    table = pd.read_csv("m.csv").set_index("parameter")["value"]
    np.testing.assert_allclose(table[list(wanted.params)], list(wanted.params.values()), rtol=1e-5)
    frame.loc[3, "temp"] += 1.0
    frame.to_csv("two.csv", index=False)
    said = run("fit", "two.csv", *words, "-o", "n.toml", status=2).stderr
    assert "where they differ fit one path at a time" in said


@pytest.mark.usefixtures("folder")
def test_a_report_fits_the_effect_of_an_input() -> None:
    pytest.importorskip("plotly")
    run("report", "x.csv", "--input", "temp", "--family", LEVEL, "-o", "r.html")
    effect = fit(LEVEL, np.arange(float(N)), Z, inputs={"temp": TEMP}).params["temp"]
    assert f"{effect:.4g}" in Path("r.html").read_text()


@pytest.mark.parametrize("varying", [(), ("F", "b"), ("d",)])
def test_discrete_models_go_round(tmp_path: Path, varying: tuple[str, ...]) -> None:
    lead: dict[str, tuple[int, ...]] = dict.fromkeys(varying, (4,))
    arrays = {
        name: RNG.normal(size=(*lead.get(name, ()), *shape))
        for name, shape in {"F": (2, 2), "H": (1, 2), "b": (2,), "d": (1,)}.items()
    }
    model = DiscreteModel(
        **arrays, Q=np.eye(2), R=[[0.3]], prior=Prior([1.0, 2.0], np.eye(2)), time_varying=varying
    )
    back = read_model(write_model(model, tmp_path / "m.toml"))
    for name in ("F", "Q", "H", "R", "b", "d"):
        np.testing.assert_array_equal(getattr(back, name), getattr(model, name))
    assert back.time_varying == varying


BAD: dict[str, tuple[list[Any], str]] = {
    "hole": (["fit", "hole.csv", "--family", LEVEL, "--input", "temp"],
             "line 3: input 'temp' has no value"),
    "no column": (["fit", "x.csv", "--family", LEVEL, "--input", "tmp"], "no column 'tmp'"),
    "twice": (["fit", "x.csv", "--family", LEVEL, "--values", "z,temp", "--input", "temp"],
              "column 'temp' is asked for twice"),
    "no inputs": (["estimate", "x.csv", "--model", "d.toml", "--values", "z", "--input", "temp"],
                  "the model has no inputs"),
    "bound": (["fit", "x.csv", "--family", LEVEL, "--values", "z", "--bound", "obs_var"],
              "NAME=LOW:HIGH"),
    "bound order": (["fit", "x.csv", "--family", LEVEL, "--values", "z", "--bound",
                     "obs_var=2:1"], "must be low < high"),
    "bound name": (["fit", "x.csv", "--family", LEVEL, "--values", "z", "--bound", "rate=1:2"],
                   "bounds must name process_var, obs_var"),
    "prior": (["fit", "x.csv", "--family", LEVEL, "--values", "z", "--prior", "obs_var=gamma:1:2"],
              "lognormal:MEDIAN:SIGMA"),
    "prior width": (["fit", "x.csv", "--family", LEVEL, "--values", "z", "--prior",
                     "obs_var=normal:1:-2"], "sd must be > 0"),
    "em": (["fit", "x.csv", "--family", LEVEL, "--input", "temp", "--method", "em"],
           "method 'em' takes no inputs"),
    "clock": (["fit", "clock.csv", "--family", LEVEL], "--time DATE,CLOCK reads a date"),
    "discrete query": (["estimate", "x.csv", "--model", "d.toml", "--values", "z",
                        "--query-times", "1,2.5"], "2.5 lies between rows, and a DiscreteModel"),
    "A and F": (["estimate", "x.csv", "--model", "af.toml"], "unknown key 'A'"),
    "no H": (["estimate", "x.csv", "--model", "h.toml"], "key 'H' is missing"),
    "sum of F": (["estimate", "x.csv", "--model", "sum.toml"], "cannot be part of a sum"),
    "forcing": (["estimate", "x.csv", "--model", "w.toml"], "forcing: either t and u, or names"),
    "forcing key": (["estimate", "x.csv", "--model", "k.toml"], "forcing: unknown key 'gain'"),
    "forcing rows": (["estimate", "x.csv", "--model", "r.toml"], "one row for each of the 1 obs"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_one_line_and_nothing_written(case: str) -> None:
    sde = "[model]\nA = [[-1.0]]\nQ = [[1.0]]\nR = [[1.0]]\n"
    files = {
        "af.toml": DISCRETE + "A = [[1.0]]\n",
        "h.toml": DISCRETE.replace("H = [[1.0]]\n", ""),
        "sum.toml": DISCRETE.replace("[model]", "[[model.sum]]"),
        "w.toml": sde + "forcing = { direct = [[1.0]] }\n",
        "k.toml": sde + 'forcing = { names = ["temp"], gain = [[1.0]] }\n',
        "r.toml": sde + 'forcing = { names = ["temp"], direct = [[1.0], [2.0]] }\n',
    }
    for name, text in files.items():
        Path(name).write_text(text)
    arguments, message = BAD[case]
    before = sorted(Path.cwd().rglob("*"))
    result = run(*arguments, status=2)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(Path.cwd().rglob("*")) == before


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "option", "why"),
    [
        (["--hold-out", "--style", "ieee"], "--style", "goes with a study"),
        (["--hold-out", "--latex"], "--latex", "goes with a study"),
        (["--hold-out", "--reference", "kalman"], "--reference", "goes with a study"),
        (["--hold-out", "--plan"], "--plan", "goes with a study"),
        (["--plan", "--figure"], "--figure", "says nothing of a plan"),
        (["--kinds", "random"], "--kinds", "goes with --hold-out"),
        (["--seed", "0"], "--seed", "goes with --hold-out"),
        (["--model", "m.toml"], "--model", "goes with --hold-out"),
        (["--sep", ";"], "--sep", "goes with --hold-out"),
    ],
)
def test_options_of_the_other_comparison_are_not_ignored(
    words: list[str], option: str, why: str
) -> None:
    said = run("compare", "x.csv", *words, status=2).stderr
    assert f"{option} {why}" in said
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("folder")
def test_units_go_with_the_values_into_parquet_and_back() -> None:
    pytest.importorskip("pyarrow")
    write_model(brownian(0.15, 0.27), Path("m.toml"))
    Path("u.csv").write_text("t;T;p\ns;degC;\n0;1,5;1\n1;2,5;2\n2;2,5;3\n")
    words = ["--model", "m.toml", "--values", "T", "--estimator", "irks", "--nu", 3]
    run("estimate", "u.csv", *words, "-o", "e.parquet")
    config = io.read_metadata("e.parquet")["config"]
    assert config["units"] == {"T": "degC"}
    assert config["options"]["weight"]["nu"] == 3
    assert io.read_series("e.parquet").units == "degC"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("estimator", ["kalman", "afa"])
@pytest.mark.parametrize("discrete", [False, True])
def test_a_sum_of_levels_that_are_not_told_apart(estimator: str, discrete: bool) -> None:
    """The signal of their sum is that of one level with both noises."""
    two = {"Q": np.diag([0.1, 0.2]), "R": [[1.0]], "prior": "diffuse"}
    one = {"Q": [[0.3]], "R": [[1.0]], "prior": "diffuse"}
    if discrete:
        write_model(DiscreteModel(np.eye(2), H=[[1.0, 1.0]], **two), "two.toml")
        write_model(DiscreteModel([[1.0]], H=[[1.0]], **one), "one.toml")
    else:
        write_model(LinearSDE(np.zeros((2, 2)), C=[[1.0, 1.0]], **two), "two.toml")
        write_model(LinearSDE([[0.0]], C=[[1.0]], **one), "one.toml")
    given = ["--values", "z", "--estimator", estimator]
    for k, more in enumerate((["--forecast", 2], ["--query-times", "3,20,78,81"])):
        for name in ("one", "two"):
            run(
                "estimate",
                "x.csv",
                "--model",
                f"{name}.toml",
                *given,
                *more,
                "-o",
                f"{name}{k}.csv",
            )
        found, wanted = (pd.read_csv(f"{name}{k}.csv") for name in ("two", "one"))
        assert found["x0"].isna().all()
        columns = ["z_fit", "z_fit_sd", "z_obs_sd"]
        assert np.isfinite(wanted[columns].to_numpy()).all()
        np.testing.assert_allclose(found[columns], wanted[columns], rtol=1e-9)
