"""Tests of the laws of commanded goals, and of where a training takes them from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.core import buffer, rollout
from goalax.core.command import COMMAND, Scene
from goalax.core.command.omega import share_of_wanted
from goalax.core.command.rare import log_density
from goalax.envs.base import ENVS
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from goalax.host.resolve import resolve
from tests.helpers import toy
from tests.helpers.rings import filled_ring

toy.register()
LAWS = [name for name, law in COMMAND.items() if law is not None]


def scene_of(goals):
    """A scene in which these goals [K, G] have been achieved."""

    def achieved(key, num):
        return goals[jax.random.randint(key, (num,), 0, len(goals))]

    return Scene(goals.shape[1], achieved, lambda key: 7 + jax.random.uniform(key, (goals.shape[1],)))


def chosen(law, goals, num, seed=0):
    return np.asarray(jax.jit(lambda key: COMMAND[law].goals(scene_of(goals), key, num))(jax.random.PRNGKey(seed)))


@pytest.mark.parametrize("law", LAWS)
def test_shapes(law):
    goals = jnp.arange(10.0).reshape(5, 2)
    assert chosen(law, goals, 6).shape == (6, 2) and np.isfinite(chosen(law, goals, 6)).all()


@pytest.mark.parametrize("law", ["achieved", "rare"])
def test_these_are_achieved_goals(law):
    goals = jnp.arange(20.0).reshape(10, 2)
    assert {*map(tuple, chosen(law, goals, 200))} <= {*map(tuple, np.asarray(goals))}


def test_achieved_goals_are_drawn_uniformly():
    goals = jnp.arange(10.0)[:, None]
    _, counts = np.unique(chosen("achieved", goals, 5000), return_counts=True)
    assert len(counts) == 10 and np.sum((counts - 500) ** 2 / 500) < 27.9  # chi-square of 9 degrees, p = 0.001


def test_rare_goals_are_those_that_few_states_achieve():
    """A crowd around the origin, and one state in twenty-five on a wide circle."""
    crowd = 0.1 * jax.random.normal(jax.random.PRNGKey(1), (480, 2))
    angle = jnp.linspace(0, 2 * jnp.pi, 20, endpoint=False)
    goals = jnp.concatenate([crowd, 5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)])
    far = np.linalg.norm(chosen("rare", goals, 500), axis=1) > 4
    usual = np.linalg.norm(chosen("achieved", goals, 500), axis=1) > 4
    assert usual.mean() < 0.1 and far.mean() > 0.5


def test_what_hardly_varies_does_not_make_a_goal_rare():
    """The height of what rests on a table is a little noise, not a frontier."""
    flat = jax.random.uniform(jax.random.PRNGKey(1), (2000, 2))
    noise = 1e-5 * jax.random.normal(jax.random.PRNGKey(2), (2000, 1))
    rare, noisy = chosen("rare", flat, 200), chosen("rare", jnp.concatenate([flat, 0.02 + noise], axis=1), 200)
    np.testing.assert_array_equal(noisy[:, :2], rare)


def test_episodes_that_begin_together_have_different_rare_goals():
    goals = jax.random.normal(jax.random.PRNGKey(1), (100_000, 2))
    assert len(np.unique(chosen("rare", goals, 64), axis=0)) > 30


def test_the_share_of_omega_equals_a_sum_of_kernels():
    wanted, seen = np.random.default_rng(0).normal(size=60), np.random.default_rng(1).normal(2, 1, 80)
    kernels = lambda x, y: np.exp(-0.5 * ((x[:, None] - y[None]) / (0.1 * seen.std())) ** 2)  # noqa: E731
    others = kernels(wanted, wanted)[~np.eye(60, dtype=bool)].reshape(60, 59)  # each of them by the others
    own, achieved = others.mean(axis=1), kernels(wanted, seen).mean(axis=1)
    expected = 1 / (np.mean(np.log(own) - np.log(achieved)) - 3)
    assert 0.05 < expected < 0.95
    share = share_of_wanted(jnp.asarray(wanted[:, None]), jnp.asarray(seen[:, None]))
    np.testing.assert_allclose(share, expected, rtol=1e-3)


def test_a_coordinate_that_never_varies_does_not_count_for_omega():
    """As the height of what lies on a table, whose goals are a little higher."""
    wanted, seen = (np.random.default_rng(i).normal(size=(n, 2)) for i, n in enumerate((60, 80)))
    share = share_of_wanted(jnp.asarray(wanted), jnp.asarray(seen))
    flat = [jnp.asarray(np.c_[goals, np.full(len(goals), z)]) for goals, z in ((wanted, -0.32), (seen, -0.275))]
    assert share > 0.1 and share_of_wanted(*flat) == pytest.approx(float(share), rel=1e-5)


def test_omega_asks_for_the_goals_of_the_environment_once_states_lie_among_them():
    far = jax.random.normal(jax.random.PRNGKey(1), (500, 2))
    among = jnp.concatenate([far, 7 + jax.random.uniform(jax.random.PRNGKey(2), (500, 2))])  # as `scene_of` evaluates
    early, late = chosen("omega", far, 400), chosen("omega", among, 400)
    assert (early > 6.5).all(axis=1).mean() < 0.05
    known = {*map(tuple, np.asarray(among))}
    assert (late > 6.9).all() and not {*map(tuple, late)} & known


def test_goals_of_the_first_episodes_have_a_key_of_their_own():
    """Else they would be drawn together with the start of one of these."""
    env, key, seen = toy.Toy(), jax.random.PRNGKey(3), []

    def goals(key, num):
        seen.append(np.asarray(jax.random.key_data(key)))
        return jnp.zeros((num, 2))

    rollout.init(env, key, 4, commands=rollout.Commands(goals, since=0))
    assert not any(np.array_equal(seen[0], each) for each in np.asarray(jax.random.split(key, 4)))


def test_density_equals_a_sum_of_kernels():
    goals, seen = np.random.default_rng(0).normal(size=(4, 3)), np.random.default_rng(1).normal(size=(6, 3))
    kernels = [[np.exp(-np.sum((g - s) ** 2) / (2 * 0.3**2)) for s in seen] for g in goals]
    np.testing.assert_allclose(
        log_density(jnp.array(goals), jnp.array(seen), 0.3), np.log(np.sum(kernels, 1)), rtol=1e-4
    )


def test_single_is_one_goal_of_the_evaluated_environment_for_every_unroll_and_seed():
    goals = jnp.arange(10.0).reshape(5, 2)
    one, other = chosen("single", goals, 4), chosen("single", goals, 4, seed=1)
    assert (one == other).all() and (one == one[:1]).all() and (one > 7).all()


def collected(law, unrolls, *more):
    """Commanded goals of stored rows, of episodes that began after the first unroll, and what stored states achieve."""
    flags, agent_flags = read_flags([*toy.TINY, "--commanded_goals", law, "--max_replay_size", "400", *more])
    run = make_run(flags, agent_flags)
    state = run.train.advance(run.train.init(jnp.asarray(run.keys(0))), unrolls, 0)
    count, rows = int(state.buffer.count), jax.device_get(state.buffer.rows)
    # Number of the row at which each episode began; the goals of those that began in the first unroll are of the env.
    late = rows.episode_start[:count] > run.sizes.unroll_length
    return rows.goal[:count], rows.state[:count], late


def test_without_a_law_goals_are_those_of_the_environment():
    goals, _, _ = collected("env", 20)
    assert (np.abs(goals) <= 1).all()


@pytest.mark.parametrize("law", ["achieved", "rare"])
def test_goals_come_from_the_buffer_from_the_second_unroll_on(law):
    goals, states, late = collected(law, 20)
    assert late.any()
    stored = {*map(tuple, states.reshape(-1, 2).round(5))}
    assert {*map(tuple, goals[late].round(5))} <= stored
    assert not {*map(tuple, goals[~late].round(5))} <= stored


def test_a_single_goal_is_that_of_all_episodes_from_the_first_on():
    goals, _, late = collected("single", 12)
    assert late.any() and not late.all() and np.unique(goals.reshape(-1, 2), axis=0).shape == (1, 2)


class FarGoals(toy.Toy):
    def sample_goal(self, key):
        return 5 + super().sample_goal(key)


def test_single_goals_are_those_of_the_environment_that_is_evaluated(monkeypatch):
    monkeypatch.setitem(ENVS._entries, "toy_eval", FarGoals)
    goals, _, _ = collected("single", 4, "--eval_env", "toy_eval")
    assert (goals > 3.9).all()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--env_name ant_random_start", "--env_name ant_random_start is a law of pairs of starts and goals"),
        ("--env_name toy --num_timesteps 0", "with --num_timesteps 0 no episode collects"),
        ("--env_name simple_u_maze_gen_1f2f3f", "--env_name simple_u_maze_gen_1f2f3f is a law of pairs of starts and"),
    ],
)
def test_goals_that_nobody_can_be_commanded_are_refused(flags, why):
    with pytest.raises(FlagError, match=f"^--commanded_goals is 'rare'; {why}.*: leave it out.$"):
        resolve(read_flags([*flags.split(), "--commanded_goals", "rare"])[0])


def test_stored_states_are_drawn_from_the_whole_ring():
    ring = filled_ring(0)
    drawn = np.asarray(buffer.states(ring, jax.random.PRNGKey(0), 400))
    stored = np.asarray(ring.rows.state).reshape(-1, 3)
    assert {*map(tuple, drawn)} == {*map(tuple, stored)}
