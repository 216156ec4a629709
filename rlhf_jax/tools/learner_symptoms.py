"""Rules of `rlhf-jax doctor` for every stage that learns, and for models of comparisons: each looks for one symptom.

A rule says nothing where the metrics that it reads are absent or too few. Its docstring states its thresholds and where
they come from.
"""

import numpy as np

from rlhf_jax.tools.diagnosis import ENOUGH, Case, Finding, first_quarter, last_quarter, number_text


def no_learning_rate(case: Case) -> Finding | None:
  """optimizer.learning_rate of 0 in the config, or learning_rate of 0 at every step.

  A schedule that falls to 0 does so after the last step.
  """
  rate = case.stage.series.get("learning_rate")
  if case.number("optimizer.learning_rate") != 0 and (rate is None or rate.values.any()):
    return None
  return Finding(
    "learning rate of 0",
    "learning_rate is 0" + (f" from step {rate.steps[0]:.0f} to {rate.steps[-1]:.0f}" if rate is not None else ""),
    "No parameter changes.",
    case.changes(("raise", "optimizer.learning_rate")),
  )


def not_finite(case: Case) -> Finding | None:
  """Any record of any metric that is NaN or infinite."""
  broken = case.stage.not_finite
  if not broken:
    return None
  first = min(steps[0] for steps in broken.values())
  shown = ", ".join(f"{name} ({len(steps)} records)" for name, steps in sorted(broken.items()))
  return Finding(
    "numbers that are not finite",
    f"{shown}, first at step {first:.0f}",
    "A step overflowed, or a mean was taken over nothing. What is learnt after it cannot be trusted.",
    case.changes(
      ("lower", "optimizer.learning_rate"),
      ("raise", "optimizer.warmup"),
      ("lower", "optimizer.clip_norm"),
      ("look at", "model.dtype"),
    ),
  )


def no_gradient(case: Case) -> Finding | None:
  """A gradient norm below 1e-7 in at least half of the records.

  float32 gradients of a loss near 1 are of 1e-3 and more; a norm at the rounding of 1 is that of nothing to learn from.
  """
  gradient = case.series("grad_norm")
  if gradient is None or (none := gradient.values < 1e-7).mean() < 0.5:
    return None
  return Finding(
    "nothing is learnt",
    f"grad_norm below 1e-7 at {none.sum()} of {len(none)} steps",
    "No token counts, or every advantage is 0: look at the masks of the data, or at the spread of the rewards.",
    case.changes(
      ("raise", "environment.samples_per_prompt"),
      ("raise", "environment.sampling.temperature"),
      ("look at", "environment.reward.function"),
      ("look at", "environment.reward.checkpoint"),
    ),
  )


def always_clipped(case: Case) -> Finding | None:
  """A gradient norm above optimizer.clip_norm in at least 99 % of at least 20 records, with a median of five times it.

  The clip is meant for outliers. Where it cuts every step to under a fifth, it and not the data decides how far a step
  goes. Adam undoes a constant factor, but not that every batch then counts alike. The recipe with the noisiest
  gradients is REINFORCE, whose loss sums over tokens: above its clip at nearly every step, with medians of three to
  five times it.
  """
  gradient, limit = case.series("grad_norm", 20), case.number("optimizer.clip_norm")
  if gradient is None or not limit > 0:
    return None
  share, median = float((gradient.values > limit).mean()), float(np.median(gradient.values))
  if share < 0.99 or median < 5 * limit:
    return None
  return Finding(
    "gradient norm always above the clip",
    f"grad_norm above {number_text(limit)} at {share:.0%} of {len(gradient.steps)} steps, median {number_text(median)}",
    "Every step is cut to the same length, whatever its data say.",
    case.changes(
      (f"raise towards {number_text(median)}:", "optimizer.clip_norm"),
      ("lower", "optimizer.learning_rate"),
      ("raise", "optimizer.warmup"),
    ),
  )


def unmoved_loss(case: Case) -> Finding | None:
  """A loss whose mean falls by neither 1 % nor two standard errors from the first to the last quarter of at least 20
  records. The loss of RL has no such meaning.

  Healthy runs fall by 20 % and more; a large model that is tuned on text like its own falls by a few per cent.
  """
  loss = case.series("loss", 20)
  if loss is None or case.stage.optimises_reward:
    return None
  start, end, quarter = first_quarter(loss), last_quarter(loss), max(len(loss.values) // 4, 2)
  error = np.sqrt((np.var(loss.values[:quarter], ddof=1) + np.var(loss.values[-quarter:], ddof=1)) / quarter)
  if start.mean - end.mean >= min(0.01 * abs(start.mean), 2 * float(error)):
    return None
  return Finding(
    "loss that never fell",
    f"loss {start}, then {end}; standard error of the difference {number_text(float(error))}",
    "The stage learnt nothing that its own loss shows.",
    case.changes(
      ("raise", "optimizer.learning_rate"),
      ("raise", "num_epochs"),
      ("raise", "num_steps"),
      ("raise", "lora.rank"),
      ("look at", "init"),
    ),
  )


def overfitting(case: Case) -> Finding | None:
  """The last two values of eval/loss are both 10 % above the lowest one before them, while the training loss fell.

  A single evaluation may be off, by chance or because a reward model's scores are normalised before the last one.
  Healthy runs end at most 2 % above by both.
  """
  held_out, loss = case.series("eval/loss", 3), case.series("loss")
  if held_out is None or loss is None:
    return None
  best, end = int(np.argmin(held_out.values[:-2])), float(held_out.values[-2:].min())
  before, after = (
    loss.values[rows] for rows in (loss.steps <= held_out.steps[best], loss.steps > held_out.steps[best])
  )
  if end < 1.1 * held_out.values[best] or not len(before) or not len(after) or after.mean() >= before.mean():
    return None
  return Finding(
    "overfitting",
    f"eval/loss {number_text(held_out.values[best])} at step {held_out.steps[best]:.0f}, at least {number_text(end)} "
    f"from step {held_out.steps[-2]:.0f} to {held_out.steps[-1]:.0f}; mean loss {number_text(before.mean())} before, "
    f"{number_text(after.mean())} after",
    "The model learns its training rows by heart; what it says of others gets worse.",
    case.changes(
      ("lower", "num_epochs"),
      ("lower", "num_steps"),
      ("lower", "optimizer.learning_rate"),
      ("raise", "optimizer.weight_decay"),
      ("lower", "lora.rank"),
    ),
  )


def at_chance(case: Case) -> Finding | None:
  """eval/accuracy of comparisons below 0.55, as the mean of the second half of the evaluations, after eight steps at
  least, or an accuracy against the gold order whose 95 % interval reaches down to 0.5.

  Chance is 0.5. Reward models of people's comparisons are right on 0.6 to 0.75 of them (Bai et al. 2022, arXiv
  2204.05862), those of the recipes on 0.7 and more.
  """
  evidence = []
  held_out, trained = case.stage.series.get("eval/accuracy"), case.stage.series.get("accuracy")
  begun = trained is None or len(trained.steps) >= ENOUGH  # after a few steps chance is where every model is
  if held_out is not None and begun:
    mean = float(held_out.values[len(held_out.values) // 2 :].mean())
    if mean < 0.55:
      evidence.append(f"eval/accuracy {mean:.2f}, to step {held_out.steps[-1]:.0f}")
  measured = case.accuracies.get("accuracy")
  if measured is not None and measured.low <= 0.5:
    evidence.append(
      f"accuracy against the gold order {measured.mean:.2f} [{measured.low:.2f}, {measured.high:.2f}] on "
      f"{measured.num} pairs"
    )
  if evidence and trained is not None:
    evidence.append(f"accuracy on the training rows {last_quarter(trained)}")
  if not evidence:
    return None
  return Finding(
    "reward model at chance",
    "; ".join(evidence),
    "It does not know which of two answers is better. At chance on its training rows too, it has learnt nothing; right "
    "on those, it has learnt them by heart. Labels of annotators who disagree have no more to give: `rlhf-jax "
    "agreement`.",
    case.changes(
      ("look at", "comparisons"),
      ("look at", "feedback"),
      ("raise", "optimizer.learning_rate"),
      ("raise", "num_epochs"),
      ("raise", "likelihood"),
    ),
  )


def knows_style_only(case: Case) -> Finding | None:
  """On pairs that differ in a value alone, the reward model's lead over the style baseline has a 95 % interval that
  reaches down to 0; or the whole interval of its accuracy on sampled pairs lies below the baseline's accuracy.

  Style cannot tell which value is right. Healthy runs lead by 0.18 and more on such pairs, and by 0 to 0.04 on sampled
  pairs, most of which differ in style too.
  """
  evidence = []
  wrong = case.kinds.get("wrong")
  gap = wrong.measures.get("gap") if wrong is not None else None
  if wrong is not None and gap is not None and gap.low <= 0:
    accuracy = wrong.measures.get("accuracy")
    shown = f"accuracy {accuracy.mean:.2f}, " if accuracy is not None else ""
    evidence.append(
      f"on pairs with a wrong value: {shown}{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}] against the style "
      f"baseline, {gap.num} pairs"
    )
  own, style = (given.get("accuracy") for given in (case.accuracies, case.style))
  if own is not None and style is not None and own.high < style.mean:
    evidence.append(f"accuracy {own.mean:.2f} [{own.low:.2f}, {own.high:.2f}], of the style baseline {style.mean:.2f}")
  if not evidence:
    return None
  return Finding(
    "reward model no better than style",
    "; ".join(evidence),
    "Counts of words and openings order answers as well. A policy optimises the style, and need not be right.",
    case.changes(
      ("look at", "comparisons"),
      ("look at", "feedback"),
      ("raise", "likelihood"),
      ("raise", "num_epochs"),
      ("start from a better model than", "init"),
    ),
  )


RULES = (
  no_learning_rate,
  not_finite,
  no_gradient,
  always_clipped,
  unmoved_loss,
  overfitting,
  at_chance,
  knows_style_only,
)
