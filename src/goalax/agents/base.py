"""What agents share: the registry, what an algorithm is, and the flags that several have."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol, cast

import jax
import jax.numpy as jnp

from goalax.core.contract import require_flags
from goalax.core.relabel import RELABEL, law_of
from goalax.core.sizes import Sizes
from goalax.core.train import Train
from goalax.core.types import Agent, Array, Env, Needs, Spec
from goalax.flags import FlagError, Scope, flag
from goalax.learning.losses import CONTRASTIVE_LOSSES
from goalax.learning.networks import BLOCK, MLP, DeepMLP, Network
from goalax.learning.quasimetrics import QUASIMETRICS, Quasimetric
from goalax.registry import Registry


class Make(Protocol):
    """(config of the agent, spec) -> agent, for the common loop."""

    def __call__(self, config: Any, spec: Spec, /) -> Agent: ...


class TrainAlone(Protocol):
    """What trains by a loop of its own: sizes and functions of a run, from what `make_train` would be given."""

    def __call__(
        self, env: Env, eval_env: Env, spec: Spec, sizes: Sizes, config: Any, normalize: bool, num_seeds: int, /
    ) -> tuple[Sizes, Train]: ...


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """An entry of the registry: its flags, and either an agent for the common loop or a loop of its own."""

    config: type  # frozen dataclass of `flag`s
    make: Make | None = None
    train: TrainAlone | None = None
    unused: tuple[Scope, ...] = ()  # run flags about these mean nothing to it
    goals: bool = True  # whether it learns from goals, and so in no environment without

    def __post_init__(self) -> None:
        if (self.make is None) == (self.train is None):
            raise ValueError("An algorithm has either `make`, for the common loop, or `train`, a loop of its own.")
        require_flags(self.config)


AGENTS: Registry[Algorithm] = Registry("agent", Algorithm)


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """What configs of agents can ask of their flags."""

    def require_unset(self, names: Iterable[str], why: str) -> None:
        """FlagError if a flag that means nothing has another value than its default."""
        for name in names:
            if getattr(self, name) not in self._defaults(name):
                self.refuse(name, why)

    def refuse(self, name: str, why: str) -> NoReturn:
        """FlagError: a flag means nothing beside another one."""
        raise FlagError(f"--{name} is {getattr(self, name)}; it means nothing {why}: leave one of them out.")

    def _defaults(self, name: str) -> list[Any]:
        """The default of a flag, here and in the agents that this one is made from (not in what they share)."""
        agents = {type(self), *(algorithm.config for algorithm in AGENTS.values())}
        fields = (getattr(cls, "__dataclass_fields__", {}) for cls in type(self).__mro__ if cls in agents)
        return [known[name].default for known in fields if name in known]


@dataclasses.dataclass(frozen=True)
class NetworkConfig(AgentConfig):
    h_dim: int = flag(256, "width of hidden layers", low=1, most=1_000_000)
    n_hidden: int = flag(2, "hidden layers", low=1, most=10_000)
    use_ln: bool = flag(True, "LayerNorm before every activation")
    use_relu: bool = flag(False, "ReLU in place of swish")
    skip_connections: int = flag(
        4, "a residual connection every so many hidden layers; 0, or as many as there are: none", low=0
    )

    # The depth of arXiv 2503.14858, which counts the layers in residual blocks only.
    depth: int = flag(
        0, "layers in residual blocks of 4 behind the first layer, instead of n_hidden; 0: off", low=0, high=1024
    )

    def mlp(self, outputs: int, **others: Any) -> Network[Array]:
        """A network of these flags, [..., F] -> [..., outputs]; others: flags with other values.

        Raises:
          FlagError: depth is no whole number of blocks, or n_hidden or skip_connections say something else.
        """
        flags = {field.name: getattr(self, field.name) for field in dataclasses.fields(NetworkConfig)} | others
        depth, n_hidden, skip_connections = (flags.pop(name) for name in ("depth", "n_hidden", "skip_connections"))
        if not depth:
            layers = {"n_hidden": n_hidden, "skip_connections": skip_connections}
            return cast(Network[Array], MLP(outputs, **flags, **layers))
        if left := depth % BLOCK:
            near = {max(BLOCK, depth - left), depth - left + BLOCK}
            example = " or ".join(map(str, sorted(near)))
            raise FlagError(f"--depth is {depth}; it must be a multiple of {BLOCK}, for example {example}.")
        if n_hidden not in self._defaults("n_hidden"):
            raise FlagError(
                f"--n_hidden is {n_hidden}; --depth {depth} says how many layers there are: leave one of them out."
            )
        if skip_connections not in self._defaults("skip_connections"):
            raise FlagError(
                f"--skip_connections is {skip_connections}; --depth {depth} says where they are: leave one of them out."
            )
        return cast(Network[Array], DeepMLP(outputs, depth, **flags))


@dataclasses.dataclass(frozen=True)
class PolicyConfig(NetworkConfig):
    policy_lr: float = flag(3e-4, "learning rate of the actor", above=0)


@dataclasses.dataclass(frozen=True)
class NoisyConfig(PolicyConfig):
    exploration_noise: float = flag(0.4, "standard deviation of the noise on actions taken", low=0)


@dataclasses.dataclass(frozen=True)
class EntropyConfig(PolicyConfig):
    # The published rate. The temperature starts at 1 while logits differ by less than that, and as long as it has not
    # come down the entropy term drowns them: with one update for 64 steps ten times the rate is better, with one for 16
    # no more (docs/results.md, "Updates per step").
    alpha_lr: float = flag(3e-4, "learning rate of the entropy temperature", above=0)
    alpha_init: float = flag(1.0, "entropy temperature at the start", above=0)
    disable_entropy_actor: bool = flag(False, "drop the entropy term of the actor loss")
    target_entropy_scale: float = flag(0.5, "target entropy = minus this, times the action size", low=0)

    def require_entropy(self) -> None:
        """FlagError if flags of an entropy are set that is dropped."""
        if self.disable_entropy_actor:
            names = ["alpha_lr", "alpha_init", "target_entropy_scale"]
            self.require_unset(names, "with --disable_entropy_actor")


def shares_of_goals(config: Any) -> tuple[float, float, float]:
    """`Needs.goals` of the flags current_goals and any_goals. FlagError if they are more than all, but for rounding
    (1 - 0.8 - 0.2 < 0), and if --relabel is set where they are all."""
    now, anywhere = config.current_goals, config.any_goals
    later = 1 - now - anywhere
    if later < -1e-6:
        raise FlagError(f"--current_goals is {now:g} and --any_goals {anywhere:g}; together they must be at most 1.")
    if later < 1e-6:
        config.require_unset(["relabel"], f"with --current_goals {now:g} and --any_goals {anywhere:g}, which are all")
    return max(later, 0.0), now, anywhere


@dataclasses.dataclass(frozen=True)
class ActorConfig(EntropyConfig):
    random_goals: float = flag(0.0, "share of actor goals taken from another sample of the batch", low=0, high=1)
    critic_lr: float = flag(3e-4, "learning rate of the critic", above=0)
    policy_delay: int = flag(
        1,
        "updates of the critic per update of the actor and its temperature (whose metrics are 0 before the first)",
        low=1,
        high=1000,
    )
    repr_dim: int = flag(64, "size of the representations", low=1, most=1_000_000)
    action_chunk: int = flag(
        1, "actions chosen at once, and taken one after the other (arXiv 2608.30640: AC-CRL, 3)", low=1, high=64
    )
    relabel: str = flag("geometric", "law of the steps ahead at which relabelled goals lie", valid=RELABEL)
    current_goals: float = flag(0.0, "share of relabelled goals that are the state itself", low=0, high=1)
    any_goals: float = flag(0.0, "share of relabelled goals that are any stored state", low=0, high=1)
    actor_relabel: str = flag(
        "critic", "law of the steps ahead of the actor's goals; critic: its goals are those", valid=("critic", *RELABEL)
    )
    actor_any_goals: float = flag(
        0.0, "with --actor_relabel, share of the actor's goals that are any stored state", low=0, high=1
    )
    bc_weight: float = flag(
        0.0, "weight of imitating stored actions, by an actor without tanh and entropy (DDPG+BC); 0: not at all", low=0
    )
    bc_noise: float = flag(0.4, "of an actor that imitates, standard deviation of the noise on actions taken", low=0)

    def decision(self, spec: Spec) -> Spec:
        """The spec of what the actor chooses at once: a chunk is one long action, and discounts as many steps."""
        if self.action_chunk == 1:
            return spec
        size, discounting = self.action_chunk * spec.action_size, spec.discounting**self.action_chunk
        return spec._replace(action_size=size, discounting=discounting)

    def needs(self, spec: Spec) -> Needs:
        """What these flags ask of the buffer. FlagError if the shares of goals are more than all."""
        law = None if self.relabel == "geometric" else law_of(self.relabel, spec.discounting)
        needs = Needs(shares_of_goals(self), law, horizon=self.action_chunk)
        if self.actor_relabel == "critic":
            self.require_unset(["actor_any_goals"], "with --actor_relabel critic")
            return needs
        actor_law = law_of(self.actor_relabel, spec.discounting)
        return needs._replace(actor_goals=(1 - self.actor_any_goals, 0.0, self.actor_any_goals), actor_law=actor_law)

    @property
    def imitation(self) -> str:
        """The flag by which the actor imitates stored actions, in words; empty where it does not."""
        return f"--bc_weight {self.bc_weight:g}" if self.bc_weight else ""

    def require_no_entropy(self) -> None:
        """FlagError if flags of an actor with entropy are set beside one that imitates, which has none."""
        if self.imitation:
            self.require_unset(EntropyConfig.__annotations__, f"with {self.imitation}, whose actor has no entropy")
        else:
            self.require_unset(["bc_noise"], "for an actor that does not imitate")


@dataclasses.dataclass(frozen=True)
class ContrastiveFlags:
    """What shapes a contrastive loss, whatever the actor."""

    contrastive_loss_fn: str = flag("infonce", "loss of the critic on the matrix of logits", valid=CONTRASTIVE_LOSSES)
    logsumexp_penalty: float = flag(
        0.1, "weight of the mean squared logsumexp of the logits", low=0, aliases=["logsumexp_penalty_coeff"]
    )
    l2_penalty: float = flag(0.0, "weight of the mean squared representations", low=0)
    resubs: bool = flag(True, "keep the positive among the negatives")

    @property
    def penalties(self) -> dict[str, Any]:
        """The keyword arguments of `contrastive_loss`; FlagError where one means nothing to the loss."""
        takes_resubs = "resubs" in inspect.signature(CONTRASTIVE_LOSSES[self.contrastive_loss_fn]).parameters
        if not self.resubs and not takes_resubs and self.logsumexp_penalty == 0:
            raise FlagError(
                f"--resubs is False; without --logsumexp_penalty --contrastive_loss_fn {self.contrastive_loss_fn} has"
                " no logsumexp to leave positives out of: leave it out."
            )
        return {name: getattr(self, name) for name in ("logsumexp_penalty", "l2_penalty", "resubs")}


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig(ContrastiveFlags, ActorConfig):
    pass


STRATEGIES = {"uniform": RELABEL["uniform"](1.0), "goal_law": None}  # -> Needs.law


@dataclasses.dataclass(frozen=True)
class HindsightConfig(AgentConfig):
    # Uniform over the rest of the episode: "future" of arXiv 1707.01495, section 4.5, and arXiv 1912.06088, section 4.
    her_strategy: str = flag(
        "uniform", "law of the time at which hindsight goals are achieved", valid=tuple(STRATEGIES)
    )

    @property
    def needs(self) -> Needs:
        """That of the Agent."""
        return Needs(law=STRATEGIES[self.her_strategy])


def critic_goal_flag(default: str, *aliases: str) -> str:
    """The flag of `CriticGoalConfig`; the actor sees goal coordinates in any case."""
    help = "what the critic takes for a goal: full states or goal coordinates"
    return flag(default, help, valid=("state", "goal"), aliases=aliases)


@dataclasses.dataclass(frozen=True)
class CriticGoalConfig:
    critic_goal: str = critic_goal_flag("state")

    def goal_size(self, spec: Spec) -> int:
        return spec.goal_size if self.critic_goal == "goal" else spec.state_size

    def goal_input(self, spec: Spec, state: Array) -> Array:
        """What the critic sees of a goal that a state [..., S] achieves, [..., `goal_size`]."""
        return spec.goal_of(state) if self.critic_goal == "goal" else state


@dataclasses.dataclass(frozen=True)
class QuasimetricConfig(CriticGoalConfig):
    distance: str = flag("mrn_max", "quasimetric between representations", valid=QUASIMETRICS)
    components: int = flag(
        8, "components of the quasimetric (iqe: up to 16); repr_dim is a multiple, for mrn of their double", low=1
    )
    distance_scale: float = flag(1.0, "factor of the quasimetric, which by itself is a mean over components", above=0)

    def init_metric(self) -> tuple[Array, ...]:
        """Parameters of the quasimetric."""
        return QUASIMETRICS[self.distance].init_params()

    def metric(self, params: tuple[Array, ...]) -> Quasimetric:
        """The quasimetric with these parameters, `between` and `pairwise` of (x, y)."""
        return QUASIMETRICS[self.distance].bind(params, self.components, self.distance_scale)


def require_repr_dim(repr_dim: int, similarity: Callable[[Array, Array], Array]) -> None:
    """FlagError unless a similarity or distance takes representations [B, repr_dim]."""
    x = jax.ShapeDtypeStruct((2, repr_dim), jnp.float32)
    try:
        jax.eval_shape(similarity, x, x)
    except ValueError as error:
        raise FlagError(f"--repr_dim is {repr_dim}: {error}") from None
