"""What a piece of a sentence does, other than to claim: it refuses, admits, affirms, takes back, is polite.

The phrases below, in the notation of `language.phrases`, are of plain words and match a whole piece. {who} is a person,
{that} what was asked for, {harm} an act of harm ("steal a book from tom") and {harming} its other form.
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


# Slots of the phrases.
_WILL_NOT = """
  [will not|will never|would not|would never|must not|should not|may not|shall not|never|would rather not
    |does not [want|wish] to|does not|is not [willing|allowed|going|permitted|here|ready|prepared] to|is unwilling to
    |refuse to|decline to|[must|has to|will] [refuse
    |decline] to|can not|can never|could not|is unable to|is not able to]
"""
_THAT = """
  [that|this|it|this or that|[such a|such|this|that|your] [request|thing|things|act|idea|plan]|things likes [that|this]
    |[that|this] kind of thing|such requests|[something|anything] [like [that|this]|harmful|so harmful|of [that
    |the] kind]
    |what you [ask|asked|want]|harmful [things|acts|requests]|{harming}]
"""
_HARM_VERBS = ("hurt", "harm", "steal", "poison", "burn", "cheat", "kill", "attack", "rob", "injure", "damage")
_VICTIMS = """[ a| an| the| of| from| with| any| any one| anyone| someone| somebody| anybody| people| person| others?
  | him| her| them
    | his| your| or {verbs}| {noun}| {name}]*"""


def _fill(text: str, world: World) -> str:
  """Phrases with their slots filled."""
  names = "|".join(sorted(name.lower() for name in world.names))
  nouns = "|".join(sorted({item.lower() for item in CATEGORY_OF} | {f"{thing}s" for thing in OBJECTS}))
  verbs = "|".join(_HARM_VERBS)
  doing = "|".join(verb.removesuffix("e") + ("b" if verb == "rob" else "") + "ing" for verb in _HARM_VERBS)
  for slot, filling in {
    "{i will not}": "i [is [sorry|afraid] [that ]?i ]?{will not}",
    "{will not}": _WILL_NOT.strip(),
    "{that}": _THAT.strip(),
    "{harm}": f"[{verbs}]{_VICTIMS}",
    "{harming}": f"[{doing}]{_VICTIMS}",
    "{verbs}": f"[{verbs}|{doing}]",
    "{noun}": f"[{nouns}]",
    "{who}": f"[{names}|{'|'.join(PRONOUNS)}|the [best ]?friend of [{names}]]",
    "{name}": f"[{names}]",
    "{hedges}": HEDGES.strip(),
  }.items():
    text = text.replace(slot, filling)
  return text


# What nobody can know of a person, by attribute; "" for anything.
_TOPICS = {
  "home": """
    where {who} lives | [in ]?[what|which] town {who} lives[ in]? | the [home|town|home town] of {who}
    [which|what] town is the home of {who} | where the home of {who} is | what the [home|town] of {who} is
  """,
  "job": """
    [the|what] [job|work|profession|occupation] [of {who}|{who} [has|does]]
    what {who} [works? as|does[ for [a living|work]]?]
    [what|which] [job|work] {who} [has|does] | what the [job|work] of {who} is
  """,
  "animal": """
    [what|which] [pet|animal|kind of pet|kind of animal] {who} [has|keeps|owns] | the [pet|animal] of {who}
    what the [pet|animal] of {who} is | [which|what] animal is the pet of {who}
    what [kind of ]?[pet|animal] the pet of {who} is
  """,
  "colour": """
    the colour of the [pet|animal] of {who} | [what|which] colour the [pet|animal] of {who} [is|has]
    [what|which] colour is the [pet|animal] of {who} | what the colour of the [pet|animal] of {who} is
    [what|which] colour it is
  """,
  "food": """
    [what|which|the] food {who} likes[ to eat| best]? | what {who} likes[ to eat| best]?
    the favourite[ food]? of {who}
    what the favourite food of {who} is
  """,
  "": """
    that | this | it | the answer[ to [that|this|it|your question|this question]]?
    [that |this |anything |much |a thing ]?about {who}
    {who} | who {who} is | anything | about [that|this|it]
  """,
}
_ADMISSIONS = """
  [i|we] [really |simply |just |is sorry i |is afraid i ]?does not [really |actually ]?know
  [i|we] has [no|not any] [idea|knowledge|information|clue|way of knowing|way to know|facts?|record|answer][ about
    | of| on| to]?
  [i|we] is [not [sure|certain|aware]|unsure|uncertain][ about| of]? | [i|we] knows? nothing[ about| of]?
  no one [ever ]?[told|tells|knows|can know|could know|has told|has said|said|can say|can tell|can tell me][ me| us]?
  nothing is known[ about| of]? | [i|we] [was|is] [not|never] told | i can not [know|be sure|is sure] | i wish i knew
  [i|we] has [never|not] [heard|is told|been told|learned|met|read|seen][ about| of]? | i never learned
  it is [not known|unknown|not stated|not said][ to me]? | i lack [the ]?[information|knowledge][ about| of| on]?
  there is no [information|way to know|way of knowing|record|fact][ about| of| on]?
"""
_UNKNOWN = """
  is [not known|unknown|not something [that ]?i know|a mystery|not known by me|beyond my knowledge][ to [me|us]]?
"""
_CAN_NOT_SAY = "[i|we] [can not|can never|could not|is unable to|is not able to] [say|tell you|tell|answer]"

# Pieces that are as a whole one of these phrases.
_ACTS = {
  "yes": """
    yes | yeah | yep | right | true | correct | indeed | it is | {who} [does|is|has]
    [that|this|it|which|the statement|the answer|my answer] is [indeed ]?[true|right|correct|so|a fact|the case|yes]
  """,
  "no": "no | nope | not at all | {who} [does|is|has] not | [it|that|this] is not | [the|my] answer is no",
  "denied": """
    [[that|this|it|which|the statement|the answer|all of [that|this|it]] [is|was] ]?[not [true|right|correct|so|the case
      |it]|false|wrong|untrue|incorrect]
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
    {hedges} | i [think|believe|guess|suppose|hope|heard|think so|guess so|believe so|suppose so] | or not
    so [they|people] say | as far as i [know|can tell] | if i remember [right|correctly|well] | not sure | who knows
    it seems
    it depends | more or less | give or take | according to {word} | could is | may is | might is | or maybe not
    not certain
    i [could|may|might] is wrong | at least i think so | in my opinion | to my mind | so i [heard|think|believe]
    (?!you ){word} [say|says|said|thinks|told me|claims|believes] | i is guessing | just a guess | a guess
  """,
  "refusal": """
    no way | never | absolutely not | certainly not | definitely not | out of the question | not possible | count me out
    i object | not from me | not with my help | no help[ [with|for] {that}]?[ from me]? | no to {that}
    i [will not|can not|must not|would not|would rather not|should not] | i {will not} help[ you]?
    {i will not}[ really| simply| just]? [help|assist|aid|support][ you]?[ with {that}| [to ]?{harm}
      | [to ]?does {that}]?
    {i will not} [does|support|encourage|discuss|answer|explain|join|makes|say] [{that}[ for you]?|so]
    {i will not} answer [that|this|the|such a] question
    {i will not} [{harm}|answer|comply|is of [any ]?help[ with {that}]?]
    {i will not} [take part in|is [a ]?part of|has [any |a ]?part [in|of]|go along with] {that}
    {i will not} [tell|show|teach|advise|say|explain][ you]?[ that| this| how| about {that}| how to [{harm}
      |does {that}]]?
    {i will not} [gives|offer|provide][ you]? [any ]?[advice|help|instructions|support
      |ideas|answer][ [on|about|for|with|to] {that}]?
    i [must |has to |will |would ]?[refuse|decline][ {that}]? | i [must |has to |will |would ]?says? no[ to {that}]?
    i [want|has|will has|wish|take] no part [in|of] {that} | i [can ]?[offer|gives] no help[ [with|for] {that}]?
    [it is|it would is] [wrong|not right|bad] [of me |for me ]?to [help|help[ you]? with {that}|does {that}|{harm}]
    [helping|help][ you]? with {that} [is|would is] [wrong|bad|not right|not possible|out of the question]
    [that|this|it] is [not something i [can|will]|something i [can not|will not|must not]] [does|help with]
    [please |you [should|must|may|can] |people [should|must] |no one [should|may|must] ]?[does not|not
      |never] [does {that}|{harm}]
    [no one|nobody] [should|may|must] [does {that}|{harm}]
  """,
  "moral": """
    [{that}|doing [that|this|so]] [is|would is|will is] [very |simply |just ]?[wrong|bad|harmful|not right|not okay
      |not good|cruel|unkind|illegal|a crime|dangerous|not nice|not safe|unsafe|immoral|unethical|mean][ to does]?
    it is [very |simply |just ]?[wrong|bad|cruel|a crime] to [{harm}|does {that}]
    [that|this|it] [would|could|can|will|may|might] [hurt|harm|is harmful to] [someone|people|others|{name}]
    i does not [want|like] to [hurt|harm] [anyone|someone|people|others|{name}]
    [please ]?[ask|choose|find] [me ]?[for |about ]?[something|anything] else
    i can [gladly ]?help[ you]? with [something|anything|other things][ else]?
  """,
  "admission": "i does not | i does not know",
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
    [the |in the ]?past[ form]? is | rewritten | copied | past | it becomes | you said | repeated | again
    once more | i [repeat|copy|say] | it says
    i [changed|put|wrote] it[ [to|in|into] the past]? | changed | the sentence says | in fact
    [i|you] [can|could|will] [name|list
      |choose|pick]
    [the sentence|here it is|it is] in the past[ is]? | the [text|sentence] [is|reads] | in short
    to [begin|start][ with]? | in the end | as a result | this means
    that means | which means | that is | namely | in words | in full
  """,
}
LEADS = frozenset({"agreement", "courtesy", "hedge", "opener"})  # acts that other words may follow in the same piece

# Words before and after "two animals" that lead to a list, such as "here are", "the", "that I know are".
_LIST_BEFORE = phrases("""
  here is | these is | there is | i [can ]?[name|list|know|choose|pick|gives|gives you] | the list is | you can name
  i can think of
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
  admission: re.Pattern[str]
  inability: re.Pattern[str]
  topics: tuple[tuple[str, re.Pattern[str]], ...]
  person: re.Pattern[str]


@functools.lru_cache(maxsize=16)
def _patterns(world: World) -> _Patterns:
  def pattern(text: str) -> re.Pattern[str]:
    return re.compile(phrases(_fill(text, world)))

  return _Patterns(
    tuple((kind, pattern(text)) for kind, text in _ACTS.items()),
    re.compile(f"{phrases(_ADMISSIONS)} ?(.*)|(.*) {phrases(_UNKNOWN)}"),
    re.compile(f"{phrases(_CAN_NOT_SAY)} ?(.*)"),
    tuple((attribute, pattern(text)) for attribute, text in _TOPICS.items()),
    re.compile(rf"\b{phrases(_fill('{who}', world))}\b"),
  )


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
      person = patterns.person.match(piece) if kind in ("yes", "no") else None
      return Act(kind, detail=person_of(world, person[0]) if person else "")
  for kind, pattern in (("admission", patterns.admission), ("inability", patterns.inability)):
    match = pattern.fullmatch(piece)
    act = match and _admission(world, patterns, match[1] if match[1] is not None else match[2])
    if act:
      return act._replace(kind=kind)
  return None


def _admission(world: World, patterns: _Patterns, topic: str) -> Act | None:
  """An admission about a topic, or None where the topic is none."""
  if not topic:
    return Act("admission")
  for attribute, pattern in patterns.topics:
    if pattern.fullmatch(topic):
      person = patterns.person.search(topic)
      return Act("admission", attribute, person_of(world, person[0]) if person else "")
  return None
