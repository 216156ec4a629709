"""From prompts to items in the queue: responses sampled from policies, taken from files, or both, and gold items.

A policy is a plain function of texts, so that nothing here knows of models: `rlhf_jax.tools.ask.open_policies` opens
those of a run, and any other source of text can be wrapped the same way.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data import DataError, read_comparisons, read_rows
from rlhf_jax.feedback.records import Item, Response, make_item
from rlhf_jax.feedback.store import Settings, add_records, create_store, open_store, read_settings

MAX_RESPONSES = 9  # of an item: one letter key each on the page


@dataclasses.dataclass(frozen=True)
class Policy:
  """sample(prompts, count, seed) -> `count` responses for each prompt, none for a prompt it cannot take.

  source: {"checkpoint", "sampling", ...}, kept with every response; the seed is added to its sampling.
  """

  sample: Callable[[Sequence[str], int, int], list[list[str]]]
  source: dict[str, Any]


def collect(
  path: str | Path, items: Sequence[Item], gold: Sequence[Item] = (), settings: Settings | None = None
) -> int:
  """Queues items in the store at `path`, made where there is none, and returns how many were not there yet.

  Raises:
    DataError: the store was made with other settings, or an item has too many responses.
  """
  settings = settings or Settings()
  for item in (*items, *gold):
    if len(item.responses) > MAX_RESPONSES:
      raise DataError(f"{item.prompt!r:.60} has {len(item.responses)} responses; a page shows {MAX_RESPONSES} at most")
  exists = Path(path).exists()
  with contextlib.closing(open_store(path) if exists else create_store(path, settings)) as store:
    if (made := read_settings(store)) != settings:
      raise DataError(f"{path} was made with {made}, not {settings}; use the same ones, or another file")
    return add_records(store, ([], [*items, *gold], []), str(path))


def make_items(
  prompts: Sequence[str],
  policies: Sequence[Policy],
  num_responses: int,
  seed: int,
  existing: Mapping[str, Sequence[Response]] | None = None,
) -> tuple[list[Item], Counter]:
  """One item per prompt, of `num_responses` samples from the policies in turn and of all its existing responses.

  Equal texts count once, with the first one's source. Prompts that only `existing` has come last.

  Returns:
    The items, and the counted reasons why a prompt has none.

  Raises:
    DataError: there are fewer responses to a prompt than policies, so that some would never be compared.
  """
  if policies and num_responses < len(policies):
    raise DataError(f"-k {num_responses} is less than the {len(policies)} policies; every one should have its say")
  existing = existing or {}
  sampled = _sample(prompts, policies, num_responses, seed)
  items, skips = [], Counter()
  for prompt in dict.fromkeys([*prompts, *existing]):
    responses = [*sampled.get(prompt, ()), *existing.get(prompt, ())]
    distinct: dict[str, Response] = {}
    for response in responses:
      if response.text.strip():
        distinct.setdefault(response.text, response)
    if len(distinct) < min(2, max(len(responses), 1)):
      skips["fewer than two different responses" if responses else "no response"] += 1
    else:
      items.append(make_item(prompt, distinct.values()))
  return items, skips


def read_responses(path: str | Path) -> dict[str, list[Response]]:
  """Prompt -> its responses, from rows {"prompt", "response"} or {"prompt", "responses"}; further columns are ignored.

  Raises:
    DataError: naming file and line.
  """
  found: dict[str, list[Response]] = {}
  for line, row in read_rows(path):
    texts = row.get("responses", [row.get("response")])
    if type(row.get("prompt")) is not str or type(texts) is not list or any(type(text) is not str for text in texts):
      raise DataError(f"{path}:{line}: a row must have a 'prompt' and a 'response' (text) or 'responses' (a list)")
    try:
      found.setdefault(row["prompt"], []).extend(Response(text, {"file": Path(path).name}) for text in texts)
    except ValueError as error:
      raise DataError(f"{path}:{line}: {error}") from error
  return found


def read_gold(path: str | Path) -> tuple[list[Item], Counter]:
  """Gold items from an expert's comparisons in any shape of `read_comparisons`, and the counted reasons of skips.

  Raises:
    DataError: naming file and line.
  """
  comparisons, skips = read_comparisons(path)
  source = {"file": Path(path).name}
  items = [make_item(c.prompt, (Response(text, source) for text in c.responses), c.ranks) for c in comparisons]
  return items, skips


def _sample(prompts, policies, num_responses, seed) -> dict[str, list[Response]]:
  """Each prompt's samples. Where k is no multiple of the number of policies, the extra ones go round by prompt."""
  found: dict[str, list[Response]] = {prompt: [] for prompt in prompts}
  for place, policy in enumerate(policies):
    share, extra = divmod(num_responses, len(policies))
    samples = policy.sample(prompts, share + (extra > 0), seed + place)
    source = {**policy.source, "sampling": {**policy.source.get("sampling", {}), "seed": seed + place}}
    for number, (prompt, texts) in enumerate(zip(prompts, samples, strict=True)):
      wanted = share + ((place + number) % len(policies) < extra)
      found[prompt] += [Response(text, source) for text in texts[:wanted]]
  return found
