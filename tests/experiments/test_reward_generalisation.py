"""The figures of experiments/reward_generalisation, from results made by hand, and the whole command at its least."""

import jax
import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.settings import import_module
from rlhf_jax.train.mesh import using_devices

analyse = import_module(str(ROOT / "experiments" / "reward_generalisation" / "analyse.py"))

SIZES = {"large": 4096, "small": 1024}
COUNTS = (10, 20, 40)
GROUPS = ("expert", "trusting", "hasty")


def interval(mean):
  return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "num": 9}


def measures(mean):
  """Accuracies of a model: `mean` on labels, and 0.1 and 0.2 more on the gold order of all and of clear pairs."""
  return {
    "label_accuracy": {"all": [interval(mean)]},
    "accuracy": [interval(mean + 0.1)],
    "clear_accuracy": [interval(mean + 0.2)],
  }


def on_policy(groups, style):
  kinds = {"wrong": [interval(0.5)]}
  return {
    "prompts": 7,
    "groups": {label: measures(mean) | {"kinds": {"wrong": [interval(mean)]}} for label, mean in groups.items()},
    "style": measures(style) | {"kinds": kinds},
    "labels": {"all": {"ceiling": interval(0.8), "agreement": interval(0.7)}},
  }


def label_results(held_out, own):
  labels = {group: {"ceiling": interval(0.9), "agreement": interval(0.6)} for group in GROUPS}
  groups = {
    fold: {"label_accuracy": {group: [interval(held_out[group] if group == fold else own[group])] for group in GROUPS}}
    for fold in GROUPS
  }
  return {"groups": groups, "labels": labels}


def a_seed(shift):
  """A seed with 2 points per doubling of the data, 1 per doubling of the model, and 3 less on the policy ppo."""
  sizes = {"large": 0.12, "small": 0.1}
  on_sft = {
    f"{size} {count}": 0.5 + shift + of_size + 0.02 * place
    for size, of_size in sizes.items()
    for place, count in enumerate(COUNTS)
  }
  on_ppo = {label: mean - 0.03 for label, mean in on_sft.items() if label.endswith(f" {COUNTS[-1]}")}
  own = {"expert": 0.8, "trusting": 0.7, "hasty": 0.6}
  return {
    "accuracy": {"sft": on_policy(on_sft, 0.55), "ppo": on_policy(on_ppo, 0.45)},
    "labellers": label_results({group: mean - 0.03 + shift for group, mean in own.items()}, own),
    "comparisons": 40,
    "models": {
      size: dict(layers=1, width=8, parameters=count + 64, without_embeddings=count) for size, count in SIZES.items()
    },
  }


SEEDS = [a_seed(shift) for shift in (0.0, 0.01, 0.02)]


def test_gains_are_per_doubling_and_averaged_over_the_other_axis():
  found = analyse.scaling(SEEDS, "labels")
  assert list(found["accuracy"]) == ["small", "large"]
  assert found["accuracy"]["large"]["40"]["mean"] == pytest.approx(0.67)
  half = 4.3027 * 0.01 / np.sqrt(3)  # Student's t of two degrees of freedom
  assert found["accuracy"]["large"]["40"]["high"] == pytest.approx(0.67 + half, abs=1e-4)
  assert [gain["mean"] for gain in found["gain of data"].values()] == [0.02, 0.02]
  assert found["gain of model"] == {"small to large": {"mean": 0.01, "low": 0.01, "high": 0.01, "seeds": 3}}
  assert found["fit"]["data"]["mean"] == 0.02 and found["fit"]["model"]["mean"] == 0.01
  assert found["fit"]["rms of residuals"]["mean"] == 0.0
  assert found["fit before it is flat"]["comparisons"] == [10, 20, 40]


def test_a_plane_is_found_with_its_residuals():
  x, y = np.array([0.0, 1.0, 2.0]), np.array([3.0, 5.0])
  values = 0.5 + 0.011 * x[None, :] + 0.018 * y[:, None]
  np.testing.assert_allclose(analyse.plane(values, x, y), [0.5, 0.011, 0.018, 0.0], atol=1e-12)
  curved = values + np.array([0.01, -0.02, 0.01])  # orthogonal to all three terms
  np.testing.assert_allclose(analyse.plane(curved, x, y), [0.5, 0.011, 0.018, np.sqrt(2e-4)], atol=1e-12)


def test_the_flat_part_begins_after_the_last_gain():
  assert analyse.rising([0.02, 0.01, 0.004, 0.0]) == 2
  assert analyse.rising([0.02, 0.001, 0.006]) == 3
  assert analyse.rising([0.0, -0.01]) == 0
  np.testing.assert_allclose(analyse.gains(np.array([0.5, 0.6, 0.9]), np.array([0.0, 2.0, 3.0])), [0.05, 0.3])


def test_policies_are_compared_with_sft():
  found = analyse.by_policy(SEEDS, "gold")
  assert found["ppo"]["difference"] == {"mean": -0.03, "low": -0.03, "high": -0.03, "seeds": 3}
  assert found["sft"]["difference"]["mean"] == 0.0
  assert found["ppo"]["small"]["mean"] == pytest.approx(0.5 + 0.01 + 0.14 - 0.03 + 0.1)
  assert found["ppo"]["style"]["mean"] == pytest.approx(0.55)
  assert analyse.people(SEEDS, "ppo")["agreement"]["mean"] == 0.7
  assert analyse.by_kind(SEEDS)["large"]["wrong"]["mean"] == pytest.approx(0.67)


def test_a_group_that_is_held_out_is_compared_with_itself():
  found = analyse.held_out_labellers(SEEDS)
  assert found["own"]["mean"] == pytest.approx(0.7)
  assert found["held out"]["mean"] == pytest.approx(0.68)
  assert found["difference"]["mean"] == pytest.approx(0.02)
  assert found["by group"]["trusting"]["own"]["mean"] == pytest.approx(0.7)
  assert found["by group"]["trusting"]["difference"]["mean"] == pytest.approx(0.02)
  assert found["by group"]["hasty"]["ceiling"]["mean"] == 0.9


def test_cells_share_the_data_and_the_largest_size_is_at_least_thirty_times_the_smallest():
  sweep = import_module(str(ROOT / "experiments" / "reward_generalisation" / "sweep.py"))
  cells = []
  sweep.sweep(lambda config, **labels: cells.append((config, labels)))
  assert len(cells) == 3 * 7 and len({labels["part"] for _, labels in cells}) == 7
  assert all(config.stages[:5] == sweep.BASE for config, _ in cells)
  layers, widths = zip(*sweep.FULL.sizes.values(), strict=True)
  assert layers[0] * widths[0] ** 2 >= 30 * layers[-1] * widths[-1] ** 2 and len(sweep.FULL.counts) >= 6
  assert cells[0][0].without_expert.comparisons.cap == sweep.FULL.of_habit
  assert [sweep.epochs(count) for count in sweep.FULL.counts] == [8, 8, 4, 2, 2, 2]


@pytest.mark.slow
def test_the_command_at_its_smallest(tmp_path, capsys):
  with using_devices(jax.devices()[:1]):
    analyse.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--fast"])
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert result["seeds"] == 2 and list(result["scaling"]) == ["labels", "gold", "clear", "wrong"]
  assert list(result["scaling"]["labels"]["accuracy"]) == ["tiny", "medium"]
  assert list(result["policies"]["labels"]) == ["pretrain", "sft", "ppo_early", "ppo_late", "best_sft"]
  assert list(result["labellers"]["by group"]) == ["expert", "length_biased"]
  assert result["models"]["medium"]["without_embeddings"] > 3 * result["models"]["tiny"]["without_embeddings"]
  assert "| best_sft |" in told and "| data, 16 to 32 |" in told
  assert (tmp_path / "out" / "results.png").stat().st_size > 0
