"""Films: frames of a figure whose parts move, written as GIF or MP4."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from afafilter._base.progress import watched

SUFFIXES = (".gif", ".mp4")


class Stage(NamedTuple):
    """A picture's moving parts, and what puts them where they are at frame k."""

    moving: Sequence[Artist]
    update: Callable[[int], None]


def film_path(file: str | Path) -> Path:
    """The file of a film, if it can be written here."""
    target = Path(file)
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{target}: the film's name must end in {' or '.join(SUFFIXES)}")
    if target.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise FileNotFoundError(
            "an .mp4 needs ffmpeg, which is not on the PATH: install it, or write a .gif"
        )
    return target


def pictures(fig: Figure, n: int, stages: Sequence[Stage]) -> Iterator[NDArray[np.uint8]]:
    """The last of n frames, for its colours, then all of them, each (height, width, 3).

    Only what moves is drawn anew.
    """
    canvas: Any = FigureCanvasAgg(fig)
    moving = [artist for stage in stages for artist in stage.moving]
    last = n - 1
    for stage in stages:
        stage.update(last)
    canvas.draw()  # laid out by the last frame, once
    fig.set_layout_engine("none")
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(fig.bbox)
    for k in (last, *tqdm(range(last + 1), disable=not watched(), leave=False, unit="frame")):
        canvas.restore_region(still)
        for stage in stages:
            stage.update(k)
        for artist in moving:
            fig.draw_artist(artist)
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_gif(file: Path, pictures: Iterator[NDArray[np.uint8]], fps: int) -> None:
    """In the colours of the last frame, which has them all."""
    from PIL import Image

    palette = Image.fromarray(next(pictures)).quantize(255, dither=Image.Dither.NONE)
    colours = np.array(palette.getpalette(), dtype=np.uint8).reshape(-1, 3)
    colours[colours.min(axis=1) > 245] = 255  # paper is white
    palette.putpalette(colours.ravel().tolist())
    first, *rest = (
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    )
    first.save(file, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def write_mp4(file: Path, pictures: Iterator[NDArray[np.uint8]], fps: int) -> None:
    """Raw frames to ffmpeg: H.264, as every player takes it, where this ffmpeg has it."""
    height, width, _ = next(pictures).shape
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    coded = "-an -pix_fmt yuv420p -vf crop=trunc(iw/2)*2:trunc(ih/2)*2"
    command = ["ffmpeg", "-v", "error", "-y", *raw.split(), *coded.split(), str(file)]
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said) as coder:
            assert coder.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                for picture in pictures:
                    coder.stdin.write(picture.tobytes())
                coder.stdin.close()
        if coder.returncode:
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise RuntimeError(f"ffmpeg could not write {file.suffix}: {words[-1]}")
