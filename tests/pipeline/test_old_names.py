"""Configs of version 0.1: they run in today's names, and their stages keep the fingerprints they were done with."""

import pytest

from rlhf_jax.pipeline.old_names import CURRENT, current_names, first_names
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.settings import import_function, import_module

REWARD_MODEL = {"algorithm": "rlhf_jax.algorithms.reward_model", "comparisons": "pairs.jsonl"}
FROM_FEEDBACK = {"algorithm": "rlhf_jax.algorithms.reward_from_feedback", "feedback": ["feedback.db"]}


@pytest.mark.parametrize("old", CURRENT)
def test_an_old_name_is_something_of_today_and_comes_back(old):
  current = CURRENT[old]
  assert import_function(current) if ":" in current else import_module(current).run
  section = FROM_FEEDBACK if old == FROM_FEEDBACK["algorithm"] else {"algorithm": old}
  assert current_names(section)["algorithm"] == current
  assert first_names(["stage", current_names({"section": section})]) == ["stage", {"section": section}]


def test_a_reward_model_from_comparisons_was_always_that():
  assert first_names(current_names(REWARD_MODEL)) == REWARD_MODEL
  assert first_names({**REWARD_MODEL, "feedback": []})["algorithm"] == REWARD_MODEL["algorithm"]


def test_the_fingerprint_of_a_reward_model_is_that_of_its_old_name(tmp_path):
  from tiny_chain import recipe

  config = recipe("reward_from_feedback", "pairs")
  old = {**config, "reward_pairs": {**config["reward_pairs"], "algorithm": FROM_FEEDBACK["algorithm"]}}
  assert config["reward_pairs"]["algorithm"] == REWARD_MODEL["algorithm"]
  marks = [{step.stage.name: step.stage.fingerprint for step in plan(c, tmp_path)} for c in (config, old)]
  assert marks[0] == marks[1]
  changed = {**config, "reward_pairs": {**config["reward_pairs"], "rating_scale": 3.0}}
  other = {step.stage.name: step.stage.fingerprint for step in plan(changed, tmp_path)}
  assert other["reward_pairs"] != marks[0]["reward_pairs"]
