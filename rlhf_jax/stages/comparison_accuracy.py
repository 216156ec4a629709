"""Stage: accuracy of reward models on files of comparisons, with subsets, ties and intervals, beside two baselines.

Any rows of comparisons are read: pairs, rankings with ties, dialogues, and those of RewardBench, LLMBar and RM-Bench.
`rlhf_jax.evaluation.comparison_accuracy` says what is measured. The baselines stand beside the models as "longer", by
which the response of more characters wins, and as "bag of words", which is fitted on the comparisons `train`. No
comparison of a prompt that is scored is among those that it is fitted on.

Writes `results.json`, which also counts what was left out, by reason.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.row_formats import COMPARISONS
from rlhf_jax.evaluation.comparison_accuracy import ITEMS, Item, fitting, measure
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.evaluation.word_baselines import fit_word_baseline, length_scores
from rlhf_jax.models import LanguageModel
from rlhf_jax.ranges import PositiveInt, Share
from rlhf_jax.stage import Stage, StageOfAnyShape
from rlhf_jax.train import load_reward_model, open_workspace, report_skips, score_scale, text_scorer
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.row_sources import ComparisonRows, path_of, read_counted, read_given
from rlhf_jax.train.timeline import counted_as

PART_BATCHES = 16  # batches of responses that are scored between two looks at signals
Answered = tuple[data.Prompt, data.Response]
Scores = Callable[[Sequence[data.Prompt], Sequence[data.Response]], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  models: tuple[StageOfAnyShape, ...]
  """Stages whose reward models are scored."""
  comparisons: dict[str, ComparisonRows]
  """Comparisons by name: {name: file or source of rows, whose column "subset" or "domain" names their subset}."""
  train: ComparisonRows = ""
  """Comparisons that the bag of words is fitted on; "" for no bag of words."""
  eval_fraction: Share = 0.0
  """Share of the prompts that is scored, the same that a reward model of the run's seed holds out of the same file with
  its `eval_fraction`; 0 for all prompts."""
  batch_size: PositiveInt
  """Number of responses scored at once."""

  def __post_init__(self) -> None:
    if not self.models or not self.comparisons:
      raise ValueError("the accuracy on comparisons needs models and comparisons")


@counted_as("evaluation")
def run(config: Config, stage: Stage) -> None:
  """Scores every response once with every model, and writes the file."""
  tokenizer, model = open_workspace(stage)
  length, fraction = model.config.max_length, config.eval_fraction
  read = {name: _read(given, fraction, stage, tokenizer, length) for name, given in config.comparisons.items()}
  texts = [*dict.fromkeys(text for items, _ in read.values() for item in items for text in _texts(item))]
  baselines = {"longer": _by_text(length_scores, texts)}
  if config.train:
    baselines["bag of words"] = _by_text(_fit_words(config.train, stage, {prompt for prompt, _ in texts}), texts)
  judges = {name: _reward_model(name, config, stage, tokenizer, model) for name in config.models}
  step = PART_BATCHES * config.batch_size

  def score(name: str, start: int) -> list[float]:
    return [*_by_text(judges[name], texts[start : start + step]).values()]

  scored: dict[str, dict[Answered, float]] = {}
  with open_parts(stage, len(texts) * len(judges)) as parts:
    for number, name in enumerate(judges):
      found: list[float] = []
      for start in range(0, len(texts), step):
        found += parts(score, name, start)
        parts.update(number * len(texts) + len(found))
      scored[name] = dict(zip(texts, found, strict=True))
    scales = {name: score_scale(stage, name) for name in judges}
    sets: dict[str, Any] = {}
    for name, (items, left_out) in read.items():
      measures = {
        label: measure(items, [[scores[text] for text in _texts(item)] for item in items], scales.get(label))
        for label, scores in {**scored, **baselines}.items()
      }
      sets[name] = {"comparisons": len(items), "left_out": dict(sorted(left_out.items())), "models": measures}
    write_results(stage, "results.json", {"sets": sets})


def _read(
  given: ComparisonRows, eval_fraction: float, stage: Stage, tokenizer: data.Tokenizer, length: int
) -> tuple[list[Item], Counter[str]]:
  """The comparisons of a file that are scored, and how many others it has for each reason."""
  found, unusable = read_counted(given, stage, ITEMS)
  if eval_fraction:
    found = [item for item in found if data.is_held_out(item.comparison.prompt, eval_fraction, stage.seed)]
  items, unfit = fitting(tokenizer, found, length)
  report_skips(path_of(given), unfit, len(found))
  if not items:
    raise data.DataError(
      f"{path_of(given)}: none of {len(found)} comparisons has at most {length} tokens; check the file, or "
      f"eval_fraction={eval_fraction}"
    )
  return items, unusable + unfit


def _fit_words(given: ComparisonRows, stage: Stage, asked: Set[data.Prompt]) -> Scores:
  """The scores of a bag of words that has seen no comparison of the prompts `asked`."""
  found = read_given(given, stage, COMPARISONS)
  kept = [comparison for comparison in found if comparison.prompt not in asked]
  if len(kept) < len(found):
    report_skips(path_of(given), {"their prompt is scored": len(found) - len(kept)}, len(found))
  if not kept:
    raise data.DataError(f"{path_of(given)}: all prompts are scored, which leaves none to train; set eval_fraction")
  return fit_word_baseline(kept).score


def _reward_model(name: str, config: Config, stage: Stage, tokenizer: data.Tokenizer, model: LanguageModel) -> Scores:
  judge, params = load_reward_model(stage, name, model, tokenizer, "models")
  return text_scorer(judge, tokenizer, params, config.batch_size, stage.transport)


def _texts(item: Item) -> list[Answered]:
  return [(item.comparison.prompt, response) for response in item.comparison.responses]


def _by_text(score: Scores, texts: Sequence[Answered]) -> dict[Answered, float]:
  prompts, responses = zip(*texts, strict=True)
  return dict(zip(texts, np.asarray(score(prompts, responses)).tolist(), strict=True))
