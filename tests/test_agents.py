"""Tests of the agents: every flag changes the update, shapes, what each loss reaches, the actor and its temperature."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from goalax.agents import AGENTS, c_tec, cql, fb, sac
from goalax.agents.actor_critic import Critic, actor_critic, actor_goals, entropy_actor_loss
from goalax.agents.base import ActorConfig, NetworkConfig
from goalax.core.types import Batch, Needs, Path, Spec, Subgoals, Visit, Waypoint
from goalax.learning.networks import gaussian_actor, sample_action
from tests.helpers.agents import RELATIVES
from tests.helpers.programs import programs

SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
COMMON = {
    name: entry for name, entry in AGENTS.items() if entry.make and name not in ("tdmpc2", "dt")
}  # the others have a loop, or networks and a planner, and tests, of their own
SMALL = {"h_dim": 8, "n_hidden": 2, "repr_dim": 8, "window": 41}  # the quasimetric energies take multiples of 8


def small_batch(needs, size=6):
    """A made-up batch with all that an agent asks for."""
    normal = lambda i, *shape: jax.random.normal(jax.random.PRNGKey(i), shape)  # noqa: E731
    batch = Batch(
        state=normal(0, size, 5),
        action=jnp.tanh(normal(1, size, 3)),
        next_state=normal(2, size, 5),
        goal=normal(3, size, 2),
        future_state=normal(4, size, 5),
        future_action=jnp.tanh(normal(5, size, 3)),
        reward=jnp.arange(size) / size,
        future_reward=jnp.arange(size) % 2.0,
        discount=jnp.full(size, 0.9),
    )
    if needs.horizon > 1:
        steps = size, needs.horizon
        actions = jnp.tanh(normal(6, *steps, 3))
        path = Path(
            normal(7, size, needs.horizon + 1, 5), actions, jnp.zeros(steps), jnp.full(steps, 0.9), jnp.ones(steps)
        )
        batch = batch._replace(path=path)
    if needs.waypoint is not None:
        steps, half = jnp.arange(1, size + 1), jnp.arange(size) % 2.0
        batch = batch._replace(waypoint=Waypoint(normal(10, size, 5), steps, half, 1 - half))
    if needs.actor_goals is not None:
        batch = batch._replace(actor_state=normal(11, size, 5))
    if needs.same:
        batch = batch._replace(same=(jnp.arange(size) == 2).astype(jnp.float32))
    if needs.subgoal:
        batch = batch._replace(subgoals=Subgoals(normal(12, size, 5), normal(13, size, 5)))
    if needs.next_action:
        batch = batch._replace(next_action=jnp.tanh(normal(14, size, 3)))
    if needs.within:
        bins = size, max(0, len(needs.bins) - 1)
        steps, left = jnp.array([0, 3, 7, needs.within, 40, needs.within]), jnp.array([9, 8, 7, 6, 50, 4])
        reached, ends = (steps < needs.within).astype(jnp.float32), jnp.arange(size) % 2.0
        occupancy = jax.random.uniform(jax.random.PRNGKey(8), bins)
        visit = Visit(3 * normal(9, size, 2), steps, reached, left, ends, occupancy, jnp.ones(bins))
        batch = batch._replace(visit=visit)
    return batch


def make(name, **flags):
    config = AGENTS[name].config
    known = {field.name for field in dataclasses.fields(config)}
    if name == "tmd" and not VISITS.keys() & flags.keys():  # where a window means nothing
        known -= {"window"}
    return AGENTS[name].make(config(**{k: v for k, v in {**SMALL, **flags}.items() if k in known}), SPEC)


def after_updates(agent, count=2):
    """State and last metrics after updates, not compiled: that would take longer than to run them."""
    state = agent.init(jax.random.PRNGKey(7))
    for i in range(count):
        state, metrics = agent.update(state, small_batch(agent.needs), jax.random.PRNGKey(i))
    return state, metrics


@pytest.fixture(scope="module")
def quick_learner():
    """name -> an agent with a high learning rate and its compiled update; kept."""

    def get(name):
        rate = "critic_lr" if hasattr(AGENTS[name].config, "critic_lr") else "policy_lr"
        calm = {"alpha_init": 0.01} if name == "sac" else {}  # or its target would follow the entropy, not the batch
        agent = make(name, **{rate: 1e-2, **calm})
        return agent, jax.jit(agent.update)

    return functools.cache(get)


def each_of(names):
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[pytest.mark.slow] if name in RELATIVES else []) for name in names]
    )


@each_of(COMMON)
def test_shapes_and_ranges(name, quick_learner):
    agent, update = quick_learner(name)
    state, metrics = update(agent.init(jax.random.PRNGKey(7)), small_batch(agent.needs), jax.random.PRNGKey(0))
    observed, goal = jnp.ones((4, 5)), jnp.ones((4, 2))
    for action in (agent.mode(state, observed, goal), agent.act(state, observed, goal, jax.random.PRNGKey(0))):
        assert action.shape == (4, 3) and bool(jnp.all(jnp.abs(action) <= 1))
    assert agent.mode(state, observed[0], goal[0]).shape == (3,)
    assert all(value.shape == () and bool(jnp.isfinite(value)) for value in metrics.values())
    before = jax.tree.map(jnp.shape, agent.init(jax.random.PRNGKey(0)))
    assert jax.tree.map(jnp.shape, state) == before


@pytest.mark.parametrize("name", COMMON)
def test_act_explores_and_mode_does_not(name):
    agent = make(name)
    state = agent.init(jax.random.PRNGKey(0))
    observed, goal = jnp.ones((1, 5)), jnp.ones((1, 2))
    actions = [agent.act(state, observed, goal, jax.random.PRNGKey(i)) for i in range(2)]
    assert not np.allclose(*actions)
    np.testing.assert_array_equal(agent.mode(state, observed, goal), agent.mode(state, observed, goal))


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
VISITS = {"hazard_weight": 1.0, "time_weight": 1.0, "separation_weight": 1.0}
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


def kernels(params):
    """Kernels of hidden layers by their path, those in blocks apart."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
    leaves = {path: leaf for path, leaf in leaves.items() if "Dense" in path and "kernel" in path}
    blocks = {path: leaf for path, leaf in leaves.items() if "blocks" in path}
    return blocks, {path: leaf for path, leaf in leaves.items() if path not in blocks}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in COMMON.items() if hasattr(entry.config, "depth")])
def test_depth_is_that_of_every_network(name):
    """Shapes alone: compiling as many deep networks would take minutes."""
    agent = make(name, depth=8, h_dim=16, n_hidden=AGENTS[name].config.n_hidden)
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(7))
    after, _ = jax.eval_shape(agent.update, state, small_batch(agent.needs), jax.random.PRNGKey(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    blocks, plain = kernels(state.params)
    assert any("actor" in path for path in blocks) and all(leaf.shape[0] >= 1 for leaf in blocks.values())
    assert name == "srl" or not [path for path in plain if "Dense_2" in path]  # plain ones have two hidden layers


def test_all_blocks_learn():
    agent = make("crl", depth=8, h_dim=16)
    state = agent.init(jax.random.PRNGKey(7))
    after, _ = jax.jit(agent.update)(state, small_batch(agent.needs), jax.random.PRNGKey(0))
    blocks, _ = kernels(jax.tree.map(lambda a, b: np.abs(a - b), after.params, state.params))
    assert blocks and all((step.max(axis=(1, 2)) > 0).all() for step in blocks.values())


@pytest.mark.parametrize("energy", ["cosine", "iqe"])
def test_the_parameter_of_an_energy_is_learned(energy):
    agent = make("crl", energy_fn=energy, repr_dim=16)
    before = agent.init(jax.random.PRNGKey(7)).params["critic"]["energy"]
    assert after_updates(agent)[0].params["critic"]["energy"] != before


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in COMMON if hasattr(AGENTS[name].config, "critic_lr") and name not in RELATIVES]
)
def test_rates_of_learning_are_those_of_their_networks(name):
    still = {"policy_lr": 1e-20, "alpha_lr": 1e-20}
    fixed, free = (after_updates(make(name, **flags), 1)[0].params for flags in (still, {}))
    for a, b in zip(jax.tree.leaves(fixed["critic"]), jax.tree.leaves(free["critic"]), strict=True):
        np.testing.assert_array_equal(a, b)
    fixed = after_updates(make(name, critic_lr=1e-20), 1)[0].params
    for a, b in zip(jax.tree.leaves(fixed["actor"]), jax.tree.leaves(free["actor"]), strict=True):
        np.testing.assert_array_equal(a, b)


# Agents in whose targets the policy acts itself: another actor is another target.
THEIR_TARGETS_ACT = ("c_tec", "cql", "fb", "sac")
THEIR_ACTORS_REST_AT_FIRST = ("td3", "rebrac")


@each_of([name for name, entry in COMMON.items() if hasattr(entry.config, "critic_lr")])
def test_actor_and_critic_learn_apart(name, quick_learner):
    """With another actor critics move as they did; where that is another target, with another target actors do."""
    agent, update = quick_learner(name)
    state, batch, kept, moved = agent.init(jax.random.PRNGKey(7)), small_batch(agent.needs), "critic", "actor"
    other, other_batch = state, batch
    if name in THEIR_TARGETS_ACT:
        other_batch, kept, moved = batch._replace(discount=0.5 * batch.discount), moved, kept
    else:
        other = state._replace(params={**state.params, "actor": jax.tree.map(jnp.negative, state.params["actor"])})

    def step(state, batch):
        after = update(state, batch, jax.random.PRNGKey(0))[0].params
        return jax.tree.map(lambda new, old: np.asarray(new - old), after, state.params)

    one, two = step(state, batch), step(other, other_batch)
    for a, b in zip(jax.tree.leaves(one[kept]), jax.tree.leaves(two[kept]), strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(jax.tree.leaves(one[moved]), jax.tree.leaves(two[moved]), strict=True)
    assert any((a != b).any() for a, b in pairs) == (name not in THEIR_ACTORS_REST_AT_FIRST)


@each_of(THEIR_TARGETS_ACT)
def test_critics_do_not_learn_from_the_loss_of_the_actor(name, monkeypatch):
    """To the bit, however much it weighs; the gradient of the actor itself is as much larger."""
    module = {"c_tec": c_tec, "cql": cql, "fb": fb, "sac": sac}[name]
    part = "Losses" if name == "fb" else "entropy_actor_loss"
    plain, agent, factor = getattr(module, part), make(name, n_hidden=1, cql_samples=1), []

    def heavy(*args):
        found = plain(*args)
        return found._replace(actor=factor[-1] * found.actor) if name == "fb" else (factor[-1] * found[0], found[1])

    @jax.jit
    def update(state, weight):
        factor.append(weight)
        return agent.update(state, small_batch(agent.needs), jax.random.PRNGKey(0))[0]

    monkeypatch.setattr(module, part, heavy)
    state = agent.init(jax.random.PRNGKey(7))
    light, loud = update(state, 1.0), update(state, 100.0)
    for a, b in zip(jax.tree.leaves(light.params["critic"]), jax.tree.leaves(loud.params["critic"]), strict=True):
        np.testing.assert_array_equal(a, b)
    moments = (optax.tree.get(after.optimizer.inner_states["actor"], "mu") for after in (light, loud))
    small, large = map(optax.tree.norm, moments)
    assert large > 50 * small > 0


@each_of(COMMON)
def test_loss_falls_on_a_fixed_batch(name, quick_learner):
    agent, update = quick_learner(name)
    state, losses = agent.init(jax.random.PRNGKey(7)), []
    for i in range(60):
        state, metrics = update(state, small_batch(agent.needs), jax.random.PRNGKey(i))
        # Of those that an agent has, the one that chases no other.
        names = ("contrastive_loss", "action_error", "critic_loss", "actor_loss")
        found = [name for name in (*names, *metrics) if name in metrics and (name in names or "loss" in name)]
        assert found, f"an agent has a metric with `loss` in its name; these are {', '.join(metrics)}"
        losses.append(metrics[found[0]])
    first, last = losses[:10], losses[-10:]
    assert np.mean(last) < np.mean(first) - 3 * np.std(last) / 10**0.5


def test_actor_goals():
    goal = jnp.arange(10.0).reshape(5, 2)
    np.testing.assert_array_equal(actor_goals(goal, 0.0), goal)
    np.testing.assert_array_equal(actor_goals(goal, 0.4), goal[jnp.array([1, 2, 2, 3, 4])])
    np.testing.assert_array_equal(actor_goals(goal, 1.0), jnp.roll(goal, -1, axis=0))


def test_random_goals_are_those_of_the_policy_and_of_its_value():
    """By a critic that likes actions near goals: half of the batch acts for its neighbours' goals, and is valued so."""
    spec, batch = SPEC._replace(action_size=2), small_batch(Needs())
    config = ActorConfig(h_dim=8, n_hidden=1, random_goals=0.5, disable_entropy_actor=True)

    def nearness(params, state, action, goal):
        return -jnp.sum(jnp.abs(action - goal), axis=-1)

    critic = Critic(
        init=lambda keys: jnp.zeros(()),
        loss=lambda params, batch: (params, spec.goal_of(batch.future_state), {}),
        goals=lambda params, future_state, future_action: spec.goal_of(future_state),
        value=nearness,
    )
    agent, key = actor_critic(config, spec, critic), jax.random.PRNGKey(3)
    state = agent.init(jax.random.PRNGKey(0))
    _, metrics = agent.update(state, batch, key)
    goal = np.asarray(batch.future_state)[:, [1, 3]][[1, 2, 3, 3, 4, 5]]
    policy = gaussian_actor(config.mlp, 2).apply(state.params["actor"], batch.state, jnp.asarray(goal))
    action = np.asarray(sample_action(*policy, key)[0])
    np.testing.assert_allclose(metrics["actor_loss"], np.abs(action - goal).sum(axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize(("log_std", "sign"), [(-4.0, -1), (0.0, 1)])
def test_temperature_moves_entropy_to_its_target(log_std, sign):
    policy = (jnp.zeros((64, 3)), jnp.full((64, 3), log_std))
    loss = lambda log_alpha: entropy_actor_loss(  # noqa: E731
        ActorConfig(), policy, lambda action: jnp.sum(action, axis=-1), log_alpha, jax.random.PRNGKey(0)
    )[0]
    # Too little entropy: the loss falls with a higher temperature.
    assert jnp.sign(jax.grad(loss)(jnp.zeros(()))) == sign


def test_entropy_actor_loss_value():
    policy = (jnp.zeros((4, 3)), jnp.full((4, 3), -1.0))
    value = lambda action: jnp.sum(action, axis=-1)  # noqa: E731
    loss, metrics = entropy_actor_loss(ActorConfig(), policy, value, jnp.log(0.5), jax.random.PRNGKey(0))
    plain, _ = entropy_actor_loss(
        ActorConfig(disable_entropy_actor=True), policy, value, jnp.log(0.5), jax.random.PRNGKey(0)
    )
    entropy = metrics["entropy"]
    np.testing.assert_allclose(loss, plain - 0.5 * entropy + 0.5 * (entropy + 1.5), rtol=1e-5)
    np.testing.assert_allclose(metrics["alpha_loss"], 0.5 * (entropy + 1.5), rtol=1e-5)
