"""The results queue on toy rows: order, kills, a failing row, two queues at once, changed flags, and the document."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from goalax.commands import results as command
from goalax.host.resolve import resolve
from goalax.host.runs import read_metrics
from goalax.study import curves, markdown, results, results_document
from tests.helpers import ROOT, toy

toy.register()

FLAGS = " ".join(toy.BASELINE)
TRAIN = [sys.executable, "-c", f"{toy.START} sys.exit(train.main())"]
QUEUE = (
    f"{toy.START} from goalax.commands import results; results.Queue.command = {TRAIN!r}; sys.exit(results.main([]))"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in which trainings know the toy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(command.Queue, "command", TRAIN)
    for name in ("docs", "benchmarks/results"):
        (tmp_path / name).mkdir(parents=True)
    for name, text in (("results", "a\n" + place("one") + "b\n"), ("offline", "offline\n"), ("planning", "")):
        (tmp_path / f"docs/{name}.md").write_text(text)
    return tmp_path


def place(section):
    return "old\n".join(markdown.marks(section, "results.py"))


def write(folder, *rows, flags=FLAGS):
    lines = "".join(f"    - {row}\n" for row in rows)
    text = f"- section: one\n  threshold: 0.1\n  flags: {flags}\n  rows:\n{lines}"
    (folder / "benchmarks/results/rows.yml").write_text(text)


def rows(folder):
    return results.read_rows(folder / "benchmarks/results/rows.yml")


def kept(folder):
    return sorted(path.name for path in (folder / "benchmarks/results").iterdir() if path.is_dir())


def document(folder):
    return (folder / "docs/results.md").read_text()


@pytest.mark.slow
def test_rows_are_trained_in_order_and_once(folder, capsys):
    write(folder, "--agent gcbc --num_seeds 2", "--agent qrl --components 2")
    first, second = rows(folder)
    assert command.main([]) == 0
    said = capsys.readouterr().out
    assert said.index(first.command) < said.index(second.command)
    names = [f"{first.name}_s0", f"{first.name}_s1", f"{second.name}_s0"]
    assert kept(folder) == sorted(names)
    for name in names:
        assert {path.name for path in (folder / "benchmarks/results" / name).iterdir()} == {
            "config.json",
            "metrics.csv",
        }
    text = document(folder)
    assert text.startswith("a\n") and text.endswith("b\n") and "old" not in text and "not run" not in text
    assert first.command in text and "| `--agent qrl" in text
    assert "![learning curves](curves/one.png)" in text and Image.open(folder / "docs/curves/one.png").width > 500
    assert command.main([]) == 0
    assert "output goes to" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_changed_flag_is_a_new_row(folder):
    write(folder, "--agent gcbc")
    assert command.main([]) == 0
    (row,) = rows(folder)
    write(folder, "--agent gcbc --policy_lr 0.01")
    (other,) = rows(folder)
    assert other.name != row.name and not results.kept(other, folder / "benchmarks/results")
    write(folder, "--agent gcbc")
    path = folder / "benchmarks/results" / f"{row.name}_s0" / "config.json"
    content = json.loads(path.read_text())
    assert results.fits(row, content)
    del content["flags"]["commanded_goals"], content["agent_flags"]["depth"]  # a version that did not have them
    assert results.fits(row, content)
    content["agent_flags"]["policy_lr"] = 0.5  # a default that has changed since
    path.write_text(json.dumps(content))
    assert not results.kept(row, folder / "benchmarks/results")


@pytest.mark.slow
def test_a_row_that_learns_offline_makes_its_data_once_and_counts_updates(folder, monkeypatch):
    monkeypatch.setattr(command.Queue, "collect", [sys.executable, "collect.py"])
    (folder / "collect.py").write_text(
        "import sys, numpy as np\n"
        "from tests.helpers.offline import walks\n"
        "assert sys.argv[1:] == ['--out', 'data/walks.npz']\n"
        "open('made', 'a').write('x')\n"
        "np.savez('data/walks.npz', **walks())\n"
    )
    write(folder, "--agent gcbc", flags=f"{FLAGS} --dataset data/walks.npz --offline_steps 40 --num_timesteps 0")
    path = folder / "benchmarks/results/rows.yml"
    path.write_text(path.read_text() + "  data: ['--out data/walks.npz']\n")
    (row,) = rows(folder)
    assert command.main([]) == command.main([]) == 0
    assert (folder / "made").read_text() == "x" and kept(folder) == [f"{row.name}_s0"]
    assert "python scripts/dataset.py --out data/walks.npz\npython training.py" in document(folder)
    assert "| 1 | 40 updates |  |" in document(folder)
    group = results_document.group_of(results.kept(row, folder / "benchmarks/results"))
    figure = curves.compare([group], "steps").figure
    assert {axes.get_xlabel() for axes in figure.axes} == {"updates"}
    (trained,) = results.kept(row, folder / "benchmarks/results")
    trained.rows[-1]["training/gradient_steps"] = 39
    assert not results.finished(row, [trained])


def test_other_data_make_another_row(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write(folder, "--agent gcbc", flags=f"{FLAGS} --dataset data/x.npz --offline_steps 40 --num_timesteps 0")
    path = folder / "benchmarks/results/rows.yml"
    text, names = path.read_text(), set()
    (folder / "data").mkdir()
    for steps, there in ((10, False), (20, True), (20, False)):
        path.write_text(f"{text}  data: ['--steps {steps} --out data/x.npz', '--out data/other.npz']\n")
        (row,) = rows(folder)
        names.add(row.name)
        made, other = row.data
        assert command.missing(row) == [made, other]  # none is there, or made by another line
        if there:
            (folder / "data/x.npz").touch()
            assert command.missing(row) == [other]  # somebody's own
            command.note_of("data/x.npz").write_text("--steps 10 --out data/x.npz")
    path.write_text(f"{text}  data: ['--steps 20 --out data/x.npz']\n")
    (row,) = rows(folder)
    queue = command.Queue(command.ResultsConfig(keep=str(folder / "keep")), "results.py")
    monkeypatch.setattr(queue, "call", lambda *_: 143)  # stopped, with half of it there
    assert queue.collected(row.data[0], sys.stdout) == 143 and (folder / "data/x.npz").exists()
    assert command.missing(row) == [row.data[0]]
    assert names == {rows(folder)[0].name, *names} and len(names) == 2  # the other file is not the row's


def test_a_row_of_another_machine_counts(folder):
    """Presets differ between CPUs and GPUs."""
    flags = FLAGS.replace("--num_envs 4", "").replace("--num_timesteps 120", "--num_timesteps 1000000")
    write(folder, "--agent gcbc", flags=flags)
    (row,) = rows(folder)
    leave(folder, row, [{"training/envsteps": 120, "training/gradient_steps": 12}])
    path = folder / f"benchmarks/results/{row.name}_s0/config.json"
    content = json.loads(path.read_text())
    content["flags"] |= {"num_envs": 512, "utd_ratio": results.settings_of(row, 512, 4)["utd_ratio"]}
    assert results.fits(row, content)
    content["flags"]["utd_ratio"] = 0.5
    assert not results.fits(row, content)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("['--out minari:a/walks-v0']", "the data '--out minari:a/walks-v0' says no file"),
        ("[3]", "`data` must be a list of command lines"),
        ('["--out \'x.npz"]', "are no command lines: No closing quotation"),
        ("['--style x']", "the data '--style x' says no file"),
    ],
)
def test_data_without_a_file_is_one_sentence(folder, data, words, capsys):
    write(folder, "--agent gcbc")
    path = folder / "benchmarks/results/rows.yml"
    path.write_text(path.read_text() + f"  data: {data}\n")
    assert command.main([]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_row_that_fails_does_not_stop_the_others(folder, capsys):
    write(folder, "--agent gcbc --policy_lr 1e38", "--agent gcbc")
    bad, good = rows(folder)
    assert command.main([]) == 1
    assert kept(folder) == [f"{good.name}_s0"]
    assert "Training stopped at" in capsys.readouterr().err and "failed: " in document(folder)
    assert bad.name in {path.stem for path in (folder / "runs/results").glob("*.log")}


@pytest.mark.table
def test_a_section_without_a_place_stops_no_row(folder, capsys, monkeypatch):
    """Somebody adds a section to the file while the first row trains, and forgets the document."""
    write(folder, "--agent gcbc")
    (first,) = rows(folder)
    path, run = folder / "benchmarks/results/rows.yml", command.Queue.run

    def run_and_edit(queue, row):
        run(queue, row)
        if "section: two" not in path.read_text():
            path.write_text(
                path.read_text() + f"- section: two\n  flags: {FLAGS}\n  rows: [--agent qrl --components 2]\n"
            )

    monkeypatch.setattr(command.Queue, "run", run_and_edit)
    assert command.main([]) == 0
    assert len(kept(folder)) == 2 and f"{first.name}_s0" in kept(folder)
    assert capsys.readouterr().out.count("the tables are not written: No place for two in docs/results.md, docs") == 2
    assert command.main([]) == 2  # at the start there is time to mend it


@pytest.mark.slow
def test_a_file_that_is_being_edited_is_read_again(folder, capsys, monkeypatch):
    """Half of a line is saved while the first row trains, the rest a moment later, and the order is another one."""
    write(folder, "--agent gcbc", "--agent qrl --components 2", "--agent gcbc --policy_lr 0.01")
    first, second, third = rows(folder)
    run = command.Queue.run

    def run_and_edit(queue, row):
        run(queue, row)
        if row.name == first.name:
            write(folder, "--agent gc")
            write_it = threading.Timer(
                1.0, write, [folder, "--agent gcbc --policy_lr 0.01", "--agent qrl --components 2"]
            )
            write_it.start()

    monkeypatch.setattr(command.Queue, "run", run_and_edit)
    monkeypatch.setattr(command, "PATIENCE", 0.2)
    monkeypatch.setattr(command, "READINGS", 1000)  # the edit may take its time on a busy machine
    assert command.main([]) == 0
    said = capsys.readouterr().out
    assert "--agent is 'gc'" in said and "It is read again in 0.2 seconds" in said
    assert said.index(first.command) < said.index(third.command) < said.index(second.command)
    assert kept(folder) == sorted(f"{row.name}_s0" for row in (first, second, third))


@pytest.mark.slow
def test_a_file_that_stays_broken_lets_no_core_idle(folder, capsys, monkeypatch):
    """The rows that it had before go on; the document is written once it can be read."""
    write(folder, "--agent gcbc", "--agent qrl --components 2")
    first, second = rows(folder)
    run = command.Queue.run

    def run_and_break(queue, row):
        run(queue, row)
        write(folder, "--agent crl --flag_of_tomorrow 1")
        queue.stopping = row.name == second.name

    monkeypatch.setattr(command.Queue, "run", run_and_break)
    monkeypatch.setattr(command, "PATIENCE", 0.05)
    assert command.main([]) == 130
    said = capsys.readouterr().out
    assert said.count("It is read again in 0.05 seconds") == command.READINGS - 1
    assert "The rows that it had before go on." in said
    assert kept(folder) == sorted(f"{row.name}_s0" for row in (first, second))


def test_a_training_that_leaves_another_run_fails_its_row(folder, capsys, monkeypatch):
    write(folder, "--agent gcbc")
    (row,) = rows(folder)
    monkeypatch.setattr(command.Queue, "command", [sys.executable, "-c", ""])
    assert command.main([]) == 1
    assert f"{row.name} failed: what it left is no run with the flags of the row" in capsys.readouterr().err


def test_the_list(folder, capsys):
    write(folder, "--agent gcbc", "--agent qrl --components 2")
    assert command.main(["--list"]) == 0
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["not run", "not run"]
    assert not (folder / "runs").exists()
    assert command.main(["--tables"]) == 0
    assert document(folder).count("not run") == 2


def start(folder):
    return subprocess.Popen([sys.executable, "-c", QUEUE], cwd=folder, stdout=subprocess.DEVNULL)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_queue_goes_on_where_it_was(number, folder):
    long = FLAGS.replace("--num_timesteps 120 --num_evals 3", "--num_timesteps 40000 --num_evals 40")
    write(folder, "--agent gcbc", flags=long)
    (row,) = rows(folder)
    metrics = folder / "runs/results" / f"{row.name}_s0" / "metrics.csv"
    queue = start(folder)
    wait_for(lambda: len(read_metrics(metrics)) >= 2)
    os.kill(queue.pid, number)
    queue.wait(60)
    time.sleep(1)  # a training whose queue was killed is told to end, and saves first
    wait_for(lambda: not running(row.name))
    done = len(read_metrics(metrics))
    assert done < 40 and not kept(folder)
    assert command.main([]) == 0
    assert kept(folder) == [f"{row.name}_s0"] and len(read_metrics(metrics)) == 40
    assert len(list((folder / "runs/results").glob(f"{row.name}_s0*"))) == 1, "it was resumed, not begun again"


def running(name):
    return subprocess.run(["pgrep", "-f", f"exp_name {name}"], capture_output=True).returncode == 0


def test_two_queues_do_not_train_into_one_folder(folder, capsys):
    write(folder, "--agent gcbc")
    with command.only_one(folder / "runs/results"):
        assert command.main([]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"process {os.getpid()}" in error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML in line"),
        ("a: 1", "must be a list of sections"),
        ("- rows: []", "part 1 needs a `section`"),
        ("- {section: one, rows: [], colour: red}", "has `colour`"),
        ("- {section: one, rows: --agent crl}", "`rows` must be a list"),
        ("- {section: one, rows: [--agent crll]}", "the row '--agent crll' is no command line: --agent is 'crll'"),
        ("- {section: one, rows: ['--agent \"crl']}", "is no command line: No closing quotation"),
        ("- {section: one, threshold: 2, rows: []}", "`threshold` is 2"),
        ("- {section: one, rows: [--agent crl, --agent crl]}", "is there twice"),
        ("- {section: two, rows: [--agent crl]}", "No place for two in docs/results.md, docs/offline.md, docs/plan"),
    ],
)
def test_one_sentence_for_a_wrong_file(text, words, folder, capsys):
    (folder / "benchmarks/results/rows.yml").write_text(text)
    assert command.main([]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and error.startswith("results.py: ")


def test_the_rows_of_this_project_are_command_lines_and_have_their_places():
    listed = results.read_rows(ROOT / "benchmarks/results/rows.yml")
    text = "".join((ROOT / name).read_text() for name in command.ResultsConfig().out.split(","))
    for section in {row.section for row in listed}:
        start, end = markdown.marks(section, "results.py")
        assert start in text and end in text
    names = {f"{row.name}_s{seed}" for row in listed for seed in row.seeds}
    assert {path.parent.name for path in (ROOT / "benchmarks/results").glob("*/config.json")} <= names


@pytest.mark.slow
def test_the_rows_of_this_project_could_start():
    """One row of each environment and sizes, presets filled in."""
    pytest.importorskip("ogbench")
    pytest.importorskip("mujoco_playground")
    unlike = {}
    for row in results.read_rows(ROOT / "benchmarks/results/rows.yml"):
        sizes = "env_name", "num_envs", "action_repeat", "unroll_length", "min_replay_size", "max_replay_size"
        unlike.setdefault(tuple(getattr(row.flags, name) for name in sizes), row)
    for row in unlike.values():
        assert resolve(row.flags).config.env_name == row.flags.env_name


def test_curves_are_told_apart_by_what_their_rows_do_not_share(folder):
    write(folder, "--agent gcbc --policy_lr 1e-3", "--agent qrl --policy_lr 1e-3", "--agent qrl --components 2")
    assert [label.replace(f" {FLAGS}", "") for label in results_document.labels(rows(folder)[:2])] == ["gcbc", "qrl"]
    assert results_document.labels(rows(folder)[1:]) == ["qrl --policy_lr 1e-3", "qrl --components 2"]
    assert results_document.labels(rows(folder)[:1]) == ["gcbc"]
    assert not results_document.draw(rows(folder), folder / "benchmarks/results", folder / "docs/curves/one.png")


def leave(folder, row, told, needed=results.experiments.NEEDED):
    """Runs of a row as if they had finished: evaluations that tell this, and of all else that is needed 0.5."""
    for seed in row.seeds:
        flags = {name: getattr(row.flags, name) for name in vars(row.flags)} | results.settings_of(row)
        content = {"flags": flags | {"seed": seed}, "agent_flags": vars(row.agent_flags), "device": "a core"}
        run = folder / f"benchmarks/results/{row.name}_s{seed}"
        run.mkdir()
        (run / "config.json").write_text(json.dumps(content))
        table = [dict.fromkeys(needed, 0.5) | each for each in told]
        lines = [",".join(table[0]), *(",".join(map(str, each.values())) for each in table)]
        (run / "metrics.csv").write_text("\n".join(lines) + "\n")


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
    assert best.line[4:6] == ["0.50", ""] and best.score == pytest.approx(0.6)
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
    assert len(trained.rows) == 4 and results.finished(row, found)
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


@pytest.mark.parametrize("steps, label", [(0, "updates"), (30, "environment steps")])
def test_the_picture_of_a_run_says_what_its_steps_are(steps, label):
    row = dict.fromkeys(results.experiments.NEEDED, 0.5) | {"training/envsteps": steps, "training/gradient_steps": 9}
    figure = curves.of_run([row, row], "a run")
    assert {axes.get_xlabel() for axes in figure.axes} == {label}


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
    (folder / "docs/results.md.part").mkdir()
    assert command.main(["--tables"]) == 2
    assert "docs/results.md.part cannot be written: Is a directory." in capsys.readouterr().err
