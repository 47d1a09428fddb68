"""Tests of what the set-up scripts do and say, on made-up machines: other Pythons, drivers, broken installs."""

import ast
import fcntl
import os
import shutil
import signal
import time

import pytest

from goalax.host.config import read_flags
from tests.helpers.setup import FAKE_UV, Machine

SWEEPS = ["scripts/sweep_losses.sh", "scripts/sweep_energies.sh", "scripts/sweep_flag.sh"]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def uv_machine(machine):
    machine.fake("uv", FAKE_UV)
    machine.fake_python("python3", "pass")
    return machine


TRAIN, TEST = "scripts/train.sh", "scripts/test.sh"
INSTALL, INSTALL_DEV = "pip install -e . -c requirements.txt", "pip install -e .[dev] -c requirements.txt"


@pytest.mark.parametrize("version, fits", [((3, 10), False), ((3, 11), True), ((3, 14), True), ((3, 15), False)])
def test_python_versions(machine, version, fits):
    machine.fake_python("python3", f"sys.version_info = {version}")
    status, out, err = machine.call("find_python")
    assert (status == 0, out == str(machine.bin / "python3"), not err) == (fits, fits, fits)


def test_newer_python_beside_an_old_one_is_found(machine):
    machine.fake_python("python3", "sys.version_info = (3, 9)")
    machine.fake_python("python3.12", "sys.version_info = (3, 12)")
    assert machine.call("find_python") == (0, str(machine.bin / "python3.12"), [])
    assert machine.call("find_python", PYTHON="python3")[0] == 1, "PYTHON is taken at its word"


def test_old_python_stops_with_one_sentence(machine):
    machine.fake_python("python3", "sys.version_info = (3, 9)")
    sentence = "goalax: No Python from 3.11 to 3.14 was found: install one, or name one with PYTHON=/path/to/python."
    assert machine.run(TRAIN) == (1, "", [sentence])
    assert machine.run(TRAIN, PYTHON="python3") == (
        1,
        "",
        ["goalax: PYTHON=python3 is not a Python from 3.11 to 3.14."],
    )
    assert not (machine.root / ".venv").exists()


def test_missing_ensurepip_stops_with_one_sentence(machine):
    machine.fake_python("python3", "sys.modules['ensurepip'] = None")
    sentence = f"goalax: {machine.bin}/python3 cannot make a venv: install python3-venv (Debian, Ubuntu) or uv."
    assert machine.run(TRAIN) == (1, "", [sentence])


TABLE = "| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   {}     |"


@pytest.mark.parametrize(
    "answer, capability, build",
    [
        (TABLE.format("CUDA Version: 13.0"), "9.0", "cuda13"),
        (TABLE.format("CUDA Version: 13.0"), "9.0\n7.0", "cuda12"),  # CUDA 13 has no Volta
        (TABLE.format("CUDA Version: 14.1"), "12.0", "cuda13"),
        (TABLE.format("CUDA UMD Version: 13.2"), "10.0", "cuda13"),  # the wording of some drivers
        (TABLE.format("CUDA Version: 12.4"), "9.0", "cuda12"),
        (TABLE.format("CUDA Version: 11.8"), "7.0", ""),
        (TABLE.format("CUDA Version: N/A"), "7.0", ""),
        ("", "", ""),
    ],
)
def test_jax_build_fits_the_driver(machine, answer, capability, build):
    machine.fake("nvidia-smi", f"#!/usr/bin/env bash\n[ $# = 0 ] && echo '{answer}' || echo '{capability}'\n")
    too_old = ["goalax: The NVIDIA driver is too old for JAX (it offers CUDA 11, JAX needs 12): using the CPU."]
    assert machine.call("jax_build") == (0, build, too_old if "11.8" in answer else [])


def test_jax_build_is_the_cpu_one_without_a_working_driver(machine):
    assert machine.call("jax_build") == (0, "", [])
    machine.fake("nvidia-smi", f"#!/usr/bin/env bash\necho '{TABLE.format('CUDA Version: 13.0')}'\nexit 9\n")
    assert machine.call("jax_build") == (0, "", [])


def test_installs_once_and_passes_the_flags_on(uv_machine):
    status, out, err = uv_machine.run("bash", "-c", f"cd / && '{uv_machine.root}/{TRAIN}' --env 'a b'")
    assert (status, out) == (0, "['--env', 'a b']")
    assert [line.split(" ")[1] for line in err] == ["Making", "Installing"]
    assert uv_machine.calls() == ["venv --clear --seed", INSTALL]
    assert uv_machine.run(TRAIN, "again") == (0, "['again']", [])
    assert uv_machine.calls() == []


@pytest.mark.parametrize("name, flag", [(SWEEPS[0], "contrastive_loss_fn"), (SWEEPS[1], "energy_fn")])
def test_a_sweep_runs_five_values_on_every_seed_with_valid_flags(uv_machine, name, flag):
    status, out, _ = uv_machine.run(name, "--num_envs", "4", SEEDS="1 2")
    calls = [read_flags(ast.literal_eval(line)) for line in out.splitlines()]
    assert status == 0 and [config.seed for config, _ in calls] == [1, 2] * 5
    assert len({getattr(agent_config, flag) for _, agent_config in calls}) == 5
    assert {(config.num_envs, config.log_wandb, config.num_timesteps) for config, _ in calls} == {(4, True, 10**7)}
    assert len({(config.group_name, config.exp_name) for config, _ in calls}) == 1


def test_a_sweep_over_a_flag_goes_on_after_a_diverged_run_only(uv_machine):
    for code, tried in {1: ["1", "2"], 2: ["1"]}.items():
        ends = f"sys.exit({code} * (sys.argv[sys.argv.index('--seed') + 1] == '1'))"
        (uv_machine.root / "training.py").write_text(f"import sys; print(sys.argv[1:], flush=True); {ends}")
        status, out, error = uv_machine.run(SWEEPS[2], "--tau", "0.1", SEEDS="1 2")
        calls = [ast.literal_eval(line) for line in out.splitlines()]
        assert [call[call.index("--seed") + 1] for call in calls] == tried and status == code
        assert ("goalax: These runs failed: tau 0.1, seed 1;" in error) == (code == 1)
    usage = 'goalax: Usage: scripts/sweep_flag.sh FLAG "VALUE ..." [flags], which training.py --help lists;'
    for argv, code in ((["tau"], 1), (["tau", "0.1", "--help"], 0)):  # the help of 25 trainings would be no help
        status, out, (said,) = uv_machine.run(SWEEPS[2], *argv)
        assert (status, out) == (code, "") and said.startswith(usage)


def test_dev_tools_are_added_and_stay(uv_machine):
    uv_machine.run(TRAIN)
    uv_machine.calls()
    status, out, _ = uv_machine.run(TEST, "--version")
    assert (status, out) == (0, f"pytest {pytest.__version__}")
    assert uv_machine.calls() == [INSTALL_DEV]
    uv_machine.run(TRAIN)
    uv_machine.run(TEST, "--version")
    assert uv_machine.calls() == []


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.txt"])
def test_changed_file_is_installed_again(uv_machine, name):
    uv_machine.run(TEST, "--version")
    uv_machine.calls()
    with (uv_machine.root / name).open("a") as file:
        file.write("# changed\n")
    uv_machine.run(TRAIN)
    assert uv_machine.calls() == [INSTALL]
    uv_machine.run(TEST, "--version")
    assert uv_machine.calls() == [INSTALL_DEV]


def test_new_driver_replaces_the_cuda_build(uv_machine):
    uv_machine.run(TRAIN)
    uv_machine.run(TEST, "--version")
    uv_machine.calls()
    uv_machine.fake("nvidia-smi", f"#!/usr/bin/env bash\necho '{TABLE.format('CUDA Version: 12.4')}'\n")
    uv_machine.run(TEST, "--version")
    assert uv_machine.calls() == [
        "pip uninstall -y jax-cuda13-plugin jax-cuda13-pjrt",
        "pip install -e .[cuda12,dev] -c requirements.txt",
    ]


@pytest.mark.parametrize(
    "last_line, reason",
    [
        ("OSError: [Errno 28] No space left on device", "because the disk is full"),
        ("dns error: failed to lookup address", "because the package index could not be reached"),
        ("No solution found", "for the reason given there"),
    ],
)
def test_failed_install_is_told_and_resumed(uv_machine, last_line, reason):
    uv_machine.run(TRAIN, BROKEN="No space left, and connection refused")  # is forgotten by the next call
    status, out, err = uv_machine.run(TRAIN, BROKEN=last_line)
    log = uv_machine.root / ".venv.log"
    assert (status, out) == (1, "")
    assert err[1:] == [f"goalax: The install logged in {log} stopped {reason}; the next call resumes it."]
    assert log.read_text().splitlines() == [last_line]
    assert uv_machine.stamps() == []
    assert uv_machine.run(TRAIN)[:2] == (0, "[]")


def test_moved_copy_is_installed_again(uv_machine):
    uv_machine.run(TRAIN)
    uv_machine.calls()
    uv_machine.root = uv_machine.root.rename(uv_machine.root.parent / "moved")
    uv_machine.run(TRAIN)
    assert uv_machine.calls() == [INSTALL]


def test_failed_update_leaves_no_stamp_of_the_past(uv_machine):
    uv_machine.run(TEST, "--version")
    pins = uv_machine.root / "requirements.txt"
    before = pins.read_text()
    pins.write_text(before + "# changed\n")
    uv_machine.run(TRAIN, BROKEN="No solution found")
    pins.write_text(before)
    uv_machine.calls()
    uv_machine.run(TEST, "--version")
    assert uv_machine.calls() == [INSTALL_DEV], "what it was is no longer what .venv holds"


def test_interrupted_install_is_resumed(uv_machine):
    process = uv_machine.start(TRAIN, SLOW="20")
    deadline = time.monotonic() + 20
    while not (uv_machine.calls_log.exists() and INSTALL in uv_machine.calls_log.read_text()):
        assert time.monotonic() < deadline, "the install never began"
        time.sleep(0.02)
    half = uv_machine.root / ".venv/lib/python3.11/site-packages/half-1.0.dist-info"
    half.mkdir(parents=True)  # a package that was cut short
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[2:] == ["goalax: Interrupted; the next call resumes the install."]
    assert uv_machine.stamps() == []
    assert uv_machine.run(TRAIN)[:2] == (0, "[]")
    assert not half.exists()
    assert uv_machine.stamps() == ["goalax-ready"]


@pytest.mark.parametrize("lost", ["python", "activate"])  # its Python was removed, or the making was cut short
def test_half_made_venv_is_made_anew(uv_machine, lost):
    uv_machine.run(TRAIN)
    uv_machine.calls()
    (uv_machine.root / ".venv/bin" / lost).unlink()
    if lost == "activate":
        (uv_machine.root / ".venv/goalax-ready").unlink()
    assert uv_machine.run(TRAIN)[:2] == (0, "[]")
    assert uv_machine.calls() == ["venv --clear --seed", INSTALL]


@pytest.mark.skipif(not shutil.which("flock"), reason="no flock, no lock")
def test_two_calls_at_once_install_once(uv_machine):
    both = [uv_machine.start(TRAIN, SLOW="0.5") for _ in range(2)]
    assert [process.communicate(timeout=30)[0].strip() for process in both] == ["[]", "[]"]
    assert uv_machine.calls() == ["venv --clear --seed", INSTALL]


def test_ready_call_waits_for_nobody(uv_machine):
    uv_machine.run(TRAIN)
    with (uv_machine.root / ".venv.log").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert uv_machine.run(TRAIN) == (0, "[]", [])


def test_training_does_not_keep_the_lock(uv_machine):
    lock = "import fcntl; fcntl.flock(open('.venv.log', 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    (uv_machine.root / "training.py").write_text(lock)
    assert uv_machine.run(TRAIN)[0] == 0
