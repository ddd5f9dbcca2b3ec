"""Levels of the noises of a model file: some of them free, the others as they are."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import brownian, families, fit, simulate
from afafilter.cli import main
from afafilter.io import read_model
from afafilter.learning.parameters.noise_levels import noise_levels


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "level.toml"
    path.write_text('[model]\npreset = "brownian"\nprocess_var = 0.5\nobs_var = 2.0\n')
    return path


def data():
    t = np.arange(150.0)
    return t, simulate(brownian(1.0, 2.0), t, rng=4, x0=[0.0]).z[0]


def test_one_level_moves_and_the_other_stays(model_file):
    model, (t, z) = read_model(model_file), data()
    levels = noise_levels(model_file, model)
    assert levels.names == ("process_var", "obs_var")
    found = fit(model, t, z, free=levels.only(["process_var"]))
    family = (families.brownian() + families.noise()).fix(obs_var=2.0)
    wanted = fit(family, t, z)
    assert list(found.params) == ["process_var"]
    assert found.params["process_var"] == pytest.approx(wanted.params["process_var"], rel=1e-3)
    assert found.loglik == pytest.approx(wanted.loglik, abs=1e-5)
    assert found.model.R[0, 0] == 2.0
    with pytest.raises(ValueError, match=r"free must name levels .*process_var, obs_var.*'decay'"):
        levels.only(["decay"])


def test_the_command_takes_the_names_that_it_prints(model_file, tmp_path, capsys):
    t, z = data()
    table = tmp_path / "data.csv"
    np.savetxt(table, np.column_stack([t, z]), delimiter=",", header="t,z", comments="")
    target = tmp_path / "fitted.toml"
    words = ["fit", str(table), "--model", str(model_file), "--free", "process_var", "-o"]
    with pytest.raises(SystemExit) as end:
        main([*words, str(target)])
    assert end.value.code in (0, None)
    fitted = read_model(target)
    assert fitted.R[0, 0] == pytest.approx(2.0)
    assert fitted.Q[0, 0] != pytest.approx(0.5)
