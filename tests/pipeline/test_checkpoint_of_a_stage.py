"""A checkpoint of a stage along its training, "NAME@STEP", wherever a stage is named."""

import pytest
from tiny_chain import recipe

from rlhf_jax.pipeline.check import check_run
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import split_step


def config(model, **ppo):
  found = recipe("quickstart")
  found["ppo"] |= {"num_steps": 32, "checkpoint_every": 8, **ppo}
  found["evaluation"]["models"] = ("sft", model)
  return found


def test_a_name_may_end_in_a_step():
  assert split_step("ppo@16") == ("ppo", 16) and split_step("ppo") == ("ppo", None)
  assert split_step("runs/a@2/ppo") == ("runs/a@2/ppo", None) and split_step("runs/a/ppo@2") == ("runs/a/ppo", 2)
  assert split_step("@3") == ("@3", None) and split_step("") == ("", None)


def test_the_stage_is_read_from_by_its_name(tmp_path):
  steps = {step.stage.name: step for step in plan(config("ppo@24"), tmp_path)}
  assert "ppo" in steps["evaluation"].upstream
  last = {step.stage.name: step for step in plan(config("ppo"), tmp_path)}
  assert steps["evaluation"].stage.fingerprint != last["evaluation"].stage.fingerprint
  assert steps["ppo"].stage.fingerprint == last["ppo"].stage.fingerprint


def test_a_checkpoint_that_will_not_be_kept_is_refused(tmp_path):
  check_run(config("ppo@24"), tmp_path)  # the newest two are those of steps 24 and 32
  check_run(config("ppo@8", loop=dict(keep=4)), tmp_path)
  told = r"config.evaluation.models\[1\] is 'ppo@{}', and ppo keeps the checkpoints of steps {}: set config.ppo"
  with pytest.raises(ConfigError, match=told.format(8, "24, 32")):
    check_run(config("ppo@8"), tmp_path)
  with pytest.raises(ConfigError, match=told.format(20, "8, 16, 24, 32")):
    check_run(config("ppo@20", loop=dict(keep=9)), tmp_path)
  with pytest.raises(ConfigError, match=r"is 'pop@8', and no stage before it has that name. Did you mean 'ppo'\?"):
    check_run(config("pop@8"), tmp_path)
