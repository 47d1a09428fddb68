"""Critics of SRL and ChronoSRL: what the end of an episode leaves unknown, and losses and values of whole critics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.agents.first_visits import Times, VisitHead, goals_apart
from goalax.agents.srl import Goals, SurvivalCritic
from goalax.core.types import Batch, Spec, Visit
from goalax.flags import FlagError
from goalax.learning import survival
from tests.helpers.frontier import floats, section


def censored_visit(left, reached, terminates):
    steps = jnp.where(jnp.array(reached) > 0, 1, 20)
    left, reached, ends = jnp.array(left), floats(reached), floats(terminates)
    return Visit(jnp.zeros((len(left), 2)), steps, reached, left, ends, jnp.zeros((len(left), 0)), jnp.zeros(0))


def test_what_an_episode_left_unseen_is_not_known():
    """Bins [0, 1), [1, 8), [8, 20): of a bin that the end of an episode cuts nothing is known."""
    spec = Spec(2, 2, 1, (0, 1), 0.9, 0.5, max_decisions=20)
    head = VisitHead.of(AGENTS["tmd"].config(censor="episode", time_bins=3), spec)._replace(edges=(0, 1, 8, 20))
    visit = censored_visit([3, 7, 8, 12, 20, 30, 12, 3], [0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(head.censored_at(visit), [1, 8, 8, 8, 20, 20, 20, 1])
    np.testing.assert_array_equal(head.out_of_window(visit), [0, 0, 0, 0, 1, 1, 1, 0])
    published = head._replace(censor="window")
    np.testing.assert_array_equal(published.censored_at(visit), [20] * 8)
    np.testing.assert_array_equal(published.out_of_window(visit), [1, 1, 1, 1, 1, 1, 1, 0])


@pytest.mark.parametrize("bins", [100, 5])
def test_the_end_of_an_episode_makes_hazards_no_higher(bins):
    """Goals that are met with a hazard of 0.05 a step, seen from every row of episodes of 40: the likeliest hazards are
    those, although late bins are cut more often than not."""
    hazard, window = 0.05, 60
    spec = Spec(2, 2, 1, (0, 1), 0.9, 0.5, max_decisions=window)
    config = AGENTS["chronosrl"].config(censor="episode", window=window, time_bins=bins)
    head = VisitHead.of(config, spec)
    left = jnp.arange(40).repeat(500)
    steps = jnp.asarray(np.random.default_rng(0).geometric(hazard, len(left)))
    reached = (steps <= left).astype(jnp.float32)
    none = jnp.zeros((len(left), 0))
    visit = Visit(none, jnp.where(reached > 0, steps, window), reached, left, jnp.zeros(len(left)), none, none)

    def slopes(logit):
        """Of the loss in every bin: (at risk * hazard - visits) / samples."""

        def loss(logits):
            everywhere = jnp.broadcast_to(logits[None], (len(left), len(logits)))
            return head.loss(Times(jnp.full(len(left), -20.0), everywhere, none), visit)

        return np.asarray(jax.grad(loss)(jnp.full(len(head.edges) - 1, logit)))

    middle, high = slopes(0.0), slopes(float(np.log(9)))  # hazards of 0.5 and 0.9
    at_risk = (high - middle) / 0.4
    visits = 0.5 * at_risk - middle
    edges = np.array(head.edges)
    for k in np.flatnonzero((edges[:-1] > 0) & (edges[1:] <= 30)):
        likeliest, true = visits[k] / at_risk[k], 1 - (1 - hazard) ** (edges[k + 1] - edges[k])
        assert abs(likeliest - true) < 0.02, (edges[k : k + 2], likeliest, true)


def test_goals_of_several_points_are_apart_where_one_point_is():
    spec = Spec(4, 4, 1, (0, 1, 2, 3), 0.9, 0.5, goal_parts=2)
    goals = floats([[0, 0, 0, 0], [0.4, 0, 0.4, 0], [0.4, 0, 0.4, 0.4], [0, 0, 0, 0.6]])
    expected = [[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    np.testing.assert_array_equal(goals_apart(spec, goals), np.array(expected, bool))


def critic_of(radius=0.5, **flags):
    """ChronoSRL's critic, small, in a world of four numbers and two actions."""
    config = AGENTS["chronosrl"].config(h_dim=8, n_hidden=1, repr_dim=4, **flags)
    return SurvivalCritic.of(config, Spec(4, 2, 2, (0, 1), 0.99, radius))


def visit_of(**parts):
    """First visits of as many samples as the parts have, what is left out being nothing."""
    size = len(next(iter(parts.values())))
    blank = {name: jnp.zeros(size) for name in ("steps", "reached", "left", "terminates")}
    blank |= {"goal": jnp.zeros((size, 2)), "occupancy": jnp.zeros((size, 0)), "observed": jnp.zeros((size, 0))}
    return Visit(**blank | parts)


def test_representations_of_srl_have_mean_0_and_length_1_a_number_in_its_loss_and_value():
    spec = Spec(4, 2, 2, (0, 1), 0.99, 0.5, max_decisions=20)
    config = AGENTS["srl"].config(h_dim=8, n_hidden=1, repr_dim=4)
    critic = SurvivalCritic.of(config, spec)
    params = critic.init(iter(jax.random.split(jax.random.PRNGKey(0), 3)))
    states, actions, nothing = jax.random.normal(jax.random.PRNGKey(1), (8, 4)), jnp.ones((8, 2)), jnp.zeros(8)
    pairs = jnp.concatenate([states, actions], axis=1)
    x, y = (
        np.asarray(critic.encoder.apply(params[name], seen), np.float64)
        for name, seen in (("phi", pairs), ("psi", states[:, :2] + 1))
    )
    np.testing.assert_allclose(critic.phi(params, states, actions), x, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(critic.psi(params, states + 1), y, rtol=1e-3, atol=1e-4)
    for found in (x, y):  # at first, for LayerNorm learns a scale and a bias
        np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-4)
        np.testing.assert_allclose(found.std(axis=1), 1, rtol=1e-3)
    norm = params["phi"]["params"]["LayerNorm_0"]
    assert {name: leaf.shape for name, leaf in norm.items()} == {"scale": (4,), "bias": (4,)}

    times = critic.head.apply(params["head"], floats(x), floats(y))
    seen = visit_of(steps=jnp.arange(8) * 2, reached=jnp.arange(8) % 2.0, goal=states[:, :2])
    seen = seen._replace(left=jnp.full(8, 30))
    batch = Batch(states, actions, states, states[:, :2], states + 1, actions, nothing, nothing, nothing, visit=seen)
    loss, goals, _ = critic.loss(params, batch)
    np.testing.assert_allclose(loss, critic.head.loss(times, seen), rtol=1e-3)
    np.testing.assert_allclose(critic.value(params, states, actions, goals), critic.head.value(times), rtol=1e-3)


def test_chrono_loss_is_made_of_the_golden_parts():
    """From representations on: own and other distances, which goals are apart, window and discount of the value."""
    g = section("chronosrl/geometry")
    flags = {"value_discounting": float(g["gamma"]), "window": int(g["window"]), "occupancy_weight": 0.0}
    critic = critic_of(float(g["radius"]), time_weight=2.0, separation_weight=3.0, **flags)
    seen = visit_of(goal=floats(g["goal"]), steps=floats(g["tau"]), reached=floats(g["event"]))
    loss, metrics = critic.chrono_loss(critic.config, floats(g["phi"]), floats(g["psi"]), None, seen)
    later = g["event"] * (g["tau"] >= 1)
    time = np.sum(later * g["huber"]) / later.sum()
    far = g["pairs"] + np.diag(1 - g["event"])
    separation = np.sum(far * g["hinge"]) / far.sum()
    np.testing.assert_allclose(metrics["time_loss"], time, rtol=1e-5)
    np.testing.assert_allclose(metrics["separation_loss"], separation, rtol=1e-4)
    np.testing.assert_allclose(loss, 2 * time + 3 * separation, rtol=1e-4)
    np.testing.assert_allclose(metrics["distance_pos"], np.mean(np.diagonal(g["distance"])), rtol=1e-5)


def test_how_often_episodes_end_for_good_weighs_the_time_at_the_goal():
    """For the actor: the share of samples, which is the weight of what `value` adds to the hazards'."""
    critic, key = critic_of(), jax.random.PRNGKey(0)
    params = critic.init(iter(jax.random.split(key, 9)))
    states, bins = jax.random.normal(key, (8, 4)), len(critic.head.occupancy_edges) - 1
    ends, blank = jnp.array([1.0, 0, 0, 0, 0, 1, 0, 0]), jnp.zeros((8, bins))
    seen = visit_of(terminates=ends, steps=jnp.full(8, 3), goal=states[:, :2])._replace(occupancy=blank, observed=blank)
    nothing = jnp.zeros(8)
    actions = states  # chunks of two
    batch = Batch(states, actions, states, states[:, :2], states, actions, nothing, nothing, nothing)
    goals = critic.loss(params, batch._replace(visit=seen))[1]
    np.testing.assert_allclose(goals.terminates, np.full(8, 0.25))


def test_chrono_loss_and_value_take_the_share_of_time_that_is_spent_at_the_goal():
    g = section("chronosrl/occupancy")
    critic, size = critic_of(occupancy_weight=5.0, window=8, occupancy_bins=4), len(g["mask"])
    times = Times(floats(g["logit0"]), floats(g["hazard_logits"]), floats(g["logits"]))
    seen = visit_of(steps=jnp.ones(size), occupancy=floats(g["occupancy"]), observed=floats(g["mask"]))
    without = critic_of(occupancy_weight=0.0, window=8)
    x, y = jax.random.normal(jax.random.PRNGKey(0), (2, size, 4))
    loss = critic.chrono_loss(critic.config, x, y, times, seen)[0]
    other = without.chrono_loss(without.config, x, y, times, seen)[0]
    share = survival.occupancy_loss(floats(g["logits"]), floats(g["occupancy"]), floats(g["mask"]))
    np.testing.assert_allclose(loss - other, 5 * share, rtol=1e-4)

    params = critic.init(iter(jax.random.split(jax.random.PRNGKey(1), 3)))
    state, action = jnp.ones((3, 4)), jnp.ones((3, 4))  # a chunk of two actions
    values = [critic.value(params, state, action, Goals(y[:3], jnp.full(3, beta))) for beta in (0.0, 0.5)]
    told = critic.head.apply(params["head"], critic.phi(params, state, action), y[:3])
    np.testing.assert_allclose(values[0], critic.head.value(told), rtol=1e-5)
    np.testing.assert_allclose(values[1] - values[0], 0.5 * critic.head.occupancy_value(told), rtol=1e-3)


@pytest.mark.parametrize(("law", "steps"), [("window", [6, 6, 6, 2]), ("episode", [5, 6, 6, 2])])
def test_how_long_a_goal_was_survived(law, steps):
    """With every hazard at one half: log 2 for every step survived, for now, and for the visit. Not reached with 4 rows
    left, so that it takes 5 steps at least, with more than the window, and with 4 rows left to a true end, after which
    nothing is reached; and reached."""
    head = VisitHead(None, 4, 0.99, 6, law, tuple(range(7)), (), 1)
    seen = visit_of(
        steps=jnp.array([6, 6, 6, 2]),
        reached=jnp.array([0.0, 0, 0, 1]),
        left=jnp.array([4, 60, 4, 4]),
        terminates=jnp.array([0.0, 0, 1, 0]),
    )
    found = [
        head.loss(Times(jnp.zeros(1), jnp.zeros((1, 6)), None), jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], seen))
        for i in range(4)
    ]
    np.testing.assert_allclose(found, np.log(2) * (np.array(steps) + np.array([1, 1, 1, 2])), rtol=1e-5)


def test_bins_of_nothing_are_refused():
    with pytest.raises(FlagError, match="^--occupancy_bins is 5; it means nothing with --occupancy_weight 0"):
        AGENTS["chronosrl"].make(
            AGENTS["chronosrl"].config(occupancy_weight=0.0, occupancy_bins=5), Spec(4, 2, 1, (0, 1), 0.9, 0.5)
        )


def test_goals_of_the_actor_alone_are_refused_where_the_critic_counts_ends():
    spec = Spec(4, 2, 1, (0, 1), 0.9, 0.5)
    entry = AGENTS["chronosrl"]
    with pytest.raises(FlagError, match="--actor_relabel is 'uniform'; with --occupancy_weight"):
        entry.make(entry.config(actor_relabel="uniform"), spec)
    assert entry.make(entry.config(actor_relabel="uniform", occupancy_weight=0.0), spec).needs.actor_law is not None
