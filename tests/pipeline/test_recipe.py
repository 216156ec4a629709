"""Keys that a recipe leaves to their defaults can be set on the command line, with the types of their dataclasses."""

import pytest

from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.pipeline.run import plan
from rlhf_jax.settings import ConfigError
from rlhf_jax.train import Lora


def load(*overrides, recipe="quickstart"):
  return load_config(["--config", recipe, "--workdir", "x", *overrides])[0]


@pytest.mark.parametrize(
  "override, value",
  [
    ("--config.model.dtype=bfloat16", "bfloat16"),
    ("--config.transport.logits_chunk=16", 16),
    ("--config.ppo.environment.sampling.top_k=5", 5),
    ("--config.ppo.environment.sampling.top_p=1", 1.0),
    ("--config.ppo.environment.sampling.stop=('a','b')", ["a", "b"]),
    ("--config.ppo.environment.missing_eos_score=-1", -1.0),
    ("--config.reward_model.margins=(0.0,1.0,2.0)", [0.0, 1.0, 2.0]),
    ("--config.reward_model.per_annotator=true", True),
    ("--config.evaluation.baselines={'a': 'b'}", {"a": "b"}),
    ("--config.sft.lora={'rank': 8, 'alpha': 16.0}", {"rank": 8, "alpha": 16.0}),
    ("--config.sft.lora=None", None),
  ],
)
def test_a_key_that_the_recipe_leaves_out_has_the_type_of_its_field(override, value):
  found = load(override)
  for key in override.partition("=")[0].split(".")[1:]:
    found = found[key]
  assert found == value and type(found) is type(value)


def test_keys_of_an_optional_dataclass(tmp_path):
  config = load("--config.sft.lora.rank=8", "--config.sft.lora.alpha=16", "--config.model.dtype=bfloat16")
  steps = {step.stage.name: step for step in plan(config, tmp_path)}
  assert steps["sft"].config.lora == Lora(8, 16.0) and steps["ppo"].config.lora is None
  assert steps["ppo"].stage.model.dtype == "bfloat16"
  with pytest.raises(ConfigError, match="^config.sft.lora lacks the key 'alpha'.$"):
    plan(load("--config.sft.lora.rank=8"), tmp_path)


def test_a_key_belongs_to_the_module_that_the_command_line_names():
  config = load("--config.sft.algorithm=rlhf_jax.algorithms.dpo", "--config.sft.loss.name=ipo")
  assert config["sft"]["loss"] == {"name": "ipo"}


@pytest.mark.parametrize(
  "override, message",
  [
    ("--config.model.dtyp=x", "config.model has no key 'dtyp'. Did you mean 'dtype'?"),
    ("--config.ppo.environment.sampling.topk=5", "config.ppo.environment.sampling has no key 'topk'. Did you mean "
     "'top_k'?"),
    ("--config.sft.lora.rnk=8", "config.sft.lora has no key 'rnk'. Did you mean 'rank'?"),
    ("--config.sft.lora.rank=x", "config.sft.lora.rank must be int, not 'x'."),
    ("--config.sft.lora=3", "config.sft.lora must be a mapping, not '3'."),
    ("--config.pretrain.text.window=3", "config.pretrain.text is '{run}/world/corpus.txt' and has no keys, so there "
     "is no 'window' in it."),
    ("--config.ppo.environment.monitor.arguments.sed=3", "config.ppo.environment.monitor.arguments has no key 'sed'. "
     "Did you mean 'seed'?"),
  ],
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_nearest(override, message):
  with pytest.raises(ConfigError) as error:
    load(override)
  assert str(error.value) == message
