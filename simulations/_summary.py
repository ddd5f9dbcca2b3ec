"""Rewrites the README's table "who wins when" from the tables of the studies. Not an experiment."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

BEGIN = "<!-- summary: begin (written by `make studies`) -->"
END = "<!-- summary: end -->"
ROWS = (
    "AFA", "AFA observation", "AFA estimate", "AFA exact robust", "Kalman", "WoLF-IMQ", "Huber",
    "variational", "IRKF", "mixture", "mixture guessed", "mixture learned", "particles", "RTS",
    "robust RTS",
)  # fmt: skip
LEVEL = 0.05
AS_GOOD = 1.1
"""Who is this near to the best one, surely, is as good."""


def summary(table: pd.DataFrame) -> str:
    """Markdown table of RMSE with half-widths of the 95 % intervals, and time.

    Bold: the best causal one, and those that the study's paired tests do not tell from it and that
    are within 10 % of it. A question mark: neither told from it nor shown to be as good.
    """
    table = table[table["kind"] == "independent"]
    cells = sorted(set(zip(table["process_var"], table["outlier_rate"])))
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
            tied = name in causal and cell["p_holm"] > LEVEL
            won = tied and cell["ratio_high"] <= AS_GOOD
            row.append(f"**{text}**" if won else f"{text} ?" if tied else text)
        row.append(f"{table.loc[table['estimator'] == name, 'ms_per_path'].median():.2g}")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def rewrite(readme: Path, block: str) -> None:
    """Put the block between the README's markers."""
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n{block}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    root = Path(__file__).parent.parent
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "figures" / "robust_rivals.csv"
    note = (
        "Spiral with measurement noise 1 from radius 20 ± 3, steps 20 to 127, 300 paths, 95 % "
        "intervals (±: half of one); outliers add noise of ten standard deviations. Bold: the "
        "best causal estimator and those that paired tests of log errors (5 %, Holm's correction "
        "for all comparisons) do not tell from it and whose error is at most 10 % larger (95 % "
        "interval of the ratio). Question mark: neither told from the best nor shown to be as "
        "good. Mixture and particle filter are told rate and scale of the outliers (guessed: 5 % "
        "and 25 times the variance; learned: from there); parameters of the others are tuned on "
        "other paths. Time: median over cells, one process, batches of 64 paths."
    )
    rewrite(root / "README.md", summary(pd.read_csv(source)) + "\n\n" + note)
