"""Stages that are stopped after each part in turn write what an uninterrupted stage writes, byte for byte."""

import contextlib
import dataclasses
import itertools
import shutil
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.stages import (
  answers,
  best_of_n,
  best_of_n_curve,
  comparison_accuracy,
  evaluate,
  few_shot,
  judgements,
  perplexity,
  preferences,
  refinement,
  reward_accuracy,
)
from rlhf_jax.train import Function, Interrupted, Reward, Sampling, parts
from rlhf_jax.types import Rollout

STAGES = (
  answers, best_of_n, best_of_n_curve, comparison_accuracy, evaluate, few_shot, judgements, perplexity, preferences,
  refinement,
  reward_accuracy,
)  # fmt: skip
SAMPLING = Sampling(max_prompt_tokens=40, max_new_tokens=4, temperature=1.0)
PROMPTS = dict(algorithm="", policy="policy", prompts="{run}/prompts.jsonl", batch_size=1, sampling=SAMPLING)
FEW = dict(written="", num_written=0, labellers={"expert": 2})
WORDS = ["Tom", "lives", "in", "Oakford", "4", "no"]
OWN = """
def score(prompts, responses):
  return [float(sum(map(ord, response)) % 97) for response in responses]

def measures(prompts, responses):
  return {"total": score(prompts, responses)}

def drawn(labeller, prompt, response, rng):
  return f"{rng.random():.1f}"
"""


def make_sampler(*settings):
  """Responses of random words and log-probabilities, which follow from the key as a model's do."""

  def sample(params, batch, key, copies=1):
    num = len(batch.lengths) * copies
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    texts = [" ".join(rng.choice(WORDS, 3)) for _ in range(num)]
    logp = rng.normal(size=(num, 4)).astype(np.float32)
    return Rollout(np.zeros((num, 4), np.int32), rng.random((num, 4)) < 0.7, logp, np.ones(num, bool)), texts

  return sample


def make_likelihood(*settings):
  def likelihood(params, pairs):
    sums = np.array([np.sin(sum(context) + 2 * sum(counted)) - 2 for context, counted in pairs], np.float32)
    return sums, sums > -2

  return likelihood


def lengths(prompts, responses):
  return np.array([len(prompt) + len(response) / 3 for prompt, response in zip(prompts, responses, strict=True)], "f4")


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch):
  """A run whose models are fakes: what they say, and what it is worth, costs nothing."""
  (tmp_path / "own.py").write_text(OWN)
  tokenizer = data.train_tokenizer(["Where does Tom live? In Oakford. What is 2 plus 2? 4."], 300)
  model = SimpleNamespace(
    config=SimpleNamespace(max_length=256), apply=lambda params, tokens: jnp.zeros((*tokens.shape, 300))
  )
  fakes = dict(
    open_workspace=lambda stage: (tokenizer, model),
    load_policy=lambda *settings: {},
    load_served=lambda *settings: {},
    load_stage=lambda *settings: {"head": {}},
    load_reward_model=lambda *settings: (model, {"head": {}}),
    make_sampler=make_sampler,
    make_likelihood=make_likelihood,
    model_scorer=lambda *settings: lambda rollout, prompts, responses: lengths(prompts, responses),
    text_scorer=lambda *settings: lengths,
  )
  for module in STAGES:
    for name in fakes.keys() & vars(module).keys():
      monkeypatch.setattr(module, name, fakes[name])
  monkeypatch.setattr(perplexity, "PART_BATCHES", 6)
  monkeypatch.setattr(comparison_accuracy, "PART_BATCHES", 1)
  prompts = [{"prompt": "Where?"}, {"prompt": "What is 2?"}]
  contrast = {"prompt": "Where?", "chosen": "In Oakford.", "rejected": "4.", "kind": "wrong"}
  files = dict(
    prompts=prompts,
    contrasts=[contrast, {**contrast, "chosen": "4.", "rejected": "In Oakford."}],
    questions=[{"prompt": "Where?", "answer": "Yes"}, {"prompt": "Who?", "answer": "Eve"}],
    choices=[{"prompt": f"Where {n}?", "choices": ["yes", "no"], "answer": n % 2} for n in range(3)],
    demonstrations=[{"prompt": "Where?", "response": "In Oakford."}],
  )
  for name, rows in files.items():
    data.write_rows(tmp_path / f"{name}.jsonl", rows)
  (tmp_path / "plain.txt").write_text("Tom lives in Oakford. Eve lives there too. " * 20)
  stage = Stage("criticised", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 64), Transport("jit", 1, 1), "print")
  run_judgements(stage)
  return stage


def named(name, stage):
  return Function(f"{stage.root}/own.py:{name}")


def reward(stage):
  return Reward("", 1.0, f"{stage.root}/own.py:score", 1.0)


def run_best_of_n(stage):
  best_of_n.run(best_of_n.Config(**PROMPTS, num_prompts=2, responses=3, reward=reward(stage)), stage)


def run_curves(stage):
  settings = dict(num_prompts=2, responses=3, models=("judge",), gold=named("score", stage))
  best_of_n_curve.run(best_of_n_curve.Config(**PROMPTS, **settings), stage)


def run_preferences(stage):
  settings = preferences.Config(**PROMPTS, **FEW, num_prompts=2, responses=3, gold=named("measures", stage))
  preferences.run(settings, stage)


def run_judgements(stage):
  settings = judgements.Config(
    **PROMPTS, **FEW, num_items=3, responses=2, judges=2, kinds=("ranks",), gold_share=0.5,
    critic=named("drawn", stage), gold=named("measures", stage),
  )  # fmt: skip
  judgements.run(settings, stage)


def run_refinement(stage):
  settings = dict(template="{prompt}{response}{critique}", rewrites=2, length=64, reward=reward(stage))
  settings |= dict(algorithm="", policy="policy", batch_size=5, feedback=("{run}/criticised/feedback.db",))
  refinement.run(refinement.Config(**settings, sampling=dataclasses.replace(SAMPLING, max_prompt_tokens=60)), stage)


def run_evaluate(stage):
  settings = dict(models=("policy", "judge"), reference="policy", held_out_prompts="", num_prompts=2, responses=2)
  settings |= dict(reward_model="judge", gold=named("measures", stage), min_gap=0.5, labellers={"expert": 1})
  settings |= dict(num_samples=2, contrasts="{run}/contrasts.jsonl", baselines={"none": "I do not know."})
  settings |= dict(demonstrations="{run}/demonstrations.jsonl", full_gold=50.0)
  shared = {key: value for key, value in PROMPTS.items() if key != "policy"}
  evaluate.run(evaluate.Config(**shared, **settings), stage)


def run_few_shot(stage):
  said = few_shot.QuestionSet("{run}/questions.jsonl", "generate", score=named("score", stage), max_new_tokens=4)
  ranked = few_shot.QuestionSet("{run}/choices.jsonl", "likelihood")
  tasks = {"said": said, "ranked": ranked}
  few_shot.run(few_shot.Config("", ("policy",), ("judge",), tasks, (0, 1), 0, 2), stage)


def run_perplexity(stage):
  settings = dict(algorithm="", models=("policy", "judge"), texts={"plain": "{run}/plain.txt"})
  perplexity.run(perplexity.Config(**settings, length=32, stride=16, batch_size=1), stage)


def run_accuracy(stage):
  settings = dict(num_prompts=2, responses=2, min_gap=0.5, groups={"one": ("judge",)}, reference="one")
  settings |= dict(contrasts="{run}/contrasts.jsonl", gold=named("measures", stage), num_contrasts=1)
  settings |= dict(labellers={"all": {"expert": 2}}, comparisons="{run}/contrasts.jsonl")
  reward_accuracy.run(reward_accuracy.Config(**PROMPTS, **settings), stage)


def run_answers(stage):
  settings = {key: value for key, value in PROMPTS.items() if key != "policy"} | dict(policies=("policy", "other"))
  settings |= dict(reference="policy", num_prompts=2, responses=2, gold=named("measures", stage), min_gap=0.5)
  settings |= dict(reward_models=("judge",), labellers={"expert": 1}, comparisons="{run}/contrasts.jsonl")
  answers.run(answers.Config(**settings), stage)


def run_comparisons(stage):
  settings = dict(algorithm="", models=("judge",), comparisons={"contrasts": "{run}/contrasts.jsonl"}, batch_size=1)
  comparison_accuracy.run(comparison_accuracy.Config(**settings), stage)


RUNS = dict(
  answers=run_answers, best_of_n=run_best_of_n, best_of_n_curve=run_curves, preferences=run_preferences,
  judgements=run_judgements, refinement=run_refinement, evaluate=run_evaluate, few_shot=run_few_shot,
  perplexity=run_perplexity, reward_accuracy=run_accuracy, comparison_accuracy=run_comparisons,
)  # fmt: skip


@contextlib.contextmanager
def _stopped():
  yield lambda: signal.SIGUSR1


def contents(directory):
  """What the stage wrote; of a database its records, whose file holds times."""
  return {
    path.name: read_records(path) if path.suffix == ".db" else path.read_bytes()
    for path in directory.iterdir()
    if path.suffix not in (".db-wal", ".db-shm")
  }


@pytest.mark.parametrize("name", RUNS)
def test_a_stage_that_is_stopped_after_each_part_writes_the_same(run, name, monkeypatch):
  stage = dataclasses.replace(run, name=name)
  RUNS[name](stage)
  whole = contents(stage.directory)
  shutil.rmtree(stage.directory)
  with monkeypatch.context() as stop:
    stop.setattr(parts, "stop_on_signal", _stopped)
    for number in itertools.count(1):
      with pytest.raises(Interrupted) as stopped:
        RUNS[name](stage)
      assert stopped.value.number == signal.SIGUSR1
      if len((stage.directory / "parts.txt").read_text().splitlines()) < number:
        break  # no part was left to do: the signal counts as one that came while the results were written
      assert str(stopped.value) == f"stopped after part {number} of {name}"
  assert number > 2
  RUNS[name](stage)
  assert contents(stage.directory) == whole
