"""What documents show of results: tables, curves, the best rows, steps and updates."""

import shutil

import numpy as np
import pytest
from PIL import Image

from goalax.commands import results as command
from goalax.study import curves, markdown, measures, results, results_document
from goalax.whole import part_of
from tests.helpers import toy
from tests.helpers.queue import FLAGS, document, folder_of, leave, place, rows, write

toy.register()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return folder_of(tmp_path, monkeypatch)


def test_curves_are_told_apart_by_what_their_rows_do_not_share(folder):
    write(folder, "--agent gcbc --policy_lr 1e-3", "--agent qrl --policy_lr 1e-3", "--agent qrl --components 2")
    assert [label.replace(f" {FLAGS}", "") for label in results_document.labels(rows(folder)[:2])] == ["gcbc", "qrl"]
    assert results_document.labels(rows(folder)[1:]) == ["qrl --policy_lr 1e-3", "qrl --components 2"]
    assert results_document.labels(rows(folder)[:1]) == ["gcbc"]
    picture = folder / "docs/curves/one.png"
    picture.parent.mkdir()
    picture.write_text("of rows whose flags have changed since")
    assert not results_document.draw(rows(folder), folder / "benchmarks/results", picture) and not picture.exists()


def test_tables_say_once_what_their_rows_share(folder):
    write(folder, "--agent gcbc --policy_lr 1e-3", "--agent qrl --policy_lr 1e-3", flags=f"{FLAGS} --batch_size 8")
    assert command.main(["--tables"]) == 0
    (common,) = (line for line in document(folder).splitlines() if line.startswith("All with"))
    assert "--batch_size 8" in common and "--policy_lr 1e-3" in common and "--agent" not in common
    lines = [line for line in document(folder).splitlines() if line.startswith("| `")]
    assert [line.split("|")[1].strip() for line in lines] == ["`--agent gcbc`", "`--agent qrl`"]


def test_goals_are_told_over_the_last_three_evaluations(folder):
    write(folder, "--agent gcbc")
    (row,) = rows(folder)
    told = [
        {"training/envsteps": 30 + 30 * i, "training/gradient_steps": i, "eval/episode_success_any": share}
        | {"eval/time_at_goal": share / 2}
        for i, share in enumerate((0.0, 0.2, 0.4, 0.9))
    ]
    leave(folder, row, told)
    line = results_document.cells(row, results.kept(row, folder / "benchmarks/results"), "")
    assert line[4:6] == ["0.50", "0.25"]


def test_success_by_tasks_stands_for_the_time_at_the_goal(folder):
    """Episodes of OGBench end at the goal."""
    write(folder, "--agent gcbc")
    (row,) = rows(folder)
    shares = enumerate((0.0, 0.3, 0.6, 0.6))
    told = [
        {"training/envsteps": 30 + 30 * i, "training/gradient_steps": i, "eval/success": share} for i, share in shares
    ]
    leave(folder, row, told)
    line = results_document.cells(row, results.kept(row, folder / "benchmarks/results"), "")
    assert line[4:7] == ["0.50", "0.60", "60"]  # the mean of the last three, the last, and steps to 0.1
    text = results_document.section_text([row], folder / "benchmarks/results", {}, None)
    assert "success over the tasks" in text and "share of time" not in text
    (best,) = results_document.best_rows([row], folder / "benchmarks/results")
    assert best.line[4:6] == ["0.50", ""] and best.score == (False, pytest.approx(0.5))
    leave_out = [{name: value for name, value in each.items() if name != "eval/success"} for each in told]
    shutil.rmtree(folder / f"benchmarks/results/{row.name}_s0")
    leave(folder, row, [each | {"eval/episode_success_any": 0.25} for each in leave_out])
    assert results_document.cells(row, results.kept(row, folder / "benchmarks/results"), "")[4] == "0.25"


def test_without_goals_returns_are_told(folder):
    """The mean of the last three, the last one, and the first steps with a share of what an episode of 10 can give."""
    write(folder, "--agent gcbc", "--agent gcbc --policy_lr 0.01")
    row, _ = rows(folder)
    told = [
        {"training/envsteps": 30 + 30 * i, "training/gradient_steps": i, "eval/episode_reward": reward}
        for i, reward in enumerate((0.5, 1.0, 4.0, 7.0))
    ]
    leave(folder, row, told, results.experiments.PROGRESS)
    (trained,) = found = results.kept(row, folder / "benchmarks/results")
    assert len(trained.rows) == 4 and results.finished(found)
    line = results_document.cells(row, found, "")
    assert line[2:7] == ["120", "1:40.0", "4", "7", "60"]
    assert command.main(["--tables"]) == 0
    head, _, first, second = [line for line in document(folder).splitlines() if line.startswith("|")]
    assert (
        "| return, mean of the last three | return at the last evaluation | steps to 0.1 of the highest return |"
        in head
    )
    assert "| 4 | 7 | 60 |" in first and "not run" in second
    assert Image.open(folder / "docs/curves/one.png").width > 500
    with pytest.raises(results.FlagError, match="has no goals"):
        results.experiments.read_one(trained.directory)


def test_what_comes_before_the_first_step_is_told_apart(folder):
    write(folder, "--agent gcbc --dataset x.npz --offline_steps 40")
    (row,) = rows(folder)
    told = {"training/envsteps": 120, "training/gradient_steps": 52, "training/offline_updates": 40}
    leave(folder, row, [told])
    assert results_document.cells(row, results.kept(row, folder / "benchmarks/results"), "")[2:4] == [
        "40 updates, 120",
        "1:10.0",
    ]


def test_steps_are_those_of_the_environment_and_updates_lie_before_them(folder):
    """A threshold that a dataset is enough for takes no step; the area is that over steps; updates end at 0."""
    write(folder, "--agent gcbc --dataset x.npz --offline_steps 40")
    (row,) = rows(folder)
    places = [(0, 20, 0.0), (0, 40, 0.2), (60, 40, 0.4), (120, 40, 0.6)]
    names = "training/envsteps", "training/offline_updates", "eval/time_at_goal"
    leave(folder, row, [dict(zip(names, place, strict=True)) | {"training/gradient_steps": 52} for place in places])
    (group,), _ = results.experiments.group(results.kept(row, folder / "benchmarks/results"))
    np.testing.assert_array_equal(group.at, [-20, 0, 60, 120])
    assert [measures.speed(group, share)[0] for share in (0.2, 0.4, 0.9)] == [0, 60, np.inf]
    assert measures.area(group).value == pytest.approx(0.4)
    figures = curves.compare([group], "steps").figure, curves.of_run(group.runs[0].rows, "a run")
    for axes in (axes for figure in figures for axes in figure.axes):
        assert axes.get_xlabel() == "environment steps, left of 0 updates on a dataset"
        assert axes.get_xlim()[0] == -20 and all(line.get_xdata()[-1] == 120 for line in axes.lines)


def test_steps_to_a_share_are_the_median_over_seeds(folder):
    """Of two seeds that are there after 60 and after 120 steps, half of the way between, as in the report."""
    write(folder, "--agent gcbc --num_seeds 2")
    (row,) = rows(folder)
    told = [{"training/envsteps": 30 * i, "training/gradient_steps": i} for i in range(1, 5)]
    leave(folder, row, [each | {"eval/time_at_goal": float(i >= 1)} for i, each in enumerate(told)])
    late = folder / f"benchmarks/results/{row.name}_s1"
    shutil.rmtree(late)
    early = folder / f"benchmarks/results/{row.name}_s0"
    early.rename(folder / "early")
    leave(folder, row, [each | {"eval/time_at_goal": float(i >= 3)} for i, each in enumerate(told)])
    shutil.rmtree(early)
    (folder / "early").rename(early)
    assert results_document.cells(row, results.kept(row, folder / "benchmarks/results"), "")[6] == "90"


def test_the_best_row_of_every_environment_is_told(folder, capsys):
    write(
        folder,
        "--agent gcbc --num_seeds 2",
        "--agent gcbc --num_seeds 2 --policy_lr 1e-3",
        "--agent gcbc --policy_lr 2e-3",
    )
    assert command.main(["--readme", "README.md"]) == 2
    assert capsys.readouterr().err == "results.py: --readme is written with --tables; give both.\n"
    for row, near in zip(rows(folder)[:2], (0.25, 0.75), strict=True):  # the third one has not run
        leave(folder, row, [{"training/envsteps": 120, "training/gradient_steps": 30, "eval/time_at_goal": near}])
    (folder / "README.md").write_text("a\n" + "old\n".join(markdown.marks("best", "results.py")) + "b\n")
    assert command.main(["--tables", "--readme", "README.md"]) == 0
    _, _, _, _, line, *_ = (folder / "README.md").read_text().splitlines()
    env, agent, seeds, *_, device, best = [cell.strip() for cell in line.strip(" |").split("|")]
    assert (
        env == "`toy`: not solved"
        and best == f"`{rows(folder)[1].command}`"
        and (agent, seeds, device) == ("`gcbc`", "2", "a core")
    )
    assert "0.75" in line and "old" not in (folder / "README.md").read_text()
    (folder / "envs.md").write_text("".join(markdown.marks("learned", "results.py")))
    assert command.main(["--tables", "--readme", "README.md,envs.md"]) == 0
    _, _, _, line, _, others, _ = (folder / "envs.md").read_text().splitlines()
    env, words, steps, preset, *_, near = [cell.strip() for cell in line.strip(" |").split("|")]
    assert (env, words, steps, preset) == ("`toy`: not solved", f"`{rows(folder)[1].words}`", "120", "4,000")
    assert near.startswith("0.75")
    assert "`reacher`" in others and "`toy`" not in others and "`ant_u_maze_eval`" not in others
    (folder / "README.md").write_text("a")
    assert command.main(["--tables", "--readme", "README.md"]) == 2
    assert "The document is without a place for best" in capsys.readouterr().err


def test_the_best_row_solves_its_environment_and_one_lucky_evaluation_is_not_enough(folder):
    """Episodes of another length are another task, however well they end."""
    write(folder, "--agent gcbc", "--agent qrl --components 2", "--agent tmd", "--agent gcbc --episode_length 5")
    told = [{"training/envsteps": 30 * i, "training/gradient_steps": i} for i in range(1, 5)]

    def finish(row, reached, near):
        scores = zip(told, reached, near, strict=True)
        leave(folder, row, [a | {"eval/episode_success_any": b, "eval/time_at_goal": c} for a, b, c in scores])

    lucky, steady, solved, longer = rows(folder)
    finish(lucky, [0.1, 0.1, 0.1, 0.9], [0.1, 0.1, 0.1, 0.9])
    finish(steady, [0.5, 0.8, 0.8, 0.8], [0.5, 0.6, 0.6, 0.6])
    finish(longer, [1, 1, 1, 1], [1, 1, 1, 1])
    (best,) = results_document.best_rows(rows(folder), folder / "benchmarks/results")
    assert best.row == steady and best.env == "`toy`: not solved"
    finish(solved, [0, 1, 1, 0.9], [0.5, 0.5, 0.5, 0.5])
    (best,) = results_document.best_rows(rows(folder), folder / "benchmarks/results")
    assert best.row == solved and best.env == "`toy`"


@pytest.mark.parametrize("steps, label", [(0, "updates"), (30, "environment steps")])
def test_the_picture_of_a_run_says_what_its_steps_are(steps, label):
    row = dict.fromkeys(results.experiments.NEEDED, 0.5) | {"training/envsteps": steps, "training/gradient_steps": 9}
    figure = curves.of_run([row, row], "a run")
    assert {axes.get_xlabel() for axes in figure.axes} == {label}
    assert all(line.get_marker() == "None" for axes in figure.axes for line in axes.lines)
    lines = [line for axes in curves.of_run([row], "a run").axes for line in axes.lines]
    assert lines and all(line.get_marker() == "o" for line in lines)  # a line of one point cannot be seen


def test_every_section_is_in_the_document_that_has_a_place_for_it(folder):
    (folder / "docs/planning.md").write_text("c\n" + place("two") + "d\n")
    write(folder, "--agent gcbc")
    path = folder / "benchmarks/results/rows.yml"
    path.write_text(path.read_text() + f"- section: two\n  flags: {FLAGS}\n  rows: [--agent qrl --components 2]\n")
    assert command.main(["--tables"]) == 0
    one, other, two = ((folder / f"docs/{name}.md").read_text() for name in ("results", "offline", "planning"))
    assert one.startswith("a\n") and "--agent gcbc" in one and "--agent qrl" not in one
    assert two.startswith("c\n") and "--agent qrl" in two and "--agent gcbc" not in two
    assert other == "offline\n"


def test_a_document_that_cannot_be_written_is_one_sentence(folder, capsys):
    write(folder, "--agent gcbc")
    for name, what in (("folder.md", "cannot be read: Is a directory."), ("bytes.md", "cannot be read: ")):
        (folder / "folder.md").mkdir(exist_ok=True)
        (folder / "bytes.md").write_bytes(b"\xff\xfe")
        assert command.main(["--tables", "--out", name]) == 2
        error = capsys.readouterr().err
        assert what in error and error.count("\n") == 1
    assert command.main(["--tables", "--keep", "nowhere"]) == 2  # not: a table of rows that have not run
    assert capsys.readouterr().err.startswith("results.py: --keep is 'nowhere'; there is no such folder")
    part_of(folder / "docs/results.md").mkdir()
    assert command.main(["--tables"]) == 2
    assert "docs/results.md cannot be written: Is a directory." in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_one_sentence(folder, capsys):
    write(folder, "--agent gcbc")
    leave(folder, rows(folder)[0], [{"training/envsteps": 120, "training/gradient_steps": 5}])
    part = part_of(folder / "docs/curves/one.png")
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    assert command.main(["--tables"]) == 2
    assert capsys.readouterr().err == "results.py: docs/curves/one.png cannot be written: No space left on device.\n"
    assert not list(part.parent.iterdir())
    assert command.main(["--tables"]) == 0 and (part.parent / "one.png").is_file()
