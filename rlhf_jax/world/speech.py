"""What a piece of a sentence does, other than to claim: it refuses, admits, affirms, takes back, is polite.

The phrases below (in the notation of `language.phrases`) are of plain words, and match a whole piece. What follows the
beginning of a refusal or of an admission must be of a few known words, so that "I cannot help but tell you" is no
refusal.
"""

import functools
import re
from typing import NamedTuple

from rlhf_jax.world.claims import PRONOUNS, person_of
from rlhf_jax.world.facts import CATEGORIES, CATEGORY_OF, OBJECTS, World
from rlhf_jax.world.forms import HEDGES
from rlhf_jax.world.language import phrases


class Act(NamedTuple):
  """What a piece does."""

  kind: str
  """"refusal", "inability" (a refusal or an admission), "moral", "admission", "yes", "no", "denied" (said to be
  untrue), "retraction", "hedge", "opener" (words that lead to an answer), "list" (words that lead to a list),
  "courtesy" or "agreement" (to help)."""
  topic: str = ""
  """Attribute that an admission is about, or category of a list; "" for none."""
  detail: str = ""
  """Person that an admission is about, or number of items of a list; "" for none."""


# Beginnings of words for violence, theft and fraud; the world's own harmful acts are among them.
_HARM = re.compile(r"\b" + phrases(r"""
  steal | stole | hurt | poison | burn | cheat | kill | murder | stab | strangl | shoot | shot | attack | destroy
  threat
  kidnap | punch | kick | slap | harm(?!less) | injur | wound | tortur | abus | assault | rape | bomb | weapon | gun
  knife
  dead | death | drown | chok | smash | crush | swindl | defraud | blackmail | vandal | arson | whip | scam | bully
  bullied
  insult | trick | deceiv | sabotag | explod | fight | violen | hang [him|her] | die\b | mug[s|ged|ging]?\b
  rob[s|bed|bing]?\b
  beat[s|ing|en]?\b | hit[s|ting]?\b
"""))  # fmt: skip


def harms(text: str) -> bool:
  """Whether a text in lower case has a word of harm."""
  return _HARM.search(text) is not None


_WILL_NOT = phrases("""
  will not | will never | would not | would never | must not | should not | may not | shall not | never
  would rather not
  does not [want|wish] to | is not [willing|allowed|going|permitted|here|ready] to | is unwilling to | refuse to
  decline to
  must [refuse|decline] to | has to [refuse|decline] to
""")
_CAN_NOT = phrases("can not | can never | could not | is unable to | is not able to")
_DO = phrases("""
  help | does | assist | answer | tell | say | show | explain | support | gives | teach | take part | join | advise
  provide
  discuss | comply | aid | encourage | is part | is of help | is of any help | has part | talk | go along | makes
""")
_REFUSALS = phrases(f"""
  [i|we] [is sorry [that ]?i ]?[really |simply |just ]?{_WILL_NOT} {_DO}
  [i|we] [must |has to |will |would ]?[refuse|decline] | [i|we] [want|has|will has|wish|take] no part [in|of]
  [helping|help] [you ]?[with ]?[that|this] is [not possible|not something i [can|will] does|out of the question]
  [that|this|it] is [not something i [can|will]|something i [can not|will not|must not]] [does|help]
  [you|people|no one] [should|must|may|can] [not|never] | [please ]?[does not|never]
  [i|you] [can offer|has|get|will get|offer|gives] no help | no help
""")
_UNABLE = phrases(f"[i|we] [is sorry [that ]?i ]?[really |simply |just ]?{_CAN_NOT} {_DO}")
_MORAL = phrases("""
  [because ]?[that|this|it|doing [that|this|so]] [is|would is|will is] [very |simply |just ]?[wrong|bad|harmful
    |not right
    |not okay|not good|cruel|unkind|illegal|a crime|dangerous|not nice|not safe|unsafe|immoral|unethical|mean]
  [that|this|it] [would|could|can|will|may|might] [hurt|harm|is harmful|injure] | hurting | stealing | poisoning
  burning | cheating | harming | killing | i does not [want|like] to [hurt|harm]
  [please ]?[ask|choose|find] [me ]?[for ]?[something|anything] else
  [i|we] can [gladly ]?help[ you]? with [something|anything|other things][ else]?
""")
# Words that may follow a refusal, beside those of the lexicon and of harm.
_REFUSED = frozenset(
  "with that this it such a an the thing things request question you your anyone someone people anybody person any "
  "to of in for does doing done so hurting harming harmful how harm wrong bad or and is because would him her them "
  "other others way ways something anything part idea act acts kind like i me us please sorry even if ask asked not "
  "good best".split()
)  # fmt: skip

_DOES_NOT_KNOW = phrases("""
  [i|we] [really |simply |just |is sorry i |is afraid i ]?does not [really |actually ]?know
  [i|we] [has|had] [no|not any] [idea|knowledge|information|clue|way of knowing|way to know|facts?|record][ about| of
    | on]?
  [i|we] is [not [sure|certain|aware]|unsure|uncertain][ about| of]? | [i|we] knows? nothing[ about| of]?
  no one [told|tells|knows|can know|could know|has told me|has said|told me|said|can say|can tell]
  nothing is known[ about| of]? | [i|we] [was|is] [not|never] told | i can not [know|be sure|is sure]
  [i|we] [has|had] [never|not] [heard|is told|been told|learned|met|read|seen][ about| of]?
  it is [not known|unknown|not stated|not said][ to me]? | i lack [the ]?[information|knowledge][ about| of| on]?
  there is no [information|way to know|way of knowing|record|fact][ about| of| on]?
  [the ]?answer is [not known|unknown][ to me]?
  [that|this|it] is [not known|unknown|not something [that ]?i know][ to me]?
""")
_UNKNOWN = phrases("""
  is [not known|unknown|not something [that ]?i know|a mystery|not known by me|beyond my knowledge][ to [me|us]]?
""")
_CAN_NOT_SAY = phrases(f"[i|we] {_CAN_NOT} [say|tell[ you]?|answer]")
# Words that may follow an admission, beside names, and those of them that tell what is not known.
_TOPIC = frozenset(
  "where what which who in does lives the home town of job work works as for a an living pet animal kind sort has "
  "keeps colour is food likes eat to favourite that it this answer about anything you your question friend best "
  "thing place him her them yet me us any name profession occupation house city person or much knows know one".split()
)  # fmt: skip
_ATTRIBUTE_WORDS = {
  "colour": {"colour"},
  "food": {"food", "eat", "likes"},
  "home": {"home", "town", "lives", "where", "house", "place", "city"},
  "job": {"job", "work", "works", "profession", "occupation", "living"},
  "animal": {"pet", "animal", "has", "keeps"},
  "friend": {"friend"},
}

# Pieces that are as a whole one of these phrases; {who} is a name or a pronoun.
_ACTS = {
  "yes": """
    yes | yeah | yep | right | true | correct | indeed | it is | {who} [does|is|has]
    [that|this|it|which|the statement|the answer] is [indeed ]?[true|right|correct|so|a fact|the case|yes]
  """,
  "no": "no | nope | not at all | {who} [does|is|has] not | [it|that|this] is not | the answer is no",
  "denied": """
    [[that|this|it|which|the statement|the answer|all of [that|this|it]] [is|was] ]?[not [true|right|correct|so
      |the case|it]
      |false|wrong|untrue|incorrect]
  """,
  "retraction": """
    i [lied|lie|is lying|was lying|is kidding|is joking|was joking|was wrong|is wrong|made [that|it|this] up
      |does not mean [that|it]]
    just kidding | only joking | kidding | joking | i take [that|it|this] back | scratch that | never mind
    forget [it|that|this] | ignore [it|that|this] | strike that | does not [believe|trust] [me|that|it|this]
    the opposite is true | the opposite | not really | my mistake | on second thought | wait | this was a joke
    that was a joke | that was a lie | as if | not | that was [wrong|false|not true] | a lie | nonsense
    that is [a lie|nonsense|a joke|a mistake|impossible|an error] | none of [that|this|it] is true
    the [above|previous|last] [[answer|sentence|statement|claim] ]?[is|was] [false|wrong|not true|untrue|incorrect
      |not correct|not right]
    i does not [believe|think] [that|so|it|this] | i doubt [it|that] | not [even ]?close
  """,
  "hedge": """
    {hedges} | i [think|believe|guess|suppose|hope|would say|heard|think so|guess so|believe so|suppose so] | or not
    so [they|people] say | as far as i [know|can tell] | if i remember [right|correctly|well] | not sure | who knows
    it seems
    it depends | more or less | give or take | according to {word} | could is | may is | might is | or maybe not
    not certain
    i [could|may|might] is wrong | at least i think so | in my opinion | to my mind | so i [heard|think|believe]
    {word} [say|says|said|thinks|told me|claims|believes] | i is guessing | just a guess | a guess
  """,
  "refusal": """
    no way | never | absolutely not | certainly not | definitely not | out of the question | not possible | count me out
    i object | my answer is no | not from me | not with my help
    i [will not|can not|must not|would not|would rather not|should not]
  """,
  "courtesy": """
    [[i|we] is ]?[very |so |really ]?sorry[ about that]? | i is afraid | i apologise | my apologies | please | thank you
    thanks | thank you for asking | hello | hi | hey | of course | certainly | okay | well | all right | alright
    you is welcome | good question | unfortunately
  """,
  "agreement": """
    sure | gladly | happy to help | i is [happy|glad] to help | i [can|will] help[ you]?[ with [that|this]]?
    glad to help
    with pleasure | no problem
  """,
  "opener": """
    [the |my |our ]?[final |right |correct ]?[answer|result|sum|solution|sentence|copy|total][ is| in the past]?
    here [is|it is] | here is [the|my|an|your] [answer|result|sum|sentence|list|steps|copy|story] | here we go
    here you is | here you go | a story | as you [asked|wish|know|can see]
    let [us|me] [see|think|count|think step by step|work [it|this] out] | step by step | first | second | third
    then | next | now | so | also | because | another way | finally | last | lastly | after that | therefore | thus
    hence | step {number} | it is | they is | for example | such as | in the past[ it is]?
    [the sentence|here it is|it is] in the past[ is]? | the [text|sentence] [is|reads] | in short
    to [begin|start][ with]? | one day | once upon a time | in the end | at the end | as a result | this means
    that means | which means | that is | namely | in words | in full
  """,
}
LEADS = frozenset({"agreement", "courtesy", "hedge", "opener"})  # acts that other words may follow in the same piece

# Words before and after "two animals" that lead to a list, such as "here are", "the", "that I know are".
_LIST_BEFORE = phrases("""
  here is | these is | there is | i [can ]?[name|list|know|choose|pick|gives|gives you] | the list is | you can name
  they is
""")
_LIST_AFTER = phrases("[ [that ]?[i know|i can name|come to mind]]?[ [is|includes?|could is|would is]]?")
_LISTS = re.compile(
  rf"{_LIST_BEFORE}? ?(?:the|some|these|my|your|any)? ?(?:(?P<count>[0-9]+) )?"
  rf"(?:different|other|kinds? of|examples? of|names? of)? ?(?P<plural>{'|'.join(CATEGORIES)})s{_LIST_AFTER}"
  r"(?: these| the following| as follows)?\b *"
)


class _Patterns(NamedTuple):
  acts: tuple[tuple[str, re.Pattern[str]], ...]
  beginnings: tuple[tuple[str, re.Pattern[str]], ...]
  lexicon: frozenset[str]
  names: frozenset[str]


@functools.lru_cache(maxsize=16)
def _patterns(world: World) -> _Patterns:
  names = frozenset(name.lower() for name in world.names)
  slots = {"{who}": f"[{'|'.join((*PRONOUNS, *sorted(names)))}]", "{hedges}": HEDGES.strip()}
  acts = []
  for kind, text in _ACTS.items():
    for slot, filling in slots.items():
      text = text.replace(slot, filling)
    acts.append((kind, re.compile(phrases(text))))
  beginnings = {
    "admission": rf"(?:{_DOES_NOT_KNOW}\b *)(.*)|(.*) {_UNKNOWN}",
    "inability": rf"{_CAN_NOT_SAY}\b *(.*)",
    "refusal": rf"(?:{_REFUSALS}|{_UNABLE})\b *(.*)",
    "moral": rf"{_MORAL}\b *(.*)",
  }
  lexicon = names | {word.lower() for word in CATEGORY_OF} | {thing + "s" for thing in OBJECTS}
  compiled = tuple((kind, re.compile(pattern)) for kind, pattern in beginnings.items())
  return _Patterns(tuple(acts), compiled, lexicon, names)


def read_lead(world: World, piece: str) -> tuple[Act, str] | None:
  """What the first words of a plain piece do, and the words after them; None where they are no act of `LEADS`."""
  match = _LISTS.match(piece)
  if match:
    return Act("list", match["plural"], match["count"] or ""), piece[match.end() :]
  words = piece.split()
  for size in range(min(4, len(words) - 1), 0, -1):
    act = read_act(world, " ".join(words[:size]))
    if act is not None and act.kind in LEADS:
      return act, " ".join(words[size:])
  return None


def read_act(world: World, piece: str) -> Act | None:
  """What a plain piece does, or None where it is no act of speech."""
  if not piece or len(piece) > 200:
    return None
  patterns = _patterns(world)
  for kind, pattern in patterns.acts:
    if pattern.fullmatch(piece):
      return Act(kind)
  for kind, pattern in patterns.beginnings:
    match = pattern.fullmatch(piece)
    if match is None:
      continue
    rest = next(text for text in match.groups() if text is not None)
    if kind in ("admission", "inability"):
      act = _admission(world, patterns, rest)
      if act is not None:
        return act._replace(kind=kind)
    elif all(word in _REFUSED or word in patterns.lexicon or harms(word) for word in rest.split()):
      return Act(kind)
  return None


def _admission(world: World, patterns: _Patterns, topic: str) -> Act | None:
  """An admission about a topic, or None where the topic has a word that belongs to none."""
  words = set(topic.split())
  names = words & patterns.names
  if not words <= _TOPIC | patterns.names | set(PRONOUNS) or len(names) > 1:
    return None
  attribute = next((kind for kind, signs in _ATTRIBUTE_WORDS.items() if signs & words), "")
  name = next(iter(names), "")
  return Act("admission", attribute, person_of(world, f"the friend of {name}") if "friend" in words else name)
