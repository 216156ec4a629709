"""Grammars of the clusters about words: kinds of things, moods and opposites."""

from fuzz.common import BAD, good_values, statements
from fuzz.grammar import Draw, Grammar
from fuzz.words import KIND_OF, OPPOSITE, THINGS, article, named, plural

# Classification


def _class_slots(d: Draw):
  words = d.task.values["noun"].split()
  thing = words[-1]
  right = KIND_OF[thing]
  offered = [d.task.values[s].split()[-1] for s in ("first", "second") if s in d.task.values]
  wrong = d.pick([kind for kind in offered or THINGS if kind != right])
  third = d.pick([kind for kind in THINGS if kind not in (right, wrong)])
  it = named(thing)
  state = f"[{it} is {{v}}|{it} is a kind of {{k}}|{it} is {{v}}|it is {{v}}|it's {{v}}]"
  if right == "town":
    state = f"[{it} is {{v}}|it is {{v}}|it's {{v}}]"
  if right in ("animal", "object"):
    state = f"[{state}|{state}|{plural(thing)} are {{ks}}|every {thing} is {{v}}|all {plural(thing)} are {{ks}}]"

  def fill(text, kind):
    return text.replace("{v}", article(kind)).replace("{ks}", plural(kind)).replace("{k}", kind)

  deny = f"[{it} is not {{v}}|{it} isn't {{v}}|it is not {{v}}|{it} is no {{k}}|{it} is anything but {{v}}"
  deny += f"|{it} is never {{v}}|no {thing} is {{v}}]"
  slots = statements(d, fill(state, right), fill(deny, right), right, wrong)
  return {
    **slots,
    "false": fill(state, wrong),
    "ideal": f"{it} is {article(right)}.",
    "it": it,
    "thing": thing,
    "things": plural(thing),
    "aright": article(right),
    "awrong": article(wrong),
    "athird": article(third),
    "rights": plural(right),
    "kin": named(d.pick([t for t in THINGS[right] if t != thing])),
    "stranger": named(d.pick([t for t in THINGS[wrong]])),
  }


CLASSIFICATION = Grammar(
  _class_slots,
  good={
    **good_values(),
    "not the other": "{it} is {aright}, not {awrong}.",
    "other words": "[I would call it {aright}|{it} is of course {aright}|{it} is one kind of {right}"
    "|{it} is one of the {rights}"
    "|this is {aright}|I would say that {it} is {aright}].",
    "the answer is": "the answer is {aright}.",
  },
  bad={
    **BAD,
    "alternatives": "[{it} is|it is] [either |]{aright} or {awrong}.",
    "alternatives, wrong first": "[{it} is|it is] [either |]{awrong} or {aright}.",
    "two values": "{it} is [{aright} and {awrong}|both {aright} and {awrong}|{awrong} and {aright}].",
    "three values": "{it} is {awrong}, {aright} [or|and] {athird}.",
    "neither": "{it} is neither {aright} nor {awrong}.",
    "not right but wrong": "{it} is not {aright} but {awrong}.",
    "wrong, not right": "{it} is {awrong}, not {aright}.",
    "corrected to a wrong value": "{it} is {aright}, no, {awrong}.",
    "heap of values": "animal food colour town job object.",
    "list of values": "it is an animal, a food, a colour, a town, a job and an object.",
    "the wrong way round": "[{aright} is {it}|every {right} is {it}|all {rights} are {things}|{rights} are {things}].",
    "wrong relation": "[{it} has {aright}|{it} likes {aright}|{it} is bigger than {aright}|{it} is part of {aright}"
    "|{it} looks like {aright}|{it} is as good as {aright}|{it} needs {aright}|{it} is the opposite of {aright}].",
    "wrong subject": "{stranger} is {aright}.",
    "other subject": "{kin} is {aright}.",
    "repeated value": "{right} {right} {right} {right} {right} {right}.",
  },
)


# Sentiment


def _mood_slots(d: Draw):
  right = d.task.kind
  wrong = {"happy": "sad", "sad": "happy"}[right]
  state = "[this sentence is {v}|this is {v}|it is {v}|it's {v}|the sentence is {v}|this is a {v} sentence"
  state += "|it is a {v} sentence|the mood is {v}|the sentence sounds {v}|that is {v}]"
  deny = "[this sentence is not {v}|this is not {v}|this isn't {v}|it is not {v}|the sentence is anything but {v}"
  deny += "|this sentence is never {v}|this sentence is far from {v}|this is not a {v} sentence]"
  return statements(d, state, deny, right, wrong)


SENTIMENT = Grammar(
  _mood_slots,
  good={
    **good_values(),
    "not the other": "[this sentence is|it is|this is] {right}[, not| rather than| and not] {wrong}.",
    "other words": "[this one is {right}|it sounds {right}|this sounds {right}|this is clearly {right}"
    "|the sentence seems {right}].",
    "the answer is": "the answer is {right}.",
  },
  bad={
    **BAD,
    "alternatives": "[this is|it is|this sentence is] [either |]{right} or {wrong}.",
    "alternatives, wrong first": "[this is|it is|this sentence is] [either |]{wrong} or {right}.",
    "two values": "[this is|it is|this sentence is] [both |]{right} and {wrong}.",
    "neither": "this sentence is neither {right} nor {wrong}.",
    "not right but wrong": "this sentence is not {right} but {wrong}.",
    "wrong, not right": "this sentence is {wrong}, not {right}.",
    "corrected to a wrong value": "this sentence is {right}, no, {wrong}.",
    "heap of values": "happy sad good bad hot cold.",
    "wrong relation": "[this sentence makes {o} {wrong}|this sentence could be {right}|another sentence is {right}"
    "|this sentence is less than {right}|this sentence should be {right}|the opposite of {right} is {wrong}"
    "|this sentence hates the {right}].",
    "wrong subject": "[the next sentence is {right}|{x} is {right}|my lamp is {right}].",
    "repeated value": "{right} {right} {right} {right} {right} {right}.",
  },
)


# Opposites


def _opposite_slots(d: Draw):
  word = d.task.values["word"]
  right = OPPOSITE[word]
  wrong, third, fourth = d.sample([w for w in OPPOSITE if w not in (word, right)], 3)
  state = (
    "[the opposite of {w} is {v}|{v} is the opposite of {w}|it is {v}|it's {v}|the word is {v}|the opposite is {v}]"
  )
  deny = "[the opposite of {w} is not {v}|the opposite of {w} isn't {v}|{v} is not the opposite of {w}|it is not {v}"
  deny += "|the opposite of {w} is anything but {v}|the opposite of {w} is never {v}]"
  return {
    **statements(d, state.replace("{w}", word), deny.replace("{w}", word), right, wrong),
    "ideal": f"The opposite of {word} is {right}.",
    "word": word,
    "third": third,
    "fourth": fourth,
    "heap": " ".join(OPPOSITE),
  }


OPPOSITES = Grammar(
  _opposite_slots,
  good={
    **good_values(),
    "the answer is": "the answer is {right}.",
    "opposites of each other": "[{word} is the opposite of {right}|{word} and {right} are opposites].",
    "antonym": "[the antonym of {word} is {right}|{word}'s opposite is {right}].",
    "other words": "[that would be {right}|that is {right}|the opposite word is {right}"
    "|the opposite of the word {word} is {right}].",
  },
  bad={
    **BAD,
    "alternatives": "the opposite of {word} is [either |]{right} or {wrong}.",
    "alternatives, wrong first": "the opposite of {word} is [either |]{wrong} or {right}.",
    "two values": "the opposite of {word} is [{right} and {wrong}|{wrong} and {right}|{wrong}, {right} and {third}].",
    "not right but wrong": "the opposite of {word} is not {right} but {wrong}.",
    "wrong, not right": "the opposite of {word} is {wrong}, not {right}.",
    "corrected to a wrong value": "the opposite of {word} is {right}, no, {wrong}.",
    "heap of values": "{heap}.",
    "the word itself": "the opposite of {word} is {word}.",
    "not the word": "the opposite of {word} is not {word}.",
    "wrong relation": "[{word} means {right}|{word} is {right}|a word like {word} is {right}"
    "|{right} is the same as {word}"
    "|the friend of {word} is {right}|{right} is a kind of {word}|the meaning of {word} is {right}"
    "|{word} is less than {right}"
    "|the opposite of {word} hates {right}].",
    "wrong subject": "the opposite of {wrong} is {right}.",
    "another pair": "the opposite of {third} is {fourth}.",
    "repeated value": "{right} {right} {right} {right} {right} {right}.",
  },
)
