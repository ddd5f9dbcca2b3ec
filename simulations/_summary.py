"""Rewrites the README's table "who wins when" from the tables of the studies. Not an experiment."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

BEGIN = "<!-- summary: begin (written by `make studies`) -->"
END = "<!-- summary: end -->"
ROWS = (
    "AFA", "AFA observation", "AFA estimate", "AFA exact robust", "Kalman", "WoLF-IMQ", "IRKF",
    "RTS", "robust RTS",
)  # fmt: skip
WANTED = ((0.0, 0.0), (0.0, 0.1), (0.05, 0.0), (0.05, 0.1), (1.0, 0.0), (1.0, 0.1))
"""(process noise, outlier rate); the nearest cell of the study is taken and named."""


def summary(table: pd.DataFrame) -> str:
    """Markdown table of RMSE with half-widths of the 95 % intervals, the best causal one bold."""
    noises, rates = (table[c].unique() for c in ("process_var", "outlier_rate"))
    cells = [(_nearest(noises, q), _nearest(rates, r)) for q, r in WANTED]
    heads = [f"σ²={q:.2g}, {100 * r:.0f} % outliers" for q, r in cells]
    keyed = table.set_index(["process_var", "outlier_rate", "estimator"])
    causal = [name for name in ROWS if "RTS" not in name]
    lines = ["| RMSE per component | " + " | ".join(heads) + " |", "|---" * (len(cells) + 1) + "|"]
    for name in ROWS:
        row = [f"{name}{'' if name in causal else ' (two-sided)'}"]
        for q, r in cells:
            cell = keyed.loc[(q, r, name)]
            best = min(keyed.loc[(q, r, other), "value"] for other in causal)
            half = (cell["upper"] - cell["lower"]) / 2
            text = f"{cell['value']:.3f} ± {half:.3f}"
            won = name in causal and cell["value"] <= best * (1 + 1e-9)
            row.append(f"**{text}**" if won else text)
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
        "intervals; outliers add noise of ten standard deviations. Best causal estimator in bold."
    )
    rewrite(root / "README.md", summary(pd.read_csv(source)) + "\n\n" + note)
