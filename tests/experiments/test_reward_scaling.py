"""The figures of experiments/reward_scaling, from results made by hand."""

from tiny_chain import ROOT

from rlhf_jax.settings import import_module

analyse = import_module(str(ROOT / "experiments" / "reward_scaling" / "analyse.py"))


def measures(mean):
  figure = [{"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "num": 9}]
  return {"accuracy": figure, "clear_accuracy": figure, "kinds": {"wrong": figure, "style": figure}}


def test_rows_are_in_the_order_of_their_data_with_intervals(tmp_path):
  figures = {
    name: analyse.read_figures({"groups": {"1300 prompts": measures(more), "325 prompts": measures(0.7)}})
    for name, more in (("easy", 0.9), ("easy_small", 0.8))
  }
  assert list(figures["easy"]) == ["325 prompts", "1300 prompts"]
  assert figures["easy"]["1300 prompts"]["wrong"]["mean"] == 0.9
  rows = analyse.table(figures).splitlines()
  assert rows[2].startswith("| easy | 325 prompts | 70 [65, 75] | 70 [65, 75] | 70 [65, 75] | 70 [65, 75] |  |")
  assert rows[5].startswith("| easy, small | 1300 prompts | 80 [75, 85] |")
  analyse.draw(figures, tmp_path / "results.png")
  assert (tmp_path / "results.png").stat().st_size > 0
