"""Which agents of this release wait for longer suites, because relatives of theirs are tested before."""

import pytest

# All others, and every agent that is new, are tested first.
RELATIVES = frozenset(
    {
        *("bc", "c_tec", "chronosrl", "cmd", "cmd2", "cql", "crl_infonce", "dino_rebrac", "gcivl", "hilp", "infom"),
        *("iql", "qrl", "rebrac", "srl", "tmd_visits"),
    }
)


def relatives_wait(names):
    """Parameters of a test that costs much: those of `RELATIVES` are run by `-m table` only."""
    return [pytest.param(name, marks=[pytest.mark.table] if name in RELATIVES else []) for name in names]
