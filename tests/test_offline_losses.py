"""Golden values of offline goal-conditioned agents: every term of every loss."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import consistency, qrl, tmd
from goalax.agents.extraction import awr_loss, ddpg_bc_loss, expectile, log_density
from goalax.agents.gciql import q_loss
from goalax.agents.goal_values import goal_reward, value_after, value_loss
from goalax.agents.hiql import of_fixed_length
from goalax.core.types import Batch
from goalax.learning.energies import ENERGIES
from goalax.learning.losses import CONTRASTIVE_LOSSES
from tests.helpers.offline import GOLDEN, close, golden


def test_golden_values_are_what_their_program_makes():
    subprocess.run([sys.executable, GOLDEN / "make_offline_golden.py", "--check"], check=True)


def test_golden_expectile():
    g = golden("expectile")
    for i, share in enumerate(g["taus"]):
        close(expectile(g["advantage"], g["difference"], share), g["loss_two_arguments"][i])
        close(expectile(g["difference"], g["difference"], share), g["loss_one_argument"][i])
    with pytest.raises(ValueError, match="equal shapes"):
        expectile(jnp.zeros(3), jnp.zeros((3, 1)), 0.5)


def test_golden_awr():
    g = golden("awr")
    likelihood = log_density(g["action"], g["mean"])
    close(likelihood, g["log_density"])
    for i, alpha in enumerate(g["alphas"]):
        close(awr_loss(g["advantage"], likelihood, alpha), g["loss"][i])
        weights = -16 * jax.grad(lambda x: awr_loss(g["advantage"], x, alpha))(likelihood)  # noqa: B023
        close(weights, g["weight"][i])
    assert not jax.grad(lambda x: awr_loss(x, likelihood, 3.0))(jnp.asarray(g["advantage"])).any()


def test_golden_ddpg_bc():
    g = golden("ddpg_bc")
    q, likelihood = jnp.minimum(g["q1"], g["q2"]), log_density(g["action"], g["mean"])
    close(ddpg_bc_loss(q, likelihood, g["alpha"]), g["loss"])
    close(ddpg_bc_loss(q, likelihood, 0.0), g["q_loss"])
    # The size of the values is a constant to the gradient.
    close(jax.grad(lambda q: ddpg_bc_loss(q, likelihood, 0.0))(q), np.full(16, -1 / 16 / np.mean(np.abs(q))))


def batch_of(same, discounting=0.99):
    nothing = jnp.zeros(len(same))
    parts = dict.fromkeys(Batch._fields[:8], nothing)
    return Batch(**parts, discount=nothing + discounting, same=jnp.asarray(same, jnp.float32))


@pytest.mark.parametrize("name", ["gcivl", "gciql"])
def test_golden_reward_of_goals(name):
    g = golden(name)
    reward, discount = goal_reward(batch_of(g["same"]), float(g["gamma"]))
    close(reward, g["reward"])
    close(discount, g["gamma"] * g["mask"])


def test_nothing_is_reached_after_the_end():
    """An action that ends the episode for good is worth a step for ever, unless it ends at the goal or is the goal; and
    the very state of the goal is at it, whatever its radius."""
    batch = batch_of([0, 0, 1, 0, 0])._replace(
        discount=jnp.array([0.0, 0.0, 0.0, 0.9, 0.0]), future_reward=jnp.array([0.0, 1.0, 0.0, 0.0, 0.0])
    )
    goal = jnp.zeros((5, 2))  # of two coordinates, of which one is enough to be elsewhere
    batch = batch._replace(future_state=goal, next_state=goal.at[:4, 0].set(1.0))
    reward, discount = goal_reward(batch, 0.9)
    close(reward, [-10, -1, 0, -1, -1])
    close(discount, [0, 0, 0, 0.9, 0])  # nothing teaches values of the state behind the last action


def test_actors_do_not_imitate_ends_by_values_that_nothing_teaches():
    state = jnp.zeros((3, 2))
    batch = batch_of([0, 0, 0])._replace(discount=jnp.array([0.0, 0.0, 0.9]), next_state=state)
    value = value_after(batch, state.at[1:, 0].set(1.0), jnp.full(3, -2.0), 0.9)
    close(value, [-2, -10, -2])  # at the goal's own state, and where the episode goes on, it is the value


def test_golden_gcivl():
    g = golden("gcivl")
    reward, discount = g["reward"], g["gamma"] * g["mask"]
    loss, advantage = value_loss(g["v"], g["v_target"], g["v_next_target"], reward, discount, g["tau"])
    close(loss, g["value_loss"])
    close(advantage, g["advantage"], rtol=1e-4)
    actor_advantage = np.mean(g["actor_v_next"], 0) - np.mean(g["actor_v"], 0)
    weights = -16 * jax.grad(lambda x: awr_loss(actor_advantage, x, float(g["alpha"])))(jnp.zeros(16))
    close(weights, g["actor_weight"], rtol=1e-4)
    gradients = jax.grad(lambda s, n: value_loss(g["v"], s, n, reward, discount, 0.9)[0], (0, 1))
    assert not any(part.any() for part in gradients(g["v_target"], g["v_next_target"]))


def test_golden_gciql():
    g = golden("gciql")
    above = jnp.min(g["q_target"], axis=0) - g["v"]
    close(expectile(above, above, g["tau"]), g["value_loss"])
    reward, discount = goal_reward(batch_of(g["same"]), float(g["gamma"]))
    target = reward + discount * g["v_next"]
    close(target, g["target"])
    close(q_loss(g["q"], target), g["critic_loss"])


def test_golden_hiql():
    g = golden("hiql")
    close(of_fixed_length(g["raw_representation"]), g["representation"])
    assert np.isfinite(jax.grad(lambda x: jnp.sum(of_fixed_length(x)))(jnp.zeros(4))).all()
    for level, action in (("low", g["action"]), ("high", g["representation"])):
        likelihood = log_density(action, g[f"{level}_mean"])
        close(likelihood, g[f"{level}_log_density"])
        close(awr_loss(g[f"{level}_advantage"], likelihood, g[f"{level}_alpha"]), g[f"{level}_loss"])


def test_golden_qrl():
    g = golden("qrl")
    push, excess = qrl.repulsion(g["d_random"], 100.0), qrl.step_excess(g["d_next"])
    close(push + g["multiplier"] * excess, g["value_loss"])
    close(g["multiplier"] * (g["eps"] - excess), g["multiplier_loss"], rtol=1e-4)


def test_golden_crl():
    g = golden("crl_binary")
    logits = [ENERGIES["scaled_dot"].pairwise(x, y) for x, y in zip(g["phi"], g["psi"], strict=True)]
    close(np.stack(logits), g["logits"], rtol=1e-4)
    close(np.mean([CONTRASTIVE_LOSSES["binary"](each) for each in logits]), g["loss"])


def test_golden_tmd_and_cmd():
    g = golden("tmd")
    config = tmd.TMDConfig(distance="mrn", components=int(g["components"]))
    metric = config.metric(config.init_metric())
    terms = {"contrastive": [], "invariance": [], "backup": [], "cmd_binary_loss": []}
    for phi, psi_s, psi_next, psi_g in zip(g["phi"], g["psi_s"], g["psi_next"], g["psi_g"], strict=True):
        d, later = metric.pairwise(phi, psi_g), metric.pairwise(psi_next, psi_g)
        logits = -d / np.sqrt(phi.shape[-1])
        terms["contrastive"].append(CONTRASTIVE_LOSSES["infonce_backward"](logits))
        terms["invariance"].append(jnp.mean(metric.between(psi_s, phi)))
        terms["backup"].append(
            consistency.weighted_mean(consistency.linex(d, later, float(g["gamma"]), float(g["clip"])), g["diag"])
        )
        terms["cmd_binary_loss"].append(CONTRASTIVE_LOSSES["binary"](logits))
    means = {name: float(np.mean(values)) for name, values in terms.items()}
    for name, value in means.items():
        close(value, g[name], rtol=1e-4)
    total = means["contrastive"] + means["invariance"] + g["zeta"] * means["backup"]
    close(total, g["loss"], rtol=1e-4)
