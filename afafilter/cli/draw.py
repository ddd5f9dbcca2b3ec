"""Figures of commands: their style, and data with what an estimate says of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from afafilter._base.stamps import UNIT_WORDS
from afafilter.io.files import atomic_path
from afafilter.io.series import Series
from afafilter.results import Estimate


class Look(NamedTuple):
    """How figures are drawn: the options --style, --formats and --tex."""

    style: str = "plain"
    formats: Sequence[str] = ("png", "pdf")
    tex: bool = False

    def on(self) -> ExitStack:
        """`plotting.style`, with a backend that needs no screen."""
        os.environ.setdefault("MPLBACKEND", "Agg")
        import afafilter.plotting as plotting

        return plotting.style(self.style, formats=self.formats, tex=self.tex)


def draw_series(path: Path, seen: Estimate, series: Series, force: bool) -> Path:
    """One panel per value: observations and the band of the signal."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import afafilter.plotting as plotting

    p = len(series.columns)
    with plotting.paper_style():
        fig, axes = plotting.figure(p, 1, height=0.6 + 1.6 * p, squeeze=False, sharex=True)
        for i, (ax, name) in enumerate(zip(axes[:, 0], series.columns)):
            plotting.observations(series.t, series.z, i, ax=ax)
            plotting.band(seen, i, ax=ax)
            ax.set_ylabel(name)
        axes[0, 0].legend()
        if series.paths:
            title = f"{series.path_name} = {series.paths[0]}"
            count = len(series.paths)
            axes[0, 0].set_title(f"{title}, the first of {count}" if count > 1 else title)
        axis = "time"
        if series.dates is not None:
            start = str(series.dates[0])[:16].replace("T00:00", "")
            axis = f"{UNIT_WORDS[series.time_unit]} since {start}"
        axes[-1, 0].set_xlabel(axis)
        with atomic_path(path, force=force) as temporary:
            fig.savefig(temporary, format=path.suffix[1:].lower())
    return path
