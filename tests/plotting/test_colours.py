"""Colours mean the same in every picture, and what is no estimator has none of theirs."""

from __future__ import annotations

import colorsys

import matplotlib as mpl
import numpy as np
import pytest

from afafilter import plotting
from afafilter.plotting import COLOURS, colour_of, line_style, series_style, shades

mpl.use("Agg")


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1) of #RRGGBB."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Kalman", "Kalman"),
        ("Kalman, no outlier", "Kalman"),
        ("Kalman filter", "Kalman"),
        ("AFA exact robust", "AFA exact"),
        ("AFA, exact law", "AFA"),
        ("AFA two-sided", "AFA"),
        ("AFA two-sided robust", "AFA two-sided robust"),
        ("WoLF-IMQ", "WoLF"),
        ("robust RTS, flat start", "robust RTS"),
        ("mixture guessed", "mixture"),
    ],
)
def test_a_name_has_the_colour_of_its_first_words(name, key):
    assert colour_of(name) == COLOURS[key]
    assert series_style(name, 3)["color"] == COLOURS[key]


def test_other_names_have_none():
    for name in ("Kalmanesque", "learned AFA", "", "RoPE"):
        assert colour_of(name) is None
        assert series_style(name, 2, 4) == line_style(2, 4)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_shades_are_purple_ordered_readable_and_nobody_elses(n):
    found = shades(n)
    assert len(set(found)) == n
    light = [_luminance(colour) for colour in found]
    assert light == sorted(light)
    assert all(1.05 / (x + 0.05) > 2 for x in light)  # contrast with white paper
    hues = [colorsys.rgb_to_hsv(*(int(c[k : k + 2], 16) for k in (1, 3, 5)))[0] for c in found]
    assert all(0.7 < hue < 0.8 for hue in hues)
    assert not set(found) & set(COLOURS.values())
    theirs = [
        colorsys.rgb_to_hsv(*(int(c[k : k + 2], 16) for k in (1, 3, 5)))[0]
        for c in COLOURS.values()
    ]
    assert not any(0.68 < hue < 0.82 for hue in theirs)


def test_curves_and_intervals_give_names_their_colours():
    fig, (left, right) = plotting.figure(1, 2)
    x = np.arange(3.0)
    plotting.curves(x, {"AFA": x, "RTS": x, "mine": x}, ax=left)
    assert [line.get_color() for line in left.lines] == [
        COLOURS["AFA"],
        COLOURS["RTS"],
        shades(3)[2],
    ]
    plotting.intervals(["RTS", "mine"], x[:2], x[:2] - 1, x[:2] + 1, ax=right)
    assert right.lines[0].get_color() == COLOURS["RTS"]
    mpl.pyplot.close(fig)


def test_maps_are_coloured_by_name_paled_where_undecided_and_ticked_at_decades():
    fig, ax = plotting.figure()
    x = [0.0, *np.geomspace(1e-4, 1.0, 9)]
    codes = np.zeros((2, 10), int)
    codes[1] = 1
    undecided = codes == 1
    plotting.category_map(
        codes, ["Kalman", "RTS"], x, [0.0, 0.1], hatched=undecided, letters="KR", ax=ax
    )
    image = ax.images[0].get_array()
    kalman, rts = (np.array(mpl.colors.to_rgb(COLOURS[n])) for n in ("Kalman", "RTS"))
    np.testing.assert_allclose(image[0, 0], 1 - 0.6 * (1 - kalman))
    np.testing.assert_allclose(image[1, 0], 1 - 0.25 * (1 - rts))
    assert len(ax.patches) == 10
    np.testing.assert_allclose(ax.get_xticks(), [0, 1, 3, 5, 7, 9])
    assert [t.get_text() for t in ax.get_xticklabels()][:3] == ["0", "$10^{-4}$", "$10^{-3}$"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["K: Kalman", "R: RTS"]
    mpl.pyplot.close(fig)


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [((0.01, 20.0), ["0.05", "1", "10"]), ((0.2, 1.1), ["0.2", "0.3", "1"]), ((0.8, 1.3), ["1"])],
)
def test_decimal_ticks_are_decimals_and_several(ends, wanted):
    fig, ax = plotting.figure()
    ax.semilogy([0, 1], ends)
    plotting.decimal_ticks(ax)
    fig.canvas.draw()
    low, high = ax.get_ylim()
    shown = [
        t.get_text() for t, y in zip(ax.get_yticklabels(), ax.get_yticks()) if low <= y <= high
    ]
    assert set(wanted) <= set(shown)
    assert len(shown) >= 3
    assert all(float(text) > 0 for text in shown)
    mpl.pyplot.close(fig)
