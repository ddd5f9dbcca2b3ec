"""Writes core/tables.h: what core/powers.h needs to know of logarithms, powers and angles.

Power series are economised: what a series has beyond so many terms is replaced by the beginning of
its Chebyshev series on the interval where it is used. Run it after changing a number of terms:
`python tools/core_tables.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

PLACES = 4
"""Leading bits that choose an entry of the tables."""
TABLE = 2**PLACES
LARGEST = (2**0.5 - 1) / (2**0.5 + 1)
"""Largest |m - 1| / (m + 1) of a mantissa between 1 / sqrt 2 and sqrt 2."""
QUARTER = np.pi / 4 + 1e-6
"""Largest angle that is left after multiples of pi / 2."""

_TERMS = np.arange(24.0)
_FACTORIALS = np.cumprod(np.maximum(_TERMS, 1.0))
EXP = np.log(2.0) ** _TERMS / _FACTORIALS  # 2^y in y
LOG = (-1.0) ** _TERMS / (_TERMS + 1.0) / np.log(2.0)  # log2(1 + f) / f in f
ARTANH = 2.0 / (2.0 * _TERMS + 1.0) / np.log(2.0)  # log2((1 + f) / (1 - f)) / f in f^2
SINE = np.array([(-1.0) ** k / _FACTORIALS[2 * k + 1] for k in range(12)])  # sin(x) / x in x^2
COSINE = np.array([(-1.0) ** k / _FACTORIALS[2 * k] for k in range(12)])  # cos(x) in x^2

KINDS = {
    "double": (np.float64, np.int64, 52, (8, 7, 7, 12)),
    "float": (np.float32, np.int32, 23, (4, 4, 4, 7)),
}
"""Name in C++: number, whole number, bits of the mantissa, terms of log2 and 2^y with and without
tables."""


def economised(series: Any, terms: int, low: float, high: float) -> Any:
    """Coefficients of a polynomial close to a power series from low to high."""
    beyond = np.append(np.zeros(terms), series[terms:])
    rest = Polynomial(beyond).convert(domain=[low, high], kind=Chebyshev).truncate(terms)
    return series[:terms] + rest.convert(domain=[-1, 1], kind=Polynomial).coef


def tables(name: str) -> Iterator[str]:
    """Lines of the tables of one floating point type."""
    real, whole, mantissa, (log_table, exp_table, log_series, exp_series) = KINDS[name]

    def listed(numbers: Any) -> str:
        suffix = "f" if name == "float" else ""
        return ", ".join(float(x).hex() + suffix for x in np.asarray(numbers).astype(real))

    def bits(x: float) -> int:
        return int(real(x).view(whole))

    rounding = 1.5 * 2.0**mantissa
    inverses = real(1.0) / real(1.0 + (np.arange(TABLE) + 0.5) / TABLE)
    roots = real(2.0 ** (np.arange(TABLE) / TABLE))
    added = np.arange(TABLE, dtype=whole) << (mantissa - PLACES)
    half = 0.5 / TABLE
    yield f"template <> struct Tables<{name}> {{"
    yield f"    using Bits = {'uint64_t' if name == 'double' else 'uint32_t'};"
    yield f"    static constexpr int MANTISSA = {mantissa};"
    yield f"    static constexpr Bits ONE = {bits(1.0)}u, ROOT_HALF = {bits(0.5**0.5)}u;"
    yield f"    static constexpr {name} ROUNDING = {listed([rounding])};"
    for table, entries, says in (
        ("INVERSES", inverses, "1 / m in the middle of an entry"),
        ("LOGARITHMS", -np.log2(inverses.astype(float)), "-log2 of them"),
        ("ROOTS", (roots.view(whole) - added).view(real), "2^(k/16) less the bits that k adds"),
    ):
        yield f"    // {says}"
        yield f"    alignas(64) static constexpr {name} {table}[{TABLE}] = {{{listed(entries)}}};"
    for series, terms in (
        ("LOG_TABLE", economised(LOG, log_table, -half, half)),
        ("EXP_TABLE", economised(EXP, exp_table, -half, half)),
        ("LOG_SERIES", economised(ARTANH, log_series, 0.0, LARGEST**2)),
        ("EXP_SERIES", economised(EXP, exp_series, -0.5, 0.5)),
    ):
        yield f"    static constexpr {name} {series}[] = {{{listed(terms)}}};"
    for series, terms in (("SINE", (SINE, 7)), ("COSINE", (COSINE, 8))):
        if name == "double":
            entries = listed(economised(*terms, 0.0, QUARTER**2))
            yield f"    static constexpr double {series}[] = {{{entries}}};"
    yield "};"


def text() -> str:
    """The header."""
    lines = [
        "// Written by tools/core_tables.py, which says what these are.",
        "#pragma once",
        "#include <cstdint>",
        "",
        "namespace afa {",
        "",
        "template <class T> struct Tables;",
        *(line for name in KINDS for line in tables(name)),
        "",
        "}  // namespace afa",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent.parent / "core" / "tables.h").write_text(text())
