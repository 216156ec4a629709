"""What is kept of a stage of RL while it learns: held-out evaluation, and samples with what their tokens were worth."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.intervals import Interval, mean_interval, wilson_interval, win_rate
from rlhf_jax.models import LanguageModel
from rlhf_jax.stage import Stage
from rlhf_jax.train.environment import EpisodeSource, Watching
from rlhf_jax.train.episodes import Episodes
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.log import StageLog
from rlhf_jax.train.mesh import sent
from rlhf_jax.train.processes import host, leader
from rlhf_jax.train.prompts import load_prompts
from rlhf_jax.train.rows import make_logprobs
from rlhf_jax.train.token_arrays import Clip, Ratio, make_token_arrays
from rlhf_jax.train.workspace import stage_key
from rlhf_jax.types import Experience, Params, Rollout, TrainState
from rlhf_jax.writing import write_bytes

EVALUATION = 2**31 - 1  # folded into the key of the stage, as no step's index is


class Watch:
  """Evaluates the policy on held-out prompts, and records samples in STAGE/samples.jsonl.

  A row is {"step", "row", "split", "prompt", "response", "reward", "parts", "kl", "finished"}: split "train" is of the
  step's own episodes, split "eval" of the held-out prompts; kl is summed over the response, in nats. Of a row of the
  split "train", STAGE/samples/STEP.npz has in its row `row` the arrays of `rlhf_jax.train.token_arrays`.
  """

  def __init__(
    self,
    settings: Watching,
    stage: Stage,
    model: LanguageModel,
    tokenizer: data.Tokenizer,
    environment: EpisodeSource,
    reference: Params,
    *,
    clip: Clip | None = None,
    ratio: Ratio = "token",
  ):
    """clip and ratio: what the algorithm clips, as in `make_token_arrays`.

    Raises data.DataError where settings.eval_prompts cannot be read.
    """
    self._settings, self._stage, self._environment, self._reference = settings, stage, environment, reference
    self._log: StageLog | None = None
    self._prompts = None
    self._to_beat: np.ndarray | None = None  # the reference's rewards, f32[N]
    sampling = environment.settings.sampling
    if settings.eval_prompts:
      found = load_prompts(settings.eval_prompts, stage, tokenizer, sampling.max_prompt_tokens)
      self._prompts = found.first(settings.num_prompts)

    logprobs = make_logprobs(model.apply, sampling.temperature, stage.transport)

    @jax.jit
    def sequence_kl(reference: Params, rollout: Rollout) -> jax.Array:  # f32[B]
      return (rollout.logp - logprobs(reference, rollout.tokens, rollout.mask, rollout.at)).sum(axis=1)

    self._kl = sequence_kl
    num = min(settings.num_samples, environment.settings.batch_size * environment.settings.samples_per_prompt)
    self._token_arrays = make_token_arrays(
      model.apply, sampling.temperature, stage.transport, num=num, clip=clip, ratio=ratio
    )

  @property
  def hooks(self) -> dict[str, Any]:
    """The arguments of `run_steps` by which the loop evaluates, and gives this watch the stage's log."""
    evaluation: dict[str, Any] = {"evaluate": self.evaluate, "evaluate_every": self._settings.evaluate_every}
    return {"opened": self.open, **(evaluation if self._prompts else {})}

  def open(self, log: StageLog, start_step: int) -> None:
    """Takes the log; arrays of samples after `start_step`, of an interrupted run, are deleted."""
    self._log = log
    for path in (self._stage.directory / "samples").glob("*.npz") if leader() else ():
      if path.stem.isdecimal() and int(path.stem) > start_step:
        path.unlink()

  def record(
    self,
    index: int,
    episodes: Episodes,
    experience: Experience,
    state: TrainState,
    metrics: Mapping[str, Any],
    *,
    kl_coef: float | jax.Array = 0.0,
  ) -> dict[str, Any]:
    """Records the first episodes of step `index`, where the config asks for this step's; returns the step's metrics.

    At such a step they have seconds/recording. What the host then waits for the updates is in seconds/update.

    Args:
      state: the state after the step's updates.
      kl_coef: the coefficient of a KL penalty that is part of the reward, in units of reward per nat.
    """
    step, every = index + 1, self._settings.samples_every
    if not self._log or not every or step % every:
      return dict(metrics)
    start = time.perf_counter()
    drawn = episodes.rollout, episodes.scores, episodes.token_scores
    with sent():
      found = self._token_arrays(_policy(state), drawn, experience, kl_coef)  # it is compiled while the updates run
    called = time.perf_counter()
    jax.block_until_ready(state.params)
    ready = time.perf_counter()
    rows = host(found)
    kl = np.sum(rows["logp"] - rows["logp_ref"], axis=1, where=rows["mask"])
    _write_arrays(self._stage.directory / "samples" / f"{step}.npz", rows)
    self._write(step, "train", episodes, host(episodes.scores), kl, len(kl))
    update = metrics.get("seconds/update", 0.0) + ready - called
    return {**metrics, "seconds/update": update, "seconds/recording": time.perf_counter() - ready + called - start}

  def evaluate(self, state: TrainState) -> dict[str, float]:
    """Means with their 95 % intervals of the policy's answers to the held-out prompts: {NAME, NAME_low, NAME_high}.

    proxy is the score that is learnt from, win_rate the share of prompts on which the answer has the higher reward than
    the reference's, ties counting half: the gold reward where there is a monitor, else the proxy. Keys are the same at
    each evaluation and for both models, so that two answers differ only as the models do.
    """
    measures = self._answer(_policy(state), int(state.step))
    judged = "gold" if "gold" in measures else "proxy"
    if self._to_beat is None:
      self._to_beat = self._answer(self._reference, None)[judged]
    found = {name: mean_interval(values) for name, values in measures.items()}
    found["finished"] = wilson_interval(float(measures["finished"].sum()), len(measures["finished"]))
    found["win_rate"] = win_rate(measures[judged], self._to_beat)
    return {name: value for measure, interval in found.items() for name, value in _bounds(measure, interval)}

  def _answer(self, params: Params, step: int | None) -> dict[str, np.ndarray]:
    """The measures of the answers, f64[N] each; the first answers are recorded as of `step`, unless that is None."""
    assert self._prompts is not None
    settings = self._environment.settings
    columns: dict[str, list[float]] = {}
    key = jax.random.fold_in(stage_key(self._stage), EVALUATION)
    for start, rows, kept in fixed_batches(len(self._prompts.texts), settings.batch_size * settings.samples_per_prompt):
      asked, given = self._prompts.take(rows), self._prompts.rows_of(rows)
      episodes = self._environment.respond(params, *asked, jax.random.fold_in(key, start), rows=given, step=step or 0)
      scores, kl = host(episodes.scores), host(self._kl(self._reference, episodes.rollout))
      found = {
        "proxy": scores,
        **{name: host(values) for name, values in episodes.parts.items() if name == "gold"},
        "length": host(episodes.rollout.mask).sum(axis=1),
        "finished": host(episodes.rollout.finished),
        "kl": kl,
      }
      for name, values in found.items():
        columns.setdefault(name, []).extend(values[:kept].tolist())
      if step is not None and start == 0:
        self._write(step, "eval", episodes, scores, kl, min(self._settings.num_samples, kept))
    return {name: np.asarray(values, np.float64) for name, values in columns.items()}

  def _write(self, step: int, split: str, episodes: Episodes, scores: np.ndarray, kl: np.ndarray, num: int) -> None:
    assert self._log is not None, "the loop has not given the log"
    finished = host(episodes.rollout.finished)
    parts = {name: host(values) for name, values in episodes.parts.items()}
    rows = [
      {
        "step": step,
        "row": row,
        "split": split,
        "prompt": data.prompt_value(episodes.prompts[row]),
        "response": episodes.responses[row],
        "reward": _number(scores[row]),
        "parts": {name: _number(values[row]) for name, values in parts.items()},
        "kl": _number(kl[row]),
        "finished": bool(finished[row]),
      }
      for row in range(num)
    ]
    self._log.samples(rows)
    self._log.text(step, f"samples/{split}", samples_table(rows))


def _policy(state: TrainState) -> Params:
  return state.params.get("policy", state.params)


def samples_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Rows of samples.jsonl as a table in Markdown."""
  lines = ["| prompt | response | reward | KL | finished |", "|---|---|---|---|---|"]
  for row in rows:
    numbers = f"{row['reward']:.3f} | {row['kl']:.3f} | {'yes' if row['finished'] else 'no'}"
    lines.append(f"| {_cell(data.value_text(row['prompt']))} | {_cell(row['response'])} | {numbers} |")
  return "\n".join(lines)


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ⏎ ").replace("<", "&lt;")


def _number(value: Any) -> float:
  return round(float(value), 6)


def _bounds(measure: str, interval: Interval) -> list[tuple[str, float]]:
  """The mean and those bounds that are known."""
  bounds = [(f"{measure}_low", interval.low), (f"{measure}_high", interval.high)]
  return [(measure, interval.mean), *((name, value) for name, value in bounds if np.isfinite(value))]


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)  # type: ignore[arg-type]  # an old NumPy would store allow_pickle as an array
  write_bytes(path, buffer.getvalue())
