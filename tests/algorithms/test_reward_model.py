"""Reward models from comparisons and from every kind of judgement: the loss by hand; the stages on the tiny chain."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_chain import SAMPLING, recipe, run_stages

from rlhf_jax import data
from rlhf_jax.algorithms import reward_model
from rlhf_jax.feedback.exchange import read_records, write_records
from rlhf_jax.feedback.queue import Answer, next_assignment, submit
from rlhf_jax.feedback.records import Annotator, current
from rlhf_jax.feedback.store import add_records, open_store
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.stages import annotators, judgements
from rlhf_jax.train import init_state, make_optimizer, make_update, place
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.types import Preferences

pytestmark = pytest.mark.usefixtures("unoptimised")
NAN = np.nan
RANKS = np.array([[0, 1, -1], [2, 0, 1], [-1, -1, -1], [0, 0, -1]], np.int32)
RATINGS = np.array([[NAN, NAN, NAN], [0.5, -1.0, NAN], [1.0, NAN, NAN], [NAN, 2.0, 1.0]], np.float32)
REWARDS = np.array([[1.0, 0.5, 9.0], [0.1, 0.2, -0.3], [2.0, 9.0, 9.0], [0.0, 1.0, -1.0]], np.float32)
MARGIN = np.array([0.5, 0.0, 0.0, 0.0], np.float32)
WEIGHT = np.array([1.0, 2.0, 1.0, 4.0], np.float32)


def softplus(x):
  return np.log1p(np.exp(x))


def score(params, tokens, mask):
  """The reward is the parameter at the row's first token, where the row has any token at all."""
  return jnp.where(mask[:, 0], params[tokens[:, 0]], jnp.nan)


def batch(present):
  tokens = np.arange(12, dtype=np.int32).reshape(4, 3, 1)
  return Preferences(tokens, present[..., None], RANKS, RATINGS, MARGIN)


def weights():
  rows = dict(ranks=RANKS, ratings=RATINGS, weight=WEIGHT)
  return reward_model.sum_to_one(reward_model.row_weights(rows))


def test_weights_are_of_what_was_said_and_sum_to_one():
  # ranked: rows 0 and 1 (row 3 is a tie); rated: rows 1, 2 and 3
  assert weights()["ranks"].tolist() == pytest.approx([0.1, 0.2, 0, 0])
  assert weights()["ratings"].tolist() == pytest.approx([0, 0.2, 0.1, 0.4])


def test_centring_is_added_for_each_ranking_and_has_no_effect_on_ratings_alone():
  plain, centred = (
    reward_model.make_loss(score, centring=x)(jnp.asarray(REWARDS.ravel()), batch(np.ones((4, 3), bool)), weights())
    for x in (0.0, 0.1)
  )
  r = REWARDS
  rows = (
    (r[0, 0] + r[0, 1]) ** 2,
    np.mean([(r[1, 0] + r[1, 1]) ** 2, (r[1, 0] + r[1, 2]) ** 2, (r[1, 1] + r[1, 2]) ** 2]),
  )
  assert float(centred[0] - plain[0]) == pytest.approx(0.1 * (0.1 * rows[0] + 0.2 * rows[1]), rel=1e-4)
  section = recipe("reward_from_feedback", "ratings")["reward_ratings"]
  with pytest.raises(ConfigError, match="centring and ties have no effect on kinds=\\('ratings',\\)"):
    parse(reward_model.Config, {**section, "kinds": ("ratings",), "centring": 0.01}, "reward_ratings")


@pytest.mark.parametrize("ranking", ["pairs", "plackett_luce"])
def test_the_loss_by_hand(ranking):
  r = REWARDS
  if ranking == "pairs":
    orders = [softplus(r[0, 1] - r[0, 0] + 0.5), np.mean([softplus(r[1, 2] - r[1, 1]), softplus(r[1, 0] - r[1, 1]),
                                                          softplus(r[1, 0] - r[1, 2])])]  # fmt: skip
  else:
    below = [np.log(np.exp(r[1, [1, 2, 0]]).sum()) - r[1, 1], np.log(np.exp(r[1, [2, 0]]).sum()) - r[1, 2]]
    orders = [softplus(r[0, 1] - r[0, 0]), sum(below)]
  errors = [((r[1, 0] - 1.0) ** 2 + (r[1, 1] + 2.0) ** 2) / 2, 0.0, ((r[3, 1] - 4) ** 2 + (r[3, 2] - 2) ** 2) / 2]
  expected = 0.1 * orders[0] + 0.2 * orders[1] + 0.2 * errors[0] + 0.1 * errors[1] + 0.4 * errors[2]
  loss_fn = reward_model.make_loss(score, ranking=ranking, rating_scale=2.0)
  margins = dict(margin=MARGIN if ranking == "pairs" else MARGIN * 0)
  present = (RANKS >= 0) | ~np.isnan(RATINGS)
  given = batch(present).replace(**margins)
  differentiated = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
  (loss, metrics), gradient = differentiated(jnp.asarray(REWARDS.ravel()), given, weights())
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert np.isfinite(gradient).all() and (np.asarray(gradient).reshape(4, 3)[~present] == 0).all()
  assert metrics["accuracy"].compute() == pytest.approx(3 / 4)  # of row 1 one pair of three is wrong


def test_the_loss_of_yes_and_no_by_hand():
  """-log sigmoid(r) for yes, -log sigmoid(-r) for no, the mean of a judgement's answers, beside the other kinds."""
  answers = np.array([[NAN, NAN, NAN], [1.0, 0.0, NAN], [0.0, NAN, NAN], [NAN, NAN, NAN]], np.float32)
  nobody = np.full((4, 3), -1, np.int32)
  rows = dict(ranks=nobody, yes_no=answers, weight=WEIGHT)
  shares = reward_model.sum_to_one(reward_model.row_weights(rows))
  assert shares["yes_no"].tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0]) and not shares["ranks"].any()
  given = batch(~np.isnan(answers)).replace(ranks=nobody, ratings=None, margin=None, yes_no=answers)
  loss_fn = jax.value_and_grad(reward_model.make_loss(score), has_aux=True)
  (loss, metrics), gradient = loss_fn(jnp.asarray(REWARDS.ravel()), given, shares)
  rows_loss = np.mean([softplus(-0.1), softplus(0.2)]), softplus(2.0)
  assert float(loss) == pytest.approx(2 / 3 * rows_loss[0] + 1 / 3 * rows_loss[1], rel=1e-5)
  assert metrics["yes_no/loss"].compute() == pytest.approx(float(loss))
  gradient = np.asarray(gradient).reshape(4, 3)
  assert (np.sign(gradient) == [[0, 0, 0], [-1, 1, 0], [1, 0, 0], [0, 0, 0]]).all()
  # Beside rankings and ratings the losses add up, each with its own weights.
  both = {**weights(), "yes_no": shares["yes_no"]}
  whole = batch(np.ones((4, 3), bool)).replace(yes_no=answers)
  alone, _ = reward_model.make_loss(score)(jnp.asarray(REWARDS.ravel()), whole.replace(yes_no=None), weights())
  total, metrics = reward_model.make_loss(score)(jnp.asarray(REWARDS.ravel()), whole, both)
  assert float(total - alone) == pytest.approx(float(loss), rel=1e-5)
  assert {"ranks/loss", "ratings/loss", "yes_no/loss"} <= metrics.keys()


def test_the_loss_of_comparisons_by_hand():
  """Bradley-Terry over the untied pairs; every group with one weighs the same, and a tie of rewards is half right."""
  rewards = np.array([[1.0, 1.0, 9.0], [0.1, 0.2, -0.3], [2.0, 9.0, 9.0], [0.0, 1.0, -1.0]], np.float32)
  tokens = np.arange(12, dtype=np.int32).reshape(4, 3, 1)
  rows = dict(tokens=tokens, mask=(RANKS >= 0)[..., None], ranks=RANKS)
  shares = reward_model.sum_to_one(reward_model.row_weights({**rows, "weight": np.ones(4, np.float32)}))
  assert {name: weights.tolist() for name, weights in shares.items()} == {"ranks": [0.5, 0.5, 0, 0]}
  loss, metrics = reward_model.make_loss(score)(jnp.asarray(rewards.ravel()), Preferences(**rows), shares)
  # group 0: a tie of rewards; group 1: 0.2 before -0.3 before 0.1
  groups = np.log(2), np.mean([softplus(-0.3 - 0.2), softplus(0.1 - 0.2), softplus(0.1 + 0.3)])
  assert float(loss) == pytest.approx(np.mean(groups), rel=1e-5)
  assert metrics.keys() == {"accuracy", "margin"}
  assert metrics["accuracy"].compute() == pytest.approx((0.5 + 2) / 4)
  assert metrics["margin"].compute() == pytest.approx((0 + 0.5 + 0.1 - 0.4) / 4)


def test_ties_are_learnt_from_where_the_config_says_so():
  """Row 3 is a tie and row 1 decided: by hand, with the weights of both; the accuracy knows no ties."""
  rows = dict(ranks=RANKS, weight=WEIGHT)
  shares = reward_model.sum_to_one(reward_model.row_weights(rows, ties=True))
  assert shares["ranks"].tolist() == pytest.approx([1 / 7, 2 / 7, 0, 4 / 7])
  loss_fn = jax.value_and_grad(reward_model.make_loss(score, ties=2.0), has_aux=True)
  given = batch(np.ones((4, 3), bool)).replace(ratings=None)
  (loss, metrics), gradient = loss_fn(jnp.asarray(REWARDS.ravel()), given, shares)

  def lost(gap, weight=None):  # -log P of a win by this gap, or of a tie
    total = np.exp(gap / 2) + 2 + np.exp(-gap / 2)
    return np.log(total) - (gap / 2 if weight is None else np.log(weight))

  r = REWARDS.astype(np.float64)
  orders = lost(r[0, 0] - r[0, 1] - 0.5), np.mean([lost(r[1, 1] - r[1, 2]), lost(r[1, 1] - r[1, 0]),
                                                   lost(r[1, 2] - r[1, 0])])  # fmt: skip
  assert float(loss) == pytest.approx((orders[0] + 2 * orders[1] + 4 * lost(r[3, 0] - r[3, 1], 2.0)) / 7, rel=1e-5)
  slopes = np.asarray(gradient).reshape(4, 3)[3]
  assert slopes[1] > 0 and slopes[0] == pytest.approx(-slopes[1]) and slopes[2] == 0  # drawn together
  assert metrics["accuracy"].compute() == pytest.approx(3 / 4)


def test_a_tie_is_a_row_of_either_source_with_ties_and_skipped_without(tmp_path, capsys):
  rows = [dict(prompt=f"Say {i}.", responses=[f"{i}", "no"], ranks=[0, i % 2], annotator="a") for i in range(20)]
  data.write_rows(tmp_path / "pairs.jsonl", rows)
  tokenizer = data.train_tokenizer(["Say 0 1 2 3 4 5 6 7 8 9 no. Human Assistant"], vocab_size=300)
  stage = Stage("reward", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))
  plain = {**recipe("quickstart")["reward_model"], "eval_fraction": 0.0, "length": 48}
  for source in (dict(comparisons="{run}/pairs.jsonl"), dict(comparisons="", feedback=("{run}/pairs.jsonl",))):
    for ties, num in ((0.0, 10), (1.0, 20)):
      config = parse(reward_model.Config, {**plain, **source, "ties": ties}, "reward")
      train, _ = reward_model._load(config, stage, tokenizer)
      weights = reward_model.row_weights(train, ties=ties > 0)["ranks"]
      assert len(train["tokens"]) == num and (weights > 0).all()


def test_comparisons_are_the_judgements_of_the_same_file(tmp_path):
  """One file, as comparisons and as feedback with all defaults: the same rows on the same sides, and the same loss."""
  rows = [
    dict(
      prompt=f"Say {i}.", responses=[f"{i}", "no", f"{i} {i}"][: 2 + i % 2], ranks=[0, 1, 1][: 2 + i % 2], annotator="a"
    )
    for i in range(20)
  ]
  data.write_rows(tmp_path / "pairs.jsonl", rows)
  tokenizer = data.train_tokenizer(["Say 0 1 2 3 4 5 6 7 8 9 no. Human Assistant"], vocab_size=300)
  stage = Stage("reward", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))
  plain = {
    **recipe("quickstart")["reward_model"],
    "comparisons": "{run}/pairs.jsonl",
    "eval_fraction": 0.4,
    "length": 48,
  }
  sides = []
  for changes in ({}, dict(comparisons="", feedback=("{run}/pairs.jsonl",))):
    config = parse(reward_model.Config, {**plain, **changes}, "reward")
    sides.append(reward_model._load(config, stage, tokenizer))
  score_of_length = reward_model.make_loss(lambda params, tokens, mask, at: params * mask.sum(axis=1))
  for one, other in zip(*sides, strict=True):
    assert len(one["tokens"]) > 3 and np.isnan(other["ratings"]).all() and not other["margin"].any()
    found = []
    for arrays in (one, other):
      batch = Preferences(**{name: array for name, array in arrays.items() if name != "weight"})
      loss, metrics = score_of_length(0.1, batch, reward_model.sum_to_one(reward_model.row_weights(arrays)))
      found.append((float(loss), metrics["accuracy"].compute()))
    assert found[0] == found[1]
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def test_the_loss_is_the_same_however_the_batch_is_cut():
  loss_fn = reward_model.make_loss(score, ranking="pairs", rating_scale=2.0)
  settings = recipe("reward_from_feedback", "pairs")["reward_pairs"]
  optimizer = make_optimizer(parse(reward_model.Config, settings, "x").optimizer, 4)
  results = []
  for parts in (1, 2):
    many = jax.tree.map(lambda x: np.concatenate([x] * 4), (batch((RANKS >= 0) | ~np.isnan(RATINGS)), weights()))
    many[1].update({name: w / 4 for name, w in many[1].items()})
    update = make_update(loss_fn, optimizer, Transport("jit", 1, parts))
    state = place(init_state(jnp.asarray(REWARDS.ravel()), optimizer), Transport("jit", 1, parts))
    state, metrics = update(state, *many)
    results.append((float(metrics["loss"].compute()), state.params))
  assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
  np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-6)


def test_mistakes_are_named():
  section = recipe("reward_from_feedback", "pairs")["reward_pairs"]
  for changes, message in (
    (dict(kinds=("rank",)), "kinds=.'rank',. must name at least one of ranks, ratings"),
    (dict(margins=(0.0, 1.0)), r"config.reward_pairs.margins must be a tuple of 3, not \(0.0, 1.0\)"),
    (dict(ranking="plackett_luce"), "margins and ties have no effect on ranking='plackett_luce'"),
    (dict(ties=1.0, kinds=("ratings",)), "centring and ties have no effect on kinds=.'ratings',."),
    (dict(ties=-1.0), "config.reward_pairs.ties"),
  ):
    with pytest.raises(ConfigError, match=message):
      parse(reward_model.Config, {**section, **changes}, "reward_pairs")
  plain = recipe("quickstart")["reward_model"]
  for changes, message in (
    (dict(comparisons=""), "comparisons='', feedback=..: give exactly one of the two"),
    (dict(feedback=("a.db",)), "feedback=.'a.db',.: give exactly one of the two"),
    (dict(rating_scale=2.0, annotators="a"), "annotators, rating_scale: no effect on comparisons"),
  ):
    with pytest.raises(ConfigError, match=message):
      parse(reward_model.Config, {**plain, **changes}, "reward_model")
  section = recipe("reward_from_feedback", "pairs")["judgements_pairs"]
  for changes, message in (
    (dict(kinds=("stars",)), "kinds has 'stars': choose from ranks, ratings"),
    (dict(responses=1, num_written=0), "'ranks', which needs responses and num_written of 2"),
    (dict(kinds=()), "simulated labellers would have nothing to say"),
    (dict(judges=50), "judges=50 of 13 labellers cannot judge an item each"),
  ):
    with pytest.raises(ConfigError, match=message):
      parse(judgements.Config, {**section, **changes}, "judgements_pairs")


def test_all_kinds_from_judging_to_accuracy(chain, tmp_path, capsys):
  """Every stage of configs/reward_from_feedback.py, whose reward model learns from pairs, rankings and ratings."""
  config = recipe("reward_from_feedback", "all")
  judging = dict(num_items=16, sampling=SAMPLING)  # 64 responses a batch everywhere: one program samples them all
  pages = {"some_pairs": 32, "some_rankings": 16, "some_ratings": 16}
  changes = {name: dict(judging, batch_size=size) for name, size in pages.items()}
  changes["annotators_all"] = {}
  sizes = dict(length=64, normalize_count=64, eval_fraction=0.3, sampling=SAMPLING)
  changes["reward_all"] = dict(sizes, optimizer=dict(learning_rate=1e-2))
  # The gold reward of what so small a model says is mostly the same: there, gold is what it varies in.
  (tmp_path / "gold.py").write_text("def score(prompts, responses, **world): return [-len(r) for r in responses]")
  gold = dict(function=f"{tmp_path}/gold.py:score")
  changes["accuracy_all"] = dict(num_prompts=12, batch_size=32, responses=2, sampling=SAMPLING, gold=gold)
  run_stages(config, chain, tmp_path, changes)
  for name, kind, size in (("pairs", "ranks", 2), ("rankings", "ranks", 4), ("ratings", "ratings", 4)):
    people, items, said = read_records(tmp_path / f"some_{name}" / "feedback.db")
    assert len(people) == 13 and len(items) == 16 and len(said) == 32 and len(current(said)) == 32
    assert all(getattr(judgement, kind) is not None for judgement in said)
    assert all(len({j.annotator for j in said if j.item == item.id}) == 2 for item in items)
    assert max(len(item.responses) for item in items) == size
    assert all((j.strength is not None) == (len(j.order) == 2) for j in said) or kind == "ratings"
    assert items[0].responses[0].source["sampling"]["temperature"] == SAMPLING["temperature"]
  rows = [row for _, row in data.read_rows(tmp_path / "annotators_all" / "annotators.jsonl")]
  judged = sum(row["weight"] * row["num_items"] for row in rows)
  assert judged == pytest.approx(sum(row["num_items"] for row in rows), rel=0.02)  # a judgement weighs 1 on average
  metrics = read_metrics(tmp_path / "reward_all" / "metrics.jsonl")
  assert {"accuracy", "ranks/loss", "ratings/loss", "eval/accuracy", "eval/ratings/loss"} <= metrics[-1].keys()
  assert all(None not in row.values() and np.isfinite(list(row.values())).all() for row in metrics)
  assert np.mean([row["loss"] for row in metrics[-5:]]) < np.mean([row["loss"] for row in metrics[:3]])
  result = json.loads((tmp_path / "accuracy_all" / "results.json").read_text())
  (measured,) = result["groups"]["all"]["accuracy"]
  assert result["prompts"] == 12 and 0 <= measured["low"] <= measured["mean"] <= measured["high"] <= 1
  assert result["groups"]["all"]["difference"] == dict(mean=0, low=0, high=0, num=12)
  assert (tmp_path / "accuracy_all" / "results.png").stat().st_size > 5000


def test_yes_and_no_from_judging_to_a_reward_model(chain, tmp_path):
  """The recipe's judging, weighing and reward model; no judgement orders anything but by yes and no."""
  config = recipe("reward_from_feedback", "yes_no")
  changes = {
    "judgements_yes_no": dict(num_items=16, sampling=SAMPLING, batch_size=16),
    "annotators_yes_no": {},
    "reward_yes_no": dict(
      length=64, normalize_count=64, eval_fraction=0.3, sampling=SAMPLING, optimizer=dict(learning_rate=1e-2)
    ),
  }
  run_stages(config, chain, tmp_path, changes)
  _, _, said = read_records(tmp_path / "judgements_yes_no" / "feedback.db")
  assert len(said) == 32 and all(judgement.ranks is None and None not in judgement.yes_no for judgement in said)
  assert len({answer for judgement in said for answer in judgement.yes_no}) == 2
  metrics = read_metrics(tmp_path / "reward_yes_no" / "metrics.jsonl")
  assert {"yes_no/loss", "eval/yes_no/loss"} <= metrics[-1].keys() and "accuracy" not in metrics[-1]
  assert np.mean([row["yes_no/loss"] for row in metrics[-3:]]) < metrics[0]["yes_no/loss"]


def test_people_judge_on_the_page_and_the_run_goes_on(chain, tmp_path):
  config = recipe("online", "page")
  changes = {"page_judgements_1": dict(num_items=6, batch_size=16, sampling=SAMPLING, gold_share=0.4)}
  with pytest.raises(judgements.Unanswered, match=r"4 of 4 items wait .*rlhf-jax annotate .*feedback.db"):
    run_stages(config, chain, tmp_path, changes)
  assert not (tmp_path / "page_judgements_1" / "done.json").exists()
  store = open_store(tmp_path / "page_judgements_1" / "feedback.db")
  add_records(store, ([Annotator("ann")], [], []))
  number = 0
  while task := next_assignment(store, "ann", now=1e9):
    if number == 2:
      with pytest.raises(judgements.Unanswered, match="of 4 items wait"):
        run_stages(config, chain, tmp_path, changes)
    submit(store, "ann", task.lease, Answer(ranks=range(len(task.order))), "1", now=1e9 + 1)
    number += 1
  run_stages(config, chain, tmp_path, changes)
  assert (tmp_path / "page_judgements_1" / "done.json").exists()
  _, items, said = read_records(tmp_path / "page_judgements_1" / "feedback.db")
  assert len(items) == 6 and sum(item.gold_ranks is not None for item in items) == 2 and len(said) == number >= 4


def test_the_annotators_file_sets_aside_and_weighs(tmp_path):
  from rlhf_jax.evaluation.simulated_judgements import simulate_judgements
  from rlhf_jax.world import make_labellers

  people = make_labellers({"expert": 1, "ordinary": 5, "adversarial": 1})
  write_records(tmp_path / "feedback.jsonl", simulate_judgements(people, num_items=120, judges=3, seed=3))
  stage = Stage("judges", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))
  weighed = {}
  for name, flags in {"neither": (False, False), "aside": (True, False), "reliable": (False, True)}.items():
    annotators.run(annotators.Config("", ("{run}/feedback.jsonl",), *flags), stage)
    rows = [row for _, row in data.read_rows(tmp_path / "judges" / "annotators.jsonl")]
    weighed[name] = {row["annotator"]: row["weight"] for row in rows}
    assert {row["annotator"]: row["advice"] for row in rows}["adversarial-1"] == "set aside"
    assert all(row["reasons"] for row in rows if row["advice"] == "set aside")
  assert set(weighed["neither"].values()) == {1.0}
  assert weighed["aside"].pop("adversarial-1") == 0 and set(weighed["aside"].values()) == {1.0}
  assert weighed["reliable"]["adversarial-1"] == 0
  assert weighed["reliable"]["expert-1"] > np.mean([w for name, w in weighed["reliable"].items() if "ordinary" in name])
