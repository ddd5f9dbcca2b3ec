"""What a colour means, in every picture: the home of colours, dashes and markers.

Estimators have colours of their own (Okabe and Ito's eight, and a few darker ones), the same in
every figure; forms of one differ in dash and marker. What is not an estimator (settings, models,
heads) is drawn in shades of purple, which no estimator has, from dark to light in its order.
"""

from __future__ import annotations

from typing import Any

COLOURS = {
    "truth": "#000000",
    "data": "#7f7f7f",
    "outlier": "#A50026",
    "raw": "#7f7f7f",
    "naive": "#7f7f7f",
    "Kalman": "#0072B2",
    "radial Kalman": "#0072B2",
    "filterpy": "#0072B2",
    "RTS": "#009E73",
    "robust RTS": "#004D38",
    "AFA": "#D55E00",
    "RT-AFA": "#D55E00",
    "RFA": "#D55E00",
    "SC-RFA": "#D55E00",
    "AFA robust": "#CC79A7",
    "AFA observation": "#CC79A7",
    "AFA prediction": "#CC79A7",
    "AFA estimate": "#CC79A7",
    "AFA two-sided robust": "#CC79A7",
    "AFA exact": "#56B4E9",
    "WoLF": "#E69F00",
    "IRKF": "#999933",
    "Huber": "#661100",
    "variational": "#882255",
    "mixture": "#44AA99",
    "IMM": "#44AA99",
    "particles": "#1B5E57",
}
"""By the first words of a series' name: "AFA exact robust" has the colour of "AFA exact"."""
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours as matplotlib's own cycle, for what is drawn without a name."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)))
MARKERS = "osD^vPX*<>"
_RAMP = ((0x2A, 0x08, 0x45), (0x6F, 0x3F, 0xA8), (0xBB, 0x9F, 0xDB))
"""Purple, dark to light."""


def colour_of(name: str) -> str | None:
    """The colour of the estimator or thing that a name begins with, None where it has none.

    Examples
    --------
    >>> from afafilter.plotting import COLOURS, colour_of
    >>> colour_of("Kalman, no outlier") == COLOURS["Kalman"]
    True
    >>> colour_of("Kalmanesque") is None
    True
    """
    begun = (k for k in COLOURS if name.startswith(k) and not name[len(k) : len(k) + 1].isalnum())
    found = max(begun, key=len, default=None)
    return None if found is None else COLOURS[found]


def shades(n: int) -> list[str]:
    """n shades of purple from dark to light: for settings, in their order."""
    out = []
    for k in range(n):
        place = k / max(n - 1, 1) * (len(_RAMP) - 1)
        low = min(int(place), len(_RAMP) - 2)
        mixed = (
            round(a + (place - low) * (b - a))
            for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True)
        )
        out.append("#" + "".join(f"{channel:02X}" for channel in mixed))
    return out


def line_style(index: int, of: int = 5) -> dict[str, Any]:
    """Shade and dash pattern of series number `index` of so many: distinct also in greyscale."""
    return {"color": shades(of)[index % of], "linestyle": DASHES[index % len(DASHES)]}


def series_style(name: str, index: int, of: int = 5) -> dict[str, Any]:
    """As `line_style`, in the colour of an estimator where the name is one."""
    style = line_style(index, of)
    return style | {"color": colour_of(name) or style["color"]}
