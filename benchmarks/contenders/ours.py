"""This project's algorithms, as a run of a config carries them out: `python -m contenders.ours WORK MODE`.

MODE is sft, reward_model, dpo, grpo, rloo, ppo or ppo_shared (the value function on the policy's trunk); or `prepare`,
which imports the model and makes the reward model that all of them start from.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contenders import work
from contenders.gate import Gate

FOREVER = 10**6  # steps
STAGES = ("base", "reward_model")
SAMPLING = dict(max_prompt_tokens=work.PROMPT, max_new_tokens=work.RESPONSE, temperature=1.0)


def config(directory: Path, mode: str) -> dict[str, Any]:
  """The config of a run whose last stage, "work", is the algorithm."""
  reward_model = dict(
    algorithm="rlhf_jax.algorithms.reward_model", init="base", comparisons=f"{directory}/comparisons.jsonl",
    eval_fraction=0.0, num_epochs=1, batch_size=work.BATCH, length=work.PROMPT + work.RESPONSE,
    optimizer=_optimizer(), normalize_prompts=f"{directory}/prompts.jsonl", normalize_count=16, sampling=SAMPLING,
    evaluate_every=0, checkpoint_every=FOREVER,
  )  # fmt: skip
  found = dict(
    seed=0,
    tokenizer=f"{directory}/tokenizer.json",
    model=dict(path=f"{directory}/model", dtype=work.read_shape(directory)["dtype"]),
    transport=dict(kind="jit", fsdp=1, microbatches=1, logits_chunk=0, remat="none", attention="xla"),
    stages=(*STAGES, "work"),
    base=dict(algorithm="rlhf_jax.algorithms.import_model"),
    reward_model=reward_model,
  )
  if mode == "prepare":
    return {**found, "stages": STAGES}
  if mode == "reward_model":  # by this name, from which its head is drawn
    return {**found, "stages": STAGES, "reward_model": {**reward_model, "num_epochs": FOREVER}}
  algorithm = mode.partition("_shared")[0]
  settings = dict(algorithm=f"rlhf_jax.algorithms.{algorithm}", init="base", checkpoint_every=FOREVER)
  return {**found, "work": {**settings, **_settings(directory, mode)}}


def _settings(directory: Path, mode: str) -> dict[str, Any]:
  supervised = dict(
    eval_fraction=0.0, num_epochs=FOREVER, batch_size=work.BATCH, length=work.PROMPT + work.RESPONSE,
    optimizer=_optimizer(), evaluate_every=0,
  )  # fmt: skip
  grouped = dict(
    num_steps=FOREVER, environment=_environment(directory, work.GROUP), kl_coef=work.KL_COEF, epochs=1, minibatches=1,
    optimizer=_optimizer(work.RL_LEARNING_RATE),
  )  # fmt: skip
  if mode == "sft":
    return dict(demonstrations=f"{directory}/demonstrations.jsonl", **supervised)
  if mode == "dpo":
    loss = dict(name="dpo", beta=work.BETA, label_smoothing=0.0)
    return dict(comparisons=f"{directory}/comparisons.jsonl", loss=loss, **supervised)
  if mode == "grpo":
    return dict(normalize_std=True, weights="sequence", clip=(0.2, 0.2), ratio="token", kl_kind="k3", **grouped)
  if mode == "rloo":
    return dict(clip=0.5, **grouped)
  shared = mode == "ppo_shared"
  return dict(
    num_steps=FOREVER, environment=_environment(directory, 1), kl_coef=work.KL_COEF, kl_target=0.0, kl_horizon=10000.0,
    discount=1.0, lam=0.95, clip=0.2, value_clip=0.2, value_coef=0.1, entropy_coef=0.0, epochs=work.EPOCHS,
    minibatches=1, whiten_rewards=False, whiten_advantages=True, shared_trunk=shared,
    value_init="" if shared else "reward_model", optimizer=_optimizer(work.RL_LEARNING_RATE),
  )  # fmt: skip


def _optimizer(learning_rate: float = work.LEARNING_RATE) -> dict[str, Any]:
  return dict(
    learning_rate=learning_rate, warmup=0.0, decay="constant", beta1=0.9, beta2=0.999, eps=1e-8, tensorflow_eps=False,
    weight_decay=0.0, clip_norm=1.0,
  )  # fmt: skip


def _environment(directory: Path, samples: int) -> dict[str, Any]:
  scored = samples == 1  # by the reward model, as in PPO
  reward = dict(
    checkpoint="reward_model" if scored else "", checkpoint_weight=1.0,
    function="" if scored else f"{Path(work.__file__)}:score", function_weight=0.0 if scored else 1.0, arguments={},
  )  # fmt: skip
  return dict(
    prompts=f"{directory}/prompts.jsonl", batch_size=work.BATCH // samples, samples_per_prompt=samples,
    sampling=SAMPLING, reward=reward, missing_eos_score=None, monitor=dict(function="", arguments={}),
  )  # fmt: skip


def gated(run_steps, mode: str):
  """`run_steps` whose steps pass a gate, where the steps so far are waited for; between, they run as they do without.

  The first step ends where the second begins.
  """
  import jax

  def run(stage, state, step_fn, num_steps, **settings):
    last: list[Any] = []  # the state and the metrics of the step before

    def finish() -> None:
      jax.block_until_ready(last)

    gate = Gate(finish)

    def step(state, index):
      if last:
        gate.step(**_facts(mode, last[1]))
      last[:] = step_fn(state, index)
      return tuple(last)

    return run_steps(stage, state, step, num_steps, **settings)

  return run


def _facts(mode: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
  """The facts of a step, as functions that fetch them: they are asked for where the gate waits, and not before."""
  from rlhf_jax.train.metrics import to_floats

  def fetch(name: str) -> float:
    return to_floats({name: metrics[name]})[name]

  if mode in ("sft", "reward_model", "dpo"):
    prompts = work.PROMPT * work.BATCH * (1 if mode == "sft" else 2)
    return {"loss": lambda: fetch("loss"), "tokens": lambda: fetch("tokens/trained") - prompts}
  score = {} if "ppo" in mode else {"score": lambda: fetch("reward/proxy")}
  return {"tokens": lambda: fetch("tokens/sampled"), "generation": metrics["seconds/sampling"], **score}


def prepare(directory: Path) -> None:
  """Writes `directory`/prepared, a run that has imported the model and made the reward model, and the classifier that
  starts from the same head."""
  from rlhf_jax.algorithms import reward_model
  from rlhf_jax.pipeline.run import run

  run_steps = reward_model.run_steps

  def keeping_head(stage, state, *arguments, **settings):
    work.make_reward_model(directory, np.asarray(state.params["head"]["kernel"]))
    return run_steps(stage, state, *arguments, **settings)

  reward_model.run_steps = keeping_head
  run(config(directory, "prepare"), directory / "prepared")


def main(directory: Path, mode: str) -> None:
  """Runs the stage of `mode` with its steps behind a gate, in a run that starts from the prepared stages."""
  if mode == "prepare":
    prepare(directory)
    return
  from rlhf_jax.pipeline.run import run

  found = config(directory, mode)
  module = importlib.import_module(found[found["stages"][-1]]["algorithm"])
  module.run_steps = gated(module.run_steps, mode)
  (directory / "runs").mkdir(exist_ok=True)
  workdir = Path(tempfile.mkdtemp(prefix=f"{mode}-", dir=directory / "runs"))
  for stage in found["stages"][:-1]:
    (workdir / stage).symlink_to(directory / "prepared" / stage)
  run(found, workdir)


if __name__ == "__main__":
  main(Path(sys.argv[1]), sys.argv[2])
