"""A reward model of another size than the policy, in one run: trained, learnt from, and measured."""

import numpy as np
import pytest
from tiny_chain import SIZES, merged, recipe, shortness, stages_after

from rlhf_jax import data
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.pipeline.check import check_run
from rlhf_jax.pipeline.finished import open_run
from rlhf_jax.settings import ConfigError
from rlhf_jax.train.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("unoptimised")

SMALL = dict(num_layers=1, d_model=8, num_heads=1, num_kv_heads=1, d_ff=16)
CHAIN = ("pretrain", "sft", "reward_model")


def config(chain, directory, **changes):
  """A small reward model with a chain of its own, RL against it, and its accuracy beside that of the run's own size."""
  whole = recipe("quickstart")
  for name in CHAIN:
    whole[f"small_{name}"] = merged(whole[name], SIZES[name]) | {"batch_size": 8}
  whole["small_pretrain"]["num_steps"] = 2
  for name, before in (("sft", "pretrain"), ("reward_model", "sft")):
    whole[f"small_{name}"] |= {"init": f"small_{before}", "num_epochs": 1}
  whole["small_reward_model"]["normalize_count"] = 8
  whole["accuracy"] = dict(
    algorithm="rlhf_jax.stages.reward_accuracy",
    policy="sft",
    prompts="{run}/world/eval_prompts.jsonl",
    num_prompts=8,
    responses=2,
    batch_size=8,
    sampling=whole["ppo"]["environment"]["sampling"],
    gold=dict(function=shortness(directory)["reward"]["function"]),
    min_gap=0.5,
    groups={"own size": (f"{chain}/reward_model",), "small": ("small_reward_model",)},
    reference="own size",
  )
  judge = "small_reward_model"  # whose score is learnt from and logged as the gold reward too
  gold = dict(monitor=dict(function=""), monitor_checkpoint=judge, missing_eos_score=None)
  environment = dict(batch_size=8, reward=dict(checkpoint=judge), **gold)
  run = stages_after(
    whole,
    chain,
    {
      "small_pretrain": {},
      "small_sft": {},
      "small_reward_model": {},
      "ppo": dict(num_steps=1, minibatches=1, environment=environment, value_init="", watch=dict(samples_every=1)),
      "accuracy": {},
    }
    | changes,
  )
  for section in (run["ppo"]["environment"], run["accuracy"], run["small_reward_model"]):
    section["sampling"] = dict(max_prompt_tokens=40, max_new_tokens=6, temperature=0.7)
  return run | {"models": {f"small_{name}": SMALL for name in CHAIN}}


def test_a_reward_model_of_another_size_is_learnt_from_and_measured(chain, tmp_path):
  pipeline.run(config(chain, tmp_path), tmp_path)
  run = open_run(tmp_path)
  small, policy = run.model("small_reward_model"), run.model("ppo")
  assert (small.model.config.d_model, policy.model.config.d_model) == (8, policy.stage.model.d_model)
  groups = data.read_json(tmp_path / "accuracy" / "results.json")["groups"]
  assert set(groups) == {"own size", "small"}
  assert all(
    group["calibration"][0]["scale"] > 0 and group["calibration"][0]["gold"]["num"] for group in groups.values()
  )
  recorded = [row["parts"]["model"] for _, row in data.read_rows(tmp_path / "ppo" / "samples.jsonl")]
  with np.load(tmp_path / "ppo" / "samples" / "1.npz") as arrays:
    scores = small.model.score(small.params, arrays["tokens"], arrays["mask"])
  np.testing.assert_allclose(recorded, scores, atol=1e-5)
  (row,) = read_metrics(tmp_path / "ppo" / "metrics.jsonl")
  assert row["reward/gold"] == pytest.approx(row["reward/proxy"])


def test_only_a_reward_model_may_have_another_shape_than_its_reader(chain, tmp_path):
  mistake = config(chain, tmp_path, ppo=dict(value_init="small_reward_model"))
  with pytest.raises(ConfigError, match=r"config.ppo.value_init is 'small_reward_model'.*d_model=8 there, \d+ here"):
    check_run(mistake, tmp_path)
  mistake = config(chain, tmp_path, small_sft=dict(init="small_pretrain"))
  del mistake["models"]["small_pretrain"]
  with pytest.raises(ConfigError, match="config.small_sft.init is 'small_pretrain', whose model has another shape"):
    check_run(mistake, tmp_path)
