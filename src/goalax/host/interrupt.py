"""Signals that ask a program to stop: noted when they come, heeded where nothing is lost; or as Ctrl-C is."""

import contextlib
import math
import signal
import time
from typing import Any, ClassVar, Self

# The last one comes where a terminal is closed or a connection lost; Windows has none.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def listened() -> list[signal.Signals]:
    """SIGNALS, but for a SIGHUP that is ignored: so `nohup` lets a program outlive its terminal."""
    return [each for each in SIGNALS if each.name != "SIGHUP" or signal.getsignal(each) is not signal.SIG_IGN]


class Interrupt(contextlib.AbstractContextManager):
    """Turns the first of SIGNALS (Ctrl-C, say) into a wish to stop; one that comes later than AT_ONCE after it acts
    as usual.

    It is entered before anything compiles: an exception that a signal raises there may be swallowed by a callback of
    JAX, a wish is not.
    """

    signal: int | None = None
    previous: dict[int, Any]  # signal -> what handles it else

    # Where a parent of many threads is killed, Linux may send the signal that `lock.end_with_parent` asks for once for
    # each of them.
    AT_ONCE: ClassVar = 0.5  # seconds

    def __enter__(self) -> Self:
        self.first: dict[int, float] = {}  # signal -> when it came
        self.previous = {number: signal.signal(number, self._note) for number in listened()}
        return self

    def _note(self, number: int, _frame: object) -> None:
        self.signal = number
        now = time.monotonic()
        if now - self.first.setdefault(number, now) > self.AT_ONCE:
            signal.signal(number, self.previous[number])
            signal.raise_signal(number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


class Wish:
    """Ends a program as Ctrl-C does, where a signal comes; one that follows at once is the same wish.

    A shell that loses its terminal passes on the SIGHUP that its programs have had already, and systemd sends one
    behind its SIGTERM: a second KeyboardInterrupt would not let a sweep wait until its programs have saved.
    """

    came = -math.inf

    def __call__(self, *_: Any) -> None:
        now = time.monotonic()
        if now - self.came > Interrupt.AT_ONCE:
            self.came = now
            raise KeyboardInterrupt


def end_as_ctrl_c() -> None:
    """From here on all of SIGNALS are a KeyboardInterrupt, as SIGINT is anyway."""
    wish = Wish()
    for number in listened():
        if number != signal.SIGINT:
            signal.signal(number, wish)
