"""Whether a run fits into memory: a lower bound of what it needs, known before anything is compiled."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from goalax.core.buffer import CANDIDATES, Choice
from goalax.flags import FlagError
from goalax.host import devices
from goalax.host.config import algorithm_of
from goalax.host.make import Run

WORD = 4  # bytes of a float32 or int32
MIB, GIB = 2**20, 2**30


def num_bytes(tree: Any) -> int:
    return sum(leaf.dtype.itemsize * int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def predict(run: Run) -> dict[str, int]:
    """Bytes that a run needs on each device at least, by part: buffer, environments, samples, batch, agent.

    The law, for the seeds of a device and its share of their environments:
      buffer: once, because training donates its state, and every update happens in place;
      environments: twice, their state and the fresh starts of an unroll;
      samples: where in the buffer all samples of a learning phase lie, with the rows that were candidates;
      batch: the rows of an update, and the logits [B, B] with their gradient;
      agent: parameters and the state of the optimizer, once;
      dataset: the files that are learned from and validated on, once for all seeds; absent without any.
    What XLA keeps between operations (activations, gradients) comes on top. In a CPU's memory devices lie side by side,
    with a copy of the state that a checkpoint is written from.
    """
    config, sizes = run.config, run.sizes
    seeds = config.num_seeds
    state = jax.eval_shape(run.train.init, jax.ShapeDtypeStruct((seeds, 2) if seeds > 1 else (2,), np.uint32))
    sharers = devices.sharers(seeds, config.num_devices)
    here = seeds * sharers // config.num_devices  # seeds on a device
    ring, envs, agent = (num_bytes(part) // seeds * here for part in (state.buffer, state.env, state.agent))
    row = num_bytes(state.buffer.rows) // state.buffer.rows.reward.size
    indices = len(Choice._fields) + 3 * CANDIDATES  # row, column and whether it has a next one, of each candidate
    parts = {
        "buffer": ring // sharers,
        "environments": 2 * envs // sharers,
        "samples": here * sizes.updates_per_unroll * sizes.batch_size * indices * WORD,
        "batch": here * sizes.batch_size * (row + 2 * sizes.batch_size * WORD) // sharers,
        "agent": agent,
    }
    files = [dataset.ring for dataset in run.datasets.values() if dataset is not None]
    if files:
        parts["dataset"] = num_bytes([*files, run.held_out])
    if jax.default_backend() == "cpu":
        local = config.num_devices // jax.process_count()
        parts = {name: local * size for name, size in parts.items()}
        parts |= {name: 2 * parts[name] for name in ("buffer", "agent")}
    return parts


def available() -> int:
    """Bytes of a device; on CPUs what the host has left for programs."""
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return stats["bytes_limit"]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return min([int(lines["MemAvailable"].split()[0]) * 1024, *left_in_groups()])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # all there is, where the system tells no more


def left_in_groups(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Bytes that are left in each control group of this process that has a limit, as those of containers and Slurm.

    What files have in memory counts as left: the kernel takes it back. Source: the kernel's documentation of cgroup v1
    (memory.rst) and v2 (cgroup-v2.rst).
    """
    lines = own.read_text().splitlines() if own.exists() else []
    for kinds, path in (line.split(":", 2)[1:] for line in lines):
        if not kinds:  # version 2
            top, limit, used, cached = groups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            top, limit, used = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        inner = top / path.lstrip("/")
        # In a container, whose groups begin at its own, the path may be that of the host: then only the top is there.
        for group in {inner, *inner.parents} - {*top.parents}:
            try:
                most, taken = (group / limit).read_text().strip(), int((group / used).read_text())
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if most != "max":
                yield int(most) - taken + int(stat.get(cached, 0))


def check(run: Run) -> None:
    """FlagError if the run cannot fit, with the flag of what takes most and the value that would fit."""
    if algorithm_of(run.config).make is None:  # what another loop holds is not known here
        return
    (missing,) = devices.highest(-(available() // MIB))  # the host with the least decides for all
    parts, there = predict(run), -missing * MIB
    needed = sum(parts.values())
    if needed <= there:
        return
    config = run.config
    lowest = {"max_replay_size": config.min_replay_size, "num_envs": 1, "batch_size": 2, "num_seeds": 1}
    scaled = {  # what shrinks with a flag
        "max_replay_size": parts["buffer"],
        "num_envs": parts["buffer"] + parts["environments"] + parts["samples"],
        "batch_size": parts["batch"],
        "num_seeds": needed - parts.get("dataset", 0),
    }
    owner = {"buffer": "max_replay_size", "batch": "batch_size", "agent": "num_seeds"}
    largest = max(parts, key=lambda part: parts[part])
    fitting = {name: int(getattr(config, name) * (1 - (needed - there) / scaled[name])) for name in scaled}
    names = [owner.get(largest, "num_envs"), "num_seeds", "num_envs"]
    flag = next((name for name in names if fitting[name] >= lowest[name]), None)
    enough = f"it must be at most about {fitting[flag]}" if flag else "lower it and other sizes"
    if flag is None and largest == "dataset":
        flag, enough = "dataset", "it must be a smaller file"
    flag = flag or names[0]
    raise FlagError(
        f"--{flag} is {getattr(config, flag)}; {enough}, because the run needs at least {needed / GIB:.3g} GiB of"
        f" memory, most of it for the {largest}, and there are {there / GIB:.3g} GiB."
    )
