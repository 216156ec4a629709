"""Dynamic sampling: which groups it drops and takes, what that does to a gradient, and what a step is made from."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import leave_one_out
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import environment
from rlhf_jax.train.environment import Environment, make_environment
from rlhf_jax.train.episodes import Episodes, has_spread, refill, take_places
from rlhf_jax.train.functions import Function
from rlhf_jax.train.prompts import PromptSet
from rlhf_jax.train.reward_functions import Scored
from rlhf_jax.train.rewards import Part, Reward
from rlhf_jax.train.sampler import Sampling
from rlhf_jax.types import Mean, Rollout

K = 2


def episodes_of(scores, mark=0):
  """Episodes whose prompts, responses, tokens and rows tell where they come from."""
  scores = np.float32(scores)
  names = [f"{mark}.{i // K}" for i in range(len(scores))]
  tokens = jnp.full((len(scores), 3), mark) + jnp.arange(len(scores))[:, None]
  mask = jnp.tile(jnp.array([False, True, True]), (len(scores), 1))
  rollout = Rollout(tokens, mask, jnp.zeros(mask.shape), mask[:, 1])
  metrics = {"reward/proxy": Mean(scores, np.ones_like(scores)), "tokens/sampled": 10.0 + mark, "seconds/reward": 1.0}
  rows = [{"name": name} for name in names]
  return Episodes(rollout, jnp.asarray(scores), metrics, names, [*names], {"gold": 2 * scores}, None, rows)


ALIKE, SPREAD = [1, 1], [0, 1]


def test_groups_with_spread_take_the_places_of_those_without():
  first = episodes_of(ALIKE + SPREAD + [0, 0], mark=100)
  rounds = [episodes_of(ALIKE + ALIKE + [2, 3], mark=200), episodes_of([5, 6] + SPREAD + SPREAD, mark=300)]
  found = refill(first, rounds.__getitem__, 5, copies=K)
  assert found.prompts == found.responses == ["200.2"] * 2 + ["100.1"] * 2 + ["300.0"] * 2
  assert found.scores.tolist() == [2, 3, 0, 1, 5, 6] and found.parts["gold"].tolist() == [4, 6, 0, 2, 10, 12]
  assert found.rollout.tokens[:, 0].tolist() == [204, 205, 102, 103, 300, 301]
  assert [row["name"] for row in found.rows] == found.prompts
  # Rewards are those of the prompts drawn first; tokens and seconds are of all rounds.
  assert found.metrics["reward/proxy"].compute() == pytest.approx(0.5)
  assert found.metrics["tokens/sampled"] == 110 + 210 + 310 and found.metrics["seconds/reward"] == 3
  told = {name: found.metrics[f"refill/{name}"] for name in ("rounds", "dropped", "missing")}
  assert told["rounds"] == 2 and told["dropped"].compute() == pytest.approx(4 / 9) and told["missing"] == 0


def test_a_place_that_none_is_found_for_keeps_its_group():
  found = refill(
    episodes_of(ALIKE + SPREAD + ALIKE, 100), lambda _: episodes_of(ALIKE + ALIKE + SPREAD, 200), 1, copies=K
  )
  assert found.prompts[::K] == ["200.2", "100.1", "100.2"]
  assert found.metrics["refill/rounds"] == 1 and found.metrics["refill/missing"] == pytest.approx(1 / 3)


def test_a_part_of_the_reward_can_decide():
  first, new = (episodes_of(scores, mark) for scores, mark in ((SPREAD + SPREAD, 100), (SPREAD + SPREAD, 200)))
  first.parts["function"], new.parts["function"] = np.float32(ALIKE + SPREAD), np.float32(ALIKE + SPREAD)
  found = refill(first, lambda _: new, 1, copies=K, part="function")
  assert found.prompts[::K] == ["200.1", "100.1"] and found.metrics["refill/dropped"].compute() == 0.5


def test_no_round_is_drawn_for_a_full_batch():
  first = episodes_of(SPREAD + SPREAD)
  found = refill(first, lambda _: pytest.fail("nothing is missing"), 3, copies=K)
  assert found.prompts is first.prompts and found.metrics["refill/rounds"] == 0
  assert found.metrics["refill/dropped"].compute() == found.metrics["refill/missing"] == 0


def test_scores_of_tokens_come_along_where_one_round_has_none():
  first, new = episodes_of(ALIKE + SPREAD), episodes_of(SPREAD + SPREAD)
  ones = jnp.ones((4, 3))
  for before, after, expected in ((None, ones, [1, 1, 0, 0]), (ones, None, [0, 0, 1, 1])):
    kept = Episodes(**{**vars(first), "token_scores": before})
    found = refill(kept, lambda _, after=after: Episodes(**{**vars(new), "token_scores": after}), 1, copies=K)
    assert found.token_scores[:, 1].tolist() == expected


@pytest.mark.parametrize("max_refills", [0, 1, 3])
def test_the_expected_gradient_of_a_prompt_keeps_its_direction(max_refills):
  """By enumeration of all rounds: with p the probability of spread, it grows by (1 - (1 - p)^(refills + 1)) / p.

  Two responses, each 1 with probability q and 0 otherwise, and the RLOO gradient of the logit of q.
  """
  q = 0.2
  groups = [
    (np.float32(group), np.prod([q if x else 1 - q for x in group])) for group in itertools.product((0, 1), repeat=K)
  ]

  def gradient(group):
    advantages = np.asarray(leave_one_out(jnp.asarray(group)[None]))[0]
    return float(np.mean(advantages * (group - q)))  # d log p(x) / d logit = x - q

  plain = sum(p * gradient(group) for group, p in groups)
  assert plain == pytest.approx(q * (1 - q))  # d E[x] / d logit
  expected, full = 0.0, 0.0
  for rounds in itertools.product(groups, repeat=max_refills + 1):
    kept = rounds[0][0]
    for new, _ in rounds[1:]:
      places = take_places(has_spread(kept, K), has_spread(new, K))
      kept = np.concatenate([kept, new]).reshape(2, K)[places].ravel()
    probability = np.prod([p for _, p in rounds])
    expected += probability * gradient(kept)
    full += probability * has_spread(kept, K)[0]
  spread = 2 * q * (1 - q)
  assert full == pytest.approx(1 - (1 - spread) ** (max_refills + 1))
  assert expected == pytest.approx(plain * full / spread)


TEXTS = [f"prompt {i}" for i in range(7)]
PROMPTS = PromptSet(TEXTS, np.arange(7, dtype=np.int32)[:, None], np.ones(7, np.int32), [{"text": t} for t in TEXTS])


@pytest.fixture
def source(tmp_path, monkeypatch):
  """`source(spread, **settings)`: episodes of made-up responses; spread(prompt) says whose scores differ."""

  def make(spread, max_refills=2, seed=0, calls=None):
    def sample(params, prompts, key, copies):
      tokens = np.repeat(prompts.tokens, copies, axis=0)
      draws = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), (3,)))(jnp.arange(len(tokens)))
      mask = jnp.tile(jnp.array([False, True, True]), (len(tokens), 1))
      if calls is not None:
        calls.append((prompts.tokens[:, 0].tolist(), np.asarray(jax.random.key_data(key)).tolist()))
      return Rollout(jnp.tile(jnp.asarray(tokens), (1, 3)), mask, draws, mask[:, 1]), ["a"] * len(tokens)

    def score(responses):
      texts = enumerate(responses.prompts)
      assert [row["text"] for row in responses.rows] == responses.prompts
      return Scored(np.float32([n % K if spread(text) else 1 for n, text in texts]))

    monkeypatch.setattr(environment, "load_prompts", lambda *_: PROMPTS)
    monkeypatch.setattr(environment, "make_sampler", lambda *_, **__: sample)
    monkeypatch.setattr(environment, "make_parts", lambda *_, **__: {"function": Part(1.0, score)})
    sampling = Sampling(max_prompt_tokens=1, max_new_tokens=2, temperature=1.0)
    settings = Environment("", 3, K, sampling, Reward("", 0.0, "own.py:f", 1.0), None, Function(""), max_refills)
    stage = Stage("rl", tmp_path, seed, "", Model(1, 2, 1, 1, 2, 4), Transport("jit", 1, 1), "print", ())
    return make_environment(settings, stage, None, None)

  return make


def is_good(text):
  return int(text.split()[1]) % 2 == 0


def test_a_step_draws_the_same_prompts_first_and_further_ones_by_seed_step_and_round(source):
  calls, plain = [], []
  refilled, without = source(is_good, calls=calls), source(is_good, max_refills=0, calls=plain)
  for index in range(4):
    found, first = refilled(None, index), without(None, index)
    spread = [is_good(text) for text in first.prompts[::K]]
    # What had spread keeps its place, bit for bit.
    for place in np.flatnonzero(spread) * K:
      assert found.prompts[place] == first.prompts[place]
      np.testing.assert_array_equal(found.rollout.logp[place : place + K], first.rollout.logp[place : place + K])
    assert found.metrics["reward/proxy"].compute() == first.metrics["reward/proxy"].compute()
    assert [row["text"] for row in found.rows] == found.prompts
  keys = [str(key) for _, key in calls]
  assert len(set(keys)) == len(keys) > 4  # each round of each step has a key of its own
  again = []
  source(is_good, calls=again)(None, 3)  # a resumed run knows nothing of the steps before
  assert again == calls[-len(again) :] and len(again) > 1
  other = []
  source(is_good, seed=1, calls=other)(None, 3)
  assert other[0] != again[0]


def test_keys_of_rounds_are_no_keys_of_rows(source):
  """Sampling folds the number of a row into the key of a step: a round must not draw what a row has drawn."""
  calls = []
  source(lambda _: False, calls=calls)(None, 0)
  step = jax.random.wrap_key_data(jnp.asarray(calls[0][1], jnp.uint32))
  rows = {str(np.asarray(jax.random.key_data(jax.random.fold_in(step, row))).tolist()) for row in range(64)}
  assert len(calls) == 3 and not rows & {str(key) for _, key in calls[1:]}


def test_every_round_has_the_shapes_of_the_first(source):
  """Nothing is compiled anew in later steps, however many rounds they take."""
  episodes = source(is_good)
  shapes = [
    jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), vars(episodes(None, i))["rollout"]) for i in range(4)
  ]
  assert all(shape == shapes[0] for shape in shapes)


def test_groups_of_one_cannot_be_refilled():
  sampling = Sampling(max_prompt_tokens=1, max_new_tokens=2, temperature=1.0)
  reward = Reward("", 0.0, "own.py:f", 1.0)
  with pytest.raises(ValueError, match="max_refills .* samples_per_prompt=1 makes no groups"):
    Environment("", 3, 1, sampling, reward, None, Function(""), 1)
  with pytest.raises(ValueError, match="refill_part='model' is no part of the reward. .*'?function'?"):
    Environment("", 3, 2, sampling, reward, None, Function(""), 1, "model")
