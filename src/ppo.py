"""PPO by Brax's own trainer: `brax.training.agents.ppo.train` with our environments, flags, evaluation and run state."""

import functools
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import State, Wrapper
from brax.training.acme import running_statistics, specs
from brax.training.agents.ppo import networks
from brax.training.agents.ppo import train as brax_ppo

from src import rollout
from src.agents.ppo import PPOConfig
from src.flags import FlagError
from src.train import Sizes, Train, make_train
from src.types import Agent, Array, Metrics, RunState, Spec

ENDLESS = 2**31 - 1  # learning phases that Brax is asked for: the host ends training, not Brax
# What Brax reports of a learning phase, under the names that other agents use.
METRICS = {
    "total_loss": "total_loss",
    "policy_loss": "actor_loss",
    "v_loss": "critic_loss",
    "entropy_loss": "entropy_loss",
    "kl_mean": "kl",
    "policy_dist_mean_std": "policy_std",
}


def replicate(tree: Any, devices: list[jax.Device]) -> Any:
    """A copy of the tree on every device, leaves [devices, ...]."""
    sharding = jax.sharding.NamedSharding(jax.sharding.Mesh(devices, "i"), jax.sharding.PartitionSpec("i"))
    return jax.device_put(jax.tree.map(lambda leaf: jnp.stack([leaf] * len(devices)), tree), sharding)


if not hasattr(jax, "device_put_replicated"):  # JAX 0.10 removed it, and the trainer of Brax 0.14.2 calls it
    jax.device_put_replicated = replicate


class PPOState(NamedTuple):
    """What Brax's trainer hands out and takes back; the moments of its optimizer are not among it."""

    normalizer: running_statistics.RunningStatisticsState
    policy: Any
    value: Any


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

    def policy(agent, state, goal, key, deterministic):
        with jax.numpy_rank_promotion("allow"):
            return make_policy(agent, deterministic)(jnp.concatenate([state, goal], axis=-1), key)[0]

    def act(agent, state, goal, key):
        return policy(agent, state, goal, key, deterministic=False)

    def mode(agent, state, goal):
        return policy(agent, state, goal, None, deterministic=True)

    return Agent(init, act, mode, update=None)


class Episodes(NamedTuple):
    """Where N environments are in their episodes, and their next starts."""

    steps: Array  # [N] int32, since the start of the episode
    keys: Array  # [N] keys
    pool: State  # fresh starts, leaves [N, ...]
    age: Array  # [] int32, steps since the pool was drawn


class FreshEpisodes(Wrapper):
    """N environments for Brax's trainer, every episode with a fresh start and a fresh goal; Brax's own wrapper gives an
    environment the same ones for ever.

    As in `rollout.unroll`, fresh starts are drawn for all environments at once, and environment e takes number e + t at
    step t; they are drawn again before an environment could take one twice.
    """

    RENEWAL = 64  # steps between two drawings at most

    def __init__(self, env: Any, episode_length: int, action_repeat: int, randomization_fn: None = None):
        super().__init__(env)
        self.episode_length, self.action_repeat = episode_length, action_repeat

    def draw(self, keys: Array) -> tuple[Array, State]:
        """Keys for the next time [N], and a fresh start for each."""
        keys, start_keys = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
        return keys, jax.vmap(self.env.reset)(start_keys)

    def reset(self, rng: Array) -> State:
        """Consumes rng, a key per environment."""
        keys, start = self.draw(rng)
        keys, pool = self.draw(keys)
        zeros = jnp.zeros(len(rng))
        episodes = Episodes(jnp.zeros(len(rng), jnp.int32), keys, pool, jnp.zeros((), jnp.int32))
        return self.told(start, episodes, zeros)

    def told(self, state: State, episodes: Episodes, truncation: Array) -> State:
        """The state with what Brax's trainer and the next step ask of it."""
        brax = {"truncation": truncation, "episode_done": state.done, "episode_metrics": {}}
        return state.replace(info={**state.info, **brax, "episodes": episodes})

    def step(self, state: State, action: Array) -> State:
        """One action in every environment; where an episode ends, what follows is the first state of the next one."""
        steps, keys, pool, age = state.info["episodes"]
        bare = state.replace(info={name: state.info[name] for name in pool.info})
        after = rollout.hold(self.env, bare, action, self.action_repeat)
        steps = steps + self.action_repeat
        truncation = jnp.where(steps >= self.episode_length, 1 - after.done, 0.0)
        done = jnp.maximum(after.done, truncation)
        fresh = jax.tree.map(lambda leaf: jnp.roll(leaf, -age, axis=0), pool).replace(reward=after.reward, done=done)
        age = (age + 1) % min(len(steps), self.RENEWAL)
        keys, pool = jax.lax.cond(age == 0, self.draw, lambda keys: (keys, pool), keys)
        episodes = Episodes(jnp.where(done > 0, 0, steps), keys, pool, age)
        return self.told(rollout.where(done > 0, fresh, after.replace(done=done)), episodes, truncation)


class Abandoned(Exception):  # noqa: N818
    """Nobody waits for what a function reports."""


def reports(function: Callable[[Callable[[Any], None]], None]) -> Iterator[Any]:
    """What function(report) reports, one by one. It runs in a thread of its own, and only while the next is awaited."""
    wanted, told, abandoned = threading.Semaphore(0), queue.SimpleQueue(), threading.Event()

    def wait():
        wanted.acquire()
        if abandoned.is_set():
            raise Abandoned

    def report(value):
        told.put((value, None))
        wait()

    def work():
        try:
            wait()
            function(report)
        except Abandoned:
            pass
        except BaseException as error:
            told.put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            wanted.release()
            value, error = told.get()
            if error is not None:
                raise error
            yield value
    finally:
        abandoned.set()
        wanted.release()
        thread.join()


def learning_phases(
    env: Any, config: Any, agent_config: PPOConfig, state: RunState
) -> Iterator[tuple[PPOState, Metrics]]:
    """What Brax's trainer has learned after each learning phase, and the phase's metrics.

    It starts from the networks and statistics of `state`; episodes and the optimizer start anew.
    """
    same = ("learning_rate", "entropy_cost", "reward_scaling", "clipping_epsilon", "gae_lambda")
    same += ("num_minibatches", "num_updates_per_batch")
    steps = config.num_envs * config.unroll_length * config.action_repeat

    def train(report):
        newest = []
        with jax.numpy_rank_promotion("allow"):
            brax_ppo.train(
                env,
                num_timesteps=ENDLESS * steps,
                num_evals=ENDLESS + 1,
                max_devices_per_host=1,
                wrap_env_fn=FreshEpisodes,
                num_envs=config.num_envs,
                episode_length=config.episode_length,
                action_repeat=config.action_repeat,
                unroll_length=config.unroll_length,
                batch_size=config.num_envs // agent_config.num_minibatches,
                discounting=config.discounting,
                normalize_observations=config.normalize_observations,
                network_factory=network_factory(agent_config),
                seed=int(jax.random.randint(state.key, (), 0, 2**31 - 1)),
                run_evals=False,
                num_eval_envs=1,
                restore_params=state.agent,
                policy_params_fn=lambda _steps, _make_policy, params: newest.append(params),
                progress_fn=lambda _steps, metrics: report((PPOState(*newest.pop()), metrics)),
                **{name: getattr(agent_config, name) for name in same},
            )

    for agent, metrics in reports(train):
        yield agent, {ours: metrics[f"training/{name}"] for name, ours in METRICS.items()}


def make_ppo(
    env: Any, eval_env: Any, spec: Spec, sizes: Sizes, config: Any, agent_config: PPOConfig
) -> tuple[Sizes, Train]:
    """Sizes and functions of a run; `advance` trains seeds in turns on the host, the others are those of every agent.

    Args:
      env, eval_env: GoalEnvs of equal state, goal and action sizes.
      sizes: those of the flags.
      config, agent_config: the flags.

    Raises:
      FlagError: minibatches that are not equally large.
    """
    if config.num_envs % agent_config.num_minibatches:
        raise FlagError(
            f"--num_minibatches is {agent_config.num_minibatches}; it must divide --num_envs {config.num_envs}, because"
            " a minibatch holds whole unrolls."
        )
    updates = agent_config.num_minibatches * agent_config.num_updates_per_batch
    sizes = sizes._replace(updates_per_unroll=updates)
    agent = make_agent(agent_config, spec, config.normalize_observations)
    train = make_train(env, eval_env, agent, sizes, normalize=False, num_seeds=config.num_seeds)
    running: dict[int, tuple[int, Iterator]] = {}  # seed number -> steps that its trainer has behind it, the trainer

    def init(key: Array) -> RunState:
        key, agent_key = jax.random.split(key)
        zero = jnp.zeros((), jnp.int32)
        sums = {name: jnp.zeros(()) for name in ("updates", *METRICS.values())}
        return RunState(agent.init(agent_key), (), (), key, env_steps=zero, gradient_steps=zero, metric_sums=sums)

    @jax.jit
    def learned(state: RunState, agent_state: PPOState, metrics: Metrics) -> RunState:
        return state._replace(
            agent=agent_state,
            key=jax.random.split(state.key, 1)[0],
            env_steps=state.env_steps + sizes.steps_per_unroll,
            gradient_steps=state.gradient_steps + updates,
            metric_sums=jax.tree.map(jnp.add, state.metric_sums, {"updates": jnp.ones(()), **metrics}),
        )

    def advance_one(index: int, state: RunState, count: int) -> RunState:
        for _ in range(count):
            done, phases = running.get(index, (None, None))
            if done != int(state.env_steps):
                phases = learning_phases(env, config, agent_config, state)
            state = learned(state, *next(phases))
            running[index] = int(state.env_steps), phases
        return state

    def advance(state: RunState, unrolls: int, updates: int) -> RunState:
        if config.num_seeds == 1:
            return advance_one(0, state, unrolls)
        seeds = [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(config.num_seeds)]
        seeds = [advance_one(i, state, unrolls) for i, state in enumerate(seeds)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)

    init = jax.jit(jax.vmap(init) if config.num_seeds > 1 else init)
    return sizes, train._replace(init=init, advance=advance, fit=lambda state: state, ahead=False)
