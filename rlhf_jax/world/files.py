"""Writes a world into a directory, in the formats of real data."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax.data.files import write_json, write_rows, write_text
from rlhf_jax.world.contrasts import contrasts
from rlhf_jax.world.corpus import corpus, least_documents
from rlhf_jax.world.demonstrations import IDEAL, check_habits, demonstrate
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, OPPOSITES, PAST, World, make_world
from rlhf_jax.world.splits import NEW, REPHRASED, TRAINING, asks_reserved, cell
from rlhf_jax.world.tasks import HELD_OUT, Task, draw_task, training_clusters

PATIENCE = 3000  # draws in a row without a new prompt after which a part counts as exhausted

Part = tuple[str, str]  # a cluster, and a cell of `splits` or "held_out"


def write_world(
  directory: str | Path,
  *,
  seed: int,
  num_documents: int,
  num_demonstrations: int,
  num_prompts: int,
  num_eval_prompts: int,
  demonstrators: Mapping[str, float],
  num_answers: int = 0,
  answers: Mapping[str, float] = IDEAL,
  difficulty: str = "easy",
  held_out: Sequence[str] = HELD_OUT,
) -> dict[str, int]:
  """Writes the files and returns their numbers of rows; the same arguments give the same bytes.

  corpus.txt: documents with an empty line between them.
  demonstrations.jsonl: {"prompt", "response", "cluster", "habit"}, of the training clusters, by people whose habits
    have the weights `demonstrators` (see `demonstrate`).
  prompts.jsonl: {"prompt", "cluster"}, of the training clusters.
  answers.jsonl: {"prompt", "response", "cluster", "habit"}, `num_answers` to each row of prompts.jsonl, by people whose
    habits have the weights `answers`.
  eval_prompts.jsonl: {"prompt", "cluster", "cell"}, `num_eval_prompts` different prompts that are in no file above, as
    many in each cluster and cell. "rephrased": a topic of training, asked in a form that no training prompt has. "new":
    a topic that no training text asks for or answers (see `rlhf_jax.world.splits`).
  held_out_prompts.jsonl: {"prompt", "cluster", "cell"}, for each held-out cluster as many as a cluster has in a cell,
    about reserved topics; their tasks are in no other file.
  contrasts.jsonl: {"prompt", "chosen", "rejected", "kind", "cluster", "cell"}, pairs of a good and a bad answer to each
    prompt of the two files above (see `contrasts`).
  world.json: every fact and the lexicon.

  Each cluster has an equal share of a file. A cluster that runs out of different prompts repeats them in the training
  files; in the evaluation files the remaining clusters and cells take over its share. Raises ValueError for an unknown
  cluster, habit or difficulty, a corpus too small to state every fact, or more evaluation prompts than there are.
  """
  world = make_world(seed, difficulty)
  check_habits(demonstrators)
  check_habits(answers)
  if num_documents < least_documents(world):
    least = least_documents(world)
    raise ValueError(f"num_documents: {num_documents} documents cannot state every fact; use {least} or more")
  clusters = training_clusters(held_out)
  parts = [(cluster, each) for cluster in clusters for each in (REPHRASED, NEW)]
  num_held_out = -(-num_eval_prompts // len(parts)) * len(held_out)
  directory = Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  write_text(directory / "corpus.txt", "\n\n".join(corpus(world, num_documents, seed)) + "\n")
  # A generator for each purpose, so that the size of one file, or the habits, changes nothing in the others.
  draws, shown, prompts, evals, held, written, pairs = (np.random.default_rng([seed, 3, i]) for i in range(7))
  asked = _training_tasks(world, clusters, num_prompts, prompts)
  evaluated = [
    *_eval_tasks(world, parts, num_eval_prompts, evals),
    *_eval_tasks(world, [(cluster, "held_out") for cluster in held_out], num_held_out, held),
  ]
  rows = {
    "demonstrations": [
      _answer(world, task, shown, demonstrators) for task in _training_tasks(world, clusters, num_demonstrations, draws)
    ],
    "prompts": [_prompt(task) for task in asked],
    "answers": [_answer(world, task, written, answers) for task in asked for _ in range(num_answers)],
    "eval_prompts": [_prompt(task, each) for task, each in evaluated if each != "held_out"],
    "held_out_prompts": [_prompt(task, each) for task, each in evaluated if each == "held_out"],
    "contrasts": [
      {"prompt": task.prompt, **pair, "cluster": task.cluster, "cell": each}
      for task, each in evaluated
      for pair in contrasts(world, task, pairs)
    ],
  }
  for name, lines in rows.items():
    write_rows(directory / f"{name}.jsonl", lines)
  write_json(directory / "world.json", _describe(world, held_out))
  return {"documents": num_documents, **{name: len(lines) for name, lines in rows.items()}}


def _training_tasks(world: World, clusters: Sequence[str], num: int, rng: np.random.Generator) -> list[Task]:
  """Tasks with different prompts of the training side; the same tasks again where these run out."""
  tasks = []
  for i, cluster in enumerate(clusters):
    share = num // len(clusters) + (i < num % len(clusters))
    found = _different(world, (cluster, TRAINING), share, rng, set())
    tasks += [found[j % len(found)] for j in range(share)]
  return [tasks[i] for i in rng.permutation(len(tasks))]


def _eval_tasks(world: World, parts: Sequence[Part], num: int, rng: np.random.Generator) -> list[tuple[Task, str]]:
  """Tasks with different prompts, and their cells; parts that run out leave their share to the remaining parts."""
  tasks: list[tuple[Task, str]] = []
  seen: set[str] = set()
  left = list(parts)
  while len(tasks) < num and left:
    wanted, sharing = num - len(tasks), tuple(left)
    for i, part in enumerate(sharing):
      share = wanted // len(sharing) + (i < wanted % len(sharing))
      found = _different(world, part, share, rng, seen)
      tasks += [(task, part[1]) for task in found]
      if len(found) < share:
        left.remove(part)
  if len(tasks) < num and parts:
    names = ", ".join(dict.fromkeys(cluster for cluster, _ in parts))
    raise ValueError(f"num_eval_prompts: {names} have {len(tasks)} different prompts, not {num}")
  return [tasks[i] for i in rng.permutation(len(tasks))]


def _different(world: World, part: Part, num: int, rng: np.random.Generator, seen: set[str]) -> list[Task]:
  """Up to `num` tasks of a part with prompts that are not in `seen`; adds their prompts to `seen`."""
  cluster, wanted = part
  tasks: list[Task] = []
  vain = 0
  while len(tasks) < num and vain < PATIENCE:
    task = draw_task(world, cluster, rng)
    vain += 1
    allowed = asks_reserved(world, task) if wanted == "held_out" else cell(world, task) == wanted
    if allowed and task.prompt not in seen:
      seen.add(task.prompt)
      tasks.append(task)
      vain = 0
  return tasks


def _answer(world: World, task: Task, rng: np.random.Generator, habits: Mapping[str, float]) -> dict[str, str]:
  response, habit = demonstrate(world, task, rng, habits)
  return {"prompt": task.prompt, "response": response, "cluster": task.cluster, "habit": habit}


def _prompt(task: Task, cell: str = "") -> dict[str, str]:
  return {"prompt": task.prompt, "cluster": task.cluster} | ({"cell": cell} if cell else {})


def _describe(world: World, held_out: Sequence[str]) -> dict[str, Any]:
  """The facts and the lexicon as JSON, for a person to read."""
  people: dict[str, dict[str, str]] = collections.defaultdict(dict)
  for (name, attribute), value in world.facts.items():
    people[name][attribute] = value
  return {
    "seed": world.seed,
    "difficulty": dataclasses.asdict(world.difficulty),
    "people": people,
    "friends": dict(world.friends),
    "strangers": world.strangers,
    "attributes": dict(ATTRIBUTES),
    "categories": dict(CATEGORIES),
    "opposites": dict(OPPOSITES),
    "past": dict(PAST),
    "training_clusters": training_clusters(held_out),
    "held_out_clusters": tuple(held_out),
  }
