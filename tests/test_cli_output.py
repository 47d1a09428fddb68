"""Standard output that is closed, full or knows few letters; machines without a home or a device; signs of life."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from rich.console import Console

from goalax import cli
from goalax.commands import train as training
from goalax.flags import FlagError
from goalax.host import devices, display, output
from goalax.host.cache import enable_compilation_cache
from tests.helpers import ROOT, toy
from tests.helpers.runs import RUN, envsteps

toy.register()
# What a program says first that runs commands on the toy.
START = "import sys\nfrom goalax import cli\nfrom goalax.host import output\nwith output.protected():\n"
START += " from tests.helpers import toy\n toy.register()\n"
TRAIN = f"{START} code = cli.run('train', {toy.TINY!r}, 'training.py')\nsys.exit(code)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def broken(kind):
    """A real stream that cannot be written."""
    if kind == "full":
        return open("/dev/full", "w")
    end, stream = os.pipe()
    os.close(end)
    file = os.fdopen(stream, "w")
    if kind == "closed":
        file.close()
    return file


def rows_of(run):
    return envsteps(run) if run.exists() else []


@pytest.mark.parametrize("kind", ["pipe", "full", "closed"])
def test_training_goes_on_and_says_why_nothing_was_shown(kind, folder, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        for name in ("stdout", "stderr") if kind != "full" else ("stdout",):
            patch.setattr(sys, name, broken(kind))
        assert cli.run("train", toy.TINY, "training.py") == 0
        assert not isinstance(sys.stdout, output.Stream)
    assert envsteps() == [60, 100, 120]
    if kind == "full":
        words = "training.py: standard output cannot be written: No space left on device.\n"
        assert capsys.readouterr().err == words


@pytest.mark.parametrize(("kind", "code"), [("pipe", 0), ("full", 1), ("closed", 0)])
@pytest.mark.slow
def test_other_commands_end_in_a_sentence(kind, code, folder, monkeypatch, capsys):
    def run(command, *argv):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", broken(kind))
            return cli.run(command, argv, f"{command}.py") if command else cli.main(argv)

    Path("rows.yml").write_text("- section: one\n  rows: [--env_name reacher, --env_name simple_u_maze]\n")
    rows = ("--rows", "rows.yml")
    assert run("plot", "gone") == 2 and run("benchmark", "--env_name", "nowhere") == 2
    assert run("", "--help") == run("", "--version") == 0
    assert run("results", *rows, "--list") == 0
    monkeypatch.setattr(cli, "WORK", ())
    assert run("results", *rows, "--list") == code
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.count("results.py: standard output cannot be written") == 2 * code


@pytest.mark.slow
def test_real_pipes_and_closed_descriptors(folder):
    """One program behind `head -1`, one without any standard stream, whose numbers no file of the run may get."""
    shell = 'set -o pipefail; "$0" -c "$1" 2> errors | head -1; echo $?; "$0" -c "$1" <&- >&- 2>&-; echo $?'
    done = subprocess.run(["bash", "-c", shell, sys.executable, TRAIN], stdout=subprocess.PIPE, text=True, timeout=500)
    assert done.stdout.splitlines()[1:] == ["0", "0"]
    assert "Traceback" not in Path("errors").read_text()
    for run in (RUN, Path(f"{RUN}-2")):
        assert envsteps(run) == [60, 100, 120] and json.loads((run / "config.json").read_text())


def test_letters_that_an_encoding_lacks(folder, monkeypatch):
    buffer = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(buffer, "ascii"))
        assert cli.run("train", [*toy.TINY, "--exp_name", "é目🙂"], "training.py") == 0
        shown = buffer.getvalue().decode("ascii")
    assert r"runs/\xe9\u76ee\U0001f642_s0/metrics.csv" in shown and "0.250" in shown


@pytest.fixture
def cache(monkeypatch):
    """Puts the settings of the compilation cache back."""
    names = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    yield monkeypatch
    for name, value in before.items():
        jax.config.update(name, value)


def test_without_a_home_directory(folder, cache, capsys):
    """As a container's user without a name has it: nobody knows its home."""
    cache.delenv("HOME", raising=False)
    cache.setattr("pwd.getpwuid", lambda _: {}[0])
    with pytest.raises(RuntimeError):
        Path.home()
    assert cli.run("train", toy.TINY, "training.py") == 0
    words = "Compiled programs are not kept (no home directory); JAX_COMPILATION_CACHE_DIR names a folder.\n"
    assert words in capsys.readouterr().err and envsteps() == [60, 100, 120]
    assert not jax.config.jax_enable_compilation_cache


@pytest.mark.parametrize("name", ["JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "HOME"])
def test_a_cache_that_cannot_be_written(name, folder, cache, capsys):
    Path("file").touch()
    cache.setenv(name, str(folder / "file"))
    enable_compilation_cache()
    error = capsys.readouterr().err
    assert error.startswith("Compiled programs are not kept (") and error.count("\n") == 1 and "file" in error
    assert not jax.config.jax_enable_compilation_cache


def test_a_cache_in_its_place(folder, cache, capsys):
    cache.setenv("XDG_CACHE_HOME", str(folder / "caches"))
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(folder / "caches" / "goalax" / "xla")
    assert not list((folder / "caches" / "goalax" / "xla").iterdir()) and capsys.readouterr().err == ""


def test_a_machine_without_the_device(folder, monkeypatch, capsys):
    def nothing():
        raise AssertionError

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(devices.jax, "devices", nothing)
    for command in ("train", "benchmark"):
        assert cli.run(command, [], "x.py") == 2
        assert capsys.readouterr().err == "x.py: JAX_PLATFORMS is 'cuda', but JAX finds no such device.\n"
    assert not list(folder.iterdir())


def test_64_bits_are_refused(monkeypatch):
    with jax.enable_x64(True), pytest.raises(FlagError, match="JAX_ENABLE_X64 is set, but"):
        devices.check()


ODD = {
    "JAX_ENABLE_X64=1": (2, "JAX_ENABLE_X64 is set"),
    "JAX_PLATFORMS=nonsense": (2, "JAX_PLATFORMS is 'nonsense'"),
    "JAX_DEBUG_NANS=1 TERM=dumb LC_ALL=C PYTHONIOENCODING=ascii COLUMNS=1 TMPDIR=/nowhere": (0, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", ODD)
def test_odd_environments(setting, folder):
    odd, (code, words) = dict(each.split("=") for each in setting.split()), ODD[setting]
    program = TRAIN.replace("'train', [", "'train', ['--exp_name', 'é目', ")
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | odd, capture_output=True)
    error = done.stderr.decode()
    assert (done.returncode, "Traceback" in error) == (code, False), error
    assert words in error and rows_of(Path("runs/é目_s0")) == ([60, 100, 120] if code == 0 else [])


# ---- signs of life ---------------------------------------------------------------------------------------------------


def lines_of(file):
    return file.getvalue().splitlines()


def test_a_quiet_display_says_what_is_going_on(monkeypatch):
    monkeypatch.setattr(display, "QUIET_SECONDS", 0.05)
    file = io.StringIO()
    with display.Display(100, Console(file=file, width=200)) as shown:
        shown.say("compiling")
        time.sleep(0.3)
        shown.step(20)
        time.sleep(0.3)
        shown.step(40)
        time.sleep(0.3)
        monkeypatch.setattr(display, "OLD_SECONDS", 0)
        time.sleep(0.3)
    lines = lines_of(file)
    assert lines[:2] == ["compiling", "compiling: 0:00:00 so far"]
    assert any(line.startswith("20 / 100 steps") for line in lines)
    speeds = [line for line in lines if line.startswith("40 / 100 steps") and "steps/s" in line and " left" in line]
    assert speeds and speeds[-1].endswith("ago") and not speeds[0].endswith("ago")
    time.sleep(0.2)
    assert lines_of(file) == lines and not shown.reminder.is_alive()


def test_a_display_counts_updates_before_steps():
    file = io.StringIO()
    with display.Display(1000, Console(file=file, width=200), updates=100) as shown:
        words = []
        for count in (50, 100, 500, 600):
            words.append(shown.step(count))
            time.sleep(0.05)
    assert words[0].startswith("50 / 100 updates") and "/s" not in words[0]
    assert "updates/s" in words[1] and words[1].endswith("0:00:00 left  ")
    assert words[2].startswith("400 / 900 steps") and "/s" not in words[2]  # steps have a speed of their own
    assert words[3].startswith("500 / 900 steps") and " steps/s" in words[3]


def test_a_display_that_speaks_is_not_interrupted(monkeypatch):
    file = io.StringIO()
    with display.Display(100, Console(file=file, width=200)) as shown:
        shown.note("a")
        time.sleep(0.2)
    assert lines_of(file) == ["a"]
    for console in (Console(file=io.StringIO(), force_terminal=True), Console(quiet=True)):
        with display.Display(100, console) as shown:
            assert not shown.reminder.is_alive()


@pytest.mark.slow
def test_a_training_in_a_log_file_says_that_it_compiles_and_collects(folder, monkeypatch, capsys):
    monkeypatch.setattr(display, "QUIET_SECONDS", 0.1)
    for name in ("compile", "fresh"):
        real = getattr(training.Session, name)

        def late(session, real=real):
            time.sleep(0.4)
            return real(session)

        monkeypatch.setattr(training.Session, name, late)
    assert training.main(toy.TINY) == 0
    out = capsys.readouterr().out
    assert "takes seconds): 0:00:0" in out and "steps before learning: 0:00:0" in out


# ---- signals before there is a run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["make_run", "memory.check"])
def test_a_signal_before_there_is_a_run_is_not_lost(place, number, folder, monkeypatch, capsys):
    """Whatever JAX's callback of the garbage collector does with an exception: here it swallows them."""
    holder, _, name = f"training.{place}".rpartition(".")
    holder = training.memory if "memory" in holder else training
    real, handler = getattr(holder, name), signal.getsignal(signal.SIGINT)

    def swallow(*args):
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
        return real(*args)

    monkeypatch.setattr(holder, name, swallow)
    assert training.main(toy.TINY) == 128 + number
    assert capsys.readouterr().err == f"training.py: {training.NOTHING_YET}\n" and not list(folder.iterdir())
    assert signal.getsignal(signal.SIGINT) is handler
