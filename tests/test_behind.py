"""What a state has behind it, in words; and that commands say it: updates on a dataset are no environment steps."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from goalax.commands import evaluate, render
from goalax.commands import train as training
from goalax.host import resuming
from goalax.host.behind import in_words, progress_in_words
from goalax.host.config import read_flags
from goalax.host.display import Display
from goalax.host.make import make_run
from tests.helpers import toy

toy.register()


@pytest.mark.parametrize(
    ("steps", "updates", "on_dataset", "words"),
    [
        (0, 1240, 1240, "1,240 updates"),
        (0, 62, 124, "62 updates"),
        (5000, 300, 0, "5,000 steps"),
        (5000, 300, 62, "62 updates and 5,000 steps"),
        (0, 0, 0, "0 steps"),
    ],
)
def test_words(steps, updates, on_dataset, words):
    config = SimpleNamespace(dataset_steps=on_dataset)
    state = SimpleNamespace(env_steps=steps, gradient_steps=updates)
    assert in_words(config, state) == words
    assert progress_in_words(config, steps + on_dataset if steps else updates) == words


def test_progress_counts_steps_apart_from_updates():
    display = Display(1400, Console(file=io.StringIO()), updates=1000)
    assert display.step(620).startswith("620 / 1,000 updates")
    assert display.step(1240).startswith("240 / 400 steps")


def test_commands_say_updates_where_there_were_no_steps(here, capsys):
    data = ["--dataset", "data.npz", "--offline_steps", "20", "--num_timesteps", "0"]
    assert training.main([*toy.TINY, *data, "--exp_name", "x"]) == 0
    capsys.readouterr()
    assert evaluate.main(["runs/x_s0", "--episodes", "2"]) == 0
    assert ", 20 updates, 2 episodes" in capsys.readouterr().out
    assert evaluate.main(["runs/x_s0", "--env_name", "reacher"]) == 2
    error = capsys.readouterr().err
    assert "--env_name is 'reacher', whose" in error and "of the run's toy" in error and "eval_env" not in error
    caption = render.trained_policy(render.RenderConfig(run="runs/x_s0", vis_length=4))[2]
    assert caption.endswith("   20 updates")
    config = make_run(*read_flags([*toy.TINY, *data])).config
    told = resuming.unwritten(OSError("gone"), config, [Path("runs/x_s0")], "training.py")
    assert "everything up to the checkpoint at 20 updates is safe" in told
