"""Reads back what the loggers write: the records of an offline wandb run and the events of TensorBoard."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768


class WandbRun(NamedTuple):
    """What a server would be told."""

    run: Any  # its id, project, run_group, display_name
    history: list[dict[str, Any]]
    config: dict[str, Any]
    artifacts: list[Any]
    summary: dict[str, Any]
    axes: dict[str, str]  # metric -> the metric on its x axis
    exit_code: int


def wandb_records(path: Path) -> list[Any]:
    """The records of a .wandb file: after 7 bytes, LevelDB's log format (doc/log_format.md of LevelDB), CRC-32.

    wandb 0.31 has no reader for Python any more; the messages inside are parsed by its own classes.
    """
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, parts, position = [], [], 7
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # the rest of a block is too short for a header
            position += BLOCK - position % BLOCK
            continue
        crc, length, kind = struct.unpack("<IHB", data[position : position + 7])
        part = data[position + 7 : position + 7 + length]
        assert crc == zlib.crc32(part, zlib.crc32(bytes([kind])))
        parts.append(part)
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(Record.FromString(b"".join(parts)))
            parts = []
    assert parts == []
    return records


def read_wandb(directory: Path) -> WandbRun:
    """The only wandb run in a run directory."""
    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    records = wandb_records(path)

    def items(updates):
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}

    def of(kind):
        return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]

    config, summary = {}, {}
    for run in of("run"):
        config |= items(run.config.update)
    for update in of("config"):
        config |= items(update.update)
    for update in of("summary"):
        summary |= items(update.update)
    axes = {metric.glob_name or metric.name: metric.step_metric for metric in of("metric")}
    history = [items(row.item) for row in of("history")]
    return WandbRun(of("run")[0], history, config, of("artifact"), summary, axes, of("exit")[-1].exit_code)


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_tensorboard(directory: Path) -> dict[int, dict[str, float]]:
    """Scalars by step and name, of all event files in a run directory (TFRecord: length, its CRC, data, its CRC)."""
    scalars = {}
    for path in sorted(directory.glob("events.out.tfevents.*")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            length, length_crc = struct.unpack("<QI", data[position : position + 12])
            event = data[position + 12 : position + 12 + length]
            (event_crc,) = struct.unpack("<I", data[position + 12 + length : position + 16 + length])
            assert length_crc == masked(crc32c(data[position : position + 8])) and event_crc == masked(crc32c(event))
            parsed = Event.FromString(event)
            for value in parsed.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    scalars.setdefault(parsed.step, {})[value.tag] = value.simple_value
            position += 16 + length
    return scalars
