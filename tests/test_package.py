"""The public surface and the import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import afafilter
from afafilter.models import presets

PACKAGE = Path(afafilter.__file__).parent


@pytest.mark.parametrize("name", [n for n in afafilter.__all__ if n != "__version__"])
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(afafilter, name)
    assert (value.__doc__ or "").strip(), f"{name} has no docstring"


def test_stub_and_lazy_loader_agree():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    stub = {a.asname for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    stub = (stub - {None}) | set(presets.__all__)  # from afafilter.models.presets import *
    assert stub == set(afafilter.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = afafilter.no_such_name


HEAVY = {"pandas", "matplotlib", "scipy", "filterpy", "joblib", "tqdm", "click", "html"}


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import afafilter", HEAVY | {"numpy"}),
        (
            "from afafilter import LinearSDE, Prior, kalman_filter, rts_smoother, adaptive_filter, "
            "mixture_filter, KalmanStream, simulate, spiral",
            HEAVY,
        ),
        ("from afafilter import fit, loglik, compare, theory", HEAVY - {"scipy", "tqdm"}),
    ],
)
def test_import_is_light(statement, heavy):
    """What only some calls want waits for them."""
    code = (
        f"import sys\n{statement}\nloaded = {heavy} & set(sys.modules)\nassert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dates_and_text_are_refused_where_numbers_are_wanted():
    import numpy as np
    import pandas as pd

    model, z = afafilter.spiral(), np.zeros((3, 2))
    stamps = pd.date_range("2020-01-01", periods=3)
    for t in (stamps, stamps.tz_localize("UTC"), stamps.to_numpy(), list(stamps.date)):
        with pytest.raises(TypeError, match="must be numbers, got dates"):
            afafilter.simulate(model, t, rng=np.random.default_rng(0))
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


def test_nothing_is_compiled_at_run_time():
    """The source names no compiler that works at the first call."""
    sources = list(PACKAGE.rglob("*.py"))
    assert len(sources) > 80
    named = re.compile(r"\b(numba|llvmlite)\b")
    assert not [path for path in sources if named.search(path.read_text(encoding="utf-8"))]
