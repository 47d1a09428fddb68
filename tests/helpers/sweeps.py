"""A folder with a sweep file s.yml whose program trains `toy`."""

import csv
from pathlib import Path

import yaml

from tests.helpers import ROOT, toy

TINY = {name.removeprefix("--"): {"value": value} for name, value in zip(toy.TINY[::2], toy.TINY[1::2], strict=True)}


def folder_of(tmp_path, monkeypatch):
    """An empty folder, which is entered, with a program `train.py` that trains the toy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("train.py").write_text(f"{toy.START} sys.exit(train.main())")
    return tmp_path


def write(method, parameters, **more):
    content = {"program": "train.py", "method": method, "parameters": TINY | parameters, **more}
    Path("s.yml").write_text(yaml.safe_dump(content))


def rows(out="sweeps/s"):
    """Those of sweep.csv."""
    with open(f"{out}/sweep.csv", newline="") as file:
        return list(csv.DictReader(file))
