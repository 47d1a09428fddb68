"""Tests of what TMD can have besides: way-points in its backup, terminal states, first visits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS, consistency, tmd
from goalax.agents.chunks import of_decisions
from goalax.core.relabel.waypoint import DISCOUNTING as LAMBDA
from goalax.core.relabel.waypoint import NEXT, mixed_steps
from goalax.core.types import Batch, Path, Spec, Visit, Waypoint
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import ROOT, toy
from tests.helpers.chain import DISCOUNTING, LENGTH, chain_agent, chain_batch, chain_distances

toy.register()

GOLDEN = np.load(ROOT / "tests" / "golden" / "frontier.npz")
VISITS = {"window": 16, "hazard_weight": 1.0, "value_discounting": 0.95, "time_bins": 0}


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


def golden(name):
    return {key.split("/")[-1]: GOLDEN[key] for key in GOLDEN.files if key.startswith((f"{name}/in/", f"{name}/out/"))}


def test_golden_backup_by_way_points():
    g = golden("mqe")
    discounting = (float(g["gamma"]) ** g["steps"].astype(np.float32))[:, None]
    found = consistency.linex(
        jnp.array(g["d"], jnp.float32), jnp.array(g["d_way"], jnp.float32), discounting, float(g["clip"])
    )
    np.testing.assert_allclose(found, g["divergence"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(consistency.weighted_mean(found, float(g["diagonal"])), g["backup_loss"], rtol=1e-5)


def test_golden_way_points():
    """The published law takes a coin and a uniform number, ours one number that stands for both."""
    g = golden("mqe/waypoint")
    assert float(g["lambda"]) == LAMBDA
    uniform = np.where(g["one_step"], NEXT / 2, NEXT + (1 - NEXT) * g["uniform"])
    np.testing.assert_array_equal(mixed_steps(jnp.array(uniform), jnp.array(g["ahead"])), g["steps"])


@pytest.mark.parametrize("ahead", [1, 2, 7, 500])
def test_way_points_lie_between_and_follow_their_law(ahead):
    uniform = (jnp.arange(20_000) + 0.5) / 20_000
    steps = np.asarray(mixed_steps(uniform, jnp.full(20_000, ahead)))
    assert steps.min() == 1 and steps.max() <= ahead
    k = np.arange(1, ahead + 1)
    share = NEXT * (k == 1) + (1 - NEXT) * (1 - LAMBDA) * LAMBDA ** (k - 1)
    share[-1] += (1 - NEXT) * LAMBDA**ahead
    np.testing.assert_allclose(np.bincount(steps, minlength=ahead + 1)[1:] / 20_000, share, atol=2e-4)


def test_way_points_of_chunks_lie_behind_all_of_their_actions():
    law = tmd.TMDConfig(backup="waypoint", action_chunk=3).law_of_way_points
    uniform = (jnp.arange(1000) + 0.5) / 1000
    for ahead in (1, 2, 3, 7):
        steps = np.asarray(law(uniform, jnp.full(1000, ahead)))
        assert steps.min() == min(3, ahead) and steps.max() == ahead


def test_a_chunk_of_two_is_as_far_as_two_rows():
    """Gamma squared is the discount of its step and of its back-up, by NumPy from the networks' outputs."""
    spec, gamma = Spec(3, 2, 2, (0, 1), 0.7, 0.5), 0.7**2
    config = tmd.TMDConfig(h_dim=8, n_hidden=1, repr_dim=16, action_chunk=2)
    assert config.decision(spec) == spec._replace(action_size=4, discounting=pytest.approx(gamma))
    critic = tmd.TMDCritic(config, spec, config.decision(spec), tmd.VisitHead.of(config, spec))
    params = critic.init(iter(jax.random.split(jax.random.PRNGKey(0), 16)))
    states, chunks, ones = normal(0, 6, 3, 3), jnp.tanh(normal(1, 6, 2, 2)), jnp.ones((6, 2))
    path = Path(states, chunks, 0 * ones, 0.7 * ones, ones)
    first = states[:, 0], chunks[:, 0], states[:, 1], normal(2, 6, 2), normal(3, 6, 3)
    batch = Batch(*first, chunks[:, 0], *0 * ones.T, 0.7 * ones[:, 0], path=path)
    metrics, metric = critic.loss(params, of_decisions(batch))[2], config.metric(params["metric"])
    encode = critic.encoder.apply
    x = encode(params["phi"], jnp.concatenate([states[:, 0], chunks.reshape(6, 4)], axis=1))
    there, goal = encode(params["psi_s"], states[:, 2]), encode(params["psi"], batch.future_state[:, :2])
    d = np.asarray(metric.between(x, there))
    assert d.max() < 3  # where the divergence is no line yet
    np.testing.assert_allclose(metrics["step_loss"], np.mean(gamma * np.exp(d) - d), rtol=1e-5)
    d, later = (np.asarray(metric.pairwise(each, goal)) for each in (x, there))
    backup = gamma * np.exp(d - later) - d
    np.testing.assert_allclose(metrics["backup_loss"], (np.diag(backup).mean() + backup.mean()) / 2, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 40, 400])
def test_the_backup_has_its_least_where_the_way_is_as_long_as_it_was(rows):
    """Even of way-points that are farther than where the divergence turns linear."""
    discounting = 0.99**rows
    d = jnp.linspace(0, 8, 8001)
    best = float(d[jnp.argmin(consistency.linex(d, 1.0, jnp.float32(discounting), 3.0))])
    assert best == pytest.approx(1 - np.log(discounting), abs=2e-3)


def test_nothing_is_reached_after_the_end_but_what_was_reached_there():
    d = jnp.arange(9.0).reshape(3, 3)
    far = consistency.out_of_reach(d, jnp.array([True, False, True]), jnp.array([1.0, 0.0, 0.0]), 50.0)
    np.testing.assert_array_equal(far, [[0, 50, 50], [3, 4, 5], [50, 50, 50]])


@pytest.mark.parametrize("backup", ["next", "waypoint"])
def test_the_end_is_that_of_what_comes_later(backup):
    """With a way-point not the next row's: whether it has ended there, and whether there is at the goal."""
    spec = Spec(2, 2, 1, (0, 1), 0.9, 0.5)
    ended, reached = jnp.array([0.0, 1, 1]), jnp.array([0.0, 0, 1])
    batch = chain_batch(jax.random.PRNGKey(0), 3)
    batch = batch._replace(discount=0.9 * (1 - ended), future_reward=reached)
    if backup == "waypoint":
        batch = batch._replace(waypoint=Waypoint(batch.future_state, jnp.array([2, 3, 4]), ended, reached))
        batch = batch._replace(discount=0.9 * ended, future_reward=1 - reached)
    later = consistency.backup_of(spec, 0.9, batch)
    np.testing.assert_array_equal(later.terminal, ended > 0)
    np.testing.assert_array_equal(later.reached, reached)
    rows = np.ones(3) if backup == "next" else np.array([2, 3, 4])
    np.testing.assert_allclose(later.discounting[:, 0], 0.9**rows, rtol=1e-6)
    np.testing.assert_array_equal(later.state, batch.next_state if backup == "next" else batch.future_state)


@pytest.mark.slow
def test_terminal_states_become_far_from_every_goal():
    """The last state of a chain that is not absorbing but the end: no goal can be reached from it any more."""
    agent = chain_agent("tmd", h_dim=32, critic_lr=1e-3, critic_goal="state", zeta=1.0, contrastive_weight=0.1)

    def batch_of(key, ends):
        batch = chain_batch(key, 64)
        at_end = batch.next_state[:, -1] > 0
        there = jnp.all(batch.next_state == batch.future_state, axis=1).astype(jnp.float32)
        return batch._replace(discount=jnp.where(at_end & ends, 0.0, DISCOUNTING), future_reward=there)

    @jax.jit
    def trained(ends):
        def step(state, key):
            batch_key, key = jax.random.split(key)
            return agent.update(state, batch_of(batch_key, ends), key)[0], None

        return jax.lax.scan(step, agent.init(jax.random.PRNGKey(0)), jax.random.split(jax.random.PRNGKey(1), 300))[0]

    # From the state before the end to one far behind it: the action there leads into the end.
    before_end, behind = np.eye(LENGTH)[[LENGTH - 2]], np.eye(LENGTH)[[1]]
    d = [-float(agent.score(trained(jnp.array(ends)), before_end, behind)[0]) for ends in (False, True)]
    assert d[1] > 1.5 * d[0]


@pytest.mark.parametrize("value", ["hazard", "both"])
def test_an_actor_that_nothing_teaches_is_refused(value):
    with pytest.raises(FlagError, match=f"--actor_value is '{value}'; it must come with --hazard_weight above 0"):
        chain_agent("tmd", actor_value=value)


def test_a_distance_that_nothing_teaches_is_refused():
    nothing = dict.fromkeys(("contrastive_weight", "zeta", "invariance_weight", "step_weight"), 0.0)
    with pytest.raises(FlagError, match="^--contrastive_weight is 0, .* with --actor_value distance one of them must"):
        chain_agent("tmd", **nothing)
    with pytest.raises(FlagError, match="^--contrastive_weight is 0, .* with --actor_value distance one of them must"):
        chain_agent("tmd", **nothing, hazard_weight=1.0)  # of a head
    for teaches in ({"step_weight": 0.1}, {"time_weight": 1.0}, {"hazard_weight": 1.0, "hazards": "distance"}):
        chain_agent("tmd", **nothing | teaches)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"window": 9},
            "--window is 9; it means nothing with --hazard_weight, --time_weight and --separation_weight 0",
        ),
        ({"time_weight": 1.0, "time_bins": 9}, "--time_bins is 9; it means nothing with --hazard_weight 0"),
        ({"hazards": "distance"}, "--hazards is distance; it means nothing with --hazard_weight 0"),
        (
            {"hazard_weight": 1.0, "hazards": "distance", "head_dim": 9},
            "--head_dim is 9; it means nothing with --hazards distance, which has no head",
        ),
        (
            {"censor": "episode"},
            "--censor is episode; it means nothing with --hazard_weight, --time_weight and --separation_weight 0",
        ),
        (
            {"time_weight": 1.0, "censor": "episode"},
            "--censor is episode; it means nothing with --hazard_weight and --separation_weight 0",
        ),
        (
            {"hazard_weight": 1.0, "visit_backup": True, "censor": "episode", "time_bins": 0},
            "--censor is episode; it means nothing with --visit_backup, --time_bins 0 and no --separation_weight",
        ),
        (
            {"contrastive_weight": 0.0, "potential": False},
            "--potential is False; it means nothing with --contrastive_weight 0",
        ),
        (
            {"original_goals": 0.5},
            "--original_goals is 0.5; it means nothing with --hazard_weight, --time_weight and --separation_weight 0",
        ),
        (
            {"hazard_weight": 1.0, "value_discounting": 0.9},
            "--value_discounting is 0.9; it means nothing with --actor_value distance",
        ),
    ],
)
def test_flags_that_mean_nothing_are_refused(flags, words):
    with pytest.raises(FlagError, match=f"^{words}: leave one of them out.$"):
        chain_agent("tmd", **flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"critic_goal": "state"}, "--critic_goal state, whose goals are full states"),
        ({"backup": "waypoint"}, "--backup waypoint, whose way-points lie on ways to goals that were reached"),
    ],
)
def test_what_cannot_have_original_goals_says_so(flags, words):
    with pytest.raises(FlagError, match=f"^--original_goals is 0.25; with {words}, it must be 0.$"):
        chain_agent("tmd_visits", **flags)
    assert chain_agent("tmd_visits", original_goals=0.0, **flags).needs.original == 0
    chain_agent("tmd_visits", hazard_weight=0.0, actor_value="distance", value_discounting=0.999, **flags)


def test_original_goals_need_something_that_learns_from_those_that_were_not_reached():
    with pytest.raises(
        FlagError, match=r"^--original_goals is 0.25; with --hazard_weight and --separation_weight 0, .* 0.$"
    ):
        chain_agent("tmd", time_weight=1.0, original_goals=0.25)
    assert chain_agent("tmd", separation_weight=1.0, original_goals=0.25).needs.original == 0.25


def test_positives_are_left_out_of_nothing_where_a_loss_has_no_logsumexp():
    binary = tmd.TMDConfig(contrastive_loss_fn="binary", resubs=False)
    assert binary.penalties["resubs"] is False  # in the penalty
    assert tmd.TMDConfig(resubs=False, logsumexp_penalty=0.0).penalties["resubs"] is False  # in InfoNCE
    with pytest.raises(
        FlagError, match="^--resubs is False; without --logsumexp_penalty --contrastive_loss_fn binary has"
    ):
        _ = dataclasses.replace(binary, logsumexp_penalty=0.0).penalties


def test_what_means_nothing_may_be_said_as_tmd_has_it():
    plain = {"hazard_weight": 0.0, "actor_value": "distance"}
    said = {"original_goals": 0.0, "time_bins": 48, "head_dim": 0, "value_discounting": 0.99}
    assert chain_agent("tmd_visits", **plain, **said).needs == chain_agent("tmd_visits", **plain).needs
    with pytest.raises(FlagError, match="^--time_bins is 7; it means nothing with --hazard_weight 0"):
        chain_agent("tmd_visits", **plain, time_bins=7)


def test_an_actor_with_goals_of_its_own_sees_no_original_ones():
    needs = chain_agent("tmd_visits", actor_relabel="geometric", actor_any_goals=0.1).needs
    assert needs.original == 0.25 and needs.actor_goals == (0.9, 0.0, 0.1)


@pytest.mark.parametrize(("share", "number"), [("0.05", 0), ("0.97", 8)])
def test_a_share_of_original_goals_that_is_none_or_all_is_refused(share, number):
    flags = read_flags([*toy.TINY, "--agent", "srl", "--original_goals", share])  # batches of 8
    with pytest.raises(FlagError, match=f"^--original_goals is {share}, which is {number} of --batch_size 8 samples"):
        make_run(*flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--random_goals 0.05", "--random_goals is 0.05, which is 0 of --batch_size 8 samples; it must be 0, or at"),
        ("--agent sac --use_her --her_ratio 0.05", "--her_ratio is 0.05, which is 0 of --batch_size 8 samples"),
        ("--agent sac --use_her --her_ratio 0 --her_strategy goal_law", "--her_strategy .* with --her_ratio 0"),
        ("--agent td3 --target_noise 0 --noise_clip 0.3", "--noise_clip is 0.3; it .* with --target_noise 0"),
        ("--agent td3 --noise_clip 0 --target_noise 0.3", "--target_noise is 0.3; it .* with --noise_clip 0"),
        ("--agent dino_rebrac --target_noise 0 --noise_clip 0.3", "--noise_clip is 0.3; it .* with --target_noise 0"),
        ("--agent dino_rebrac --view_clip 0 --view_noise 0.3", "--view_noise is 0.3; it .* with --view_clip 0"),
        ("--agent cql --cql_alpha 0 --cql_floor 1", "--cql_floor is 1.0; it .* with --cql_alpha 0"),
        ("--agent c_tec --l2_penalty 0.1", "--l2_penalty is 0.1; it .* for representations of unit length"),
        ("--agent tmd_visits --action_repeat 2", "--original_goals is 0.25; with --action_repeat 2, .* it must be 0"),
    ],
)
def test_what_comes_to_nothing_is_refused(flags, words):
    sizes = ["--env_name", "toy", "--num_envs", "4", "--batch_size", "8", "--num_timesteps", "1000000"]
    with pytest.raises(FlagError, match=f"^{words}"):
        make_run(*read_flags([*sizes, *flags.split()]))
    for all_of_them in ("--random_goals 1", "--agent sac --use_her --her_ratio 1", "--agent td3 --target_noise 0"):
        make_run(*read_flags([*sizes, *all_of_them.split()]))


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
    g = golden("chronosrl/geometry")
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
