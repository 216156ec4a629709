"""Programs of every stage that learns, on eight simulated devices: their sizes, collectives and figures."""

import dataclasses
import math

import jax
import pytest
from tiny_chain import recipe

from rlhf_jax.models import DecoderConfig
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.run import run
from rlhf_jax.settings import ConfigError
from rlhf_jax.tools.compile import compile as driver
from rlhf_jax.tools.compile.chips import CHIPS, Target, target
from rlhf_jax.tools.compile.program import bytes_on_chip, compiled, traced
from rlhf_jax.tools.compile.stages import programs_of
from rlhf_jax.train.mesh import using_devices
from rlhf_jax.train.update import Compiled
from rlhf_jax.train.workspace import select_model

MODEL = dict(
  num_layers=2, d_model=32, num_heads=4, num_kv_heads=4, d_ff=64, max_length=32, dtype="bfloat16", tied=False
)
TRANSPORT = dict(
  kind="jit", fsdp=8, microbatches=1, logits_chunk=4, remat="full", attention="xla", layers="scanned",
  gradient_dtype="bfloat16",
)  # fmt: skip
SAMPLING = dict(max_prompt_tokens=8, max_new_tokens=8, temperature=1.0)
ROLLOUT = ["lay_out", "sample", "score", "experience", "update"]
PROGRAMS = {
  "quickstart:pretrain": ["update"], "quickstart:sft": ["update"], "dpo": ["reference", "update"],
  "kto": ["reference", "baseline", "update"], "kto:apo_zero": ["reference", "update"],
  "quickstart:reward_model": ["update", "lay_out", "sample", "score"], "ppo": ROLLOUT, "reinforce:value": ROLLOUT,
  "rloo": ROLLOUT, "grpo": ROLLOUT, "reinforce_plus_plus": ROLLOUT, "ppo_ptx": ROLLOUT,
  "distillation": ["lay_out", "sample", "teacher", "update"],
  "online_dpo": ROLLOUT, "process_reward:steps.jsonl": ["update"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def eight():
  if jax.device_count() < 8:
    pytest.skip("needs eight devices")
  with using_devices(jax.devices()[:8]):
    yield


def small(name, **transport):
  """The last stage that learns of a recipe, at sizes of a test."""
  config = recipe(*name.split(":"))
  stages = [stage for stage in config["stages"] if "optimizer" in config[stage]]
  settings = config[stages[-1]]
  config |= {"stages": stages[-1:], "model": MODEL, "transport": {**TRANSPORT, **transport}}
  if "environment" in settings:
    per_prompt = settings["environment"]["samples_per_prompt"]
    settings["environment"] |= dict(batch_size=32 // per_prompt, sampling=SAMPLING)
  else:
    settings |= dict(batch_size=16, length=16) | (dict(sampling=SAMPLING) if "sampling" in settings else {})
  return config


def programs(config, tmp_path):
  (step,) = plan(config, tmp_path)
  model = select_model(
    DecoderConfig(config["vocabulary"]["vocab_size"], **dataclasses.asdict(step.stage.model)), step.stage.transport
  )
  return programs_of(step, model)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_stage_has_its_programs_and_asks_for_no_more_than_the_minimum(name, tmp_path):
  whole = dict(logits_chunk=0) if name == "distillation" else {}  # which compares whole distributions
  found = programs(small(name, **whole), tmp_path)
  assert [program.name for program in found.programs] == PROGRAMS[name]
  for program in found.programs:
    _, counts, _ = traced(program, 8)
    assert program.name == "lay_out" or counts.flops > 0
    if program.minimum:
      # Metrics and vectors, which are whole on every chip, are a few kilobytes here.
      assert counts.collectives.get("all-gather", 0) + counts.collectives.get("reduce-scatter", 0) <= program.minimum
    once = {"policy", "reference"} if not program.calls else set()
    assert set(program.weights) - {"serving copy", "frozen copy"} - once <= set(found.resident)
    if program.name != "lay_out":  # its policy is a part of the parameters
      leaves = {id(leaf) for leaf in jax.tree.leaves(program.arguments)}
      assert all(id(leaf) in leaves for tree in program.weights.values() for leaf in jax.tree.leaves(tree))


def test_parameters_and_moments_are_cut_into_eight(tmp_path):
  found = programs(small("ppo"), tmp_path)
  sizes = {name: bytes_on_chip(tree) for name, tree in found.resident.items()}
  whole = sum(math.prod(leaf.shape) * 4 for leaf in jax.tree.leaves(found.resident["parameters"]))
  assert sizes["parameters"] == pytest.approx(whole / 8, rel=0.02)  # norms and heads are whole
  assert sizes["optimizer"] == pytest.approx(2 * sizes["parameters"], rel=1e-2)


def test_a_reward_model_has_a_shape_of_its_own(tmp_path):
  config = small("ppo")
  whole = driver._programs(*plan(config, tmp_path), config).resident["reward model"]
  config["models"] = {"reward_model": {"num_layers": 1, "d_ff": 16}}
  less = driver._programs(*plan(config, tmp_path), config).resident["reward model"]
  assert bytes_on_chip(less) < bytes_on_chip(whole)


def test_work_is_divided_among_the_chips_however_many_microbatches(tmp_path):
  one, four = (
    traced(programs(small("quickstart:sft", microbatches=parts), tmp_path).programs[0], 8)[1] for parts in (1, 2)
  )
  assert four.flops == pytest.approx(one.flops, rel=0.02)
  assert four.collectives["all-gather"] == 2 * one.collectives["all-gather"]  # gathered in each microbatch


def test_a_program_is_compiled_and_its_figures_agree(tmp_path):
  found = programs(small("quickstart:sft"), tmp_path)
  chips = Target("cpu", CHIPS["v5e"], jax.devices()[:8], 1)
  figures = compiled("sft", found.programs[0], chips, 0.0)
  assert figures.fits and figures.advice == ""
  assert figures.parameters + figures.optimizer == pytest.approx(sum(map(bytes_on_chip, found.resident.values())))
  assert figures.asked["all-gather"] == pytest.approx(figures.made["all-gather"], rel=0.5)
  assert figures.seconds > 0 and 0 < figures.mfu < 1


def test_a_stage_is_compiled_for_chips_that_are_not_there():
  pytest.importorskip("libtpu", reason="the compiler for TPUs is not installed: pip install -e '.[aot]'")
  chips = target("v5e:2x4")
  report = driver.compile_config(small("quickstart:sft"), "small", chips, (), lambda line: None)
  (figures,) = report.figures
  assert report.fits and report.mesh == dict(data=1, fsdp=8, tensor=1) and figures.made
  # The compiler makes all-reduces, of twice the bytes, of the reduce-scatters that the program asks for.
  assert 1 <= figures.made_ratio / figures.asked_ratio < 1.6
  assert 0 < figures.parameters + figures.optimizer < figures.peak < 0.1 * figures.hbm


def test_a_stage_that_learns_nothing_has_no_programs(tmp_path):
  config = recipe("quickstart", "world")
  (step,) = plan(config, tmp_path)
  assert programs_of(step, None) is None
  with pytest.raises(ConfigError, match="no stage of config.stages .* learns"):
    driver.compile_config(config, "x", Target("cpu", CHIPS["v5e"], jax.devices()[:8], 1), (), print)


def test_a_stage_that_the_config_does_not_have_is_refused():
  with pytest.raises(ConfigError, match="--stages sftt"):
    driver.compile_config(small("ppo"), "x", Target("cpu", CHIPS["v5e"], jax.devices()[:8], 1), ("sftt",), print)


def arrays(tree):
  """(shape, dtype, sharding) of every leaf."""
  return [(x.shape, x.dtype, x.sharding.spec) for x in jax.tree.leaves(tree)]


def test_what_is_compiled_is_what_runs(tmp_path, monkeypatch):
  """A run calls the update with arguments of the shapes, types and places that were compiled for."""
  called = []
  call = Compiled.__call__

  def recorded(self, state, batch, weights):
    called.append(arrays((state, *self.put((batch, weights)))))
    return call(self, state, batch, weights)

  monkeypatch.setattr(Compiled, "__call__", recorded)
  config = small("quickstart:pretrain")
  (tmp_path / "corpus.txt").write_text("Tom lives in Oakford. Ann sells apples.\n" * 400)
  config["stages"] = ["vocabulary", "pretrain"]
  config["vocabulary"] |= dict(texts=(str(tmp_path / "corpus.txt"),), vocab_size=264)
  config["pretrain"] |= dict(text=str(tmp_path / "corpus.txt"), eval_rows=8, num_steps=1, evaluate_every=1)
  run(config, tmp_path / "run")
  found = programs({**config, "stages": ["pretrain"]}, tmp_path)
  assert called[0] == arrays(found.programs[0].arguments)
