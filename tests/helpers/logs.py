"""Reads back what the loggers write: wandb's offline runs and TensorBoard's events; and a server for wandb to lose."""

import contextlib
import http.server
import json
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog
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


def read_wandb(directory: Path, folder: str = "offline-run-*") -> WandbRun:
    """The only wandb run of this name in a run directory, once wandb's own process has written all of it."""
    (path,) = directory.glob(f"wandb/{folder}/*.wandb")
    records, deadline = [], time.monotonic() + 20
    while not any(record.WhichOneof("record_type") == "exit" for record in records):
        assert time.monotonic() < deadline, "it has no end"
        time.sleep(0.05)
        with contextlib.suppress(AssertionError):  # the last record is half there
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


def tensorboard_events(path: Path) -> list[Any]:
    """The events of a file (TFRecord: length, its CRC, data, its CRC), but not a last one that a kill cut short."""
    events, data, position = [], path.read_bytes(), 0
    while position + 12 <= len(data):
        length, length_crc = struct.unpack("<QI", data[position : position + 12])
        if position + 16 + length > len(data):
            break
        event = data[position + 12 : position + 12 + length]
        (event_crc,) = struct.unpack("<I", data[position + 12 + length : position + 16 + length])
        assert length_crc == masked(crc32c(data[position : position + 8])) and event_crc == masked(crc32c(event))
        events.append(Event.FromString(event))
        position += 16 + length
    return events


def read_tensorboard(directory: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) of all scalars that TensorBoard shows of a run directory, both of its servers alike.

    The one in Python drops what it has from the step of a START on, but not at the first START
    (plugin_event_accumulator.py); the one in Rust drops it by name, from the step of each new value on (reservoir.rs).
    """
    slow, fast, started = [], [], False
    for path in sorted(directory.glob("events.out.tfevents.*")):
        for event in tensorboard_events(path):
            if event.session_log.status == SessionLog.START:
                slow = [scalar for scalar in slow if not started or scalar[0] < event.step]
                started = True
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    fast = [scalar for scalar in fast if scalar[1] != value.tag or scalar[0] < event.step]
                    for shown in (slow, fast):
                        shown.append((event.step, value.tag, value.simple_value))
    assert sorted(slow) == sorted(fast)
    return slow


class Server:
    """What wandb's server must at least answer for an online run, on a port of this machine."""

    def __init__(self):
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                query = json.loads(content) if self.path.endswith("graphql") else {}
                asked.append(query.get("operationName") or self.path)
                answer = json.dumps(answers(query)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def answers(query):
            variables = query.get("variables") or {}
            match query.get("operationName"):
                case "UpsertBucket":
                    project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "somebody"}}
                    bucket = {
                        "id": "b",
                        "name": variables["name"],
                        "displayName": "",
                        "config": "{}",
                        "project": project,
                    }
                    return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
                case "CreateRunFiles":
                    files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
                    return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
            return {"data": {}}

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, words: str, seconds: float = 30) -> None:
        """Until something was asked with these words in it."""
        deadline = time.monotonic() + seconds
        while not any(words in name for name in self.asked):
            assert time.monotonic() < deadline, self.asked
            time.sleep(0.05)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
