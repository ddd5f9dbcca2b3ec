"""Options that would change nothing and numbers out of range are refused, before the work."""

from functools import partial

import numpy as np
import pytest

import afafilter as a
from afafilter import theory
from afafilter.cli import main
from afafilter.plotting import ellipses
from tests.cli import runner

T = np.arange(12) * 0.3
MODEL = a.spiral(decay=0.1)
DATA = a.simulate(MODEL, T, 3, x0=[3.0, 0.0], rng=0)
Z = DATA.z[0]
LEVEL, LEVELS = a.brownian(1.0, 1.0), np.random.default_rng(0).normal(size=12).cumsum()
ATTEND = partial(a.isotropic_attention, Z, Z, Z, T, decay=0.1, process_var=0.3, key_var=0.5)
TENSOR = partial(a.tensor_attention, Z, Z, Z, T, decay=0.1, process_var=0.3, key_var=0.5)
HIDE = partial(a.hold_out, ["kalman"], LEVEL, T, LEVELS, pieces=2)
WEIGHT = a.StudentT(4.0)

IDLE = {
    "horizon": lambda: HIDE(kinds=["random", "blocks"], horizon=3),
    "share": lambda: HIDE(kinds="forecast", share=0.3),
    "rng": lambda: a.fit(LEVEL, T, LEVELS, free=["Q"], rng=0),
    "stable": lambda: a.fit("brownian + noise", T, LEVELS, stable=True),
    "stable=True": lambda: a.fit(MODEL, T, Z, free=["Q"], stable=True),
    "stable=False": lambda: a.fit(MODEL, T, Z, free={"R": None}, stable=False),
    "iterations": lambda: a.kalman_filter(MODEL, T, Z, weight=WEIGHT, iterations=3),
    "tolerance": lambda: a.adaptive_filter(MODEL, T, Z, tolerance=1e-3),
    "anchor.* and tolerance": lambda: a.adaptive_smoother(
        MODEL, T, Z, anchor="estimate", tolerance=1e-3
    ),
    "momentum": lambda: a.adaptive_filter(MODEL, T, Z, weight=WEIGHT, momentum=0.1),
    "momentum=0.2": lambda: a.adaptive_smoother(MODEL, T, Z, step=0.5, momentum=0.2),
    "step=0.5": lambda: a.adaptive_filter(MODEL, T, Z, anchor="estimate", step=0.5),
    "iterations=3 and step": lambda: a.adaptive_smoother(
        MODEL, T, Z, anchor="estimate", iterations=3, step=0.5, inverse_temperature=2.0
    ),
    "max_inverse_temperature": lambda: theory.tune(
        MODEL, T, free=("gamma",), max_inverse_temperature=4.0
    ),
    "backward": lambda: ATTEND(backward="symmetric"),
    "backward='symmetric'": lambda: TENSOR(backward="symmetric"),
    "value_key_var": lambda: ATTEND(prior="flat", value_key_var=2.0),
}


@pytest.mark.parametrize("name", IDLE)
def test_options_that_would_change_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.* would change nothing"):
        IDLE[name]()


def test_the_same_options_count_where_they_do_something() -> None:
    assert HIDE(kinds=["random", "forecast"], horizon=3, share=0.3).frame.shape[0] == 2
    still = {"weight": WEIGHT, "anchor": "estimate", "step": 0.5, "iterations": 2}
    slow, pushed = (a.adaptive_filter(MODEL, T, Z, momentum=g, **still).mean for g in (0, 0.2))
    start = a.adaptive_filter(MODEL, T, Z).mean
    first = a.adaptive_filter(MODEL, T, Z, **{**still, "iterations": 1}).mean
    np.testing.assert_allclose(pushed - slow, 0.2 * (first - start), atol=1e-12)
    halfway = a.adaptive_filter(MODEL, T, Z, step=0.5).mean  # from the observation
    np.testing.assert_allclose(halfway, (Z + start) / 2, atol=1e-12)
    plain = ATTEND(causal=False).output
    assert not np.allclose(ATTEND(causal=False, backward="symmetric").output, plain)
    free = {"weight": WEIGHT, "anchor": "estimate"}
    once, often = (a.kalman_filter(MODEL, T, Z, iterations=n, **free).mean for n in (1, 50))
    assert not np.allclose(once, often)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fit d.csv --family brownian+noise --seed 3", "--seed goes with --starts"),
        ("compare d.csv --hold-out --model m.toml --kinds random --horizon 3", "horizon=3 would"),
    ],
)
def test_the_command_refuses_them(tmp_path, monkeypatch, line: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("t,z\n" + "".join(f"{k},{x}\n" for k, x in enumerate(LEVELS)))
    (tmp_path / "m.toml").write_text('[model]\npreset = "brownian"\n')
    result = runner().invoke(main, line.split())
    assert result.exit_code == 2
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.csv", "m.toml"]


SCORED = partial(a.score, a.kalman_filter(MODEL, T, DATA.z), DATA)
COMPARED = partial(a.compare, [a.kalman_filter], MODEL, T, 3, rng=0, x0=[3.0, 0.0])
STUDIED = partial(a.Study, {"m": MODEL}, {"k": "kalman"}, {"s": a.Scenario(T)}, 1)
RANGES = [
    ({"levels": (90,)}, r"levels must lie in \(0, 1\)"),
    ({"levels": 0.9}, "levels must be a sequence"),
    ({"levels": (0.9, 0.9)}, "levels must differ"),
    ({"lags": -3}, "lags must be >= 0"),
    ({"lags": 12}, "lags must be below the number of scored times 12"),
    ({"lags": 1.5}, "lags must be a whole number"),
]


@pytest.mark.parametrize("call", [SCORED, COMPARED, STUDIED], ids=["score", "compare", "Study"])
@pytest.mark.parametrize(("given", "message"), RANGES)
def test_what_is_scored_is_checked_before_the_work(call, given, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call(**given)


def test_steps_that_select_nothing_are_refused_before_the_work() -> None:
    with pytest.raises(ValueError, match="select at least one time"):
        COMPARED(steps=slice(50, None))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: a.Scenario(T, missing=90), "missing must be probabilities"),
        (lambda: a.Scenario(T, missing=float("nan")), "missing must be finite"),
        (lambda: ellipses(np.zeros((1, 2)), np.eye(2)[None], level=68), "level must lie in"),
        (lambda: a.diagnose(LEVEL, T, LEVELS, n_params=-1), "n_params must be >= 0"),
        (lambda: HIDE(kinds=()), "kinds must name some of"),
        (
            lambda: a.breakdown_curve(a.kalman_filter, MODEL, DATA, rates=[0.1], size=np.nan),
            "size must be finite",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
