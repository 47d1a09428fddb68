"""Tests of Reports, which turn a function that calls back into an iterator."""

import gc
import threading

import pytest

from goalax.agents.brax.callbacks import Reports


def test_a_function_runs_only_while_a_report_is_awaited():
    seen = []

    def count(report):
        for i in range(5):
            seen.append(i)
            report(i)
        raise ArithmeticError("over")

    threads = threading.active_count()
    reports = Reports(count)
    assert seen == []
    assert (next(reports), seen) == (0, [0])
    assert [next(reports) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(ArithmeticError, match="over"):
        next(reports)
    unfinished = Reports(count)
    assert next(unfinished) == 0
    del reports, unfinished
    gc.collect()
    assert threading.active_count() == threads
