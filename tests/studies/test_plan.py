"""Plans: the law against costs drawn from a known one, and plans against the runs they tell of."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from afafilter import Scenario, Study, kalman_filter, raw_observation, spiral
from afafilter.report import plan_page
from afafilter.studies.plan import REST, StudyPlan, power_law
from tests.report.test_report import content_of


def fails(model, t, z):
    """An estimator whose cost nobody can tell."""
    raise ValueError("not here")


def study(**changes) -> Study:
    given = {
        "models": {"q": spiral(0.2, 1.0, process_var=0.2, obs_var=0.5)},
        "estimators": {"raw": raw_observation, "kalman": kalman_filter},
        "scenarios": {
            f"{n} {steps}": Scenario(0.1 * np.arange(steps), n_paths=n)
            for n in (2, 8)
            for steps in (10, 30)
        },
        "seeds": 5,
    }
    return Study(**(given | changes))


def invented(seed: int, whole: Study, spread: float) -> tuple[StudyPlan, np.ndarray]:
    """A plan from costs 1e-3 paths^0.5 steps^1.2 exp(spread noise), and the true means by place."""
    rng = np.random.default_rng(seed)
    rows, means = [], []
    for name, place in whole.scenarios.items():
        paths, steps = place.n_paths, len(place.t)
        median = 1e-3 * paths**0.5 * steps**1.2
        means.append(median * np.exp(spread**2 / 2))
        for k in range(4):
            seconds = median * np.exp(spread * rng.standard_normal())
            rows.append(["q", name, k, paths, steps, 2, "kalman", seconds])
    names = ["model", "scenario", "seed", "paths", "steps", "dim", "estimator", "seconds"]
    plan = StudyPlan(whole, pd.DataFrame(rows, columns=names), {}, 1e-4, 5000.0)
    return plan, np.array(means)


def test_an_exact_law_is_found() -> None:
    plan, means = invented(0, study(), 0.0)
    np.testing.assert_allclose(plan.places["seconds"], means, rtol=1e-10)
    row = plan.costs.iloc[0]
    np.testing.assert_allclose(row[["paths", "steps", "dim"]].tolist(), [0.5, 1.2, 0.0], atol=1e-9)
    np.testing.assert_allclose(row[["low", "high"]].tolist(), [means.mean()] * 2, rtol=1e-6)


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    whole = study()
    held = 0
    for seed in range(200):
        plan, means = invented(seed, whole, 0.3)
        _, low, high = plan.cell_seconds
        held += low <= means.mean() <= high
    assert 176 <= held <= 200  # 95 % of 200: 190, with four standard deviations


def test_costs_do_not_shrink_with_size() -> None:
    sizes = np.array([[1, 10, 2], [1, 20, 2], [1, 40, 2]], dtype=float)
    law = power_law(sizes, np.array([3.0, 2.0, 1.0]), sizes[:1])
    assert law.exponents == (0.0, 0.0, 0.0)
    np.testing.assert_allclose(law.seconds, 2.0)


def test_durations_stop_falling_where_the_caller_is_busy() -> None:
    plan, _ = invented(1, study(), 0.1)
    cell = plan.cell_seconds[0]
    assert plan.seconds(1000, 4)[0] == pytest.approx(1000 * cell / 4)
    assert plan.most_workers == int(cell / 1e-4)
    assert plan.seconds(1000, 10 * plan.most_workers)[0] == pytest.approx(1000 * 1e-4)
    table = plan.table([1000], [1, 10 * plan.most_workers])
    assert table["limit"].tolist() == ["workers", "caller"]
    assert table["gigabytes"].tolist() == [1000 * 5000.0 / 1e9] * 2
    assert set(plan.table()["cells"]) == {20, 1_000_000}
    with pytest.raises(ValueError, match="workers"):
        plan.seconds(10, 0)


def test_a_plan_measures_few_cells_and_keeps_them(tmp_path) -> None:
    whole = study()
    plan = whole.plan(tmp_path, cells=6)
    files = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert len(files) == 6
    assert {f["cell"]["scenario"] for f in files.values()} == set(whole.scenarios)
    frame = plan.measured
    assert set(frame["estimator"]) == {"raw", "kalman", REST}
    seconds = frame.groupby(["scenario", "seed"])["seconds"].sum()
    for content in files.values():
        place = content["cell"]["scenario"], content["cell"]["seed"]
        assert seconds[place] == pytest.approx(content["seconds"])
    assert (frame["seconds"] > 0).all()
    assert plan.cell_bytes == np.mean([path.stat().st_size for path in tmp_path.iterdir()])
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = whole.plan(tmp_path, cells=6)
    pd.testing.assert_frame_equal(again.measured, frame)
    result = whole.run(tmp_path, progress=False)
    assert len(whole.plan(tmp_path, cells=50).measured) == 3 * len(whole.cells)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    pd.testing.assert_frame_equal(result.frame, whole.run(tmp_path / "other").frame)


def test_a_plan_without_a_folder_leaves_nothing_and_prints_itself(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = study(estimators={"raw": raw_observation, "broken": fails}).plan(cells=4)
    assert list(tmp_path.iterdir()) == []
    assert plan.failed == {"broken": "ValueError: not here"}
    text = str(plan)
    assert "20 cells" in text
    assert "cost unknown: broken failed: ValueError: not here" in text
    with pytest.raises(ValueError, match="cells"):
        study().plan(cells=0)


def test_the_page_holds_the_tables(tmp_path) -> None:
    pytest.importorskip("plotly")
    plan, _ = invented(2, study(), 0.1)
    page = plan.to_html(tmp_path / "plan.html", title="Plan")
    assert (tmp_path / "plan.html").read_text(encoding="utf-8") == page
    content = content_of(plan_page(plan))
    assert content["files"]["costs"] == plan.costs.to_csv(index=False)
    drawn = content["charts"]["duration"]["data"][2]
    hours = [plan.seconds(20, n)[0] / 3600.0 for n in drawn["x"]]
    np.testing.assert_allclose(drawn["y"], hours, rtol=1e-5)
    measured = content["charts"]["law"]["data"][0]["y"]
    np.testing.assert_allclose(measured, plan.measured["seconds"], rtol=1e-5)
    with pytest.raises(FileExistsError, match=r"plan\.html"):
        plan.to_html(tmp_path / "plan.html")
