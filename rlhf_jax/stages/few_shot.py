"""Stage: accuracy with no, one or a few worked examples, by likelihood ranking and by generation.

Likelihood ranking takes the choice with the largest log-probability ("acc"), or the largest per character
("acc_norm"), as lm-evaluation-harness does; choices of equal score share the point. Generation takes the most probable
tokens and scores the response by any reward function, such as those of `rlhf_jax.verify`, whose extractors find the
answer in it.

Every number of shots has the same questions: one that does not fit with the most shots is left out of all, and counted.
Writes `few_shot.json` (with 95 % intervals: Wilson's for shares, Student's t otherwise), `few_shot.md` and
`responses.jsonl` into the stage's directory, and `report.html` into the run's. A run that is killed goes on with the
model it was at.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlhf_jax import data
from rlhf_jax.evaluation.likelihood import WIDTH, make_likelihood
from rlhf_jax.evaluation.questions import Form, answer_ids, context_ids, draw_shots, read_questions
from rlhf_jax.evaluation.statistics import Interval, mean_interval, wilson_interval
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import Function, Sampling, load_policy, make_sampler, make_score_function, open_workspace, stage_key
from rlhf_jax.train.progress import StageProgress, console
from rlhf_jax.types import Prompts


@dataclasses.dataclass(frozen=True)
class QuestionSet:
  """file: rows of questions (see `rlhf_jax.evaluation.questions.read_questions`). pool: the file that examples are
  drawn from; "" draws them from the other rows of `file`. score: of a task by generation, a function of the texts; it
  sees the bare prompt. max_new_tokens: of a response. models: the ones that it is for; () is all.
  """

  file: str
  method: Literal["likelihood", "generate"]
  pool: str = ""
  score: Function = dataclasses.field(default_factory=lambda: Function(""))
  max_new_tokens: int = 32
  models: tuple[str, ...] = ()

  def __post_init__(self):
    if (self.method == "generate") != bool(self.score.function):
      raise ValueError("a task by generation needs a score.function, and one by likelihood has none")


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  models: stages that are asked in the form of instructions, examples as earlier turns. text_models: stages that are
  asked in plain text, examples before the question; a stage may be in both. shots: numbers of examples. num_questions:
  taken of each file, from its start; 0 is all.
  """

  algorithm: str
  models: tuple[StageName, ...]
  text_models: tuple[StageName, ...]
  tasks: dict[str, QuestionSet]
  shots: tuple[int, ...]
  num_questions: int
  batch_size: int

  def __post_init__(self):
    if not self.shots or min(self.shots) < 0 or not self.tasks or not (self.models or self.text_models):
      raise ValueError("few-shot evaluation needs models, tasks and shots of 0 or more")
    for name, task in self.tasks.items():
      unknown = {*task.models} - {*self.models, *self.text_models}
      if unknown:
        raise ValueError(f"tasks.{name}.models: {', '.join(sorted(unknown))} is in neither models nor text_models")


def run(config: Config, stage: Stage) -> None:
  """Evaluates every model on every task with every number of shots, and writes the files."""
  tokenizer, model = open_workspace(stage)
  asked: list[tuple[str, str, Form]] = [(name, name, "turns") for name in config.models]
  asked += [(f"{name} (text)", name, "text") for name in config.text_models]
  forms = tuple(dict.fromkeys(form for _, _, form in asked))
  tasks = {name: _prepare(task, config, stage, tokenizer, model, forms) for name, task in config.tasks.items()}
  likelihood = make_likelihood(model, tokenizer.pad_id, config.batch_size)

  @functools.cache  # a sampler of its own for each model and task would be compiled as often
  def sampler(width: int, max_new_tokens: int):
    return make_sampler(model, tokenizer, Sampling(width, max_new_tokens, 0.0), stage.transport)

  def evaluate(
    params, task: QuestionSet, label: str, form: Form, questions, shots
  ) -> tuple[dict[str, Any], list[dict]]:
    """The measures by the number of examples, and the responses of a task by generation."""
    found, responses = {}, []
    for count in config.shots:
      examples = [chosen[:count] for chosen in shots]
      if task.method == "likelihood":
        scores = _rank(likelihood, params, tokenizer, questions, examples, form)
      else:
        contexts = [context_ids(tokenizer, *pair, form) for pair in zip(questions, examples, strict=True)]
        texts, finished = _generate(config, task, stage, tokenizer, model, sampler, params, contexts, form)
        score = make_score_function(task.score, stage)([question.prompt for question in questions], texts)
        scores = {"score": score, "finished": finished}
        responses += [
          {"model": label, "shots": count, "prompt": question.prompt, "response": text, "score": float(value)}
          for question, text, value in zip(questions, texts, score, strict=True)
        ]
      found[str(count)] = _summarize(scores, [question.cluster for question in questions])
    return found, responses

  results: dict[str, Any] = {
    name: {"method": config.tasks[name].method, "questions": len(questions), "left_out": left_out, "models": {}}
    for name, (questions, _, left_out) in tasks.items()
  }
  stage.directory.mkdir(parents=True, exist_ok=True)
  partial = stage.directory / "partial.json"
  state = _resumed(partial, stage) or dict(fingerprint=stage.fingerprint, done=[], tasks=results, responses=[])
  with StageProgress(stage.name, len(asked)) as progress:
    for label, name, form in asked:
      if label not in state["done"]:
        params = load_policy(stage, name, model, tokenizer)
        for task_name, (questions, shots, _) in tasks.items():
          task = config.tasks[task_name]
          if not task.models or name in task.models:
            found, responses = evaluate(params, task, label, form, questions, shots)
            state["tasks"][task_name]["models"][label] = found
            state["responses"] += [{"task": task_name, **row} for row in responses]
        state["done"].append(label)
        written = partial.with_suffix(".tmp")
        written.write_text(json.dumps(state))  # the interval of a single value is unbounded, which no row may hold
        written.replace(partial)
      progress.update(len(state["done"]), {})
  (stage.directory / "few_shot.json").write_text(json.dumps({"tasks": state["tasks"]}, indent=2) + "\n")
  (stage.directory / "few_shot.md").write_text(table(state["tasks"]))
  data.write_rows(stage.directory / "responses.jsonl", state["responses"])
  partial.unlink()


def _resumed(path: Path, stage: Stage) -> dict[str, Any] | None:
  """What a run that was killed has found, model by model, if it had this very config."""
  found = json.loads(path.read_text()) if path.exists() else {}
  return found if found.get("fingerprint") == stage.fingerprint else None


def table(results: dict[str, Any]) -> str:
  """All measures as one Markdown table."""
  lines = ["| task | model | shots | measure | mean | 95 % interval | questions |", "|---|---|---|---|---|---|---|"]
  for task, result in results.items():
    for model, by_shots in result["models"].items():
      for count, found in by_shots.items():
        for measure, x in found["measures"].items():
          interval = f"[{x['low']:.3f}, {x['high']:.3f}]"
          lines.append(f"| {task} | {model} | {count} | {measure} | {x['mean']:.3f} | {interval} | {x['num']} |")
  return "\n".join(lines) + "\n"


def _prepare(task, config, stage, tokenizer, model, forms):
  """The questions that fit with the most shots in every form, their examples, and how many were left out."""
  path, is_ranked = stage.path(task.file), task.method == "likelihood"
  everything = read_questions(path, with_choices=is_ranked)
  pool = read_questions(stage.path(task.pool), with_choices=is_ranked) if task.pool else everything
  questions = everything[: config.num_questions or None]
  shots = draw_shots(questions, pool, max(config.shots), stage.stage_seed)
  room = model.config.max_length
  kept = []
  for question, chosen in zip(questions, shots, strict=True):
    size = 0
    for form in forms:
      answers = [answer_ids(tokenizer, question, chosen, text, form) for text in question.choices]
      longest = max(map(len, answers)) if is_ranked else task.max_new_tokens
      size = max(size, len(context_ids(tokenizer, question, chosen, form)) + longest)
    if size <= room:
      kept.append((question, chosen))
  left_out = len(questions) - len(kept)
  if left_out:
    console.print(f"{path}: left out {left_out} of {len(questions)} questions: longer than {room} tokens with "
                  f"{max(config.shots)} shots", markup=False)  # fmt: skip
  if not kept:
    raise data.DataError(f"{path}: no question fits model.max_length={room} with {max(config.shots)} shots")
  return [question for question, _ in kept], [chosen for _, chosen in kept], left_out


def _rank(likelihood, params, tokenizer, questions, shots, form) -> dict[str, np.ndarray]:
  pairs = [
    (context_ids(tokenizer, question, chosen, form), answer_ids(tokenizer, question, chosen, text, form))
    for question, chosen in zip(questions, shots, strict=True)
    for text in question.choices
  ]
  logp, _ = likelihood(params, pairs)
  parts = np.split(logp, np.cumsum([len(question.choices) for question in questions])[:-1])
  lengths = [np.array([len(text) for text in question.choices]) for question in questions]
  return {
    "acc": np.array([_share(part, q.right) for part, q in zip(parts, questions, strict=True)]),
    "acc_norm": np.array([_share(p / n, q.right) for p, n, q in zip(parts, lengths, questions, strict=True)]),
  }


def _share(scores: np.ndarray, right: int) -> float:
  """1 where the right choice alone is the best, 1/m where m are: a model without opinion gets what chance has."""
  best = scores == scores.max()
  return float(best[right] / best.sum())


def _generate(config, task, stage, tokenizer, model, sampler, params, contexts, form) -> tuple[list[str], np.ndarray]:
  lengths = np.array([len(ids) for ids in contexts], np.int32)
  width = min(-(-int(lengths.max()) // WIDTH) * WIDTH, model.config.max_length - task.max_new_tokens)
  tokens = np.full((len(contexts), width), tokenizer.pad_id, np.int32)
  for row, ids in enumerate(contexts):
    tokens[row, : len(ids)] = ids
  sample = sampler(width, task.max_new_tokens)
  texts, finished = [], []
  for start in range(0, len(contexts), config.batch_size):
    rows = np.arange(start, start + config.batch_size) % len(contexts)  # one shape for every batch
    rollout, found = sample(params, Prompts(tokens[rows], lengths[rows]), stage_key(stage))
    texts += found
    finished += np.asarray(rollout.finished, float).tolist()
  texts, finished = texts[: len(contexts)], np.array(finished[: len(contexts)])
  if form == "text":  # a text model has no end of turn: the line is its answer
    texts = [text.partition("\n")[0].strip() for text in texts]
  return texts, finished


def _summarize(scores: dict[str, np.ndarray], clusters: Sequence[str]) -> dict[str, Any]:
  def measures(chosen):
    return {name: _interval(values[chosen])._asdict() for name, values in scores.items()}

  names = np.array(clusters)
  found = {"measures": measures(np.ones(len(names), bool))}
  if any(clusters):
    found["clusters"] = {name: measures(names == name) for name in dict.fromkeys(clusters)}
  return found


def _interval(values: np.ndarray) -> Interval:
  if np.isin(values, (0, 1)).all():
    return wilson_interval(float(values.sum()), len(values))
  return mean_interval(values)
