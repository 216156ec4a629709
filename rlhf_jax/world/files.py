"""Writes a world into a directory, in the formats of real data."""

import collections
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax.world.corpus import corpus, least_documents
from rlhf_jax.world.demonstrations import demonstrate
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, OPPOSITES, PAST, World, make_world
from rlhf_jax.world.tasks import HELD_OUT, Task, draw_task, training_clusters

EVAL_SHARE = 0.2  # share of all prompts on the evaluation side, by their hash
PATIENCE = 200  # draws in a row without a new prompt after which a cluster counts as exhausted


def write_world(
  directory: str | Path,
  *,
  seed: int,
  num_documents: int,
  num_demonstrations: int,
  num_prompts: int,
  num_eval_prompts: int,
  demonstrator_flaw: float,
  held_out: Sequence[str] = HELD_OUT,
) -> dict[str, int]:
  """Writes the files and returns their numbers of rows; the same arguments give the same bytes.

  corpus.txt: documents with an empty line between them.
  demonstrations.jsonl: {"prompt", "response", "cluster", "habit"}, of the training clusters.
  prompts.jsonl: {"prompt", "cluster"}, of the training clusters.
  eval_prompts.jsonl: {"prompt", "cluster"}, `num_eval_prompts` different prompts that are in neither file above.
  held_out_prompts.jsonl: {"prompt", "cluster"}, as many for each held-out cluster, whose tasks are in no other file.
  world.json: every fact and the lexicon.

  Each cluster has an equal share of a file. The hash of a prompt puts it on the training or the evaluation side; the
  corpus states the facts that are asked on both sides. A cluster that runs out of different prompts repeats them in the
  training files; in the evaluation files the remaining clusters take over its share. Raises ValueError for an unknown
  cluster, a corpus too small to state every fact, or more evaluation prompts than there are.
  """
  world = make_world(seed)
  if num_documents < least_documents(world):
    least = least_documents(world)
    raise ValueError(f"num_documents: {num_documents} documents cannot state every fact; use {least} or more")
  clusters = training_clusters(held_out)
  num_held_out = -(-num_eval_prompts // len(clusters)) * len(held_out)
  directory = Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  (directory / "corpus.txt").write_text("\n\n".join(corpus(world, num_documents, seed)) + "\n", encoding="utf-8")
  # A generator for each purpose, so that the size of one file, or the flaw, changes nothing in the others.
  draws, answers, prompts, evals, held = (np.random.default_rng([seed, 3, i]) for i in range(5))
  rows = {
    "demonstrations": [
      _demonstration(world, task, answers, demonstrator_flaw)
      for task in _training_tasks(world, clusters, num_demonstrations, draws)
    ],
    "prompts": [_prompt(task) for task in _training_tasks(world, clusters, num_prompts, prompts)],
    "eval_prompts": [_prompt(task) for task in _eval_tasks(world, clusters, num_eval_prompts, evals, is_eval)],
    "held_out_prompts": [
      _prompt(task) for task in _eval_tasks(world, held_out, num_held_out, held, lambda prompt: True)
    ],
  }
  for name, lines in rows.items():
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (directory / f"{name}.jsonl").write_text(text, encoding="utf-8")
  (directory / "world.json").write_text(json.dumps(_describe(world, held_out), indent=2) + "\n", encoding="utf-8")
  return {"documents": num_documents, **{name: len(lines) for name, lines in rows.items()}}


def is_eval(prompt: str) -> bool:
  """Whether a prompt is on the evaluation side, which its text alone decides."""
  return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4]) < EVAL_SHARE * 2**32


def _training_tasks(world: World, clusters: Sequence[str], num: int, rng: np.random.Generator) -> list[Task]:
  """Tasks with different prompts of the training side; the same tasks again where these run out."""
  tasks = []
  for i, cluster in enumerate(clusters):
    share = num // len(clusters) + (i < num % len(clusters))
    found = _different(world, cluster, share, lambda prompt: not is_eval(prompt), rng, set())
    tasks += [found[j % len(found)] for j in range(share)]
  return _shuffled(tasks, rng)


def _eval_tasks(
  world: World, clusters: Sequence[str], num: int, rng: np.random.Generator, allowed: Callable[[str], bool]
) -> list[Task]:
  """Tasks with different allowed prompts; clusters that run out leave their share to the remaining clusters."""
  tasks: list[Task] = []
  seen: set[str] = set()
  left = list(clusters)
  while len(tasks) < num and left:
    wanted, sharing = num - len(tasks), tuple(left)
    for i, cluster in enumerate(sharing):
      share = wanted // len(sharing) + (i < wanted % len(sharing))
      found = _different(world, cluster, share, allowed, rng, seen)
      tasks += found
      if len(found) < share:
        left.remove(cluster)
  if len(tasks) < num and clusters:
    raise ValueError(f"num_eval_prompts: {', '.join(clusters)} have {len(tasks)} different prompts, not {num}")
  return _shuffled(tasks, rng)


def _different(
  world: World,
  cluster: str,
  num: int,
  allowed: Callable[[str], bool],
  rng: np.random.Generator,
  seen: set[str],
) -> list[Task]:
  """Up to `num` tasks with allowed prompts that are not in `seen`; adds their prompts to `seen`."""
  tasks: list[Task] = []
  vain = 0
  while len(tasks) < num and vain < PATIENCE:
    task = draw_task(world, cluster, rng)
    vain += 1
    if task.prompt not in seen and allowed(task.prompt):
      seen.add(task.prompt)
      tasks.append(task)
      vain = 0
  return tasks


def _shuffled(tasks: list[Task], rng: np.random.Generator) -> list[Task]:
  return [tasks[i] for i in rng.permutation(len(tasks))]


def _demonstration(world: World, task: Task, rng: np.random.Generator, flaw: float) -> dict[str, str]:
  response, habit = demonstrate(world, task, rng, flaw)
  return {"prompt": task.prompt, "response": response, "cluster": task.cluster, "habit": habit}


def _prompt(task: Task) -> dict[str, str]:
  return {"prompt": task.prompt, "cluster": task.cluster}


def _describe(world: World, held_out: Sequence[str]) -> dict[str, Any]:
  """The facts and the lexicon as JSON, for a person to read."""
  people: dict[str, dict[str, str]] = collections.defaultdict(dict)
  for (name, attribute), value in world.facts.items():
    people[name][attribute] = value
  return {
    "seed": world.seed,
    "people": people,
    "strangers": world.strangers,
    "attributes": dict(ATTRIBUTES),
    "categories": dict(CATEGORIES),
    "opposites": dict(OPPOSITES),
    "past": dict(PAST),
    "training_clusters": training_clusters(held_out),
    "held_out_clusters": tuple(held_out),
  }
