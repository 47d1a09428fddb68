"""First visits in TMD: what they say of distances, hazards of a head and of the distance, original goals, variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS, tmd
from goalax.core.types import Spec, Visit
from goalax.host.config import read_flags
from tests.helpers.chain import LENGTH, chain_agent, chain_batch, chain_distances
from tests.helpers.frontier import section
from tests.helpers.planning import normal

VISITS = {"window": 16, "hazard_weight": 1.0, "value_discounting": 0.95, "time_bins": 0}


def test_goals_that_nobody_came_to_are_no_positives():
    """Contrasts are those of the other samples alone; hazards, back-up and the actor learn from all of them."""
    found = {}
    for share in (0.0, 0.25):
        agent = chain_agent("tmd", **VISITS, actor_value="hazard", original_goals=share)
        assert agent.needs.original == share
        needs, state = agent.needs._replace(original=0.25), agent.init(jax.random.PRNGKey(0))
        batch = chain_batch(jax.random.PRNGKey(1), 16, needs)
        rest = jax.tree.map(lambda leaf: leaf[:12], batch)
        found[share] = [agent.update(state, part, jax.random.PRNGKey(2))[1] for part in (batch, rest)]
    (plain, of_rest), (asked, _) = found[0.0], found[0.25]
    for name in ("contrastive_loss", "categorical_accuracy", "logits_pos", "distance_pos"):
        np.testing.assert_allclose(asked[name], of_rest[name], rtol=1e-5)
    assert abs(float(asked["contrastive_loss"] - plain["contrastive_loss"])) > 0.1
    for name in ("hazard_loss", "backup_loss", "invariance_loss", "actor_loss"):
        np.testing.assert_allclose(asked[name], plain[name], rtol=1e-5)


PINNED = {"critic_goal": "state", "step_weight": 1.0, "invariance_weight": 1.0}
VARIANTS = {
    "waypoint": {"backup": "waypoint", **PINNED},
    "hazard_and_time": {
        **{**VISITS, "actor_value": "hazard"},
        **{"contrastive_weight": 0.0, "time_weight": 1.0, "separation_weight": 1.0},
    },
    "hazards_of_the_distance": {**VISITS, "actor_value": "hazard", "hazards": "distance"},
    "hazards_of_both": {**VISITS, "actor_value": "hazard", "hazards": "both"},
    "geometric_bins": {**VISITS, "actor_value": "hazard", "time_bins": 6},
    "original_goals": {**VISITS, "actor_value": "hazard", "original_goals": 0.25},
    "visit_backup": {**VISITS, "actor_value": "hazard", "visit_backup": True},
}
RARE = {
    "hazard": {**VISITS, "actor_value": "hazard"},
    "time": {"window": 16, "contrastive_weight": 0.0, "time_weight": 1.0, "separation_weight": 1.0},
    "mrn": {"distance": "mrn", **PINNED},
    "both": {**VISITS, "actor_value": "both", "time_weight": 1.0, "separation_weight": 1.0},
    "censored_by_episodes": {**VISITS, "actor_value": "hazard", "censor": "episode"},
    "iqe": {"distance": "iqe", **PINNED},
    "euclidean": {"distance": "euclidean", "components": 1, **PINNED},
    "two_critics": {"critics": 2, **PINNED},
    "temperature": {"learn_temperature": True, **PINNED},
    "gradient_through_the_backup": {"stop_backup": False, **PINNED},
    "invariance_of_all_pairs": {"invariance_pairs": "all", **PINNED},
}


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS),
        *(pytest.param(name, marks=pytest.mark.table) for name in RARE),
    ],
)
def test_the_order_on_a_chain_is_right_with_every_variant(name):
    d, steps = chain_distances("tmd", (VARIANTS | RARE)[name])
    means = np.array([d[steps == k].mean() for k in range(1, LENGTH)])
    # Bins of several steps tell no order within them.
    assert np.all(np.diff(means) > (-1e-3 if name == "geometric_bins" else 0)) and means[-1] > 2 * means[0]
    if name != "euclidean":  # which is as far back as forth
        assert d[steps < 0].mean() > means.mean()  # what lies behind is out of reach


def test_of_a_head_and_the_distance_the_sooner_counts_and_both_learn():
    """The value is the larger of those of agents with one of the two and the same parameters, the loss the sum."""
    spec = Spec(3, 2, 2, (0, 1), 0.9, 0.5, max_decisions=20)
    configs = {
        each: tmd.TMDConfig(**VISITS, actor_value="hazard", hazards=each) for each in ("head", "distance", "both")
    }
    critics = {
        name: tmd.TMDCritic(config, spec, config.decision(spec), tmd.VisitHead.of(config, spec))
        for name, config in configs.items()
    }
    params = critics["both"].init(iter(jax.random.split(jax.random.PRNGKey(0), 16)))
    state, action, y = (jax.random.normal(jax.random.PRNGKey(i), (40, n)) for i, n in enumerate((3, 2, 64)))
    y = critics["both"].phi(params, state, action) + jnp.linspace(0, 2, 40)[:, None] * y  # from near to far
    head, distance, both = (critics[name].value(params, state, action, y) for name in ("head", "distance", "both"))
    np.testing.assert_array_equal(both, np.maximum(head, distance))
    assert 0 < np.sum(head > distance) < 40
    steps, reached = jnp.arange(40) % 20, jnp.arange(40.0) % 2
    visit = Visit(y[:, :2], steps, reached, jnp.full(40, 9), jnp.zeros(40), jnp.zeros((40, 1)), jnp.zeros((40, 1)))
    x, d, seen = critics["both"].phi(params, state, action), jnp.zeros((40, 40)), chain_batch(jax.random.PRNGKey(0), 40)
    seen = seen._replace(visit=visit)
    losses = {name: critic.visit_terms(params, d[0], d, x, y, seen)[0] for name, critic in critics.items()}
    np.testing.assert_allclose(losses["both"], losses["head"] + losses["distance"], rtol=1e-6)


def test_what_visits_say_of_distances_is_made_of_the_golden_parts():
    """Each by its weight, and in rows of the discount of the goal law: the window is as far as all of its rows."""
    g = section("chronosrl/geometry")
    spec = Spec(4, 2, 2, (0, 1), float(g["gamma"]), float(g["radius"]))
    config = tmd.TMDConfig(h_dim=8, n_hidden=1, window=int(g["window"]), time_weight=2.0, separation_weight=3.0)
    critic = tmd.TMDCritic(config, spec, config.decision(spec), tmd.VisitHead.of(config, spec))
    d, event, size = jnp.asarray(g["distance"], jnp.float32), g["event"], len(g["event"])
    nothing = jnp.zeros(size), jnp.zeros(size), jnp.zeros((size, 0)), jnp.zeros((size, 0))
    parts = (jnp.asarray(g[name], jnp.float32) for name in ("goal", "tau", "event"))
    seen = chain_batch(jax.random.PRNGKey(0), size)._replace(visit=Visit(*parts, *nothing))
    loss, metrics = critic.visit_terms({}, jnp.diagonal(d), d, d, d, seen)
    later, far = event * (g["tau"] >= 1), g["pairs"] + np.diag(1 - event)
    time, separation = np.sum(later * g["huber"]) / later.sum(), np.sum(far * g["hinge"]) / far.sum()
    np.testing.assert_allclose(metrics["time_loss"], time, rtol=1e-5)
    np.testing.assert_allclose(metrics["separation_loss"], separation, rtol=1e-4)
    np.testing.assert_allclose(loss, 2 * time + 3 * separation, rtol=1e-4)


def test_an_actor_of_both_adds_the_rows_of_the_distance_to_the_expected_time():
    spec, values = Spec(3, 2, 2, (0, 1), 0.9, 0.5, max_decisions=20), {}
    state, action, goal = normal(0, 5, 3), normal(1, 5, 2), normal(2, 5, 16)
    for name in ("distance", "hazard", "both"):
        flags = VISITS | ({} if name == "distance" else {"value_discounting": 0.95})
        config = tmd.TMDConfig(h_dim=8, n_hidden=1, repr_dim=16, actor_value=name, **flags)
        critic = tmd.TMDCritic(config, spec, config.decision(spec), tmd.VisitHead.of(config, spec))
        params = critic.init(iter(jax.random.split(jax.random.PRNGKey(0), 16)))
        values[name] = np.asarray(critic.value(params, state, action, goal))
    assert values["distance"].max() < -0.1
    np.testing.assert_allclose(values["both"], values["hazard"] + values["distance"] / -np.log(0.9), rtol=1e-5)


def test_the_agent_with_first_visits_is_the_one_that_was_measured():
    """Its flags are those of the first finished rows of ants, and a share of original goals."""
    argv = ["--agent", "tmd", "--hazard_weight", "1", "--actor_value", "hazard", "--any_goals", "0.1"]
    argv += ["--current_goals", "0.05", "--action_chunk", "2", "--value_discounting", "0.999"]
    argv += ["--original_goals", "0.25", "--time_bins", "0", "--head_dim", "128"]
    assert vars(read_flags(["--agent", "tmd_visits"])[1]) == vars(read_flags(argv)[1])
    assert AGENTS["tmd_visits"].make is AGENTS["tmd"].make
