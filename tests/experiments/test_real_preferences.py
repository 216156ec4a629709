"""The experiment on preferences of real people: its figures by hand, and the whole command with a tiny model."""

import jax
import numpy as np
import pytest
from hh_pairs import write_pairs
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.cli import main as command
from rlhf_jax.settings import import_module
from rlhf_jax.sweep.cells import read_cells
from rlhf_jax.train.mesh import using_devices

pytestmark = pytest.mark.usefixtures("unoptimised")

analyse = import_module(str(ROOT / "experiments" / "real_preferences" / "analyse.py"))


def make_domain(num, tokens):
  pairs = [data.Comparison(f"prompt {n}", (f"good {n}", f"bad {n}"), (0, 1)) for n in range(num)]
  return analyse.Domain(pairs, np.full((num, 2), tokens), {})


def test_equal_scores_count_half():
  assert analyse.right(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])) == [1.0, 0.0, 0.5]


def test_shares_pool_seeds_and_cluster_prompts():
  """Two prompts, of which the first is held out by both seeds."""
  pooled = analyse.Pooled(np.array([1.0, 0.0, 1.0]), np.array([0, 1, 0]), np.array([0, 0, 1]))
  found = analyse.share(pooled)
  assert found["mean"] == pytest.approx(2 / 3, abs=1e-4) and found["num"] == 3
  assert found["over seeds"]["mean"] == 0.75 and found["over seeds"]["num"] == 2
  same = analyse.difference(pooled, pooled)
  assert same["mean"] == same["low"] == same["high"] == 0.0
  worse = pooled._replace(right=np.array([0.0, 0.0, 1.0]))
  assert analyse.difference(pooled, worse)["mean"] == pytest.approx(1 / 3, abs=1e-4)
  assert analyse.difference(pooled, worse)["over seeds"]["mean"] == 0.25


def test_outcomes_meet_their_prompts():
  domain = make_domain(40, 10)
  out = [np.flatnonzero(analyse.held_out(domain, seed)) for seed in range(2)]
  assert all(0 < len(rows) < 40 for rows in out) and {*out[0].tolist()} != {*out[1].tolist()}
  kept = [{"outcomes": [[analyse.KEPT, "helpful", "m", "", [float(row % 2) for row in rows]]]} for rows in out]
  pooled = analyse.pool({"helpful": domain}, kept)[analyse.KEPT, "helpful", "m", ""]
  assert (pooled.right == pooled.prompts % 2).all() and len(pooled.right) == len(out[0]) + len(out[1])
  assert [(pooled.seeds == seed).sum() for seed in range(2)] == [len(rows) for rows in out]


def test_a_head_learns_what_differs_and_carries_over_where_it_is_the_same():
  """The first feature is preferred in one file, and rejected in the other; the second is noise."""
  rng = np.random.default_rng(0)
  domains = {name: make_domain(200, 10) for name in analyse.TESTS}
  features = {name: rng.normal(size=(200, 2, 2)) for name in analyse.TESTS}
  for sign, name in zip((1, -1), analyse.TESTS, strict=True):
    features[name][:, :, 0] += sign * np.array([2.0, 0.0])
  sizes = analyse.Sizes(0, 1, 1, (0.1, 1.0))
  curve = analyse.curve_sizes(domains, sizes)
  outcomes, priors = analyse.run_seed(domains, features, sizes, curve, 0)
  means = {one[:4]: np.mean(one.right) for one in outcomes}
  head = {key[1:]: mean for key, mean in means.items() if key[0] == analyse.KEPT and key[2] == analyse.HEAD}
  assert head["helpful", analyse.HEAD, "helpful"] > 0.85 and head["harmless", analyse.HEAD, "harmless"] > 0.85
  assert head["helpful", analyse.HEAD, "harmless"] < 0.15 and head["harmless", analyse.HEAD, "helpful"] < 0.15
  assert means[analyse.KEPT, "helpful", analyse.WORDS, "helpful"] == 1.0  # "good" and "bad" decide
  assert means[analyse.ALL, "helpful", analyse.LONGER, ""] == 1.0  # by a letter
  assert curve[1] // 2 == curve[0] and {f"helpful, {curve[0]}", "both, kept pairs"} <= {*priors}


def test_pairs_that_are_too_long_are_left_out_of_the_kept_ones():
  domain = make_domain(3, analyse.LENGTH)
  domain.tokens[1, 1] += 1
  assert domain.kept.tolist() == [True, False, True]
  prompts, texts = domain.texts(np.array([2]))
  assert prompts == ["prompt 2"] * 2 and texts == ["good 2", "bad 2"]
  assert analyse.counts(domain)[f"longer than {analyse.LENGTH} tokens"] == 1


def test_the_sweep_has_five_seeds(tmp_path):
  write_pairs(tmp_path)
  cells = read_cells(ROOT / "experiments/real_preferences/sweep.py", str(tmp_path))
  assert len(cells) == 5


@pytest.mark.slow
def test_the_command_on_files_by_hand(tmp_path, capsys):
  arguments = ["--data", str(write_pairs(tmp_path)), "--run", str(tmp_path / "run"), "--fast"]
  with using_devices(jax.devices()[:1]):
    analyse.main([*arguments, "--out", str(tmp_path / "out")])
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert result["counts"]["helpful"]["pairs"] == result["counts"]["helpful"]["kept"] == 40
  assert result["counts"]["helpful"]["skipped"] == {"identical responses": 1}
  for scope in (analyse.KEPT, analyse.ALL):
    longer = {test: result[scope][test][analyse.LONGER][""]["mean"] for test in analyse.TESTS}
    assert longer == {"helpful": 1.0, "harmless": 0.0}
    words = result[scope]["harmless"][analyse.WORDS]
    assert words["harmless"]["mean"] == 1.0 and {*words} == {"helpful", "harmless", "both"}
  assert len(result["curve"]) == 2 and "| reward model, both |" in told
  assert result["cost"]["memory/process_gib"] > 0
  assert (tmp_path / "out" / "results.png").stat().st_size > 0
  with using_devices(jax.devices()[:1]):  # nothing is computed anew
    analyse.main([*arguments, "--model", str(tmp_path / "out" / "tiny_model"), "--out", str(tmp_path / "again")])
  again = data.read_json(tmp_path / "again" / "results.json")
  cost, cost_again = result.pop("cost"), again.pop("cost")
  assert again == result and cost["seconds of features"] == cost_again["seconds of features"]


@pytest.mark.slow
def test_the_recipe_with_few_pairs(tmp_path):
  write_pairs(tmp_path)
  texts = [
    data.prompt_text(pair.prompt) for pair in data.read_comparisons(tmp_path / "hh_helpful_base_test.jsonl.gz")[0]
  ]
  model = analyse.tiny_model(tmp_path / "model", texts)
  config = f"real_preferences:{tmp_path},few"
  with using_devices(jax.devices()[:1]):
    arguments = ["run", "--config", config, "--workdir", str(tmp_path / "run"), f"--config.model.path={model}"]
    assert command(arguments) == 0
  for trained in ("helpful", "harmless", "both"):
    sets = data.read_json(tmp_path / "run" / f"accuracy_{trained}" / "results.json")["sets"]
    for found in sets.values():
      assert {*found["models"]} == {f"reward_{trained}", "longer", "bag of words"}
      assert 0 < found["comparisons"] < 40
    if trained != "both":
      assert sets[trained]["models"]["bag of words"]["accuracy"]["mean"] == 1.0
