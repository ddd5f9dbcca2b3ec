"""Films: as many frames as asked for, each with what is known at its time and no more."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from afafilter import StudentT, brownian, constant_velocity, datasets, plotting, simulate, spiral
from afafilter.cli import main
from afafilter.plotting.animation import _scene
from tests.cli import runner

mpl.use("Agg")
MODEL = spiral(process_var=0.1)
DATA = simulate(MODEL, 0.1 * np.arange(40), 1, rng=0, x0=[20.0, 0.0])


def frames_of(file: Path) -> list[np.ndarray]:
    with Image.open(file) as film:
        out = []
        for k in range(film.n_frames):
            film.seek(k)
            out.append(np.asarray(film.convert("RGB")))
    return out


def inked(picture: np.ndarray) -> int:
    return int((picture.min(axis=-1) < 200).sum())


def near(picture: np.ndarray, colour: str) -> np.ndarray:
    """Which pixels are near a colour."""
    wanted = 255 * np.array(mpl.colors.to_rgb(colour))
    return np.abs(picture - wanted).max(axis=-1) < 25


def coloured(picture: np.ndarray, name: str) -> int:
    """Pixels near the colour of that name."""
    return int(near(picture, plotting.COLOURS[name]).sum())


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A film of nine pictures, and the pictures."""
    folder = tmp_path_factory.mktemp("film")
    file = plotting.animate(folder / "a.gif", MODEL, DATA.t, DATA.z, truth=DATA.x, frames=9, fps=20)
    return file, frames_of(file)


def test_a_film_has_the_frames_asked_for_and_each_shows_more_of_the_path(film):
    file, found = film
    assert len(found) == 9
    with Image.open(file) as opened:
        assert opened.info["duration"] == 50
    assert all(picture.shape == found[0].shape for picture in found)
    truth = [coloured(picture[:, : picture.shape[1] // 2], "AFA") for picture in found]
    assert truth[0] < truth[4] < truth[8]
    assert all(inked(picture) > 1000 for picture in found)
    differ = [np.any(a != b) for a, b in itertools.pairwise(found)]
    assert all(differ)


def test_the_weights_of_a_window_of_one_are_one_bar(film, tmp_path):
    """Columns of the right half that hold much of the bars' colour."""

    def bars(last: np.ndarray) -> int:
        purple = near(last[:, last.shape[1] // 2 :], plotting.shades(1)[0])
        return int((purple.sum(axis=0) > 20).sum())

    file = plotting.animate(tmp_path / "1.gif", MODEL, DATA.t, DATA.z, frames=3, window=1)
    assert 1 <= bars(frames_of(file)[-1]) <= 4
    assert bars(film[1][-1]) > 60


def test_paper_is_white(film):
    for picture in film[1]:
        assert (picture[0, 0] == 255).all()
        assert (picture == 255).all(axis=-1).mean() > 0.7


@pytest.mark.parametrize(
    "model", [brownian(process_var=0.1, obs_var=1.0), constant_velocity(process_var=0.1)]
)
def test_a_number_or_a_part_of_the_state_is_shown_over_time(tmp_path, model):
    t = np.arange(30.0)
    data = simulate(model, t, 1, rng=1, x0=np.zeros(model.dim), missing=0.2)
    file = plotting.animate(
        tmp_path / "a.gif",
        model,
        t,
        data.z[0],
        truth=data.x[0],
        frames=4,
        weight=StudentT(4.0),
        anchor="estimate",
    )
    found = frames_of(file)
    assert len(found) == 4
    assert coloured(found[-1], "AFA") > coloured(found[0], "AFA")


def test_nothing_changes_but_the_file(tmp_path):
    from matplotlib import pyplot as plt

    before, open_figures = dict(mpl.rcParams), plt.get_fignums()
    plotting.animate(tmp_path / "a.gif", MODEL, DATA.t, DATA.z, frames=2)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == open_figures
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    with pytest.raises(FileExistsError, match=r"a\.gif exists already"):
        plotting.animate(tmp_path / "a.gif", MODEL, DATA.t, DATA.z, frames=2)
    plotting.animate(tmp_path / "a.gif", MODEL, DATA.t, DATA.z, frames=3, force=True)
    assert len(frames_of(tmp_path / "a.gif")) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"file": "a.avi"}, r"a\.avi: the film's name must end in \.gif or \.mp4"),
        ({"components": (0, 2)}, r"components must be two different states of 2 .* got \(0, 2\)"),
        ({"components": (1, 1)}, "two different states"),
        ({"frames": 1}, "frames must be >= 2, got 1"),
        ({"fps": 0}, "fps must be >= 1, got 0"),
        ({"correlation": "exact"}, "has no attention to show"),
        ({"t": [0.0], "z": [[1.0, 1.0]]}, "at least two times, got 1"),
        ({"truth": np.zeros((40, 3))}, r"truth must have shape \(40, 2\).* got \(40, 3\)"),
    ],
)
def test_bad_input_is_named(tmp_path, options, words):
    given = {"file": "a.gif", "t": DATA.t, "z": DATA.z} | options
    file = tmp_path / given.pop("file")
    with pytest.raises(ValueError, match=words):
        plotting.animate(file, MODEL, given.pop("t"), given.pop("z"), **given)
    assert list(tmp_path.iterdir()) == []


def test_mp4_without_ffmpeg_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"an \.mp4 needs ffmpeg.*or write a \.gif"):
        plotting.animate(tmp_path / "a.mp4", MODEL, DATA.t, DATA.z)


def _fake_ffmpeg(folder: Path, last_line: str, code: int) -> None:
    """A program called ffmpeg that keeps what it is told and what it is given."""
    script = folder / "ffmpeg"
    script.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "data = sys.stdin.buffer.read()\n"
        "open(sys.argv[-1], 'wb').write(repr(sys.argv[1:-1]).encode() + b'\\n' + data)\n"
        f"print({last_line!r}, file=sys.stderr)\nsys.exit({code})\n"
    )
    script.chmod(0o755)


def test_ffmpeg_is_given_every_frame_and_its_complaint_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    _fake_ffmpeg(tmp_path, "", 0)
    file = plotting.animate(tmp_path / "a.mp4", MODEL, DATA.t, DATA.z, frames=2, fps=7)
    told, _, data = file.read_bytes().partition(b"\n")
    size = told.decode().split("'-s', '")[1].split("'")[0]
    width, height = (int(x) for x in size.split("x"))
    assert len(data) == 2 * width * height * 3
    assert "'-r', '7'" in told.decode()
    _fake_ffmpeg(tmp_path, "Unknown encoder", 1)
    with pytest.raises(RuntimeError, match=r"ffmpeg could not write \.mp4: Unknown encoder"):
        plotting.animate(tmp_path / "b.mp4", MODEL, DATA.t, DATA.z, frames=2)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_mp4_by_the_real_ffmpeg(tmp_path):
    file = plotting.animate(tmp_path / "a.mp4", MODEL, DATA.t, DATA.z, frames=5)
    assert file.read_bytes()[4:8] == b"ftyp"


def test_the_command_films_own_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nile = datasets.DATA / "nile.csv"
    given = [nile, "--model", nile.with_suffix(".toml"), "--set", "window=6", "--frames", "5"]
    done = runner().invoke(main, ["animate", *map(str, given), "-o", "n.gif"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "wrote n.gif (5 frames) and n.config.json\n"
    found = frames_of(tmp_path / "n.gif")
    assert len(found) == 5
    assert all(inked(picture) > 1000 for picture in found)


def test_the_command_films_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = runner().invoke(
        main, ["animate", "--preset", "spiral", "--n", "30", "--frames", "4", "--outlier-rate",
               "0.1", "--weight", "student_t", "--nu", "4"],
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "wrote spiral-attention.gif (4 frames) and spiral-attention.config.json\n"
    assert len(frames_of(tmp_path / "spiral-attention.gif")) == 4


def test_films_of_nothing_and_of_labels_are_refused(tmp_path) -> None:
    model, t = brownian(1.0, 1.0), np.arange(6.0)
    for z, said in (
        (np.full(6, np.nan), "every value is missing"),
        (np.ma.masked_all(6), "every value is missing"),
        (pd.Series(t, index=t + 3), "labelled by other times"),
    ):
        with pytest.raises(ValueError, match=said):
            plotting.animate(tmp_path / "a.gif", model, t, z)
    assert list(tmp_path.iterdir()) == []


def test_what_a_mask_hides_of_the_truth_is_not_drawn() -> None:
    t, hidden = np.arange(6.0), np.arange(6) == 2
    x = np.ma.array(np.where(hidden, -9999.0, t), mask=hidden)[:, None]
    scene = _scene(brownian(1.0, 1.0), t, t, x, 0, 3, {})
    np.testing.assert_array_equal(scene.truth[:, 0], np.where(hidden, np.nan, t))
