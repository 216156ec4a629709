"""How often scores order the responses of comparisons as their labels do: in all, by subset, and as benchmarks sum up.

A pair is two responses to a prompt of different rank; pairs of equal rank have no right order and do not count.
`accuracy` is the share of pairs whose better response has the higher score, equal scores as halves, and `ties` is the
share of equal scores. Intervals are over prompts.

A row's subset is its column "subset" (RewardBench, arXiv 2403.13787) or "domain" (RM-Bench, arXiv 2410.16184). Where
all subsets are those of one of these benchmarks, its sections are the means of their subsets, weighted by pairs, and
the mean is that of the sections. RewardBench gives math-prm the weight of all the code. A row of RM-Bench has three
chosen and three rejected answers in the same three styles, from plain to fancy: `easy` are the pairs whose chosen
answer has the fancier style, `normal` those of one style, `hard` those whose rejected answer has the fancier one. Both
benchmarks count equal scores as wrong: their numbers are `accuracy` less half of `ties`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.files import Row
from rlhf_jax.data.records import comparison_problem
from rlhf_jax.data.row_formats import COMPARISONS, Parser, RowFormats
from rlhf_jax.data.row_values import optional_text
from rlhf_jax.evaluation.calibration import pair_calibration
from rlhf_jax.evaluation.statistics import clustered_share, weighted_share
from rlhf_jax.intervals import Interval, finite
from rlhf_jax.reduce import ordered_pairs

Sections = Mapping[str, Sequence[str]]  # name -> its subsets

REWARD_BENCH: Sections = {
  "Chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
  "Chat Hard": (
    "mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst", "llmbar-adver-GPTOut",
    "llmbar-adver-manual",
  ),
  "Safety": (
    "refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "xstest-should-respond", "donotanswer",
  ),
  "Reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}  # fmt: skip
RM_BENCH: Sections = {
  "chat": ("chat",), "code": ("code",), "math": ("math",), "safety": ("safety-refuse", "safety-response")
}  # fmt: skip
STYLES = 3  # of RM-Bench's answers on either side
STYLED = (0,) * STYLES + (1,) * STYLES  # ranks of a row of RM-Bench
CHUNK = 64  # comparisons whose lengths are measured at once


class Item(NamedTuple):
  """A comparison of a file."""

  comparison: data.Comparison
  """Comparison, of ranked responses alone."""
  subset: str
  """Name of its subset; "" for none."""
  is_styled: bool
  """Whether its responses have RM-Bench's three styles."""


def _with_subset(parse: Parser) -> Parser:
  def parse_items(row: Row, where: str) -> Iterator[Item]:
    domain = optional_text(row, "domain", where)
    subset = optional_text(row, "subset", where) or domain
    for found in parse(row, where):
      ranked = [(response, rank) for response, rank in zip(found.responses, found.ranks, strict=True) if rank >= 0]
      responses, ranks = zip(*ranked, strict=True) if ranked else ((), ())
      is_styled = bool(domain) and isinstance(row.get("chosen"), list) and ranks == STYLED
      yield Item(found._replace(responses=responses, ranks=ranks), subset, is_styled)

  return parse_items


ITEMS = RowFormats(
  {columns: _with_subset(parse) for columns, parse in COMPARISONS.parsers.items()},
  lambda item: comparison_problem(item.comparison),
)


def fitting(tokenizer: data.Tokenizer, items: Sequence[Item], length: int) -> tuple[list[Item], Counter[str]]:
  """(the items whose prompt with each response has at most `length` tokens, {reason: how many others have it})."""
  kept: list[Item] = []
  reasons: Counter[str] = Counter()
  for start in range(0, len(items), CHUNK):
    chunk = items[start : start + CHUNK]
    _, rows, found = data.comparison_rows(tokenizer, [item.comparison for item in chunk], length)
    kept += [chunk[row] for row in rows]
    reasons += found
  return kept, reasons


def measure(items: Sequence[Item], scores: Sequence[Sequence[float]], scale: float | None = None) -> dict[str, Any]:
  """The measures of N items as a mapping for a result file: of all pairs, and by "subsets", "sections" and in "mean".

  scores: those of each item's responses. Every interval is {"mean", "low", "high", "num"}, `num` the number of pairs.
  "mean" is the unweighted mean of the sections, or of the subsets of a file of no known benchmark; it, "subsets" and
  "sections" are left out where there are none. scale: factor from scores to logits of preference
  (`rlhf_jax.train.score_scale`), with which "calibration" is that of the pairs' labels
  (`rlhf_jax.evaluation.calibration.pair_calibration`); None leaves it out.

  Raises:
    ValueError: a score is not finite.
  """
  most = max(len(item.comparison.ranks) for item in items)
  ranks, given = np.full((len(items), most), -1), np.zeros((len(items), most))
  for row, (item, values) in enumerate(zip(items, scores, strict=True)):
    ranks[row, : len(values)], given[row, : len(values)] = item.comparison.ranks, finite(values, "scores")
  better = ordered_pairs(ranks)  # [N, K, K]
  lead = given[:, :, None] - given[:, None, :]
  right, equal = (lead > 0) + 0.5 * (lead == 0), lead == 0
  _, prompts = np.unique([data.prompt_text(item.comparison.prompt) for item in items], return_inverse=True)
  levels = _levels() if all(item.is_styled for item in items) else {}

  def share(values: np.ndarray, pairs: np.ndarray) -> Interval:
    sums, sizes = (np.bincount(prompts, x.sum((1, 2))) for x in (np.where(pairs, values, 0.0), pairs))
    return clustered_share(sums, sizes)

  def measures(rows: np.ndarray) -> dict[str, Interval]:
    pairs = better & rows[:, None, None]
    found = {"accuracy": share(right, pairs), "ties": share(equal, pairs)}
    return found | {level: share(right, pairs & of_level) for level, of_level in levels.items()}

  names = np.array([item.subset for item in items])
  by_subset = {str(name): measures(names == name) for name in dict.fromkeys(names.tolist()) if name}
  accuracies = {name: found["accuracy"] for name, found in by_subset.items()}
  by_section = _sections(accuracies)
  result: dict[str, Any] = _plain(measures(np.ones(len(items), bool)))
  if parts := by_section or accuracies:
    result["mean"] = weighted_share([*parts.values()], [1.0] * len(parts))._asdict()
    result["subsets"] = {name: _plain(found) for name, found in by_subset.items()}
  if by_section:
    result["sections"] = _plain(by_section)
  if scale is not None:
    of_pair, _, _ = np.nonzero(better)
    calibrated = pair_calibration(scale * lead[better], np.ones(len(of_pair)), prompts[of_pair])
    result["calibration"] = {"scale": scale, "labels": calibrated}
  return result


def _levels() -> dict[str, np.ndarray]:
  """{level: bool[6, 6], True where response i (chosen) and response j (rejected) are a pair of that level}."""
  style = np.arange(2 * STYLES) % STYLES
  fancier = style[:, None] - style[None, :]
  return {"easy": fancier > 0, "normal": fancier == 0, "hard": fancier < 0}


def _sections(subsets: Mapping[str, Interval]) -> dict[str, Interval]:
  """The sections of the benchmark that has all these subsets; {} for none."""
  for sections in (REWARD_BENCH, RM_BENCH):
    if not subsets or not subsets.keys() <= {name for names in sections.values() for name in names}:
      continue
    weights = {name: float(found.num) for name, found in subsets.items()}
    code = sum(weight for name, weight in weights.items() if name.startswith("hep-"))
    if code and "math-prm" in weights:
      weights["math-prm"] = code
    known = {section: [name for name in names if name in subsets] for section, names in sections.items()}
    return {
      section: weighted_share([subsets[name] for name in names], [weights[name] for name in names])
      for section, names in known.items()
      if names
    }
  return {}


def _plain(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
  return {name: interval._asdict() for name, interval in found.items()}
