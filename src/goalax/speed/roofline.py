"""Where the time of a train step goes: its phases from a trace, and FLOPs, bytes and kernels against the machine's."""

import math
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled

from goalax.core import rollout
from goalax.core.types import RunState
from goalax.host.make import Run, make_run
from goalax.speed.benchmark import BenchmarkFlags, Measured, Training, flags_of, one_update, per_seed, rate, spread

MARKS = {"jit(step_all)": "physics", "jit(reset_all)": "fresh starts", "jit(update)": "updates"}  # of src/, in op_name
# What has no mark belongs to the loop that it is in, and outside both loops goals are drawn and rows stored.
POLICY, DRAWS = "policy and rows", "draws and buffer"
PHASES = (*MARKS.values(), POLICY, DRAWS)
ROWS = {  # what is timed -> its phases
    "physics": ("physics",),
    "the rest of collecting": (POLICY, "fresh starts"),
    "updates": ("updates",),
    "draws, buffer, loop": (DRAWS,),
    "train step": PHASES,
}
CONTROL = {"while", "call", "conditional", "parameter", "constant", "tuple", "get-tuple-element", "bitcast"}  # no work
SQUARE, COPIED = 2048, 2**26  # matrix size and vector length at which the machine's own limits are measured


class Instruction(NamedTuple):
    """One line of a compiled program."""

    opcode: str
    op_name: str  # where the traced function did it; may be empty
    calls: tuple[str, ...]  # computations that it runs
    matmul: bool  # a matrix product, or a library's call for one


class Kernels(TypedDict):
    """What some kernels did."""

    kernels: int  # how many ran
    seconds: float


def parse(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Computations of an HLO module, computation -> name -> instruction, and the name of its entry."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry = ""
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if header:
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
            continue
        found = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = .*?[\s)}\]]([a-z][a-z0-9\-]*)\(", line)
        if found:
            named = re.search(r'op_name="([^"]*)"', line)
            calls = re.findall(
                r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)", line
            )
            for branches in re.findall(r"branch_computations=\{([^}]*)\}", line):
                calls += re.findall(r"[\w.\-]+", branches)
            matmul = found[2] == "dot" or (found[2] == "custom-call" and "gemm" in line)
            current[found[1]] = Instruction(found[2], named[1] if named else "", tuple(calls), matmul)
    return computations, entry


def mark_of(instruction: Instruction) -> str | None:
    """The phase that an instruction names; engines of physics have an `update` too, so the order of MARKS counts."""
    return next((phase for mark, phase in MARKS.items() if mark in instruction.op_name), None)


def is_second(instruction: Instruction) -> bool:
    """Whether it is a loop right inside the loop over train steps: over rows, or over updates."""
    name = instruction.op_name
    return instruction.opcode == "while" and name.count("while") == 2 and name.count("jit(") == 1


class Program:
    """The text of a compiled program: which of its instructions are kernels, of what kind, in which phase."""

    def __init__(self, compiled: Compiled):
        text = compiled.as_text()
        assert text is not None  # every backend of JAX has it
        self.computations, entry = parse(text)
        self.kinds: dict[str, str] = {}
        self.phases: dict[str, str] = {}
        self._visit(entry, DRAWS)

    def _below(self, computation: str) -> Iterator[Instruction]:
        for instruction in self.computations[computation].values():
            yield instruction
            for called in instruction.calls:
                yield from self._below(called)

    def _loop(self, body: str) -> str:
        """What the unmarked instructions of the loop over rows or over updates belong to."""
        marked = Counter(mark_of(inside) for inside in self._below(body))
        return POLICY if marked["physics"] > marked["updates"] else "updates"

    def _visit(self, computation: str, around: str) -> None:
        for name, instruction in self.computations[computation].items():
            phase = mark_of(instruction) or around
            if instruction.opcode in ("while", "call", "conditional"):
                for called in instruction.calls:
                    self._visit(called, self._loop(called) if is_second(instruction) else phase)
            elif instruction.opcode not in CONTROL:
                matmul = instruction.matmul or any(
                    i.matmul for called in instruction.calls for i in self._below(called)
                )
                self.kinds[name], self.phases[name] = "matmul" if matmul else instruction.opcode, phase


def traced(program: Program, run: Callable[[], None], keep: str | None = None) -> dict[str, tuple[int, float]]:
    """Kernels that ran: name -> how often, and seconds in all.

    The tracer takes a microsecond or so per kernel on a CPU: the seconds of short ones are its own.

    Args:
      keep: directory in which the trace stays, for xprof or Perfetto.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    counts: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run()
        data = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb"))))
        if keep is not None:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
        planes = list(data.planes)
        planes = [
            plane for plane in planes if plane.name.startswith("/device:")
        ] or planes  # on the CPU host threads run
        for event in (event for plane in planes for line in plane.lines for event in line.events):
            name = event.name
            if name not in program.kinds and not name.startswith("end: "):
                name = dict(event.stats).get("hlo_op")  # GPU kernels have names of their own
            if name in program.kinds:
                counts[name] += 1
                seconds[name] += event.duration_ns * 1e-9
    return {name: (count, seconds[name]) for name, count in counts.items()}


def by(groups: dict[str, str], kernels: dict[str, tuple[int, float]]) -> dict[str, Kernels]:
    """Kernels and their seconds, summed over those of one group, the longest first."""
    sums: dict[str, Kernels] = defaultdict(lambda: Kernels(kernels=0, seconds=0.0))
    for name, (count, seconds) in kernels.items():
        sums[groups[name]]["kernels"] += count
        sums[groups[name]]["seconds"] += seconds
    return dict(sorted(sums.items(), key=lambda item: -item[1]["seconds"]))


def matmul_flops(jaxpr: Any) -> int:
    """Multiplications and additions of all matrix products, from their shapes; a loop of unknown length counts once, of
    branches the dearest."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        parts = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns"))
        found = [matmul_flops(part) for part in parts if hasattr(part, "eqns")]
        total += times * (max(found) if equation.primitive.name == "cond" else sum(found))
    return total


class Repeated:
    """A compiled step: (carry, *rest) -> (carry, output), called again and again; `run` and `work` as those of Part."""

    def __init__(self, step: Callable, carry: Any, *rest: Any, work: float = 1, options: dict | None = None):
        jitted = jax.jit(step, donate_argnums=0, compiler_options=options)
        self.jaxpr = jax.make_jaxpr(step)(carry, *rest)
        self.compiled = jitted.lower(carry, *rest).compile()
        self.carry, self.rest, self.work = jax.tree.map(jnp.copy, carry), rest, work

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            self.carry, _ = self.compiled(self.carry, *self.rest)
        jax.block_until_ready(self.carry)

    def costs(self) -> dict[str, Any]:
        """FLOPs and bytes of one call, by XLA, which counts a loop's body once, and by hand; kernels by kind.

        By hand are the FLOPs of matrix products, and the bytes that go in and out.
        """
        counted, sizes = self.compiled.cost_analysis(), self.compiled.memory_analysis()
        assert counted is not None and sizes is not None  # every backend of JAX counts them
        program = Program(self.compiled)
        return {
            "flops": counted["flops"],
            "matmul_flops": matmul_flops(self.jaxpr),
            "bytes": counted["bytes accessed"],
            "bytes_in_and_out": sizes.argument_size_in_bytes + sizes.output_size_in_bytes,
            "kernels": by(program.kinds, traced(program, lambda: self.run(1))),
        }


class Collecting:
    """Train steps without updates, by the program of a Training; `run` and `work` as those of Part."""

    def __init__(self, train: Training):
        self.train, self.work = train, train.work

    def run(self, rounds: int) -> None:
        advanced = self.train.advance(self.train.state, np.int32(rounds), np.int32(0), *self.train.rest[1:])
        self.train.state = jax.block_until_ready(advanced)


def limits(batch_size: int, width: int) -> dict[str, Repeated]:
    """The machine's own: FLOP/s of large matrix products and of those of the update, bytes/s of a long vector."""

    def products(rows: int, columns: int, dtype: Any, times: int) -> Repeated:
        def step(x, w):
            return jax.lax.fori_loop(0, times, lambda _, x: x @ w, x), ()

        matrices = jnp.ones((rows, columns), dtype), jnp.full((columns, columns), 1 / columns, dtype)
        return Repeated(step, *matrices, work=2.0 * times * rows * columns**2)

    return {
        "matmul": products(SQUARE, SQUARE, jnp.float32, 1),
        "matmul_bfloat16": products(SQUARE, SQUARE, jnp.bfloat16, 1),
        "matmul_update": products(batch_size, width, jnp.float32, 100),
        "memory": Repeated(lambda x: (x + 1, ()), jnp.zeros(COPIED), work=2 * 4 * COPIED),
    }


def physics(run: Run, state: RunState) -> Repeated:
    """One step of all environments."""

    def step(envs, action):
        return per_seed(run, lambda envs, action: rollout.step_all(run.env, envs, action))(envs, action), ()

    actions = jnp.zeros((*state.env.over.shape, run.env.action_size))
    return Repeated(step, state.env.env, actions, options=run.env.compiler_options)


def profile(config: BenchmarkFlags, agent_config: Any) -> dict[str, Any]:
    """Where the time of a train step goes, and what its programs cost. FlagError as in `make_run`.

    `seconds` are those of ROWS, without a tracer, programs in turns: whole train steps and such without updates, and
    physics and updates alone, as often as in a train step. What is left over is a difference, which may be negative
    where the machine's speed moved in between.
    """
    run = make_run(config, agent_config)
    key = jnp.asarray(run.keys(run.config.seed))
    train = Training(run, key)
    train.start()
    update, carry = one_update(run, key, train.state)
    programs = {"updates": Repeated(per_seed(run, update), carry, key), "physics": physics(run, train.state)}
    limit_parts = limits(run.sizes.batch_size, run.agent_config.h_dim)
    parts: dict[str, Measured] = {"train step": train, "collecting": Collecting(train), **programs, **limit_parts}
    for part in parts.values():
        part.run(1)
    samples = [{name: rate(part, config.seconds) for name, part in parts.items()} for _ in range(config.repeats)]
    rates = {name: np.array([one[name] for one in samples]) for name in parts}
    times = {"physics": run.sizes.unroll_length * run.sizes.action_repeat, "updates": run.sizes.updates_per_unroll}
    seconds = {phase: number / rates[phase] for phase, number in times.items()}
    seconds |= {name: train.work / rates[name] for name in ("train step", "collecting")}
    seconds["the rest of collecting"] = seconds["collecting"] - seconds["physics"]
    seconds["draws, buffer, loop"] = seconds["train step"] - seconds["collecting"] - seconds["updates"]
    whole = Program(train.advance)
    found = traced(whole, lambda: train.run(1), config.trace)
    result = {
        **flags_of(run),
        "times": times,
        "seconds": {name: spread(seconds[name].tolist()) for name in ROWS},
        "phases": by(whole.phases, found),
        "kinds": by(whole.kinds, found),
        "limits": {name: spread(rates[name].tolist()) for name in limit_parts},
        "programs": {},
    }
    peak = np.maximum(rates["matmul"], rates["matmul_update"])  # which is faster depends on the caches
    for name, program in programs.items():
        costs = program.costs()
        achieved = costs["matmul_flops"] * rates[name]
        result["programs"][name] = {
            **costs,
            "seconds": spread((1 / rates[name]).tolist()),
            "matmul_flops_per_second": spread(achieved.tolist()),
            "of_matmul_peak": spread((achieved / peak).tolist()),
        }
    return result
