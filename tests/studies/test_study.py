"""Studies: the same numbers however they are run, killed and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import types
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

import afafilter
from afafilter import (
    DiscreteModel,
    Gaps,
    LinearSDE,
    Outliers,
    Scenario,
    Shell,
    Study,
    brownian,
    compare,
    theory,
)
from afafilter._version import __version__
from afafilter.studies import batch
from afafilter.studies.cells import FORMAT, cell_keys, describe
from tests.studies.small_study import (
    ESTIMATORS,
    MODELS,
    SCENARIOS,
    T,
    fails_when_quiet,
    make,
    raw,
    shrunk,
    spiral,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study run without interruption, one process."""
    return make().run(tmp_path_factory.mktemp("study"), progress=False)


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_the_grid_is_complete_and_in_order(finished):
    frame = finished.frame
    places = frame[["model", "scenario", "seed"]].drop_duplicates()
    expected = [(m, s, k) for m in MODELS for s in SCENARIOS for k in (0, 1)]
    assert list(places.itertuples(index=False, name=None)) == expected
    assert set(frame["estimator"]) == {"raw", "shrunk"}
    assert finished.unfinished == ()
    assert len(finished.errors) == 0
    assert (finished.times["seconds"] > 0).all()


def test_a_cell_is_a_comparison(finished):
    """Same numbers as `compare` with the cell's seed."""
    alone = compare(
        ESTIMATORS, MODELS["loud"], T, 20, rng=np.random.default_rng(1), x0=Shell(5.0, 1.0),
        outliers=Outliers(0.2), steps=slice(4, None), progress=False,
    )  # fmt: skip
    cell = finished.frame.query("model == 'loud' and scenario == 'outliers' and seed == 1")
    same(alone.scores, cell[alone.scores.columns].reset_index(drop=True))


def test_numbers_do_not_depend_on_jobs(finished, tmp_path):
    same(make().run(tmp_path, progress=False, n_jobs=2).frame, finished.frame)


def test_numbers_do_not_depend_on_dask(finished, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        result = make().run(tmp_path, progress=False)
        workers = client.run(lambda dask_worker: dask_worker.state.log)
    assert sum(len(log) > 0 for log in workers.values()) == 2
    same(result.frame, finished.frame)


def test_an_interrupted_run_resumes_where_it_stopped(finished, tmp_path):
    """Delete some cells: they alone are computed again."""
    study = make()
    study.run(tmp_path, progress=False)
    gone = {study.cells[k].key for k in (1, 6)}
    before = {}
    for cell in study.cells:
        path = tmp_path / f"{cell.key}.json"
        if cell.key in gone:
            path.unlink()
        else:
            before[path] = path.stat().st_mtime_ns
    partial_result = study.result(tmp_path)
    assert {c.key for c in partial_result.unfinished} == gone
    assert len(partial_result.frame) == len(finished.frame) * 6 // 8
    again = make().run(tmp_path, progress=False)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    same(again.frame, finished.frame)


def test_progress_is_shown_on_request_and_otherwise_only_on_terminals(tmp_path, capsys):
    study = make(seeds=1)
    study.run(tmp_path)
    assert capsys.readouterr().err == ""
    study.run(tmp_path / "again", progress=True)
    out, err = capsys.readouterr()
    assert "4/4" in err
    assert out == ""


def test_a_truncated_file_is_computed_again(finished, tmp_path):
    study = make()
    study.run(tmp_path, progress=False)
    path = tmp_path / f"{study.cells[3].key}.json"
    path.write_text(path.read_text()[:100])
    same(study.run(tmp_path, progress=False).frame, finished.frame)


def test_growing_a_study_keeps_its_cells(tmp_path):
    small = make(seeds=1)
    small.run(tmp_path, progress=False)
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    large = make(models=MODELS | {"new": spiral(0.9)}, seeds=[0, 5])
    assert {c.key for c in small.cells} < {c.key for c in large.cells}
    large.run(tmp_path, progress=False)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"models": MODELS | {"loud": spiral(0.51)}},
        {"models": MODELS | {"loud": (spiral(0.5), spiral(0.4))}},
        {"estimators": ESTIMATORS | {"shrunk": partial(shrunk, factor=0.81)}},
        {"estimators": ESTIMATORS | {"shrunk": lambda m, t, z: shrunk(m, t, z, factor=0.8)}},
        {"scenarios": {k: replace(v, n_paths=21) for k, v in SCENARIOS.items()}},
        {"scenarios": {k: replace(v, x0=Shell(5.0, 1.1)) for k, v in SCENARIOS.items()}},
        {"levels": (0.5, 0.9)},
        {"energy": True},
    ],
)
def test_whatever_changes_the_numbers_changes_the_key(changes):
    loud = {c.key for c in make().cells if c.model == "loud"}
    assert not loud & {c.key for c in make(**changes).cells}


def test_keys_are_the_same_in_another_process():
    code = "import small_study as t; print(*[c.key for c in t.make(estimators=t.KEYED).cells])"
    keys = []
    for seed in ("1", "2"):
        folders = (Path(__file__).parent, Path(afafilter.__file__).parents[1])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "PYTHONHASHSEED": seed,
        }
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        keys.append(run.stdout.split())
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 8


def test_keys_do_not_depend_on_where_a_module_of_the_package_lies(monkeypatch):
    """Else every stored cell would be computed anew after a move."""

    def keys() -> list[str]:
        robust = partial(afafilter.adaptive_filter, weight=afafilter.StudentT(4.0))
        estimators = {"kalman": afafilter.kalman_filter, "robust": robust}
        return [cell.key for cell in make(estimators=estimators).cells]

    before = keys()
    own = (
        afafilter.kalman_filter,
        afafilter.adaptive_filter,
        afafilter.StudentT,
        LinearSDE,
        Shell,
        Outliers,
        Scenario,
    )
    for value in own:
        assert value.__module__.startswith("afafilter.")
        monkeypatch.setattr(value, "__module__", "afafilter.elsewhere.deeper")
    assert keys() == before
    assert describe(afafilter.kalman_filter) == "afafilter.kalman_filter"
    assert describe(afafilter.StudentT(4.0)) == {"class": "afafilter.StudentT", "nu": 4.0}
    monkeypatch.setattr(afafilter.kalman_filter, "__module__", "afafilters.kalman")
    assert keys() != before


def test_public_names_tell_functions_and_classes_apart():
    values = [getattr(afafilter, name) for name in afafilter.__all__]
    named = [value for value in values if hasattr(value, "__qualname__")]
    assert len(named) > 50
    assert {describe(value) for value in named} == {
        f"afafilter.{value.__qualname__}" for value in named
    }


def test_what_a_function_of_the_package_encloses_is_in_the_key():
    one, other = (theory.calibrated(partial(shrunk, factor=x)) for x in (0.8, 0.9))
    assert describe(one) == describe(theory.calibrated(partial(shrunk, factor=0.8)))
    assert describe(one) != describe(other)


class Called:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, model, t, z):
        return raw(model, t, z)


class CalledOtherwise(Called):
    pass


class Slotted:
    __slots__ = ("__own", "factor")

    def __init__(self, factor, own=0):
        self.factor, self.__own = factor, own

    def __call__(self, model, t, z):
        return raw(model, t, z)


class SlottedBelow(Slotted):
    """Has a __dict__ beside the slots that it inherits."""


def test_what_the_class_of_an_estimator_does_is_in_the_key():
    """Edited methods, of the class or of one that it inherits from, are other estimators."""
    before = [describe(CalledOtherwise(2)), describe(Called(2))]
    kept = Called.__call__
    try:
        Called.__call__ = lambda self, model, t, z: raw(model, t, 2 * z)
        Called.__call__.__module__, Called.__call__.__qualname__ = __name__, kept.__qualname__
        after = [describe(CalledOtherwise(2)), describe(Called(2))]
    finally:
        Called.__call__ = kept
    assert all(a != b for a, b in zip(before, after))
    assert describe(CalledOtherwise(2)) == before[0] != describe(Called(2))


EDITS = {
    "a helper": "def helper(): return {}\ndef mine(model, t, z): return helper()",
    "a helper's helper": "def a(): return {}\ndef b(): return a()\ndef mine(m, t, z): return b()",
    "each other": "def a(k): return mine(k - 1, 0, 0)\ndef mine(m, t, z): return a(m) + {}",
    "a metaclass": "class M(type):\n  def __call__(cls): return {}\n"
    "class K(metaclass=M): pass\ndef mine(m, t, z): return K()",
    "a constant": "K = {}\ndef mine(model, t, z): return K",
    "a table": "K = dict(a={})\ndef mine(model, t, z): return K['a']",
    "inside": "K = {}\ndef mine(m, t, z):\n  def g(): return K\n  return g()",
    "a cached helper": "import functools\n@functools.lru_cache\ndef h(): return {}\n"
    "def mine(m, t, z): return h()",
    "an attribute": "class A:\n  k = {}\n  def __call__(self, m, t, z): return self.k\nmine = A()",
    "a class beside": "class C:\n  def f(self): return {}\ndef mine(m, t, z): return C().f()",
    "a cached property": "import functools\nclass A:\n  @functools.cached_property\n"
    "  def k(self): return {}\n  def __call__(self, m, t, z): return self.k\nmine = A()",
    "beside the fields": "import dataclasses\n@dataclasses.dataclass\nclass A:\n  q: int = 1\n"
    "  def __call__(self, m, t, z): return self.k\nmine = A()\nmine.k = {}",
    "an attribute of a function": "def mine(m, t, z): return mine.k\nmine.k = {}",
    "a decorator": "import functools\ndef d(f):\n  @functools.wraps(f)\n"
    "  def g(): return f() + {}\n  return g\n@d\ndef h(): return 1\ndef mine(m, t, z): return h()",
    "a weight": "import afafilter\nW = afafilter.StudentT({})\ndef mine(m, t, z): return W",
    "a partial": "import functools\ndef h(k): return k\nP = functools.partial(h, {})\n"
    "def mine(m, t, z): return P()",
    "a fraction": "import fractions\nK = fractions.Fraction({}, 7)\ndef mine(m, t, z): return K",
    "a path": "import pathlib\nK = pathlib.Path('{}')\ndef mine(m, t, z): return K",
    "a span": "import datetime\nK = datetime.timedelta({})\ndef mine(m, t, z): return K",
    "a range": "K = range({})\ndef mine(m, t, z): return K",
    "a complex number": "K = {} + 1j\ndef mine(m, t, z): return K",
    "a getter": "import operator\nK = operator.itemgetter({})\ndef mine(m, t, z): return K(z)",
    "a table of pandas": "import pandas\nK = pandas.Series([0, {}])\ndef mine(m, t, z): return K",
    "a kind of key": "K = {{1 if {} == 1 else '1': 2}}\ndef mine(m, t, z): return K",
    "a dict's attribute": "class D(dict): pass\nK = D()\nK.b = {}\ndef mine(m, t, z): return K",
    "a draw": "import numpy\nK = numpy.random.default_rng({})\ndef mine(m, t, z): return K",
    "by name": "K = {}\ndef mine(m, t, z): return globals()['K']",
    "by one of names": "K = {}\ndef mine(m, t, z): return [globals()[n] for n in ('K', 'L')]",
    "by a computed name": "K1 = {}\ndef mine(m, t, z): return [globals()[f'K{{n}}'] for n in [1]]",
    "by an expression": "K = {}\ndef mine(m, t, z): return eval('K + 1')",
    "a helper by name": "def h(): return {}\ndef mine(m, t, z): return globals()['h']()",
    "an attribute by name": "class A: k = {}\ndef mine(m, t, z): return getattr(A, 'k')",
    "a tuple": "K = (1, 2) if {} == 1 else [1, 2]\ndef mine(m, t, z): return z[:, K]",
    "a tuple within": "K = dict(a=[(1,) if {} == 1 else [1]])\ndef mine(m, t, z): return K",
    "an array": "import numpy\nK = numpy.array([1., 2.]) if {} == 1 else [1., 2.]\n"
    "def mine(m, t, z): return 2 * K",
    "a precision": "import numpy\nK = numpy.array([1, 2], 'f8' if {} == 1 else 'f4')\n"
    "def mine(m, t, z): return K",
    "a default": "def mine(m, t, z, k=(1, 2) if {} == 1 else [1, 2]): return z[:, k]",
    "a partial method": "import functools\nclass A:\n  def r(self, m, t, z, k): return k\n"
    "  __call__ = functools.partialmethod(r, k={})\nmine = A()",
}


@pytest.mark.parametrize("case", EDITS)
def test_what_an_estimator_uses_of_its_module_is_in_the_key(case):
    """Edited helpers and constants make another estimator; the same source the same one."""

    def key(number):
        module = {"__name__": "usermodule"}
        source = compile(EDITS[case].format(number), "usermodule", "exec", dont_inherit=True)
        exec(source, module)
        return describe(module["mine"])

    assert key(1) == key(1)
    assert key(1) != key(2)


SAME = {
    "a name nobody asks for": "K, L = 1, {}\ndef mine(m, t, z): return globals()['K']",
    "a word that is no name": "rmse = {}\ndef mine(m, t, z): return 'rmse'",
}


@pytest.mark.parametrize("case", SAME)
def test_what_an_estimator_does_not_use_is_not_in_the_key(case):
    keys = []
    for number in (1, 2):
        module = {"__name__": "usermodule"}
        exec(compile(SAME[case].format(number), "usermodule", "exec", dont_inherit=True), module)
        keys.append(describe(module["mine"]))
    assert keys[0] == keys[1]


def test_what_becomes_an_array_anyway_has_one_key():
    start = [(1.0, 2.0), [1.0, 2.0], np.array([1.0, 2.0])]
    assert len({str(describe(Scenario(np.arange(3.0), x0=x0))) for x0 in start}) == 1
    bound = (partial(afafilter.adaptive_filter, anchor_cov=x) for x in ([[1.0]], ((1.0,),)))
    assert len({str(describe(x)) for x in bound}) == 1


def test_files_that_an_estimator_imports_when_it_runs_are_in_the_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "package_of_mine").mkdir()
    for name in ("late_helper.py", "package_of_mine/__init__.py", "package_of_mine/part.py"):
        (tmp_path / name).write_text("K = 1\n")
    for line in ("from late_helper import K", "import package_of_mine.part", "import json, numpy"):
        module = {"__name__": "usermodule"}
        exec(f"def mine(m, t, z):\n  def g():\n    {line}\n  return g()", module)
        before = describe(module["mine"])
        for name in ("late_helper.py", "package_of_mine/part.py"):
            (tmp_path / name).write_text(f"K = {len(line)}\n")
        assert (describe(module["mine"]) == before) == ("json" in line)
    assert "late_helper" not in sys.modules


@pytest.mark.parametrize("use", ["from helpers_of_mine import h", "import helpers_of_mine as x"])
def test_what_an_estimator_uses_of_another_module_of_the_user_is_in_the_key(use, monkeypatch):
    def key(number):
        beside = types.ModuleType("helpers_of_mine")
        exec(f"def g(): return {number}\ndef h(): return g()", vars(beside))
        monkeypatch.setitem(sys.modules, "helpers_of_mine", beside)
        call = "h()" if "from" in use else "x.h()"
        module = {"__name__": "usermodule"}
        exec(f"{use}\ndef mine(model, t, z): return {call}", module)
        return describe(module["mine"])

    assert key(1) == key(1)
    assert key(1) != key(2)


def test_a_value_that_is_kept_once_computed_leaves_the_key_as_it_was():
    class Lazy:
        @cached_property
        def twice(self):
            return 2

    one = Lazy()
    before = describe(one)
    assert one.twice == 2
    assert describe(one) == before


@pytest.mark.parametrize("cls", [Slotted, SlottedBelow])
def test_slots_are_in_the_key_inherited_and_private_ones_too(cls):
    assert describe(cls(1)) == describe(cls(1))
    assert describe(cls(1)) != describe(cls(2))
    assert describe(cls(1, own=3)) != describe(cls(1, own=4))


def test_a_function_that_encloses_itself_has_a_key():
    def counting(factor):
        def down(k):
            return factor if k == 0 else down(k - 1)

        return down

    assert describe(counting(1)) == describe(counting(1))
    assert describe(counting(1)) != describe(counting(2))
    itself = Called(1)
    itself.factor = [itself]
    assert json.dumps(describe(itself))

    def even(k):
        return k == 0 or odd(k - 1)

    def odd(k):
        return k != 0 and even(k - 1)

    assert describe(even) != describe(odd)


def always_fails(model, t, z):
    raise ValueError("never ready")


def test_who_fails_in_every_cell_is_warned_of(tmp_path):
    study = make(estimators=ESTIMATORS | {"lost": always_fails})
    with pytest.warns(RuntimeWarning, match="lost failed in every cell.*ValueError: never ready"):
        result = study.run(tmp_path, progress=False)
    assert set(result.errors["estimator"]) == {"lost"}
    with pytest.warns(RuntimeWarning, match="lost failed"):  # a resumed run says it again
        study.run(tmp_path, progress=False)


def test_failures_are_recorded_and_the_rest_finishes(tmp_path):
    """One estimator fails in one model; one scenario cannot be simulated at all."""
    scenarios = SCENARIOS | {"impossible": Scenario(T, 20, x0=np.zeros(3))}
    study = make(estimators=ESTIMATORS | {"picky": fails_when_quiet}, scenarios=scenarios)
    with pytest.warns(RuntimeWarning, match=r"'impossible' with model 'quiet': x0 must .* 2 of 6"):
        result = study.run(tmp_path, n_jobs=2, progress=False)
    errors = result.errors
    assert set(errors.query("scenario == 'impossible'")["estimator"]) == set(study.estimators)
    assert errors.query("scenario == 'impossible'")["error"].str.contains("x0").all()
    rest = errors.query("scenario != 'impossible'")
    assert (rest["error"] == "ValueError: too quiet").all()
    assert set(zip(rest["model"], rest["estimator"])) == {("quiet", "picky")}
    assert len(rest) == 4
    fine = result.frame.query("estimator == 'picky' and model == 'loud' and metric == 'rmse'")
    assert fine.query("scenario != 'impossible'")["value"].notna().all()
    pooled = result.pooled().query("model == 'quiet' and estimator == 'picky'")
    assert pooled["value"].isna().all()
    assert result.table().shape == (6, 3)
    gaps = result.differences("raw")
    assert len(gaps.query("estimator == 'picky'")) == 2

    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    study.run(tmp_path, progress=False)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == stamps
    with pytest.warns(RuntimeWarning, match="2 of 6"):
        study.run(tmp_path, progress=False, retry_failed=True)
    changed = sum(p.stat().st_mtime_ns != stamps[p] for p in tmp_path.iterdir())
    assert changed == 4 + 4


def test_pooling_over_seeds(finished):
    pooled = finished.pooled("rmse").set_index(["model", "scenario", "estimator"])
    frame = finished.frame.query("metric == 'rmse' and component == 'all'")
    mean = frame["value"].pow(2).groupby([frame[c] for c in pooled.index.names]).mean().pow(0.5)
    np.testing.assert_allclose(pooled["value"], mean.loc[pooled.index], rtol=1e-12)
    table = finished.table()
    assert table.loc[("loud", "clean"), "raw"] == pooled.loc[("loud", "clean", "raw"), "value"]
    gap = finished.differences("raw").set_index(["model", "scenario"])
    wide = table["shrunk"] - table["raw"]
    np.testing.assert_allclose(gap["difference"], wide.loc[gap.index], rtol=1e-9)
    assert (gap["low"] < gap["difference"]).all()
    assert (gap["difference"] < gap["high"]).all()
    with pytest.raises(ValueError, match="reference"):
        finished.differences("Kalman")
    with pytest.raises(ValueError, match="metric"):
        finished.pooled("mse")


def test_columns_and_files(tmp_path):
    columns = {"quiet": {"process_var": 0.1}, "loud": {"process_var": 0.5}}
    columns |= {"clean": {"rate": 0.0}, "outliers": {"rate": 0.2}}
    result = make(columns=columns).run(tmp_path / "cells", progress=False)
    assert set(zip(result.frame["process_var"], result.frame["rate"])) == {
        (0.1, 0.0),
        (0.1, 0.2),
        (0.5, 0.0),
        (0.5, 0.2),
    }
    assert result.pooled()["rate"].notna().all()
    assert result.differences("raw")["process_var"].notna().all()
    result.to_csv(tmp_path / "out.csv")
    back = pd.read_csv(tmp_path / "out.csv", keep_default_na=True)
    back["error"] = ""
    pd.testing.assert_frame_equal(back, result.frame, check_dtype=False)
    pytest.importorskip("pyarrow")
    result.to_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "out.parquet"), result.frame, check_dtype=False
    )


def test_mismatch_is_a_pair(tmp_path):
    study = make(models={"wrong R": (spiral(0.5), replace(spiral(0.5), R=0.1 * np.eye(2)))})
    result = study.run(tmp_path, progress=False)
    nees = result.pooled("nees").set_index(["scenario", "estimator"])["value"]
    assert nees["clean", "raw"] == pytest.approx(10.0, rel=0.1)


def test_cell_files_are_plain_json_with_their_place(tmp_path):
    study = make(seeds=1)
    study.run(tmp_path, progress=False)
    for cell in study.cells:
        content = json.loads((tmp_path / f"{cell.key}.json").read_text())
        assert content["cell"] == cell._asdict()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{c.key}.json" for c in study.cells
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x0": np.zeros(3)}, r"x0 must have shape \(d,\) = \(2,\) or \(n_paths, d\) = \(20, 2\)"),
        ({"x0": np.zeros((19, 2))}, r"\(20, 2\), got \(19, 2\)"),
        ({"x0": Shell(1.0, dim=3)}, r"got \(20, 3\)"),
        ({"x0": "start"}, "x0 must be one of"),
        ({}, "x0 must be given, since the model's prior is diffuse"),
        ({"x0": np.zeros(2), "missing": np.full((3, 2), 0.1)}, "missing must be a number or have"),
    ],
)
def test_data_that_cannot_be_drawn_are_told_of_before_the_first_cell(tmp_path, wrong, message):
    flat = replace(spiral(0.1), prior="diffuse")
    study = make(models={"flat": flat}, scenarios={"s": Scenario(T, 20, **wrong)})
    with pytest.raises(ValueError, match=f"scenario 's' with model 'flat': .*{message}"):
        study.run(tmp_path, progress=False)
    with pytest.raises(ValueError, match=message):
        study.plan(tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_matrices_that_vary_with_time_are_tried_on_one_step(tmp_path, monkeypatch):
    steps = np.ones((len(T), 1, 1))
    model = DiscreteModel([[0.5]], Q=steps, H=[[1.0]], R=[[1.0]], time_varying="Q")
    drawn, draw = [], batch._draw
    monkeypatch.setattr(
        batch, "_draw", lambda job, *rest: drawn.append(len(job.t)) or draw(job, *rest)
    )
    study = make(models={"m": model}, scenarios={"s": Scenario(T, 5, x0=[0.0])}, seeds=1)
    study.run(tmp_path, progress=False)
    assert drawn == [1, len(T)]
    longer = make(models={"m": model}, scenarios={"s": Scenario(range(99), 5, x0=[0.0])}, seeds=1)
    with pytest.raises(ValueError, match="99"):
        longer.run(tmp_path, progress=False)


def test_a_start_that_fits_one_model_only_is_told_of_and_the_other_is_computed(tmp_path):
    models = {f"dim {d}": brownian(process_var=1.0, obs_var=1.0, dim=d) for d in (1, 2)}
    study = make(
        models=models, scenarios={"s": Scenario(T, 5, x0=[1.0, 2.0], missing=Gaps(0.1, 3))}
    )
    with pytest.warns(RuntimeWarning, match="'dim 1': x0 must have shape .* 1 of 2 models"):
        result = study.run(tmp_path, progress=False)
    assert {*result.errors["model"]} == {"dim 1"}
    assert result.frame.query("model == 'dim 2' and metric == 'rmse'")["value"].notna().all()


def test_bad_studies_are_refused_before_anything_starts():
    with pytest.raises(ValueError, match="grid is empty"):
        make(models={})
    with pytest.raises(ValueError, match="grid is empty"):
        make(scenarios={})
    with pytest.raises(ValueError, match="grid is empty"):
        make(seeds=[])
    with pytest.raises(ValueError, match="at least one estimator"):
        make(estimators={})
    with pytest.raises(TypeError, match="estimators"):
        make(estimators={"kalman": 3})
    with pytest.raises(TypeError, match="models"):
        make(models={"a": 3})
    wide = brownian(process_var=1.0, obs_var=1.0, dim=3)
    with pytest.raises(ValueError, match=r"models\['a'\]: .* must observe 2 components, .* got 3"):
        make(models={"a": (spiral(0.1), wide)})
    with pytest.raises(ValueError, match=r"estimator_model: .* must observe 2 components"):
        compare(ESTIMATORS, spiral(0.1), T, 3, rng=0, x0=[1.0, 0.0], estimator_model=wide)
    with pytest.raises(TypeError, match="Scenario"):
        make(scenarios={"a": T})
    with pytest.raises(ValueError, match="differ"):
        make(seeds=[1, 1])
    with pytest.raises(ValueError, match="seeds"):
        make(seeds=[-1])
    with pytest.raises(ValueError, match="levels"):
        make(levels=(90,))
    with pytest.raises(ValueError, match="columns"):
        make(columns={"nobody": {}})
    with pytest.raises(ValueError, match="burn_in"):
        Scenario(T, 3, burn_in=16)
    with pytest.raises(ValueError, match="n_paths"):
        Scenario(T, 0)
    with pytest.raises(TypeError, match="missing must be numbers, got booleans"):
        Scenario(T, missing=True)
    with pytest.warns(UserWarning, match="t holds whole numbers that spell dates"):
        Scenario([20240131, 20240201])
    with pytest.raises(TypeError, match="cannot tell"):
        make(estimators={"a": partial(raw, extra=iter(()))})


TOML = """
seeds = [3, 4]
levels = [0.5, 0.9]

[models.spiral]
preset = "spiral"
obs_var = 1.0
vary.process_var = [0.1, 0.5]

[models.own]
A = [[-0.5, 0.0], [0.0, -0.25]]
Q = [[1.0, 0.0], [0.0, 2.0]]
R = [[0.2, 0.0], [0.0, 0.2]]
prior = { mean = [0.0, 1.0], cov = [[4.0, 0.0], [0.0, 4.0]] }
assumed.R = [[0.4, 0.0], [0.0, 0.4]]

[estimators.afa]
function = "adaptive_filter"

[estimators."robust AFA"]
function = "adaptive_filter"
weight = { name = "StudentT", nu = 4.0 }
anchor = "estimate"
anchor_cov = "R"

[scenarios.ring]
t = { step = 0.1, count = 12 }
n_paths = 5
x0 = { radius = 20.0, spread = 3.0 }
outliers = { rate = 0.1, scale = 10.0 }
burn_in = 4
vary."outliers.rate" = [0.0, 0.2]
vary.missing = [0.0, 0.1]

[scenarios.list]
t = [0.0, 0.5, 0.7]
x0 = [1.0, 2.0]
"""


def test_toml_is_the_same_study_as_python(tmp_path):
    from afafilter import StudentT, adaptive_filter
    from afafilter import spiral as preset

    path = tmp_path / "study.toml"
    path.write_text(TOML)
    study = Study.from_toml(path)
    assert list(study.models) == ["spiral process_var=0.1", "spiral process_var=0.5", "own"]
    assert list(study.scenarios)[1] == "ring outliers.rate=0 missing=0.1"
    assert len(study.cells) == 3 * 5 * 2

    def robust(model, t, z):
        return adaptive_filter(
            model, t, z, weight=StudentT(4.0), anchor="estimate", anchor_cov=model.R
        )

    own = LinearSDE(np.diag([-0.5, -0.25]), Q=np.diag([1.0, 2.0]), R=0.2 * np.eye(2))
    by_hand = Study(
        {
            "spiral process_var=0.5": preset(process_var=0.5, obs_var=1.0),
            "own": (own, replace(own, R=0.4 * np.eye(2))),
        },
        {"afa": adaptive_filter, "robust AFA": robust},
        {
            "ring outliers.rate=0.2 missing=0.1": Scenario(
                0.1 * np.arange(12), 5, Shell(20.0, 3.0), Outliers(0.2, 10.0), 0.1, 4
            )
        },
        [3, 4],
        (0.5, 0.9),
    )
    expected = by_hand.run(tmp_path / "hand", progress=False).frame
    got = study.run(tmp_path / "toml", progress=False).frame
    assert set(got["outliers_rate"].dropna()) == {0.0, 0.2}
    assert set(got["process_var"].dropna()) == {0.1, 0.5}
    part = got[
        got["model"].isin(by_hand.models) & got["scenario"].isin(by_hand.scenarios)
    ].reset_index(drop=True)
    same(part[expected.columns], expected)
    assert (expected["error"] == "").all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("levels", "levles", r"study.toml: unknown key 'levles'"),
        ("obs_var", "obs_variance", r"\[models.spiral process_var=0.1\]: unknown key"),
        ('preset = "spiral"', 'preset = "helix"', r"preset must be one of .*got 'helix'"),
        ('"adaptive_filter"\n\n', '"kalmn"\n\n', r"\[estimators.afa\]: function must be one of"),
        ('"StudentT"', '"Student"', r"\[estimators.robust AFA\]: weight must be one of"),
        ("nu = 4.0", "nu = -4.0", r"\[estimators.robust AFA\]: .*nu"),
        ("nu = 4.0", "Nu = 4.0", r"\[estimators.robust AFA\]: weight: unknown key 'Nu'"),
        ("name =", "nam =", r"\[estimators.robust AFA\]: weight: .*did you mean 'name'"),
        ('name = "StudentT", ', "", r"\[estimators.robust AFA\]: weight: key 'name' is missing"),
        ('anchor = "estimate"', 'anchor = "x"', r"\[estimators.robust AFA\]: anchor must be one"),
        ('anchor = "estimate"', 'method = "x"', r"\[estimators.robust AFA\]: method must be one"),
        ('anchor = "estimate"', "iterations = 0", r"\[estimators.robust AFA\]: iterations must"),
        ('anchor = "estimate"', 'step = "x"', r"\[estimators.robust AFA\]: step must be"),
        (
            "count = 12",
            'count = "60"',
            r"\[scenarios.ring .*t.count must be a whole number, got '60'",
        ),
        ("step = 0.1", 'step = "0.1"', r"\[scenarios.ring .*t.step must be"),
        ("anchor =", "ancor =", r"unknown key 'ancor'"),
        ("burn_in = 4", "burn_in = 12", r"\[scenarios.ring .*burn_in"),
        ("t = [0.0, 0.5, 0.7]", "", r"\[scenarios.list\]: t is missing"),
        ("[0.0, 0.5, 0.7]", "[0.0, 0.5, 0.3]", r"\[scenarios.list\]: t must not decrease"),
        ("vary.missing = [0.0, 0.1]", "vary.missing = []", r"vary.missing must be a list"),
        ("radius", "raduis", r"unknown key 'raduis'"),
        ("seeds = [3, 4]", "seeds = ", r"not valid TOML"),
        ("seeds = [3, 4]", "seeds = []", r"grid is empty"),
        ("-0.5, 0.0]", "-0.5]", r"\[models.own\]: A must be a rectangular"),
    ],
)
def test_bad_toml(tmp_path, old, new, message):
    path = tmp_path / "study.toml"
    assert old in TOML
    path.write_text(TOML.replace(old, new))
    with pytest.raises((ValueError, TypeError), match=message):
        Study.from_toml(path)


def test_toml_without_estimators(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("seeds = 1\n[models.a]\npreset = 'spiral'\n")
    with pytest.raises(ValueError, match=r"study.toml: .*\[estimators.<name>\]"):
        Study.from_toml(path)


def test_keys_are_hashes_of_all_that_decides_the_numbers():
    """The seed is spliced into JSON written once for all seeds: the same text, the same key."""
    place = {"model": ["a", {"q": 1.5}], "scenario": "s", "estimators": ["x"], "zeta": None}
    seeds = (0, 7, 12345)
    whole = [{"format": FORMAT, "version": __version__, **place, "seed": k} for k in seeds]
    texts = [json.dumps(x, sort_keys=True).encode() for x in whole]
    assert cell_keys(place, seeds) == [hashlib.sha256(x).hexdigest()[:24] for x in texts]


STUDY = """seeds = {seeds}
{top}
[models.m]
A = [[-0.5]]
Q = [[1.0]]
R = [[0.2]]
{model}
[estimators.e]
function = "{function}"
{options}
[scenarios.s]
t = {{ step = 0.1, count = 12 }}
n_paths = 3
"""


def read_study(tmp_path, *, seeds="1", top="", model="", function="adaptive_filter", options=""):
    path = tmp_path / "s.toml"
    filled = {"top": top, "model": model, "function": function, "options": options}
    path.write_text(STUDY.format(seeds=seeds, **filled))
    return Study.from_toml(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": "1.5"}, "seeds must be a whole number, got 1.5"),
        ({"seeds": "nan"}, "seeds must be a whole number"),
        ({"seeds": "inf"}, "seeds must be at most"),
        ({"seeds": "99999999999999999999"}, "seeds must be at most"),
        ({"top": 'energy = "no"'}, "energy must be true or false, got 'no'"),
        ({"top": "energy = 1"}, "energy must be true or false, got 1"),
        ({"model": "vary.drift = [[0.1], [0.1]]"}, "values under vary must differ"),
        ({"options": "momentum = 0.1\nweight = 'huber'"}, "momentum=0.1 would change nothing"),
        ({"options": "anchor = 'estimate'"}, "anchor='estimate' would change nothing"),
        ({"options": "step = 2.0"}, "step must be <= 1, got 2"),
        ({"options": "weight = 4"}, "weight must be None, a word"),
        ({"options": "correlation = 'exact'\nmethod = 'modal'"}, "has no method 'modal'"),
        (
            {"function": "rts_smoother", "options": "iterations = 3\nweight = 'huber'"},
            "iterations=3 would change nothing",
        ),
        ({"function": "kalman_filter", "options": "metric = 'raw'"}, "metric='raw' would change"),
    ],
)
def test_what_stops_every_cell_is_refused_before_the_first(tmp_path, changed, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        read_study(tmp_path, **changed)


def test_values_told_apart_by_their_last_digits_are_scenarios_of_their_own(tmp_path) -> None:
    path, values = tmp_path / "s.toml", [0.1, 0.12345678, 0.12345679]
    filled = {"top": "", "model": "", "function": "kalman", "options": ""}
    path.write_text(STUDY.format(seeds=1, **filled) + f"vary.missing = {values}\n")
    study = Study.from_toml(path)
    assert list(study.scenarios) == [f"s missing={value!r}" for value in values]
    assert [float(one.missing) for one in study.scenarios.values()] == values
