"""From flags to functions: `make_run` for the command line, `make` for Python; and the `Run` that both return."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from goalax.core import contract, sharding
from goalax.core.command import COMMAND
from goalax.core.sizes import Sizes, sizes_of
from goalax.core.train import Train, compile_train, forget_metrics, make_train
from goalax.core.types import Agent, BufferState, RunState, Spec
from goalax.core.updates import Offline
from goalax.data import files, sources
from goalax.envs import GoalEnv
from goalax.flags import COMPARED, FlagError, Flagged, check, names_in
from goalax.host import checkpoint, devices, ogbench, ogbench_rewards, runs, saving
from goalax.host.config import Config, Flags, algorithm_of, flags_from
from goalax.host.lock import only_writer
from goalax.host.phases import Phases
from goalax.host.policy import Policy
from goalax.host.resolve import check_shares, resolve


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Everything that flags stand for, and training as a Python caller wants it.

    A state is everything there is (networks, optimizer, environments, buffer, random key); `advance` takes the one
    that it is given for itself. With --num_seeds N every leaf of it, and every metric, has a leading axis N.
    """

    config: Config
    agent_config: Any
    env: GoalEnv
    eval_env: GoalEnv
    sizes: Sizes
    spec: Spec
    train: Train
    mesh: Mesh | None  # the devices; None for one

    def keys(self, seed: int) -> Any:
        """The random key that a seed stands for, [2]; of several seeds from this one on, [N, 2]. It is NumPy's, which
        jitted functions take on every one of several hosts; their types know JAX's arrays only."""
        keys = [np.asarray(jax.random.PRNGKey(seed + index)) for index in range(self.config.num_seeds)]
        return np.stack(keys) if len(keys) > 1 else keys[0]

    @functools.cached_property
    def compiled(self) -> Train:
        """`train`, compiled at its first use, which takes up to a minute."""
        return compile_train(self.train, self.keys(0), *self.mixed_in) if self.train.ahead else self.train

    @functools.cached_property
    def dataset(self) -> files.Dataset | None:
        """What lies in --dataset, read at its first use; None without one. FlagError for a file that does not fit."""
        if self.config.dataset is None or self.train.offline is None:
            return None
        return self._read("dataset", self.config.dataset, self.train.offline)

    def _read(self, flag: str, name: str, offline: Offline) -> files.Dataset:
        """What lies in a file that a flag names, whose errors name that flag."""
        reward_free = flag == "dataset" and self.reward_free
        labels = ogbench_rewards.labels(self.env)
        try:
            dataset = sources.read(name, self.spec, offline.min_rows, reward_free, labels)
        except FlagError as error:
            raise FlagError(str(error).replace("--dataset:", f"--{flag}:", 1)) from None
        if offline.originals and not dataset.commanded:
            raise FlagError(f"--{flag}: {name} has no goals that episodes were asked for: --original_goals must be 0.")
        return dataset

    @property
    def reward_free(self) -> bool:
        """Whether the agent pre-trains on --dataset without its rewards."""
        return self.train.offline is not None and self.train.offline.switch is not None

    @functools.cached_property
    def finetune_dataset(self) -> files.Dataset | None:
        """What lies in --finetune_dataset; as `dataset`."""
        if self.config.finetune_dataset is None or self.train.offline is None:
            return None
        return self._read("finetune_dataset", self.config.finetune_dataset, self.train.offline)

    @property
    def datasets(self) -> dict[str, files.Dataset | None]:
        """Both, by their flags."""
        return {"dataset": self.dataset, "finetune_dataset": self.finetune_dataset}

    def require_dataset_of(self, directory: Path) -> None:
        """FlagError unless the datasets are the files that the run in a directory has learned from, if it has."""
        content = runs.read_content(directory)
        for name, dataset in self.datasets.items():
            known = content.get(f"{name}_sha256", None if name == "dataset" or dataset is None else dataset.sha256)
            if dataset is not None and known != dataset.sha256:
                raise FlagError(f"--{name}: {dataset.path} is not the file that {directory} has learned from.")

    @functools.cached_property
    def data(self) -> BufferState | None:
        """The dataset on the devices."""
        return None if self.dataset is None else sharding.put(self.dataset.ring, sharding.everywhere(self.mesh))

    @functools.cached_property
    def phases(self) -> Phases:
        """What is learned from datasets, before any interaction."""
        labelled = self.finetune_dataset
        ring = None if labelled is None else sharding.put(labelled.ring, sharding.everywhere(self.mesh))
        config = self.config
        return Phases(
            self.train.offline,
            self.data,
            ring,
            config.offline_steps,
            config.finetune_steps,
            self.sizes.updates_per_unroll,
        )

    @property
    def mixed_in(self) -> tuple[BufferState, ...]:
        """What `train.advance` takes last: with --offline_ratio the dataset before interaction, else nothing."""
        return (self.phases.last,) if self.sizes.offline_rows else ()

    @functools.cached_property
    def held_out(self) -> dict[str, BufferState | None]:
        """The validation sets of both datasets by their flags, on the devices; None without one. FlagError if one does
        not fit."""
        return {flag: self._held_out(flag, getattr(self.config, flag)) for flag in ("dataset", "finetune_dataset")}

    def _held_out(self, flag: str, of: str | None) -> BufferState | None:
        if of is None or self.train.offline is None or (name := sources.validation(of)) is None:
            return None
        ring = self._read(flag, name, self.train.offline).ring
        return sharding.put(ring, sharding.everywhere(self.mesh))

    def validate(self, state: RunState) -> dict[str, Any]:
        """Metrics of updates on held-out samples, `validation/NAME`, none of which is kept; none without a file.

        From fine-tuning on they are those of --finetune_dataset.
        """
        tuning = self.config.finetune_dataset is not None and self.progress(state) > self.config.offline_steps
        data = self.held_out["finetune_dataset" if tuning else "dataset"]
        if data is None or self.train.offline is None:
            return {}
        return jax.device_get(self.train.offline.validate(state, data))

    def start(self, seed: int | None = None) -> RunState:
        """A state before the first update; seed: --seed if it is not given.

        It has collected what is collected before learning, or with --dataset nothing: `learn` goes on with it, and
        `collect` comes before `advance`.
        """
        train = self.compiled
        state = train.init(self.keys(self.config.seed if seed is None else seed))
        if self.data is not None and train.offline is not None:
            return train.offline.fit(state, self.data)
        return train.fit(self.collect(state))

    def collect(self, state: RunState) -> RunState:
        """The state after the steps that are collected before learning online; takes `state` away."""
        self._require_online()
        return self.compiled.advance(state, self.sizes.prefill_unrolls, 0, *self.mixed_in)

    def learn(self, state: RunState, updates: int) -> RunState:
        """The state after so many updates on --dataset; takes `state` away. FlagError without one."""
        if self.data is None or updates < 0:
            raise FlagError(f"`updates` is {updates}; it must be at least 0, of a run with --dataset.")
        return self.phases.learn(forget_metrics(state), self.data, updates)

    def finetune(self, state: RunState, updates: int, switch: bool = True) -> RunState:
        """The state after so many updates on --finetune_dataset; takes `state` away. FlagError without such a file.

        switch: first from pre-training to fine-tuning, which must happen once, after --offline_steps updates.
        """
        labelled = self.phases.labelled
        if labelled is None or updates < 0:
            raise FlagError(f"`updates` is {updates}; it must be at least 0, of a run with --finetune_dataset.")
        if switch and (done := self.progress(state)) != (first := self.config.offline_steps):
            raise FlagError(f"Fine-tuning begins after --offline_steps {first} updates; this state has {done}.")
        state = self.phases.switched(state) if switch else state
        return self.phases.learn(forget_metrics(state), labelled, updates)

    def progress(self, state: RunState) -> int:
        """Environment steps that a state has behind it, and before them updates on a dataset."""
        env_steps = int(state.env_steps)
        return env_steps + self.config.dataset_steps if env_steps else int(state.gradient_steps)

    def advance(self, state: RunState, unrolls: int = 1) -> RunState:
        """The state after so many unrolls of `sizes.steps_per_unroll` steps with their updates; takes `state` away.

        FlagError for less than none, and for more than int32 can number the rows of.
        """
        self._require_online()
        most = 2**28 // self.sizes.unroll_length
        if not isinstance(unrolls, int | np.integer) or not 0 <= unrolls <= most:
            raise FlagError(
                f"`unrolls` is {unrolls}; it must be a whole number of at least 0 and at most {most:,} in one call."
            )
        updates = self.sizes.updates_per_unroll
        return self.compiled.advance(forget_metrics(state), unrolls, updates, *self.mixed_in)

    def evaluate(self, state: RunState) -> dict[str, Any]:
        """Means over fresh episodes under the policy's mode, and of training since `advance` was called last.

        With a validation set beside --dataset also `validate`.
        """
        metrics = jax.device_get(self.compiled.evaluate(state)[0]) | self.validate(state)
        return {name: float(value) if value.ndim == 0 else value for name, value in metrics.items()}

    def policy(self, state: RunState) -> Policy:
        """What has been learned so far, as a function of its own; of one seed."""
        self._require_one_seed("policy")
        return Policy(self.train.mode, jax.tree.map(np.array, jax.device_get(state.agent)), self.spec)

    def save(self, state: RunState, directory: str | Path) -> Path:
        """Writes config.json and a checkpoint, which `restore`, `goalax.load` and the command line read; one of as many
        steps that is there already is kept as STEP.earlier.

        Raises:
          FlagError: another run is in the directory, something trains there, or there is more than one seed.
          SaveError: it could not be written.
        """
        self._require_one_seed("save")
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        with only_writer([folder]):
            if (folder / "config.json").exists():
                flags, agent_flags = runs.read_config(folder)
                ours = {name: getattr(self.config, name) for name in ("seed", *names_in(self.config, COMPARED))}
                others = any(flags.get(name, ours[name]) != ours[name] for name in ours)
                if others or agent_flags != vars(self.agent_config):
                    raise FlagError(f"There is another run in {folder}: save into a directory of its own.")
            runs.write_config(folder, self.config, self.agent_config, self.config.seed, **self.datasets)
            saving.save(folder / "checkpoints", state, self.progress(state))
        return folder

    def restore(self, directory: str | Path) -> RunState:
        """The newest state in a directory that can be read; NoCheckpointError if there is none of this run."""
        self._require_one_seed("restore")
        self.require_dataset_of(Path(directory))
        template = jax.eval_shape(self.train.init, self.keys(0))
        state = checkpoint.restore(Path(directory) / "checkpoints", template)
        return sharding.put(state, sharding.placement(self.mesh, 1))

    def _require_online(self) -> None:
        if self.config.num_timesteps == 0:
            raise FlagError("--num_timesteps is 0; a run that never collects has no buffer to advance with.")

    def _require_one_seed(self, what: str) -> None:
        if self.config.num_seeds > 1:
            raise FlagError(f"--num_seeds is {self.config.num_seeds}; `{what}` takes the state of a run with one seed.")


def make_run(flags: Flags, agent_config: Flagged) -> Run:
    """Environments, agent and training functions of flags; compiles nothing. FlagError as in `resolve`."""
    devices.check()
    config, env, eval_env = resolve(flags)
    agent_config = check(agent_config)
    algorithm, sizes = algorithm_of(config), sizes_of(config)
    if config.num_timesteps == 0:  # a buffer that nothing is written to
        sizes = sizes._replace(min_replay_size=0, max_replay_size=sizes.unroll_length)
    spec = Spec.of(env, config.discounting, config.action_repeat, config.episode_length)
    mesh, normalize, num_seeds = None, config.normalize_observations, config.num_seeds
    if algorithm.make is not None:
        agent = algorithm.make(agent_config, spec)
        if not isinstance(agent, Agent):
            raise FlagError(
                f"`make` of --agent {config.agent} returns {contract.shown(agent)}; it must return an Agent."
            )
        check_shares(agent_config, agent.needs.original, config.batch_size)
        mesh = sharding.make_mesh(num_seeds, devices.chosen(config.num_devices))
        command = COMMAND[config.commanded_goals]
        if isinstance(eval_env, ogbench.OGBenchEnv):
            ogbench.check_agent(config, algorithm, agent)
            train = make_train(eval_env.still, eval_env.still, agent, spec, sizes, normalize, num_seeds, mesh)
            train = ogbench.on_host(train, eval_env, config.num_eval_envs, num_seeds)
        else:
            train = make_train(env, eval_env, agent, spec, sizes, normalize, num_seeds, mesh, command)
    else:
        assert algorithm.train is not None  # an Algorithm has one of the two
        sizes, train = algorithm.train(env, eval_env, spec, sizes, agent_config, normalize, num_seeds)
    if config.num_timesteps == 0:  # what is never called takes no time to compile
        train = train._replace(advance=jax.jit(lambda state, unrolls, updates: state, donate_argnums=0))
    return Run(config, agent_config, env, eval_env, sizes, spec, train, mesh)


def make(env_name: str = "reacher", **flags: Any) -> Run:
    """A run from Python, with the flags of the command line by their names: `make("ant_u_maze", num_envs=64)`.
    FlagError for a wrong name, type, value or combination, in the sentence that the command line would say."""
    return make_run(*flags_from({"env_name": env_name, **flags}))
