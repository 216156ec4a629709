"""`{run}` in the arguments of a function stands for the run directory, for each setting that names a function."""

import dataclasses
import importlib
import json
import typing
from pathlib import Path

import jax
import optax
import pytest

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.stages import answers, best_of_n_curve, evaluate, few_shot, judgements, preferences, reward_accuracy
from rlhf_jax.train import (
  ArrayFunction,
  Environment,
  Function,
  Reward,
  Sampling,
  identity,
  init_state,
  make_environment,
)
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.train.rewards import FunctionPart
from rlhf_jax.train.workspace import open_workspace

pytestmark = pytest.mark.usefixtures("unoptimised")
SAMPLING = Sampling(max_prompt_tokens=40, max_new_tokens=4, temperature=1.0)
OWN = """
from pathlib import Path

def called(places):
  with Path(places["files"][0]).open("a") as file:
    file.write("called ")

def score(prompts, responses, places):
  called(places)
  return [float(sum(map(ord, response)) % 97) for response in responses]

def measures(prompts, responses, places):
  return {"total": score(prompts, responses, places)}

def quiet(prompts, responses):
  return [0.0] * len(responses)

def critic(labeller, prompt, response, rng, places):
  called(places)
  return "Too long."
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run directory with a tokenizer, prompts, functions, and the untrained models "policy" and "judge"."""
  root = tmp_path_factory.mktemp("run")
  (root / "own.py").write_text(OWN)
  tokenizer = data.train_tokenizer(["Where does Tom live? In Oakford. What is 2 plus 2? 4."], 300)
  tokenizer.save(root / "tokenizer.json")
  data.write_rows(root / "prompts.jsonl", [{"prompt": "Where?"}, {"prompt": "What is 2?"}])
  contrast = {"prompt": "Where?", "chosen": "In Oakford.", "rejected": "4.", "kind": "wrong"}
  data.write_rows(root / "contrasts.jsonl", [contrast, {**contrast, "chosen": "4.", "rejected": "In Oakford."}])
  data.write_rows(root / "questions.jsonl", [{"prompt": "Where?", "answer": "In Oakford"}])
  shape = Model(num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, d_ff=16, max_length=64)
  stage = Stage("test", root, 0, f"{root}/tokenizer.json", shape, Transport("jit", 1, 1), "print")
  model = language_model(DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(shape)))
  params = jax.jit(model.init)(jax.random.key(0))
  for name, kept in (("policy", params), ("judge", model.init_head(jax.random.key(1), params))):
    with open_checkpoints(root / name / "checkpoints") as checkpoints:
      save(checkpoints, init_state(kept, optax.identity()), identity(stage, model, tokenizer))
  return stage


def named(name, stage):
  """One of the functions above, whose file of calls is named in a nested argument."""
  return Function(f"{stage.root}/own.py:{name}", {"places": {"files": ["{run}/calls.txt"]}})


NONE = Function("")
PROMPTS = dict(algorithm="", policy="policy", prompts="{run}/prompts.jsonl", batch_size=2, sampling=SAMPLING)


def run_environment(stage, reward=NONE, monitor=NONE, parts=None):
  both = Reward("judge", 1.0, reward.function, 1.0, reward.arguments, parts=parts or {})
  settings = Environment("{run}/prompts.jsonl", 2, 1, SAMPLING, both, None, monitor)
  tokenizer, model = open_workspace(stage)
  params = model.init(jax.random.key(0))
  make_environment(settings, stage, model, tokenizer)(params, 0)


def run_judgements(stage, gold, critic=NONE):
  everything = dict(
    num_items=2,
    responses=2,
    written="",
    num_written=0,
    judges=1,
    kinds=("ranks",),
    gold_share=0.0,
    labellers={"expert": 1},
  )
  judgements.run(judgements.Config(**PROMPTS, **everything, critic=critic, gold=gold), stage)


def run_evaluate(stage):
  evaluate.run(
    evaluate.Config(
      "", ("policy",), "policy", "{run}/prompts.jsonl", "", 2, 2, SAMPLING, "", named("measures", stage), 2, 0.5,
      {"expert": 1}, 2,
    ),
    stage,
  )  # fmt: skip


def run_few_shot(stage):
  task = few_shot.QuestionSet("{run}/questions.jsonl", "generate", score=named("score", stage), max_new_tokens=4)
  few_shot.run(few_shot.Config("", ("policy",), (), {"where": task}, (0,), 0, 2), stage)


def run_accuracy(stage):
  everything = dict(num_prompts=2, responses=2, min_gap=0.5, groups={"one": ("judge",)}, reference="one")
  everything |= dict(contrasts="{run}/contrasts.jsonl")
  reward_accuracy.run(reward_accuracy.Config(**PROMPTS, **everything, gold=named("score", stage)), stage)


def run_answers(stage):
  shared = {name: value for name, value in PROMPTS.items() if name != "policy"}
  everything = dict(num_prompts=2, responses=2, min_gap=0.5, policies=("policy",), reference="policy")
  gold = named("measures", stage)
  answers.run(answers.Config(**shared, **everything, reward_models=("judge",), gold=gold), stage)


def run_curve(stage):
  gold = named("score", stage)
  settings = best_of_n_curve.Config(**PROMPTS, num_prompts=2, responses=2, models=("judge",), gold=gold)
  best_of_n_curve.run(settings, stage)


USES = {
  "Reward.function": lambda stage: run_environment(stage, named("score", stage)),
  "FunctionPart.function": lambda stage: run_environment(
    stage, parts={"own": FunctionPart(**vars(named("score", stage)))}
  ),
  "Environment.monitor": lambda stage: run_environment(stage, monitor=named("score", stage)),
  "judgements.Config.gold": lambda stage: run_judgements(stage, named("measures", stage)),
  "judgements.Config.critic": lambda stage: run_judgements(
    stage,
    dataclasses.replace(named("measures", stage), arguments={"places": {"files": ["/dev/null"]}}),
    named("critic", stage),
  ),
  "preferences.Config.gold": lambda stage: preferences.run(
    preferences.Config(
      **PROMPTS,
      num_prompts=2,
      responses=2,
      written="",
      num_written=0,
      labellers={"expert": 1},
      gold=named("measures", stage),
    ),  # fmt: skip
    stage,
  ),
  "evaluate.Config.gold": run_evaluate,
  "few_shot.QuestionSet.score": run_few_shot,
  "reward_accuracy.Config.gold": run_accuracy,
  "answers.Config.gold": run_answers,
  "best_of_n_curve.Config.gold": run_curve,
}


@pytest.mark.parametrize("use", USES)
def test_the_run_directory_is_replaced(run, use):
  calls = run.root / "calls.txt"
  calls.unlink(missing_ok=True)
  USES[use](dataclasses.replace(run, name=use))
  assert calls.read_text().startswith("called")


def test_reward_models_are_compared_on_contrasts(run):
  run_accuracy(dataclasses.replace(run, name="contrasts"))
  result = json.loads((run.root / "contrasts" / "results.json").read_text())
  # Two contrasts that are each other's opposite: the model is right on one of them.
  (accuracy,) = result["groups"]["one"]["kinds"]["wrong"]
  assert accuracy["mean"] == 0.5 and accuracy["num"] == 2


def test_every_setting_that_names_a_function_is_among_them():
  found = set()

  def walk(hint):
    # A function of arrays reads no file: its arguments are numbers.
    if dataclasses.is_dataclass(hint) and hint not in (Function, ArrayFunction):
      module = f"{hint.__module__.rpartition('.')[2]}." if hint.__module__.startswith("rlhf_jax.stages") else ""
      for field, inner in typing.get_type_hints(hint, include_extras=True).items():
        if inner is Function or getattr(inner, "__metadata__", None) == ("function",):
          found.add(f"{module}{hint.__name__}.{field}")
        walk(inner)
    for inner in typing.get_args(hint):
      walk(inner)

  package = Path(evaluate.__file__).parents[1]
  for path in (*package.glob("algorithms/*.py"), *package.glob("stages/*.py")):
    walk(getattr(importlib.import_module(f"rlhf_jax.{path.parent.name}.{path.stem}"), "Config", None))
  assert found == set(USES)
