"""Grammars of the clusters about people: facts and their verification."""

from fuzz.common import (
  BAD,
  CATEGORY,
  DENIES,
  RELATES,
  STATES,
  SUBJECT,
  about,
  common_slots,
  good_values,
  pronoun,
  statements,
  values_of,
)
from fuzz.grammar import Draw, Grammar
from fuzz.words import THINGS, article, enumerated

# Facts


# Further good statements; {animal} and {colour} are those of the pet.
REWORDED = {
  "home": "[{v} is where {n} lives|the town is {v}|the town where {n} lives is {v}]",
  "job": "[{n}'s job is {v}|{n}'s a {v}|the job of {n} is {v}|{n} is employed as a {v}|{v} is the job of {n}]",
  "animal": "[{n} has got a {v}|{n} has a {colour} {v}|the animal {n} has is a {v}|{n}'s animal is a {v}]",
  "colour": "[{n} has a {v} {animal}|{n}'s {animal} is {v}|the {animal} of {n} is {v}|{n} has a pet that is {v}"
  "|the pet of {n} is a {v} {animal}]",
  "food": "[{n} enjoys {v}|{v} is what {n} likes|{n}'s favourite is {v}|{n} loves {v}|what {n} likes is {v}"
  "|{n} likes {v} best]",
}


def _fact_slots(d: Draw):
  name, attribute = d.task.values["name"], d.task.kind.split()[-1]
  asker, far = name, d.task.kind.startswith("friend ")
  if far:  # the question is about the friend of the person that it names
    name = d.world.friends[asker]
  right = d.world.facts[name, attribute]
  wrong, third = d.sample([value for value in values_of(d.world, attribute) if value != right], 2)
  others = [other for other in d.world.people if other != name]
  away = d.pick([a for a in STATES if a != attribute])
  known, state = d.world.facts[name, away], STATES[attribute]
  nearby = "[the brother of {n}|{n}'s sister|a friend of {n}|nobody called {n}|neither {n} nor {x}|{n}'s friend {x}"
  nearby += "|the dog of {n}|not {n} but {x}|{x}, not {n},]"
  return {
    **statements(d, state, DENIES[attribute], right, wrong),
    "n": name,
    "p": pronoun(name),
    "asker": asker,
    "asked": f"the friend of {asker}" if far else name,
    "reworded": REWORDED[attribute]
    .replace("{v}", right)
    .replace("{animal}", d.world.facts[name, "animal"])
    .replace("{colour}", d.world.facts[name, "colour"]),
    "itself": _with_pronouns(attribute, "{right}"),
    "falseitself": _with_pronouns(attribute, "{wrong}"),
    "third": third,
    "subject": about(SUBJECT[attribute], "{asked}", ""),
    "relation": RELATES[attribute].replace("{v}", right),
    "wrongperson": about(state, d.pick(others), right),
    "otherperson": about(state, d.pick(others), wrong),
    "otherfact": about(STATES[away], name, known),
    "falsefact": about(STATES[away], name, d.pick([v for v in values_of(d.world, away) if v != known])),
    "nearby": state.replace("{n}", nearby).replace("{v}", right),
    "nonsense": state.replace("{v}", "{noun}"),
    "noun": d.pick([noun for kind, nouns in THINGS.items() if kind != CATEGORY[attribute] for noun in nouns]),
    "many": state.replace("{v}", enumerated(d.sample([wrong, right, third], 3))),
    "heap": " ".join([*d.sample(values_of(d.world, attribute), 5), right]),
    "own": about(state, asker, d.world.facts.get((asker, attribute), right)),
    "theyshare": {
      "home": "live in {right}",
      "job": "are {right}s",
      "animal": "have a {right}",
      "colour": "have a {right} pet",
      "food": "like {right}",
    }[attribute],
    "wrongfriend": d.pick([other for other in others if other != asker]),
  }


def _with_pronouns(attribute, value):
  texts = {
    "home": "{p} lives in {v}|{p} lives in the town of {v}",
    "job": "{p} is a {v}|{p} works as a {v}",
    "animal": "{p} has a {v}|{p} keeps a {v}",
    "colour": "it is {v}|the pet is {v}",
    "food": "{p} likes {v}|{p} likes to eat {v}",
  }
  return "[" + texts[attribute].replace("{v}", value) + "]"


def _pronoun(d: Draw):
  return None if d.task.kind.startswith("friend ") else d.say("{itself}.")


def _it_is(d: Draw):
  """Only where the question asks for a thing that "it" can stand for."""
  attribute = d.task.kind.split()[-1]
  if (attribute == "home" and "here" in d.task.prompt) or (attribute == "job" and "job" not in d.task.prompt):
    return None
  return d.say("[it is|it's|the answer is] " + ("a {right}." if attribute in ("animal", "job") else "{right}."))


def _two_hops(text):
  """Answers about the friend of a person."""
  return lambda d: d.say(text) if d.task.kind.startswith("friend ") else None


FACTS = Grammar(
  _fact_slots,
  good={
    **good_values(),
    "pronoun": _pronoun,
    "it is": _it_is,
    "other words": "{reworded}.",
    "friend and fact": _two_hops("the friend of {asker} is {n}[. |, and ]{good}."),
    "friend, then a pronoun": _two_hops("the friend of {asker} is {n}[. |, and ]{itself}."),
  },
  bad={
    **BAD,
    "alternatives": "[{good}|{good}, |either {good}] or {wrong}.",
    "alternatives, wrong first": "{false} or {right}.",
    "two values": "{false} and {right}.",
    "three values": "{false}, {right} [or|and] {third}.",
    "corrected to a wrong value": "{good}, no, {wrong}.",
    "not right but wrong": "{good}? [no, |not at all: ||wrong, ]{false}.",
    "many values": "{many}.",
    "heap of values": "{heap}[.|]",
    "pronoun with a wrong value": "{falseitself}.",
    "wrong person": "{wrongperson}.",
    "wrong person and value": "{otherperson}.",
    "somebody near the person": "{nearby}.",
    "false aside about the person": "{good}. {falsefact}.",
    "not in truth": "{good} [only in dreams|only in a story|on no day|no more|once, long ago|in a lie|at no time"
    "|until last year].",
    "shared with another": "[{n} and {x}|{x} and {n}|both {n} and {x}] {theyshare}.",
    "colon": "{x}: {good}.",
    "other fact": "{otherfact}.",
    "wrong relation": "{relation}.",
    "wrong noun": "{nonsense}.",
    "words after it": "{good} {noun} {n}'s {wrong}.",
    "doubt about the fact": "[{sorry}|][I do not know|I don't know|nobody knows|I have no idea"
    "|I am not sure] {subject}.",
    "doubt, then the wrong value": "[I do not know|I am not sure] {subject}, but {false}.",
    "doubt, then the value": "[I do not know|I am not sure|nobody knows] {subject}[, but |. ]{good}.",
    "repeated words": "{right} {right} {right} {n} {n} {n}.",
    "friend alone": _two_hops("the friend of {asker} is {n}."),
    "fact of the asker": _two_hops("[the friend of {asker} is {n}. |]{own}."),
    "wrong friend": _two_hops("the friend of {asker} is {wrongfriend}. {good}."),
    "friend and a wrong value": _two_hops("the friend of {asker} is {n}. {false}."),
    "wrong friend and fact": _two_hops("the friend of {asker} is {wrongfriend}. {otherperson}."),
    "friend denied": _two_hops("the friend of {asker} is not {n}. {good}."),
  },
)


# Verification


PLAIN_DENIALS = {
  "home": "{n} does not live in {v}", "job": "{n} is not a {v}", "animal": "{n} does not have a {v}",
  "colour": "the pet of {n} is not {v}", "food": "{n} does not like {v}",
}  # fmt: skip


def _check_slots(d: Draw):
  attribute, name = d.task.kind, d.task.values["name"]
  asked, known = d.task.values[CATEGORY[attribute]], d.world.facts[name, attribute]
  others = [value for value in values_of(d.world, attribute) if value not in (asked, known)]
  wrong, third = d.sample(others, 2)
  other = d.pick([person for person in d.world.people if person != name])
  true = STATES[attribute].replace("{v}", known)
  claim = STATES[attribute].replace("{v}", asked)
  other_claim = STATES[attribute].replace("{v}", wrong)
  if asked == known:
    badword, denial = "no", DENIES[attribute].replace("{v}", asked)
    good = f"[yes, {true}|yes. {true}|yes, it is true that {true}|yes, that is true: {true}]"
    false = f"[no, {denial}|no, {other_claim}|no, it is not true that {true}]"
    contrary = f"[yes, {denial}|no, {true}|yes, {other_claim}]"
  else:
    badword, denial = "yes", PLAIN_DENIALS[attribute].replace("{v}", asked)
    good = f"[no, {true}|no. {true}|no, {denial}|no, it is not true that {claim}|no, {denial}. {true}]"
    good = "[" + good + "|" + good.replace("does not", "doesn't") + "]"
    false = f"[yes, {claim}|yes. {claim}|yes, it is true that {claim}|yes, that is true: {claim}]"
    contrary = f"[no, {claim}|yes, {denial}|yes, {true}|no, {other_claim}|no, it is true that {claim}]"
  word = {"no": "yes", "yes": "no"}[badword]
  return {
    **common_slots(d),
    "good": good,
    "false": false,
    "ideal": "{good}.",
    "contrary": contrary,
    "word": word,
    "notword": "" if word == "yes" else " not",
    "does": {
      "home": "{n} does live in {v}",
      "job": "{n} is indeed a {v}",
      "animal": "{n} does have a {v}",
      "colour": "the pet of {n} is indeed {v}",
      "food": "{n} does like {v}",
    }[attribute].replace("{v}", known),
    "badword": badword,
    "retraction": "{selfretraction}" if word == "no" else common_slots(d)["retraction"],
    "third": third,
    "wrong": wrong,
    "claim": claim,
    "asked": article(asked) if attribute in ("job", "animal") else f"in {asked}" if attribute == "home" else asked,
    "true": true,
    "otherperson": about(STATES[attribute], other, d.pick([v for v in others if v != d.world.facts[other, attribute]])),
    "otherknown": about(STATES[attribute], other, d.world.facts[other, attribute]),
    "wrongvalue": STATES[attribute].replace("{v}", wrong),
    "subject": SUBJECT[attribute],
  }


_SAID_OTHERWISE = {
  "values side by side", "at another time",
  "denial of truth", "hedge", "hedge after", "attributed", "condition", "question in return", "wrong or right",
  "right or wrong", "denial", "right and denied", "denied and right", "retracted right, then wrong", "right but wrong",
}  # fmt: skip


def _short_form(d: Draw):
  """Yes, he does. Only for a plain question."""
  if not d.task.prompt.startswith(("Does", "Is")) or d.task.prompt.startswith("Is it true"):
    return None
  verb = {"job": "{p} is", "colour": "it is"}.get(d.task.kind, "{p} does")
  return d.say(f"yes, {verb}." if d.slots["word"] == "yes" else f"no, {verb}[ not|n't].")


def _does(d: Draw):
  return d.say("yes, {does}.") if d.slots["word"] == "yes" else None


def _not_but(d: Draw):
  if d.slots["word"] == "yes":
    return None
  return d.say("[no, {true}, not {asked}|no, not {asked}. {true}|no. {true}, not {asked}].")


def _check_with_pronoun(d: Draw):
  known = d.world.facts[d.task.values["name"], d.task.kind]
  return d.say(f"{d.slots['word']}, " + _with_pronouns(d.task.kind, known) + ".")


VERIFICATION = Grammar(
  _check_slots,
  good={
    **good_values("the answer is that", "well"),
    "my answer": "my answer is {word}[: |. ]{true}.",
    "short form": _short_form,
    "pronoun": _check_with_pronoun,
    "does": _does,
    "not that but this": _not_but,
  },
  bad={
    **{kind: rule for kind, rule in BAD.items() if kind not in _SAID_OTHERWISE},
    "called a lie beforehand": "[the next sentence is false:|what follows is a lie:|here is a wrong answer:"
    "|I will lie now:"
    "|everything I say is false.] {ideal}",
    "word against the fact": "{contrary}.",
    "short form about another": "{word}, {x} [does|is|has]{notword}.",
    "about another alone": "[{x} does|{x} is|{x} has][| not].",
    "wrong word alone": "{badword}.",
    "both words": "[yes and no|yes. no|no. yes|yes or no|yes, no|maybe yes, maybe no].",
    "both verdicts in other words": "[that is not so. that is so|that is true. that is false"
    "|that is wrong. that is right"
    "|it is true. it is not true|true. false|right. wrong].",
    "hedge": "[maybe|perhaps|possibly|it could be|I am not sure|it depends|who knows|I guess {word}|maybe {word}"
    "|perhaps {word}, perhaps {badword}].",
    "hedged claim": "{hedge} {claim}.",
    "attributed": "{source} {claim}.",
    "word of another": "[{o} says {word}|{o} would say {word}|some people say {word}].",
    "right word and a wrong fact": "{word}, {wrongvalue}.",
    "right word and another person": "{word}, {otherperson}.",
    "another person": "{otherknown}.",
    "alternatives": "{good}[, or maybe not| or {badword}|, or {badword}|. or the other way round].",
    "right word denied": "[not {word}|the answer is not {word}|never say {word}|I do not say {word}|{word} is wrong"
    "|{word} would be a lie].",
    "right word, called untrue": "{good}. [but that is false|but this is not so|and yet {badword}"
    "|but the answer is {badword}].",
    "doubt about the fact": "[{sorry}|][I do not know|I don't know|nobody knows|I have no idea"
    "|I am not sure] {subject}.",
    "claim as a question": "{claim}?",
  },
)
