"""Writing a figure with its table, captions and configuration side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from afafilter.io import atomic_path, write_sidecar
from afafilter.io.tables import booktabs, escape_latex, latex_float
from afafilter.plotting import write_figure

MOST_ROWS = 40
"""A printed table's; what is longer is a data file."""
HEADS = {
    "process_var": r"$\sigma^2$",
    "obs_var": r"$\eta^2$",
    "assumed_var": r"assumed $\sigma^2$",
    "rmse": "RMSE",
    "rmse_se": "s.\\,e.",
    "nees": "NEES",
    "nees_se": "s.\\,e. of NEES",
    "coverage95": r"95\,\% coverage",
    "coverage95_se": "s.\\,e. of coverage",
    "ms_per_path": "ms a path",
    "p_value": "$p$",
    "p_holm": "$p$ (Holm)",
    "n": "$N$",
    "dim": "$d$",
    "decay": r"$\mu$",
    "frequency": r"$\omega$",
    "alpha": r"$\alpha$",
    "beta": r"$\beta$",
    "wald": "Wald",
    "std_error": "s.\\,e.",
    "bias_over_se": "bias / s.\\,e.",
    "coverage50": r"50\,\% coverage",
    "coverage90": r"90\,\% coverage",
    "loglik": r"$\log L$",
    "aic": "AIC",
    "bic": "BIC",
}
"""Columns whose printed name is not their own with blanks."""


def save(
    fig: Figure,
    out_dir: Path,
    name: str,
    table: pd.DataFrame,
    *,
    caption: str,
    config: Mapping[str, Any],
    finding: str = "",
    latex: pd.DataFrame | None = None,
    table_caption: str = "",
) -> list[Path]:
    """Write the figure, name.figure.tex, name.csv, name.tex, name.json; return the paths.

    With a finding also name.md. name.figure.tex is a float with the picture and its caption;
    name.tex a float with `latex`, or the table itself, thinned to 40 rows.
    Text of the figure must be words, not snake_case.
    `finding` is a paragraph on what the experiment shows, its numbers formatted from the run.
    """
    refuse_snake_case(fig)
    out_dir.mkdir(parents=True, exist_ok=True)
    shown = table if latex is None else latex
    words = table_caption or described(shown, name)
    if len(shown) > MOST_ROWS:
        words += f" {MOST_ROWS} of {len(shown)} rows, evenly chosen."
        shown = shown.iloc[_spread(len(shown), MOST_ROWS)]
    inches = fig.get_figwidth()
    written = write_figure(fig, out_dir / name)
    plt.close(fig)
    picture = f"\\includegraphics[width={inches:.4g}in]{{{name}}}"
    texts = {
        f"{name}.csv": table.to_csv(index=False, float_format="%.6g"),
        f"{name}.figure.tex": "% needs \\usepackage{graphicx}\n"
        + latex_float("figure", picture, caption=caption, label=f"fig:{name}"),
        f"{name}.tex": "% needs \\usepackage{booktabs}\n"
        + latex_float(
            "table",
            latex_of(shown),
            caption=words,
            label=f"tab:{name}",
        ),
    }
    if finding:
        texts[f"{name}.md"] = f"{finding}\n"
    for file, text in texts.items():
        with atomic_path(out_dir / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(out_dir / file)
    written.append(write_sidecar(out_dir / f"{name}.json", {**config, "caption": caption}))
    return written


def refuse_snake_case(fig: Figure) -> None:
    """Names of variables are not for print: no snake_case in any text of the figure."""
    texts = {text.get_text() for text in fig.findobj(Text)}
    found = {t for t in texts if re.search(r"[A-Za-z]_[A-Za-z]", re.sub(r"\$[^$]*\$", "", t))}
    if found:
        raise ValueError(f"the figure shows names in snake_case: {', '.join(sorted(found))}")


def wide(
    table: pd.DataFrame, rows: Sequence[str], columns: str, values: str, *, most: int = MOST_ROWS
) -> pd.DataFrame:
    """One row for each combination of `rows`, one column for each of `columns`, in their order.

    Where there are more than `most` rows, the last of `rows` is thinned evenly.
    """
    found = table.pivot(index=list(rows), columns=columns, values=values)
    found = found[table[columns].drop_duplicates()].reset_index()
    if len(found) > most:
        each = found[rows[-1]].drop_duplicates().to_numpy()
        kept = max(1, most * len(each) // len(found))
        found = found[found[rows[-1]].isin(each[_spread(len(each), kept)])]
    found.attrs = {"of": values, "by": columns}
    return found


def _spread(n: int, kept: int) -> np.ndarray:
    """`kept` of n places, the ends among them."""
    return np.unique(np.linspace(0, n - 1, kept).round().astype(int))


def described(shown: pd.DataFrame, name: str) -> str:
    """A caption of what stands in a table, and to which figure it belongs."""
    heads = [head(column) for column in shown.columns]
    apart = "; " if any("," in one for one in heads) else ", "
    if "of" in shown.attrs:
        text = f"{head(shown.attrs['of'])} by {head(shown.attrs['by'])} (columns)"
    else:
        text = apart.join(heads[:-1]) + f" and {heads[-1]}"
    return f"{text[0].upper()}{text[1:]}: numbers of Figure~\\ref{{fig:{name}}}."


def head(column: object) -> str:
    """A column's name as it is printed, LaTeX."""
    return entry(column)


def words(text: str) -> str:
    """Text as it is printed, LaTeX: formulas stay, names in snake_case become words or symbols."""
    if re.fullmatch(r"[A-Za-z]\w*(\.\w+)*", text):  # parameters of summands: "ou.rate"
        return " ".join(HEADS.get(part, part.replace("_", " ")) for part in text.split("."))
    text = re.sub(r"\b(rmse|nees|nis)\b", lambda found: found[0].upper(), text)
    parts = re.split(r"(\$[^$]+\$)", text)
    return "".join(
        p if p[:1] == "$" and p != "$" else escape_latex(p.replace("_", " ")) for p in parts
    )


def entry(value: object) -> str:
    """A cell, LaTeX: four significant digits, powers of ten written out, -- for nothing."""
    if isinstance(value, str):
        return words(value)
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    number = float(value)  # type: ignore[arg-type]
    if np.isnan(number):
        return "--"
    mantissa, _, power = f"{number:.4g}".replace("inf", r"\infty").partition("e")
    return f"${mantissa}\\times10^{{{int(power)}}}$" if power else f"${mantissa}$"


def latex_of(table: pd.DataFrame) -> str:
    """A booktabs tabular of a frame: words to the left, numbers to the right."""
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    rows = [[entry(value) for value in row] for row in table.itertuples(index=False)]
    sides = "".join("r" if number else "l" for number in numeric)
    return booktabs([head(column) for column in table.columns], rows, sides)


def run_folder(out_dir: Path, name: str, *, full: bool) -> Path:
    """Where a study keeps its finished cells, so that an interrupted run resumes."""
    return out_dir / "run" / f"{name}-{'full' if full else 'reduced'}"
