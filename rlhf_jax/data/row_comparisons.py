"""The parsers of rows that compare responses, each from a row and its "file:line" to the comparisons of the row."""

from collections.abc import Iterator

from rlhf_jax.data import row_dialogues, row_values
from rlhf_jax.data.dialogue import NO_SHARED_PROMPT, Dialogue, Message, UnusableDialogue, as_prompt, split_pair
from rlhf_jax.data.files import Row
from rlhf_jax.data.records import Comparison
from rlhf_jax.data.row_values import elements, optional_text, schema_error, value


def ranked(row: Row, where: str) -> Iterator[Comparison]:
  """{prompt, responses, ranks}."""
  responses = elements(row, "responses", str, where)
  ranks = elements(row, "ranks", int, where)
  if len(responses) != len(ranks):
    raise schema_error(f"{where}: {len(responses)} responses but {len(ranks)} ranks; give one rank per response")
  if any(rank < -1 for rank in ranks):
    raise schema_error(f"{where}: found the ranks {ranks}; ranks count from 0 (best), and -1 means absent")
  yield Comparison(row_dialogues.prompt(row, where), tuple(responses), tuple(ranks), row_values.annotator(row, where))


def pair(row: Row, where: str) -> Iterator[Comparison]:
  """{prompt, chosen, rejected}: bare answers, messages, or whole dialogues that repeat the prompt; or lists of bare
  answers, of which each chosen one is better than each rejected one (RM-Bench, RewardBench 2)."""
  if isinstance(row["chosen"], list) and row["chosen"] and isinstance(row["chosen"][0], str):
    yield _several(row, where)
    return
  (prompt, chosen), (other, rejected) = (row_dialogues.answered(row, side, where) for side in ("chosen", "rejected"))
  if prompt != other:
    raise UnusableDialogue(NO_SHARED_PROMPT)
  prompt = row_dialogues.in_context(row, prompt, where)
  yield Comparison(prompt, (chosen, rejected), (0, 1), row_values.annotator(row, where))


def _several(row: Row, where: str) -> Comparison:
  chosen, rejected = (elements(row, side, str, where) for side in ("chosen", "rejected"))
  ranks = (0,) * len(chosen) + (1,) * len(rejected)
  return Comparison(row_dialogues.prompt(row, where), (*chosen, *rejected), ranks, row_values.annotator(row, where))


def outputs(row: Row, where: str) -> Iterator[Comparison]:
  """{input, output_1, output_2, label}: LLMBar's, whose label is the number of the better output."""
  label = value(row, "label", int, where)
  if label not in (1, 2):
    raise schema_error(f"{where}: 'label' is the number of the better output, 1 or 2, found {label}")
  prompt = row_dialogues.in_context(row, value(row, "input", str, where), where)
  responses = tuple(row_dialogues.response(row, f"output_{number}", where) for number in (1, 2))
  yield Comparison(prompt, responses, (label - 1, 2 - label), row_values.annotator(row, where))


def dialogue_pair(row: Row, where: str) -> Iterator[Comparison]:
  """{chosen, rejected}: whole dialogues that differ in their last turn."""
  prompt, *responses = split_pair(*(row_dialogues.dialogue(row, side, where) for side in ("chosen", "rejected")))
  prompt = row_dialogues.in_context(row, prompt, where)
  yield Comparison(prompt, tuple(responses), (0, 1), row_values.annotator(row, where))


def conversation_pair(row: Row, where: str) -> Iterator[Comparison]:
  """{conversations, chosen, rejected}: the turns before the answers, and one message on each side."""
  responses = (row_dialogues.response(row, side, where) for side in ("chosen", "rejected"))
  yield Comparison(row_dialogues.conversation(row, where), tuple(responses), (0, 1), row_values.annotator(row, where))


def summaries(row: Row, where: str) -> Iterator[Comparison]:
  """Summaries of a post or an article, under the prompts of Stiennon et al. (2020, arXiv 2009.01325)."""
  info = value(row, "info", dict, where)
  texts = [value(one, "text", str, where) for one in elements(row, "summaries", dict, where)]
  choice = value(row, "choice", int, where)
  if not 0 <= choice < len(texts):
    raise schema_error(f"{where}: 'choice' counts the {len(texts)} summaries from 0, found {choice}")
  if info.get("post") is None:
    prompt = f"Article:\n{value(info, 'article', str, where)}\n\nTL;DR:"
  else:
    title, subreddit = (optional_text(info, name, where) for name in ("title", "subreddit"))
    prompt = f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {value(info, 'post', str, where)}\n\nTL;DR:"
  ranks = tuple(int(i != choice) for i in range(len(texts)))
  yield Comparison(prompt, tuple(texts), ranks, optional_text(row, "worker", where))


def tree(row: Row, where: str) -> Iterator[Comparison]:
  """An OASST tree {message_tree_id, prompt}: each prompter's turn with two or more ranked replies."""
  yield from _node(value(row, "prompt", dict, where), (), where)


def _node(node: Row, before: Dialogue, where: str) -> Iterator[Comparison]:
  """The ranked lists of replies to a message that follows the dialogue `before`, and to the messages below it."""
  roles = {"prompter": "user", "assistant": "assistant"}
  role = value(node, "role", str, where)
  if role not in roles:
    raise schema_error(f"{where}: 'role' must be prompter or assistant, found {role!r}")
  dialogue = (*before, Message(roles[role], value(node, "text", str, where).strip()))
  replies = elements(node, "replies", dict, where)
  # An unranked reply has no rank, or a null one.
  ranks = [-1 if reply.get("rank") is None else value(reply, "rank", int, where) for reply in replies]
  if role == "prompter" and sum(rank >= 0 for rank in ranks) >= 2:
    responses = tuple(value(reply, "text", str, where) for reply in replies)
    yield Comparison(as_prompt(dialogue), responses, tuple(ranks))
  for reply in replies:
    yield from _node(reply, dialogue, where)
