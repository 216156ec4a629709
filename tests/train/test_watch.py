"""Held-out evaluation and samples of RL, on a policy and a judge that are made up."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.intervals import mean_interval, wilson_interval, win_rate
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train.environment import Watching
from rlhf_jax.train.episodes import Episodes
from rlhf_jax.train.log import StageLog
from rlhf_jax.train.watch import Watch, samples_table
from rlhf_jax.types import Experience, Rollout, TrainState

LENGTH, BATCH = 4, 3
PROMPTS = ["a?", "b?", "c?", "d?", "e?"]
TOKENIZER = data.train_tokenizer([data.render_prompt(prompt) for prompt in PROMPTS], 300)


class Source:
  """An environment whose policy answers with its own number, which is the reward too."""

  class settings:  # noqa: N801
    batch_size, samples_per_prompt = BATCH, 1

    class sampling:  # noqa: N801
      temperature, max_prompt_tokens = 1.0, 30

  def __init__(self):
    self.keys = []

  def respond(self, params, texts, batch, key, copies=1, *, rows=(), step=0):
    self.keys.append(jax.random.key_data(key).tolist())
    quality = np.float32(params["quality"]) + np.arange(len(texts), dtype=np.float32)
    mask = np.tile([False, True, True, False], (len(texts), 1))
    logp = np.where(mask, np.float32(-0.5), np.float32(0))
    rollout = Rollout(np.zeros(mask.shape, np.int32), mask, logp, np.arange(len(texts)) % 2 == 0)
    parts = {"model": quality, "gold": 2 * quality}
    return Episodes(rollout, jnp.asarray(quality), {}, list(texts), [f"{q:.0f}" for q in quality], parts)


def model_apply(params, tokens):
  return jnp.zeros((*tokens.shape, 5))  # the reference: every token has log-prob -log 5


class FakeModel:
  apply = staticmethod(model_apply)


def make_watch(root, source=None, **settings):
  stage = Stage("ppo", root, 0, "", Model(1, 2, 1, 1, 2, 4), Transport("jit", 1, 1), "print", ())
  watch = Watch(Watching(**settings), stage, FakeModel, TOKENIZER, source or Source(), {"quality": 0.0})
  return watch, stage


def rows_of(root):
  return [json.loads(line) for line in (root / "ppo" / "samples.jsonl").read_text().splitlines()]


def state_of(quality, step):
  return TrainState(jnp.int32(step), {"policy": {"quality": quality}}, (), ())


def test_an_evaluation_has_the_means_intervals_and_win_rate_of_every_prompt(tmp_path):
  source = Source()
  file = tmp_path / "eval.jsonl"
  data.write_rows(file, [{"prompt": prompt} for prompt in [*PROMPTS, "f?"]])
  # Five prompts in batches of three: the last batch repeats one.
  watch, stage = make_watch(tmp_path, source, eval_prompts=str(file), num_prompts=5, num_samples=2)
  log = StageLog(stage, 0)
  watch.open(log, 0)
  found = watch.evaluate(state_of(1.0, 8))
  again = watch.evaluate(state_of(1.0, 16))
  log.close()
  proxy = np.array([1, 2, 3, 1, 2], float)
  assert found["proxy"] == pytest.approx(proxy.mean()) and found["gold"] == pytest.approx(2 * proxy.mean())
  interval = mean_interval(2 * proxy)
  assert (found["gold_low"], found["gold_high"]) == pytest.approx((interval.low, interval.high))
  share = wilson_interval(3, 5)
  assert (found["finished"], found["finished_low"]) == pytest.approx((share.mean, share.low))
  beaten = win_rate(2 * proxy, 2 * proxy - 2)
  assert (found["win_rate"], found["win_rate_low"]) == pytest.approx((1.0, beaten.low))
  assert found["length"] == 2.0 and found["kl"] == pytest.approx(2 * (np.log(5) - 0.5))
  assert found == again
  assert source.keys[:2] == source.keys[2:4] == source.keys[4:6]  # policy, reference, policy again: the same keys
  rows = rows_of(tmp_path)
  assert [(row["step"], row["row"], row["split"], row["prompt"]) for row in rows] == [
    (8, 0, "eval", "a?"), (8, 1, "eval", "b?"), (16, 0, "eval", "a?"), (16, 1, "eval", "b?")
  ]  # fmt: skip
  assert rows[1]["response"] == "2" and rows[1]["parts"] == {"model": 2.0, "gold": 4.0}
  assert rows[1]["finished"] is False and rows[1]["kl"] == pytest.approx(2 * (np.log(5) - 0.5), abs=1e-6)


def test_samples_have_what_their_tokens_were_worth_beside_them(tmp_path):
  watch, stage = make_watch(tmp_path, samples_every=4, num_samples=2)
  log = StageLog(stage, 0)
  watch.open(log, 0)
  episodes = Source().respond({"quality": 5.0}, PROMPTS[:BATCH], None, jax.random.key(0))
  rollout = episodes.rollout
  ones = np.ones(rollout.mask.shape, np.float32)
  experience = Experience(rollout.tokens, rollout.mask, rollout.logp, 3 * ones, logp_ref=rollout.logp - ones)
  state, metrics = state_of(1.0, 0), {"loss": 2.0, "seconds/update": 0.5}
  told = [watch.record(index, episodes, experience, state, metrics, kl_coef=0.5) for index in range(9)]
  log.close()
  assert all(found == metrics for index, found in enumerate(told) if index not in (3, 7))
  for found in (told[3], told[7]):
    assert found.keys() == {*metrics, "seconds/recording"} and found["seconds/update"] >= 0.5
  assert [(row["step"], row["row"], row["split"]) for row in rows_of(tmp_path)] == [
    (4, 0, "train"), (4, 1, "train"), (8, 0, "train"), (8, 1, "train")
  ]  # fmt: skip
  assert rows_of(tmp_path)[0]["kl"] == 2.0  # one nat on each of two tokens of the response
  arrays = np.load(stage.directory / "samples" / "8.npz")
  recorded = {"tokens", "mask", "logp", "logp_ref", "advantages", "logp_after", "entropy", "rewards"}
  assert set(arrays) == recorded  # no critic and no clip
  np.testing.assert_allclose(arrays["logp_after"][0, 1:3], -np.log(5), rtol=1e-6)
  assert arrays["rewards"][1].tolist() == [0, -0.5, 6 - 0.5, 0]  # the score, and a nat at 0.5
  assert arrays["advantages"].shape == (2, LENGTH) and (arrays["advantages"] == 3).all()


def test_a_resumed_stage_goes_on_behind_its_checkpoint(tmp_path):
  watch, stage = make_watch(tmp_path, samples_every=1)
  log = StageLog(stage, 0)
  watch.open(log, 0)
  episodes = Source().respond({"quality": 5.0}, PROMPTS[:BATCH], None, jax.random.key(0))
  experience = Experience(*(episodes.rollout.logp,) * 4, logp_ref=episodes.rollout.logp)
  experience = experience.replace(mask=episodes.rollout.mask)
  for index in range(3):
    watch.record(index, episodes, experience, state_of(1.0, 0), {})
  log.close()
  log = StageLog(stage, 2)  # the checkpoint is of step 2
  watch.open(log, 2)
  log.close()
  assert {row["step"] for row in rows_of(tmp_path)} == {1, 2}
  assert sorted(path.name for path in (stage.directory / "samples").iterdir()) == ["1.npz", "2.npz"]


def test_what_is_off_writes_and_evaluates_nothing(tmp_path):
  watch, stage = make_watch(tmp_path)
  log = StageLog(stage, 0)
  watch.open(log, 0)
  for index in range(8):
    assert watch.record(index, None, None, None, {"loss": 2.0}) == {"loss": 2.0}
  log.close()
  assert set(watch.hooks) == {"opened"}
  assert sorted(path.name for path in stage.directory.iterdir()) == ["metrics.jsonl", "speed.jsonl"]


def test_a_table_of_samples_is_one_row_a_sample():
  row = {"prompt": "a|b", "response": "x\n<b>", "reward": 1.0, "kl": 0.5, "finished": True}
  assert samples_table([row]).splitlines()[2:] == ["| a\\|b | x ⏎ &lt;b> | 1.000 | 0.500 | yes |"]
