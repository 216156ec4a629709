"""Likelihoods against the sum over the vocabulary, the few-shot and perplexity stages on a tiny chain."""

import itertools
import json
import math
import shutil

import jax
import numpy as np
import pytest
from tiny_chain import SIZES, shared_settings

from rlhf_jax import data
from rlhf_jax.evaluation.likelihood import make_likelihood
from rlhf_jax.evaluation.statistics import ratio_interval
from rlhf_jax.intervals import mean_interval
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.stages import few_shot
from rlhf_jax.stages.few_shot import _share
from rlhf_jax.stages.perplexity import perplexities, windows

pytestmark = pytest.mark.usefixtures("unoptimised")


@pytest.fixture(scope="module")
def model():
  return language_model(DecoderConfig(5, num_layers=1, d_model=8, num_heads=2, num_kv_heads=2, d_ff=8, max_length=40))


def test_likelihoods_of_all_continuations_sum_to_one(model):
  params = model.init(jax.random.key(0))
  likelihood = make_likelihood(model, pad_id=0, batch_size=8)
  pairs = [([1, 3], list(tail)) for tail in itertools.product(range(5), repeat=2)]
  logp, greedy = likelihood(params, pairs)
  assert np.exp(logp[:25]).sum() == pytest.approx(1, abs=1e-5)
  firsts = np.exp(logp[:25]).reshape(5, 5).sum(axis=1)
  assert greedy[:25].sum() == 1 and pairs[int(np.argmax(greedy))][1][0] == int(np.argmax(firsts))
  alone, _ = likelihood(params, pairs[3:4])  # its batch is filled up with padding
  assert alone[0] == pytest.approx(logp[3], abs=1e-5)
  with pytest.raises(ValueError, match="41 tokens exceed"):
    likelihood(params, [([1] * 40, [2])])
  with pytest.raises(ValueError, match="empty"):
    likelihood(params, [([], [2])])


def test_ties_share_the_point():
  assert _share(np.array([1.0, 2.0, 2.0]), 1) == 0.5
  assert _share(np.array([1.0, 2.0, 3.0]), 2) == 1.0
  assert _share(np.array([1.0, 2.0, 3.0]), 1) == 0.0


@pytest.mark.parametrize("num", [1, 3, 4, 5, 17])
def test_windows_count_every_token_once_with_its_past(num):
  ids = list(range(10, 10 + num))
  cuts = windows(ids, 1, length=5, stride=2)
  assert sum((counted for _, counted in cuts), []) == ids
  done = 0
  for number, (context, counted) in enumerate(cuts):
    assert context[0] == 1 and len(context) + len(counted) <= 5
    past = context[1:]
    assert past == ids[done - len(past) : done]
    assert number == 0 or len(past) >= 2
    done += len(counted)
  with pytest.raises(data.DataError, match="empty"):
    windows([], 1, 5, 2)


def test_perplexities_of_a_uniform_model():
  found = perplexities(np.array([3, 1]) * math.log(8), np.array([3, 1]), "ab cé")  # 4 tokens, 6 bytes, 2 words
  assert found["token_perplexity"]["mean"] == pytest.approx(8)
  assert found["bits_per_byte"]["mean"] == pytest.approx(3 * 4 / 6)
  assert found["byte_perplexity"]["mean"] == pytest.approx(2 ** (3 * 4 / 6))
  assert found["word_perplexity"]["mean"] == pytest.approx(64)
  assert found["loss"]["low"] == pytest.approx(found["loss"]["high"])


def test_ratio_interval_is_the_mean_interval_where_weights_agree_and_covers_where_they_do_not():
  x = np.array([1.0, 4.0, 2.0, 8.0])
  assert ratio_interval(2 * x, np.full(4, 2.0)) == pytest.approx(mean_interval(x))
  rng = np.random.default_rng(0)
  hits = 0
  for _ in range(400):
    sizes = rng.integers(1, 20, 40)
    totals = sizes * 2.0 + rng.normal(size=40) * np.sqrt(sizes)
    found = ratio_interval(totals, sizes)
    hits += found.low < 2.0 < found.high
  assert 0.92 < hits / 400 < 0.98
  assert ratio_interval([6.0], [3.0])[:3] == (2.0, -np.inf, np.inf)


def test_the_stages_on_the_tiny_chain(chain, tmp_path, monkeypatch):
  (tmp_path / "text.txt").write_text("Tom lives in Oakford. " * 20)
  questions = [json.loads(line) for line in (chain / "world/eval_prompts.jsonl").read_text().splitlines()]
  rows = [{"prompt": row["prompt"], "choices": ["yes", "no"], "answer": i % 2} for i, row in enumerate(questions)]
  rows.append({"prompt": "long " * 60, "choices": ["yes", "no"], "answer": 0})
  (tmp_path / "run").mkdir()
  data.write_rows(tmp_path / "run/questions.jsonl", rows)
  task = dict(file="{run}/questions.jsonl", method="likelihood")
  score = dict(function="rlhf_jax.verify:exact_match", arguments=dict(answers=task["file"]))
  base = f"{chain}/pretrain"
  config = shared_settings(chain) | {
    "stages": ["few_shot", "perplexity"],
    "few_shot": dict(
      algorithm="rlhf_jax.stages.few_shot",
      models=(f"{chain}/sft",),
      text_models=(base,),
      tasks=dict(ranked=task, said=dict(task, method="generate", score=score, max_new_tokens=4)),
      shots=(0, 1),
      num_questions=0,
      batch_size=8,
    ),
    "perplexity": dict(
      algorithm="rlhf_jax.stages.perplexity",
      models=(base,),
      texts=dict(plain=str(tmp_path / "text.txt")),
      length=32,
      stride=16,
      batch_size=8,
    ),
  }
  pipeline.run(config, tmp_path / "run")
  found = json.loads((tmp_path / "run/few_shot/few_shot.json").read_text())["tasks"]
  assert found["ranked"]["questions"] + found["ranked"]["left_out"] == len(rows)
  assert found["ranked"]["left_out"] >= 1
  for label in (f"{chain}/sft", f"{base} (text)"):
    for count in ("0", "1"):
      acc = found["ranked"]["models"][label][count]["measures"]["acc"]
      assert acc["num"] == found["ranked"]["questions"] and 0 <= acc["low"] <= acc["mean"] <= acc["high"] <= 1
      assert found["said"]["models"][label][count]["measures"]["score"]["mean"] <= 1
  responses = [json.loads(line) for line in (tmp_path / "run/few_shot/responses.jsonl").read_text().splitlines()]
  assert len(responses) == 4 * found["said"]["questions"]
  assert "| ranked |" in (tmp_path / "run/few_shot/few_shot.md").read_text()
  loss = json.loads((tmp_path / "run/perplexity/perplexity.json").read_text())["texts"]["plain"]["models"][base]
  assert 0 < loss["loss"]["mean"] < 2 * math.log(SIZES["vocabulary"]["vocab_size"])
  page = (tmp_path / "run/report.html").read_text()
  assert "Few-shot" in page and "plain" in page

  load, loaded = few_shot.load_policy, []

  def killed(stage, name, *rest):
    loaded.append(name)
    if len(loaded) == 2:
      raise RuntimeError("killed")
    return load(stage, name, *rest)

  shutil.rmtree(tmp_path / "run/few_shot")
  again = {**config, "stages": ["few_shot"]}
  monkeypatch.setattr(few_shot, "load_policy", killed)
  with pytest.raises(RuntimeError, match="killed"):
    pipeline.run(again, tmp_path / "run")
  pipeline.run(again, tmp_path / "run")
  assert loaded == [f"{chain}/sft", base, base]  # what was found of the first model was kept
  assert json.loads((tmp_path / "run/few_shot/few_shot.json").read_text())["tasks"] == found
  kept = [json.loads(line) for line in (tmp_path / "run/few_shot/responses.jsonl").read_text().splitlines()]
  assert kept == responses and not (tmp_path / "run/few_shot/parts.txt").exists()
