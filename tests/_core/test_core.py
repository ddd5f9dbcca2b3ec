"""The native core: the border that checks arguments, and the choice of a build."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import afafilter
from afafilter import _core
from afafilter._core import core


def arguments(n=3, T=5, d=2):
    """What `propagate` takes: draws, Phi, psi, root, which."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, T, d))
    Phi, psi = rng.standard_normal((2, d, d)), rng.standard_normal((2, d))
    root = np.tril(rng.standard_normal((2, d, d)))
    return [x, Phi, psi, root, np.array([0, 1, 1, 0, 1])[:T]]


def test_a_kernel_gives_what_its_formula_says():
    x, Phi, psi, root, which = arguments()
    wanted = x.copy()
    for k in range(1, 5):
        u = which[k]
        wanted[:, k] = wanted[:, k - 1] @ Phi[u].T + psi[u] + x[:, k] @ root[u].T
    core.propagate(x, Phi, psi, root, which)
    np.testing.assert_allclose(x, wanted, rtol=1e-13)


def misaligned(array):
    """The same numbers at an address that is no multiple of eight."""
    room = np.empty(array.nbytes + 1, np.uint8)[1:]
    view = room.view(np.uint8)[: array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("position", "change", "error", "message"),
    [
        (1, lambda a: a.astype(np.float32), TypeError, "Phi has items of format 'f'.*float64"),
        (4, lambda a: a.astype(np.int32), TypeError, "which has items of format 'i'.*int64"),
        (4, lambda a: a.astype(float), TypeError, "which has items of format 'd'.*int64"),
        (1, lambda a: 3.0, TypeError, "Phi is <class 'float'>, wanted a float64 array"),
        (0, read_only, TypeError, "x is <class 'numpy.ndarray'>, wanted a writable float64 array"),
        (2, lambda a: a[0], ValueError, "psi has 1 axes, wanted 2"),
        (4, lambda a: a[:4], ValueError, "axis 0 of which has length 4, wanted T = 5 as in x"),
        (
            3,
            lambda a: a[:, :1].copy(),
            ValueError,
            "axis 1 of root has length 1, wanted d = 2 as in x",
        ),
        (1, lambda a: a.transpose(0, 2, 1), ValueError, "Phi is not contiguous"),
        (2, misaligned, ValueError, "psi lies at an address that is no multiple of 8"),
        (4, lambda a: a + 1, IndexError, r"which\[1\] is 2, wanted 0 to 1 as in Phi"),
        (4, lambda a: a - 1, IndexError, r"which\[0\] is -1, wanted 0 to 1 as in Phi"),
    ],
)
def test_what_does_not_fit_is_refused_with_names_and_numbers(position, change, error, message):
    given = arguments()
    given[position] = change(given[position])
    with pytest.raises(error, match=f"^propagate: .*{message}"):
        core.propagate(*given)


def test_a_wrong_number_of_arguments_is_refused():
    with pytest.raises(TypeError, match="propagate takes 5 arguments, 2 given"):
        core.propagate(*arguments()[:2])


def chain_arguments(T=3, d=1, q=1):
    """What `carry_open` takes: three nodes, the last without an observation."""
    one, tables = np.ones((1, 1, 1)), np.zeros((1, 1))
    chain = (
        np.array([0, 0, 0]),
        one,
        tables,
        one,  # step, F, b, root
        np.array([0, 1, -1]),
        np.array([0, 0]),
        one,
        tables,
        one,  # obs, cfg, H, off, R
    )
    sizes = np.zeros(d, np.int64), np.ones(d), np.zeros(d), np.zeros(d), np.zeros((d, d))
    return [
        chain,
        np.arange(3.0),
        sizes,
        0,
        np.ones((q, d)),
        (np.zeros((q, d, d)), np.ones((q, d)), np.zeros((q, d))),
        0.0,
        np.empty((T, q, d)),
        np.empty((T, q, d)),
    ]


def test_indices_that_may_be_missing_are_minus_one_and_no_less():
    given = chain_arguments()
    core.carry_open(*given)
    np.testing.assert_array_equal(given[-2], np.ones((3, 1, 1)))
    for wrong in (-2, 2):
        given[0][4][2] = wrong
        with pytest.raises(
            IndexError, match=rf"carry_open: obs\[2\] is {wrong}, wanted -1 to 1 as in cfg"
        ):
            core.carry_open(*given)


def test_a_single_index_is_checked_too():
    given = chain_arguments()
    given[3] = 4
    with pytest.raises(IndexError, match="carry_open: from is 4, wanted 0 to 3 as in step"):
        core.carry_open(*given)


def test_nothing_is_written_when_an_argument_is_refused():
    given = arguments()
    before = given[0].copy()
    given[4] = given[4][:3]
    with pytest.raises(ValueError, match="which"):
        core.propagate(*given)
    np.testing.assert_array_equal(given[0], before)


def test_the_core_needs_no_cpp_library_at_run_time():
    # The linker for zig's compiler gets none: such a build would fail when it is loaded.
    core_folder = Path(__file__).resolve().parents[2] / "core"
    used = {
        name
        for file in core_folder.iterdir()
        for name in re.findall(r"#include <(.*?)>", file.read_text())
    }
    assert used >= {"cmath", "tuple"}
    allocate_or_throw = {"string", "vector", "map", "memory", "iostream", "functional", "stdexcept"}
    assert not used & allocate_or_throw


def test_the_lock_is_released_while_a_kernel_runs():
    x, Phi, psi, root, which = arguments()
    which = np.zeros(400_000, np.int64)
    x = np.zeros((4, len(which), 2))
    thread = threading.Thread(target=core.propagate, args=(x, 0 * Phi, psi, root, which))
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
        time.sleep(0)
    assert turns > 2


def test_core_info_says_what_runs():
    info = afafilter.core_info()
    assert info["level"] in info["built"].split()
    assert info["version"] == afafilter.__version__
    assert info["compiler"].split()[0] in ("GCC", "Clang")


@pytest.mark.parametrize(
    ("built", "reached", "asked", "wanted"),
    [
        (("v4", "v3", "v2"), 4, "", "v4"),
        (("v4", "v3", "v2"), 3, "", "v3"),
        (("v4", "v3", "v2"), 2, "", "v2"),
        (("v4", "v3", "v2"), 4, "v2", "v2"),
        (("generic",), 0, "", "generic"),
        (("v3",), 3, "", "v3"),
    ],
)
def test_the_highest_build_that_runs_is_chosen(monkeypatch, built, reached, asked, wanted):
    monkeypatch.setattr(_core, "built", lambda: built)
    monkeypatch.setattr(_core, "reached", lambda: reached)
    assert _core.choose(asked) == wanted


@pytest.mark.parametrize(
    ("built", "reached", "asked", "message"),
    [
        ((), 3, "", "not built"),
        (("v4",), 3, "", "built for x86-64-v4, this processor reaches v3"),
        (("v4", "v3"), 3, "v4", "asks for the build 'v4'; this processor reaches v3"),
        (("v3",), 3, "v9", "asks for the build 'v9'; this installation has v3"),
    ],
)
def test_a_build_that_cannot_run_is_one_clear_line(monkeypatch, built, reached, asked, message):
    monkeypatch.setattr(_core, "built", lambda: built)
    monkeypatch.setattr(_core, "reached", lambda: reached)
    with pytest.raises(ImportError, match=message) as caught:
        _core.choose(asked)
    assert "\n" not in str(caught.value)


def test_the_environment_asks_for_a_build_in_a_real_process():
    code = "import afafilter._core"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "AFAFILTER_CORE": "v9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: AFAFILTER_CORE asks for")
