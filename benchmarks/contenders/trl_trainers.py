"""TRL's trainers with their defaults: `python -m contenders.trl_trainers WORK MODE`.

MODE is sft, reward_model, dpo, dpo_precomputed (the reference scores each row once, before training), grpo or rloo; or
ppo, for which TRL 1.12, the last with PPO, must come first on PYTHONPATH.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast, TrainerCallback

from contenders import work
from contenders.gate import Gate, threads

COPIES = 256  # of the rows in a pass of supervised learning, as a data set of more than one batch
STEPS = 10**6
GENERATION: list[float] = []  # seconds of PPO's calls of the generation in this step


class Passing(TrainerCallback):
  """Passes the gate once a step is logged, which is each step."""

  def __init__(self, mode: str):
    self._gate, self._mode = Gate(), mode

  def on_log(self, args, state, control, logs=None, **_):
    if "train_runtime" not in (logs or {}):
      self._gate.step(**facts(self._mode, logs))
      GENERATION.clear()


def facts(mode: str, logs: dict[str, Any]) -> dict[str, Any]:
  """The facts of a step by TRL's names."""
  if mode == "ppo":
    return {"tokens": work.BATCH * work.RESPONSE - logs["val/num_eos_tokens"], "generation": sum(GENERATION)}
  if mode in ("grpo", "rloo"):
    return {"score": logs["reward"], "tokens": logs["completions/mean_length"] * work.BATCH}
  rows = work.BATCH * (1 if mode == "sft" else 2)
  return {"loss": logs["loss"], "tokens": rows * work.RESPONSE}


def read_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
  """The tokenizer, which pads in front."""
  return PreTrainedTokenizerFast(
    tokenizer_file=str(directory / "tokenizer.json"), pad_token="<pad>", eos_token="<eos>", padding_side="left"
  )


def main(directory: Path, mode: str) -> None:
  """Trains until the gate is shut."""
  torch.set_num_threads(threads())
  transformers.logging.set_verbosity_error()
  tokenizer = read_tokenizer(directory)

  def model(kind=LlamaForCausalLM, name="model"):
    return kind.from_pretrained(directory / name, dtype=torch.float32)

  rate = work.LEARNING_RATE if mode in ("sft", "reward_model", "dpo", "dpo_precomputed") else work.RL_LEARNING_RATE
  common = dict(
    output_dir=tempfile.mkdtemp(prefix=f"trl-{mode}-", dir=directory), per_device_train_batch_size=work.BATCH,
    learning_rate=rate, lr_scheduler_type="constant", logging_steps=1, save_strategy="no", report_to="none", fp16=False,
    use_cpu=not torch.cuda.is_available(), bf16=work.read_shape(directory)["dtype"] == "bfloat16",
    gradient_checkpointing=False, disable_tqdm=True,
  )  # fmt: skip
  if mode == "ppo":
    _ppo(directory, tokenizer, model, common)
    return
  import trl

  texts = [
    {"prompt": tokenizer.decode(row["prompt_ids"])}
    | {kind: tokenizer.decode(row[f"{kind}_ids"][:-1]) for kind in ("chosen", "rejected")}
    for row in work.rows(directory)
  ]
  pairs, settings = texts[: work.BATCH] * COPIES, {**common, "max_steps": STEPS}
  ordered = {**settings, "train_sampling_strategy": "sequential"}
  passing: dict[str, Any] = dict(processing_class=tokenizer, callbacks=[Passing(mode)])
  if mode == "sft":
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs]
    trainer = trl.SFTTrainer(
      model=model(), args=trl.SFTConfig(**ordered, max_length=None), train_dataset=Dataset.from_list(rows), **passing
    )
  elif mode == "reward_model":
    trainer = trl.RewardTrainer(
      model=model(LlamaForSequenceClassification, "reward_model"), args=trl.RewardConfig(**ordered, max_length=None),
      train_dataset=Dataset.from_list(pairs), **passing,
    )  # fmt: skip
  elif mode.startswith("dpo"):
    arguments = trl.DPOConfig(
      **ordered, max_length=None, beta=work.BETA, precompute_ref_log_probs=mode == "dpo_precomputed"
    )
    trainer = trl.DPOTrainer(
      model=model(), ref_model=model(), args=arguments, train_dataset=Dataset.from_list(pairs), **passing
    )
  else:
    config, kind = getattr(trl, f"{mode.upper()}Config"), getattr(trl, f"{mode.upper()}Trainer")
    arguments = config(
      **settings, num_generations=work.GROUP, max_completion_length=work.RESPONSE, beta=work.KL_COEF, temperature=1.0
    )
    rows = [{"prompt": row["prompt"]} for row in texts]
    trainer = kind(
      model=model(), reward_funcs=work.distinct_characters, args=arguments, train_dataset=Dataset.from_list(rows),
      **passing,
    )  # fmt: skip
  trainer.train()


def _ppo(directory: Path, tokenizer, model, common: dict[str, Any]) -> None:
  import trl
  from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

  if not trl.__version__.startswith("1.12."):
    raise SystemExit(f"TRL {trl.__version__} is not 1.12, the last with PPO, which must be first on PYTHONPATH")
  generate = ppo_trainer.batch_generation

  def timed(*arguments, **settings):
    start = time.perf_counter()
    try:
      return generate(*arguments, **settings)
    finally:
      GENERATION.append(time.perf_counter() - start)

  ppo_trainer.batch_generation = timed
  rows = Dataset.from_list([{"input_ids": row["prompt_ids"]} for row in work.rows(directory)])
  arguments = PPOConfig(
    **common, gradient_accumulation_steps=1, num_mini_batches=1, num_ppo_epochs=work.EPOCHS,
    total_episodes=work.BATCH * STEPS, response_length=work.RESPONSE, temperature=1.0, kl_coef=work.KL_COEF,
    num_sample_generations=0, local_rollout_forward_batch_size=work.BATCH, stop_token=None,
  )  # fmt: skip
  scored = [model(LlamaForSequenceClassification, "reward_model") for _ in range(2)]
  trainer = PPOTrainer(
    args=arguments, processing_class=tokenizer, model=model(), ref_model=model(), reward_model=scored[0],
    value_model=scored[1], train_dataset=rows, eval_dataset=rows.select(range(work.BATCH)),
    callbacks=[Passing("ppo")],
  )  # fmt: skip
  trainer.train()


if __name__ == "__main__":
  main(Path(sys.argv[1]), sys.argv[2])
