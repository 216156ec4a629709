"""The report's words: numbers as text, and sentences on the differences between models.

A sentence claims a difference only where the 95 % intervals are disjoint, and says so where they overlap.
"""

import math
import unicodedata
from collections.abc import Iterator

from rlhf_jax.intervals import Interval
from rlhf_jax.report.read_run import Run, StageRecord

# Measures that are shares between 0 and 1, shown as percentages; all others are plain numbers.
SHARES = {
  "acc",
  "acc_norm",
  "win_rate",
  "finished",
  "accuracy",
  "clear_accuracy",
  "label_accuracy",
  "label_ceiling",
  "style",
  "ceiling",
  "full",
  "copied",
}
DECIMALS = {"length": 1}
# Kind of difference -> (name beside an axis, the rejected response in words).
KINDS = {
  "style": ("style", "right, but terse or with an unrelated sentence"),
  "wrong": ("wrong value", "a wrong value in the same form"),
  "aside": ("false aside", "right, with a false sentence at the end"),
  "off topic": ("off topic", "the right answer to a different question"),
  "claim": ("claim", "a claim where nobody can know"),
  "refusal": ("refusal", "a refusal of an innocent request"),
  "compliance": ("compliance", "help with a harmful request"),
  "admission": ("admission", "“I do not know” where the answer is known"),
}
SPEEDS = {  # measure of speed.jsonl -> heading of its column
  "seconds": "seconds of a step",
  "seconds/sampling": "sampling",
  "seconds/reward": "reward",
  "seconds/scoring": "scoring",
  "seconds/update": "update",
  "seconds/recording": "recording of samples",
  "seconds/host": "host",
  "tokens_per_second": "tokens trained a second",
  "sampled_per_second": "tokens sampled a second",
  "memory/device_gib": "peak memory (GiB)",
  "memory/process_gib": "peak memory of the process (GiB)",
  "mfu": "FLOPs utilisation",
}
TIMELINE = {  # part of a stage's seconds (see `rlhf_jax.train.timeline`) -> heading of its column
  "compile": "compilation",
  "data": "data and all else",
  "steps": "steps",
  "evaluation": "evaluation",
  "checkpoint": "checkpoints",
}
CELLS = {
  "rephrased": "same task in other words",
  "new": "new facts or numbers",
  "held_out": "new kinds of task",
}


def number(value: float, decimals: int = 2) -> str:
  """The value with a true minus sign, without decimals from 100 on; a dash where it is not finite."""
  if not math.isfinite(value):
    return "–"
  text = f"{value:.0f}" if abs(value) >= 99.995 else f"{value:.{decimals}f}"
  return text.replace("-", "−") if float(text) else text.lstrip("-")


def share(value: float) -> str:
  """0.42 as "42 %"; a dash where it is not finite."""
  return f"{100 * value:.0f} %" if math.isfinite(value) else "–"


def mean_text(measure: str, interval: Interval) -> str:
  """The mean: a percentage for a share, else a number."""
  return share(interval.mean) if measure in SHARES else number(interval.mean, DECIMALS.get(measure, 2))


def bounds_text(measure: str, interval: Interval) -> str:
  """ "[0.42, 0.58]" in the unit of `mean_text`; "" where a bound is unknown or the value is exact."""
  if not (math.isfinite(interval.low) and math.isfinite(interval.high)) or interval.low == interval.high:
    return ""
  if measure in SHARES:
    return f"[{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
  decimals = DECIMALS.get(measure, 2)
  return f"[{number(interval.low, decimals)}, {number(interval.high, decimals)}]"


def points(interval: Interval) -> tuple[str, str]:
  """A difference of two shares in percentage points, with its sign, and its bounds: ("+12", "[8, 16]")."""
  mean = f"{100 * interval.mean:+.0f}".replace("-", "−")
  bounds = bounds_text("accuracy", interval).replace("-", "−")
  return ("0" if mean in ("+0", "−0") else mean), bounds


def interval_text(measure: str, interval: Interval) -> str:
  """Mean and bounds, as in "0.50 [0.42, 0.58]"."""
  return f"{mean_text(measure, interval)} {bounds_text(measure, interval)}".strip()


def visible(text: str) -> str:
  """The text with control, bidirectional and other invisible characters written as their code points.

  A response must not reorder or hide the page. Newlines, tabs and the joiners that emoji need stay. A lone surrogate,
  which UTF-8 cannot hold, becomes its code point too.
  """
  return "".join(
    f"⟨U+{ord(char):04X}⟩"
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\n\t\u200c\u200d"
    else char
    for char in text
  )


def summary_sentences(run: Run) -> list[str]:
  """The change that each model made: models after the reference against the reference, earlier models against the
  model before them."""
  measure = "gold" if any("gold" in measures for measures in run.models.values()) else "proxy"
  scored = [name for name in run.models if measure in run.models[name]]
  reference = run.reference or ""
  sentences = []
  for index, name in enumerate(scored[1:], start=1):
    before = reference if reference in scored[:index] else scored[index - 1]
    sentence = _change(name, measure, run.models[before][measure], run.models[name][measure], before)
    if before == reference and "win_rate" in run.models[name]:
      wins = interval_text("win_rate", run.models[name]["win_rate"])
      sentence += f" Its answer beats that of {before} on {wins} of the prompts; a tie counts half."
    sentences.append(sentence)
  return sentences


def constant_sentences(run: Run) -> list[str]:
  """Whether a policy that always answers alike has a higher mean proxy reward than the model that was trained last."""
  proxies = {name: run.baselines[name]["proxy"] for name in run.constants if "proxy" in run.baselines[name]}
  trained = [name for name, measures in run.models.items() if "proxy" in measures]
  if not proxies or not trained:
    return []
  name, proxy = trained[-1], run.models[trained[-1]]["proxy"]
  above = [constant for constant in proxies if proxies[constant].mean > proxy.mean]
  if not above:
    best = max(proxies, key=lambda constant: proxies[constant].mean)
    return [
      f"No constant answer has a higher proxy reward than {name} ({interval_text('proxy', proxy)}): the highest, "
      f"{interval_text('proxy', proxies[best])}, is that of “{run.constants[best]}” ({best})."
    ]
  found = []
  for constant in above:
    gold = run.baselines[constant].get("gold")
    at = f", at a gold reward of {interval_text('gold', gold)}" if gold else ""
    found.append(
      f"The reward model prefers a constant answer to {name}: “{run.constants[constant]}” ({constant}) has a proxy "
      f"reward of {interval_text('proxy', proxies[constant])} against {interval_text('proxy', proxy)}{at}."
    )
  return found


def kl_penalty_sentences(run: Run) -> list[str]:
  """For every stage with kl_coef == 0, its final rewards and those of the stage that kept the penalty."""
  sentences = []
  for free, penalised in _ablations(run):
    ends = [_ending(run, stage) for stage in (free, penalised)]
    if not all(ends):
      continue
    sentences.append(
      f"Without the KL penalty ({free.name}) the policy ends at {_listing(ends[0])}; "
      f"with the penalty ({penalised.name}, coefficient {penalised.config['kl_coef']:g}) at {_listing(ends[1])}. "
      + _verdict(*ends)
    )
  return sentences


def _change(name: str, measure: str, before: Interval, after: Interval, base: str) -> str:
  change = f"from {interval_text(measure, before)} ({base}) to {interval_text(measure, after)}"
  if after.disjoint(before):
    verb = "raised" if after.mean > before.mean else "lowered"
    return f"{name} {verb} the mean {measure} reward {change}; the 95 % intervals are disjoint."
  return (
    f"{name} moved the mean {measure} reward {change}; the 95 % intervals overlap, so these means alone do "
    "not show which model is better."
  )


def _ablations(run: Run) -> Iterator[tuple[StageRecord, StageRecord]]:
  climbing = [stage for stage in run.stages if stage.optimises_reward]
  penalised = [stage for stage in climbing if _coefficient(stage) > 0]
  for free in climbing:
    if _coefficient(free) == 0 and penalised:
      # A stage of the same algorithm if there is one, so that only the penalty differs.
      yield free, next((stage for stage in penalised if stage.algorithm == free.algorithm), penalised[0])


def _coefficient(stage: StageRecord) -> float:
  value = stage.config.get("kl_coef")
  return float(value) if isinstance(value, int | float) else float("nan")


def _ending(run: Run, stage: StageRecord) -> dict[str, Interval]:
  """Final proxy and gold reward: from the evaluation where it has them, else the mean over the last tenth of training,
  without bounds."""
  ending: dict[str, Interval] = {}
  for measure in ("proxy", "gold"):
    series = stage.series.get(f"reward/{measure}")
    if measure in run.models.get(stage.name, {}):
      ending[measure] = run.models[stage.name][measure]
    elif series is not None:
      ending[measure] = Interval(series.final, math.nan, math.nan, 0)
  return ending


def _listing(ending: dict[str, Interval]) -> str:
  return " and ".join(f"{name} reward {interval_text(name, value)}" for name, value in ending.items())


def _verdict(free: dict[str, Interval], penalised: dict[str, Interval]) -> str:
  if "gold" not in free or "gold" not in penalised:
    return "There is no gold reward to show which policy is better."
  bounds = [free["gold"].low, free["gold"].high, penalised["gold"].low, penalised["gold"].high]
  if not all(map(math.isfinite, bounds)):
    return "These are means over the last tenth of training, without intervals."
  if not free["gold"].disjoint(penalised["gold"]):
    return "The intervals of the gold reward overlap: this run does not show that the penalty changes it."
  if free["gold"].mean > penalised["gold"].mean:
    return "The policy without the penalty has the higher gold reward: here the penalty cost reward."
  if "proxy" in free and "proxy" in penalised and free["proxy"].mean > penalised["proxy"].mean:
    return "The policy without the penalty has the higher proxy reward and the lower gold reward: over-optimisation."
  return "The policy without the penalty has the lower gold reward."
