"""Every experiment has the shape that the command expects; the quick ones run to the end."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "figures"
SCRIPTS = sorted(
    path.stem for path in (ROOT / "simulations").glob("*.py") if not path.stem.startswith("_")
)
QUICK = ("precision_kernel", "limits", "attention_maps", "pulled_forward", "mismatch")


@pytest.fixture(autouse=True)
def _from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiments are not installed: import them from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))


def test_scripts_were_found():
    assert len(SCRIPTS) >= 15
    assert set(QUICK) <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_docstring_names_the_figure_that_the_script_writes(name):
    tree = ast.parse((ROOT / "simulations" / f"{name}.py").read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").splitlines()[0]
    assert first.startswith(f"{name}: "), first
    assert len(first) > len(name) + 12
    written = {
        call.args[2].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") == "save"
        and isinstance(call.args[2], ast.Constant)
    }
    assert all(str(figure).startswith(name) for figure in written), written


@pytest.mark.parametrize("name", SCRIPTS)
def test_main_takes_what_the_command_passes(name):
    module = importlib.import_module(f"simulations.{name}")
    assert Path(module.__file__).parent == ROOT / "simulations"
    parameters = inspect.signature(module.main).parameters
    assert list(parameters) == ["out_dir", "full", "n_jobs"]
    for option, default in (("full", False), ("n_jobs", 1)):
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[option].default == default


def faults(folder: Path, name: str) -> list[str]:
    """What an editor would send back of the floats of an experiment."""
    table, figure = (
        (folder / f"{name}{suffix}").read_text(encoding="utf-8")
        for suffix in (".tex", ".figure.tex")
    )
    found = []
    for kind, text, label in (("table", table, f"tab:{name}"), ("figure", figure, f"fig:{name}")):
        body = text.split("\n", 1)[1]  # below the comment on packages
        plain = re.sub(r"\\(label|ref|includegraphics)(\[.*?\])?\{[^}]*\}|\$[^$]*\$", "", body)
        wanted = (rf"\begin{{{kind}}}", rf"\end{{{kind}}}", r"\caption{", rf"\label{{{label}}}")
        found += [f"{kind}: no {part}" for part in wanted if part not in body]
        found += [f"{kind}: {m}" for m in re.findall(r"\w+(?:\\_|_)\w+", plain)]
        found += [f"{kind}: bare {m}" for m in re.findall(r"(?<!\\)[%#]", body)]
        if body.count("{") != body.count("}") or len(re.findall(r"(?<!\\)\$", body)) % 2:
            found.append(f"{kind}: braces or $ do not pair")
    rules = [table.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")]
    rows = [line.rstrip(r"\ ") for line in table.splitlines() if line.endswith(r" \\")]
    widths = {len(re.split(r"(?<!\\)&", row)) for row in rows}
    if rules != [1, 1, 1]:
        found.append(f"rules {rules}")
    if not 2 <= len(rows) <= 41 or len(widths) != 1 or max(widths) > 11:
        found.append(f"{len(rows)} rows of {widths} columns")
    return found


WRITTEN = sorted(path.name.removesuffix(".figure.tex") for path in FIGURES.glob("*.figure.tex"))


@pytest.mark.parametrize("name", WRITTEN)
def test_floats_of_stored_results_are_fit_to_print(name):
    assert faults(FIGURES, name) == []


def test_faults_are_found(tmp_path):
    head = "% needs booktabs\n"
    rows = "a & 1 \\\\\n" * 50
    (tmp_path / "x.tex").write_text(head + r"\begin{table}process\_var" + rows, encoding="utf-8")
    (tmp_path / "x.figure.tex").write_text(head + r"\begin{figure}5 %", encoding="utf-8")
    found = "; ".join(faults(tmp_path, "x"))
    for fault in (r"process\_var", r"no \caption{", "bare %", "50 rows", "rules [0, 0, 0]"):
        assert fault in found, found


def test_a_figure_with_snake_case_is_not_saved(tmp_path):
    import matplotlib.pyplot as plt

    common = importlib.import_module("simulations._common")
    fig, ax = plt.subplots()
    ax.set_ylabel(r"$s_t^2$ of process_var")
    with pytest.raises(ValueError, match=r"snake_case: .*process_var"):
        common.save(fig, tmp_path, "x", pd.DataFrame({"a": [1.0]}), caption="A.", config={})
    ax.set_ylabel(r"$s_t^2$")
    common.save(fig, tmp_path, "x", pd.DataFrame({"a": [1.0]}), caption="A.", config={})


def test_parameters_are_printed_as_symbols_and_formulas_stay():
    words = importlib.import_module("simulations._common").words
    assert words("process_var") == r"$\sigma^2$"
    assert words("seasonal2.process_var") == r"seasonal2 $\sigma^2$"
    assert words(r"$\nu\gamma^2$ of 5 %") == r"$\nu\gamma^2$ of 5 \%"
    assert words("rmse, last_step") == "RMSE, last step"


@pytest.mark.parametrize("name", QUICK)
def test_quick_experiments_write_figure_table_and_configuration(name, tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    before, open_figures = dict(mpl.rcParams), plt.get_fignums()
    module = importlib.import_module(f"simulations.{name}")
    written = module.main(tmp_path)
    assert dict(mpl.rcParams) == before
    assert written
    assert all(path.parent == tmp_path and path.stat().st_size > 0 for path in written)
    assert {".png", ".pdf", ".csv", ".tex", ".json"} <= {path.suffix for path in written}
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / f"{name}.csv")
    assert len(table) >= 2
    assert table.select_dtypes("number").notna().any().all()
    latex = (tmp_path / f"{name}.tex").read_text(encoding="utf-8")
    assert rf"\label{{tab:{name}}}" in latex
    assert rf"\label{{fig:{name}}}" in (tmp_path / f"{name}.figure.tex").read_text(encoding="utf-8")
    assert faults(tmp_path, name) == []
    record = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert len(record["config"]["caption"]) > 40
    assert plt.get_fignums() == open_figures


def test_printed_tables_are_short_and_have_words_for_heads(tmp_path):
    import matplotlib.pyplot as plt

    common = importlib.import_module("simulations._common")
    noise, names, steps = (0.0, 1e-7), ("AFA", "Kalman_1"), range(50)
    rows = [
        {"process_var": q, "estimator": name, "step": step, "my_rmse": q + step}
        for q in noise
        for name in names
        for step in steps
    ]
    table = pd.DataFrame(rows)
    common.save(plt.figure(), tmp_path, "x", table, caption="A caption.", config={})
    text = (tmp_path / "x.tex").read_text(encoding="utf-8")
    assert text.count(r" \\") == 41
    assert "40 of 200 rows" in text
    short = common.wide(table, ["process_var", "step"], "estimator", "my_rmse")
    assert len(short) == 40
    assert {0, 49} <= set(short["step"])
    common.save(plt.figure(), tmp_path, "x", table, latex=short, caption="A caption.", config={})
    text = (tmp_path / "x.tex").read_text(encoding="utf-8")
    assert text.count(r" \\") == 41
    assert r"$\sigma^2$ & step & AFA & Kalman 1 \\" in text
    assert r"$1\times10^{-7}$ & $0$ & $1\times10^{-7}$ & $1\times10^{-7}$ \\" in text
    assert r"\caption{My rmse by estimator (columns): numbers of Figure~\ref{fig:x}.}" in text
    figure = (tmp_path / "x.figure.tex").read_text(encoding="utf-8")
    assert r"\includegraphics[width=6.4in]{x}" in figure
    assert r"\caption{A caption.}" in figure
    assert len(pd.read_csv(tmp_path / "x.csv")) == 200
