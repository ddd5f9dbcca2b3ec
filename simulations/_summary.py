"""Rewrites the README's table "who wins when" from the tables of the studies. Not an experiment."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

BEGIN = "<!-- summary: begin (written by `make studies`) -->"
END = "<!-- summary: end -->"
ROWS = (
    "AFA", "AFA observation", "AFA estimate", "AFA exact robust", "Kalman", "WoLF-IMQ", "IRKF",
    "mixture", "mixture guessed", "RTS", "robust RTS",
)  # fmt: skip
LEVEL = 0.05
WANTED = ((0.0, 0.0), (0.0, 0.1), (0.05, 0.0), (0.05, 0.1), (1.0, 0.0), (1.0, 0.1))
"""(process noise, outlier rate); the nearest cell of the study is taken and named."""


def summary(table: pd.DataFrame) -> str:
    """Markdown table of RMSE with half-widths of the 95 % intervals, and time.

    Bold: the best causal one, and those that the study's paired tests do not tell from it.
    """
    noises, rates = (table[c].unique() for c in ("process_var", "outlier_rate"))
    cells = [(_nearest(noises, q), _nearest(rates, r)) for q, r in WANTED]
    heads = [f"σ²={q:.2g}, {100 * r:.0f} % outliers" for q, r in cells]
    keyed = table.set_index(["process_var", "outlier_rate", "estimator"])
    causal = [name for name in ROWS if "RTS" not in name]
    heads = [*heads, "ms a path"]
    lines = ["| RMSE per component | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in ROWS:
        row = [f"{name}{'' if name in causal else ' (two-sided)'}"]
        for q, r in cells:
            cell = keyed.loc[(q, r, name)]
            half = (cell["upper"] - cell["lower"]) / 2
            text = f"{cell['value']:.3f} ± {half:.3f}"
            won = name in causal and cell["p_holm"] > LEVEL
            row.append(f"**{text}**" if won else text)
        row.append(f"{table.loc[table['estimator'] == name, 'ms_per_path'].median():.2g}")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def rewrite(readme: Path, block: str) -> None:
    """Put the block between the README's markers."""
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n{block}\n{END}{tail}", encoding="utf-8")


def _nearest(values: object, wanted: float) -> float:
    return float(min(values, key=lambda v: abs(v - wanted)))  # type: ignore[call-overload]


if __name__ == "__main__":
    root = Path(__file__).parent.parent
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "figures" / "regime_map.csv"
    note = (
        "Spiral with measurement noise 1 from radius 20 ± 3, steps 20 to 127, 100 paths, 95 % "
        "intervals; outliers add noise of ten standard deviations. Bold: the best causal estimator "
        "and those that paired tests (5 %, Holm's correction for all comparisons) do not tell from "
        "it. The "
        "mixture filter knows rate and scale of the outliers, or guesses 5 % and 25 times the "
        "variance. Time: median over cells, one process of several."
    )
    rewrite(root / "README.md", summary(pd.read_csv(source)) + "\n\n" + note)
