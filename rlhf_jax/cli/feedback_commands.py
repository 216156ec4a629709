"""The commands with which feedback is collected and exported: `collect`, `annotate` and `convert`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_jax.cli import parsers
from rlhf_jax.settings import ConfigError

if TYPE_CHECKING:
  from rlhf_jax.feedback.collect import Policy
  from rlhf_jax.feedback.questions import Questions

CHANGES = {  # setting of a store -> the flag's name
  "seed": "seed",
  "judgements_per_item": "judgements",
  "gold_every": "gold_every",
  "agreeing": "agreeing",
  "at_most": "at_most",
}


def collect(arguments: list[str]) -> None:
  """Queues items, and sets what is asked of them and how often."""
  given = parsers.collect().parse_args(arguments)
  changes = {name: value for name, flag in CHANGES.items() if (value := getattr(given, flag)) is not None}
  anything = given.run or given.responses or given.gold or given.questions or changes
  if (given.run is None) != (given.prompts is None) or not anything:
    raise ConfigError("RUN and --prompts go together; without them, give --responses or --gold, or what to change")
  from rlhf_jax import data
  from rlhf_jax.feedback import collect

  questions = _questions(given.questions)
  settings = collect.settings_for(given.out, changes, bool(given.gold))
  skips: dict[Path | str | None, dict[str, int]] = {}
  existing = collect.read_responses(given.responses) if given.responses else {}
  gold, skips[given.gold] = collect.read_gold(given.gold) if given.gold else ([], {})
  prompts: list[data.Prompt] = []
  policies: list[Policy] = []
  if given.run is not None:
    from rlhf_jax.tools.ask import open_policies

    prompts, skips[given.prompts] = data.read_prompts(given.prompts)
    prompts = prompts[: given.num_prompts]
    names = given.stages.split(",") if given.stages else []
    policies = open_policies(given.run, names, given.temperature, given.max_new_tokens)
  clusters = collect.read_clusters(given.prompts) if given.prompts else {}
  items, skips["prompts"] = collect.make_items(
    prompts, policies, given.num_responses, settings.seed, existing, clusters
  )
  added = collect.collect(given.out, items, gold, settings)
  for where, reasons in skips.items():
    for reason, count in sorted(reasons.items()):
      print(f"{where}: skipped {count}: {reason}")
  print(f"{given.out}: {len(items)} items and {len(gold)} gold items, {added} of them new")
  _ask(given.out, questions)


def annotate(arguments: list[str]) -> None:
  """Prints links, and serves the pages of annotators and lead."""
  given = parsers.annotate().parse_args(arguments)
  from rlhf_jax.data import read_text
  from rlhf_jax.feedback.invitations import invite, invite_lead
  from rlhf_jax.feedback.project import restore, revoke, revoked
  from rlhf_jax.feedback.server import LOCAL, origins_of, serve
  from rlhf_jax.feedback.store import opened

  guidelines = read_text(given.guidelines) if given.guidelines else ""
  questions = _questions(given.questions)
  origins = origins_of(given.host, given.port, given.origin)
  _ask(given.store, questions)
  with opened(given.store) as store:
    for name in _names(given.revoke):
      revoke(store, name, time.time())
      print(f"{name}: revoked; the link has ended, the judgements are kept")
    restored = [name for name in _names(given.restore) if name in revoked(store)]
    for name in _names(given.restore):
      restore(store, name, time.time())
  links = invite(given.store, _names(given.annotators), origins[0], renew=given.renew)
  links += invite(given.store, _names(given.experts), origins[0], renew=given.renew, expert=True)
  links += invite(given.store, [name for name in restored if name not in dict(links)], origins[0], renew=True)
  for name, link in links:
    print(f"{name}: {link or 'has a link already (--renew makes a new one), or is revoked (--restore)'}")
  if given.lead:
    link = invite_lead(given.store, given.lead, origins[0], renew=given.renew)
    print(f"{given.lead}, lead: {link or 'has a link already (--renew makes a new one)'}")
  if given.host not in LOCAL and origins[0].startswith("http:"):
    print(f"warning: {origins[0]} is not encrypted; whoever can listen on that network can act as an annotator")
  print(f"serving {given.store} at {origins[0]}; Ctrl-C stops, nothing is lost", flush=True)
  serve(given.store, given.host, given.port, origins, guidelines)


def convert(arguments: list[str]) -> None:
  """Converts records, or a part of them, into another form."""
  given = parsers.convert().parse_args(arguments)
  from rlhf_jax.feedback.exchange import convert
  from rlhf_jax.feedback.filters import Filter

  print(f"{given.target}: {convert(given.source, given.target, given.shape or 'records', Filter(**_filter(given)))}")


def _filter(given: argparse.Namespace) -> dict[str, Any]:
  lists = ("annotators", "without_annotators", "flags", "without_flags")
  plain = ("since", "until", "final", "aspect", "without_revoked")
  return {name: tuple(_names(getattr(given, name))) for name in lists} | {name: getattr(given, name) for name in plain}


def _names(text: str) -> list[str]:
  return [name.strip() for name in text.split(",") if name.strip()]


def _questions(path: Path | None) -> Questions | None:
  """The questions of a TOML file or of a config, checked; None for none."""
  if path is None:
    return None
  from rlhf_jax.feedback.questions import parse_questions, read_questions

  if path.suffix == ".toml":
    return read_questions(path)
  if path.suffix != ".py":
    raise ConfigError(f"--questions {path}: must be a file in TOML (.toml), or a config (.py) with get_config()")
  from rlhf_jax.pipeline.catalogue import load_recipe

  try:
    config = load_recipe(str(path))
  except ConfigError as error:
    raise ConfigError(str(error).replace("--config", "--questions")) from error
  return parse_questions(config.to_dict(), str(path))


def _ask(path: Path, questions: Questions | None) -> None:
  if questions is not None:
    from rlhf_jax.feedback.project import set_questions
    from rlhf_jax.feedback.store import opened

    with opened(path) as store:
      new = set_questions(store, questions, time.time())
    kinds = ", ".join(questions.ask)
    print(
      f"{path}: asks for {kinds}{' from now on; earlier judgements keep their questions' if new else ', as before'}"
    )
