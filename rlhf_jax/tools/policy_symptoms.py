"""Rules of `rlhf-jax doctor` for stages of reinforcement learning: each looks for one symptom.

A rule says nothing where the metrics that it reads are absent or too few. Its docstring states its thresholds and where
they come from. "Last quarter" is that of the records. What the project's own healthy runs have is of the quickstart
over seeds and of the recipes that start from it.
"""

import numpy as np

from rlhf_jax.report.read_run import Series
from rlhf_jax.tools.diagnosis import (
  ENOUGH,
  Case,
  Finding,
  Samples,
  first_quarter,
  first_tenth,
  last_quarter,
  number_text,
  span,
)

FRESH = 40  # records of a value function whose head began anew; fewer show what it has yet to learn


def zero_by_construction(case: Case) -> Finding | None:
  """A loss below 1e-4 at the first step, where a rollout has one update only and the gradient is not 0.

  At the first update the ratio is 1, and the value of the clipped surrogate is the mean advantage, which is 0 where
  advantages are centred, as in GRPO and RLOO and with whitening in PPO. The gradient of ratio * advantage is not 0.
  """
  loss, gradient = case.stage.series.get("loss"), case.stage.series.get("grad_norm")
  once = case.setting("epochs") == 1 and case.setting("minibatches") == 1
  if not once or loss is None or gradient is None or abs(loss.values[0]) > 1e-4 or gradient.values[0] < 1e-6:
    return None
  return Finding(
    "loss of 0 at ratio 1",
    f"loss {number_text(loss.values[0])} at step {loss.steps[0]:.0f}, at a gradient norm of "
    f"{number_text(gradient.values[0])}",
    "With one update for each rollout the ratio is 1 and the loss is the mean of centred advantages, 0 by "
    "construction. The policy learns: read the reward, not the loss.",
    (),
    fault=False,
  )


def groups_without_spread(case: Case) -> Finding | None:
  """reward/groups_alike of at least 0.8 in the last quarter.

  A group whose scores are all equal has advantages of 0. With four of five alike a step learns from a fifth of what it
  samples. Such groups are why DAPO samples anew (arXiv 2503.14476, section 3.2). Healthy runs end at up to 0.5.
  """
  alike = case.series("reward/groups_alike")
  if alike is None or (end := last_quarter(alike)).mean < 0.8:
    return None
  return Finding(
    "groups without spread",
    f"share of groups whose responses all have the same score: {end}",
    "Their advantages are 0, so that they teach nothing. Prompts that are always or never solved, a reward with few "
    "values, or a policy with one answer are the causes.",
    case.changes(
      ("raise", "environment.samples_per_prompt"),
      ("raise", "environment.sampling.temperature"),
      ("choose prompts of middling difficulty for", "environment.prompts"),
    ),
  )


def negative_kl(case: Case) -> Finding | None:
  """kl/reference below -4.5 / B at two steps or more, for steps of B responses.

  On samples of the policy the mean of log p / p_ref has the expectation KL >= 0, and a variance near 2 KL / B while KL
  is small. So a mean lies above KL - 3 sqrt(2 KL / B) in all but one of a thousand steps, and that is nowhere below
  -4.5 / B (at KL = 4.5 / B). Where means are lower, the samples are of another distribution than the log-probs.
  """
  kl = case.series("kl/reference", at_least=2)
  episodes = case.number("environment.batch_size") * case.number("environment.samples_per_prompt")
  if kl is None or np.isnan(episodes):
    return None
  below = kl.values < -4.5 / episodes
  if below.sum() < 2:
    return None
  lowest = int(np.argmin(kl.values))
  wanted = [("set to float32:", "model.dtype")] if case.setting("model.dtype") not in (None, "float32") else []
  return Finding(
    "negative KL",
    f"kl/reference below {number_text(-4.5 / episodes)} nats at {below.sum()} of {len(kl.steps)} steps, lowest "
    f"{number_text(kl.values[lowest])} at step {kl.steps[lowest]:.0f}",
    f"Chance does not take the mean over {episodes:.0f} samples of the policy that low: the responses are drawn from "
    "another distribution than the one their log-probs are of. A penalty on it rewards the difference.",
    case.changes(*wanted),
  )


def distant_sampler(case: Case) -> Finding | None:
  """sampling/logp_gap above 0.02 nats a token, the mean over the steps, where no weights correct for it; or
  policy/first_gap_max above 0.001 nats with `environment.logp` "trainer".

  Sampler and trainer have the same parameters, and in float32 log-probs that agree to 1e-5 nats. 0.02 nats a token are
  a factor of 1.5 in the probability of a response of 20. Log-probs that were computed anew are those of the first
  update to the last bit; where they are not, another compiler or kernel read them.
  """
  gap, first = case.series("sampling/logp_gap", at_least=1), case.series("policy/first_gap_max", at_least=1)
  sampler = case.setting("environment.logp") == "sampler"
  evidence = []
  if gap is not None and gap.values.mean() > 0.02 and (sampler or not case.setting("environment.importance")):
    evidence.append(f"sampling/logp_gap {number_text(gap.values.mean())} nats a token")
  if first is not None and not sampler and first.values.max() > 1e-3:
    evidence.append(f"policy/first_gap_max {number_text(first.values.max())} nats")
  if not evidence:
    return None
  wanted = [("set to float32:", "model.dtype")] if case.setting("model.dtype") not in (None, "float32") else []
  return Finding(
    "sampler and trainer disagree",
    "; ".join(evidence),
    "The same parameters give a token another probability while sampling than while training: the gradient is that of "
    "a policy that did not sample.",
    case.changes(
      *(
        [("set to trainer:", "environment.logp")]
        if sampler
        else [("give a level and a cap to", "environment.importance")]
      ),
      *wanted,
    ),
  )


def kl_jumps(case: Case) -> Finding | None:
  """kl/reference rises in one step by half a nat a token and to five times the median of the eight steps before, or
  kl/loss (of GRPO) is above 10 nats a token.

  Half a nat a token changes the odds of every token by a factor of 1.6 on average. Healthy runs rise by up to 0.45 nats
  a token, others to four times the median. A mean KL of 10 nats a token is that of single tokens whose probability has
  fallen to almost 0, where the estimator k3 grows exponentially.
  """
  kl, length = case.series("kl/reference"), case.series("response/length")
  evidence = _jump(kl, length) if kl is not None and length is not None else ""
  estimate = case.stage.series.get("kl/loss")
  high = estimate is not None and estimate.values.max() > 10
  if estimate is not None and high:
    top = int(np.argmax(estimate.values))
    evidence += (
      f"{'; ' if evidence else ''}kl/loss {number_text(estimate.values[top])} at step {estimate.steps[top]:.0f}"
    )
    evidence += f", median {number_text(float(np.median(estimate.values)))}"
  if not evidence:
    return None
  kind = (("set to k2:", "kl_kind"),) if high and case.setting("kl_kind") == "k3" else ()
  return Finding(
    "KL that jumps",
    evidence,
    "One update went too far: single tokens became far more or far less probable, and their KL outweighs the reward.",
    case.changes(
      ("lower", "optimizer.learning_rate"), ("raise", "optimizer.warmup"), ("lower", "epochs"), ("lower", "clip"), *kind
    ),
  )


def _jump(kl: Series, length: Series) -> str:
  tokens = max(float(np.median(length.values)), 1.0)
  for index in range(1, len(kl.values)):
    before = float(np.median(kl.values[max(index - 8, 0) : index]))
    if kl.values[index] > before + 0.5 * tokens and kl.values[index] > 5 * before:
      return (
        f"kl/reference {number_text(kl.values[index])} nats at step {kl.steps[index]:.0f}, after a median of "
        f"{number_text(before)} over the steps before"
      )
  return ""


def kl_runs_away(case: Case) -> Finding | None:
  """kl/reference above 1 nat a token in the last quarter.

  The reference then gives the policy's tokens a probability e times lower on average: the text is not of the kind that
  the reward model was trained on (Gao et al. 2022, arXiv 2210.10760). Healthy runs end at up to 0.25 nats a token.
  """
  kl, length = case.series("kl/reference"), case.series("response/length")
  if kl is None or length is None:
    return None
  end, tokens = last_quarter(kl), max(last_quarter(length).mean, 1.0)
  if end.mean / tokens < 1:
    return None
  evidence = f"kl/reference {end}, {number_text(end.mean / tokens)} nats for each of {tokens:.0f} tokens"
  gold = case.series("reward/gold")
  if gold is not None:
    evidence += f"; reward/gold {first_tenth(gold)}, then {last_quarter(gold)}"
  return Finding(
    "KL that runs away",
    evidence,
    "The policy has left the region where the reward model was trained: a higher reward there says little.",
    case.changes(("raise", "kl_coef"), ("lower", "optimizer.learning_rate"), ("lower", "num_steps")),
  )


def over_optimisation(case: Case) -> Finding | None:
  """reward/gold falls by three standard errors from its best eighth of the steps to the last quarter, while
  reward/proxy is higher there (Gao et al. 2022, arXiv 2210.10760).

  The standard error is of the steps after the first eighth, in which both rewards rise. The best of eight means lies
  about 1.4 of its own standard errors too high; healthy runs fall by up to 2, PPO without a penalty fell by 3.8.
  """
  gold, proxy = case.series("reward/gold", 16), case.series("reward/proxy", 16)
  if gold is None or proxy is None or not np.array_equal(gold.steps, proxy.steps):
    return None
  eighths = [span(gold, k / 8, (k + 1) / 8) for k in range(8)]
  best = int(np.argmax([each.mean for each in eighths]))
  end, count = last_quarter(gold), len(gold.steps)
  error = float(np.std(gold.values[count // 8 :], ddof=1)) * np.sqrt(8 / count + 4 / count)
  before, after = span(proxy, best / 8, (best + 1) / 8), last_quarter(proxy)
  if eighths[best].mean - end.mean < 3 * error or after.mean <= before.mean:
    return None
  return Finding(
    "over-optimised reward",
    f"reward/gold {eighths[best]}, then {end}, while reward/proxy went from {number_text(before.mean)} to "
    f"{number_text(after.mean)}",
    "The policy finds what the reward model scores too high. Its checkpoint at the best gold reward is the better one.",
    case.changes(("raise", "kl_coef"), ("lower", "num_steps"), ("lower", "optimizer.learning_rate")),
  )


def growing_clip(case: Case) -> Finding | None:
  """policy/clip_fraction of at least 0.2 in the last quarter, and 1.5 times that of the first quarter.

  A clipped token has no gradient. The share falls with the learning rate in healthy runs, and is 0.01 at the end; a
  growing one means that each rollout moves the policy further than the one before.
  """
  clipped = case.series("policy/clip_fraction")
  if clipped is None:
    return None
  start, end = first_quarter(clipped), last_quarter(clipped)
  if end.mean < 0.2 or end.mean < 1.5 * start.mean:
    return None
  return Finding(
    "clipped share that grows",
    f"policy/clip_fraction {start}, then {end}",
    "Each rollout moves the policy further, and what is clipped has no gradient.",
    case.changes(("lower", "optimizer.learning_rate"), ("lower", "epochs"), ("lower", "minibatches")),
  )


def entropy_collapse(case: Case) -> Finding | None:
  """policy/entropy in the last quarter below a tenth of that of the first tenth.

  Gain in reward is bought with entropy and ends with it (Cui et al. 2025, arXiv 2505.22617). Healthy runs keep a third.
  """
  entropy = case.series("policy/entropy")
  if entropy is None:
    return None
  start, end = first_tenth(entropy), last_quarter(entropy)
  if end.mean >= 0.1 * start.mean:
    return None
  return Finding(
    "entropy collapse",
    f"policy/entropy {start} nats a token, then {end}",
    "The policy gives almost the same response each time: it explores nothing more, and groups lose their spread.",
    case.changes(
      ("raise", "entropy_coef"),
      ("raise", "kl_coef"),
      ("lower", "optimizer.learning_rate"),
      ("raise", "environment.sampling.temperature"),
    ),
  )


def unfinished_responses(case: Case) -> Finding | None:
  """response/finished below 0.1 in the last quarter.

  At least nine responses of ten then have the score `missing_eos_score` whatever they say, or a score of half a text.
  """
  finished = case.series("response/finished", at_least=1)
  if finished is None or (end := last_quarter(finished)).mean >= 0.1:
    return None
  length = case.series("response/length", at_least=1)
  tokens = f"; response/length {last_quarter(length)}" if length is not None else ""
  return Finding(
    "responses that do not finish",
    f"share of responses that end with EOS: {end}{tokens}",
    "The policy does not end its responses in the room they have, so that almost all have the same score. A policy "
    "that never saw EOS in training (demonstrations, chat template) does not learn it here.",
    case.changes(
      ("raise", "environment.sampling.max_new_tokens"),
      ("look at the score of an unfinished response,", "environment.missing_eos_score"),
      ("start from a policy that has learnt to end:", "init"),
    ),
  )


def reward_of_length(case: Case) -> Finding | None:
  """Length explains four fifths of the variance of the reward, r^2 >= 0.8: among at least 20 kept responses of the
  policy, or from step to step while the mean length changes by half.

  Singhal et al. 2023 (arXiv 2310.03716) find reward models whose gain is mostly of length. Healthy runs have r^2 up to
  0.15 among responses, and end within a quarter of the length they begin with.
  """
  evidence = ""
  if case.samples is not None and len(case.samples.lengths) >= 20:
    r = _correlation(case.samples)
    if r**2 >= 0.8:
      evidence = f"r = {r:.2f} between words and reward of {len(case.samples.lengths)} responses"
  length, reward = case.series("response/length", 20), case.series("reward/proxy", 20)
  if length is not None and reward is not None and np.array_equal(length.steps, reward.steps):
    start, end = first_tenth(length), last_quarter(length)
    r = _correlation(Samples(length.values, reward.values))
    if r**2 >= 0.8 and not 2 / 3 < end.mean / max(start.mean, 1e-9) < 1.5:
      evidence += f"{'; ' if evidence else ''}r = {r:.2f} between response/length and reward/proxy of the steps, "
      evidence += f"response/length {start}, then {end}"
  if not evidence:
    return None
  return Finding(
    "reward of length alone",
    evidence,
    "What the policy learns is how long to be. Compare answers of equal length when you collect feedback, or subtract "
    "the length in a reward function.",
    case.changes(
      ("look at", "environment.reward.checkpoint"),
      ("look at", "environment.reward.function"),
      ("raise", "kl_coef"),
    ),
  )


def _correlation(samples: Samples) -> float:
  """Pearson's r, 0 where either side has no spread."""
  spread = np.std(samples.lengths) * np.std(samples.rewards)
  return float(np.corrcoef(samples.lengths, samples.rewards)[0, 1]) if spread > 0 else 0.0


def useless_value(case: Case) -> Finding | None:
  """value/explained_variance below 0.05 in the last quarter; for a head that began anew, after 40 steps at least.

  0 is what a constant explains; below 0 the value function adds variance to the advantages. A healthy PPO begins below
  0, where the value function is still that of the reward model, and is at 0.4 after half of its steps. A head that
  begins anew, with a person's ratings as the reward, takes 30 to 40 steps to come above 0.05.
  """
  explained = case.series("value/explained_variance", ENOUGH if case.setting("value_init") else FRESH)
  if explained is None or (end := last_quarter(explained)).mean >= 0.05:
    return None
  return Finding(
    "value function that explains nothing",
    f"value/explained_variance {end}",
    "A constant baseline would serve as well, and advantages are as noisy as the returns.",
    case.changes(
      ("raise", "value_coef"), ("name a reward model in", "value_init"), ("raise", "value_clip"), ("raise", "epochs")
    ),
  )


RULES = (
  zero_by_construction,
  groups_without_spread,
  negative_kl,
  distant_sampler,
  kl_jumps,
  kl_runs_away,
  over_optimisation,
  growing_clip,
  entropy_collapse,
  unfinished_responses,
  reward_of_length,
  useless_value,
)
