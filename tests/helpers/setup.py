"""A made-up machine for tests of the set-up scripts: its own PATH, fake Pythons, a fake uv."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

TOOLS = [
    "awk",
    "bash",
    "cat",
    "chmod",
    "cksum",
    "df",
    "dirname",
    "env",
    "flock",
    "grep",
    "mkdir",
    "rm",
    "sleep",
    "touch",
]

# Makes a venv whose Python is the one of this test; any other call just passes or fails as told.
FAKE_UV = f"""#!/usr/bin/env bash
echo "$@" >>"$CALLS"
if [ "$1" = venv ]; then
  venv=${{!#}}
  mkdir -p "$venv/bin"
  touch "$venv/bin/activate"
  printf '#!/usr/bin/env bash\\nexec "{sys.executable}" "$@"\\n' >"$venv/bin/python"
  chmod +x "$venv/bin/python"
else
  sleep "${{SLOW:-0}}"
  echo "${{BROKEN:-}}"
  [ -z "${{BROKEN:-}}" ] && [ -e pyproject.toml ]
fi
"""


class Machine:
    """A copy of the scripts in a folder with a space in its name, and a PATH of its own."""

    def __init__(self, folder: Path):
        self.root, self.bin, self.calls_log = folder / "a copy", folder / "bin", folder / "calls"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        for path in (ROOT / "pyproject.toml", ROOT / "requirements.txt", *(ROOT / "scripts").glob("*.sh")):
            shutil.copy(path, self.root / path.relative_to(ROOT))
        (self.root / "training.py").write_text("import sys; print(sys.argv[1:])")
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.env = {"PATH": str(self.bin), "CALLS": str(self.calls_log)}

    def fake(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def fake_python(self, name: str, line: str) -> None:
        self.fake(name, f'#!/usr/bin/env bash\nexec "{sys.executable}" -c "import sys; {line}; $2"\n')

    def start(self, *command: str, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests run in the background of a script, Ctrl-C is ignored, and children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *command: str, **env: str) -> tuple[int, str, list[str]]:
        process = self.start(*command, **env)
        out, err = process.communicate(timeout=30)
        return process.returncode, out.strip(), err.splitlines()

    def call(self, function: str, **env: str) -> tuple[int, str, list[str]]:
        return self.run("bash", "-c", f"set -euo pipefail; source scripts/setup.sh; {function}", **env)

    def calls(self) -> list[str]:
        """The calls of the fake uv since the last look."""
        lines = self.calls_log.read_text().splitlines() if self.calls_log.exists() else []
        self.calls_log.unlink(missing_ok=True)
        return [re.sub(r" --python .*", "", line) for line in lines]

    def stamps(self) -> list[str]:
        return sorted(path.name for path in self.root.glob(".venv/goalax-*"))
