"""PPO by Brax's own trainer: `brax.training.agents.ppo.train` with our environments, flags, evaluation, run state."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from brax.training.acme import running_statistics, specs
from brax.training.agents.ppo import networks
from brax.training.agents.ppo import train as brax_ppo

from goalax.agents.brax.callbacks import Reports
from goalax.agents.brax.episodes import FreshEpisodes
from goalax.agents.brax.flags import PPOConfig
from goalax.core import counting
from goalax.core.sizes import Sizes
from goalax.core.train import Train, make_train
from goalax.core.types import Agent, Array, Env, Metrics, RunState, Spec
from goalax.flags import FlagError

ENDLESS = 2**31 - 1  # learning phases that Brax is asked for: the host ends training, not Brax
PARAMETERS = frozenset(inspect.signature(brax_ppo.train).parameters)  # sizes and flags have Brax's names, where it has
# What Brax reports of a learning phase, under the names that other agents use.
METRICS = {
    "total_loss": "total_loss",
    "policy_loss": "actor_loss",
    "v_loss": "critic_loss",
    "entropy_loss": "entropy_loss",
    "kl_mean": "kl",
    "policy_dist_mean_std": "policy_std",
}


def replicate(x: Any, devices: Sequence[jax.Device]) -> Any:
    """A copy of the tree x on every device, leaves [devices, ...]."""
    sharding = jax.sharding.NamedSharding(jax.sharding.Mesh(devices, "i"), jax.sharding.PartitionSpec("i"))
    return jax.device_put(jax.tree.map(lambda leaf: jnp.stack([leaf] * len(devices)), x), sharding)


if not hasattr(jax, "device_put_replicated"):  # JAX 0.10 removed it, and the trainer of Brax 0.14.2 calls it
    jax.device_put_replicated = replicate


class PPOState(NamedTuple):
    """What Brax's trainer hands out and takes back; the moments of its optimizer are not among it."""

    normalizer: running_statistics.RunningStatisticsState
    policy: Any
    value: Any


Learned = tuple[PPOState, Metrics]  # what Brax's trainer reports of a learning phase


def network_factory(config: PPOConfig) -> Callable[..., networks.PPONetworks]:
    hidden = (config.h_dim,) * config.n_hidden
    return functools.partial(
        networks.make_ppo_networks, policy_hidden_layer_sizes=hidden, value_hidden_layer_sizes=hidden
    )


def make_agent(config: PPOConfig, spec: Spec, normalize: bool) -> Agent:
    """Brax's policy as an agent without update.

    Args:
      normalize: feed networks inputs normalised with statistics of everything seen so far.
    """
    size = spec.state_size + spec.goal_size
    inputs = {"preprocess_observations_fn": running_statistics.normalize} if normalize else {}
    network = network_factory(config)(size, spec.action_size, **inputs)
    make_policy = networks.make_inference_fn(network)

    def init(key):
        policy_key, value_key = jax.random.split(key)
        statistics = running_statistics.init_state(specs.Array((size,), jnp.dtype("float32")))
        return PPOState(statistics, network.policy_network.init(policy_key), network.value_network.init(value_key))

    def act(agent, state, goal, key):
        with jax.numpy_rank_promotion("allow"):
            return make_policy(agent, deterministic=key is None)(jnp.concatenate([state, goal], axis=-1), key)[0]

    return Agent(init, act, functools.partial(act, key=None), update=None)


def train_by_brax(env: Env, sizes: Sizes, config: PPOConfig, normalize: bool, phases: int, **more: Any) -> None:
    """Trains on one device until a callback raises something.

    Args:
      phases: learning phases between two callbacks.
      more: arguments of Brax's trainer beside sizes and flags; progress_fn is the callback.
    """
    ours = {**sizes._asdict(), **dataclasses.asdict(config)}
    arguments = {name: value for name, value in ours.items() if name in PARAMETERS}
    arguments |= {
        "num_timesteps": ENDLESS * phases * sizes.steps_per_unroll,
        "num_evals": ENDLESS + 1,
        "run_evals": False,
        "num_eval_envs": 1,  # it resets environments for evaluations all the same
        "max_devices_per_host": 1,
        "batch_size": sizes.num_envs // config.num_minibatches,
        "network_factory": network_factory(config),
        "normalize_observations": normalize,
    }
    with jax.numpy_rank_promotion("allow"):
        brax_ppo.train(env, **arguments, **more)


def start(env: Env, sizes: Sizes, config: PPOConfig, normalize: bool, state: RunState) -> Reports[Learned]:
    """Brax's trainer, which reports the (PPOState, metrics) of every learning phase.

    It starts from the networks and statistics of `state`; episodes and the optimizer start anew.
    """
    seed = int(jax.random.randint(state.key, (), 0, 2**31 - 1))

    def train(report: Callable[[Learned], None]) -> None:
        newest: dict[str, PPOState] = {}
        train_by_brax(
            env,
            sizes,
            config,
            normalize,
            phases=1,
            seed=seed,
            restore_params=state.agent,
            wrap_env_fn=FreshEpisodes,
            policy_params_fn=lambda _steps, _policy, params: newest.update(agent=PPOState(*params)),
            progress_fn=lambda _steps, metrics: report((newest["agent"], named(metrics))),
        )

    def named(metrics):
        return {ours: metrics[f"training/{name}"] for name, ours in METRICS.items()}

    return Reports(train)


def make_ppo(
    env: Env, eval_env: Env, spec: Spec, sizes: Sizes, config: PPOConfig, normalize: bool, num_seeds: int
) -> tuple[Sizes, Train]:
    """Sizes and functions of a run; `advance` trains seeds in turns on the host, the others are those of every agent.

    Args:
      env, eval_env: of equal state, goal and action sizes.
      sizes: those of the flags.
      normalize: feed networks inputs normalised with statistics of everything seen so far.

    Raises:
      FlagError: minibatches that are not equally large.
    """
    if sizes.num_envs % config.num_minibatches:
        raise FlagError(
            f"--num_minibatches is {config.num_minibatches}; it must divide --num_envs {sizes.num_envs}, because"
            " a minibatch holds whole unrolls."
        )
    updates = config.num_minibatches * config.num_updates_per_batch
    sizes = sizes._replace(updates_per_unroll=updates)
    agent = make_agent(config, spec, normalize)
    train = make_train(env, eval_env, agent, spec, sizes, normalize=False, num_seeds=num_seeds)
    running: dict[int, tuple[bytes, Reports[Learned]]] = {}  # index of a seed -> its newest key, its trainer

    def init(key: Array) -> RunState:
        key, agent_key = jax.random.split(key)
        zero, sums = counting.zero(), {name: counting.empty() for name in ("updates", *METRICS.values())}
        nothing: Any = ()  # in the place of environments and a buffer: Brax's trainer has its own
        return RunState(
            agent.init(agent_key), nothing, nothing, key, env_steps=zero, gradient_steps=zero, metric_sums=sums
        )

    @jax.jit  # one call for the host, not dozens
    def learned(state: RunState, agent_state: PPOState, metrics: Metrics) -> RunState:
        terms = {"updates": jnp.ones(()), **metrics}
        return state._replace(
            agent=agent_state,
            key=jax.random.split(state.key, 1)[0],
            env_steps=counting.plus(state.env_steps, sizes.steps_per_unroll),
            gradient_steps=counting.plus(state.gradient_steps, updates),
            metric_sums={name: counting.added(state.metric_sums[name], term) for name, term in terms.items()},
        )

    def name_of(state: RunState) -> bytes:
        return jax.device_get(state.key).tobytes()  # every phase has a key of its own

    def advance_one(index: int, state: RunState, count: int) -> RunState:
        for _ in range(count):
            newest, trainer = running.get(index, (None, None))
            if trainer is None or newest != name_of(state):  # another state than this trainer has brought about
                trainer = start(env, sizes, config, normalize, state)
            state = learned(state, *next(trainer))
            running[index] = name_of(state), trainer
        return state

    def advance(state: RunState, unrolls: int, _updates: int) -> RunState:
        if num_seeds == 1:
            return advance_one(0, state, unrolls)
        seeds = [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(num_seeds)]
        seeds = [advance_one(i, state, unrolls) for i, state in enumerate(seeds)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)

    init = jax.jit(jax.vmap(init) if num_seeds > 1 else init)
    return sizes, train._replace(init=init, advance=advance, fit=lambda state: state, ahead=False)
