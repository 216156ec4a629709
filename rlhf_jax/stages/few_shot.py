"""Stage: accuracy with no, one or a few worked examples, by likelihood ranking and by generation.

Likelihood ranking takes the choice with the largest log-probability ("acc"), or the largest per character
("acc_norm"), as lm-evaluation-harness does; choices of equal score share the point. Generation takes the most probable
tokens and scores the response by any reward function, such as those of `rlhf_jax.verify`, which find the answer in a
response.

All numbers of shots have the same questions: a question that does not fit with the most shots is left out and counted.
Writes `few_shot.json` (with 95 % intervals: Wilson's for shares, Student's t otherwise), `few_shot.md` and
`responses.jsonl`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from rlhf_jax import data
from rlhf_jax.evaluation.likelihood import WIDTH, Continuations, make_likelihood
from rlhf_jax.evaluation.questions import Form, Question, answer_ids, context_ids, draw_shots, question_formats
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.intervals import Interval, mean_interval, wilson_interval
from rlhf_jax.models import LanguageModel
from rlhf_jax.ranges import NonNegativeInt, PositiveInt
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Model, Stage, StageName
from rlhf_jax.train import (
  Function,
  PromptSet,
  Sampling,
  load_policy,
  make_sampler,
  make_score_function,
  open_workspace,
  stage_key,
)
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.processes import host
from rlhf_jax.train.progress import console
from rlhf_jax.train.row_sources import QuestionRows, path_of, read_given
from rlhf_jax.train.sampler import Sampler
from rlhf_jax.train.timeline import counted_as
from rlhf_jax.types import Params

Shots = tuple[Question, ...]  # worked examples before a question


@dataclasses.dataclass(frozen=True)
class QuestionSet:
  """A file of questions, and the method of answering them."""

  file: QuestionRows
  """File with rows of questions (see `rlhf_jax.evaluation.questions.question_formats`)."""
  method: Literal["likelihood", "generate"]
  """Method of answering: "likelihood" ranks the choices, "generate" samples the most probable tokens."""
  pool: QuestionRows = ""
  """File that worked examples are drawn from; "" for the other rows of `file`."""
  score: Function = dataclasses.field(default_factory=lambda: Function(""))
  """Function that scores generated responses, and gets the prompts without examples; "" for likelihood ranking."""
  max_new_tokens: PositiveInt = 32
  """Longest generated response, in tokens."""
  models: tuple[str, ...] = ()
  """Stages that are asked these questions; () for all stages of the evaluation."""

  def __post_init__(self) -> None:
    if (self.method == "generate") != bool(self.score.function):
      raise ValueError("method 'generate' needs a score.function, and method 'likelihood' has none")


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  models: tuple[StageName, ...]
  """Stages that are asked in the form of instructions, with examples as earlier turns."""
  text_models: tuple[StageName, ...]
  """Stages that are asked in plain text, with examples before the question; a stage may be in `models` too."""
  tasks: dict[str, QuestionSet]
  """Sets of questions by name."""
  shots: tuple[NonNegativeInt, ...]
  """Numbers of worked examples, 0 or more."""
  num_questions: NonNegativeInt
  """Number of questions, taken from the start of each file; 0 for all."""
  batch_size: PositiveInt
  """Number of sequences evaluated at once."""

  def __post_init__(self) -> None:
    if not self.shots or not self.tasks or not (self.models or self.text_models):
      raise ValueError("few-shot evaluation needs models, tasks and shots")
    for name, task in self.tasks.items():
      unknown = {*task.models} - {*self.models, *self.text_models}
      if unknown:
        raise ValueError(f"tasks.{name}.models: {', '.join(sorted(unknown))} is in neither models nor text_models")


def check(config: Config, stage: Stage) -> None:
  """Raises ConfigError where generated answers leave no room for a question in the model."""
  for name, task in config.tasks.items():
    if isinstance(stage.model, Model) and task.max_new_tokens >= stage.model.max_length:
      raise ConfigError(
        f"config.{stage.name}.tasks.{name}.max_new_tokens={task.max_new_tokens} leaves no room for a question in "
        f"model.max_length={stage.model.max_length}"
      )


@counted_as("evaluation")
def run(config: Config, stage: Stage) -> None:
  """Evaluates every model on every set of questions with every number of shots, and writes the files."""
  tokenizer, model = open_workspace(stage)
  asked: list[tuple[str, str, Form]] = [(name, name, "turns") for name in config.models]
  asked += [(f"{name} (text)", name, "text") for name in config.text_models]
  forms = tuple(dict.fromkeys(form for _, _, form in asked))
  tasks = {name: _prepare(task, config, stage, tokenizer, model, forms) for name, task in config.tasks.items()}
  likelihood = make_likelihood(model, tokenizer.pad_id, config.batch_size, stage.transport)

  @functools.cache  # models and sets of questions of one width share a sampler, which is compiled once
  def sampler(width: int, max_new_tokens: int) -> Sampler:
    return make_sampler(
      model,
      tokenizer,
      Sampling(max_prompt_tokens=width, max_new_tokens=max_new_tokens, temperature=0.0),
      stage.transport,
    )

  def evaluate(
    load: Callable[[], Params], task_name: str, label: str, form: Form, count: int
  ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The measures with `count` examples, and the generated responses, if any."""
    task, (questions, shots, _) = config.tasks[task_name], tasks[task_name]
    examples = [chosen[:count] for chosen in shots]
    responses: list[dict[str, Any]] = []
    if task.method == "likelihood":
      scores = _rank(likelihood, load(), tokenizer, questions, examples, form)
    else:
      contexts = [context_ids(tokenizer, *pair, form) for pair in zip(questions, examples, strict=True)]
      texts, finished = _generate(config, task, stage, tokenizer, model, sampler, load(), contexts, form)
      score = make_score_function(task.score, stage)([question.prompt for question in questions], texts)
      scores = {"score": score, "finished": finished}
      known = {"task": task_name, "model": label, "shots": count}
      responses = [
        {**known, "prompt": question.prompt, "response": text, "score": float(value)}
        for question, text, value in zip(questions, texts, score, strict=True)
      ]
    return _summarize(scores, [question.cluster for question in questions]), responses

  results: dict[str, Any] = {
    name: {"method": config.tasks[name].method, "questions": len(questions), "left_out": left_out, "models": {}}
    for name, (questions, _, left_out) in tasks.items()
  }
  all_responses: list[dict[str, Any]] = []
  asks = [
    (label, name, form, task_name, count)
    for label, name, form in asked
    for task_name, task in config.tasks.items()
    if not task.models or name in task.models
    for count in config.shots
  ]
  # Only the model that is asked at the moment is kept, and a model whose parts are all there is not loaded.
  load_model = functools.lru_cache(1)(lambda name: load_policy(stage, name, model, tokenizer))
  with open_parts(stage, len(asks)) as parts:
    for number, (label, name, form, task_name, count) in enumerate(asks, 1):
      load = functools.partial(load_model, name)
      found, responses = parts(evaluate, load, task_name, label, form, count)
      results[task_name]["models"].setdefault(label, {})[str(count)] = found
      all_responses += responses
      parts.update(number)
    write_results(stage, "few_shot.json", {"tasks": results})
    data.write_text(stage.directory / "few_shot.md", table(results))
    data.write_rows(stage.directory / "responses.jsonl", all_responses)


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


def _prepare(
  task: QuestionSet,
  config: Config,
  stage: Stage,
  tokenizer: data.Tokenizer,
  model: LanguageModel,
  forms: Sequence[Form],
) -> tuple[list[Question], list[Shots], int]:
  """The questions that fit with the most shots in every form, their examples, and the number of questions left out."""
  path, is_ranked = path_of(task.file), task.method == "likelihood"
  everything = read_given(task.file, stage, question_formats(is_ranked))
  pool = read_given(task.pool, stage, question_formats(is_ranked)) if task.pool else everything
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


def _rank(
  likelihood: Continuations,
  params: Params,
  tokenizer: data.Tokenizer,
  questions: Sequence[Question],
  shots: Sequence[Shots],
  form: Form,
) -> dict[str, np.ndarray]:
  """Points of each question, f64[N], by the log-probability of the choices ("acc") and per character ("acc_norm")."""
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
  """1/m where the right choice is among m of highest score, else 0: equal scores give the accuracy of chance."""
  best = scores == scores.max()
  return float(best[right] / best.sum())


def _generate(
  config: Config,
  task: QuestionSet,
  stage: Stage,
  tokenizer: data.Tokenizer,
  model: LanguageModel,
  sampler: Callable[[int, int], Sampler],
  params: Params,
  contexts: Sequence[Sequence[int]],
  form: Form,
) -> tuple[list[str], np.ndarray]:
  """The greedy response to each of N contexts, and whether it ended: bool-valued f64[N]."""
  lengths = np.array([len(ids) for ids in contexts], np.int32)
  width = min(-(-int(lengths.max()) // WIDTH) * WIDTH, model.config.max_length - task.max_new_tokens)
  tokens = np.full((len(contexts), width), tokenizer.pad_id, np.int32)
  for row, ids in enumerate(contexts):
    tokens[row, : len(ids)] = ids
  sample = sampler(width, task.max_new_tokens)
  prompts = PromptSet([""] * len(contexts), tokens, lengths)
  texts: list[str] = []
  finished: list[float] = []
  for _, rows, kept in fixed_batches(len(contexts), config.batch_size):
    _, batch = prompts.take(rows)
    rollout, responses = sample(params, batch, stage_key(stage))
    texts += responses[:kept]
    finished += host(rollout.finished).astype(float)[:kept].tolist()
  if form == "text":  # a text model has no end of turn: its answer is the first line
    texts = [text.partition("\n")[0].strip() for text in texts]
  return texts, np.array(finished)


def _summarize(scores: dict[str, np.ndarray], clusters: Sequence[str]) -> dict[str, Any]:
  def measures(chosen: np.ndarray) -> dict[str, Any]:
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
