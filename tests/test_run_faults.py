"""Run directories and checkpoints when something is wrong: odd names, damage, two writers, readers, full disks."""

import csv
import errno
import hashlib
import io
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from goalax.commands import evaluate, render
from goalax.commands import train as training
from goalax.flags import FlagError
from goalax.host import checkpoint, display, runs, writer
from goalax.host.config import read_flags
from tests.helpers import toy
from tests.helpers.runs import rows

toy.register()

RUN = Path("runs/toy_crl_s0")
LONGER = ("--resume", "--num_timesteps", "160", "--num_evals", "5")
ODD = "a [v2] 'q' \"p\" $x$ *?{é}%#;& 目:x:"


@pytest.fixture
def run(toy_runs, tmp_path, monkeypatch):
    """Resumes a copy of a finished run with the steps 60, 100 and 120: (flags) -> exit code."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_runs / "l2_s0", RUN)
    return lambda *argv: training.main([*toy.TINY, "--energy_fn", "l2", *argv])


def envsteps(directory=RUN):
    return [row["training/envsteps"] for row in runs.read_metrics(directory / "metrics.csv")]


def damage(folder):
    for file in (folder / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-20])


def contents(folder):
    """Everything in a folder: names, times, hashes."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.is_file() and hash_of(path))
        for path in [folder, *folder.rglob("*")]
    }


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_odd_names_in_every_place(tmp_path, monkeypatch, capsys):
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.chdir(folder)
    flags = [*toy.TINY, "--exp_name", ODD, "--group_name", f"g{ODD}"]
    assert training.main(flags) == 0
    directory = Path("runs") / f"g{ODD}" / f"{ODD}_s0"
    assert f"  {directory}/metrics.csv" in capsys.readouterr().out
    assert checkpoint.steps(directory / "checkpoints") == [120, 100]
    assert training.main([*flags, *LONGER]) == 0  # by name
    flags = [*LONGER[:1], "--run_dir", str(directory), "--num_timesteps", "200", "--num_evals", "7"]
    assert training.main(flags) == 0
    assert envsteps(directory)[-1] == 200 and os.listdir(directory.parent) == [directory.name]
    capsys.readouterr()
    assert evaluate.main([str(directory), "--episodes", "2"]) == 0
    assert capsys.readouterr().out.startswith(f"{directory}: crl in toy, 200 steps, 2 episodes")
    config = render.RenderConfig(run=str(directory), vis_length=5)
    assert render.check(config) == [Path(f"{ODD}_s0.html")]
    assert render.trained_policy(config)[2] == "toy   crl   200 steps"


def test_names_are_compared_not_matched(run):
    for name in ("x[ab]_s0", "xa_s0", "-3"):
        shutil.copytree(RUN, Path("runs") / name)
    find = lambda name: runs.find(read_flags([*toy.TINY, "--exp_name", name])[0], 0)  # noqa: E731
    assert find("x[ab]") == Path("runs/x[ab]_s0")
    for name in ("x*", "x?", "x[a]"):
        with pytest.raises(FlagError, match="found no run"):
            find(name)


def test_long_names(run, capsys):
    name = ("--exp_name", "n" * 250)
    assert run(*name) == 0 and run(*name, *LONGER) == 0
    capsys.readouterr()
    for flags in (["--exp_name", "é" * 250], ["--group_name", "n" * 300], ["--resume", "--run_dir", "n" * 300]):
        assert run(*flags) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and ("too long" in error or "there is no run to resume" in error)


def test_the_display_shows_brackets():
    for terminal in (False, True):
        console = Console(record=True, force_terminal=terminal, width=200, highlight=False, file=io.StringIO())
        with display.Display(10, console) as shown:
            shown.say("writes to [red]a[/b] :x:")
            shown.note("a note on [/c] :x:")
            shown.bar.refresh()
            shown.summary("[bold]t :x:", {"a": "1"}, [Path("runs/[x]_s0")])
        text = console.export_text()
        for words in ("a note on [/c] :x:", "[bold]t :x:", "  runs/[x]_s0"):
            assert words in text


def test_a_damaged_checkpoint_is_put_aside_so_that_the_next_is_saved(run, monkeypatch, capsys):
    monkeypatch.setattr(training.Session, "total_steps", 10**6)
    folder = RUN / "checkpoints"
    damage(folder / "120")
    kept = contents(folder / "120")
    step = display.Display.step

    def stop(display, env_steps):
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(training.Display, "step", step)
        return step(display, env_steps)

    monkeypatch.setattr(training.Display, "step", stop)
    with pytest.warns(UserWarning, match="120 is damaged"):
        assert run(*LONGER) == 143
    out = capsys.readouterr().out
    assert "is kept as 120.damaged" in out and "Stopped and saved" in out
    newest = checkpoint.steps(folder)[0]
    assert newest == 120 and 100 in checkpoint.steps(folder)
    assert contents(folder / "120.damaged").keys() == kept.keys()
    assert run(*LONGER) == 0
    assert envsteps() == [60, 100, 120, 140, 160] and checkpoint.steps(folder)[0] == 160


def test_a_later_checkpoint_of_one_seed_is_put_aside(run):
    shutil.copytree(RUN, "runs/toy_crl_s1")
    shutil.rmtree("runs/toy_crl_s1/checkpoints/120")
    assert run(*LONGER, "--num_seeds", "2") == 0
    assert Path(RUN / "checkpoints" / "120.later").is_dir()
    assert [checkpoint.steps(Path(f"runs/toy_crl_s{seed}/checkpoints"))[0] for seed in (0, 1)] == [160, 160]


def test_what_is_put_aside_never_takes_the_place_of_another(tmp_path):
    for names in (["5"], ["5.damaged", "5"], ["5.damaged", "5.damaged-2"]):
        (tmp_path / "5").mkdir()
        checkpoint.put_aside(tmp_path, 5, "damaged")
        assert set(names) <= {path.name for path in tmp_path.iterdir()} | {"5"}
    assert sorted(os.listdir(tmp_path)) == ["5.damaged", "5.damaged-2", "5.damaged-3"]


def test_saved_is_said_only_of_what_is_there(run, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint.Saver, "save", lambda saver, step, items: setattr(saver, "last", step))
    assert run(*LONGER) == 1
    error = capsys.readouterr().err
    assert "the checkpoint runs/toy_crl_s0/checkpoints/160 cannot be written (it is not there)" in error


def test_an_older_state_than_the_newest_is_not_passed_over_in_silence(run):
    with checkpoint.manager(RUN / "checkpoints") as saver, pytest.raises(checkpoint.SaveError, match="newer ones"):
        saver.save(80, {})


def test_readers_write_nothing(run, tmp_path, capsys):
    # As a run that is saving leaves it: Orbax's own name for what is not whole yet.
    unfinished = RUN / "checkpoints" / "140.orbax-checkpoint-tmp"
    shutil.copytree(RUN / "checkpoints" / "120", unfinished)
    damage(RUN / "checkpoints" / "120")
    before = contents(Path("runs"))
    assert evaluate.main([str(RUN), "--episodes", "2"]) == 0
    assert render.trained_policy(render.RenderConfig(run=str(RUN), vis_length=5))[2] == "toy   crl   100 steps"
    assert evaluate.main([str(RUN), "--episodes", "2", "--step", "100"]) == 0
    assert contents(Path("runs")) == before


def test_a_checkpoint_that_goes_as_it_is_read(run, monkeypatch, recwarn):
    read = checkpoint.read

    def late(folder, wanted):
        if folder.name == "120":  # training has saved and deleted in between
            folder.rename(folder.with_name("140"))
        return read(folder, wanted)

    monkeypatch.setattr(checkpoint, "read", late)
    state = checkpoint.restore(RUN / "checkpoints", template())
    assert int(state.env_steps) == 120 and not [w for w in recwarn if "damaged" in str(w.message)]


def template():
    import jax

    from goalax.host.make import make_run

    train = make_run(*read_flags([*toy.TINY, "--energy_fn", "l2"])).train
    return jax.eval_shape(train.init, np.zeros(2, np.uint32))


def test_one_writer(run, capsys):
    with writer.only_writer([RUN]):
        assert run(*LONGER) == 2
        words = f"The run directory {RUN} is being written by process {os.getpid()} on {socket.gethostname()}: wait"
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
        assert evaluate.main([str(RUN), "--episodes", "2"]) == 0  # readers need no lock
    assert not (RUN / "lock").exists()
    assert run(*LONGER) == 0
    assert not (RUN / "lock").exists()


def test_the_lock_is_let_go_on_errors_and_when_its_process_dies(run, capsys):
    with pytest.raises(RuntimeError), writer.only_writer([RUN]):
        raise RuntimeError
    code = (
        "import sys, pathlib; from goalax.host import writer; lock = writer.only_writer([pathlib.Path(sys.argv[1])]);"
    )
    code += "lock.__enter__(); print('held', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code, str(RUN)], **pipes)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(FlagError, match=f"written by process {process.pid} on "), writer.only_writer([RUN]):
        pass
    process.kill()
    process.communicate()
    assert (RUN / "lock").exists()
    with writer.only_writer([RUN]):
        assert (RUN / "lock").read_text() == f"{socket.gethostname()} {os.getpid()}\n"


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (f"{socket.gethostname()} {os.getpid()}\n", True),
        (f"{socket.gethostname()} {2**22 + 1}\n", False),  # more than the largest number of a process
        (f"{socket.gethostname()} {'9' * 30}\n", False),
        ("elsewhere 1\n", True),
        ("", False),
        ("words", False),
    ],
    ids=["alive", "dead", "no process", "elsewhere", "empty", "words"],  # the same in every process that collects
)
@pytest.mark.parametrize("flock", [True, False])
def test_locks_of_before(content, refused, flock, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "lock").write_text(content)
    if not flock:
        monkeypatch.setattr(writer.fcntl, "flock", unsupported)
    if refused and not flock:
        with pytest.raises(FlagError, match=r"if it is gone, delete .*lock"), writer.only_writer([tmp_path]):
            pass
    else:
        with writer.only_writer([tmp_path]):
            pass
        assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_locked(tmp_path):
    for folder in (tmp_path / "gone", tmp_path / ("n" * 300)):
        with pytest.raises(FlagError, match="cannot be written"), writer.only_writer([folder]):
            pass


def test_a_column_of_words_is_kept(run, capsys):
    path = RUN / "metrics.csv"
    first, *lines = path.read_text().splitlines()
    path.write_text("\n".join([first + ",notes", *(line + ",a good one" for line in lines)]) + "\n")
    content = path.read_text()
    (RUN / "metrics.csv.bak-1").write_text("mine")
    before = rows()
    assert run(*LONGER) == 0
    assert (RUN / "metrics.csv.bak-1").read_text() == "mine"
    assert (RUN / "metrics.csv.bak-2").read_text() == content
    assert "it is kept as metrics.csv.bak-2; 3 rows of it could be read and go on" in capsys.readouterr().out
    del before[0]["notes"], before[1]["notes"], before[2]["notes"]
    assert rows()[:3] == before and envsteps() == [60, 100, 120, 140, 160]


def saved_by_a_spreadsheet(text):
    return text.replace(".", ",!").replace(",!", "!").replace(",", ";").replace("!", ",")


@pytest.mark.parametrize(
    ("change", "kept", "steps"),
    [
        (lambda text: "\ufeff" + text.replace(",", " , ").replace("\n", "  \r\n"), False, [60, 100, 120]),
        (saved_by_a_spreadsheet, True, [60, 100, 120]),
        (lambda text: text.replace(",", "\t"), True, [60, 100, 120]),
        (lambda text: text + "130,1,0", False, [60, 100, 120]),  # torn by a crash
        (lambda text: text.replace("\n60,", "\nsixty,"), True, [100, 120]),
        (lambda text: text.replace("\n60,", "\n60,1,1,1,"), True, [100, 120]),
        (lambda text: text.replace("envsteps", "steps"), True, []),
        (lambda text: "nothing of this\nis a table\n", True, []),
        (lambda text: "\0" * 5 + '"' + "x" * 200_000, True, []),
        (lambda text: "", False, []),
    ],
)
def test_tables_that_something_else_wrote(change, kept, steps, run):
    path = RUN / "metrics.csv"
    text = change(path.read_bytes().decode().replace("\r", ""))
    path.write_bytes(text.encode())
    said = []
    file = runs.MetricsFile(RUN, 120, said.append)
    assert [row["training/envsteps"] for row in file.rows] == steps
    assert len(said) == kept and (RUN / "metrics.csv.bak-1").exists() == kept
    if kept:
        assert (RUN / "metrics.csv.bak-1").read_bytes() == text.encode()
    file.append({"training/envsteps": 140, "eval/x": 0.5})
    assert envsteps() == [*steps, 140] and len(said) == kept


def test_bytes_that_are_no_text_are_kept(run):
    (RUN / "metrics.csv").write_bytes(bytes(range(256)))
    assert runs.MetricsFile(RUN, 120, [].append).rows == []
    assert (RUN / "metrics.csv.bak-1").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("torn", [True, False])
def test_a_table_that_goes_while_training(torn, run, monkeypatch, capsys):
    evaluated, path = display.Display.evaluated, RUN / "metrics.csv"

    def spoil(display, env_steps, metrics):
        if env_steps == 140:
            path.write_bytes(path.read_bytes()[:-30]) if torn else path.unlink()
        return evaluated(display, env_steps, metrics)

    monkeypatch.setattr(display.Display, "evaluated", spoil)
    assert run(*LONGER) == 0
    assert envsteps() == [60, 100, 120, 140, 160]
    out = capsys.readouterr().out
    assert out.count("it is written anew, with all rows") == 1
    assert ("is kept as metrics.csv.bak-1" if torn else "metrics.csv was deleted") in out


def test_a_summary_of_a_table_without_some_columns(run):
    (RUN / "metrics.csv").write_text("training/envsteps,notes\n5,x\n")
    assert training.numbers(RUN) == {"environment steps": "5"}


def stopped(error, *words):
    """The one line that a run says when it cannot write."""
    lines = [line for line in error.splitlines() if "Training stopped" in line]
    assert len(lines) == 1 and "Traceback" not in error, error
    for word in words:
        assert word in lines[0], lines[0]


GO_ON = "once that is mended, this continues from there: python training.py --resume --run_dir runs/toy_crl_s0"


def test_a_full_disk_under_the_table(run, monkeypatch, capsys):
    fsync = os.fsync

    def full(file):
        if (RUN / "metrics.csv").exists() and len(envsteps()) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    assert run(*LONGER) == 1
    what = "runs/toy_crl_s0/metrics.csv cannot be written (No space left on device)"
    stopped(capsys.readouterr().err, what, "everything up to the checkpoint at 120 steps is safe", GO_ON)
    monkeypatch.setattr(os, "fsync", fsync)
    assert run(*LONGER) == 0
    assert envsteps() == [60, 100, 120, 140, 160]


def test_a_full_disk_under_a_checkpoint(run, monkeypatch, capfd):
    """The kernel refuses files past a size, as a full disk would: Orbax meets a real error in its own threads."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = checkpoint.Saver.save

    def full(saver, step, items):
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        save(saver, step, items)

    monkeypatch.setattr(checkpoint.Saver, "save", full)
    try:
        code = run(*LONGER, "--checkpoint_interval", "0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    error = capfd.readouterr().err
    stopped(
        error,
        "the checkpoint runs/toy_crl_s0/checkpoints/160 cannot be written (File too large)",
        "at 120 steps is safe",
        GO_ON,
    )
    assert error.count("\n") == 1, error
    assert checkpoint.steps(RUN / "checkpoints") == [120, 100]
    monkeypatch.setattr(checkpoint.Saver, "save", save)
    assert run(*LONGER) == 0
    assert envsteps() == [60, 100, 120, 140, 160] and checkpoint.steps(RUN / "checkpoints") == [160, 120]


def test_a_directory_that_vanishes(run, monkeypatch, capfd):
    evaluated = display.Display.evaluated

    def vanish(display, env_steps, metrics):
        if env_steps == 140:
            RUN.rename("elsewhere")
        return evaluated(display, env_steps, metrics)

    monkeypatch.setattr(display.Display, "evaluated", vanish)
    assert run(*LONGER, "--checkpoint_interval", "0") == 1
    error = capfd.readouterr().err
    stopped(error, "runs/toy_crl_s0/metrics", "(No such file or directory)", "there is no checkpoint")
    Path("elsewhere").rename(RUN)
    monkeypatch.setattr(display.Display, "evaluated", evaluated)
    assert run(*LONGER) == 0


def test_a_directory_that_becomes_read_only(run, monkeypatch, capsys):
    opened = Path.open

    def refuse(path, mode="r", *args, **kwargs):
        if path.parent == RUN and mode == "a":
            raise PermissionError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert run(*LONGER) == 1
    stopped(capsys.readouterr().err, "metrics.csv cannot be written (Read-only file system)", GO_ON)


def test_columns_that_come_later_do_not_shift_the_others(tmp_path):
    file = runs.MetricsFile(tmp_path, 0)
    table = [{runs.STEPS: 1, "a": 1.0}, {runs.STEPS: 2, "a": 2.0, "b": 3.0}, {runs.STEPS: 3, "a": 4.0}]
    for row in table:
        file.append(row)
    assert runs.read_metrics(tmp_path / "metrics.csv") == table
    with (tmp_path / "metrics.csv").open(newline="") as lines:
        assert {len(line) for line in csv.reader(lines)} == {3}
    assert not re.search("part|bak", " ".join(os.listdir(tmp_path)))
