"""Writing a figure with its table, caption and configuration side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from afafilter.io import atomic_path, write_sidecar


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
) -> list[Path]:
    """Write name.png (300 dpi), .pdf, .csv, .tex, .json, with a finding also .md; return the paths.

    `latex` replaces the full table in the .tex file; `finding` is a paragraph on what the
    experiment shows, its numbers formatted from the run.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix in (".png", ".pdf"):
        target = out_dir / f"{name}{suffix}"
        with atomic_path(target) as temporary:
            fig.savefig(temporary, format=suffix[1:], metadata=_NO_DATE[suffix])
        with plt.rc_context({"figure.constrained_layout.use": False}):
            fig.set_layout_engine(None)  # laid out by now: once is enough
        written.append(target)
    plt.close(fig)
    target = out_dir / f"{name}.csv"
    with atomic_path(target) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    written.append(target)
    target = out_dir / f"{name}.tex"
    with atomic_path(target) as temporary:
        shown = table if latex is None else latex
        temporary.write_text(_latex(shown, caption, name), encoding="utf-8")
    written.append(target)
    if finding:
        target = out_dir / f"{name}.md"
        with atomic_path(target) as temporary:
            temporary.write_text(f"{finding}\n", encoding="utf-8")
        written.append(target)
    written.append(write_sidecar(out_dir / f"{name}.json", {**config, "caption": caption}))
    return written


_NO_DATE = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}


def _latex(table: pd.DataFrame, caption: str, name: str) -> str:
    escaped = table.rename(columns=lambda c: str(c).replace("_", r"\_").replace("%", r"\%"))
    for column in escaped.select_dtypes(exclude="number").columns:
        escaped[column] = escaped[column].map(
            lambda v: v.replace("_", r"\_").replace("%", r"\%") if isinstance(v, str) else v
        )
    body = escaped.to_latex(index=False, float_format="%.4g", na_rep="--")
    return (
        f"% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n\\centering\\small\n"
        f"\\caption{{{caption}}}\n\\label{{tab:{name}}}\n{body}\\end{{table}}\n"
    )


def run_folder(out_dir: Path, name: str, *, full: bool) -> Path:
    """Where a study keeps its finished cells, so that an interrupted run resumes."""
    return out_dir / "run" / f"{name}-{'full' if full else 'reduced'}"
