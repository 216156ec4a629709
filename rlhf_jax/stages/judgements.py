"""Stage: sample responses from a policy and have simulated labellers or people judge them; writes `feedback.db`.

An item is a prompt with K different responses, and goes to `judges` different labellers. `kinds` and `critic` decide
whether a labeller ranks the responses (two responses with a strength), rates each from 1 to 7, says of each whether it
is good, criticises them, or does several of these. Labellers perceive the gold reward through blind spots, habits and
noise (`rlhf_jax.world.labellers`).

With no labellers the items are for people: the stage queues them, prints the command that serves the annotation page,
and stops; the same run command goes on once every item has its judgements and an expert has settled what is disputed.
The file is a store of `rlhf_jax.feedback`, so that `rlhf-jax agreement`, `annotate` and `convert` read it too. What is
asked and how often may change while people work (`rlhf-jax collect --out`, or the lead's page): the config is for the
start.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.evaluation.simulated_judgements import annotator_records, judge_item
from rlhf_jax.feedback.collect import collect
from rlhf_jax.feedback.draw import count_disputed, count_open
from rlhf_jax.feedback.exchange import write_records
from rlhf_jax.feedback.project import set_questions
from rlhf_jax.feedback.questions import Questions, read_questions
from rlhf_jax.feedback.ranks import dense_ranks
from rlhf_jax.feedback.records import OPINIONS, Item, Judgement, Records, Response, make_item
from rlhf_jax.feedback.store import opened
from rlhf_jax.feedback.store_settings import Settings
from rlhf_jax.ranges import NonNegativeInt, PositiveInt, Share
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import PageFile, Stage, StageName
from rlhf_jax.train import (
  Function,
  Sampling,
  load_prompts,
  load_served,
  load_written,
  make_critic,
  make_measure_function,
  make_sampler,
  open_workspace,
  report_skips,
  stage_key,
)
from rlhf_jax.train.parts import Parts, open_parts
from rlhf_jax.train.processes import led
from rlhf_jax.train.row_sources import DemonstrationRows, PromptRows, path_of
from rlhf_jax.world import Traits, make_labellers, traits_of

WRITES = ("feedback.db",)
PATIENCE = 20  # prompts sampled for each item wanted, before the policy counts as giving one answer only


class Unanswered(data.DataError):
  """Items wait for judgements of people."""


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  policy: StageName
  """Stage whose model is sampled."""
  prompts: PromptRows
  """File of prompts; each item takes the next prompt, in an order that the stage's seed decides."""
  num_items: PositiveInt
  """Number of items."""
  responses: PositiveInt
  """Number of responses sampled for each item; equal texts are shown once."""
  written: DemonstrationRows
  """File of demonstrations with answers of people to the prompts, which are judged beside the policy's; "" for none."""
  num_written: NonNegativeInt
  """Number of written answers of each item, taken from the file in turn."""
  judges: PositiveInt
  """Number of labellers, or of people, who judge each item."""
  batch_size: PositiveInt
  """Number of prompts sampled at once."""
  sampling: Sampling
  """Sampling of the responses."""
  kinds: tuple[str, ...]
  """Kinds of judgement that simulated labellers give, or that people are asked for at least: of "ranks", "ratings" and
  "yes_no"; () for critiques alone, or for whatever people are asked."""
  critic: Function
  """Function `(labeller, prompt, response, rng, **arguments) -> str` that gives critiques; "" for no critiques."""
  gold: Function
  """Function that returns a mapping with the gold reward "total" and, if known, "apparent", the gold reward as it looks
  where no fact is checked; "" where people judge and no gold reward is known."""
  gold_share: Share
  """Share of the items that are stored with the gold order, as an expert's answer; between 0 and 1."""
  labellers: dict[str, NonNegativeInt]
  """Number of simulated labellers of each kind (see `rlhf_jax.world.make_labellers`); {} for people."""
  questions: PageFile = ""
  """File in TOML of what people are asked, as `--questions` of `rlhf-jax collect` reads it; "" for the default ones."""
  agreeing: NonNegativeInt = 0
  """Number of people, at least 2, who must agree on an item; while fewer do, it goes to one more. 0 for no rule."""
  at_most: NonNegativeInt = 0
  """Number of people who judge an item at most before an expert settles it, where `agreeing` is above 0; else 0."""

  def __post_init__(self) -> None:
    if unknown := [kind for kind in self.kinds if kind not in OPINIONS]:
      raise ValueError(f"kinds has {unknown[0]!r}: choose from {', '.join(OPINIONS)}")
    if "ranks" in self.kinds and self.num_shown < 2:
      raise ValueError("kinds has 'ranks', which needs responses and num_written of 2 or more together")
    if self.labellers and not (self.kinds or self.critic.function):
      raise ValueError("kinds is empty and critic is '': simulated labellers would have nothing to say")
    if not self.gold.function and (self.labellers or self.gold_share):
      raise ValueError("gold.function is '', but simulated labellers and a gold_share need one")
    if self.labellers and self.judges > sum(self.labellers.values()):
      raise ValueError(f"judges={self.judges} of {sum(self.labellers.values())} labellers cannot judge an item each")
    if self.labellers and (self.questions or self.agreeing or self.at_most):
      raise ValueError("questions, agreeing and at_most are for people: leave them out, or give labellers={}")
    Settings(judgements_per_item=self.judges, agreeing=self.agreeing, at_most=self.at_most)  # which names a mistake

  @property
  def num_shown(self) -> int:
    """Number of responses of an item, K, where all are different."""
    return self.responses + (self.num_written if self.written else 0)


def check(config: Config, stage: Stage) -> None:
  """Raises ConfigError where the page does not ask people for a kind of judgement that the config names."""
  if config.labellers:
    return
  asked = _questions(config, stage)
  needed = {
    "ranks": ("comparison", "ranking") if config.num_shown > 2 else ("comparison",),  # of four texts two may be equal
    "ratings": ("rating",) if asked.rating.overall else ("rating with overall = true",),
    "yes_no": ("yes_no",),
  }
  for kind in config.kinds:
    if lacking := [name for name in needed[kind] if name not in asked.ask]:
      raise ConfigError(
        f"config.{stage.name}.kinds has {kind!r}, but {config.questions or 'the default page'} does not ask for "
        f"{' and '.join(lacking)}: change what it asks, or leave {kind!r} out"
      )


def run(config: Config, stage: Stage) -> None:
  """Samples the items, has them judged, and writes the records.

  Raises:
    Unanswered: items wait for judgements of people.
    DataError: the policy gives too few prompts different responses.
  """
  path = stage.directory / "feedback.db"
  if config.labellers or not led("queue", lambda: _queued(path)):
    with open_parts(stage, config.num_items) as parts:
      items, pages = _sample_items(config, stage, parts)
      records = _simulate(config, stage, items, pages, parts) if config.labellers else None
      led("store", lambda: _store(config, stage, path, items, records))
      if records:
        return
  left, disputed, total = led("open items", lambda: _open_items(path))
  if left or disputed:
    experts = (f", {disputed} more for an expert", " --experts NAME") if config.agreeing or disputed else ("", "")
    raise Unanswered(
      f"{stage.name}: {left} of {total} items wait for {config.judges} judgements each{experts[0]}. Serve them with "
      f"`rlhf-jax annotate {path} --annotators NAME,NAME{experts[1]}`; when all are judged, the same command goes on"
    )


def _queued(path: Path) -> bool:
  """Whether the store exists and holds items."""
  return path.exists() and _open_items(path)[-1] > 0


def _open_items(path: Path) -> tuple[int, int, int]:
  """(number of items of a store that wait for judgements, of those that wait for an expert, of all its items)."""
  with opened(path) as store:
    left, total = count_open(store)
    return left, count_disputed(store), total


def _questions(config: Config, stage: Stage) -> Questions:
  return read_questions(stage.path(config.questions)) if config.questions else Questions()


def _store(config: Config, stage: Stage, path: Path, items: Sequence[Item], records: Records | None) -> None:
  """Writes the store: with the records, or with the items as a queue for people."""
  for file in (path, path.with_name("feedback.db-wal"), path.with_name("feedback.db-shm")):
    file.unlink(missing_ok=True)
  if records:
    write_records(path, records)
    return
  every = round(1 / config.gold_share) if config.gold_share else 0
  queue = Settings(
    seed=stage.stage_seed, judgements_per_item=config.judges, gold_every=every, agreeing=config.agreeing,
    at_most=config.at_most,
  )  # fmt: skip
  with opened(path, create=True, settings=queue) as store:  # before there are items, which say that all is stored
    set_questions(store, _questions(config, stage), time.time())
  collect(path, [i for i in items if i.gold_ranks is None], [i for i in items if i.gold_ranks is not None], queue)


def _sample_items(config: Config, stage: Stage, parts: Parts) -> tuple[list[Item], list[Traits]]:
  """Items of different responses, and the traits f64[K] of each; without a gold function only the items.

  Prompts whose responses are all the same text are skipped and counted.
  """
  tokenizer, model = open_workspace(stage)
  params = load_served(stage, config.policy, model, tokenizer)
  prompts = load_prompts(config.prompts, stage, tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  gold = make_measure_function(config.gold, stage) if config.gold.function else None
  written = load_written(config.written, stage, config.num_written) if config.written else None
  sampling = {**dataclasses.asdict(config.sampling), "seed": stage.stage_seed}
  num_gold = round(config.gold_share * config.num_items)
  items: list[Item] = []
  pages: list[Traits] = []
  skips: collections.Counter[str] = collections.Counter()

  def sampled(step: int) -> list[tuple[Any, list[str]]]:
    """The next prompts as JSON values, each with its responses."""
    rows = data.batch_indices(len(prompts.texts), config.batch_size, step, stage.stage_seed)
    texts, batch = prompts.take(np.repeat(rows, config.responses))
    _, responses = sample(params, batch, jax.random.fold_in(stage_key(stage), step))
    starts = range(0, len(texts), config.responses)
    return [(data.prompt_value(texts[start]), responses[start : start + config.responses]) for start in starts]

  def measured(prompt: data.Prompt, texts: list[str]) -> dict[str, list[float]]:
    assert gold is not None
    return {name: scores.tolist() for name, scores in gold([prompt] * len(texts), texts).items()}

  asked = step = 0
  while True:
    for value, responses in parts(sampled, step):
      prompt = data.prompt_of({"prompt": value}, path_of(config.prompts))
      if len(items) == config.num_items:
        report_skips(stage.name, skips, asked)
        return items, pages
      asked += 1
      # The row number gives items with the same texts different ids.
      sampled_by = {"checkpoint": config.policy, "sampling": sampling, "row": asked}
      sources = {text: sampled_by for text in responses if text}
      for text in written(prompt) if written else ():
        sources.setdefault(text, {"file": config.written, "row": asked})
      distinct = list(sources)
      if len(distinct) < min(2, config.num_shown):
        skips["all responses are the same text, or empty"] += 1
        continue
      ranks = None
      if gold:
        pages.append(traits_of(parts(measured, prompt, distinct), distinct))
        if len(items) < num_gold and len(distinct) > 1:
          ranks = dense_ranks(pages[-1].total[None])[0].tolist()
      items.append(make_item(prompt, [Response(*found) for found in sources.items()], ranks))
    step += 1
    parts.update(len(items))
    if asked > PATIENCE * config.num_items:
      raise data.DataError(
        f"{stage.name}: {config.policy} answered {len(items)} of {asked} prompts with different responses, and "
        f"num_items={config.num_items} are wanted; raise sampling.temperature"
      )


def _simulate(config: Config, stage: Stage, items: list[Item], pages: list[Traits], parts: Parts) -> Records:
  """The records of `judges` labellers for each item with its traits, each f64[K]."""
  labellers = make_labellers(config.labellers)
  critic = make_critic(config.critic, stage) if config.critic.function else None
  rng = np.random.default_rng(stage.stage_seed)
  judgements: list[Judgement] = []
  judged = collections.Counter[int]()

  def criticised(person: int, item: Item) -> tuple[list[str], Any]:
    """What the labeller says of each response, and the state of the generator after it."""
    assert critic is not None
    said = [critic(labellers[person], item.prompt, response.text, rng) for response in item.responses]
    return said, rng.bit_generator.state

  for item, page in zip(items, pages, strict=True):
    for person in rng.permutation(len(labellers))[: config.judges]:
      critiques = None
      if critic:
        said, rng.bit_generator.state = parts(criticised, person, item)
        critiques = tuple(said)
      judgements.append(
        judge_item(
          labellers[person],
          item,
          page,
          rng,
          config.kinds,
          number=len(judgements),
          judged=judged[person],
          study=f"{stage.name}-",
          critiques=critiques,
        )
      )
      judged[person] += 1
  return annotator_records(labellers), items, judgements
