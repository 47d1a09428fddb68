"""Turns a function that calls back, such as somebody else's training loop, into one that can be asked for more."""

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Reports(Generic[T]):
    """What function(report) reports, one by one. It runs in a thread, and only while somebody waits for the next one.

    The function returns never, or with an error, which is raised here; it is ended with this object or with Python.
    """

    def __init__(self, function: Callable[[Callable[[T], None]], None]):
        wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        told: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

        def wait():
            if not wanted.get():
                raise SystemExit

        def report(value: T) -> None:
            told.put(value)
            wait()

        def work():
            try:
                wait()
                function(report)
            except BaseException as error:
                told.put(error)

        def stop():
            wanted.put(False)
            thread.join()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        weakref.finalize(self, stop)
        self.wanted, self.told = wanted, told

    def __next__(self) -> T:
        self.wanted.put(True)
        value = self.told.get()
        if isinstance(value, BaseException):
            raise value
        return value
