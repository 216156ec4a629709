"""Recipes whose stages no other test runs, at sizes that run in seconds: on the files of the tiny chain."""

import gzip
import json

import pytest
from tiny_chain import SAMPLING, SIZES, recipe, run_stages

from rlhf_jax.train.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("compile_once")


def test_the_mixture_trains_on_the_world_and_on_files_of_ones_own(chain, tmp_path, capsys):
  rows = [{"instruction": f"Say {i}.", "input": "", "output": f"It is {i}."} for i in range(40)]
  with gzip.open(tmp_path / "alpaca.json.gz", "wt") as file:
    json.dump(rows, file)
  talk = [
    [{"role": "user", "content": f"Add {i}."}, {"role": "assistant", "content": f"{i} is added."}] * 2
    for i in range(20)
  ]
  (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in talk))
  config = recipe("mixture", f"{tmp_path}/alpaca.json.gz,{tmp_path}/chat.jsonl")
  assert config["sft"]["length"] == 512
  run_stages(config, chain, tmp_path / "run", {"sft": SIZES["sft"]})
  metrics = read_metrics(tmp_path / "run/sft/metrics.jsonl")
  assert len(metrics) > 2 and metrics[-1]["loss"] < metrics[0]["loss"] and metrics[-1]["eval/loss"] > 0
  told = capsys.readouterr().out
  for line in ("world  120 rows, 66.7%", "own_0  40 rows, 22.2%", "own_1  20 rows, 11.1%", "% full"):
    assert line in told


@pytest.mark.slow
def test_a_checked_answer_is_the_reward_and_the_measure(chain, tmp_path):
  config = recipe("verifiable")
  environment = dict(batch_size=2, samples_per_prompt=8, sampling=SAMPLING, missing_eos_score=None)
  sizes = dict(num_documents=200, num_demonstrations=12, num_prompts=96, num_eval_prompts=48)
  changes = {
    "problems_world": sizes,
    "problems": {},
    "verifiable": dict(init=f"{chain}/sft", num_steps=2, checkpoint_every=2, environment=environment),
    "verifiable_accuracy": dict(
      models=(f"{chain}/sft", "verifiable"), batch_size=8, tasks=dict(problems=dict(max_new_tokens=8))
    ),
  }
  run_stages(config, chain, tmp_path, changes)
  trained, asked = (
    [json.loads(line)["prompt"] for line in (tmp_path / f"problems/{part}.jsonl").read_text().splitlines()]
    for part in ("prompts", "eval_prompts")
  )
  assert len(trained) == 16 and len(asked) >= 8 and not {*trained} & {*asked}
  steps = read_metrics(tmp_path / "verifiable/metrics.jsonl")
  assert len(steps) == 2 and all(0 <= row["reward/proxy"] <= 1 for row in steps)
  found = json.loads((tmp_path / "verifiable_accuracy/few_shot.json").read_text())["tasks"]["problems"]["models"]
  assert len(found) == 2
  for model in found.values():
    right = model["0"]["measures"]["score"]
    assert right["num"] and (right["mean"] * right["num"]) % 1 == pytest.approx(0)
