"""Figures measure what journals want, in the files themselves."""

from __future__ import annotations

import re
import shutil
import zlib
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from afafilter import plotting

mpl.use("Agg")
PUBLISHED = {  # the journals' instructions for authors, inches
    "ieee": (3.5, 7.16),
    "neurips": (5.5, 5.5),
    "icml": (3.25, 6.75),
    "nature": (3.5039, 7.2047),
    "plain": (3.5, 7.0),
}


@pytest.fixture(autouse=True)
def _closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def inches(path: Path) -> tuple[float, float]:
    """Width and height that a file itself claims, read without matplotlib."""
    if path.suffix == ".png":
        raw = path.read_bytes()
        pixels = np.frombuffer(raw[16:24], ">u4")
        at = raw.index(b"pHYs") + 4
        per_metre, unit = np.frombuffer(raw[at : at + 8], ">u4"), raw[at + 8]
        assert unit == 1
        return tuple(pixels / per_metre / 0.0254)
    if path.suffix == ".svg":
        found = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', path.read_text())
        return tuple(float(x) / 72 for x in found.groups())
    raw = path.read_bytes()
    packed = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", raw, re.DOTALL)
    for part in packed:
        try:
            raw += zlib.decompress(part)
        except zlib.error:
            continue
    box = re.search(rb"/MediaBox \[ ?([\d. ]+)\]", raw).group(1).split()
    return float(box[2]) / 72, float(box[3]) / 72


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("width", ["column", "full"])
def test_saved_files_measure_the_width_of_the_journal(name, width, tmp_path):
    with plotting.style(name, formats=["png", "pdf", "svg"]):
        fig, ax = plotting.figure(width=width, height=2.0)
        ax.plot([0, 1], [0, 1000], label="a name that is far too long for the box it stands in")
        ax.set_ylabel("far below zero")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        written = plotting.write_figure(fig, tmp_path / "v1.2")
    assert [path.name for path in written] == ["v1.2.png", "v1.2.pdf", "v1.2.svg"]
    wanted = PUBLISHED[name][width == "full"]
    for path in written:
        measured = inches(path)
        assert measured[0] == pytest.approx(wanted, abs=2e-3 if path.suffix == ".png" else 1e-4)
        assert measured[1] == pytest.approx(2.0, abs=1e-4)


def test_a_three_and_a_half_inch_figure_measures_three_and_a_half_inches(tmp_path):
    with plotting.style("ieee"):
        fig, ax = plotting.figure()
        ax.set_ylabel("error")
        png, pdf = plotting.write_figure(fig, tmp_path / "figure")
    assert f"{inches(png)[0]:.3f}" == f"{inches(pdf)[0]:.3f}" == "3.500"


def test_journals_of_serif_type_have_serif_figures():
    from matplotlib.font_manager import FontProperties, findfont

    for name in PUBLISHED:
        with plotting.style(name):
            file = Path(findfont(FontProperties())).name.lower()
        serif = re.search(r"times|termes|nimbusrom|stix", file) is not None
        assert serif == (name in ("ieee", "neurips", "icml")), (name, file)


def test_a_style_holds_from_the_call_on_or_within_a_block():
    before = dict(mpl.rcParams)
    with plotting.style("icml"):
        assert mpl.rcParams["font.family"] == ["serif"]
        with plotting.paper_style():  # the style in force, not "plain" over it
            assert plotting.figure()[0].get_figwidth() == 3.25
        with plotting.style("nature"):
            assert plotting.figure()[0].get_figwidth() == pytest.approx(3.5039, abs=1e-4)
        assert plotting.figure()[0].get_figwidth() == 3.25
    assert dict(mpl.rcParams) == before
    assert plotting.figure()[0].get_figwidth() == 3.5
    chosen = plotting.style("neurips")
    assert plotting.figure()[0].get_figwidth() == 5.5
    chosen.close()
    assert dict(mpl.rcParams) == before


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with plotting.style(formats=["png", "pdf", "svg"]):
            fig, ax = plotting.figure()
            ax.plot([0, 1], [0, 1])
            files.append(plotting.write_figure(fig, tmp_path / folder / "x"))
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with plotting.style(), pytest.raises(FileExistsError, match=r"x\.png exists already"):
        plotting.write_figure(fig, tmp_path / "a" / "x", force=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "acm"}, ValueError, r"style must be one of 'plain', .*, got 'acm'"),
        ({"formats": ["eps"]}, ValueError, "formats must be among png, pdf, svg, pgf, got 'eps'"),
        ({"formats": []}, ValueError, "at least one"),
        ({"tex": True}, FileNotFoundError, "tex=True needs latex"),
        ({"formats": "pgf"}, FileNotFoundError, "format pgf needs xelatex"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_changes_nothing(
    arguments, error, message, monkeypatch
):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    before = dict(mpl.rcParams)
    with pytest.raises(error, match=message):
        plotting.style(**arguments)
    assert dict(mpl.rcParams) == before
    with pytest.raises(ValueError, match="width must be 'column', 'full' or inches"):
        plotting.figure(width="wide")


@pytest.mark.skipif(shutil.which("xelatex") is None, reason="pgf is measured by TeX")
def test_pgf_measures_the_column(tmp_path):
    with plotting.style("ieee", formats="pgf"):
        (path,) = plotting.write_figure(plotting.figure()[0], tmp_path / "x")
    assert "{3.500000in}" in path.read_text()
