"""Figures of commands: their style, and data with what an estimate says of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from afafilter._base.checks import Array
from afafilter._base.stamps import UNIT_WORDS, Stamps
from afafilter.io.files import atomic_path
from afafilter.io.series import Series
from afafilter.results import Estimate


class Look(NamedTuple):
    """How figures are drawn: the options --style, --formats and --tex."""

    style: str = "plain"
    formats: Sequence[str] = ("png", "pdf")
    tex: bool = False

    @classmethod
    def of(cls, options: dict[str, Any]) -> Look:
        """Taken out of a command's options."""
        return cls(*(options.pop(name) for name in cls._fields))

    def on(self) -> ExitStack:
        """`plotting.style`, with a backend that needs no screen."""
        os.environ.setdefault("MPLBACKEND", "Agg")
        import afafilter.plotting as plotting

        return plotting.style(self.style, formats=self.formats, tex=self.tex)


def draw_series(path: Path, seen: Estimate, noise: Array, series: Series, force: bool) -> None:
    """One panel per value: observations and the band of the signal, over dates where there are.

    Past the data also the band of measurements, whose noise is R (p, p), of steps the last one.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    import afafilter.plotting as plotting
    from afafilter.plotting.drawing import date_axis
    from afafilter.plotting.results import title as words

    p, t = len(series.columns), series.t
    past = seen.t > t[-1]
    cov = seen.cov[..., past, :, :] + noise.reshape(-1, p, p)[-1]
    ahead = Estimate(seen.t[past], seen.mean[..., past, :], cov)
    held = "band: 95 % of the signal" + ("\nahead, wider: of measurements" if past.any() else "")
    stamps = series.stamps
    if stamps is not None and stamps.dated:
        t, seen, ahead = (
            clocks(stamps, t),
            *(replace(one, t=clocks(stamps, one.t)) for one in (seen, ahead)),
        )
    units = series.value_units or ("",) * p
    with plotting.paper_style():
        fig, axes = plotting.figure(p, 1, height=0.6 + 1.6 * p, squeeze=False, sharex=True)
        for i, (ax, name) in enumerate(zip(axes[:, 0], series.columns)):
            plotting.observations(t, series.z, i, ax=ax)
            plotting.band(seen, i, ax=ax, label=words(seen))
            if past.any():
                plotting.band(ahead, i, ax=ax, label="_", color=ax.lines[-1].get_color())
            ax.set_ylabel(f"{name} ({units[i]})" if units[i] else name)
        axes[0, 0].legend(title=held, title_fontsize="small")
        if series.paths:
            title = f"{series.path_name} = {series.paths[0]}"
            count = len(series.paths)
            axes[0, 0].set_title(f"{title}, the first of {count}" if count > 1 else title)
        if stamps is not None and stamps.dated:
            date_axis(axes[-1, 0])
        else:
            unit = UNIT_WORDS.get(series.time_unit, "")
            axes[-1, 0].set_xlabel(f"time ({unit})" if unit else "time")
        with atomic_path(path, force=force) as temporary:
            fig.savefig(temporary, format=path.suffix[1:].lower())


def clocks(stamps: Stamps, t: Array) -> Any:
    """Dates (T,) of times t, as the clocks of the data show them."""
    found = stamps.at(t)
    east = stamps.minutes_east(found)
    return found if east is None else found + east.astype("timedelta64[m]")
