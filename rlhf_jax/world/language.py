"""A normaliser of text: sentences become pieces of plain lower-case words with one spelling for one meaning.

Contractions are written out ("isn't" -> "is not"), possessives become "the pet of tom", numbers become digits, signs
become words, verbs get the ending of the third person ("they do not live" -> "they does not lives"). A sentence is cut
at commas and conjunctions into pieces; what stands in quotation marks is said by nobody, unless it is a mere value.
"""

import dataclasses
import functools
import re

QUOTATION = "quotation"  # stands for words in quotation marks


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A sentence, cut into pieces."""

  text: str
  """Sentence as written, with its marks."""
  pieces: tuple[str, ...]
  """Plain words between two connectors; a piece may be empty."""
  connectors: tuple[str, ...]
  """Connector before each piece: "" before the first, then ",", ":", "and", "or", "but", "yet", "because" or "so"."""
  mark: str
  """Marks at the end, such as "." or "?!"."""


def words_of(text: str) -> tuple[str, ...]:
  """Lower-case words, without marks."""
  return tuple(re.findall("[a-z0-9]+", text.lower()))


def tokens_of(text: str) -> list[str]:
  """Words and marks, with case."""
  return re.findall(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]", text)


@functools.lru_cache(maxsize=1 << 16)
def sentences_of(text: str) -> tuple[Sentence, ...]:
  """The sentences of a text. They end at full stops, question and exclamation marks, semicolons and new lines."""
  text = _quotations(_bullets(text.translate(_MARKS)))
  parts = re.findall(r"(?:[^.!?;\n]|(?<=\d)\.(?=\d))+[.!?;]*|[.!?;]+", text)
  return tuple(_sentence(part.strip()) for part in parts if part.strip())


_CONNECTORS = re.compile(
  r"(\s*[,:()]\s*|\b(?:and|or|but|because|since|yet"
  r"|(?<!is )(?<!not )so(?= \w)(?! (?:happy|sad|glad|very|sorry|much)\b))\b)"
)


def _sentence(text: str) -> Sentence:
  body = text.rstrip(".!?;")
  parts = _CONNECTORS.split(plain(body))
  connectors = ["", *(part.strip() for part in parts[1::2])]
  return Sentence(text, tuple(part.strip() for part in parts[::2]), tuple(connectors), text[len(body) :])


_MARKS = str.maketrans({
  "\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2212": "-", "\u2013": "-", "\u2014": ",", "\r": "\n",
})  # fmt: skip


_BULLET = re.compile(r"\s*[:,;.]?\s*\n\s*(?:[-*\u2022]|[0-9]{1,2}[.)])\s+(?=[A-Za-z])")


def _bullets(text: str) -> str:
  """A list of lines that begin with a bullet or a number becomes a sentence."""
  if "\n" not in text:
    return text
  first, *items = _BULLET.split(text)
  return f"{first}: {', '.join(item.strip() for item in items)}." if items and first.strip() else text


def _quotations(text: str) -> str:
  """Quotation marks around at most two words are dropped; a longer quotation becomes one word."""
  text = re.sub(r"(?<!\w)'([^']+)'(?!\w)", r'"\1"', text)
  if '"' not in text:
    return text
  return re.sub(r'"([^"]*)"', lambda match: match[1] if len(match[1].split()) <= 2 else f" {QUOTATION} ", text)


def plain(text: str) -> str:
  """Plain words of a sentence without its end marks, with connectors and unknown signs left in."""
  text = " ".join(text.lower().split())
  for pattern, replacement in _SPELLINGS:
    text = pattern.sub(replacement, text)
  while "'s" in text:
    shorter = _POSSESSIVE.sub(_possessive, text, count=1)
    if shorter == text:
      break
    text = shorter
  text = _numbers(" ".join(_WORDS.get(word, word) for word in re.findall(r"[a-z0-9']+|[^\sa-z0-9']", text)))
  return re.sub(r"\bthe (?:number|word) (?=[0-9])", "", text)


_SPELLINGS = tuple(
  (re.compile(pattern), replacement)
  for pattern, replacement in (
    (r"(?<=\d),(?=\d{3}\b)", ""),
    (r",? or (?:so|something(?: like that)?)\b", ", maybe"),
    (r"(?<=\d)\.(?=\d)", " point "),
    (r"(?<=[a-z])-(?=[a-z])", " "),
    (r"(?<![\w-])-(?=\d)", " negative "),
    (r"(?<=\d)\s*-\s*(?=\d)", " minus "),
    (r"\s-+\s", ", "),
    (r"\+", " plus "),
    (r"(?<=[\d\s])=(?=[\d\s])", " is "),
    (r"(?<=\d)\s*(?:\*|x|\u00d7)\s*(?=\d)", " times "),
    (r",? (?:rather than|instead of) ", ", not "),
    (r">", " is larger than "),
    (r"<", " is smaller than "),
    (r"\bcan'?t\b|\bcannot\b", "can not"),
    (r"\bwon'?t\b", "will not"),
    (r"\b(do|does|did|is|are|was|were|has|have|had|could|would|should|must)n'?t\b", r"\1 not"),
    (r"\blet's\b", "let us"),
    (r"'m\b", " am"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"'d\b", " would"),
    (r"\b(it|he|she|that|this|here|there|what|where|who|answer)'s\b", r"\1 is"),
    (r"'s (?=an? |not )", " is "),
    (r"\b(?:his|her|their) (?:own )?(?=(?:favourite|favorite|best|pet|home|job|work|town|friend|food|house|colour)\b)",
     "he's "),
  )
)  # fmt: skip

# The owner is a word or a whole "the friend of tom".
_POSSESSIVE = re.compile(
  r"((?:the (?:best )?[a-z]+ of )*[a-z]+)'s"
  r" ((?:own )?(?:favou?rite(?: food| thing to eat)?|best friend|home town|[a-z]+))"
)


def _possessive(match: re.Match[str]) -> str:
  return f"the {match[2].removeprefix('own ')} of {match[1]}"


_WORDS = {
  "color": "colour", "colored": "coloured", "favorite": "favourite", "gray": "grey", "hometown": "home",
  "are": "is", "am": "is", "do": "does", "be": "is", "were": "was",
  "live": "lives", "have": "has", "like": "likes", "love": "loves", "keep": "keeps", "own": "owns",
  "enjoy": "enjoys", "prefer": "prefers", "reside": "resides", "make": "makes", "equal": "equals", "give": "gives",
  "leave": "leaves", "yield": "yields", "wont": "will not", "im": "i is",
  "nobody": "no one", "none": "none", "ok": "okay", "&": "and",
}  # fmt: skip

_UNITS = {word: n for n, word in enumerate(
  "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
  "eighteen nineteen".split())}  # fmt: skip
_TENS = {
  word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_NUMERALS = "|".join([*_UNITS, *_TENS, "hundred", "thousand"])
_NUMERAL = re.compile(
  rf"(?<!no )(?<!any )(?<!some )(?<!every )(?<!this )\b(?:a (?=hundred|thousand))?"
  rf"(?:{_NUMERALS})\b(?! day\b| of the\b| can\b| knows\b| has\b)(?:(?: and)? (?:{_NUMERALS})\b)*"
)


def _numbers(text: str) -> str:
  return _NUMERAL.sub(lambda match: " ".join(_digits(match[0].split())), text)


def _digits(words: list[str]) -> list[str]:
  """["twenty", "one"] -> ["21"], ["two", "and", "three"] -> ["2", "and", "3"]."""
  out: list[str] = []
  total = part = last = 0  # last: the value of the word before, 0 at the start of a number
  pending = ""
  for word in words:
    if word == "a":
      continue
    if word == "and":
      pending = word
      continue
    value = 100 if word == "hundred" else 1000 if word == "thousand" else _UNITS.get(word, _TENS.get(word, 0))
    scale = word in ("hundred", "thousand")
    joins = scale and not pending or (last in (100, 1000) and value < last) or (word in _UNITS and 20 <= last < 100
      and 0 < value < 10 and not pending)  # fmt: skip
    if out and joins:
      if word == "hundred":
        part = max(part, 1) * 100
      elif word == "thousand":
        total, part = total + max(part, 1) * 1000, 0
      else:
        part += value
      out[-1] = str(total + part)
    else:
      out += [pending] if pending else []
      total, part = (1000, 0) if word == "thousand" else (0, value)
      out.append(str(total + part))
    pending, last = "", value
  return out


def phrases(text: str) -> str:
  """A regular expression that matches any of the phrases of `phrase_list`."""
  return f"(?:{'|'.join(phrase_list(text))})"


def phrase_list(text: str) -> list[str]:
  """Regular expressions from phrases in plain notation.

  Phrases are separated by " | " or new lines, "[a|b]" is a choice, "[very ]?" may be left out,
  {word} and {number} stand for any. A line that begins with "|" continues the choice of the line before.
  """
  lines = [line.strip() for line in text.strip().splitlines()]
  text = "\n".join(lines).replace("\n|", "|").replace("\n", " | ")
  depth, found = 0, [""]
  for part in re.split(r"( \| |[\[\](])", text):
    if part == " | " and depth == 0:
      found.append("")
      continue
    depth += (part in ("[", "(")) - (part == "]") - part.count(")")
    found[-1] += part
  return [_notation(phrase.strip()) for phrase in found]


def _notation(phrase: str) -> str:
  phrase = re.sub(r"\[(?!0-9\])", "(?:", phrase)
  phrase = re.sub(r"(?<!0-9)\]", ")", phrase)
  return phrase.replace("{word}", "[a-z]+").replace("{number}", "[0-9]+")
