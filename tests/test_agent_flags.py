"""Every flag of an agent changes its update."""

import dataclasses
import functools

import pytest

from goalax.agents import AGENTS
from goalax.agents.base import ActorConfig, NetworkConfig
from tests.helpers.agents import COMMON, RELATIVES, SPEC, VISITS, make, small_batch
from tests.helpers.programs import programs

# Values under which an update differs from that of SMALL, for flags that `other_value` would not move far enough.
CHANGES = {
    "h_dim": 9,
    "n_hidden": 3,
    "head_dim": 9,
    "skip_connections": 1,
    "depth": 4,
    "policy_lr": 0.1,
    "alpha_lr": 0.1,
    "critic_lr": 0.1,
    "target_entropy_scale": 5.0,
    "repr_dim": 16,
    "energy_fn": "iqe",
    "distance": "iqe",
    "components": 4,
    "contrastive_loss_fn": "binary",
    "linex_clip": 1e-3,
    "zeta": 5.0,
    "tau": 0.5,
    "noise_clip": 1e-3,
    "her_ratio": 0.2,
    "window": 10,
    "time_bins": 5,
    "value_discounting": 0.9,
    "actor_interval": 1,
    "relabel": "final",
    "cql_floor": -50.0,  # a valid one binds only where stored actions are the best by far
}
# Flags without which one has no effect, or is refused; with a small gamma the window is far away.
NEEDS = {
    ("tmd", "window"): VISITS,
    ("tmd", "time_bins"): VISITS,
    ("tmd", "censor"): VISITS,
    ("tmd", "original_goals"): VISITS,
    ("tmd_visits", "critic_goal"): {"original_goals": 0.0},
    ("tmd_visits", "extraction"): {"actor_value": "distance"},
    ("tmd_visits", "awr_alpha"): {"actor_value": "distance", "extraction": "awr"},
    ("tmd_visits", "backup"): {"original_goals": 0.0},
    ("tmd", "head_dim"): VISITS,
    ("tmd", "visit_backup"): VISITS,
    ("tmd", "hazards"): VISITS,
    ("tmd", "actor_value"): VISITS,
    ("tmd", "value_discounting"): VISITS | {"actor_value": "hazard"},
    "her_ratio": {"use_her": True},
    "her_strategy": {"use_her": True},
    "bc_noise": {"bc_weight": 0.5},
    "actor_any_goals": {"actor_relabel": "uniform"},
    "cql_gap": {"cql_lagrange": True},
    "awr_alpha": {"extraction": "awr"},
    "separation_weight": {"value_discounting": 0.5},
    ("tmd", "separation_weight"): {},
}


def shared(config):
    """Flags that are one code for all agents of a kind: tested with CRL."""
    base = ActorConfig if issubclass(config, ActorConfig) else NetworkConfig
    return {field.name for field in dataclasses.fields(base)}


# Those of crl, which other agents share; by `-m slow` those that others add, but for RELATIVES, by `-m table` theirs.
EVERY_FLAG = [
    pytest.param(
        name,
        field.name,
        marks=[] if name == "crl" else [pytest.mark.table if name in RELATIVES else pytest.mark.slow],
    )
    for name, entry in COMMON.items()
    for field in dataclasses.fields(entry.config)
    if name == "crl" or field.name not in shared(entry.config)
]


def other_value(field):
    """A valid value other than the default, found from the declaration, so that new flags are tested by themselves."""
    if field.name in CHANGES:
        return CHANGES[field.name]
    if field.metadata["valid"] is not None:
        return next(choice for choice in field.metadata["valid"] if choice != field.default)
    if field.type is bool:
        return not field.default
    if field.type is int:
        return field.default + 1
    high = field.metadata["high"]
    return 3 * field.default or 0.5 if high is None else (field.default + high) / 2


def program(name, **flags):
    agent = make(name, **flags)
    return programs(agent, small_batch(agent.needs), SPEC.discounting)


@pytest.fixture(scope="module")
def unchanged():
    """(agent, its other flags) -> its program; kept."""
    return functools.cache(lambda name, flags: program(name, **dict(flags)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crl", "td3", "hiql", "fb"])
def test_equal_flags_make_equal_programs(name, unchanged):
    """Or the next test could not fail."""
    assert program(name) == unchanged(name, ())


@pytest.mark.parametrize(("name", "flag"), EVERY_FLAG)
def test_every_flag_changes_the_update(name, flag, unchanged):
    (field,) = (field for field in dataclasses.fields(AGENTS[name].config) if field.name == flag)
    needed = NEEDS.get((name, flag), NEEDS.get(flag, {}))
    changed = program(name, **{**needed, flag: other_value(field)})
    different = changed != unchanged(name, tuple(needed.items()))
    assert different, f"--{flag} changes nothing in the update of {name}"
