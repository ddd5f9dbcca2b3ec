"""Figures at the widths and in the type of journals, and the files they are written to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

from afafilter.io.files import atomic_path
from afafilter.plotting.colours import CYCLE

SERIF = ("Times New Roman", "Times", "Nimbus Roman", "TeX Gyre Termes", "STIXGeneral")
SANS = ("Arial", "Helvetica", "Nimbus Sans", "TeX Gyre Heros", "DejaVu Sans")

Width = Literal["column", "full"] | float


@dataclass(frozen=True)
class Style:
    """What a journal wants: widths of a column and of the page's text in inches, type in points."""

    column: float
    full: float
    family: Literal["serif", "sans-serif"]
    size: float
    small: float


STYLES = {
    "plain": Style(3.5, 7.0, "sans-serif", 8, 6.5),
    "ieee": Style(3.5, 7.16, "serif", 8, 7),
    "neurips": Style(5.5, 5.5, "serif", 9, 8),
    "icml": Style(3.25, 6.75, "serif", 8, 7),
    "nature": Style(89 / 25.4, 183 / 25.4, "sans-serif", 7, 6),
}
"""By name. "neurips" has one column; widths of "nature" are 89 and 183 mm."""

FORMATS = ("png", "pdf", "svg", "pgf")
_NO_DATE: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


@dataclass(frozen=True)
class _Chosen:
    """The style in force and the formats that `write_figure` writes."""

    style: Style
    formats: tuple[str, ...]


_in_force: list[_Chosen] = []
"""Styles chosen and not left yet, the last one in force: of the process, as rcParams are."""


def style(
    name: str = "plain", *, tex: bool = False, formats: Sequence[str] = ("png", "pdf")
) -> ExitStack:
    """Draw in the style of a journal: from the call on, or within `with style(...)` only.

    A figure of `figure()` then measures the journal's column to the last digit in the file it is
    saved to: nothing is cropped or padded on saving.

    Parameters
    ----------
    name : str
        "ieee" (3.5 and 7.16 inches), "neurips" (5.5), "icml" (3.25 and 6.75), "nature" (89 and
        183 mm) or "plain" (3.5 and 7).
    tex : bool
        Set all text by TeX, in its own face; needs latex and dvipng. Without, Times or a face of
        its proportions (Helvetica for "nature").
    formats : sequence of str
        What `write_figure` writes: "png", "pdf", "svg", "pgf" (pgf needs xelatex).

    Returns
    -------
    contextlib.ExitStack
        Leaving it, by `with` or `close()`, restores rcParams.

    Raises
    ------
    ValueError
        Unknown name or format.
    FileNotFoundError
        If TeX is asked for and not installed.

    Examples
    --------
    >>> from afafilter import plotting
    >>> with plotting.style("ieee"):
    ...     fig, ax = plotting.figure(width="full", height=2.0)
    >>> [float(x) for x in fig.get_size_inches()]
    [7.16, 2.0]
    """
    if name not in STYLES:
        raise ValueError(f"style must be one of {', '.join(map(repr, STYLES))}, got {name!r}")
    wanted = (formats,) if isinstance(formats, str) else tuple(formats)
    for each in wanted:
        if each not in FORMATS:
            raise ValueError(f"formats must be among {', '.join(FORMATS)}, got {each!r}")
    if not wanted:
        raise ValueError(f"formats must name at least one of {', '.join(FORMATS)}, got none")
    programs = {"latex": tex, "dvipng": tex, "xelatex": "pgf" in wanted}
    for program, needed in programs.items():
        if needed and shutil.which(program) is None:
            what = "tex=True" if tex and program != "xelatex" else "format pgf"
            raise FileNotFoundError(
                f"{what} needs {program}, which is not on the PATH: install TeX, or leave it out"
            )
    chosen = STYLES[name]
    stack = ExitStack()
    stack.callback(dict.update, mpl.rcParams, mpl.rcParams.copy())
    stack.callback(_in_force.__delitem__, slice(len(_in_force), None))
    _in_force.append(_Chosen(chosen, wanted))
    mpl.rcParams.update(cast(Any, settings(chosen, tex=tex)))
    return stack


def settings(chosen: Style, *, tex: bool = False) -> dict[str, Any]:
    """rcParams of a style: thin lines, vector fonts, figures saved at the size they have."""
    serif = chosen.family == "serif"
    return {
        "figure.figsize": (chosen.column, 2.4),
        "font.family": chosen.family,
        "font.serif": SERIF,
        "font.sans-serif": ("DejaVu Sans",) if chosen is STYLES["plain"] else SANS,
        "mathtext.fontset": "stix" if serif else "dejavusans",
        "text.usetex": tex,
        "font.size": chosen.size,
        "axes.labelsize": chosen.size,
        "axes.titlesize": chosen.size,
        "xtick.labelsize": max(chosen.small, chosen.size - 1),
        "ytick.labelsize": max(chosen.small, chosen.size - 1),
        "legend.fontsize": chosen.small,
        "legend.frameon": False,
        "legend.handlelength": 2.2,
        "lines.linewidth": 1.1,
        "lines.markersize": 3,
        "axes.linewidth": 0.6,
        "hatch.linewidth": 0.4,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "axes.prop_cycle": cycler(color=CYCLE),
        "figure.dpi": 100,
        "savefig.dpi": 300,
        "savefig.bbox": None,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "afafilter",
        "pgf.rcfonts": False,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.02,
        "figure.constrained_layout.h_pad": 0.02,
    }


def _current() -> _Chosen:
    return _in_force[-1] if _in_force else _Chosen(STYLES["plain"], ("png", "pdf"))


@contextmanager
def paper_style() -> Iterator[None]:
    """The style in force, or "plain" where `style` has chosen none."""
    if _in_force:
        yield
        return
    with style():
        yield


def figure(
    rows: int = 1, columns: int = 1, *, width: Width = "column", height: float = 2.4, **options: Any
) -> tuple[Any, Any]:
    """A figure and its axes, as `matplotlib.pyplot.subplots`.

    Parameters
    ----------
    rows, columns : int
        Of axes.
    width : {"column", "full"} or float
        One column of the style in force, the whole width of its text, or inches.
    height : float
        Inches.
    **options
        Of `matplotlib.pyplot.subplots`.
    """
    chosen = _current().style
    if isinstance(width, str):
        if width not in ("column", "full"):
            raise ValueError(f"width must be 'column', 'full' or inches, got {width!r}")
        width = chosen.column if width == "column" else chosen.full
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def write_figure(fig: Figure, stem: str | Path, *, force: bool = True) -> list[Path]:
    """Write stem.png, stem.pdf or what formats the style in force names; the paths.

    The files hold no date, so that the same figure gives the same bytes.

    Raises
    ------
    FileExistsError
        If one exists and `force` is False.
    """
    written, engine = [], fig.get_layout_engine()
    for suffix in _current().formats:
        target = Path(stem).with_name(f"{Path(stem).name}.{suffix}")
        with atomic_path(target, force=force) as temporary:
            fig.savefig(temporary, format=suffix, metadata=_NO_DATE.get(suffix))
        fig.set_layout_engine("none")  # laid out by now: once is enough
        written.append(target)
    fig.set_layout_engine(engine)
    return written
