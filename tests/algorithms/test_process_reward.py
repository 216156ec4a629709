"""The process reward model: where steps end, the loss by hand, and the stage on the tiny chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_chain import a_stage, recipe, run_stages

from rlhf_jax import data
from rlhf_jax.algorithms import process_reward
from rlhf_jax.data.row_formats import STEPWISE
from rlhf_jax.models import DecoderConfig, language_model, only_scored
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.steps import load_steps

pytestmark = pytest.mark.usefixtures("unoptimised")


@pytest.fixture(scope="module")
def tokenizer(chain):
  return data.load_tokenizer(chain / "vocabulary" / "tokenizer.json")


def test_rows_are_read_and_bad_ones_refused():
  row = {"prompt": "q", "completions": ["a\n", "b"], "labels": [True, False]}
  assert list(STEPWISE.parse(row, "file:1")) == [data.Steps("q", ("a", "b"), (True, False))]
  with pytest.raises(data.DataError, match="file:1: 2 completions but 1 labels"):
    list(STEPWISE.parse({**row, "labels": [True]}, "file:1"))
  with pytest.raises(data.DataError, match="file:1: .*labels"):
    list(STEPWISE.parse({**row, "labels": [True, "no"]}, "file:1"))
  assert STEPWISE.problem(data.Steps("q", ("a", " "), (True, True))) == "no step, or an empty one"


def test_steps_end_at_their_last_token_and_the_last_at_the_end_of_the_turn(tokenizer):
  records = [
    data.Steps("Who is Tom?", ("Tom is a cook.", "He lives here.", "So it is."), (True, False, True)),
    data.Steps("Who is Ann?", ("One step alone.",), (False,)),
    data.Steps("Who?", ("word " * 80, "b"), (True, True)),
  ]
  rows, kept, skips = data.step_rows(tokenizer, records, 64)
  assert kept == [0, 1] and skips == {"longer than 64 tokens": 1}
  whole, _ = data.demonstration_rows(tokenizer, [data.Demonstration(r.prompt, r.response) for r in records[:2]], 64)
  np.testing.assert_array_equal(rows["tokens"], whole["tokens"])
  prompt = data.prompt_ids(tokenizer, "Who is Tom?")
  said = [
    tokenizer.decode(rows["tokens"][0, len(prompt) : end + 1].tolist()) for end in np.flatnonzero(rows["ends"][0])
  ]
  assert said[0].strip() == "Tom is a cook." and said[1].strip().endswith("He lives here.") and "So" not in said[1]
  for row in range(2):
    assert np.flatnonzero(rows["ends"][row])[-1] == np.flatnonzero(whole["mask"][row])[-1]  # where a score is read
  assert rows["correct"][0, rows["ends"][0]].tolist() == [True, False, True] and not rows["correct"][1].any()


def test_the_loss_by_hand():
  """A value is of what stands before a token: here it is the number of tokens before it, times the parameter."""
  value = lambda scale, tokens: scale * jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)  # noqa: E731
  correct = np.array([[0, 1, 0, 0], [0, 0, 0, 1]], bool)
  weights = np.float32([[0, 0.25, 0, 0.25], [0.25, 0, 0, 0.25]])
  batch = process_reward.Stepwise(np.ones((2, 4), np.int32), correct)
  loss, metrics = process_reward.make_loss(value)(0.5, batch, weights)
  rewards = np.array([1.0, 2.0, 0.5, 2.0])  # of the places 1 and 3, 0 and 3: with the token itself
  expected = np.mean(np.logaddexp(0, [-1, 1, 1, -1] * rewards))
  assert float(loss) == pytest.approx(expected, rel=1e-6)
  assert metrics["accuracy"].compute() == 0.5
  assert metrics["reward/right"].compute() == 1.5 and metrics["reward/wrong"].compute() == 1.25


def test_the_reward_of_the_last_step_is_the_score_of_the_response(tokenizer):
  shape = dict(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, d_ff=24, max_length=64)
  model = language_model(DecoderConfig(tokenizer.vocab_size, **shape))
  params = only_scored(model.init_head(jax.random.key(1), model.init(jax.random.key(0))))
  records = [data.Steps("Who?", ("One.", "Two."), (True, True)), data.Steps("Who is it?", ("Three.",), (True,))]
  rows, _, _ = data.step_rows(tokenizer, records, 64)
  rewards = np.asarray(process_reward.step_rewards(model.value, params, rows["tokens"]))
  last = [np.flatnonzero(ends)[-1] for ends in rows["ends"]]
  upto = np.arange(64) <= np.array(last)[:, None]
  np.testing.assert_allclose(rewards[[0, 1], last], model.score(params, rows["tokens"], upto), rtol=1e-4, atol=1e-5)


def test_the_stage_learns_which_steps_are_wrong(chain, tmp_path, tokenizer):
  rng = np.random.default_rng(0)
  rows = []
  for k in range(160):
    labels = [bool(x) for x in rng.integers(0, 2, 2)]
    rows.append({"prompt": f"Q {k % 40}?", "completions": ["good" if x else "bad" for x in labels], "labels": labels})
  data.write_rows(tmp_path / "steps.jsonl", rows)
  train, held_out = load_steps("{run}/steps.jsonl", a_stage(tmp_path), tokenizer, 48, 0.25)
  assert len(train["ends"]) + len(held_out["ends"]) == 160 and train["ends"].sum() == 2 * len(train["ends"])
  settings = dict(length=48, num_epochs=6, batch_size=16, eval_fraction=0.25, optimizer=dict(learning_rate=1e-2))
  config = recipe("process_reward", f"{tmp_path}/steps.jsonl")
  run_stages(config, chain, tmp_path / "run", {"process_reward": settings})
  found = read_metrics(tmp_path / "run" / "process_reward" / "metrics.jsonl")
  assert found[0]["loss"] > 0.4 and found[-1]["loss"] < 0.1 and found[-1]["eval/accuracy"] > 0.95
  assert found[-1]["eval/reward/right"] > 1 and found[-1]["eval/reward/wrong"] < -1
