"""Estimators by name: the same names everywhere, and functions of one's own by import path."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from afafilter import Study, compare, hold_out, kalman_filter, rts_smoother, spiral
from afafilter.catalog import CATALOG, estimator_from_spec, functions

T = np.linspace(0.0, 2.0, 12)
OWN = """
from afafilter import kalman_filter

def shrunk(model, t, z, *, factor=1.0):
    return kalman_filter(model, t, z * factor)

def open_ended(model, t, z, **options):
    return kalman_filter(model, t, z, **options)

number = 3
"""
STUDY = """
[models.a]
preset = "spiral"
[estimators.kalman]
function = "kalman"
[estimators.mine]
function = "own_estimators:shrunk"
factor = 0.5
[scenarios.a]
t = [0.0, 0.1, 0.2]
n_paths = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_estimators.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", [*CATALOG, *functions()])
def test_names_of_the_catalogue_and_of_functions_run(name: str) -> None:
    model = spiral(prior="stationary")
    if name == "mixture_filter":
        with pytest.raises(ValueError, match="key 'outlier_rate' is missing"):
            estimator_from_spec(name)
        return
    z = np.sin(T)[:, None] * np.ones(2)
    struck = {"outlier_rate": 0.1, "outlier_scale": 10.0}
    options = struck if name in ("imm_filter", "particle_filter") else {}
    assert estimator_from_spec(name, options)(model, T, z).mean.shape == (12, 2)


def test_compare_takes_names() -> None:
    by_name = compare(["kalman", "rts"], spiral(), T, 6, rng=0)
    by_hand = compare({"kalman": kalman_filter, "rts": rts_smoother}, spiral(), T, 6, rng=0)
    assert by_name.names == ("kalman", "rts")
    wanted = by_hand.scores.query("metric != 'time'")
    got = by_name.scores.query("metric != 'time'")
    assert got.equals(wanted)
    mixed = compare(
        {"a": "irks", "b": partial(kalman_filter, weight="huber")}, spiral(), T, 4, rng=0
    )
    assert mixed.names == ("a", "b")
    assert not mixed.errors


def test_hold_out_takes_names() -> None:
    z = np.cos(3 * T)[:, None] * np.ones(2)
    found = hold_out(["kalman", "rts"], spiral(), T, z, kinds=["random"], rng=1)
    assert list(found.frame["estimator"]) == ["kalman", "rts"]


def test_an_import_path_leads_to_the_function(own: Path) -> None:
    bound = estimator_from_spec("own_estimators:shrunk", {"factor": 0.5}, allow_import=True)
    z = np.ones((12, 2))
    wanted = kalman_filter(spiral(), T, 0.5 * z).mean
    np.testing.assert_array_equal(bound(spiral(), T, z).mean, wanted)
    path = own / "study.toml"
    path.write_text(STUDY)
    result = Study.from_toml(path, allow_import=True).run(own / "cells", progress=False)
    assert len(result.errors) == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("own_estimators:shrunk", {"fator": 1.0}, "unknown key 'fator'.*did you mean 'factor'"),
        ("own_estimators:gone", {}, "has no attribute 'gone'"),
        ("own_estimators:", {}, "cannot be imported"),
        (":shrunk", {}, "cannot be imported"),
        ("absent_module:f", {}, "No module named 'absent_module'"),
        ("own_estimators:number", {}, "must be a function f"),
        ("kalmn", {}, "did you mean 'kalman'"),
        (3, {}, "must be a name, got 3"),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_cannot_be_followed_is_refused(name, options, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        estimator_from_spec(name, options, allow_import=True)


def test_import_paths_are_off_unless_allowed(own: Path) -> None:
    with pytest.raises(ValueError, match="--allow-import"):
        estimator_from_spec("own_estimators:shrunk")
    path = own / "study.toml"
    path.write_text(STUDY)
    with pytest.raises(ValueError, match=r"\[estimators.mine\]: function .*--allow-import"):
        Study.from_toml(path)


def test_options_of_any_name_go_to_a_function_that_takes_any(own: Path) -> None:
    bound = estimator_from_spec("own_estimators:open_ended", {"weight": "huber"}, allow_import=True)
    assert bound.keywords == {"weight": "huber"}


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        (spiral(), "estimators must be a dict .*the model comes after"),
        (["kalmn"], "did you mean 'kalman'"),
        ([3], "must be a function f"),
        ({"a": "own:f"}, "import it and give the function"),
        ([], "at least one estimator"),
    ],
)
def test_estimators_that_are_none(estimators, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        compare(estimators, spiral(), T, 3, rng=0)
