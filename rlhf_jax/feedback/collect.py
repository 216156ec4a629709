"""Items for the queue, made of prompts with responses that are sampled from policies, read from files, or both.

A policy is a plain function of texts, so that this file needs no model: `rlhf_jax.tools.ask.open_policies` opens the
policies of a run, and any other source of text can be wrapped the same way.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data import DataError, Prompt, Source, prompt_of, read_comparisons, read_rows, renamed_rows, response_text
from rlhf_jax.feedback.project import change_settings
from rlhf_jax.feedback.records import Item, Response, make_item, models_of
from rlhf_jax.feedback.store import add_records, opened
from rlhf_jax.feedback.store_settings import Settings, read_settings

MAX_RESPONSES = 9  # responses of an item at most: the page selects a response by a key from a to i


@dataclasses.dataclass(frozen=True)
class Policy:
  """A source of responses."""

  sample: Callable[[Sequence[Prompt], int, int], list[list[str]]]
  """Function of (prompts, count, seed) that returns `count` responses for each prompt, and an empty list for a prompt
  that it cannot answer."""
  source: dict[str, Any]
  """Origin {"checkpoint", "sampling", ...}, kept with every response; the seed is added to "sampling"."""


def collect(
  path: str | Path, items: Sequence[Item], gold: Sequence[Item] = (), settings: Settings | None = None
) -> int:
  """Queues items in the store at `path`, which is made where there is none; returns the number of new items.

  settings: those from now on; None keeps those of the store.

  Raises:
    DataError: the store was made with another seed, or an item has more than MAX_RESPONSES responses.
  """
  for item in (*items, *gold):
    if len(item.responses) > MAX_RESPONSES:
      raise DataError(f"{item.prompt!r:.60} has {len(item.responses)} responses; a page shows {MAX_RESPONSES} at most")
  with opened(path, create=True, settings=settings) as store:
    if settings is not None:
      change_settings(store, dataclasses.asdict(settings), time.time())
    return add_records(store, ([], [*items, *gold], []), str(path))


def settings_for(path: str | Path, changes: Mapping[str, Any], gold: bool) -> Settings:
  """The settings with which items are queued: those of the store where there is one, with the changes.

  gold: whether gold items are queued; a new store without them has `gold_every` 0.

  Raises:
    DataError: the settings make no sense, or change the seed.
  """
  old = Settings()
  if Path(path).exists():
    with opened(path) as store:
      old = read_settings(store)
    if changes.get("seed", old.seed) != old.seed:
      raise DataError(
        f"{path} was made with seed {old.seed}, which cannot change; leave --seed out, or use another file"
      )
    if gold and not old.gold_every:
      changes = {"gold_every": Settings().gold_every, **changes}
  elif not gold:
    changes = {"gold_every": 0, **changes}
  try:
    return dataclasses.replace(old, **changes)
  except ValueError as error:
    raise DataError(str(error)) from error


def make_items(
  prompts: Sequence[Prompt],
  policies: Sequence[Policy],
  num_responses: int,
  seed: int,
  existing: Mapping[Prompt, Sequence[Response]] | None = None,
  clusters: Mapping[Prompt, str] | None = None,
) -> tuple[list[Item], Counter]:
  """One item for each prompt: `num_responses` samples, the policies taking turns, and all existing responses to it.

  Equal texts count once, with the source of the first, in which "also" lists those of other models. Prompts that only
  `existing` holds come last. clusters: the cluster of each prompt that has one.

  Returns:
    The items, and for each reason to make no item the number of prompts.

  Raises:
    DataError: `num_responses` is less than the number of policies, so that some would answer no prompt.
  """
  if policies and num_responses < len(policies):
    raise DataError(
      f"-k {num_responses} is less than the {len(policies)} policies; sample at least one response from each"
    )
  existing = existing or {}
  sampled = _sample(prompts, policies, num_responses, seed)
  items: list[Item] = []
  skips: Counter[str] = Counter()
  for prompt in dict.fromkeys([*prompts, *existing]):
    responses = [*sampled.get(prompt, ()), *existing.get(prompt, ())]
    distinct: dict[str, Response] = {}
    for response in responses:
      if response.text.strip():
        distinct[response.text] = _merged(distinct.get(response.text), response)
    if len(distinct) < min(2, max(len(responses), 1)):
      skips["fewer than two different responses" if responses else "no response"] += 1
    else:
      items.append(make_item(prompt, distinct.values(), cluster=(clusters or {}).get(prompt, "")))
  return items, skips


def read_clusters(path: str | Path) -> dict[Prompt, str]:
  """{prompt: cluster} of the rows {"prompt", "cluster"} of a file of prompts; other rows have no cluster.

  Raises:
    DataError: the file cannot be read, or the prompt of such a row has a wrong type.
  """
  rows = renamed_rows(Source(str(path)))
  return {prompt_of(row, where): str(row["cluster"]) for where, row in rows if row.get("cluster") and "prompt" in row}


def read_responses(path: str | Path) -> dict[Prompt, list[Response]]:
  """{prompt: responses} of a file of rows {"prompt", "response"} or {"prompt", "responses"}, other columns ignored.

  Raises:
    DataError: naming file and line: the file cannot be read, or a row has other columns or types.
  """
  found: dict[Prompt, list[Response]] = {}
  for line, row in read_rows(path):
    texts = row.get("responses", [row.get("response")])
    if "prompt" not in row or type(texts) is not list or any(type(text) is not str for text in texts):
      raise DataError(f"{path}:{line}: a row must have a 'prompt' and a 'response' (text) or 'responses' (a list)")
    try:
      found.setdefault(prompt_of(row, f"{path}:{line}"), []).extend(
        Response(text, {"file": Path(path).name}) for text in texts
      )
    except DataError:
      raise
    except ValueError as error:
      raise DataError(f"{path}:{line}: {error}") from error
  return found


def read_gold(path: str | Path) -> tuple[list[Item], Counter]:
  """Gold items of a file of an expert's comparisons, and for each reason to skip a row the number of rows.

  The comparisons have any shape that `rlhf_jax.data.read_comparisons` reads.

  Raises:
    DataError: naming file and line, as `read_comparisons`.
  """
  comparisons, skips = read_comparisons(path)
  source = {"file": Path(path).name}
  items = [
    make_item(c.prompt, (Response(response_text(text), source) for text in c.responses), c.ranks) for c in comparisons
  ]
  return items, skips


def _merged(known: Response | None, response: Response) -> Response:
  """A response that is shown once for two equal texts, with the origin of the second too if another model gave it."""
  if known is None or set(models_of(response.source)) <= set(models_of(known.source)):
    return known or response
  return Response(known.text, {**known.source, "also": [*known.source.get("also", ()), response.source]})


def _sample(
  prompts: Sequence[Prompt], policies: Sequence[Policy], num_responses: int, seed: int
) -> dict[Prompt, list[Response]]:
  """Samples for each prompt. Policies take turns, prompt by prompt, to give the samples that do not divide evenly."""
  found: dict[Prompt, list[Response]] = {prompt: [] for prompt in prompts}
  for place, policy in enumerate(policies):
    share, extra = divmod(num_responses, len(policies))
    samples = policy.sample(prompts, share + (extra > 0), seed + place)
    source = {**policy.source, "sampling": {**policy.source.get("sampling", {}), "seed": seed + place}}
    for number, (prompt, texts) in enumerate(zip(prompts, samples, strict=True)):
      wanted = share + ((place + number) % len(policies) < extra)
      found[prompt] += [Response(text, source) for text in texts[:wanted]]
  return found
