"""The embedded world: a small synthetic world whose true reward is known, and simulated labellers who judge by it.

The world gives every stage its data (text, demonstrations, prompts, preferences) and every claim a measure: the gold
reward defines helpful, honest and harmless as a program.
"""

from rlhf_jax.world.contrasts import contrasts
from rlhf_jax.world.corpus import corpus
from rlhf_jax.world.critiques import criticise, critique, mended, refinements
from rlhf_jax.world.demonstrations import HABITS, demonstrate
from rlhf_jax.world.facts import DIFFICULTIES, World, make_world
from rlhf_jax.world.files import write_world
from rlhf_jax.world.gold import GoldScore, gold_parts, gold_reward, gold_score, helpfulness
from rlhf_jax.world.labellers import (
  KINDS,
  Labeller,
  Look,
  Traits,
  accepts,
  agreement,
  ceiling,
  choice_probability,
  make_labellers,
  perceive,
  rank,
  ratings,
  strength,
  traits_of,
  utilities,
)
from rlhf_jax.world.phrasings import CLUSTERS
from rlhf_jax.world.questions import question
from rlhf_jax.world.raters import simulated_rating
from rlhf_jax.world.seconds import answering_seconds, prompt_seconds
from rlhf_jax.world.splits import cell
from rlhf_jax.world.tasks import HELD_OUT, Task, parse_prompt, sample_tasks, training_clusters

__all__ = [
  "CLUSTERS",
  "DIFFICULTIES",
  "HABITS",
  "HELD_OUT",
  "KINDS",
  "GoldScore",
  "Labeller",
  "Look",
  "Task",
  "Traits",
  "World",
  "accepts",
  "agreement",
  "answering_seconds",
  "ceiling",
  "cell",
  "choice_probability",
  "contrasts",
  "corpus",
  "criticise",
  "critique",
  "demonstrate",
  "gold_parts",
  "gold_reward",
  "helpfulness",
  "simulated_rating",
  "gold_score",
  "make_world",
  "mended",
  "parse_prompt",
  "perceive",
  "prompt_seconds",
  "make_labellers",
  "question",
  "rank",
  "ratings",
  "refinements",
  "sample_tasks",
  "strength",
  "training_clusters",
  "traits_of",
  "utilities",
  "write_world",
]
