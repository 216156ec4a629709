"""The report: the page of a run written by hand, with files that are absent, broken or hostile."""

import copy
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax.intervals import Interval
from rlhf_jax.report import plots
from rlhf_jax.report.plots import moving_average, thin_out
from rlhf_jax.report.read_run import read_run
from rlhf_jax.report.report import series_colors, write_report
from rlhf_jax.report.sections import MAX_SAMPLES, over_optimisation, samples
from rlhf_jax.report.words import constant_sentences, kl_penalty_sentences, number, summary_sentences, visible

RC_PARAMS = dict(matplotlib.rcParams)  # before anything was drawn
STAGES = ["world", "sft", "reward_model", "ppo", "ppo_no_kl", "evaluation"]
CONFIG = {
  "seed": 7,
  "stages": STAGES,
  "model": {"num_layers": 3, "d_model": 128, "vocab": 32000},
  "sft": {"algorithm": "rlhf_jax.algorithms.sft"},
  "reward_model": {"algorithm": "rlhf_jax.algorithms.reward_model"},
  "ppo": {"algorithm": "rlhf_jax.algorithms.ppo", "kl_coef": 0.05},
  "ppo_no_kl": {"algorithm": "rlhf_jax.algorithms.ppo", "kl_coef": 0.0},
}
EMPTY_SECTIONS = (
  "This run holds no evaluation of its models",
  "No stage of this run has logged a loss.",
  "This run has neither an accuracy curve nor an evaluation of a reward model.",
  "No stage of the last config optimised a policy against a reward.",
  "This run holds no rewards by task cluster.",
  "This run holds no sampled answers",
  "The command line was not recorded",
)


def _interval(mean, half=0.05):
  return {"mean": mean, "low": mean - half, "high": mean + half, "num": 100}


def _evaluation():
  models = {}
  for name, gold, proxy in (("ppo", 0.95, 1.8), ("sft", 0.4, 0.5), ("ppo_no_kl", -0.1, 3.4)):
    models[name] = {"gold": _interval(gold), "helpful": _interval(gold / 2), "proxy": _interval(proxy)}
    models[name] |= {"kl": _interval(3.0), "length": _interval(12.34), "finished": _interval(0.93, 0.02)}
    models[name]["win_rate"] = _interval(0.5 + gold / 4)
  clusters = {
    "comparison": {"held_out": True, "models": {"sft": _interval(0.2), "ppo": _interval(0.7)}},
    "location": {"held_out": False, "models": {"sft": _interval(0.5), "ppo": _interval(1.0)}},
  }
  accuracy = {"clear_accuracy": _interval(0.87), "label_accuracy": _interval(0.71)}
  accuracy["label_ceiling"] = _interval(0.78, 0)
  return {
    "reference": "sft",
    "models": models,
    "clusters": clusters,
    "reward_model": {"reward_model": {**accuracy, "min_gap": 0.5}},
  }


def _judged():
  """The evaluation with baselines, cells, and accuracies by kind, as the stage `evaluate` writes them."""
  evaluation = _evaluation()
  evaluation["baselines"] = {
    "refusal": {"gold": _interval(-0.72), "proxy": _interval(1.46), "text": "I <cannot> help with that."},
    "look-up": {"gold": _interval(0.46), "proxy": _interval(9.0)},
  }
  evaluation["models"]["ppo"]["apparent"] = _interval(1.9)
  both = {"gold": _interval(1.11), "full": _interval(0.64)}
  cell = {"prompts": 480, "models": {"ppo": both}, "baselines": {"look-up": both}, "copied": _interval(0.47)}
  cell["clusters"] = {"facts": {"prompts": 40, "models": {"ppo": _interval(1.23), "look-up": _interval(0.5)}}}
  cell["clusters"]["facts"]["copied"] = _interval(0.33)
  evaluation["cells"] = {"rephrased": cell, "mine": {"prompts": 5, "models": {}, "baselines": {}, "clusters": {}}}
  measures = {
    "accuracy": _interval(0.81),
    "style": _interval(0.52),
    "gap": _interval(0.29),
    "ceiling": _interval(0.9, 0),
  }
  kind = {**measures, "clusters": {"facts": measures}, "cells": {"new": {"accuracy": _interval(0.44)}}}
  kinds = {"mine": {"accuracy": _interval(0.61)}, "wrong": kind}
  evaluation["reward_model"]["reward_model"] |= {"style": {"clear_accuracy": _interval(0.66)}, "kinds": kinds}
  return evaluation


def _metrics():
  steps = range(30)
  rl = [
    {"step": t, "loss": 0.1, "reward/proxy": 0.1 * t, "reward/gold": 1 - 0.02 * t, "kl/reference": 0.2 * t}
    | {"kl/coef": 0.05, "policy/entropy": 2.0, "response/length": 10 + t, "response/finished": 0.9}
    for t in steps
  ]
  return {
    "sft": [{"step": t, "loss": 3 - 0.1 * t} | ({"eval/loss": 2.0} if t % 10 == 9 else {}) for t in steps],
    "reward_model": [{"step": t, "loss": 0.6, "accuracy": 0.6, "eval/accuracy": 0.7} for t in steps],
    "ppo": rl,
    "ppo_no_kl": rl,
  }


SAMPLE = {
  "prompt": "Where does Tom live?",
  "cluster": "location",
  "responses": {"ppo": "In  Oakford.\nYes.", "sft": ""},
  "proxy": {"ppo": 1.25, "sft": -0.5},
  "gold": {"ppo": 0.75},
}


def _write_run(root, *, config=CONFIG, metrics=None, evaluation=None, rows=None, command=None):
  root.mkdir(exist_ok=True)
  (root / "config.json").write_text(json.dumps(config))
  for name, records in (metrics or {}).items():
    (root / name).mkdir(exist_ok=True)
    (root / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
  (root / "evaluation").mkdir(exist_ok=True)
  if evaluation is not None:
    (root / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
  if rows is not None:
    (root / "evaluation" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  if command is not None:
    (root / "command.txt").write_text(command)
  return root


class _Page(HTMLParser):
  """Elements, attributes and visible text of a page; a tag that is not closed in order fails the test."""

  VOID = {"meta", "br", "hr", "img", "link", "input"}

  def __init__(self, path):
    super().__init__(convert_charrefs=True)
    self.open, self.tags, self.attributes, self.text = [], [], [], ""
    self.source = path.read_text(encoding="utf-8")
    self.feed(self.source)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, f"</{tag}> closes another element"

  def handle_data(self, data):
    if self.open and self.open[-1] != "style":
      self.text += data


def _page(root):
  return _Page(write_report(root))


def _words(page):
  """The page as words, the cells of a table apart."""
  return " ".join(re.sub(r"<[^>]*>", " ", page.source).split())


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
  root = tmp_path_factory.mktemp("runs") / "quickstart"
  command = "rlhf-jax run --config c.py --x='1'"
  return _write_run(root, metrics=_metrics(), evaluation=_evaluation(), rows=[SAMPLE], command=command)


@pytest.fixture(scope="module")
def full_page(full_run):
  return _page(full_run)


def test_the_full_page_has_every_section(full_page):
  for sentence in EMPTY_SECTIONS:
    assert sentence not in full_page.text
  # Six intervals less honest and harmless, four losses, one accuracy, two trajectories, seven curves.
  assert full_page.tags.count("svg") == 4 + 4 + 1 + 2 + 7
  for words in ("quickstart", "32\u202f000", "ppo raised the mean gold reward", "held out"):
    assert words in full_page.text
  assert "−0.10" in full_page.text and "[−0.15, −0.05]" in full_page.text
  assert "12.3" in full_page.text and "93 %" in full_page.text and "[91, 95]" in full_page.text
  assert "rlhf-jax run --config c.py --x='1'" in full_page.text
  assert '"kl_coef": 0.05' in full_page.text


def test_the_page_stands_alone(full_page):
  assert not {"script", "link", "img", "iframe", "image", "object"} & set(full_page.tags)
  assert "http" not in full_page.source and "@import" not in full_page.source
  for name, value in full_page.attributes:
    assert not name.startswith("on")
    if name in ("href", "src", "xlink:href"):
      assert value.startswith("#")
  ids = [value for name, value in full_page.attributes if name == "id"]
  # Two panels of the same data may be the same drawing; any other id is one element's.
  assert {"summary", "curves", "training"} <= set(ids)
  targets = {value[1:] for name, value in full_page.attributes if name == "href"}
  assert targets <= set(ids)


def test_both_colour_schemes_and_no_fixed_colours_in_the_drawings(full_page):
  assert "prefers-color-scheme: dark" in full_page.source
  for drawing in full_page.source.split("<svg")[1:]:
    colours = re.findall(r"(?:stroke|fill): (#\w+)", drawing.split("</svg>")[0])
    assert colours == [], "no colour scheme can change these"
  assert "var(--series-0)" in full_page.source and "DejaVu" not in full_page.source


def test_stages_of_other_configs_are_shown(tmp_path):
  """A shared run directory: what other recipes have left there, by their config."""
  root = _write_run(tmp_path / "shared", metrics={**_metrics(), "dpo": _metrics()["sft"]}, evaluation=_evaluation())
  for name, command in (("dpo", "rlhf-jax run --workdir x --config configs/dpo.py:ipo"), ("dpo_evaluation", "")):
    (root / name).mkdir(exist_ok=True)
    (root / name / "config.json").write_text(json.dumps({"algorithm": f"rlhf_jax.{name}"}))
    (root / name / "done.json").write_text(json.dumps({"command": command}))
  models = {"dpo": {"gold": _interval(1.5), "win_rate": _interval(0.75)}, "sft": {"gold": _interval(0.4)}}
  (root / "dpo_evaluation" / "evaluation.json").write_text(json.dumps({"models": models}))
  page = _page(root)
  text = page.text[page.text.index("Other configs in this directory") :]
  assert text.index("A config that was not recorded") < text.index("configs/dpo.py:ipo")
  assert "29 steps: eval/loss 2.00, loss 0.20" in text
  assert "dpo: gold reward 1.50 [1.45, 1.55], win rate 75 % [70, 80]" in text and "sft: gold" not in text
  assert page.tags.count("svg") == 4 + 4 + 1 + 2 + 7  # the run's own drawings are as they were
  (root / "dpo" / "config.json").write_text("{")
  assert "dpo/config.json is not valid JSON" in _page(root).text


def test_algorithms_are_named_by_their_module_and_files_by_their_stem(tmp_path):
  """The column of algorithms: the last name of a module, old or new, and the stem of a user's own file."""
  root = _write_run(tmp_path / "run")
  modules = {"a": "rlhf_jax.algorithms.world", "b": "own/my_algorithm.py", "c": "~/dr.grpo.py", "d": None}
  for name, module in modules.items():
    (root / name).mkdir()
    (root / name / "config.json").write_text(json.dumps({"algorithm": module}))
  (stages,) = read_run(root).others.values()
  assert [stage.stage.algorithm for stage in stages] == ["world", "my_algorithm", "dr.grpo", ""]
  assert "my_algorithm" in _page(root).text


@pytest.mark.parametrize("module", ["rlhf_jax.stages.evaluate", "rlhf_jax.evaluation.evaluate", "mine.py", None])
def test_evaluations_are_found_by_their_files(tmp_path, module):
  """The last stage with an evaluation.json, whatever module wrote it."""
  config = {**CONFIG, "stages": [*STAGES, "ablation", "later"], "ablation": {"algorithm": module}}
  root = _write_run(tmp_path / "run", config=config, evaluation=_evaluation())
  (root / "ablation").mkdir()
  (root / "ablation" / "evaluation.json").write_text(json.dumps({"models": {"ppo_no_kl": {"gold": _interval(0.25)}}}))
  (root / "ablation" / "samples.jsonl").write_text(json.dumps(SAMPLE) + "\n")
  page = _page(root)
  assert list(read_run(root).models) == ["ppo_no_kl"]
  assert "all are in ablation/samples.jsonl" in page.text and "0.25" in page.text


def test_the_environment_is_among_the_facts(tmp_path):
  root = _write_run(tmp_path / "run")
  versions = {"python": "3.11.9", "rlhf_jax": "0.2.0", "jax": "0.10.2"}
  found = {"versions": versions, "commit": "0123456789abcdef", "tree_changed": True, "device": "TPU v5e"}
  (root / "environment.json").write_text(json.dumps({**found, "num_devices": 8, "num_processes": 2}))
  words = _words(_page(root))
  for fact in ("device TPU v5e", "devices 8", "processes 2", "commit 0123456789ab and changes", "rlhf_jax 0.2.0"):
    assert fact in words
  found = {"versions": versions, "commit": None, "tree_changed": None}
  (root / "environment.json").write_text(json.dumps(found))
  page = _page(root)
  assert "3.11.9" in page.text and "commit" not in page.text
  (root / "environment.json").write_text("[]")
  assert "run/environment.json does not hold a JSON object" in _page(root).text


def test_comparisons_of_reward_models_and_budgets_are_tables(tmp_path):
  """Results as the stages reward_accuracy and label_budget write them."""
  config = {**CONFIG, "stages": [*STAGES, "accuracy_kinds", "online_budget"]}
  root = _write_run(tmp_path / "run", config=config)
  kinds = json.loads((ROOT / "experiments/feedback_kinds/results.json").read_text())["kinds"]
  for name, found in (
    ("accuracy_kinds", kinds),
    ("online_budget", json.loads((ROOT / "experiments/online/results.json").read_text())),
  ):
    (root / name).mkdir()
    (root / name / "results.json").write_text(json.dumps(found))
  page = _page(root)
  words = _words(page)
  assert kinds["reference"] == "pairs" and "pairs 77 % [73, 80] 84 % [80, 87]" in words
  assert all(label in words for label in kinds["groups"]) and "0.07 [0.04, 0.10]" in words
  assert "people as the reward 4096 people_3 1.12 [1.04, 1.20] 68 % [65, 70] 1.6" in words
  contrasts = {"wrong": [_interval(0.8)] * 3, "mine": [_interval(0.31)]}
  few = {"a": {"accuracy": [_interval(0.9)] * 2, "clear_accuracy": [_interval(0.95)] * 2, "kinds": contrasts}}
  (root / "accuracy_kinds" / "results.json").write_text(json.dumps({"groups": few, "reference": "a"}))
  words = _words(_page(root))
  assert "Difference to the reference wrong value mine a 90 %" in words
  assert "a 90 % [85, 95] 95 % [90, 100] 80 % [75, 85] 31 % [26, 36]" in words
  assert "a 90 % [85, 95] 95 % [90, 100] 80 % [75, 85] –" in words  # of the second model one kind is unknown
  (root / "accuracy_kinds" / "results.json").write_text(json.dumps({"groups": {"a": None, "b": {"accuracy": 3}}}))
  (root / "online_budget" / "results.json").write_text(json.dumps({"a": [3, {"labels": "x"}], "b": 4}))
  page = _page(root)
  assert "Labels spent" not in page.text and "Reward models compared" not in page.text


def test_files_of_comparisons_are_tables(tmp_path):
  """Results as the stage comparison_accuracy writes them."""
  root = _write_run(tmp_path / "run", config={**CONFIG, "stages": [*STAGES, "bench"]})
  subsets = {"chat": {"accuracy": _interval(0.9), "ties": _interval(0.1)}}
  whole = {"accuracy": _interval(0.8), "ties": _interval(0.05), "mean": _interval(0.75)}
  model = {**whole, "sections": {"Chat": _interval(0.7)}, "subsets": subsets}
  models = {"reward_model": model, "longer": {"accuracy": _interval(0.5)}}
  found = {"comparisons": 12, "left_out": {"longer than 64 tokens": 3}, "models": models}
  (root / "bench").mkdir()
  (root / "bench" / "results.json").write_text(json.dumps({"sets": {"mine": found}}))
  words = _words(_page(root))
  assert "bench: mine 12 comparisons; left out: 3 longer than 64 tokens pairs reward_model longer" in words
  assert "all 80 % [75, 85] 50 % [45, 55] mean of the sections or subsets 75 % [70, 80] – equal scores 5 %" in words
  assert "Chat 70 % [65, 75] – chat 90 % [85, 95] –" in words
  for broken in ({"sets": 3}, {"sets": {"mine": None}}, {"sets": {"mine": {"models": {"a": {"accuracy": "x"}}}}}):
    (root / "bench" / "results.json").write_text(json.dumps(broken))
    assert "files of comparisons" not in _page(root).text


def test_an_axis_of_shares_runs_from_0_to_1_and_marks_at_its_ends_are_whole(monkeypatch):
  monkeypatch.setattr(plots, "page_svg", lambda figure: figure)

  def axes_of(figure):
    (axes,) = figure.axes
    assert all(not line.get_clip_on() for line in axes.lines if line.get_marker() not in (None, "", "None"))
    return axes

  steps, labels = np.arange(3.0), dict(x_label="step", y_label="share")
  for values in ([0.0, 0.4, 1.0], [0.6, 0.7, 0.65], [0.5, 0.5, 1.0000001]):
    line = plots.Line(steps, np.array(values), 0)
    assert axes_of(plots.line_panel([line], **labels, percent=True)).get_ylim() == (0, 1)
    band = plots.Band(steps, line.y, line.y, line.y)
    assert axes_of(plots.band_panel([band], **labels, percent=True, root_scale=False)).get_ylim() == (0, 1)
  rows = [("sft", Interval(0.0, -0.1, 0.1, 5), 0), ("ppo", Interval(1.0, 0.9, 1.1, 5), 1)]
  for option in ("percent", "unit"):
    axes = axes_of(plots.interval_panel(rows, x_label="share", **{option: True}))
    assert axes.get_xlim() == (0, 1)
    bars = np.concatenate([bar.get_segments()[0][:, 0] for bar in axes.collections])
    np.testing.assert_allclose(bars, [0.0, 0.1, 0.9, 1.0])
  line = plots.Line(steps, np.array([-0.001, 1.0, 4.0]), 0)
  assert axes_of(plots.line_panel([line], **labels, root_scale=True)).get_ylim()[0] == 0
  # A user's own metric of the same name in another unit stays visible.
  percentages = plots.Line(steps, np.array([20.0, 60.0, 90.0]), 0)
  assert axes_of(plots.line_panel([percentages], **labels, percent=True)).get_ylim()[1] > 90


def test_baselines_stand_apart_from_the_models(tmp_path):
  root = _write_run(tmp_path / "run", evaluation=_judged())
  page = _page(root)
  words = _words(page)
  models, baselines = words.split("Baselines, without a model", 1)
  assert "ppo_no_kl −0.10" in models and "refusal “" not in models
  assert re.search(r"refusal “I &lt;cannot&gt; help with that.” −0.72", baselines)
  assert "look-up 0.46" in words and "Gold reward unchecked" in words
  assert page.tags.count("svg") == 4 + 1  # the drawings show models alone, and there is one of the kinds
  assert series_colors(read_run(root)) == {"sft": 0, "ppo": 1, "ppo_no_kl": 2}


def test_the_reward_model_is_shown_by_kind_beside_the_style_baseline(tmp_path):
  words = _words(_page(_write_run(tmp_path / "run", evaluation=_judged())))
  assert "style baseline 66 % [61, 71]" in words
  assert "wrong value a wrong value in the same form 81 % [76, 86] 52 % [47, 57] +29 [24, 34] 90 % 100" in words
  assert "mine 61 % [56, 66] – – – 100" in words
  assert words.index("wrong value a wrong") < words.index("mine 61 %")  # kinds of the world first
  assert "By kind and cell" in words and "new facts or numbers 44 % [39, 49]" in words
  assert "By kind and cluster" in words and "facts 81 % [76, 86] –" in words


def test_cells_of_prompts_are_a_table(tmp_path):
  words = _words(_page(_write_run(tmp_path / "run", evaluation=_judged())))
  assert "same task in other words 480 prompts mine 5 prompts" in words
  assert "ppo 1.11 [1.06, 1.16] 64 % [59, 69] – –" in words
  assert "best of 20 similar demonstrations 47 % [42, 52]" in words
  assert "facts same task in other words 1.23 [1.18, 1.28] 0.50 [0.45, 0.55] 33 % [28, 38]" in words
  words = _words(_page(_write_run(tmp_path / "run", evaluation=_evaluation())))
  assert "Old and new prompts" not in words and "Baselines" not in words and "What reward_model knows" not in words


def test_a_constant_answer_with_a_higher_proxy_is_told(tmp_path):
  """The model that was trained last is ppo_no_kl, with a proxy of 3.4; the look-up is no constant."""
  evaluation = _judged()
  (sentence,) = constant_sentences(read_run(_write_run(tmp_path / "run", evaluation=evaluation)))
  assert sentence == (
    "No constant answer has a higher proxy reward than ppo_no_kl (3.40 [3.35, 3.45]): the highest, 1.46 [1.41, 1.51], "
    "is that of “I <cannot> help with that.” (refusal)."
  )
  del evaluation["models"]["ppo_no_kl"]
  evaluation["models"]["ppo"]["proxy"] = _interval(0.92)
  (sentence,) = constant_sentences(read_run(_write_run(tmp_path / "run", evaluation=evaluation)))
  assert sentence == (
    "The reward model prefers a constant answer to ppo: “I <cannot> help with that.” (refusal) has a proxy reward of "
    "1.46 [1.41, 1.51] against 0.92 [0.87, 0.97], at a gold reward of −0.72 [−0.77, −0.67]."
  )
  for measures in evaluation["baselines"].values():
    measures.pop("proxy")
  assert constant_sentences(read_run(_write_run(tmp_path / "run", evaluation=evaluation))) == []


def test_white_space_of_answers_survives(full_page):
  assert "In  Oakford.\nYes." in full_page.text
  assert "(empty)" in full_page.text
  assert "white-space: pre-wrap" in full_page.source


def test_a_run_with_nothing_but_a_config(tmp_path):
  page = _page(_write_run(tmp_path / "bare"))
  for sentence in EMPTY_SECTIONS:
    assert sentence in page.text
  assert "svg" not in page.tags


@pytest.mark.parametrize(
  "without",
  [["reference"], ["models"], ["clusters"], ["reward_model"], ["models", "sft"], ["models", "ppo", "gold"]],
)
def test_any_part_of_the_evaluation_may_be_absent(tmp_path, without):
  evaluation = _evaluation()
  part = evaluation
  for key in without[:-1]:
    part = part[key]
  del part[without[-1]]
  assert "Summary" in _page(_write_run(tmp_path / "run", evaluation=evaluation, rows=[SAMPLE])).text


def test_odd_values_are_no_crash(tmp_path):
  evaluation = _evaluation()
  unbounded = {"mean": 1.0, "low": -math.inf, "high": math.inf, "num": 1}
  evaluation["models"]["sft"] = {"gold": unbounded, "proxy": None}
  evaluation["clusters"]["broken"] = None
  evaluation["reward_model"]["reward_model"]["min_gap"] = None
  evaluation["reward_model"]["reward_model"] |= {"style": 3, "kinds": {"wrong": None, "odd": {"cells": [1]}}}
  evaluation["baselines"] = {"refusal": None, "admission": {"text": 3, "proxy": unbounded}}
  evaluation["cells"] = {"new": None, "old": {"prompts": "x", "models": {"sft": 4}, "clusters": {"a": 3}}}
  rows = [{"prompt": "a"}, {"prompt": "b", "responses": None, "gold": 3}, {"no prompt": 1}]
  config = {"stages": ["sft"], "sft": {"algorithm": None}, "model": "a name"}
  page = _page(_write_run(tmp_path / "run", config=config, evaluation=evaluation, rows=rows))
  assert "2 of 2 prompts" in page.text


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}$x$"


def test_text_is_data_wherever_it_stands(tmp_path):
  config = {"stages": [HOSTILE.replace("/", ""), "ppo"], "model": {"name": HOSTILE}, "ppo": CONFIG["ppo"]}
  evaluation = _evaluation()
  evaluation["reference"] = HOSTILE
  evaluation["models"][HOSTILE] = {"gold": _interval(0.1), HOSTILE: _interval(1.0)}
  evaluation["clusters"][HOSTILE] = {"held_out": True, "models": {HOSTILE: _interval(0.5)}}
  evaluation["reward_model"][HOSTILE] = {"label_accuracy": _interval(0.5)}
  rows = [{"prompt": HOSTILE, "cluster": HOSTILE, "responses": {HOSTILE: HOSTILE}, "gold": {HOSTILE: 1.0}}]
  root = _write_run(tmp_path / "run", config=config, evaluation=evaluation, rows=rows, command=HOSTILE)
  (root / "ppo").mkdir()
  (root / "ppo" / "metrics.jsonl").write_text(json.dumps({"step": 0, HOSTILE: 1.0, "loss": 1.0}))
  page = _page(root)
  assert not {"script", "img"} & set(page.tags)
  assert not any(name.startswith("on") for name, _ in page.attributes)
  assert page.text.count(HOSTILE) >= 8
  assert "<script>al…* 7 }}$x$" in page.text  # beside the axes, where "$x$" is no formula


def test_invisible_characters_are_spelt_out(tmp_path):
  assert visible("a\u202eb\x00\r\u200b") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+000D⟩⟨U+200B⟩"
  assert visible("one\n\ttwo  é 家 👩\u200d💻") == "one\n\ttwo  é 家 👩\u200d💻"
  rows = [{"prompt": "\ud800 \u2028 p", "responses": {"sft": "\u202eevil"}}, {"prompt": "second"}]
  page = _page(_write_run(tmp_path / "run", rows=rows))
  assert "⟨U+D800⟩ ⟨U+2028⟩ p" in page.text and "⟨U+202E⟩evil" in page.text and "second" in page.text
  assert "\u202e" not in page.source


def test_a_directory_without_config_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
    write_report(tmp_path)
  (tmp_path / "config.json").write_text("[1]")
  with pytest.raises(ValueError, match=r"config\.json must hold one JSON object"):
    write_report(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
    write_report(tmp_path)


def test_what_cannot_be_read_is_named_on_the_page(tmp_path):
  records = [{"step": 0, "loss": 1.0}, {"step": 1, "loss": math.nan}, {"step": 2, "loss": "-inf"}]
  root = _write_run(tmp_path / "run", metrics={"sft": records})
  with open(root / "sft" / "metrics.jsonl", "a") as file:
    file.write('{"step": 3, "lo')
  (root / "evaluation" / "evaluation.json").write_text("{")
  page = _page(root)
  assert "sft/metrics.jsonl: 1 line(s) hold no JSON object and were left out (line 4)." in page.text
  assert "sft: 2 records of loss are not finite and are not drawn." in page.text
  assert "evaluation/evaluation.json is not valid JSON" in page.text


def test_records_logged_twice_count_once(tmp_path):
  """A run that was killed after step 3 and resumed at step 2."""
  records = [{"step": t, "loss": float(t)} for t in (0, 1, 2, 3)]
  records += [{"step": t, "loss": 10.0 + t} for t in (2, 3, 4)]
  run = read_run(_write_run(tmp_path / "run", metrics={"sft": records}))
  series = {stage.name: stage for stage in run.stages}["sft"].series["loss"]
  np.testing.assert_array_equal(series.steps, [0, 1, 2, 3, 4])
  np.testing.assert_array_equal(series.values, [0, 1, 12, 13, 14])
  assert series.final == 14.0


def test_stages_keep_one_colour_in_stage_order(full_run):
  run = read_run(full_run)
  assert series_colors(run) == {"sft": 0, "reward_model": 1, "ppo": 2, "ppo_no_kl": 3}
  assert list(run.models) == ["sft", "ppo", "ppo_no_kl"]


def test_summary_sentences_claim_only_what_the_intervals_show(tmp_path):
  evaluation = _evaluation()
  evaluation["models"]["ppo"]["gold"] = _interval(0.45)  # overlaps sft's [0.35, 0.45]
  evaluation["models"]["ppo_no_kl"]["win_rate"] = _interval(0.3)
  sentences = summary_sentences(read_run(_write_run(tmp_path / "run", evaluation=evaluation)))
  assert sentences[0].startswith(
    "ppo moved the mean gold reward from 0.40 [0.35, 0.45] (sft) to 0.45 [0.40, 0.50]; the 95 % intervals overlap"
  )
  assert sentences[1].startswith(
    "ppo_no_kl lowered the mean gold reward from 0.40 [0.35, 0.45] (sft) to −0.10 [−0.15, −0.05]; "
    "the 95 % intervals are disjoint. Its answer beats that of sft on 30 % [25, 35] of the prompts"
  )


def test_summary_sentences_fall_back_on_the_proxy(tmp_path):
  evaluation = _evaluation()
  for measures in evaluation["models"].values():
    del measures["gold"], measures["win_rate"]
  sentences = summary_sentences(read_run(_write_run(tmp_path / "run", evaluation=evaluation)))
  assert sentences[0] == (
    "ppo raised the mean proxy reward from 0.50 [0.45, 0.55] (sft) to 1.80 [1.75, 1.85]; "
    "the 95 % intervals are disjoint."
  )


def test_kl_penalty_sentence(full_run, tmp_path):
  (sentence,) = kl_penalty_sentences(read_run(full_run))
  assert sentence == (
    "Without the KL penalty (ppo_no_kl) the policy ends at proxy reward 3.40 [3.35, 3.45] and gold reward "
    "−0.10 [−0.15, −0.05]; with the penalty (ppo, coefficient 0.05) at proxy reward 1.80 [1.75, 1.85] and gold "
    "reward 0.95 [0.90, 1.00]. The policy without the penalty has the higher proxy reward and the lower gold reward: "
    "over-optimisation."
  )
  # Without an evaluation, the last tenth of training: steps 27 to 29.
  (sentence,) = kl_penalty_sentences(read_run(_write_run(tmp_path / "a", metrics=_metrics())))
  assert "ends at proxy reward 2.80 and gold reward 0.44;" in sentence and "without intervals" in sentence
  config = copy.deepcopy(CONFIG)
  config["ppo_no_kl"]["kl_coef"] = 0.01
  assert kl_penalty_sentences(read_run(_write_run(tmp_path / "b", config=config, metrics=_metrics()))) == []


def test_the_ablation_is_compared_with_its_own_algorithm(tmp_path):
  config = copy.deepcopy(CONFIG)
  config["stages"] = ["sft", "reinforce", "ppo", "ppo_no_kl"]
  config["reinforce"] = {"algorithm": "rlhf_jax.algorithms.reinforce", "kl_coef": 0.1}
  metrics = _metrics() | {"reinforce": _metrics()["ppo"]}
  (sentence,) = kl_penalty_sentences(read_run(_write_run(tmp_path / "run", config=config, metrics=metrics)))
  assert "with the penalty (ppo, coefficient 0.05)" in sentence


def test_over_optimisation_pairs_kl_and_reward_by_step(tmp_path):
  records = [
    {"step": 0, "kl/reference": -0.01, "reward/proxy": 0.0},
    {"step": 1, "reward/proxy": 50.0},
    {"step": 2, "kl/reference": 4.0, "reward/proxy": 1.0},
    {"step": 3, "kl/reference": 100.0},
    {"step": 4, "kl/reference": 9.0, "reward/proxy": 2.0},
  ]
  run = read_run(_write_run(tmp_path / "run", metrics={"ppo": records}))
  stage = {stage.name: stage for stage in run.stages}["ppo"]
  root, reward = over_optimisation(stage, "reward/proxy")
  np.testing.assert_array_equal(root, [0.0, 2.0, 3.0])
  np.testing.assert_array_equal(reward, [0.0, 1.0, 2.0])
  assert over_optimisation(stage, "reward/gold") is None


def test_samples_take_the_clusters_in_turn(tmp_path):
  rows = [{"prompt": f"a{i}", "cluster": "a"} for i in range(MAX_SAMPLES)]
  rows.append({"prompt": "b0", "cluster": "b"})
  run = read_run(_write_run(tmp_path / "run", rows=rows))
  shown = samples(run, {})
  assert [sample["prompt"] for sample in shown[:3]] == ["a0", "b0", "a1"]
  assert len(shown) == MAX_SAMPLES


def test_curves_are_thinned_and_smoothed_without_bias():
  np.testing.assert_allclose(moving_average(np.arange(100.0))[2:-2], np.arange(100.0)[2:-2])
  # 100 records: a window of 5, which shrinks to 3 at the very end.
  assert moving_average(np.arange(100.0))[-1] == pytest.approx((97 + 98 + 99) / 3)
  x = np.random.default_rng(0).normal(size=4800)
  assert thin_out(x, 240).shape == (240,) and thin_out(x, 240).mean() == pytest.approx(x.mean())
  np.testing.assert_array_equal(thin_out(x[:5], 240), x[:5])


def test_numbers_are_written_for_reading():
  written = [number(x) for x in (-0.004, 1.25, -3.14159, 250.4, math.nan)]
  assert written == ["0.00", "1.25", "−3.14", "250", "–"]


def test_the_page_depends_on_the_run_alone_and_matplotlib_stays_as_it_was(full_run, full_page):
  assert write_report(full_run).read_text(encoding="utf-8") == full_page.source
  assert dict(matplotlib.rcParams) == RC_PARAMS


def test_drawing_needs_no_pyplot(full_run, full_page):
  """A fresh process, with another hash seed: the same page, and no window system was asked for."""
  code = (
    "import sys; from rlhf_jax.report.report import write_report; write_report(sys.argv[1]); "
    "sys.exit('matplotlib.pyplot' in sys.modules)"
  )
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "5"}
  done = subprocess.run([sys.executable, "-c", code, str(full_run)], env=environment, check=False)
  assert done.returncode == 0
  assert (full_run / "report.html").read_text(encoding="utf-8") == full_page.source
