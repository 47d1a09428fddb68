"""GCBC: goal-conditioned behaviour cloning; online, where it learns from what it does itself, it is GCSL (arXiv
1912.06088): the action of a transition is the right one for any goal that its episode achieved later.
Offline as in OGBench: --h_dim 512 --n_hidden 3; what still differs, a tanh among it: docs/offline.md."""

import dataclasses

from goalax.agents.base import AGENTS, Algorithm, HindsightConfig, NoisyConfig
from goalax.agents.bc import imitation
from goalax.core.types import Agent, Spec


@dataclasses.dataclass(frozen=True)
class GCBCConfig(HindsightConfig, NoisyConfig):
    pass


def make(config: GCBCConfig, spec: Spec) -> Agent:
    return imitation(config, spec, lambda batch: spec.goal_of(batch.future_state))._replace(needs=config.needs)


AGENTS.add("gcbc", Algorithm(GCBCConfig, make))
