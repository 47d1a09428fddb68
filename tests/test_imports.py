"""What starts need: no JAX for `goalax --help`, and neither PyAV, wandb, optuna nor tensorboardX for a training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import toy

ROOT = Path(__file__).parents[1]
OPTIONAL = ("av", "wandb", "optuna", "tensorboardX")
MISSING = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"  # None: its import fails


def python(code: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_training_needs_no_optional_package_and_names_a_logger_whose_is_missing(tmp_path):
    code = f"{MISSING}{toy.START} sys.exit(train.main({[*toy.TINY, '--log_tensorboard']!r}))"
    result = python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "metrics.csv").read_text().count("\n") == 4 and (run / "curves.png").exists()
    assert "TensorBoard failed (" in result.stdout and "training goes on without it" in result.stdout


@pytest.mark.slow
def test_pages_need_no_video_encoder_and_a_video_says_that_it_does(tmp_path):
    code = f"""{MISSING}
from pathlib import Path
from goalax.envs import create_env
from goalax.films import page, render, scene
from tests.helpers.films import film_of
env = create_env("reacher")
page.save(env, film_of(env), Path("a.html"))
try:
    render.save_mp4(env, film_of(env), Path("a.mp4"))
except scene.RenderError as error:
    print(error)
"""
    result = python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("MP4 needs PyAV (pip install av), which cannot be imported here (")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["trian"]])
def test_the_list_of_commands_needs_no_jax(argv, tmp_path):
    code = f"import sys; from goalax.cli import main; main({argv!r}); sys.exit('jax' in sys.modules)"
    assert python(code, tmp_path).returncode == 0


def test_the_flags_need_only_what_registers_environments_and_agents(tmp_path):
    heavy = ("orbax", "matplotlib", "wandb", "optuna", "tensorboardX", "av", "brax.training.agents")
    code = f"""
import sys
from goalax.cli import run
try:
    run("train", ["--help"], "training.py")
except SystemExit:
    pass
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    result = python(code, tmp_path)
    assert "--env_name" in result.stdout and result.stderr.splitlines()[-1] == "[]"
