"""What all tests share: strict JAX settings on two CPU devices, a compilation cache, and compiled environments.

The environment variables must be set before the first `import jax`; pytest imports this file before any test module.
Programs that a test starts inherit them.
"""

import gc
import itertools
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

flags = ["--xla_force_host_platform_device_count=2"]
# Tests compile more than they run: without optimisation, those of agents and sharding take 0.77 of the processor time.
flags += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if version("jaxlib").startswith("0.10."):  # XLA refuses flags that it does not know
    flags.append("--xla_cpu_use_fusion_emitters=false")  # compiles the environments in 55% of the time; as fast to run
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in flags if flag.split("=")[0] not in given)]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(caches / "goalax" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # tests compile many small functions

# Checkpoints are many small files: tests that make many take up to a third less time in memory than on a disk.
memory = Path("/dev/shm")
if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))  # where pytest makes `tmp_path`
gc.set_threshold(200_000, 20, 20)  # tracing makes objects that live: looking for dead ones took a twentieth of the time

# A failed write of Orbax leaves dead tasks, which write their tracebacks when they are collected; for that Python 3.11
# parses source, and in the midst of another `ast.parse`, in whichever test comes next, that is a SystemError.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")  # [B] + [B, 1] is a bug until somebody wrote the reshape


MAPPINGS = Path("/proc/self/maps")  # of this process; not on macOS, which sets no such limit
TESTS_BETWEEN_LOOKS, MANY_MAPPINGS = 10, 30_000
ended = itertools.count(1)


def pytest_runtest_teardown() -> None:
    """Drops compiled programs before they are too many: Linux ends a process of more than 65,530 mappings."""
    look = next(ended) % TESTS_BETWEEN_LOOKS == 0 and MAPPINGS.exists()
    if look and MAPPINGS.read_bytes().count(b"\n") > MANY_MAPPINGS:
        jax.clear_caches()


SIXTHS = 6  # of the files of tests, of which CI runs the slow ones by turns
# Files that take minutes, the longest first: begun last, one of them would go on alone.
LONG = ("agents", "agent_flags", "pretraining_runs", "kills", "offline_agents", "tdmpc2", "reward_runs", "hosts")
LONG += ("offline", "envs")


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "a remainder: slow tests only of every sixth file, of those whose place in order has it"
    parser.addoption("--sixth", type=int, choices=range(SIXTHS), help=words)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the files of LONG first, for runs side by side (scripts/test.sh); with --sixth leaves out slow tests."""
    place = {f"test_{name}.py": i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))
    if (sixth := config.getoption("--sixth")) is None:
        return
    # By files, so that what a file makes for its tests is made once, and by all there are, whichever are collected.
    files = sorted((path.name for path in Path(__file__).parent.glob("test_*.py")), key=lambda n: (place.get(n, 99), n))
    run = set(files[sixth::SIXTHS])
    left_out = [item.path.name not in run and item.get_closest_marker("slow") is not None for item in items]
    config.hook.pytest_deselected(items=[item for item, out in zip(items, left_out, strict=True) if out])
    items[:] = [item for item, out in zip(items, left_out, strict=True) if not out]


class EnvFunctions(NamedTuple):
    """An environment and its compiled functions, of fixed sizes so that all tests share one compilation of each."""

    env: Any
    reset: Callable  # keys [NUM_ENVS] -> states
    run: Callable  # (states, actions [STEPS, NUM_ENVS, A]) -> (states after, trace [STEPS, NUM_ENVS] without physics)


def pytest_terminal_summary(terminalreporter) -> None:
    """Prints what tests recorded as lines of a table."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    lines = sorted(value for report in reports for name, value in report.user_properties if name == "table")
    if lines:
        terminalreporter.section("table")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(scope="session")
def env_functions() -> Callable[..., EnvFunctions]:
    """(name, backend=None) -> EnvFunctions, made once per session."""
    from goalax.envs import create_env

    def make(env) -> EnvFunctions:
        def run(states, actions):
            def body(states, action):
                states = jax.vmap(env.step)(states, action)
                return states, states.replace(pipeline_state=None)

            return jax.lax.scan(body, states, actions)

        return EnvFunctions(env, jax.jit(jax.vmap(env.reset)), jax.jit(run))

    made = {}

    def functions(name: str, backend: str | None = None) -> EnvFunctions:
        if (name, backend) not in made:
            env = create_env(name, backend)
            made[name, backend] = made.setdefault((name, env.backend), make(env))
        return made[name, backend]

    return functions


@pytest.fixture(scope="session")
def env_of(env_functions) -> Callable[[str], Any]:
    """name -> environment, the one of env_functions."""
    return lambda name: env_functions(name).env


@pytest.fixture(scope="session")
def opengl() -> None:
    """Skips where nothing can be drawn."""
    from goalax.films import render, scene

    try:
        render.choose_opengl()
    except scene.RenderError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory) -> Path:
    """A folder with trained runs of `toy`, to be read only: three seeds of CRL with the energy l2, three with dot."""
    from goalax.commands import train as training
    from tests.helpers import toy

    toy.register()
    folder = tmp_path_factory.mktemp("toy_runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for energy in ("l2", "dot"):
            flags = ("--num_seeds", "3", "--exp_name", energy, "--energy_fn", energy)
            assert training.main([*toy.TINY, *flags]) == 0
    return folder / "runs"


@pytest.fixture
def resumed_toy(toy_runs, tmp_path, monkeypatch) -> Callable[..., int]:
    """Resumes a copy of a finished run of `toy` with the steps 60, 100 and 120: (flags) -> exit code."""
    from goalax.commands import train as training
    from tests.helpers import toy
    from tests.helpers.runs import RUN

    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_runs / "l2_s0", RUN)
    return lambda *argv: training.main([*toy.TINY, "--energy_fn", "l2", *argv])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with data.npz, walks through `toy`, to work in."""
    from goalax.data import files
    from tests.helpers.offline import walks

    monkeypatch.chdir(tmp_path)
    files.write("data.npz", walks())
    return tmp_path


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """(address, *options) -> the finished Chromium, which had no network; skips where there is none."""
    for path in filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        if subprocess.run([path, "--version"], capture_output=True).returncode == 0:  # some systems have only a stub
            break
    else:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    profile = tmp_path_factory.mktemp("profile")
    software = ("--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    offline = ("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking")
    command = [path, "--headless", "--no-sandbox", f"--user-data-dir={profile}", *software, *offline]
    command += ["--hide-scrollbars", "--virtual-time-budget=5000"]

    def browse(address: str, *options: str) -> subprocess.CompletedProcess:
        return subprocess.run([*command, *options, address], capture_output=True, text=True, timeout=120, check=True)

    return browse
