"""The reward of a response: a weighted sum of a reward-model checkpoint and of any Python functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.ranges import NEUTRAL, NonNegativeFloat
from rlhf_jax.settings import FunctionName
from rlhf_jax.stage import FrozenDtype, Stage, StageOfAnyShape, Transport
from rlhf_jax.train.functions import Function
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.processes import host
from rlhf_jax.train.reward_functions import RESERVED, Responses, Scored, check_function, make_reward_function
from rlhf_jax.train.rows import by_rows
from rlhf_jax.train.workspace import frozen, load_reward_model
from rlhf_jax.types import Array, Params, Rollout

WIDTH = 16  # tokens; texts are padded to a multiple of it, which bounds the number of compiled programs

Scorer = Callable[[Rollout, Sequence[data.Prompt], Sequence[str]], Array]


@dataclasses.dataclass(frozen=True)
class FunctionPart(Function):
  """A function of the reward beside others, with its weight."""

  time_limit: NonNegativeFloat = 0.0
  """Longest time of one call in seconds, as of `function`; of a part it belongs to what the stage is made from."""
  weight: float = 1.0
  """Factor on the function's score."""


@dataclasses.dataclass(frozen=True)
class Reward:
  """score = checkpoint_weight * reward model + function_weight * function + the sum of weight * part over `parts`."""

  checkpoint: StageOfAnyShape
  """Reward-model stage; "" for none."""
  checkpoint_weight: float
  """Factor on the reward model's score."""
  function: FunctionName
  """Name of a function of the texts, as "package.module:name" or "path/to/file.py:name"; "" for none."""
  function_weight: float
  """Factor on the function's score."""
  arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
  """Keyword arguments of the function; `{run}` in a text, nested ones included, stands for the run directory."""
  time_limit: Annotated[NonNegativeFloat, NEUTRAL] = 0.0
  """Longest time of one call of the function in seconds, at which the call is killed and the stage fails; the function
  then runs in a process of its own. 0 for no limit."""
  parts: dict[str, FunctionPart] = dataclasses.field(default_factory=dict)
  """Further functions by names of your choice, each logged as reward/NAME, such as those of
  `rlhf_jax.train.shaping`."""

  def __post_init__(self) -> None:
    if not self.checkpoint and not self.function and not self.parts:
      raise ValueError("reward needs a checkpoint, a function, or parts")
    for name in self.parts:
      if not name or "/" in name or name in RESERVED:
        raise ValueError(f"parts has the name {name!r}: a name has no '/' and is none of {', '.join(RESERVED)}")
      if not self.parts[name].function:
        raise ValueError(f"parts.{name}.function is empty")

  def functions(self) -> dict[str, FunctionPart]:
    """{name: function with its weight} of all functions, `function` itself by the name "function"."""
    own = FunctionPart(self.function, self.arguments, self.time_limit, self.function_weight)
    return {**({"function": own} if self.function else {}), **self.parts}


class Part(NamedTuple):
  """One of the sources of a score."""

  weight: float
  """Factor on its scores."""
  scorer: Callable[[Responses], Scored]
  """Function that gives its scores, without the factor."""


def make_parts(
  settings: Reward,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  where: str = "environment.reward",
  dtype: FrozenDtype = "",
) -> dict[str, Part]:
  """The parts of a reward that there are: "model", "function", and `parts` by their names.

  dtype: that of the reward model's matrices, as in `frozen`.

  Raises as `make_scorer`, which sums them.
  """
  parts = {}
  if settings.checkpoint:
    judge, params = load_reward_model(stage, settings.checkpoint, model, tokenizer, f"{where}.checkpoint")
    by_model = model_scorer(judge, params, stage.transport, dtype)
    parts["model"] = Part(settings.checkpoint_weight, lambda r: Scored(by_model(r.rollout, r.prompts, r.texts)))
  for name, function in settings.functions().items():
    parts[name] = Part(function.weight, make_reward_function(function, stage))
  return parts


def make_judge(
  function: Function, checkpoint: str, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer, where: str
) -> Callable[[Responses], Scored] | None:
  """The function, or else the reward model of the stage `checkpoint`, that judges responses; None for neither.

  where: the place of `checkpoint` in the stage's config, for messages.

  Raises:
    ConfigError: the checkpoint is no reward model.
    RewardError (when called): as `make_scorer`.
  """
  if function.function:
    return make_reward_function(function, stage)
  if not checkpoint:
    return None
  by_model = model_scorer(*load_reward_model(stage, checkpoint, model, tokenizer, where), stage.transport)
  return lambda r: Scored(by_model(r.rollout, r.prompts, r.texts))


def weigh(parts: Mapping[str, Part], scores: Mapping[str, Array]) -> np.ndarray:
  """The sum of the scores f32[N] of all parts, each with its weight: f32[N]."""
  return np.sum([np.float32(part.weight) * host(scores[name]) for name, part in parts.items()], axis=0)


def check_functions(settings: Reward) -> None:
  """Raises ValueError where a function cannot be called with what it would get. Imports their modules."""
  for function in settings.functions().values():
    check_function(function)


def make_scorer(
  settings: Reward,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  where: str = "environment.reward",
) -> Callable[..., np.ndarray]:
  """`score(rollout, prompts, responses, rows=()) -> f32[N]`.

  where: the settings' place in the stage's config, for messages. rows: those of the prompts, for functions that ask.

  Raises:
    ConfigError: the checkpoint is no reward model.
    RewardError (when called): the function failed, or returned the wrong number of scores or one that is not finite.
  """
  parts = make_parts(settings, stage, model, tokenizer, where)

  def score(
    rollout: Rollout,
    prompts: Sequence[data.Prompt],
    responses: Sequence[str],
    rows: Sequence[Mapping[str, Any]] = (),
  ) -> np.ndarray:
    asked = Responses(rollout, prompts, responses, rows)
    return weigh(parts, {name: part.scorer(asked).total for name, part in parts.items()})

  return score


def model_scorer(model: LanguageModel, params: Params, transport: Transport, dtype: FrozenDtype = "") -> Scorer:
  """Scores of whole sequences by a reward model, read at the last token of the response: f32[N], on the devices.

  dtype: that of its matrices, as in `frozen`.
  """
  compiled, params = make_score(model, transport), frozen(model, params, dtype, scores_only=True)
  return lambda rollout, prompts, responses: compiled(params, rollout.tokens, rollout.mask, rollout.at)


def make_score(model: LanguageModel, transport: Transport) -> Any:
  """The jitted `score(params, tokens[N, T], mask[N, T], at=None) -> f32[N]` of a reward model (see `by_rows`)."""
  return jax.jit(by_rows(model.score, transport))


def text_scorer(
  model: LanguageModel, tokenizer: data.Tokenizer, params: Params, batch_size: int, transport: Transport
) -> Callable[[Sequence[data.Prompt], Sequence[data.Response]], np.ndarray]:
  """`score(prompts, responses) -> f32[N]` of given texts by a reward model, read at the <eos> of a finished response.

  A text that occurs twice, in one call or in several, is scored once.

  Raises (when called):
    DataError: prompt and response together are longer than the model.
  """
  compiled, params = jax.jit(by_rows(model.score, transport)), frozen(model, params, scores_only=True)
  known: dict[data.Demonstration, float] = {}

  def score(prompts: Sequence[data.Prompt], responses: Sequence[data.Response]) -> np.ndarray:
    asked = [data.Demonstration(*texts) for texts in zip(prompts, responses, strict=True)]
    new = [texts for texts in dict.fromkeys(asked) if texts not in known]
    known.update(zip(new, score_new(new).tolist(), strict=True))
    return np.array([known[texts] for texts in asked], np.float32)

  def score_new(texts: Sequence[data.Demonstration]) -> np.ndarray:
    return read_texts(lambda *rows: compiled(params, *rows), tokenizer, texts, model.config.max_length, batch_size)

  return score


def read_texts(
  read: Callable[[np.ndarray, np.ndarray], Array],
  tokenizer: data.Tokenizer,
  texts: Sequence[data.Demonstration],
  length: int,
  batch_size: int,
) -> np.ndarray:
  """`read(tokens[B, T], mask[B, T]) -> f32[B, ...]` of N texts, in batches of texts of similar length: f32[N, ...].

  T is a multiple of `WIDTH` or `length`, so that few programs are compiled. The mask is on for the response and its
  end.

  Raises:
    DataError: prompt and response together have more than `length` tokens.
  """
  rows, skips = data.demonstration_rows(tokenizer, texts, length)
  if skips:
    raise data.DataError(f"{skips.total()} of {len(texts)} texts cannot be scored: {', '.join(skips)}")
  sizes = np.max(np.where(rows["mask"], np.arange(length) + 1, 0), axis=1)  # [N]
  order = np.argsort(-sizes, kind="stable")  # rows of similar length share a batch
  found = np.zeros(0, np.float32)
  for batch in fixed_batches(len(order), batch_size):
    chosen = order[batch.rows]
    width = min(-(-int(sizes[chosen].max()) // WIDTH) * WIDTH, length)
    part = host(read(rows["tokens"][chosen, :width], rows["mask"][chosen, :width]))
    if not batch.start:
      found = np.zeros((len(order), *part.shape[1:]), np.float32)
    found[chosen[: batch.kept]] = part[: batch.kept]
  return found
