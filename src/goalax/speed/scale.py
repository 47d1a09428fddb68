"""Predicts the speed of GPUs from counts: kernels, FLOPs and bytes of a profile against limits that are assumed."""

import math
from typing import Any, NamedTuple


class Machine(NamedTuple):
    """What is assumed of a GPU and its links; rates are a data sheet's (H100 SXM), latencies are round guesses."""

    flops: float = 67e12  # float32 per second, without tensor cores
    bandwidth: float = 3.35e12  # bytes per second of its memory
    memory: float = 80e9  # bytes
    launch: float = 3e-6  # seconds from kernel to kernel inside a loop
    node: int = 8  # GPUs that a fast link joins
    link: tuple[float, float] = 300e9, 20e-6  # bytes per second and seconds per exchange within a node
    network: tuple[float, float] = 50e9, 50e-6  # the same between nodes


class Counts(NamedTuple):
    """What a profile has counted, and what a run holds."""

    num_envs: int  # that the physics was counted with
    unroll_length: int
    updates_per_step: float  # gradient updates per environment step
    physics: dict[str, float]  # kernels, flops, bytes of one step of all environments
    update: dict[str, float]  # the same of one update
    others: float  # kernels per environment step of all environments: policy, rows, fresh starts
    buffer_bytes: float  # per environment
    agent_bytes: float  # parameters with the optimizer's two moments


class Prediction(NamedTuple):
    """The fastest that the counts allow."""

    steps_per_second: float  # of all seeds; 0 where it does not fit
    bottleneck: str


EXCHANGES = 6  # of an update whose batch is spread: gradients, representations forth and back, batch, indices, metrics


def counts_of(profile: dict[str, Any], buffer_bytes: float, agent_bytes: float) -> Counts:
    """The counts of a result of `roofline.profile`. XLA counts a loop's body once: its bytes are a lower bound."""
    flags, programs, phases = profile["flags"], profile["programs"], profile["phases"]

    def of(name: str) -> dict[str, float]:
        program = programs[name]
        return {
            "kernels": sum(kind["kernels"] for kind in program["kernels"].values()),
            "flops": max(program["flops"], program["matmul_flops"]),
            "bytes": max(program["bytes"], program["bytes_in_and_out"]),
        }

    steps = flags["num_envs"] * flags["unroll_length"]
    others = sum(phases[name]["kernels"] for name in ("policy and rows", "fresh starts", "draws and buffer"))
    return Counts(
        flags["num_envs"],
        flags["unroll_length"],
        profile["times"]["updates"] / steps,
        of("physics"),
        of("updates"),
        others / flags["unroll_length"],
        buffer_bytes,
        agent_bytes,
    )


def slowest(work: dict[str, float], times: float, machine: Machine) -> dict[str, float]:
    """Seconds that each limit would take alone, for a program whose work per kernel grew by `times`."""
    return {
        "launches": work["kernels"] * machine.launch,
        "arithmetic": times * work["flops"] / machine.flops,
        "memory bandwidth": times * work["bytes"] / machine.bandwidth,
    }


def predict(counts: Counts, num_envs: int, num_seeds: int, num_gpus: int, machine: Machine | None = None) -> Prediction:
    """The speed of so many seeds of so many environments on so many GPUs, laid out as `sharding` does.

    A part takes as long as the slowest of its launches, arithmetic and bytes; parts follow one another.
    """
    machine = machine or Machine()
    columns = math.gcd(num_seeds, num_gpus)
    sharers, seeds = num_gpus // columns, num_seeds // columns  # GPUs that share a seed; seeds of a GPU
    held = seeds * (num_envs / sharers * counts.buffer_bytes + counts.agent_bytes)
    if num_envs % sharers or held > machine.memory:
        reason = f"memory: {held / 1e9:,.0f} GB a GPU" if held > machine.memory else "does not divide"
        return Prediction(0.0, reason)
    physics = slowest(counts.physics, seeds * num_envs / sharers / counts.num_envs, machine)
    physics["launches"] += counts.others * machine.launch
    update = slowest(counts.update, seeds / sharers, machine)
    update["optimizer"] = seeds * 2 * counts.agent_bytes / machine.bandwidth  # every GPU does all of it
    exchange = 0.0
    if sharers > 1:
        rate, latency = machine.link if sharers <= machine.node else machine.network
        exchange = EXCHANGES * latency + 2 * seeds * counts.agent_bytes / 3 / rate
    steps = num_envs * counts.unroll_length
    updates = counts.updates_per_step * steps
    parts = {f"{name} of the physics": counts.unroll_length * seconds for name, seconds in physics.items()}
    learning = {f"{name} of the updates": updates * seconds for name, seconds in update.items()}
    exchanges = {"exchanges of the updates": updates * exchange}
    first = max(parts, key=lambda name: parts[name])
    second = max(learning, key=lambda name: learning[name])
    seconds = {first: parts[first], second: learning[second], **exchanges}
    return Prediction(num_seeds * steps / sum(seconds.values()), max(seconds, key=lambda name: seconds[name]))
