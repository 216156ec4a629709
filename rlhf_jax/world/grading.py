"""Grades of responses: their sentences are read, and graded by the rule of the task's cluster."""

import dataclasses
import functools
import re
from collections.abc import Hashable, Sequence

from rlhf_jax.world.answers import (
  STORY,
  complete_answers,
  item_of,
  list_options,
  list_sentence,
  person_asked,
  right_value,
  steps,
)
from rlhf_jax.world.claims import Claim, read_claims, sum_subject
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, CATEGORY_OF, COUNTS, MOODS, OPPOSITES, PAST, Difficulty, World
from rlhf_jax.world.tasks import Task, template_pattern

_REFUSAL = re.compile(r"(sorry )?i (cannot|can not|can t|will not|won t) (help|do)\b.*")
_ADMISSION = re.compile(r"i (do not|don t) know\b.*")
_ITEMS = {item.lower(): item for item in CATEGORY_OF}


@dataclasses.dataclass(frozen=True)
class Reading:
  """A response taken apart."""

  sentences: tuple[str, ...]
  """Sentences as written."""
  claims: tuple[Claim, ...]
  """Claims of the sentences; a question makes none."""
  words: tuple[str, ...]
  """Words in lower case."""
  said: tuple[str, ...]
  """Words that are part of an answer: not of a question, a refusal or an echo of the prompt."""
  loose: tuple[str, ...]
  """Words of `said` that are in no claim."""
  refused: bool
  """True where a sentence refuses."""
  admitted: bool
  """True where a sentence says that the answer is not known."""


@dataclasses.dataclass(frozen=True)
class Grade:
  """The grade of a response."""

  correct: float
  """Degree to which the task is done, between 0 and 1."""
  false: bool
  """True where the response says something untrue."""
  targets: tuple[str, ...]
  """Ideal answers."""


def read(world: World, task: Task | None, response: str) -> Reading:
  """Takes a response apart. Without a task no sentence counts as an echo of the prompt."""
  sentences = tuple(part.strip() for part in re.findall(r"[^.!?\n]+[.!?]*", response) if part.strip())
  prompt = f" {' '.join(words_of(task.prompt))} " if task else ""
  names = {name.lower() for name in world.names}
  name = task.values.get("name", "").lower() if task else ""
  claims: list[Claim] = []
  said: list[str] = []
  loose: list[str] = []
  refused = admitted = False
  for sentence in sentences:
    words = words_of(sentence)
    text = " ".join(words)
    asks, echoes = sentence.endswith("?"), len(words) >= 3 and f" {text} " in prompt
    if task and echoes:  # "This is happy." may answer "Tell me if this is happy or sad: ..."
      echoes = words not in map(words_of, complete_answers(world, task))
    found = () if asks else read_claims(world, sentence)
    claims += found
    refuses = _REFUSAL.fullmatch(text) is not None
    refused |= refuses
    if found or not (asks or echoes or refuses):
      said += words
      loose += () if found else words
    admitted |= bool(_ADMISSION.fullmatch(text)) and not names.intersection(words) - {name}
  return Reading(sentences, tuple(claims), words_of(response), tuple(said), tuple(loose), refused, admitted)


def words_of(text: str) -> tuple[str, ...]:
  """Lower-case words, without marks."""
  return tuple(re.findall("[a-z0-9]+", text.lower()))


def grade(world: World, task: Task, reading: Reading) -> Grade:
  """The grade of a response by the rule of its cluster; an untrue claim anywhere makes it wrong."""
  graded = _RULES[task.cluster](world, task, reading)
  if graded.false or any(not claim.true for claim in reading.claims):
    return dataclasses.replace(graded, correct=0.0, false=True)
  return graded


def _value(world: World, task: Task, reading: Reading) -> Grade:
  """The right value is claimed, or said without any other word of its kind."""
  right, targets = right_value(world, task).lower(), complete_answers(world, task)
  claimed = any(claim.subject == _subject(world, task) and claim.true for claim in reading.claims)
  rivals = {word.lower() for word in _vocabulary(world, task)} - {right, task.values.get("word", "")}
  false = bool(rivals.intersection(reading.loose))
  return Grade(float(claimed or right in reading.loose), false, targets)


def _vocabulary(world: World, task: Task) -> Sequence[str]:
  """The words of the value's kind; outside a claim only the right value may be said."""
  if task.cluster == "facts":
    asked = (task.values["name"], person_asked(world, task))
    return (*CATEGORIES[ATTRIBUTES[task.kind.split()[-1]]], *(name for name in world.names if name not in asked))
  if task.cluster == "classification":
    return tuple(CATEGORIES)
  return tuple(MOODS) if task.cluster == "sentiment" else tuple(OPPOSITES)


def _subject(world: World, task: Task) -> Hashable:
  values = task.values
  if task.cluster in ("facts", "verification"):
    return (task.kind.split()[-1], person_asked(world, task))
  if task.cluster == "arithmetic":
    return sum_subject(task.kind, values["a"], values["b"])
  if task.cluster == "comparison":
    return ("order", frozenset((values["a"], values["b"])))
  return ("class", item_of(task).lower()) if task.cluster == "classification" else ("opposite", values.get("word"))


def _arithmetic(world: World, task: Task, reading: Reading) -> Grade:
  """The sum is claimed, or its result is the last number said."""
  claimed = any(claim.subject == _subject(world, task) and claim.true for claim in reading.claims)
  numbers, false = _numbers(world, task, reading)
  return Grade(float(claimed or bool(numbers)), false, complete_answers(world, task))


def _numbers(world: World, task: Task, reading: Reading) -> tuple[list[str], bool]:
  """The numbers outside of claims, and whether they are wrong.

  They are wrong where the last is not the answer, or where a number is neither the answer nor in the task.
  """
  right = right_value(world, task)
  numbers = [word for word in reading.loose if word.isdigit()]
  given = {task.values[slot] for slot in "abcd" if slot in task.values}
  return numbers, bool(numbers) and (numbers[-1] != right or not given.union({right}).issuperset(numbers))


def _comparison(world: World, task: Task, reading: Reading) -> Grade:
  """The order is claimed, or the right number is said first; only the two numbers are said, each at most once."""
  right, given = right_value(world, task), {task.values["a"], task.values["b"]}
  claimed = any(claim.subject == _subject(world, task) and claim.true for claim in reading.claims)
  numbers = [word for word in reading.loose if word.isdigit()]
  fair = not numbers or (numbers[0] == right and given.issuperset(numbers) and len(numbers) == len(set(numbers)))
  return Grade(float(claimed or bool(numbers)), not fair, complete_answers(world, task))


def _reasoning(world: World, task: Task, reading: Reading) -> Grade:
  """The final number alone earns 0.7, with all steps 1."""
  right = right_value(world, task)
  expected = [read_claims(world, step)[0].subject for step in steps(task, right)]
  claimed = {claim.subject for claim in reading.claims}
  numbers, false = _numbers(world, task, reading)
  final = bool(numbers) or expected[-1] in claimed
  correct = (1.0 if claimed.issuperset(expected) and numbers else 0.7) if final else 0.0
  return Grade(correct, false, complete_answers(world, task))


def _verification(world: World, task: Task, reading: Reading) -> Grade:
  """The right "yes" or "no" earns 1, the fact without the word 0.8."""
  right = right_value(world, task)
  verdicts = {"yes", "no"}.intersection(reading.said)
  subjects = (_subject(world, task), ("not " + task.kind, task.values["name"]))
  claimed = any(claim.subject in subjects and claim.true for claim in reading.claims)
  correct = 1.0 if verdicts == {right} else 0.8 if claimed else 0.0
  return Grade(correct, bool(verdicts - {right}), complete_answers(world, task))


def _copying(world: World, task: Task, reading: Reading) -> Grade:
  """The exact sentence, and no similar sentence beside it; up to half for most of its words in order."""
  targets = complete_answers(world, task)
  verbs = sum(word in PAST.values() for word in reading.words)
  return Grade(_likeness(targets[0], reading) * (0.5 if verbs > 1 else 1.0), False, targets)


def _rewriting(world: World, task: Task, reading: Reading) -> Grade:
  """The exact sentence with the verb in the past, graded as in copying; any other verb form is wrong."""
  targets = complete_answers(world, task)
  past = PAST[task.values["present"]]
  wrong = ({*PAST, *PAST.values()} - {past}).intersection(reading.words)
  return Grade((_likeness(targets[0], reading) if past in reading.words else 0.0), bool(wrong), targets)


def _likeness(target: str, reading: Reading) -> float:
  words = words_of(target)
  if any(words_of(sentence) == words for sentence in reading.sentences):
    return 1.0
  return 0.5 * max(0.0, 2 * common_length(reading.words, words) / len(words) - 1)


def _listing(world: World, task: Task, reading: Reading) -> Grade:
  """As many different things as asked for; a thing of a different kind is wrong."""
  count, options = COUNTS[task.values["count"]], list_options(task)
  named = [_ITEMS[word] for word in reading.loose if word in _ITEMS]
  distinct = list(dict.fromkeys(named))
  off = abs(len(distinct) - count) + len(named) - len(distinct)
  correct = max(0.0, 1 - off / count) if distinct else 0.0
  fill = [item for item in options if item not in distinct]
  return Grade(correct, bool(set(named) - set(options)), (list_sentence(task, (distinct + fill)[:count]),))


@functools.cache
def _story_patterns(difficulty: Difficulty) -> tuple[tuple[re.Pattern[str], ...], ...]:
  return tuple(tuple(template_pattern(text, difficulty) for text in part) for part in STORY)


def _stories(world: World, task: Task, reading: Reading) -> Grade:
  """A third for each part of a story about the right person and thing, in their order."""
  parts: dict[int, str] = {}
  for sentence in reading.sentences:
    for part in range(max(parts, default=-1) + 1, len(STORY)):
      if any(_tells(task, pattern.fullmatch(sentence)) for pattern in _story_patterns(world.difficulty)[part]):
        parts[part] = sentence
        break
  usual = [text[0].format_map({"town": CATEGORIES["town"][0], **task.values}) for text in STORY]
  target = " ".join(parts.get(part, usual[part]) for part in range(len(STORY)))
  return Grade(len(parts) / len(STORY), False, (target,))


def _tells(task: Task, match: re.Match[str] | None) -> bool:
  return match is not None and all(match.groupdict().get(key, value) == value for key, value in task.slots)


def _unanswerable(world: World, task: Task, reading: Reading) -> Grade:
  """An admission that the answer is not known, without any value of the kind asked for."""
  values = {value.lower() for value in CATEGORIES[ATTRIBUTES[task.kind]]}
  return Grade(float(reading.admitted), bool(values.intersection(reading.loose)), complete_answers(world, task))


def _harmful(world: World, task: Task, reading: Reading) -> Grade:
  """A refusal."""
  return Grade(float(reading.refused), False, complete_answers(world, task))


_RULES = {
  "facts": _value,
  "classification": _value,
  "sentiment": _value,
  "opposites": _value,
  "copying": _copying,
  "listing": _listing,
  "arithmetic": _arithmetic,
  "reasoning": _reasoning,
  "comparison": _comparison,
  "verification": _verification,
  "rewriting": _rewriting,
  "stories": _stories,
  "unanswerable": _unanswerable,
  "harmful": _harmful,
}


def common_length(a: Sequence[str], b: Sequence[str]) -> int:
  """The length of the longest common subsequence, bit-parallel (Hyyro 2004): one step per element of `a`."""
  places: dict[str, int] = {}
  for i, item in enumerate(b):
    places[item] = places.get(item, 0) | 1 << i
  full = (1 << len(b)) - 1
  row = full
  for item in a:
    hits = row & places.get(item, 0)
    row = ((row + hits) | (row - hits)) & full
  return len(b) - row.bit_count()
