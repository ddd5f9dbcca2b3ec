"""Numbers as text: rounding by their uncertainty, LaTeX (booktabs) and Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

_LATEX = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_UNICODE = {"±": r"$\pm$", "²": r"$^2$", "∞": r"$\infty$"}


@dataclass(frozen=True)
class Cell:
    """A number to print; `text` replaces it."""

    value: float
    se: float = np.nan
    best: bool = False
    text: str | None = None


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join((_LATEX | _UNICODE).get(c, c) for c in text)


def escape_markdown(text: str) -> str:
    """Text that does not end a Markdown table cell or start emphasis."""
    return "".join("\\" + c if c in "|*_`\\" else c for c in text)


def decimals(value: float, se: float, digits: int) -> int:
    """Decimals to print: one digit of the uncertainty (two if it starts with 1), or `digits`
    significant digits where there is none."""
    if np.isfinite(se) and se > 0:
        first = int(np.floor(np.log10(se)))
        leading = se / 10.0**first
        return max(0, -first + (leading < 1.95))
    if not np.isfinite(value) or value == 0:
        return digits - 1
    return max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))


def plain(cell: Cell, digits: int = 3) -> str:
    """E.g. "0.332 ± 0.004"; "--" for NaN."""
    if cell.text is not None:
        return cell.text
    if np.isnan(cell.value):
        return "--"
    if np.isinf(cell.value):
        return "∞" if cell.value > 0 else "-∞"
    places = decimals(cell.value, cell.se, digits)
    number = f"{cell.value:.{places}f}"
    return f"{number} ± {cell.se:.{places}f}" if np.isfinite(cell.se) else number


def _explained(rows: Sequence[tuple[str, Sequence[Cell]]], digits: int) -> str:
    """What ± means below a table that has one."""
    shown = any("±" in plain(cell, digits) for _, cells in rows for cell in cells)
    return "± one standard error" if shown else ""


def latex_table(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    *,
    corner: str = "",
    digits: int = 3,
    caption: str | None = None,
    label: str | None = None,
) -> str:
    """A booktabs `tabular`, inside a `table` if there is a caption or a label; best in bold.

    Where entries have a ±, a last line says that it is one standard error.
    """

    def entry(cell: Cell) -> str:
        text = plain(cell, digits)
        if cell.text is not None or np.isnan(cell.value):
            return escape_latex(text)
        number, _, se = text.replace("∞", r"\infty").partition(" ± ")
        number = rf"\mathbf{{{number}}}" if cell.best else number
        return f"${number} \\pm {se}$" if se else f"${number}$"

    body = booktabs(
        [escape_latex(corner), *map(escape_latex, columns)],
        [[escape_latex(name), *map(entry, cells)] for name, cells in rows],
        "l" + "r" * len(columns),
        escape_latex(_explained(rows, digits)),
    )
    if caption is None and label is None:
        return body
    return latex_float("table", body, caption=caption, label=label)


def booktabs(
    heads: Sequence[str], rows: Sequence[Sequence[str]], columns: str, note: str = ""
) -> str:
    """A `tabular` with booktabs' rules, of entries that are LaTeX; columns as in "lrr"."""
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(heads) + r" \\"]
    lines += [r"\midrule", *(" & ".join(row) + r" \\" for row in rows), r"\bottomrule"]
    lines += [rf"\multicolumn{{{len(heads)}}}{{l}}{{\footnotesize {note}}} \\"] if note else []
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def latex_float(
    kind: Literal["figure", "table"], body: str, *, caption: str | None, label: str | None
) -> str:
    """A float around `body`, with the caption above a table and below a figure."""
    words = [] if caption is None else [rf"\caption{{{caption}}}"]
    words += [] if label is None else [rf"\label{{{label}}}"]
    inside = [*words, body.rstrip("\n")] if kind == "table" else [body.rstrip("\n"), *words]
    lines = [rf"\begin{{{kind}}}", r"\centering", *inside, rf"\end{{{kind}}}"]
    return "\n".join(lines) + "\n"


def markdown_table(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    *,
    corner: str = "",
    digits: int = 3,
) -> str:
    """A pipe table, numbers right-aligned, best in bold; below it what ± means."""

    def entry(cell: Cell) -> str:
        text = plain(cell, digits)
        return f"**{text}**" if cell.best else escape_markdown(text)

    lines = [
        [escape_markdown(corner), *map(escape_markdown, columns)],
        ["---", *["---:"] * len(columns)],
        *([escape_markdown(name), *map(entry, cells)] for name, cells in rows),
    ]
    note = _explained(rows, digits)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + (note and f"\n{note}\n")
