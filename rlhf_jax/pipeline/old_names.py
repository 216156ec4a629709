"""Names that a config may hold from before version 0.2, when modules lay elsewhere: finished runs open as ever.

A fingerprint is taken of a config in its old names, so that a stage that was done stays done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STAGES = (
  "annotators best_of_n demonstrations import_model judgements preferences refinement refinement_demonstrations "
  "select_demonstrations tokenizer world world_questions"
).split()
_EVALUATIONS = "evaluate few_shot label_budget perplexity reward_accuracy".split()
_REWARD_MODEL = "rlhf_jax.algorithms.reward_model"
_REWARD_FROM_FEEDBACK = "rlhf_jax.algorithms.reward_from_feedback"  # the reward model with the key `feedback`
_MOVED = {  # name in version 0.1 -> name now
  **{f"rlhf_jax.algorithms.{name}": f"rlhf_jax.stages.{name}" for name in _STAGES},
  **{f"rlhf_jax.evaluation.{name}": f"rlhf_jax.stages.{name}" for name in _EVALUATIONS},
  "rlhf_jax.world:human_rating": "rlhf_jax.world:simulated_rating",
}
CURRENT = {**_MOVED, _REWARD_FROM_FEEDBACK: _REWARD_MODEL}
_FIRST = {current: old for old, current in _MOVED.items()}


def current_names(config: Any) -> Any:
  """A config (nested mappings, lists and values) in today's names."""
  return _renamed(config, CURRENT)


def first_names(config: Any) -> Any:
  """A config in the names of version 0.1, from which fingerprints are taken.

  Version 0.1 had two modules of reward models; a section of its `reward_model` has no key `feedback`.
  """
  return _with_two_reward_models(_renamed(config, _FIRST))


def _with_two_reward_models(value: Any) -> Any:
  if isinstance(value, list):
    return [_with_two_reward_models(item) for item in value]
  if not isinstance(value, Mapping):
    return value
  section = {key: _with_two_reward_models(item) for key, item in value.items()}
  if section.get("algorithm") == _REWARD_MODEL and section.get("feedback"):
    section["algorithm"] = _REWARD_FROM_FEEDBACK
  return section


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
  if isinstance(value, Mapping):
    return {key: _renamed(item, names) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_renamed(item, names) for item in value]
  return names.get(value, value) if isinstance(value, str) else value
