"""The public surface, the layout, and the import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import afafilter

PACKAGE = Path(afafilter.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports_of(module: str, *, top_level: bool = False) -> set[str]:
    """Modules that a module of the package imports; `top_level` leaves out lazy imports."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def reached_from(module: str) -> set[str]:
    """Modules of the package that a module imports, directly or through others."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in imports_of(todo.pop()):
            short = name.removeprefix("afafilter.")
            if short in MODULES and short not in seen:
                seen.add(short)
                todo.append(short)
    return seen


@pytest.mark.parametrize("name", [n for n in afafilter.__all__ if n != "__version__"])
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(afafilter, name)
    assert (value.__doc__ or "").strip(), f"{name} has no docstring"


def test_stub_and_lazy_loader_agree():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    stub = {a.asname for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert stub == set(afafilter.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = afafilter.no_such_name


def test_kalman_and_adaptive_never_import_each_other():
    adaptive = {m for m in MODULES if m.startswith(("adaptive", "_adaptive", "_gls"))}
    kalman = {m for m in MODULES if m.startswith(("kalman", "_kalman"))}
    assert adaptive
    assert kalman
    assert not adaptive & reached_from("kalman")
    assert not kalman & reached_from("adaptive")


def test_only_plotting_imports_matplotlib():
    guilty = [
        m for m in MODULES
        if m != "plotting" and any(name.split(".")[0] == "matplotlib" for name in imports_of(m))
    ]  # fmt: skip
    for module in guilty:
        source = (PACKAGE / f"{module}.py").read_text()
        assert "TYPE_CHECKING" in source, f"{module} imports matplotlib"
        assert not any(
            n.split(".")[0] == "matplotlib" for n in imports_of(module, top_level=True)
        ), module


def test_nothing_imports_upwards():
    foundation = reached_from("models")
    above = {"simulate", "kalman", "adaptive", "theory", "score", "compare", "cli", "plotting"}
    assert not above & foundation
    assert not {"compare", "study", "cli"} & reached_from("theory")


def test_import_is_light():
    """pandas, matplotlib, numba and scipy.signal wait until they are needed."""
    code = (
        "import sys, afafilter; from afafilter import LinearSDE, kalman_filter, adaptive_filter, "
        "simulate, spiral; heavy = {'pandas', 'matplotlib', 'numba', 'scipy.signal', 'filterpy'}; "
        "loaded = heavy & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_kernels_run_where_no_cache_can_be_written():
    """In a process of its own: numba finds no place for a cache and refuses cache=True."""
    code = (
        "import numba; from numba.core import caching; caching.CacheImpl._locator_classes = []\n"
        "def f(x): return x + 1\n"
        "try: numba.njit(cache=True)(f)\n"
        "except RuntimeError: pass\n"
        "else: raise SystemExit('numba no longer refuses: the test tests nothing')\n"
        "from afafilter._jit import njit\n"
        "assert njit(cache=True, nogil=True)(f)(1) == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dates_and_text_are_refused_where_numbers_are_wanted():
    import numpy as np
    import pandas as pd

    model, z = afafilter.spiral(), np.zeros((3, 2))
    stamps = pd.date_range("2020-01-01", periods=3)
    for t in (stamps, stamps.tz_localize("UTC"), stamps.to_numpy(), list(stamps.date)):
        with pytest.raises(TypeError, match="must be numbers, got dates"):
            afafilter.kalman_filter(model, t, z)
    with pytest.raises(TypeError, match="got text"):
        afafilter.kalman_filter(model, ["0", "1", "2"], z)
    with pytest.raises(ValueError, match="at least one path"):
        afafilter.kalman_filter(model, [0.0, 1.0, 2.0], np.zeros((0, 3, 2)))


def test_results_print_in_one_line_and_compare_by_identity():
    import numpy as np

    model = afafilter.spiral()
    data = afafilter.simulate(model, [0.0, 1.0], 2, rng=np.random.default_rng(0))
    estimate = afafilter.kalman_filter(model, data.t, data.z)
    assert repr(estimate) == "Estimate('Kalman', mean (2, 2, 2), t 0 .. 1)"
    assert "z (2, 2, 2)" in repr(data)
    assert estimate == estimate
    assert estimate != afafilter.kalman_filter(model, data.t, data.z)


def test_weights_are_weight_objects_for_every_estimator():
    import numpy as np

    for estimator in (afafilter.kalman_filter, afafilter.rts_smoother, afafilter.adaptive_filter):
        with pytest.raises(TypeError, match="weight"):
            estimator(afafilter.spiral(), [0.0], np.zeros((1, 2)), weight=lambda d2, dim: -d2)


def test_plots_refuse_what_they_cannot_draw():
    import numpy as np

    from afafilter import plotting

    model = afafilter.spiral()
    estimate = afafilter.kalman_filter(model, [0.0, 1.0], np.zeros((3, 2, 2)))
    with pytest.raises(ValueError, match="component must be one of the 2"):
        plotting.band(estimate, 5)
    with pytest.raises(ValueError, match=r"must be one path \(T, 2\)"):
        plotting.phase_plane({"a": estimate.mean})
    with pytest.raises(ValueError, match="return_weights=True"):
        plotting.weight_map(None)


def test_kernels_compile_through_one_door():
    """`_jit.njit` works where no cache can be written; numba's own does not."""
    direct = [
        m for m in MODULES
        if m != "_jit" and {"numba.njit", "numba.jit"} & imports_of(m)
    ]  # fmt: skip
    assert not direct
    for module in MODULES:
        if module != "_jit":
            assert "numba.njit" not in (PACKAGE / f"{module}.py").read_text(), module
