"""Who won: by hand, against closed forms and statsmodels, and from `collect` to the report."""

import json
import math

import choix
import numpy as np
import pytest
from judgement_samples import judgement, write

from rlhf_jax.agreement import winners
from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.cli import main
from rlhf_jax.feedback.collect import Policy, make_items, read_clusters
from rlhf_jax.feedback.exchange import read_records, write_records
from rlhf_jax.feedback.records import Annotator, Item, Response, models_of
from rlhf_jax.report.report import write_report

GOLDEN_3X3 = (0.8474208484722225, -0.19213062383372576, -0.6552902246384968)  # wins [[0,6,4],[2,0,5],[1,3,0]]


def battles(rows, models, longer=None, earlier=None):
  """rows: (first, second, outcome), an item each."""
  first, second, outcome = np.array(rows, np.float64).T
  zero = np.zeros(len(rows))
  return winners.Battles(
    models, first.astype(int), second.astype(int), outcome, np.arange(len(rows)),
    zero if earlier is None else np.array(earlier, float), zero if longer is None else np.array(longer, float),
    np.ones(len(rows)),
  )  # fmt: skip


def study(ranks, texts=("a b", "c d e"), sources=({"model": "x"}, {"model": "y"}), cluster=None, orders=None):
  """The table of items, each judged once by ann, with the ranks of each."""
  items = [
    Item(f"i{n}", f"What is {n}?", tuple(map(Response, texts, sources)), cluster="" if cluster is None else cluster[n])
    for n in range(len(ranks))
  ]
  said = [judgement(f"j{n}", f"i{n}", "ann", row, orders and orders[n]) for n, row in enumerate(ranks)]
  return [Annotator("ann")], items, said


def tabled(*args, **kwargs):
  table = judgement_table(*study(*args, **kwargs))
  return table, pairs_of(table)


@pytest.fixture
def no_prior(monkeypatch):
  monkeypatch.setattr(winners, "PRIOR_SD", 1e4)


# The model


def test_seven_wins_to_three(no_prior):
  found = winners.board(battles([(0, 1, 1)] * 7 + [(0, 1, 0)] * 3, ("a", "b")), resamples=0)
  best, second = found.standings
  assert best.rating.value - second.rating.value == pytest.approx(400 * math.log10(7 / 3), abs=1e-3)
  assert (best.model, best.wins, best.ties, best.losses, best.win_rate.value) == ("a", 7, 0, 3, 0.7)
  assert best.rating.value + second.rating.value == pytest.approx(2000)
  assert found.tie == 0 and best.controlled_win_rate.value == pytest.approx(0.7, abs=1e-6)


def test_three_models_equal_choix_and_the_closed_form(no_prior):
  wins = [[0, 6, 4], [2, 0, 5], [1, 3, 0]]
  pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(wins[i][j])]
  found = winners.board(battles([(i, j, 1) for i, j in pairs], ("a", "b", "c")), resamples=0)
  logits = [(one.rating.value - 1000) / winners.ELO for one in found.standings]
  assert logits == pytest.approx(GOLDEN_3X3, abs=1e-6)
  assert logits == pytest.approx(choix.opt_pairwise(3, pairs), abs=1e-4)


def test_davidson_ties_in_closed_form(no_prior):
  """Two models: the shares of wins, ties and losses are fitted exactly, nu = ties / sqrt(wins losses)."""
  found = winners.board(battles([(0, 1, 1)] * 9 + [(0, 1, 0.5)] * 12 + [(1, 0, 1)] * 4, ("a", "b")), resamples=0)
  assert found.tie == pytest.approx(12 / 6, abs=1e-4)
  assert found.standings[0].rating.value - 1000 == pytest.approx(200 * math.log10(9 / 4), abs=1e-3)
  assert found.standings[0].controlled_win_rate.value == pytest.approx((9 + 6) / 25, abs=1e-6)


def test_the_controlled_board_is_statsmodels_logit(no_prior):
  """Without ties it is a logistic regression on model, place and length."""
  from statsmodels.discrete.discrete_model import Logit

  rng = np.random.default_rng(0)
  pairs = np.array([(i, j) for i in range(3) for j in range(3) if i != j] * 100)
  longer, earlier = rng.integers(-20, 21, len(pairs)), rng.choice([-1, 1], len(pairs))
  strength = np.array([0.6, 0.0, -0.6])
  squeezed = np.tanh(longer / np.sqrt(np.mean(longer**2.0)))
  logit = strength[pairs[:, 0]] - strength[pairs[:, 1]] + 0.4 * earlier + 0.8 * squeezed
  won = (rng.random(len(pairs)) < 1 / (1 + np.exp(-logit))).astype(float)
  found = winners.board(battles(np.column_stack([pairs, won]), ("a", "b", "c"), longer, earlier), resamples=50)
  x = np.zeros((len(pairs), 2))
  for column, model in enumerate((0, 1)):
    x[:, column] = (pairs[:, 0] == model).astype(float) - (pairs[:, 1] == model)
  peer = Logit(won, np.column_stack([x, earlier, squeezed])).fit(disp=0)
  rating = {one.model: one.controlled.value for one in found.standings}
  gaps = [(rating[model] - rating["c"]) / winners.ELO for model in "ab"]
  assert [*gaps, found.position.value, found.length.value] == pytest.approx(peer.params, abs=1e-5)
  for estimate, truth in ((found.position, 0.4), (found.length, 0.8)):
    assert estimate.low < truth < estimate.high


def test_length_control_takes_away_what_length_won(no_prior):
  """Two equal models, one with longer responses, judged by length: the controlled board is even."""
  rng = np.random.default_rng(1)
  longer = rng.normal(4, 10, 2000)
  won = (rng.random(2000) < 1 / (1 + np.exp(-2 * np.tanh(longer / np.sqrt(np.mean(longer**2)))))).astype(float)
  rows = [(0, 1, outcome) for outcome in won]
  found = winners.board(battles(rows, ("long", "short"), longer), resamples=50)
  best = found.standings[0]
  assert best.model == "long" and best.rating.low > 1020
  assert best.controlled.low < 1000 < best.controlled.high
  assert best.controlled_win_rate.low < 0.5 < best.controlled_win_rate.high < best.win_rate.low


def test_a_model_that_won_everything_stays_finite():
  found = winners.board(battles([(0, 1, 1)] * 10, ("a", "b")))
  best, worst = found.standings
  assert 1200 < best.rating.value < 1600 and worst.rating.value == pytest.approx(2000 - best.rating.value)
  assert best.rating.low is None  # each resample says the same
  assert best.win_rate.low < 0.8  # Wilson's interval keeps its width


def test_the_bootstrap_draws_items():
  """Ten judgements of one item are one observation: the interval is as wide as that of the items alone."""
  rng = np.random.default_rng(2)
  rows = [(0, 1, float(rng.random() < 0.65)) for _ in range(60)]
  once, often = battles(rows, ("a", "b")), battles([row for row in rows for _ in range(10)], ("a", "b"))
  often = winners.Battles(**{**vars(often), "item": np.repeat(np.arange(60), 10)})
  one, ten = (winners.board(given).standings[0].rating for given in (once, often))
  assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.1)
  few = winners.board(battles(rows[:3], ("a", "b"))).standings[0].rating
  assert few.low is None


# From records


def test_battles_are_of_different_models_with_ties():
  table, pairs = tabled([(0, 1), (1, 0), (0, 0)], orders=[(1, 0), (0, 1), (0, 1)])
  found = winners.battles_of(table, pairs)
  assert found.models == ("x", "y") and found.outcome.tolist() == [1, 0, 0.5]
  assert found.earlier.tolist() == [-1, 1, 1] and found.longer.tolist() == [-1] * 3 and found.weight.tolist() == [1] * 3


def test_an_equal_text_of_two_models_is_a_tie_of_them():
  """Three models, two of which gave the same text, which is shown once."""
  sources = ({"model": "x", "also": [{"model": "z"}]}, {"model": "y"})
  table, pairs = tabled([(0, 1)] * 6, sources=sources)
  found = winners.winners(table, pairs)
  told = {one.model: (one.wins, one.ties, one.losses) for one in found.overall.standings}
  assert told == {"x": (6, 6, 0), "z": (6, 6, 0), "y": (0, 0, 12)}


def test_clusters_have_boards_of_their_own():
  table, pairs = tabled([(0, 1)] * 6 + [(1, 0)] * 6, cluster=["sums"] * 6 + ["facts"] * 6)
  found = winners.winners(table, pairs)
  assert {name: board.standings[0].model for name, board in found.clusters.items()} == {"sums": "x", "facts": "y"}
  assert found.overall.standings[0].win_rate.value == 0.5


def test_without_two_known_models_nobody_won():
  for sources in (({}, {}), ({"model": "x"}, {"model": "x"}), ({"model": "x"}, {})):
    assert winners.winners(*tabled([(0, 1)] * 3, sources=sources)) is None


def test_names_of_models():
  assert models_of({"checkpoint": "runs/a/sft", "step": 330}) == ("runs/a/sft@330",)
  assert models_of({"checkpoint": "runs/a@b/sft@9", "step": 9}) == ("runs/a@b/sft@9",)
  assert models_of({"checkpoint": "sft", "also": [{"file": "people.jsonl"}]}) == ("sft", "people.jsonl")
  assert models_of({}) == () and models_of({"also": "?"}) == ()
  sources = ({"checkpoint": "runs/a/sft", "step": 3}, {"checkpoint": "runs/a/ppo", "step": 32})
  assert winners.battles_of(*tabled([(0, 1)], sources=sources)).models == ("ppo@32", "sft@3")


def test_two_stages_and_thirty_judgements_name_the_winner(tmp_path, capsys):
  """What `collect` queues of two stages, judged thirty times: the command, its JSON and the run's report name them."""

  def policy(stage, step):
    source = {"checkpoint": f"runs/q/{stage}", "stage": stage, "step": step}
    return Policy(lambda prompts, count, seed: [[f"{stage} says {len(p)}"] * count for p in prompts], source)

  prompts = [f"Question {'?' * n}" for n in range(30)]
  clusters = {prompt: "sums" if n % 2 else "facts" for n, prompt in enumerate(prompts)}
  items, _ = make_items(prompts, [policy("sft", 330), policy("ppo", 32)], 2, 0, clusters=clusters)
  said = [
    judgement(f"j{n}", item.id, "ann", (1, 0) if n % 5 else (0, 0), (n % 2, 1 - n % 2)) for n, item in enumerate(items)
  ]
  run = tmp_path / "run"
  run.mkdir()
  (run / "config.json").write_text(json.dumps({"stages": []}))
  store = tmp_path / "feedback.db"
  write_records(store, ([Annotator("ann")], items, said))
  assert read_records(store)[1] == items  # the cluster and the models are kept by the store
  assert main(["agreement", str(store), "--out", str(run / "people")]) == 0
  told = capsys.readouterr().out
  assert "Who won" in told and "ppo@32" in told and "Win rate by cluster of prompts" in told
  models = json.loads((run / "people/agreement.json").read_text())["models"]
  best = models["overall"]["standings"][0]
  assert (best["model"], best["wins"], best["ties"], best["losses"]) == ("ppo@32", 24, 6, 0)
  assert best["win_rate"]["value"] == 0.9 and best["rating"]["low"] > 1000
  assert list(models["clusters"]) == ["facts", "sums"]
  page = write_report(run).read_text()
  assert 'id="winners"' in page and "ppo@32" in page and "facts" in page


def test_clusters_come_from_the_file_of_prompts(tmp_path):
  rows = [{"prompt": "Add 1 and 2.", "cluster": "sums"}, {"prompt": "Hi"}, {"instruction": "Say a.", "output": "a"}]
  path = tmp_path / "p.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  assert read_clusters(path) == {"Add 1 and 2.": "sums"}


def test_equal_texts_of_two_policies_keep_both_models():
  def policy(stage):
    return Policy(lambda prompts, count, seed: [["same"] * count for _ in prompts], {"checkpoint": f"runs/q/{stage}"})

  items, _ = make_items(["Hi"], [policy("sft"), policy("ppo")], 4, 0, {"Hi": [Response("other", {"file": "a.jsonl"})]})
  same, other = items[0].responses
  assert models_of(same.source) == ("runs/q/sft", "runs/q/ppo") and models_of(other.source) == ("a.jsonl",)
  assert [one["checkpoint"] for one in same.source["also"]] == ["runs/q/ppo"]  # once, of two equal samples


def test_records_with_models_go_through_every_file(tmp_path):
  given = study([(0, 1)], sources=({"model": "x", "also": [{"model": "z"}]}, {"model": "y"}), cluster=["sums"])
  for name in ("a.jsonl", "a.parquet", "a.db"):
    write_records(tmp_path / name, given)
    assert read_records(tmp_path / name) == given
  assert read_records(write(tmp_path / "b.jsonl", given)) == given
