"""AFA says where rounding shows in its answer, and is right or refuses everywhere else."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
from scipy.linalg import block_diag

from afafilter import Huber, LinearSDE, Power, adaptive_filter, adaptive_smoother
from afafilter._base.doubts import LostDigits
from afafilter.adaptive import last_digits
from tests.conftest import MODELS
from tests.exact_adaptive import Robust, pulled, reweighted
from tests.exact_oracle import ExactGaussian
from tests.fuzz.cases import Case
from tests.fuzz.truth import TOLERANCE, Truth, law_apart

BASIS = np.array([[1.0, 0.4, -0.3], [0.2, 1.0, 0.5], [-0.4, 0.1, 1.0]])


def mixed(A, Q, C, noise):
    """In another basis, so that a singular Q is singular up to rounding."""
    S = BASIS[: len(A), : len(A)]
    back = np.linalg.inv(S)
    Q = S @ Q @ S.T
    return LinearSDE(
        S @ A @ back, Q=0.5 * (Q + Q.T), R=noise * np.eye(len(C)), C=C @ back, prior="diffuse"
    )


def silent_mode(fast, kind):
    """A mode without noise that decays faster than what is seen with it."""
    if kind == "spiral":
        A, Q = block_diag(-fast, [[-0.1, -1.0], [1.0, -0.1]]), np.diag([0.0, 0.3, 0.3])
    else:
        A, Q = np.diag([-fast, -0.7]), np.diag([0.0, 1000.0])
    return mixed(A, Q, np.ones((1, len(A))), 1e-6), np.array([0.0, 30.0, 32.0, 32.1, 62.1])


def barely_seen(gap):
    """Three states of one observation, `gap` apart: the third equation is all but rounding."""
    A = np.array([[-2.0, 0.0, 0.5], [0.0, -0.1, -1.0], [0.0, 1.0, -0.1]])
    C = [[1.0, 0.5, 1.0]]
    model = LinearSDE(A, Q=np.diag([0.0, 0.3, 0.3]), R=[[1e-8]], C=C, prior="diffuse")
    return model, np.array([0.0, gap, 2.3 * gap])


def far_from_zero(gain):
    """Two components that differ by many decades, seen by their sum: the small one is lost."""
    A = np.array([[-0.1, -1.1 / gain], [1.1 * gain, -0.1]])
    R = np.array([[1.0, -0.0999], [-0.0999, 0.01]]) * 1e-6
    model = LinearSDE(A, Q=np.zeros((2, 2)), R=R, C=[[0.5, 1.0], [0.0, 1.0]], prior="diffuse")
    return model, np.array([0.0, 0.14, 12.4, 24.2, 24.3])


def outcomes(model, t, z, **options):
    """What the exact answers say of each answer, and whether LostDigits was said."""
    truth = Truth(Case(model, t, z, None, None), 0)
    for estimator in (adaptive_filter, adaptive_smoother):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = estimator(model, t, z, method="dense", **options)
        assert {warning.category for warning in said} <= {LostDigits}
        for i in range(len(t)):
            stop = len(t) if estimator is adaptive_smoother else i + 1

            def law(e, i=i, stop=stop):
                exact = options["correlation"] == "exact"
                return e.law(t[i], stop) if exact else pulled(e, t[i], range(stop))

            verdict = truth.judge("", law, (found.mean[i], found.cov[i]), law_apart)
            yield verdict.outcome, bool(said)


CASES = {
    "a silent mode, rates 2 and 0.7": silent_mode(2.0, "decay"),
    "a silent mode, rates 3 and 0.7": silent_mode(3.0, "decay"),
    "a silent mode beside a spiral": silent_mode(2.0, "spiral"),
    "barely seen": barely_seen(30.0),
    "barely seen, later": barely_seen(37.0),
    "well seen": barely_seen(0.5),
    "far from zero": far_from_zero(1e7),
    "farther from zero": far_from_zero(1e8),
    "near zero": far_from_zero(1.0),
}
DOUBTFUL = ("a silent mode beside a spiral", "barely seen", "barely seen, later", "far from zero")
ORDINARY = ("well seen", "near zero")


@pytest.mark.parametrize("name", CASES)
def test_right_or_warned(name):
    model, t = CASES[name]
    noise = np.random.default_rng(0).standard_normal((len(t), model.obs_dim))
    path = model.transition(t - t[0])[0] @ np.ones(model.dim)
    z = path @ model.C.T + noise * np.sqrt(np.diag(model.R))
    found = [x for how in ("independent", "exact") for x in outcomes(model, t, z, correlation=how)]
    assert ("wrong", False) not in found
    if name in DOUBTFUL:
        assert any(said for _, said in found)
    if name in ORDINARY:
        assert set(found) == {("right", False)}


@pytest.mark.parametrize("wait", [0.0, 27.0, 30.0, 33.0])
@pytest.mark.parametrize("rates", ["equal", "apart"])
def test_what_rounding_leaves_of_the_start_after_a_wait_is_said(rates, wait):
    """Half turns, which show one of two states, and modes that have decayed beside them."""
    A = [[0.0, 1.0], [-1.69, -2.6]] if rates == "equal" else np.diag([-1.1, -1.4])
    A, C = block_diag(A, [[0.0, -np.pi], [np.pi, 0.0]]), [[0.0, 1.0, 0.5, 1.0]]
    if rates == "apart":
        C[0][0] = 1.0
    model = LinearSDE(A, Q=np.diag([0.0, 7.0, 0.1, 0.1]), R=[[1e-8]], C=C, prior="diffuse")
    t = np.array([0.0, wait, wait + 7.0, wait + 8.0])
    z = np.array([[np.nan], [-3.3], [3.2], [-1.1]])
    found = list(outcomes(model, t, z, correlation="exact"))
    assert ("wrong", False) not in found
    assert any(said for _, said in found) == (wait > 0)


@pytest.mark.parametrize("gap", [3.0, 400.0])
@pytest.mark.parametrize("drive", [0.5, -1.0])
def test_what_is_left_over_a_gap_of_a_sum_that_rows_before_it_do_not_show(drive, gap):
    """Its column of the triangle is known to a rounding of what they show, which is larger."""
    A = block_diag(-1.0, -5.0, [[0.0, 1.0], [-4.0, -0.3]])
    A[0, 3] = drive
    Q = np.diag([1e-6, 1e-6, 0.0, 5e-7])
    Q[0, 1] = Q[1, 0] = 1e-6
    C, R = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]], [[1e-8, -0.999e-8], [-0.999e-8, 1e-8]]
    model = LinearSDE(A, Q=Q, R=R, C=C, prior="diffuse")
    t = np.array([0.0, 1.0, 1.0, 1.0 + gap])
    z = np.random.default_rng(0).standard_normal((4, 2))
    found = list(outcomes(model, t, z, correlation="exact"))
    assert ("wrong", False) not in found
    assert gap > 3.0 or set(found) == {("right", False)}


SPIRAL = [[-0.1, -1.0], [1.0, -0.1]]
MERGING = {
    "a spiral drives a velocity": (
        block_diag([[0.0, 1.0], [0.0, 0.0]], SPIRAL) - np.eye(4)[[0]].T @ np.eye(4)[[3]],
        np.diag([0.0, 1.0, 0.3, 0.3]),
        [[1.0, 1.0, -1.0, -1.0]],
    ),
    "two decays and a walk": (
        np.diag([-2.0, -1.0, 0.0]),
        np.diag([1.0, 2.0, 1.0]),
        np.ones((1, 3)),
    ),
    "equal decays and a constant": (
        np.diag([-1.0, -1.0, 0.0]) - 1.5 * np.eye(3)[[1]].T @ np.eye(3)[[0]],
        np.diag([2.0, 2.0, 0.0]),
        np.ones((1, 3)),
    ),
}


def at_the_end(A, Q, C, t):
    """How far the newest estimate from observations at t is off, what was said, and is open."""
    model = LinearSDE(A, Q=Q, R=[[1e-4]], C=C, prior="diffuse")
    z = np.random.default_rng(0).standard_normal((len(t), 1))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = adaptive_filter(model, t, z, method="dense", query_times=t[-1:])
    assert {warning.category for warning in said} <= {LostDigits}
    literal = ExactGaussian(model, t, z, bits=1600).forgetful().with_rounding(1e-60)
    off = law_apart(
        (found.mean[0], found.cov[0]), pulled(literal, t[-1], range(len(t))), literal.stretch()
    )
    return off, bool(said), np.isnan(found.mean[0])


@pytest.mark.parametrize("gap", [40.0, 400.0])
@pytest.mark.parametrize("name", MERGING)
def test_fast_directions_that_merge_into_the_slow_one_over_a_gap(name, gap):
    """Observations after it that are enough tell on their own, without a warning."""
    A, Q, C = MERGING[name]
    later = gap + 0.7 * np.arange(len(A) + 1)
    off, said, open_ = at_the_end(A, Q, C, np.array([0.0, *later]))
    assert off <= 1e-6
    assert not said
    assert not open_.any()
    off, said, _ = at_the_end(A, Q, C, np.array([0.0, *later[: len(A) - 1]]))
    assert off <= 1e-6 or said


@pytest.mark.parametrize("gap", [35.0, 50.0, 90.0])
@pytest.mark.parametrize("name", [name for name in MERGING if "decays" in name])
def test_what_a_row_before_a_gap_shows_of_fast_directions_is_kept(name, gap):
    """Two rows after it for three states: the third is told by the row before."""
    A, Q, C = MERGING[name]
    off, said, open_ = at_the_end(A, Q, C, np.array([0.0, gap, gap + 0.7]))
    assert off <= 1e-6
    assert not said
    assert not open_.any()


@pytest.mark.parametrize("gap", [60.0, 100.0, 150.0])
@pytest.mark.parametrize("step", [2.0, 7.0])
def test_where_all_is_called_open_though_the_equations_show_it_is_said(gap, step):
    A, Q = -np.diag([1.0, 2.0, 3.0, 0.0]), np.diag([2.0, 2.0, 2.0, 0.0])
    _, said, open_ = at_the_end(A, Q, np.ones((1, 4)), np.r_[0.0, gap + step * np.arange(3)])
    assert said or not open_.any()


@pytest.mark.parametrize("name", MODELS)
def test_ordinary_models_are_answered_once(name, monkeypatch):
    """Neither a warning nor the time of a second look."""
    model, t = MODELS[name], 0.1 * np.arange(40)
    z = np.random.default_rng(0).standard_normal((40, model.obs_dim))
    monkeypatch.setattr(last_digits, "make_plan", None)
    for correlation in ("independent", "exact"):
        adaptive_filter(model, t, z, method="dense", correlation=correlation)


@pytest.mark.parametrize("late", [53.0, 61.0, 80.0])
@pytest.mark.parametrize("fast", [5.0, 7.0])
def test_what_has_decayed_is_forgotten_alike(late, fast):
    """Two rows for three modes, one of which is e^-250 of what it was: its own law is left."""
    model = LinearSDE(
        -np.diag([1.0, fast, 0.0]),
        Q=np.diag([1.0, 1.0, 1.0]),
        R=[[1.0]],
        C=[[-1.0, 1.0, 1.0]],
        prior="diffuse",
    )
    t, z = np.array([0.0, 3.3, 3.3 + late]), np.array([[-4.0], [3.0], [np.nan]])
    found = adaptive_filter(model, t, z, method="dense")
    exact = ExactGaussian(model, t, z).forgetful()
    wanted = pulled(exact, t[2], [0, 1])
    np.testing.assert_array_equal(np.isnan(wanted.mean), [True, False, True])
    assert law_apart((found.mean[2], found.cov[2]), wanted, 1.0) <= TOLERANCE


@pytest.mark.parametrize("late", [30.25, 40.0])
@pytest.mark.parametrize("drive", [5e-5, 0.3])
def test_a_decayed_mode_that_drove_another_is_not_what_a_row_determines(late, drive):
    """One row late: of the flat start's fast mode nothing is left in it."""
    A = np.diag([0.0, 0.0, -1.0, -5.0])
    A[:2, :2] = [[-0.1, -1.1], [1.1, -0.1]]
    A[0, 3] = drive
    model = LinearSDE(A, Q=np.diag([0, 0, 1, 1.0]), R=[[1.0]], C=[[1, -1, -1, 1]], prior="diffuse")
    t, z = np.array([0.0, late]), np.array([[np.nan], [1.3]])
    wanted = ExactGaussian(model, t, z).forgetful().law(late)
    np.testing.assert_array_equal(np.isnan(wanted.mean), [True, True, True, False])
    for estimator in (adaptive_filter, adaptive_smoother):
        found = estimator(model, t, z, correlation="exact")
        assert law_apart((found.mean[1], found.cov[1]), wanted, 1.0) <= TOLERANCE


@pytest.mark.parametrize("late", [400.0, 1500.0, 4000.0])
@pytest.mark.parametrize("method", ["isotropic", "modal", "dense"])
def test_a_weight_beyond_the_floating_point_range_is_refused(late, method):
    """Of a state without noise e^-2 late is left: what is as far away as that is not weighed."""
    model = LinearSDE([[-2.0]], Q=[[0.0]], R=[[0.01]], C=[[0.5]], prior="diffuse")
    t, z = np.array([0.0, 1.0, 1.0 + late]), np.array([[0.2], [0.05], [0.16]])
    options = {"weight": Power(4.0), "anchor": "estimate", "method": method}
    if method == "modal":  # in logarithms
        assert abs(adaptive_smoother(model, t, z, **options).mean[2]) < 1e-150
    else:
        with pytest.raises(ValueError, match="give a window"):
            adaptive_smoother(model, t, z, **options)
    found = adaptive_smoother(model, t, z, window=1, **options)
    assert np.isfinite(found.mean).all()


@pytest.mark.parametrize("lag", [0.2, 0.31, 0.345])
@pytest.mark.parametrize("columns", [[0], [0, 1]])
def test_what_is_left_of_a_row_after_hundreds_of_decays(lag, columns):
    """The first row says that the fast mode is 0: the last one then shows the slow one."""
    C = np.array([[0.5, 1.0], [0.5, 1.0]])[columns]
    model = LinearSDE(-np.diag([1000.0, 1.0]), Q=np.diag([5e-5, 1e-6]), R=np.eye(len(C)), C=C)
    t, z = np.array([0.0, 1.0]), np.array([[0.5, 0.3], [0.2, 0.2]])[:, columns]
    found = adaptive_filter(model, t, z, method="dense", query_times=[1.0 + lag])
    np.testing.assert_allclose(found.mean[0, 1], 0.2 * np.exp(-lag), rtol=1e-6)


@pytest.mark.parametrize("rows", [3, 6])
@pytest.mark.parametrize("never_seen", [0.0, -1.0])
def test_what_is_open_forgets_nothing_of_what_has_no_part_in_it(rows, never_seen):
    """Of equal rows for two modes one goes to the mode of which they show e^-250."""
    A, Q = np.diag([-1000.0, -1.0, never_seen]), np.diag([50.0, 1.0, 1.0])
    model = LinearSDE(A, Q=Q, R=[[1.0]], C=[[0.5, 1.0, 0.0]], delay=0.25, prior="diffuse")
    t, z = np.arange(float(rows)), np.random.default_rng(0).standard_normal((rows, 1))
    found = adaptive_filter(model, t, z, method="dense")
    np.testing.assert_array_equal(np.isnan(found.mean[-1]), [False, False, True])
    np.testing.assert_allclose(found.cov[-1, 0, 0], 50.0 / 2000.0 / (rows - 1), rtol=1e-9)


@pytest.mark.parametrize("late", [0.05, 0.404])
def test_a_missing_row_long_after_a_stiff_models_others_is_said(late):
    """Rows before it show the fast mode, and of the slow ones what rounding leaves beside it."""
    model, t = MODELS["stiff"], np.array([0.0, 0.62, 0.62, 0.95, 1.93, 1.93 + late])
    z = np.random.default_rng(1).standard_normal((6, 1))
    z[5] = np.nan
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = adaptive_filter(model, t, z, method="dense")
    known = [0.25 / n for n in (3, 4, 5)]  # stationary, a row less for each slow state
    assert any(abs(found.cov[5, 0, 0] / v - 1) < 1e-6 for v in known) or said


@pytest.mark.parametrize("gain", [1e5, 1e7])
@pytest.mark.parametrize("other", [0.0, 1e9])
def test_each_path_is_judged_by_its_own_misfit(gain, other):
    """Another path that is far off the model does not hide what rounding does to this one."""
    model = LinearSDE(
        [[0.0, gain], [0.0, 0.0]], Q=np.diag([0.0, gain**-2]), R=np.diag([1e-6, 1.0]),
        C=[[0.5, -1.0], [-1.0, 1.0]], prior="diffuse",
    )  # fmt: skip
    t = np.array([0.0, 0.1, 0.1001, 0.3501, 0.6001])
    path = model.transition(t)[0] @ np.array([1.0, -2e6 / gain])
    z = np.stack([path @ model.C.T, other * np.random.default_rng(0).standard_normal((5, 2))])

    def said(rows):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            adaptive_filter(model, t, rows, method="dense")
        return bool(found)

    assert said(z[:1])
    assert said(z)


@pytest.mark.parametrize("weight", [Huber(2.0), Power(4.0)])
@pytest.mark.parametrize("anchor", ["prediction", "observation"])
@pytest.mark.parametrize("gain", [1e6, 1e7])
def test_an_outlier_of_another_round_or_query_does_not_hide_rounding(gain, anchor, weight):
    model, t = far_from_zero(gain)
    z = model.transition(t)[0] @ np.array([1e3 / gain, 1e3]) @ model.C.T
    z[0] += 1e6
    truth, options = Truth(Case(model, t, z, None, None), 0), {"window": 2, "tolerance": 0.0}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = adaptive_filter(
            model, t, z, weight=weight, anchor=anchor, iterations=2, method="dense", **options
        )
    assert {warning.category for warning in said} <= {LostDigits}
    errors = []
    for i in range(2, len(t)):
        js = [i - 1, i]
        start = [i - 2, i - 1] if anchor == "prediction" else [i]
        how = Robust(js, start, weight, 2)
        wanted = truth.ask(lambda e, i=i, how=how: reweighted(e, t[i], how))
        errors.append(law_apart((found.mean[i], found.cov[i]), wanted, 1.0))
    assert max(errors) > TOLERANCE
    assert said


@pytest.mark.parametrize("method", ["dense", "isotropic"])
@pytest.mark.parametrize("far", [1.0, 1e9])
def test_one_huge_anchor_does_not_end_the_rounds_of_the_others(method, far):
    """Rounds go on until every query's anchor rests beside its own size."""
    model = LinearSDE([[-1.0, 0.0], [0.0, -1.0]], Q=0.1 * np.eye(2), R=np.eye(2))
    rng = np.random.default_rng(3)
    t, z = np.arange(12.0), rng.standard_normal((12, 2)) + 4.0 * (rng.random((12, 1)) < 0.3)
    options = {"weight": Power(4.0), "anchor": "estimate", "method": method, "window": 6}
    wanted = adaptive_filter(model, t, z, iterations=30, tolerance=0.0, **options)
    z[:1] *= far
    found = adaptive_filter(model, t, z, iterations=30, tolerance=1e-8, **options)
    np.testing.assert_allclose(found.mean[8:], wanted.mean[8:], atol=1e-6)


def in_units(model, unit):
    """States in other units (d,)."""
    pair = np.outer(unit, unit)
    A = model.A * unit[:, None] / unit
    return LinearSDE(A, Q=model.Q * pair, R=model.R, C=model.C / unit, prior="diffuse")


HALF_TURN = [[0.0, -np.pi], [np.pi, 0.0]]


@pytest.mark.parametrize("scale", [(0, 0, 0), (-7, 24, 30), (20, -3, 11), (-15, -20, 9)])
@pytest.mark.parametrize(
    "A",
    [block_diag(-2.0, HALF_TURN), block_diag(HALF_TURN, 0.4), block_diag(0.0, HALF_TURN)],
    ids=["decay", "growth", "walk"],
)
@pytest.mark.parametrize("rows", [[[1.0, 1.0, -1.0], [1.0, 0.0, -1.0]], np.eye(3)[:2]])
def test_a_sum_that_cancels_hides_no_state_in_any_units(rows, A, scale):
    """Rows that show one state by their difference, and the sum of the others only."""
    Q, R = np.diag([0.0, 1e-7, 1e-7]), np.diag([1e-9, 1e-11])
    model = in_units(LinearSDE(A, Q=Q, R=R, C=rows, prior="diffuse"), 2.0 ** np.array(scale))
    found = list(outcomes(model, np.zeros(1), np.array([[0.4, 1.6]]), correlation="exact"))
    assert set(found) == {("right", False)}


@pytest.mark.parametrize("rate", [4.0, 5.0, 5.5])
@pytest.mark.parametrize("wait", [66.0, 69.7, 69.9])
def test_what_has_decayed_is_told_from_what_has_not(rate, wait):
    """Of what one row leaves open, what decays most leaves the rest to later rows."""
    Q = 1e-6 * block_diag(np.ones((2, 2)), 0.0)
    A, C = np.diag([-1.0, -rate, 0.0]), 1e-6 * np.array([[1.0, -1.0, 0.5]])
    model = LinearSDE(A, Q=Q, R=[[1e-12]], C=C, prior="diffuse")
    t, z = np.array([0.0, wait, wait + 1.16e-4]), 1e-6 * np.array([[2.8], [-3.6], [-5.7]])
    found = list(outcomes(model, t, z, correlation="exact"))
    assert "wrong" not in {outcome for outcome, _ in found}


def driven(rate):
    A = np.array([[-rate, -10.0, 0, -0.01], [0.1, -rate, 0, 0], [0, 0, 0, 0.001], [0, 0, 0, 0]])
    Q, R = np.diag([3.0, 0.03, 0.0, 1e5]), np.diag([1e-2, 1e-6])
    return LinearSDE(A, Q=Q, R=R, C=[[1, 1, 1, 0], [-1, -1, 1, -1]], prior="diffuse")


@pytest.mark.parametrize("rate", [0.1, 0.097, 0.101])
def test_a_state_that_counts_as_open_by_hardly_more_than_rounding_is_doubted(rate):
    t = np.array([0.0, 400.0, 401.0])
    z = np.array([[-6.4, -3.1], [-1053.6, 7734.4], [-1065.8, 7760.9]])
    found = list(outcomes(driven(rate), t, z, correlation="exact"))
    assert ("wrong", False) not in found
    assert ("wrong", True) in found
    assert set(outcomes(driven(rate), t / 100, z, correlation="exact")) == {("right", False)}


@pytest.mark.parametrize("turn", [np.pi, 3.0, 1.0])
def test_a_state_that_counts_as_known_where_rounding_hides_it_is_doubted(turn):
    """What is left after long waits of a fast mode, seen with a turning one."""
    A = block_diag([[0.0, -turn], [turn, 0.0]], -1.0, -5.0)
    Q = block_diag(0.1 * np.eye(2), np.ones((2, 2)))
    model = LinearSDE(A, Q=Q, R=[[1e-8]], C=[[0.5, 0.0, 1.0, 1.0]], prior="diffuse")
    t = np.array([0.0, 14.82, 79.66, 81.81])
    z = np.array([[np.nan], [212.8], [-96.2], [-205.4]])
    found = list(outcomes(model, t, z, correlation="exact"))
    assert ("wrong", False) not in found
    assert any(said for _, said in found)


@pytest.mark.parametrize("small", [0.5, 0.05])
@pytest.mark.parametrize("redundant", [[], [[0.0, 0.25, 0.0, 0.0]], [[0.0, 1.0, 0.5, 1.0]]])
def test_a_vague_sensor_keeps_its_digits_beside_precise_ones_with_large_data(small, redundant):
    """One state is seen by vague sensors alone: their weighted mean, in 60 digits."""
    C = np.array([[0.0, 1.0, 0.5, 1.0], [0.0, small, 0.0, 0.0], [-1.0, 0.0, 0.5, 0.5], *redundant])
    alone = np.flatnonzero((C != 0).sum(axis=1) == 1)
    sd = np.where((C != 0).sum(axis=1) == 1, 1e-2, 1e-4)
    model = LinearSDE(np.diag([0, 0, 0, -0.1]), Q=np.eye(4), R=np.diag(sd**2), C=C, prior="diffuse")
    rng = np.random.default_rng(0)
    z = rng.uniform(-8e6, 8e6, (50, 4)) @ C.T + sd * rng.standard_normal((50, len(C)))
    found = adaptive_filter(model, [0.0], z[:, None], method="dense").mean[:, 0, 1]
    with mpmath.workdps(60):
        total = sum(mpmath.mpf(C[k, 1]) ** 2 for k in alone)
        for row, mean in zip(z, found, strict=True):
            wanted = sum(mpmath.mpf(C[k, 1]) * mpmath.mpf(row[k]) for k in alone) / total
            assert abs(mean - wanted) < 3e-7 * 1e-2 / mpmath.sqrt(total)


@pytest.mark.parametrize("rate", [15.0, 16.7, 18.0])
@pytest.mark.parametrize("wait", [3.13, 3.4])
def test_what_the_rule_finds_determined_and_the_equations_have_lost_is_said(rate, wait):
    """A stiff mode hides, e^-50 beside it, what early rows show of the slower ones."""
    A = block_diag(np.array([[-0.1, -1.1], [1.1, -0.1]]) / 60.0, -rate, -1.0 / 60.0)
    A[0, 3] = -1.0 / 60.0
    C = [[0, -1.0, 1.0, 1.0]]
    model = LinearSDE(A, Q=np.diag([0, 0, 50.0, 1.0]), R=[[0.01]], C=C, prior="diffuse")
    t = np.array([0.0, 0.115, 0.115 + wait, 0.1152 + wait])
    z = np.array([[0.93], [-0.62], [-7.5], [0.76]])
    assert ("wrong", False) not in outcomes(model, t, z, correlation="independent")
