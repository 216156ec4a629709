"""Features of texts: the score of a reward model is linear in them, and parts of them are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, add_lora, language_model
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.stage import Transport
from rlhf_jax.train import kept_features, text_features, text_scorer
from rlhf_jax.train.features import seconds_of
from rlhf_jax.train.mesh import using_devices

pytestmark = pytest.mark.usefixtures("unoptimised")
PROMPTS = ["Where is Tom?", "Who is Eve?", "Where is Tom?", "What did Max say to Ann when he came home?"]
RESPONSES = ["In Oakford.", "A doctor, and she lives in Oakford.", "4", "Good evening."]
TRANSPORT = Transport("jit", 1, 1)


@pytest.fixture(scope="module")
def opened():
  """A tokenizer, a tiny model, and its parameters with a head that weighs the likelihood, and with adapters."""
  tokenizer = data.train_tokenizer([" ".join([*PROMPTS, *RESPONSES])], 300)
  model = language_model(DecoderConfig(tokenizer.vocab_size, 2, 16, 2, 1, 16, 96))
  params = model.init_head(jax.random.key(1), model.init(jax.random.key(0)), likelihood=0.7)
  params["head"]["bias"] = jnp.float32(0.3)
  params = add_lora(jax.random.key(2), params, rank=2, alpha=4.0, targets=("query", "up"))
  params["lora"] = jax.tree.map(lambda x: x + 0.05, params["lora"])  # fresh adapters change nothing
  return tokenizer, model, params


def features_of(opened, transport=TRANSPORT, batch_size=3):
  tokenizer, model, params = opened
  with using_devices(jax.devices()[:1]):
    return text_features(model, tokenizer, params, batch_size, transport)(PROMPTS, RESPONSES)


def test_the_score_of_a_reward_model_is_linear_in_the_features(opened):
  tokenizer, model, params = opened
  found = features_of(opened)
  assert found.shape == (4, 17) and found.dtype == np.float32
  head = params["head"]
  expected = text_scorer(model, tokenizer, params, 3, TRANSPORT)(PROMPTS, RESPONSES)
  scores = found[:, :-1] @ head["kernel"] + head["bias"] + head["likelihood"] * found[:, -1]
  np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_the_last_feature_is_the_mean_logprob_of_the_response(opened, monkeypatch):
  tokenizer, model, params = opened
  texts = [data.Demonstration(*both) for both in zip(PROMPTS, RESPONSES, strict=True)]
  rows, _ = data.demonstration_rows(tokenizer, texts, 96)
  logp = token_logprobs(model.apply(params, rows["tokens"]), rows["tokens"], mask=rows["mask"])
  expected = np.asarray(logp.sum(axis=1) / rows["mask"].sum(axis=1))
  np.testing.assert_allclose(features_of(opened)[:, -1], expected, atol=1e-5)
  monkeypatch.setattr("rlhf_jax.train.features.AT_ONCE", 4)  # several steps, the last of them not full
  np.testing.assert_allclose(features_of(opened)[:, -1], expected, atol=1e-5)


def test_features_are_the_same_over_devices_and_in_microbatches(opened):
  tokenizer, model, params = opened
  spread = text_features(model, tokenizer, params, 4, Transport("jit", 1, 2))
  np.testing.assert_allclose(spread(PROMPTS, RESPONSES), features_of(opened), atol=1e-5)


def test_a_text_that_is_longer_than_the_model_is_refused(opened):
  tokenizer, model, params = opened
  features = text_features(model, tokenizer, params, 2, TRANSPORT)
  with pytest.raises(data.DataError, match="1 of 1 texts cannot be scored: longer than 96 tokens"):
    features(["Where is Tom?"], ["In Oakford. " * 40])
  assert features([], []).shape == (0, 17)


def test_parts_are_kept_and_go_on(tmp_path, capsys):
  calls = []

  def features(prompts, responses):
    if len(calls) == fail_at:
      raise KeyboardInterrupt
    calls.append(len(prompts))
    return np.array([[len(p), len(r)] for p, r in zip(prompts, responses, strict=True)], np.float32).reshape(-1, 2)

  def kept(model="tiny", responses=RESPONSES[:3]):
    return kept_features(tmp_path / "features", features, PROMPTS[:3], responses, 2, model).tolist()

  fail_at = 1
  with pytest.raises(KeyboardInterrupt):
    kept()
  fail_at = None
  expected = [[len(p), len(r)] for p, r in zip(PROMPTS[:3], RESPONSES[:3], strict=True)]
  assert kept() == expected and calls == [2, 1]
  assert "features 2/3" in capsys.readouterr().out
  assert kept() == expected and calls == [2, 1] and not capsys.readouterr().out
  assert seconds_of(tmp_path / "features") >= 0
  assert kept(responses=[*RESPONSES[:2], "other"])[2] == [13, 5] and calls == [2, 1, 1]
  kept("another model", [*RESPONSES[:2], "other"])
  assert calls == [2, 1, 1, 2, 1]
  assert kept_features(tmp_path / "none", features, [], [], 2, "tiny").shape == (0, 2)
