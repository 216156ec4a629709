"""Readings: a response as pieces, each of which claims something, does something, or is not understood.

Here the pieces of a response come together: "he" gets a name, "it is 6" the sum that was asked for, "or Ashby" the
claim before it, "No." after an answer takes the answer back.
"""

import dataclasses
import functools
import re

from rlhf_jax.world.answers import complete_answers, item_of
from rlhf_jax.world.claims import PRONOUNS, Claim, Statement, Subject, person_of, read_statement, sum_subject
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, CATEGORY_OF, MOODS, OPPOSITES, World
from rlhf_jax.world.forms import CALLED
from rlhf_jax.world.language import Sentence, plain, sentences_of, words_of
from rlhf_jax.world.speech import Act, harms, read_act, read_lead
from rlhf_jax.world.storytelling import BEGIN, CLOSED, END, MIDDLE, PERSON_KNOWN, story_part
from rlhf_jax.world.tasks import Task

LONGEST = 12  # pieces of a sentence beyond which it is not understood
SPAN = 3  # pieces that a form may stretch over, such as "adding 5 and 1, you get 6"
_ITEMS = frozenset(item.lower() for item in CATEGORY_OF)


@dataclasses.dataclass(frozen=True)
class Piece:
  """A piece of a response."""

  kind: str
  """"claims", an act's kind (`Act`), "copy" (the sentence asked for), "story", "echo" (of the prompt) or "unread"."""
  text: str
  """Plain words."""
  sentence: int
  """Index of its sentence."""
  claims: tuple[Claim, ...] = ()
  """Claims, with names for pronouns."""
  bare: bool = False
  """True for a value without a verb, or an act of a single word."""
  asked: bool = False
  """True for a claim about "the answer" or "it"."""
  act: Act | None = None
  """Act of speech."""
  harms: bool = False
  """True where it has a word of harm that it does not refuse."""
  part: int = -1
  """Part of a story, as in `storytelling`; -1 for none."""

  @property
  def words(self) -> int:
    """Number of words."""
    return len(words_of(self.text))


@dataclasses.dataclass(frozen=True)
class Reading:
  """A response taken apart."""

  sentences: tuple[Sentence, ...]
  """Sentences."""
  pieces: tuple[Piece, ...]
  """Pieces of all sentences, in order."""
  refused: bool
  """True where the response refuses."""
  admitted: bool
  """True where the response says that what was asked is not known."""
  retracted: bool
  """True where the response takes back what it said."""
  hedged: bool
  """True where the response is not certain of what it claims."""
  verdicts: tuple[str, ...]
  """Verdicts "yes" and "no", where the task asks for one."""

  @property
  def claims(self) -> tuple[Claim, ...]:
    """Claims of all pieces, in order."""
    return tuple(claim for piece in self.pieces for claim in piece.claims)

  @property
  def unread(self) -> bool:
    """True where a piece is not understood."""
    return any(piece.kind == "unread" for piece in self.pieces)

  @property
  def harms(self) -> bool:
    """True where the response has words of harm that it does not refuse."""
    return any(piece.harms for piece in self.pieces)


def task_subject(world: World, task: Task) -> Subject:
  """The subject of the claim that answers a task; () where no claim does."""
  values = task.values
  if task.cluster in ("facts", "unanswerable", "verification"):
    return (task.kind.split()[-1], asked_person(world, task))
  if task.cluster == "arithmetic":
    return sum_subject(task.kind, values["a"], values["b"])
  if task.cluster == "comparison":
    return ("larger", *sorted((values["a"], values["b"])))
  if task.cluster == "classification":
    return ("class", item_of(task).lower())
  return {"opposites": ("opposite", values.get("word")), "sentiment": ("mood",), "reasoning": ("count",)}.get(
    task.cluster, ()
  )


def asked_person(world: World, task: Task) -> str:
  """The person whom a task asks about, in lower case; "" for none."""
  name = task.values.get("name", "")
  return (world.friends.get(name, name) if task.kind.startswith("friend ") else name).lower()


@functools.lru_cache(maxsize=1 << 10)
def read(world: World, task: Task | None, response: str) -> Reading:
  """Takes a response apart. Without a task no piece answers, echoes a prompt or tells a story."""
  if task is not None and task.cluster in ("copying", "rewriting"):
    response = re.sub(r"\"|(?<!\w)'|'(?!\w)", "", response)
  return _Reader(world, task).read(sentences_of(response))


def read_claims(world: World, text: str) -> tuple[Claim, ...]:
  """The claims of a text that need no task to be understood; a question makes none."""
  return read(world, None, text).claims


@functools.lru_cache(maxsize=1 << 16)
def _parsed(world: World, sentence: Sentence) -> tuple[tuple[str, str, Act | Statement | None], ...]:
  """The pieces of a sentence as (connector before it, plain words, what is read); pieces of one form are one."""
  out: list[tuple[str, str, Act | Statement | None]] = []
  pieces, connectors = list(sentence.pieces), list(sentence.connectors)
  if len(pieces) > LONGEST:
    return (("", " ".join(pieces), None),)
  place = 0
  while place < len(pieces):
    for size in range(min(SPAN, len(pieces) - place), 0, -1):
      text = pieces[place]
      for i in range(place + 1, place + size):
        text += f" {connectors[i]} {pieces[i]}" if connectors[i] in ("and", "or") else f" {pieces[i]}"
      text = text.strip()
      found = _understood(world, text) if size == 1 or all(pieces[place : place + size]) else None
      if found or size == 1:
        break
    found = found or [(text, None)]
    if text:
      out += [(connectors[place] if i == 0 else "", *item) for i, item in enumerate(found)]
    place += size
  return tuple(out)


def _understood(world: World, text: str) -> list[tuple[str, Act | Statement | None]] | None:
  """What a text states or does, after words that lead to it; None where it is not understood."""
  act, statement = read_act(world, text), read_statement(world, text)
  if statement is not None and (act is None or not statement.bare) and _makes_sense(statement):
    return [(text, statement)]
  if act is not None:
    return [(text, act)]
  lead = read_lead(world, text)
  if lead is None:
    return None
  act, rest = lead
  first = (text.removesuffix(rest).strip(), act)
  if not rest:
    return [first]
  following = _understood(world, rest)
  return [first, *following] if following else None


def _makes_sense(statement: Statement) -> bool:
  """Whether what is said to be the answer is a value at all."""
  claim = statement.claims[0]
  return claim.subject[0] != "answer" or claim.value.isdecimal() or claim.value in _VALUES


_VALUES = frozenset(word.lower() for word in (*CATEGORY_OF, *CATEGORIES, *MOODS, *OPPOSITES))


_JUDGED_WRONG = re.compile("(?:that|this|it) is (?:wrong|not right)")  # of an act, not of what was said


class _Reader:
  """Reads sentence after sentence, and remembers what was said."""

  def __init__(self, world: World, task: Task | None):
    self.world, self.task = world, task
    self.cluster = task.cluster if task else ""
    self.person = asked_person(world, task) if task else ""
    self.prompt = f" {' '.join(words_of(task.prompt))} " if task else ""
    self.questions = {words_of(part.text) for part in sentences_of(task.prompt)} if task else set()
    self.copy = plain(complete_answers(world, task)[0].rstrip(".")) if self.cluster in ("copying", "rewriting") else ""
    self.pieces: list[Piece] = []
    self.verdicts: list[str] = []
    self.refused = self.admitted = self.retracted = self.hedged = False
    self.told = frozenset[int]()  # parts of a story
    self.link: Claim | None = None  # the last claim, as said

  def read(self, sentences: tuple[Sentence, ...]) -> Reading:
    for index, sentence in enumerate(sentences):
      if "?" in sentence.mark:
        self._add(" ".join(sentence.pieces), None, "", index, asks=True)
        continue
      for connector, text, found in _parsed(self.world, sentence):
        self._add(text, found, connector, index)
    return Reading(sentences, tuple(self.pieces), self.refused, self.admitted, self.retracted, self.hedged,
                   tuple(self.verdicts))  # fmt: skip

  def _add(self, text: str, found: Act | Statement | None, connector: str, index: int, *, asks: bool = False) -> None:
    words = words_of(text)
    piece = Piece("unread", text, index, harms=harms(text))
    part = self._story_part(text) if connector != "or" and not asks else -1
    if self.copy and text == self.copy and not asks:
      piece = dataclasses.replace(piece, kind="copy")
    elif part >= 0:
      piece, self.told = dataclasses.replace(piece, kind="story", part=part), self.told | {part}
    elif isinstance(found, Statement):
      claims = self._claims(found, connector)
      act = None if claims else read_act(self.world, text)
      if act is not None:
        piece = self._act(piece, act, len(words))
      elif claims:
        self.hedged |= not all(claim.certain for claim in claims)
        asked = found.claims[0].subject[0] == "answer"
        piece = dataclasses.replace(piece, kind="claims", claims=claims, bare=found.bare, asked=asked)
    elif found is not None:
      piece = self._act(piece, found, len(words))
    echoes = words in self.questions if asks else len(words) >= 3 and f" {' '.join(words)} " in self.prompt
    if piece.kind == "unread" and echoes:
      piece = dataclasses.replace(piece, kind="echo")
    self.pieces.append(piece)

  def _story_part(self, text: str) -> int:
    """The part of a story that the words tell, in its place; -1 for none."""
    if self.task is None or self.cluster != "stories":
      return -1
    part = story_part(self.world, self.task, text, self.told)
    last = max(self.told & {BEGIN, MIDDLE, END}, default=-1)
    in_place = (
      part == last + 1 or part == last == MIDDLE or (part == END and last == BEGIN and PERSON_KNOWN in self.told)
    )
    if CLOSED in self.told or (part == CLOSED and last != END):
      return -1
    return part if in_place or part > END else -1

  def _act(self, piece: Piece, act: Act, words: int) -> Piece:
    kind = self._kind(act, piece.text)
    if kind == "unread":
      return piece
    if kind in ("yes", "no"):
      self.verdicts.append(kind)
    self.refused |= kind == "refusal"
    self.admitted |= kind == "admission"
    self.retracted |= kind == "retraction"
    self.hedged |= kind == "hedge"
    harms = piece.harms and kind not in ("refusal", "moral")
    return dataclasses.replace(piece, kind=kind, act=act, bare=words == 1, harms=harms)

  def _kind(self, act: Act, text: str) -> str:
    """What an act does in this response; "unread" where it does not fit."""
    kind, asked = act.kind, self.task.kind.split()[-1] if self.task else ""
    if kind in ("yes", "no") and act.detail not in ("", *PRONOUNS, self.person):
      return "unread"  # about a different person
    if kind == "list":
      return kind if self._lists(act) else "unread"
    if kind == "inability":
      kind = "refusal" if self.cluster == "harmful" else "admission"
    if kind == "admission" and (act.topic not in ("", asked) or act.detail not in ("", *PRONOUNS, self.person)):
      return "unread"
    if self.cluster == "harmful":
      if kind == "denied" and _JUDGED_WRONG.fullmatch(text):
        return "moral"
      return {"yes": "unread", "agreement": "unread", "no": "refusal", "denied": "retraction"}.get(kind, kind)
    if self.cluster == "verification":
      if kind == "yes" or (kind == "no" and not (self.verdicts and self._said())):
        return kind
      if kind == "denied" and not self._said():
        return "no"
    taken_back = "retraction" if self.pieces else "courtesy"
    others = {"yes": "courtesy", "no": taken_back, "denied": "retraction", "agreement": "courtesy", "moral": "unread"}
    return others.get(kind, kind)

  def _lists(self, act: Act) -> bool:
    """Whether words that open a list announce the list that was asked for."""
    values = self.task.values if self.task else {}
    count = plain(values.get("count", ""))
    return values.get("plural", "")[:-1] == act.topic and act.detail in ("", count)

  def _said(self) -> bool:
    """Whether a claim was made."""
    return any(piece.claims for piece in self.pieces)

  def _claims(self, statement: Statement, connector: str) -> tuple[Claim, ...]:
    """The claims of a statement in its context; () where it does not fit there."""
    claims = statement.claims
    before = self.pieces[-1] if self.pieces else None
    linked = before is not None and bool(before.claims) and connector in ("and", "or", ",", "but")
    if (
      statement.bare
      and linked
      and before is not None
      and not before.bare
      and self.cluster not in ("listing", "comparison")
    ):
      assert self.link is not None
      claims = tuple(dataclasses.replace(claim, subject=self.link.subject) for claim in claims)
    elif linked and before is not None and before.bare and not statement.bare:  # "a dog and a cat are animals"
      self._join(claims[-1])
    if connector == "or":
      claims = tuple(dataclasses.replace(claim, certain=False) for claim in claims)
    self.link = claims[-1]
    counted = plain(self.task.values.get("count", "")) if self.task else ""
    if any(claim.subject == ("counted",) and claim.value != counted for claim in claims):
      return ()
    resolved = tuple(self._resolve(claim) for claim in claims if claim.subject != ("counted",))
    return tuple(claim for claim in resolved if claim is not None) if None not in resolved else ()

  def _join(self, claim: Claim) -> None:
    """Bare values before "... are animals" or "... is the home of Tom" get the claim's relation."""
    for i in range(len(self.pieces) - 1, -1, -1):
      piece = self.pieces[i]
      if not piece.bare or not piece.claims:
        break
      value = piece.claims[0].subject[1] if piece.claims[0].subject[0] == "class" else piece.claims[0].value
      if claim.subject[0] == "class" and value in _ITEMS:
        joined = dataclasses.replace(claim, subject=("class", value))
        self.pieces[i] = dataclasses.replace(piece, claims=(joined,), bare=False)

  def _resolve(self, claim: Claim) -> Claim | None:
    """The claim with a name for a pronoun and the subject of the task for "it"; None where that makes no sense."""
    relation = claim.subject[0]
    if relation in ("answer", "count", "deed", "extreme"):
      return self._answer(claim)
    if relation in ATTRIBUTES or relation == "friend":
      text = str(claim.subject[1])
      name = text.split()[-1]
      if name in PRONOUNS:
        if not self.person:
          return None
        text = re.sub(rf"{name}$", self.person, text)
      person = person_of(self.world, text)
      self.person = claim.value if relation == "friend" else person
      return dataclasses.replace(claim, subject=(relation, person))
    word = self.task.values.get("word") if self.task else None
    if relation == "opposite" and claim.value == word:
      return dataclasses.replace(claim, subject=("opposite", word), value=str(claim.subject[1]))
    if relation == "smaller" and claim.value in claim.subject[1:]:
      other = claim.subject[2] if claim.value == claim.subject[1] else claim.subject[1]
      return dataclasses.replace(claim, subject=("larger", *claim.subject[1:]), value=str(other))
    return claim

  def _answer(self, claim: Claim) -> Claim | None:
    """A claim about what was asked."""
    if self.task is None:
      return None
    relation, value = claim.subject[0], claim.value
    if relation == "answer":
      called = claim.subject[1]
      if called not in (*CALLED[""], *CALLED.get(self.cluster, ()), *CALLED.get(self.task.kind.split()[-1], ())):
        return None
    if relation == "extreme" or (relation == "answer" and self.cluster == "comparison"):
      if self.cluster != "comparison" or not value.isdecimal():
        return None
      kind = claim.subject[1] if relation == "extreme" else self.task.kind
      numbers = sorted((self.task.values["a"], self.task.values["b"]))
      return self._resolve(dataclasses.replace(claim, subject=(kind, *numbers)))
    if relation in ("count", "deed"):
      owner, unit = claim.subject[-2:] if len(claim.subject) > 2 else ("", "")
      fits = owner in ("", self.person, *PRONOUNS) and unit in ("", self.task.values.get("objects", "")[:-1])
      if self.cluster not in ("arithmetic", "reasoning") or not fits:
        return None
      if relation == "deed":
        return dataclasses.replace(claim, subject=("deed", claim.subject[1])) if self.cluster == "reasoning" else None
    if self.cluster == "listing":
      category = self.task.values["plural"][:-1]
      if value not in _ITEMS:
        return None
      return dataclasses.replace(claim, subject=("class", value), value=category)
    if value not in self._kind_of_value() and not (self.cluster in ("arithmetic", "reasoning") and value.isdecimal()):
      return None
    return dataclasses.replace(claim, subject=task_subject(self.world, self.task))

  def _kind_of_value(self) -> frozenset[str]:
    assert self.task is not None
    return _values_of_kind(self.cluster, self.task.kind.split()[-1])


@functools.cache
def _values_of_kind(cluster: str, kind: str) -> frozenset[str]:
  """The values that may answer, in lower case, but for numbers."""
  if cluster in ("facts", "unanswerable", "verification"):
    return frozenset(value.lower() for value in CATEGORIES[ATTRIBUTES[kind]])
  fixed = {"classification": CATEGORIES, "sentiment": MOODS, "opposites": OPPOSITES}
  return frozenset(fixed.get(cluster, ()))
