"""InFOM and DINO with ReBRAC in their two phases: what changes when, and runs resumed across the switch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS, dino_rebrac, infom
from goalax.commands import train as training
from goalax.data import files
from goalax.host import checkpoint
from goalax.host.loading import load
from tests.helpers import toy, toy_rewards
from tests.helpers.infom import KEY, NAMES, OWN, TAU, learner_of
from tests.helpers.offline import close, equal, interrupted
from tests.helpers.runs import RUN, rows

toy.register()
toy_rewards.register()


def mixed(new, old, share=TAU):
    """What a target is after it has moved by a share."""
    return jax.tree.map(lambda a, b: share * a + (1 - share) * b, new, old)


@pytest.fixture(params=NAMES)
def learner(request):
    return learner_of(request.param)


# ---- What changes when -----------------------------------------------------------------------------------------------


def slow_parts(agent_state):
    """Parameters whose target is a slow copy, by its name."""
    own = {"actor": agent_state.params["actor"], **agent_state.params["critic"]}
    return {name: own[name] for name in agent_state.target if name not in ("bounds", "centre")}


def test_targets_follow(learner):
    after, before, state = learner.after, learner.before, learner.tuned
    for name, part in slow_parts(after).items():
        jax.tree.map(functools.partial(close, rtol=1e-4), after.target[name], mixed(part, before.target[name]))
    assert not equal(after.target, before.target)
    assert all(equal(state.target[name], part) for name, part in slow_parts(state).items())
    moved = []
    for i in range(4):
        after, _ = learner.update(state, learner.batch, jax.random.PRNGKey(i))
        moved.append(not equal(after.target, state.target))
        state = after
    # The flow's target moves in every update; those of ReBRAC move with the actor, in every third.
    assert moved == ([True] * 4 if "flow" in state.target else [True, False, False, True])


def test_a_switch_begins_fine_tuning(learner):
    _, _, update, some, _, state, tuned = learner
    without = some._replace(reward=some.reward + 1)
    assert state.tuned == -1 and tuned.tuned == 0
    assert equal(update(state, some, KEY), update(state, without, KEY))
    assert equal(tuned.params, state.params) and equal(tuned.optimizer, state.optimizer)
    (after, metrics), (other, _) = (update(tuned, each, KEY) for each in (some, without))
    assert not equal(after.params, other.params) and after.tuned == 1
    assert metrics.keys() == update(state, some, KEY)[1].keys()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, metrics)))


def test_the_actor_learns_at_its_interval(learner):
    """With its moments at zero, an actor without a loss stays what it is."""
    state, moved = learner.tuned, []
    for i in range(4):
        fresh = state._replace(optimizer=learner.before.optimizer)
        after, _ = learner.update(fresh, learner.batch, jax.random.PRNGKey(i))
        moved.append(not equal(after.params["actor"], state.params["actor"]))
        state = after
    assert moved == [True, False, False, True]


def test_the_actor_does_not_train_critics_in_fine_tuning(learner):
    states = [learner.tuned._replace(tuned=jnp.int32(number)) for number in (0, 1)]  # the actor learns in the first
    found = [learner.update(state, learner.batch, KEY)[0].params for state in states]
    assert equal(found[0]["critic"], found[1]["critic"]) and not equal(found[0]["actor"], found[1]["actor"])


def test_no_gradient_reaches_features_in_fine_tuning():
    """As the actor above; of an optimizer that has no momentum yet."""
    _, agent, update, some, state, *_ = learner_of("dino_rebrac")
    for begin, still in ((state, False), (agent.switch(state, some, KEY), True)):
        after, _ = update(begin, some, KEY)
        assert equal(after.params["critic"]["encoder"], state.params["critic"]["encoder"]) == still
        assert equal(after.params["critic"]["q"], state.params["critic"]["q"]) != still


def test_defaults_are_those_of_the_comparison():
    for name in NAMES:
        own = AGENTS[name].config()
        assert (own.h_dim, own.n_hidden, own.use_relu, own.use_ln) == (512, 4, False, name != "infom")
        assert (own.repr_dim, own.actor_interval, own.policy_lr, own.critic_lr, own.tau) == (512, 4, 3e-4, 3e-4, TAU)
    own = infom.InFOMConfig()
    assert (own.kl_weight, own.flow_steps, own.flow_samples, own.expectile, own.bc_weight) == (0.01, 10, 16, 0.9, 10)
    own = dino_rebrac.DINOReBRACConfig()
    assert (own.view_noise, own.view_clip, own.student_temperature, own.teacher_temperature) == (0.5, 1, 0.1, 0.04)
    assert (own.centre_rate, own.target_noise, own.noise_clip) == (0.1, 0.2, 0.5)


# ---- Runs ------------------------------------------------------------------------------------------------------------


PHASES = ["--dataset", "free.npz", "--offline_steps", "15", "--num_timesteps", "0"]
PHASES += ["--finetune_dataset", "labelled.npz", "--finetune_steps", "21"]


def flags_of(name):
    own = [word for flag, value in OWN[name].items() for word in (f"--{flag}", str(value))]
    return [*toy.BASELINE, "--env_name", "toy_rewards", "--agent", name, "--repr_dim", "4", *own, *PHASES]


def newest(directory):
    return jax.device_get(load(directory)[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["infom", pytest.param("dino_rebrac", marks=pytest.mark.table)])
def test_runs_pretrain_and_tune(name, tmp_path, monkeypatch):
    """On 200 rows each; one that is resumed where it switches is the same bit for bit, and seeds are single runs."""
    monkeypatch.chdir(tmp_path)
    for file, seed in (("free", 0), ("labelled", 1)):
        columns = {key: np.asarray(leaf) for key, leaf in toy_rewards.walks(20, 10, seed).items()}
        columns.pop("rewards" if file == "free" else "nothing", None)
        files.write(f"{file}.npz", columns)
    directory, flags = RUN.with_name(f"toy_rewards_{name}_s0"), flags_of(name)
    assert training.main(flags) == 0
    whole, found = newest(directory), rows(directory)
    assert [float(row["training/offline_updates"]) for row in found] == [6, 10, 15, 23, 29, 36]
    assert int(whole.agent.agent.tuned) == 21

    again = RUN.with_name("again_s0")
    interrupted([*flags, "--exp_name", "again"], 3)
    assert checkpoint.steps(again / "checkpoints")[0] == 15
    assert training.main([*flags, "--exp_name", "again", "--resume"]) == 0
    assert equal(newest(again), whole) and rows(again) == found

    assert training.main([*flags, "--exp_name", "both", "--num_seeds", "2"]) == 0
    seeds = [[list(map(float, row.values())) for row in rows(RUN.with_name(f"both_s{seed}"))] for seed in (0, 1)]
    alone = [list(map(float, row.values())) for row in found]
    assert np.allclose(seeds[0], alone, rtol=1e-3, atol=1e-4) and not np.allclose(seeds[1], alone, rtol=1e-1)
