"""The command fits every path by itself: numbers against `fit` of each, files, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from afafilter import fit, io
from afafilter.cli import main
from afafilter.cli.fit import _file_names
from tests.cli import runner

LABELS = ("a", "b/1", "flat")


@pytest.fixture
def tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple]:
    """Three paths, each with times of its own, in tracks.csv; the last one never moves."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    rows, own = [], {}
    for k, label in enumerate(LABELS):
        t = 10.0 * k + np.delete(np.arange(60.0), [7 + k, 20])
        x = np.cumsum(rng.standard_normal(len(t))) + (1.0 + k) * rng.standard_normal(len(t))
        z = np.ones(len(t)) if label == "flat" else x
        own[label] = t, z
        rows += [(label, *pair) for pair in zip(t, z)]
    pd.DataFrame(rows, columns=["track", "t", "y"]).to_csv("tracks.csv", index=False)
    return own


def run(*words: str, status: int = 0) -> Result:
    result = runner().invoke(main, ["fit", "tracks.csv", "--by", "track", "--each", *words])
    assert result.exit_code == status, result.output
    return result


FAMILY = "--family", "brownian + noise"


def test_every_path_has_the_fit_that_it_has_alone(tracks: dict[str, tuple]) -> None:
    said = run(*FAMILY, "-o", "fits.csv", status=1)  # the flat one cannot be fitted
    assert "3 series" in said.stdout
    table = pd.read_csv("fits.csv").set_index("track")
    assert list(table.index) == list(LABELS)
    for label in LABELS[:2]:
        t, z = tracks[label]
        alone = fit("brownian + noise", t, z)
        row = table.loc[label]
        for name, value in alone.params.items():
            assert row[name] == pytest.approx(value, rel=1e-3)
            assert row[f"{name}_std_error"] == pytest.approx(alone.std_errors[name], rel=1e-2)
        assert row["loglik"] == pytest.approx(alone.loglik, abs=1e-5)
        assert row["converged"]
        model = io.read_model(row["model"])
        assert model.R[0, 0] == pytest.approx(row["obs_var"], rel=1e-12)
    assert sorted(path.name for path in Path("fits").iterdir()) == ["a.toml", "b_1.toml"]
    assert not table.loc["flat", "converged"]
    assert pd.isna(table.loc["flat", "model"])
    config = json.loads(Path("fits.config.json").read_text())["config"]
    assert config["start"] == "brownian + noise"


def test_bounds_hold_for_every_path(tracks: dict[str, tuple]) -> None:
    run(*FAMILY, "--bound", "obs_var=0.1:0.5", "-o", "fits.csv", status=1)
    table = pd.read_csv("fits.csv").set_index("track")
    assert (table.loc[["a", "b/1"], "obs_var"] <= 0.5 * (1 + 1e-12)).all()


def test_without_paths_or_over_files_it_refuses(tracks: dict[str, tuple]) -> None:
    words = ["fit", "tracks.csv", "--each", *FAMILY]
    alone = runner().invoke(main, words)
    assert alone.exit_code == 2
    assert "--by" in alone.stderr
    Path("fits.csv").write_text("kept")
    assert "fits.csv exists" in run(*FAMILY, "-o", "fits.csv", status=2).stderr
    assert Path("fits.csv").read_text() == "kept"
    assert "must end in" in run(*FAMILY, "-o", "fits.toml", status=2).stderr


def test_files_have_names_of_their_own() -> None:
    assert _file_names(["a", "A", "a/b", "a b", "..", ""]) == [
        "a.toml", "A-2.toml", "a_b.toml", "a_b-2.toml", "_.toml", "_-2.toml"
    ]  # fmt: skip


def test_models_of_an_earlier_run_are_kept_without_force_and_written_again_with_it(
    tracks: dict[str, tuple],
) -> None:
    given = *FAMILY, "-o", "fits.csv"
    run(*given, status=1)
    wanted = Path("fits/a.toml").read_text()
    Path("fits/a.toml").write_text("mine")
    for name in ("fits.csv", "fits.config.json"):
        Path(name).unlink()
    assert "a.toml exists already; --force overwrites it" in run(*given, status=2).stderr
    assert Path("fits/a.toml").read_text() == "mine"
    run(*given, "--force", status=1)
    assert Path("fits/a.toml").read_text() == wanted
    said = run("--model", "fits/a.toml", "-o", "fits.csv", "--force", status=2).stderr
    assert "a.toml is read as input and would be overwritten" in said
    Path("other").write_text("a file")
    assert "other is a file" in run(*FAMILY, "-o", "other.csv", "--force", status=2).stderr
