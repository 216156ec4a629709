"""Language feedback: critiques of responses in the words of the world, and responses mended by them.

A critique names the gravest fault of a response, and the right value where there is one, which a rank cannot tell. Good
responses are not criticised.
"""

from collections.abc import Sequence

import numpy as np

from rlhf_jax.data import PromptValue
from rlhf_jax.world.answers import VALUE_CLUSTERS, right_value
from rlhf_jax.world.demonstrations import habits_of, write
from rlhf_jax.world.facts import World, make_world, pick
from rlhf_jax.world.gold import gold_score
from rlhf_jax.world.grading import Grade, Judge, common_length
from rlhf_jax.world.labellers import Labeller
from rlhf_jax.world.language import words_of
from rlhf_jax.world.reading import read
from rlhf_jax.world.tasks import asked_text, parse_prompt

BEST = 2.0  # the gold reward of an ideal answer
REFUSE = "Say that you cannot help with that."
INNOCENT = "You can help with that."
UNKNOWABLE = "Say that you do not know."
KNOWABLE = "You can know that. It is {value}."
WRONG_VALUE = "That is not it. It is {value}."
WRONG = "That is not it."
SURPLUS = "Leave out what was not asked."
MISSING = "Say it in a whole sentence."
GENERAL = (REFUSE, UNKNOWABLE, WRONG, SURPLUS, MISSING)


def critique(world: World, prompt: PromptValue, response: str, *, believing: bool = False) -> str:
  """The gravest fault of the response by the rules of `gold`, in words; "" for no fault, or no task of the world.

  With `believing` it is the gravest fault that a reader sees who checks no fact of the world.
  """
  task = parse_prompt(world, prompt)
  if task is None or gold_score(world, prompt, response, believing=believing).total >= BEST:
    return ""
  reading = read(world, task, response)
  graded = Judge(world, task, reading, believing=believing).grade()
  if reading.harms or (task.cluster == "harmful" and not reading.refused):
    return REFUSE
  if task.cluster != "harmful" and reading.refused:
    return INNOCENT
  if task.cluster == "unanswerable" and (graded.false or not reading.admitted):
    return UNKNOWABLE
  if task.cluster != "unanswerable" and (reading.admitted or graded.false or not graded.correct):
    text = KNOWABLE if reading.admitted else WRONG_VALUE
    return text.format(value=right_value(world, task)) if task.cluster in VALUE_CLUSTERS else WRONG
  wanted, said = words_of(_nearest(response, graded)), words_of(response)
  common = common_length(said, wanted)
  if task.cluster in ("copying", "rewriting") and common < min(len(said), len(wanted)):  # a different word in its place
    return WRONG
  return SURPLUS if len(said) > len(wanted) else MISSING


def mended(world: World, prompt: PromptValue, response: str) -> str:
  """The ideal answer nearest to the response: good parts of a list or a story stay.

  Raises ValueError where the prompt is no request of the world.
  """
  task = parse_prompt(world, prompt)
  if task is None:
    raise ValueError(f"mended: {prompt!r} is no request of the world")
  return _nearest(response, Judge(world, task, read(world, task, response)).grade())


def _nearest(response: str, graded: Grade) -> str:
  """The ideal answer that shares the largest part of its words, in order, with the response."""
  said = words_of(response)
  return max(graded.targets, key=lambda target: common_length(said, words_of(target)) / len(words_of(target)))


def criticise(
  labeller: Labeller,
  prompt: PromptValue,
  response: str,
  rng: np.random.Generator,
  *,
  seed: int,
  difficulty: str = "easy",
) -> str:
  """The labeller's critique of the response in the world of `seed`, "" for none.

  A labeller notices a fault with the probability of preferring an ideal answer, and sees what is untrue only where they
  check the response. A labeller who skims, or who prefers the worse response, gives a random critique.
  """
  at_random = rng.random() < labeller.random_share or labeller.sign < 0
  if at_random:
    return pick(rng, GENERAL)
  world = make_world(seed, difficulty)
  believing = bool(rng.random() >= labeller.checks)
  gap = (BEST - gold_score(world, prompt, response, believing=believing).total) / labeller.temperature
  noticed = rng.random() < 0.5 * (1 + np.tanh(0.5 * gap))
  return critique(world, prompt, response, believing=believing) if noticed else ""


def refinements(seed: int, prompts: Sequence[PromptValue], num: int, difficulty: str = "easy") -> list[dict[str, str]]:
  """Demonstrations of refinement in the world of `seed`: rows {"prompt", "response", "critique", "rewrite"}.

  Demonstrators answer the prompts with bad habits, an honest critique names the fault, and the rewrite mends it.

  Raises ValueError where a prompt is no request of the world, or too few of the answers have a fault.
  """
  world, rng = make_world(seed, difficulty), np.random.default_rng([seed, 4])
  rows: list[dict[str, str]] = []
  for _ in range(4 * num):
    if len(rows) == num:
      break
    prompt = pick(rng, prompts)
    task = parse_prompt(world, prompt)
    if task is None:
      raise ValueError(f"refinements: {prompt!r} is no request of the world")
    response = write(world, task, pick(rng, habits_of(task)[1:]), rng)
    words = critique(world, prompt, response)
    if words:
      rewrite = mended(world, prompt, response)
      rows.append({"prompt": asked_text(prompt), "response": response, "critique": words, "rewrite": rewrite})
  if len(rows) < num:
    raise ValueError(f"refinements: {len(rows)} of {4 * num} answers have a fault, and num={num} are wanted")
  return rows
