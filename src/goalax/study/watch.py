"""A page on a run that trains, for a browser and without a server: watch.html, and watch.js with what changes."""

import contextlib
import html
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from goalax.study import pictures
from goalax.whole import aside

PAGE = Path(__file__).with_name("watch.html")
SECONDS = 3.0  # between two versions of watch.js; the page reads it as often


class Watch(contextlib.AbstractContextManager):
    """Keeps the page of one run directory up to date; use it in a `with`.

    A page that cannot be written is given up, which `note` is told: training goes on.
    """

    def __init__(self, directory: Path, title: str, now: Callable[[], tuple[str, float]], note: Callable[[str], None]):
        """now: what is going on, in words, and which share is done."""
        self.directory, self.title, self.now, self.note = directory, title, now, note
        self.film = ""
        self.curves = ""
        self.numbers: dict[str, str] = {}
        self.over = threading.Event()
        self.writer = threading.Thread(target=self._write_on, daemon=True)

    def __enter__(self) -> "Watch":
        page = PAGE.read_text(encoding="utf-8").replace("{{title}}", html.escape(self.title))
        self.curves = pictures.curves_svg(self.directory)  # of a run that goes on
        if self._write("watch.html", page):
            self.note(f"To watch it, open {self.directory / 'watch.html'} in a browser.")
            self.writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.writer.ident is not None:
            self.writer.join()
            self._tell(over=True)

    def evaluated(self, numbers: dict[str, str]) -> None:
        """There is a new row of metrics.csv; numbers: it in words."""
        self.numbers, self.curves = numbers, pictures.curves_svg(self.directory)

    def filmed(self, path: Path) -> None:
        """path: a page beside this one, the newest film."""
        self.film = path.name

    def _write_on(self) -> None:
        while self._tell(over=False) and not self.over.wait(SECONDS):
            pass

    def _tell(self, over: bool) -> bool:
        words, done = self.now()
        content = {
            "now": "It has ended." if over else words,
            "done": done,
            "numbers": self.numbers,
            "curves": self.curves,
            "film": self.film,
            "written": time.time(),
            "over": over,
        }
        return self._write("watch.js", f"show({json.dumps(content)});\n")

    def _write(self, name: str, text: str) -> bool:
        """Writes a file, all of it or nothing; returns whether it could."""
        path = self.directory / name
        try:
            with aside(path) as part:
                part.write_text(text, encoding="utf-8", errors="backslashreplace")
            return True
        except OSError as error:
            self.note(f"{path} cannot be written ({error.strerror}): training goes on without it.")
            return False
