"""Pages: their numbers against the functions, and the pages themselves in headless Chromium."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from afafilter import (
    DiscreteModel,
    StudentT,
    brownian,
    compare,
    datasets,
    kalman_filter,
    raw_observation,
    rts_smoother,
    spiral,
)
from afafilter.io import Series, read_series
from afafilter.report import analyse, comparison_page, report_page
from afafilter.report.analysis import Analysis, tables, weight_maps
from afafilter.report.charts import thinned

pytest.importorskip("plotly")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
)


@pytest.fixture(scope="module")
def nile() -> Series:
    return datasets.load_nile()


@pytest.fixture(scope="module")
def analysed(nile: Series) -> Analysis:
    return analyse(nile, datasets.nile_model())


def content_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1].replace("<\\/", "</"))


def test_numbers_of_a_report_are_those_of_the_functions(nile: Series, analysed: Analysis) -> None:
    found = analysed
    smooth = rts_smoother(datasets.nile_model(), nile.t, nile.z)
    here = np.isin(found.t_smooth, nile.t)
    np.testing.assert_allclose(found.signal[here, 0], smooth.mean[:, 0], rtol=1e-9)
    np.testing.assert_allclose(
        found.obs_sd[here, 0], np.sqrt(smooth.cov[:, 0, 0] + 15099.0), rtol=1e-9
    )
    assert (found.t_smooth > 1970).sum() == 10
    saved = tables(found)
    assert saved["data"]["flow"].tolist() == nile.z[:, 0].tolist()
    assert saved["estimate"]["forecast"].sum() == 10
    assert set(found.compared.frame["kind"]) == {"random", "blocks", "forecast"}


def test_the_filters_weights_reproduce_its_estimate(nile: Series) -> None:
    """A flat start forgets the origin: the estimate is the weighted sum of the data."""
    model = datasets.nile_model()
    t, attention, kalman, _ = weight_maps(model, nile)
    z = nile.z[-len(t) :, 0]
    wanted = kalman_filter(model, t, z).mean[:, 0]
    np.testing.assert_allclose(kalman @ z, wanted, rtol=1e-9)
    np.testing.assert_allclose(kalman.sum(axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(attention.sum(axis=1), 1.0, rtol=1e-9)


def test_discrete_models_are_reported_with_their_gaps(tmp_path: Path) -> None:
    """Steps are rows: a gap is steps without data, in estimate, forecast and weights alike."""
    path = tmp_path / "d.csv"
    rng = np.random.default_rng(1)
    z = np.where(rng.random(30) < 0.2, np.nan, np.cumsum(rng.normal(size=30)))
    path.write_text("t,z\n" + "".join(f"{k},{'' if x != x else x}\n" for k, x in enumerate(z)))
    model = DiscreteModel([[0.9]], Q=[[0.25]], H=[[1.0]], R=[[1.0]], prior="diffuse")
    found = analyse(read_series(path), model)
    want = rts_smoother(model, np.append(z, np.full(3, np.nan))[:, None])
    np.testing.assert_allclose(found.signal[:, 0], want.mean[:, 0], rtol=1e-12)
    seen = np.isfinite(z)
    mean = kalman_filter(model, z[:, None]).mean[seen, 0]
    np.testing.assert_allclose(found.kalman_map @ z[seen], mean, rtol=1e-9)
    assert found.afa_map.shape == (seen.sum(), seen.sum())
    turning = DiscreteModel([[-0.9]], Q=[[0.25]], H=[[1.0]], R=[[1.0]])
    page = report_page(analyse(read_series(path), turning), "no logarithm")
    assert "No map of AFA" in page
    assert '"attention":' not in page


def test_outliers_are_flagged_and_families_tried(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z = np.cumsum(0.1 * rng.standard_normal(150)) + 0.3 * rng.standard_normal(150)
    z[40] += 10
    z[60:70] = np.nan
    path = tmp_path / "d.csv"
    path.write_text(
        "t,</script><b>x\n"
        + "".join(
            f"2024-01-01T{k // 60:02}:{k % 60:02},{'' if np.isnan(v) else v}\n"
            for k, v in enumerate(z)
        )
    )
    found = analyse(read_series(path, time_unit="min"))
    assert np.flatnonzero(found.outliers[:, 0]).tolist() == [40]
    assert found.fitted is not None
    assert found.model.time_unit == "min"
    page = report_page(found, "a <title>")
    assert "<b>x" not in page.replace("<\\/script><b>x", "")
    content = content_of(page)
    assert content["charts"]["series0"]["data"][-1]["x"] == ["2024-01-01T00:40:00"]
    assert content["files"]["data"].startswith("t,</script><b>x,")


def test_long_series_are_thinned_to_their_extremes() -> None:
    x = np.zeros(100_000)
    x[[777, 50_001]] = 5, -7
    rows = thinned(x)
    assert len(rows) <= 6000
    assert {777, 50_001} <= set(rows.tolist())
    assert len(thinned(np.full(10_000, np.nan))) > 0


def test_many_outliers_are_not_followed(nile: Series, analysed: Analysis) -> None:
    """The estimate that is shown is the robust smoother's, and the page says so."""
    from dataclasses import replace

    z = nile.z.copy()
    z[10::15] += 3000.0
    found = analyse(replace(nile, z=z), datasets.nile_model())
    robust = rts_smoother(datasets.nile_model(), nile.t, z, weight=StudentT(4.0), anchor="estimate")
    here = np.isin(found.t_smooth, nile.t)
    np.testing.assert_allclose(found.signal[here, 0], robust.mean[:, 0], rtol=1e-9)
    assert found.robust
    assert found.outliers[10::15].all()
    assert "robust RTS" in report_page(found, "Nile")
    assert not analysed.robust
    assert "so many" not in report_page(analysed, "Nile")


def test_several_paths_are_refused(nile: Series) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="one series"):
        analyse(replace(nile, z=np.stack([nile.z, nile.z])))


def test_a_comparison_writes_its_page(tmp_path: Path) -> None:
    found = compare([kalman_filter, raw_observation], spiral(), np.arange(8.0), 4, rng=0)
    path = tmp_path / "page.html"
    page = found.to_html(path, title="Mine")
    assert page == path.read_text(encoding="utf-8")
    assert "<title>Mine</title>" in page
    assert not re.search(r'(?:src|href)="https?://', page.split("<body>")[1])
    with pytest.raises(FileExistsError, match="exists already"):
        found.to_html(path)
    assert found.to_html(path, force=True) != page


PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  const charts = [...document.querySelectorAll(".chart")];
  parent.postMessage({
    name: location.hash.slice(1), ready: document.body.dataset.ready,
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    charts: charts.length > 0 && charts.every(c => c.querySelector(".main-svg"))}, "*");
}, 3000))</script></body>"""
FRAMES = """<!doctype html><meta charset="utf-8"><style>body { margin: 0 }
iframe { display: block; border: 0; height: 1600px }</style><body>%s<script>
const seen = {};
addEventListener("message", event => {
  seen[event.data.name] = event.data;
  document.body.dataset.seen = btoa(JSON.stringify(seen));
});</script></body>"""
WIDTHS = (1300, 500)


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_pages_open_in_a_browser(tmp_path: Path, analysed: Analysis) -> None:
    """No console error, all charts drawn, nothing wider than the window, pictures not blank.

    One browser shows all pages at all widths, each in a frame.
    """
    found = compare([kalman_filter, raw_observation], spiral(), np.arange(20.0), 20, rng=0)
    pages = {
        "report": report_page(analysed, "Nile"),
        "comparison": comparison_page(found),
    }
    for name, page in pages.items():
        assert not re.search(r'(?:src|href)="https?://', page.split("<body>")[1])
        (tmp_path / f"{name}.html").write_text(page.replace("</body>", PROBE), encoding="utf-8")
    shown = [(name, width) for name in pages for width in WIDTHS]
    frames = [
        f'<iframe style="width: {width}px" src="{name}.html#{name}-{width}"></iframe>'
        for name, width in shown
    ]
    (tmp_path / "all.html").write_text(FRAMES % "".join(frames), encoding="utf-8")
    picture = tmp_path / "page.png"
    command = [
        str(BROWSER),
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={max(WIDTHS)},{1600 * len(shown)}",
        "--enable-logging=stderr",
        "--dump-dom",
        f"--screenshot={picture}",
        (tmp_path / "all.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert "CONSOLE" not in done.stderr
    said = re.search(r'data-seen="([^"]+)"', done.stdout)
    assert said is not None
    seen = json.loads(base64.b64decode(said[1]))
    for name, width in shown:
        told = {"name": f"{name}-{width}", "ready": "yes", "wide": False, "charts": True}
        assert seen[f"{name}-{width}"] == told
    import matplotlib.image

    pixels = matplotlib.image.imread(picture)[..., :3]
    for k, (_, width) in enumerate(shown):
        assert pixels[1600 * k : 1600 * (k + 1), :width].std() > 0.05


def test_variances_at_the_boundary_are_named(tmp_path: Path) -> None:
    """White noise: the walk's variance is 0, which has no standard error."""
    path = tmp_path / "d.csv"
    z = np.tile([1.0, -1.0, 0.5, -0.5], 10)
    path.write_text("t,z\n" + "".join(f"{k},{x}\n" for k, x in enumerate(z)))
    page = report_page(analyse(read_series(path), family="brownian + noise"), "still")
    assert "At the boundary of the domain: process_var." in page
    assert "<td>nan</td>" not in page


def test_exact_measurements_have_a_page(tmp_path: Path) -> None:
    """R = 0, as fits of a walk end: no outliers, and who needs noise says so."""
    path = tmp_path / "d.csv"
    z = np.cumsum(np.random.default_rng(0).standard_normal(40))
    path.write_text("t,z\n" + "".join(f"{k},{x}\n" for k, x in enumerate(z)))
    found = analyse(read_series(path), brownian(1.0, 0.0))
    assert not found.outliers.any()
    np.testing.assert_allclose(found.signal[np.isin(found.t_smooth, range(40)), 0], z)
    assert "robust RTS (Student-t) failed" in report_page(found, "exact")
