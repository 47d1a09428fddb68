"""Tests of the event files for TensorBoard: what is on disk when, and what TensorBoard makes of several of them."""

import os
import threading

import pytest

from goalax.host import loggers
from tests.helpers.logs import read_tensorboard, tensorboard_events


@pytest.fixture
def tensorboard(tmp_path):
    """(logged, *kept) -> steps that TensorBoard shows: a process logs these rows one by one, and is never ended.

    kept: the steps of metrics.csv before them.
    """
    (tmp_path / "config.json").write_text("{}")

    def log(logged, *kept):
        logger, steps = loggers.TensorBoard(tmp_path), list(kept)
        for step in logged:
            steps.append(step)  # of the row, which is in metrics.csv first
            (tmp_path / "metrics.csv").write_text("\n".join(map(str, ["training/envsteps", *steps, ""])))
            logger.log({"training/envsteps": step})
        return [step for step, _, _ in read_tensorboard(tmp_path)]

    return log


def test_a_row_is_in_tensorboards_file_when_log_returns(tensorboard, tmp_path):
    threads = threading.active_count()
    assert tensorboard([60, 100]) == [60, 100] and threading.active_count() == threads
    (file,) = tmp_path.glob("events.out.tfevents.*")
    config = tensorboard_events(file)[1].summary.value[0]
    assert config.tag == "config/text_summary" and config.tensor.string_val == [b"```\n{}\n```"]


def test_tensorboard_forgets_what_came_after_the_checkpoint_of_a_killed_run(tensorboard, tmp_path):
    tensorboard([60, 100, 120, 140])
    (file,) = tmp_path.glob("events.out.tfevents.*")
    os.truncate(file, file.stat().st_size - 5)  # it was killed as it wrote
    assert tensorboard([], 60) == [60, 100, 120]  # the next one too, and before its first row
    assert tensorboard([110, 130], 60) == [60, 110, 130]
    assert tensorboard([150], 60, 110, 130) == [60, 110, 130, 150]
    assert tensorboard([20, 30]) == [20, 30]  # it began with a checkpoint before the first row
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 5  # though they were begun within a second
