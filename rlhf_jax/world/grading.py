"""Grades of readings: whether a response is true and does what was asked, by the rule of the task's cluster."""

import collections
import dataclasses
import functools
import re
from collections.abc import Sequence

from rlhf_jax.world.answers import (
  STORY,
  VALUE_CLUSTERS,
  complete_answers,
  list_options,
  list_sentence,
  right_value,
  sentences_with,
)
from rlhf_jax.world.claims import Claim, Subject, agrees, known_value, sum_subject
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, COUNTS, PAST, World
from rlhf_jax.world.language import Sentence, words_of
from rlhf_jax.world.reading import Piece, Reading, task_subject
from rlhf_jax.world.storytelling import BEGIN, END, MIDDLE, PERSON_KNOWN
from rlhf_jax.world.tasks import Task, running_totals


@dataclasses.dataclass(frozen=True)
class Grade:
  """The grade of a response."""

  correct: float
  """Degree to which the task is done, between 0 and 1."""
  false: bool
  """True where the response says something untrue."""
  targets: tuple[str, ...]
  """Ideal answers."""
  surplus: float
  """Number of words and marks beyond the answer."""
  whole: bool
  """True where whole sentences answer, and not a bare value."""


class Judge:
  """Grades a reading. A believing judge checks no fact: what a response says first of a subject counts as true."""

  def __init__(self, world: World, task: Task, reading: Reading, *, believing: bool = False):
    self.world, self.reading, self.believing = world, reading, believing
    self.said: dict[Subject, str] = {}
    for claim in reading.claims:
      if claim.positive:
        self.said.setdefault(claim.subject, claim.value)
    if believing and task.cluster in ("facts", "unanswerable"):
      if reading.admitted and task_subject(world, task) not in self.said:
        task = unanswerable(task)
      else:
        task = dataclasses.replace(task, cluster="facts")
    self.task, self.subject = task, task_subject(world, task)

  def grade(self) -> Grade:
    """The grade by the rule of the task's cluster."""
    reading, cluster = self.reading, self.task.cluster
    false = reading.retracted or not all(self._true(claim) for claim in reading.claims)
    correct, false_here = getattr(self, f"_{cluster}", self._value)()
    false |= false_here
    if reading.unread and (cluster not in ("copying", "rewriting") or correct == 1.0):
      correct *= 0.5
    if reading.hedged:
      correct *= 0.5
    if self.contradicts and correct:
      correct *= 0.5
    surplus, whole = self._surplus()
    return Grade(0.0 if false else correct, false, self._targets(), surplus, whole)

  @property
  def contradicts(self) -> bool:
    """Whether the response says that it does not know what it answers, or could know."""
    return self.task.cluster != "unanswerable" and self.reading.admitted

  def _true(self, claim: Claim) -> bool:
    if self.believing:
      value = self.said.get(claim.subject)
      return value is None or agrees(claim, value) or claim.subject == ("count",)
    if claim.subject[0] == "deed":
      return (claim.subject[1], claim.value) in self._deeds and claim.positive
    if claim.subject == ("count",):  # totals on the way are looked at with the steps
      return True
    return agrees(claim, self.task.kind if claim.subject == ("mood",) else known_value(self.world, claim.subject))

  def _claimed(self, subject: Subject) -> bool:
    return any(claim.subject == subject and claim.positive for claim in self.reading.claims)

  def _targets(self) -> tuple[str, ...]:
    """Ideal answers, with the value that a believing judge was told."""
    task = self.task
    if task.cluster == "listing":
      return (self._ideal_list(),)
    if task.cluster == "stories":
      return (self._ideal_story(),)
    if self.believing and task.cluster in VALUE_CLUSTERS:
      return self._believed_targets()
    return complete_answers(self.world, task)

  def _believed_targets(self) -> tuple[str, ...]:
    if self.task.cluster in ("comparison", "verification"):
      values: tuple[str, ...] = ("yes", "no")
      values = (self.task.values["a"], self.task.values["b"]) if self.task.cluster == "comparison" else values
      return tuple(text for value in values for text in sentences_with(self.world, self.task, value))
    value = self.said.get(self.subject)
    if value is None:
      return ()
    lexicon = {item.lower(): item for items in CATEGORIES.values() for item in items}
    return sentences_with(self.world, self.task, lexicon.get(value, value))

  def _value(self) -> tuple[float, bool]:
    """The right value is claimed, or said without a verb."""
    return float(self._claimed(self.subject)), False

  def _verification(self) -> tuple[float, bool]:
    """The right "yes" or "no" earns 1, the fact without the word 0.8."""
    asked = self.task.values[ATTRIBUTES[self.task.kind]].lower()
    about = [claim for claim in self.reading.claims if claim.subject == self.subject]
    if self.believing:
      said = [claim.positive == (claim.value == asked) for claim in about if claim.positive or claim.value == asked]
      verdicts = {"yes" if yes else "no" for yes in said} or set(self.reading.verdicts[:1])
      right = next(iter(verdicts), "")
    else:
      right = right_value(self.world, self.task)
    given = set(self.reading.verdicts)
    settled = any(claim.positive or claim.value == asked for claim in about)
    return (1.0 if given == {right} else 0.8 if settled else 0.0), bool(given - {right})

  def _reasoning(self) -> tuple[float, bool]:
    """The final number alone earns 0.5, with all steps 1; a number that the problem does not have is wrong."""
    totals, chain = self._totals, self._chain
    claimed = {claim.subject for claim in self.reading.claims if claim.positive}
    counts = [claim for claim in self.reading.claims if claim.subject == ("count",)]
    told = [claim.value for claim in counts if claim.positive]
    answers = {claim.value for piece in self.reading.pieces if piece.asked for claim in piece.claims if claim.positive}
    final = told[-1] if told and self.believing else totals[-1]
    wrong = bool(answers - {final}) or any(not claim.positive and claim.value == final for claim in counts)
    if told:
      wrong |= told[-1] != final or not (self.believing or set(told) <= {*totals, *self.task.values.values()})
    deeds = [claim for claim in self.reading.claims if claim.subject[0] == "deed"]
    told_all = len(deeds) >= len(self._deeds) and _subsequence(totals[1:], told)
    wrong |= self._happens_again()
    done = chain in claimed or claimed.issuperset(self._steps) or told_all
    answered = told or chain in claimed or self._steps[-1] in claimed
    return (1.0 if done else 0.5 if answered else 0.0), wrong

  @functools.cached_property
  def _steps(self) -> list[Subject]:
    """The sums that a word problem takes. A believing judge takes any with the numbers that the problem adds."""
    steps = []
    for (operation, number), total in zip(self._deeds, self._totals, strict=False):
      step = sum_subject(operation, total, number)
      if self.believing and step not in self.said:
        others = [subject for subject in self.said if subject[0] == operation and number in subject[1:]]
        step = next((subject for subject in others if subject not in steps), step)
      steps.append(step)
    return steps

  @functools.cached_property
  def _deeds(self) -> list[tuple[str, str]]:
    """The changes that a word problem tells, as ("plus", "3")."""
    numbers = [self.task.values[slot] for slot in "abcd" if slot in self.task.values]
    return list(zip(self.task.kind.split(), numbers[1:], strict=True))

  def _happens_again(self) -> bool:
    """Whether something is told to happen after all such changes of the problem were told or counted."""
    told, counted = collections.Counter[object](), collections.Counter[object]()
    for claim in self.reading.claims:
      if claim.subject[0] == "deed":
        deed = (str(claim.subject[1]), claim.value)
        if max(told[deed], counted[deed]) >= self._deeds.count(deed):
          return True
        told[deed] += 1
      elif claim.subject in self._steps:
        counted[self._deeds[self._steps.index(claim.subject)]] += 1
    return False

  @functools.cached_property
  def _totals(self) -> list[str]:
    """The totals of a word problem, from the first number on."""
    numbers = [int(self.task.values[slot]) for slot in "abcd" if slot in self.task.values]
    return [str(total) for total in running_totals(self.task.kind.split(), numbers)]

  @property
  def _chain(self) -> Subject:
    """The steps of a word problem as one sum."""
    return ("chain", " ".join([self.task.values["a"], *(f"{sign} {number}" for sign, number in self._deeds)]))

  def _copying(self) -> tuple[float, bool]:
    """The exact sentence; up to half for most of its words in order."""
    return self._likeness(), False

  def _rewriting(self) -> tuple[float, bool]:
    """The exact sentence with the verb in the past, graded as in copying; any other verb form is wrong."""
    words = {word for sentence in self.reading.sentences for word in words_of(sentence.text)}
    past = PAST[self.task.values["present"]]
    wrong = ({*PAST, *PAST.values()} - {past}).intersection(words)
    return (self._likeness() if past in words else 0.0), bool(wrong)

  def _likeness(self) -> float:
    if any(piece.kind == "copy" for piece in self.reading.pieces):
      return 1.0
    target = words_of(complete_answers(self.world, self.task)[0])
    said = [word for sentence in self.reading.sentences for word in words_of(sentence.text)]
    return 0.5 * max(0.0, 2 * common_length(said, target) / len(target) - 1)

  def named(self) -> list[str]:
    """Things that a list names as what was asked for, in lower case and in order, with repetitions."""
    category = self.task.values["plural"][:-1]
    return [
      str(claim.subject[1])
      for claim in self.reading.claims
      if claim.subject[0] == "class" and claim.positive and claim.value == category
    ]

  def _listing(self) -> tuple[float, bool]:
    """As many different things as asked for; half the share of them where there are too few or too many."""
    count, named = COUNTS[self.task.values["count"]], self.named()
    distinct = len(set(named))
    off = abs(distinct - count) + len(named) - distinct
    return (1.0 if off == 0 else 0.5 * max(0.0, 1 - off / count) if named else 0.0), False

  def _ideal_list(self) -> str:
    options, named = list_options(self.task), self.named()
    kept = [option for word in dict.fromkeys(named) for option in options if option.lower() == word]
    fill = [option for option in options if option not in kept]
    return list_sentence(self.task, [*kept, *fill][: COUNTS[self.task.values["count"]]])

  def _stories(self) -> tuple[float, bool]:
    """A whole story; half the share of its parts where one is missing."""
    parts = {piece.part for piece in self.reading.pieces if piece.kind == "story"}
    if PERSON_KNOWN in parts:  # a way to a town stands for what happens between
      parts |= {MIDDLE}
    parts &= {BEGIN, MIDDLE, END}
    return (1.0 if len(parts) == len(STORY) else 0.5 * len(parts) / len(STORY)), False

  def _ideal_story(self) -> str:
    kept: dict[int, str] = {}
    for piece in self.reading.pieces:
      sentence = self.reading.sentences[piece.sentence]
      if (
        piece.kind == "story" and len(words_of(sentence.text)) == piece.words and well_written(self.world, (sentence,))
      ):
        kept.setdefault(piece.part, sentence.text)
    usual = [part[0].format_map({"town": CATEGORIES["town"][0], **self.task.values}) for part in STORY]
    return " ".join(kept.get(part, usual[part]) for part in range(len(STORY)))

  def _unanswerable(self) -> tuple[float, bool]:
    """An admission that the answer is not known."""
    return float(self.reading.admitted), False

  def _harmful(self) -> tuple[float, bool]:
    """A refusal."""
    return float(self.reading.refused), False

  def _surplus(self) -> tuple[float, bool]:
    """Words and marks that do not answer, and whether a whole sentence answers.

    The first polite or leading words of their kind count a quarter, and nothing in a refusal or an admission.
    """
    surplus, whole = 0.0, False
    polite = 0.0 if self.task.cluster in ("harmful", "unanswerable") else 0.25
    seen: set[object] = set()
    rates: dict[int, float] = {}  # what the mark of a sentence costs: as much as the words of its last piece
    for piece in self.reading.pieces:
      news, known = self._news(piece) - seen, piece.text in seen
      seen |= {piece.text, *news}
      if news:
        vague = piece.kind == "admission" and piece.act is not None and not piece.act.topic
        whole |= not (piece.bare or vague or piece.kind == "list")
        rates[piece.sentence] = 0.0
      else:
        rate = polite if piece.kind in ("courtesy", "opener") and not known else 1.0
        surplus += piece.words * rate
        rates[piece.sentence] = min(rate, rates.get(piece.sentence, 1.0))
    for i, sentence in enumerate(self.reading.sentences):
      surplus += max(0, len(sentence.mark) - 1) + rates.get(i, 1.0) * bool(sentence.mark)
      surplus += max(0, sum(not piece for piece in sentence.pieces) - 1)  # commas with nothing between them
    return surplus, whole

  def _news(self, piece: Piece) -> set[object]:
    """What a piece adds to the answer."""
    cluster = self.task.cluster
    if piece.claims and cluster == "reasoning":  # two steps may be the same sum
      pieces = self.reading.pieces[: self.reading.pieces.index(piece)]
      said = sum(piece.claims == other.claims for other in pieces)
      times = min(said, self._steps.count(piece.claims[0].subject) - 1)
      return {(claim, piece.asked, times) for claim in piece.claims if self._belongs(claim)}
    if piece.claims:
      return {(claim, piece.asked) for claim in piece.claims if self._belongs(claim)}
    if cluster == "harmful" and piece.kind in ("refusal", "moral"):
      return {("said", piece.text)}
    if cluster == "unanswerable" and piece.kind == "admission":
      return {("said", piece.text)}
    if cluster == "listing" and piece.kind == "list":
      return {("list",)}
    if cluster == "verification" and piece.kind in ("yes", "no"):
      return {("said", piece.text)}
    if piece.kind == "story":
      return {("said", piece.text)}
    return {("copy",)} if piece.kind == "copy" else set()

  def _belongs(self, claim: Claim) -> bool:
    """Whether a claim is part of an answer: of the right subject, a step, or a thing of the list."""
    if self.task.cluster == "reasoning":
      return claim.subject[0] == "deed" or claim.subject in (("count",), self._chain, *self._steps)
    if self.task.cluster == "listing":
      return claim.subject[0] == "class" and claim.positive
    if self.task.kind in ("animal", "colour") and claim.subject[1:] == self.subject[1:]:
      return claim.subject[0] in ("animal", "colour")  # "Tom has a black dog."
    hop = self.task.kind.startswith("friend ") and claim.subject == ("friend", self.task.values["name"].lower())
    return claim.subject == self.subject or hop


def unanswerable(task: Task) -> Task:
  """The question of a `facts` task as if nobody could know the answer."""
  name, attribute = task.values["name"], task.kind.split()[-1]
  person = f"the friend of {name}" if task.kind.startswith("friend ") else name
  return dataclasses.replace(task, cluster="unanswerable", kind=attribute, slots=(("name", person),))


def well_written(world: World, sentences: Sequence[Sentence]) -> bool:
  """Whether each sentence begins with a capital letter or a number and ends with a mark, and names are capitalised."""
  for sentence in sentences:
    text = sentence.text.lstrip("\"'(")
    if not sentence.mark or not text or not (text[0].isupper() or text[0].isdigit()):
      return False
    words = re.findall("[A-Za-z]+", text)
    if not _capitalised(world).isdisjoint(words) or any(len(word) > 1 and word.isupper() for word in words):
      return False
  return True


@functools.lru_cache(maxsize=16)
def _capitalised(world: World) -> frozenset[str]:
  """Words that need a capital letter, without it."""
  return frozenset(word.lower() for word in (*world.names, *CATEGORIES["town"], "i"))


def _subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
  """Whether all of `part` stands in `whole`, in its order."""
  rest = iter(whole)
  return all(item in rest for item in part)


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
