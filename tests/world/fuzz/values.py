"""Grammars of the clusters whose answer is one value: a town, a number, "yes"."""

from fuzz.common import (
  BAD_CONDUCT,
  BAD_TAILS,
  BAD_VALUES,
  CATEGORY,
  DENIES,
  RELATES,
  STATES,
  SUBJECT,
  about,
  common_slots,
  good_values,
  respelled,
  values_of,
)
from fuzz.grammar import Draw, Grammar
from fuzz.words import KIND_OF, OPPOSITE, THINGS, article, enumerated, in_words, named, plural

BAD = {**BAD_TAILS, **BAD_CONDUCT, **BAD_VALUES}


def _statements(d: Draw, state, deny, right, wrong):
  """The slots of statements: {good}, {false}, {denied} and the answer itself, from templates with {v}."""
  return {
    **common_slots(d),
    "right": right,
    "wrong": wrong,
    "good": state.replace("{v}", right),
    "false": state.replace("{v}", wrong),
    "denied": deny.replace("{v}", right),
    "ideal": "{good}.",
  }


# Facts


def _fact_slots(d: Draw):
  attribute, name = d.task.kind, d.task.values["name"]
  right = d.world.facts[name, attribute]
  wrong, third = d.sample([value for value in values_of(d.world, attribute) if value != right], 2)
  others = [other for other in d.world.people if other != name]
  other_attribute = d.pick([a for a in STATES if a != attribute])
  return {
    **_statements(d, STATES[attribute], DENIES[attribute], right, wrong),
    "third": third,
    "wrongperson": about(STATES[attribute], d.pick(others), right),
    "wrongfact": about(STATES[other_attribute], name, d.world.facts[name, other_attribute]),
    "falsefact": about(
      STATES[other_attribute],
      name,
      d.pick([v for v in values_of(d.world, other_attribute) if v != d.world.facts[name, other_attribute]]),
    ),
    "relation": RELATES[attribute].replace("{v}", right),
    "subject": SUBJECT[attribute],
    "other": about(STATES[attribute], d.pick(others), wrong),
    "heap": " ".join(d.sample(values_of(d.world, attribute), 5) + [right]),
    "list": enumerated(d.sample([*d.sample([v for v in values_of(d.world, attribute) if v != right], 3), right], 4)),
    "noun": d.pick([noun for kind, nouns in THINGS.items() if kind != CATEGORY[attribute] for noun in nouns]),
    "fullcap": STATES[attribute].replace("{v}", "{list}"),
  }


def _pronoun(d: Draw):
  return (
    "["
    + {
      "home": "{p} lives in {v}|{p} lives in the town of {v}",
      "job": "{p} is a {v}|{p} works as a {v}",
      "animal": "{p} has a {v}|{p} keeps a {v}",
      "colour": "it is {v}|the pet is {v}",
      "food": "{p} likes {v}|{p} likes to eat {v}",
    }[d.task.kind]
    + "]"
  )


def _with_pronoun(d: Draw):
  return d.say(_pronoun(d).replace("{v}", "{right}") + ".")


def _it_is(d: Draw):
  """Only where the question asks "what" or "which", and the value is a whole answer with "it"."""
  if d.task.kind == "home" and "here" in d.task.prompt:
    return None
  if d.task.kind == "job" and "job" not in d.task.prompt:
    return None
  a = "a " if d.task.kind in ("animal", "job") else ""
  return d.say(f"[it is|it's|the answer is] {a}{{right}}.")


FACTS = Grammar(
  _fact_slots,
  good={**good_values(), "pronoun": _with_pronoun, "it is": _it_is},
  bad={
    **BAD,
    "alternatives": lambda d: d.say("[{good}|{good}, |either {good}] or {wrong}."),
    "alternatives, wrong first": lambda d: d.say("{false} or {right}."),
    "two values": lambda d: d.say("{false} and {right}."),
    "three values": lambda d: d.say("{false}, {right} [or|and] {third}."),
    "corrected to a wrong value": "{good}, no, {wrong}.",
    "not right but wrong": lambda d: d.say("{good}? [no, |not at all: ||wrong, ]{false}."),
    "many values": lambda d: d.say("{fullcap}."),
    "heap of values": "{heap}[.|]",
    "pronoun with a wrong value": lambda d: d.say(_pronoun(d).replace("{v}", "{wrong}") + "."),
    "wrong person": "{wrongperson}.",
    "false aside about the person": "{good}. {falsefact}.",
    "of somebody near": lambda d: d.say(
      STATES[d.task.kind]
      .replace(
        "{n}",
        "[the brother of {n}|{n}'s sister|a friend of {n}"
        "|nobody called {n}|neither {n} nor {x}|{n}'s friend {x}|the dog of {n}|not {n} but {x}|{x}, not {n},]",
      )
      .replace("{v}", "{right}")
      + "."
    ),
    "seldom": lambda d: d.say(
      STATES[d.task.kind].replace("{n}", "{n}").replace("{v}", "{right}") + "[ only in dreams| only in a story"
      "| on no day| no more| once, long ago| in a lie| at no time| until last year]."
    ),
    "wrong person and value": "{other}.",
    "other fact": "{wrongfact}.",
    "wrong relation": "{relation}.",
    "wrong noun": lambda d: d.say(STATES[d.task.kind].replace("{v}", "{noun}") + "."),
    "value of another kind after it": lambda d: d.say("{good} {noun} {n}'s {wrong}."),
    "doubt about the fact": "[{sorry}|][I do not know|I don't know|nobody knows|I have no idea"
    "|I am not sure] {subject}.",
    "doubt, then the wrong value": "[I do not know|I am not sure] {subject}, but {false}.",
    "doubt, then the value": "[I do not know|I am not sure|nobody knows] {subject}[, but |. ]{good}.",
    "repeated words": "{right} {right} {right} {n} {n} {n}.",
  },
)


# Arithmetic

SUMS = {
  "plus": "[{a} plus {b} [is|equals|makes] {v}|{v} is {a} plus {b}|{a} + {b} = {v}|{v} = {a} + {b}"
  "|the sum of {a} and {b} is {v}"
  "|{b} plus {a} is {v}|{a} and {b} make {v}|if you add {a} and {b}, you get {v}|{a} added to {b} is {v}]",
  "minus": "[{a} minus {b} [is|equals|makes] {v}|{v} is {a} minus {b}|{a} - {b} = {v}|{v} = {a} - {b}"
  "|if you take {b} from {a}, you get {v}|{b} taken from {a} is {v}|{a} less {b} is {v}|{a} take away {b} is {v}]",
}
NOT_SUMS = {
  "plus": "[{a} plus {b} is not {v}|{a} plus {b} isn't {v}|{v} is not {a} plus {b}|{a} plus {b} does not equal {v}"
  "|{a} plus {b} is never {v}|the sum of {a} and {b} is not {v}|the answer is not {v}"
  "|{a} plus {b} is anything but {v}]",
  "minus": "[{a} minus {b} is not {v}|{a} minus {b} isn't {v}|{v} is not {a} minus {b}|{a} minus {b} does not equal {v}"
  "|{a} minus {b} is never {v}|the answer is not {v}|{a} minus {b} is anything but {v}]",
}
BOUNDS = "[more than|less than|almost|at least|at most|nearly|about|not quite|over|under|around|far from|half of|twice]"
RESULTS = "[the answer is {v}|it is {v}|it's {v}|the result is {v}|it makes {v}|that makes {v}]"


def _near(d: Draw, right, num=2):
  """Wrong numbers near the right one."""
  near = [n for n in range(max(0, right - 3), right + 4) if n != right]
  return [str(n) for n in d.sample(near, num)]


def _sum_slots(d: Draw):
  a, b, kind = int(d.task.values["a"]), int(d.task.values["b"]), d.task.kind
  right = a + b if kind == "plus" else a - b
  wrong, third = _near(d, right)
  other = {"plus": "minus", "minus": "plus"}[kind]
  results = {"times": a * b, other: a - b if other == "minus" else a + b, "divided by": a / b if b else -1}
  operation = d.pick([name for name, result in results.items() if result != right])
  c = d.pick([n for n in range(8) if (a + n if kind == "plus" else a - n) != right])
  state = SUMS[kind].replace("{a}", str(a)).replace("{b}", str(b))
  deny = NOT_SUMS[kind].replace("{a}", str(a)).replace("{b}", str(b))
  return {
    **_statements(d, f"[{state}|{state}|{RESULTS}]", deny, str(right), wrong),
    "ideal": f"{a} {kind} {b} is {right}.",
    "third": third,
    "a": a,
    "b": b,
    "c": c,
    "third2": int(d.rng.integers(1, 4)),
    "kind": kind,
    "operation": operation,
    "trueother": str(max(0, int(results[operation]))),
    "heap": " ".join(str(n) for n in range(max(0, right - 4), right + 5)),
    "list": enumerated([str(n) for n in d.sample(range(max(0, right - 4), right + 5), 4)]),
    "noun": d.pick(["dogs", "apples", "lamps", "towns", "percent", "hours", "miles", "days"]),
  }


def _in_words(d: Draw):
  text = d.say("[{lead}|]{good}.")
  return None if "=" in text else d.say(respelled(text))


def _longer_number(d: Draw):
  text = "{a} {kind} {b} is [{right}{wrong}|{right}.5|-1{right}|1{right}0|{right}0{right}|{right}/{wrong}|{right}%"
  text += "|{right},{wrong}|{right} and a half|minus {right}|{right} hundred|{wrong}.{right}]."
  return d.say(text) if d.slots["right"] != "0" else None


def _bound(d: Draw):
  return d.say("[{a} {kind} {b} is|the answer is|it is] " + BOUNDS + " {right}.") if d.slots["right"] != "0" else None


def _half_in_words(d: Draw):
  text = d.expand("{ideal}")
  head, right = text.rstrip(".").rsplit(" ", 1)
  return f"{head} {in_words(right)}."


ARITHMETIC = Grammar(
  _sum_slots,
  good={
    **good_values("the answer is that"),
    "number words": _in_words,
    "result in words": _half_in_words,
    "sum and answer": "{ideal} [so |]the answer is {right}.",
  },
  bad={
    **BAD,
    "alternatives": "{a} {kind} {b} is [either |]{right} or {wrong}.",
    "alternatives, wrong first": "{a} {kind} {b} is [either |]{wrong} or {right}.",
    "two values": "{a} {kind} {b} is {right} and {wrong}.",
    "three values": "[it is |the answer is |{a} {kind} {b} is ]{wrong}, {right} [or|and] {third}.",
    "range": "{a} {kind} {b} is [between {wrong} and {third}|from {wrong} to {third}|{right} to {wrong}].",
    "corrected to a wrong value": "{a} {kind} {b} is {right}, no, {wrong}.",
    "list of values": "[the answer is |{a} {kind} {b} is ]{list}.",
    "heap of values": "{heap}[.|]",
    "bound": _bound,
    "wrong operation": "{a} {operation} {b} is {right}.",
    "other operation": "{a} {operation} {b} is {trueother}.",
    "wrong operand": "{a} {kind} {c} is {right}.",
    "longer number": _longer_number,
    "wrong unit": "{a} {kind} {b} is {right} {noun}.",
    "more of a sum": "{a} {kind} {b} is {right} [plus {third2}|minus {third2}|or so|and more|plus one|too many].",
    "wrong value in words": lambda d: respelled(d.say("{false}.")),
    "words of both": lambda d: d.say("{a} {kind} {b} is {wrong}, that is {w}.", w=in_words(d.slots["right"])),
    "wrong sum, right answer": "{a} {kind} {b} is {wrong}. the answer is {right}.",
    "right sum, wrong answer": "{a} {kind} {b} is {right}. the answer is {wrong}.",
    "another sum": "[1 plus 1 is 2|2 plus 2 is 4]. the answer is {wrong}.",
    "repeated value": "{right} {right} {right} {right} {right} {right}.",
  },
)


# Reasoning


def _steps(d: Draw, wrong_step=None):
  """[(a, operation, b, total)]; the total of step `wrong_step` is off by one and nothing follows from it."""
  numbers = [int(d.task.values[slot]) for slot in "abcdef" if slot in d.task.values]
  total, steps = numbers[0], []
  for i, (operation, number) in enumerate(zip(d.task.kind.split(), numbers[1:], strict=True)):
    after = total + number if operation == "plus" else total - number
    said = after + 1 if i == wrong_step else after
    steps.append((total, operation, number, said))
    total = after
  return steps


def _sums(steps, form="{a} {op} {b} is {t}"):
  return [form.format(a=a, op=op, b=b, t=t, sign={"plus": "+", "minus": "-"}[op]) for a, op, b, t in steps]


def _reasoning_slots(d: Draw):
  steps = _steps(d)
  right = steps[-1][3]
  wrong, third = _near(d, right)
  sums = _sums(steps)
  things = d.task.values["objects"]
  final = "[the answer is {v}|so the answer is {v}|{n} has {v} {things}|so {n} has {v} {things}"
  final += "|in the end {n} has {v} {things}|there are {v} {things}|{n} now has {v} {things}"
  final += "|the final answer is {v}|that leaves {v} {things}]"
  final = final.replace("{things}", things)
  bad_step = d.pick(range(len(steps)))
  flipped = [
    (a, {"plus": "minus", "minus": "plus"}[op] if i == bad_step else op, b, t) for i, (a, op, b, t) in enumerate(steps)
  ]
  a, _, b, total = steps[bad_step]
  foreign = d.pick(
    [word for word, t in (("times", a * b), ("divided by", a / b if b else -1), ("and not", -1)) if t != total]
  )
  shown = ". ".join(sums)
  slots = {
    **common_slots(d),
    "right": str(right),
    "wrong": wrong,
    "third": third,
    "shown": shown,
    "ideal": f"{shown}. The answer is {right}.",
    "answer": final.replace("{v}", str(right)),
    "wronganswer": final.replace("{v}", wrong),
    "notanswer": f"[the answer is not {right}|{{n}} does not have {right} {things}|it is not {right}"
    f"|the answer isn't {right}]",
    "wrongstep": ". ".join(_sums(_steps(d, bad_step))),
    "wronglast": ". ".join([*sums[:-1], sums[-1].rsplit(" ", 1)[0] + f" {wrong}"]),
    "flipped": ". ".join(_sums(flipped)),
    "times": ". ".join([*sums[:bad_step], sums[bad_step].replace(steps[bad_step][1], foreign), *sums[bad_step + 1 :]]),
    "denied": ". ".join(s.replace(" is ", " is not ") if i == bad_step else s for i, s in enumerate(sums)),
    "things": things,
    "otherthings": d.pick([plural(thing) for thing in THINGS["object"] if plural(thing) != things]),
    "question": ". ".join(sums) + "?",
  }
  slots["good"] = "{shown}. {answer}"
  slots["false"] = "{wronglast}. {wronganswer}"
  return slots


def _joined(d: Draw):
  """First 3 plus 2 is 5. Then 5 minus 1 is 4. So the answer is 4."""
  sums = _sums(
    _steps(d),
    d.pick(["{a} {op} {b} is {t}", "{a} {op} {b} makes {t}", "{a} {sign} {b} = {t}", "{a} {op} {b} equals {t}"]),
  )
  first = d.pick(["first ", "first, ", "to begin with, "]) if len(sums) > 1 else d.pick(["", "first ", "we know that "])
  then = d.pick(["then ", "next ", "after that, ", "next, ", "and then "])
  return d.say(". ".join((first if i == 0 else then) + text for i, text in enumerate(sums)) + ". {answer}.")


def _one_sentence(d: Draw):
  sums = _sums(_steps(d))
  link = d.pick([" and ", ", and ", ", then ", "; ", ", and then "])
  return d.say(link.join(sums) + "[. |, so ]the answer is {right}.")


def _numbered(d: Draw):
  return d.say(" ".join(f"Step {i + 1}: {text}." for i, text in enumerate(_sums(_steps(d)))) + " {answer}.")


def _by_lines(d: Draw):
  return d.say("\n".join(f"{text}." for text in [*_sums(_steps(d)), "{answer}"]))


def _told(d: Draw):
  """Tom has 3 lamps. 3 plus 2 is 5, so Tom has 5 lamps. The answer is 5."""
  steps = _steps(d)
  told = [f"{{n}} has {steps[0][0]} {{things}}"]
  told += [f"{a} {op} {b} is {t}, so {{n}} has {t} {{things}}" for a, op, b, t in steps]
  return d.say(". ".join(told) + ".[ The answer is {right}.|]")


def _steps_in_words(d: Draw):
  return d.say(respelled(d.expand("{good}.")))


REASONING = Grammar(
  _reasoning_slots,
  good={
    **good_values("the answer is that"),
    "linked steps": _joined,
    "one sentence": _one_sentence,
    "numbered steps": _numbered,
    "lines": _by_lines,
    "told with the things": _told,
    "number words": _steps_in_words,
  },
  bad={
    **{
      k: v
      for k, v in BAD.items()
      if k not in ("right or wrong", "wrong or right", "denied and right", "right and denied", "question in return")
    },
    "denial": "{shown}. {notanswer}.",
    "hedge": "{shown}. {hedge} {answer}.",
    "attributed": "{shown}. {source} {answer}.",
    "condition": "{shown}. [if {x} is right, |if it rains, |unless {x} is wrong, |suppose that ]{answer}.",
    "denied step": "{denied}. the answer is {right}.",
    "right and denied": "{good}. {notanswer}.",
    "wrong step": "{wrongstep}. the answer is {right}.",
    "wrong step, with a link": "first {wrongstep}. so the answer is {right}.",
    "wrong last step": "{wronglast}. the answer is {right}.",
    "wrong answer after right steps": "{shown}. {wronganswer}.",
    "wrong operation": "{flipped}. the answer is {right}.",
    "unknown operation": "{times}. the answer is {right}.",
    "alternatives": "{shown}. the answer is [either |]{right} or {wrong}.",
    "alternatives, wrong first": "{shown}. the answer is [either |]{wrong} or {right}.",
    "two answers": "{shown}. the answer is {right}. the answer is {wrong}.",
    "two answers, wrong first": "{shown}. the answer is {wrong}. the answer is {right}.",
    "bound": "{shown}. the answer is " + BOUNDS + " {right}.",
    "wrong noun": "{shown}. {n} has {right} {otherthings}.",
    "wrong person": "{shown}. {x} has {right} {things}.",
    "wrong answer alone": "{wronganswer}.",
    "wrong value in words": lambda d: respelled(d.say("{false}.")),
    "unit of a wrong kind": "{shown}. the answer is {right} [dogs|towns|bakers].",
    "heap of values": "0 1 2 3 4 5 6 7 8 9 10.",
    "steps as questions": "{question} {question} {question}",
  },
)


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
  slots = _statements(d, fill(state, right), fill(deny, right), right, wrong)
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
    "the answer is": "the answer is {aright}.",
  },
  bad={
    **BAD,
    "alternatives": "[{it} is|it is] [either |]{aright} or {awrong}.",
    "alternatives, wrong first": "[{it} is|it is] [either |]{awrong} or {aright}.",
    "two values": "{it} is [{aright} and {awrong}|both {aright} and {awrong}|{awrong} and {aright}].",
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
  return _statements(d, state, deny, right, wrong)


SENTIMENT = Grammar(
  _mood_slots,
  good={
    **good_values(),
    "not the other": "[this sentence is|it is|this is] {right}, not {wrong}.",
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
    **_statements(d, state.replace("{w}", word), deny.replace("{w}", word), right, wrong),
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
    "opposites of each other": "{word} is the opposite of {right}.",
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


# Comparison

GREATER = "[larger than|bigger than|greater than|more than]"
LESS = "[smaller than|less than]"


def _order_slots(d: Draw):
  a, b = d.task.values["a"], d.task.values["b"]
  greater = d.task.kind == "larger"
  right = str((max if greater else min)(int(a), int(b)))
  wrong = b if right == a else a
  kind = d.task.kind
  than, against = (GREATER, LESS) if greater else (LESS, GREATER)
  of = "[larger|bigger|greater]" if greater else "smaller"
  state = (
    "[{v} is "
    + than
    + " {u}|{v} is "
    + than
    + " {u}|the "
    + of
    + " number is {v}|{v} is the "
    + of
    + " number|{v} is "
    + of
  )
  state += "|the answer is {v}|it is {v}|the number {v} is " + of + "]"
  deny = "[{v} is not " + than + " {u}|{v} isn't " + than + " {u}|the " + of + " number is not {v}|{v} is not " + of
  deny += "|{v} is never " + than + " {u}|{v} is no " + of + " than {u}]"
  slots = _statements(d, state.replace("{u}", wrong), deny.replace("{u}", wrong), right, wrong)
  return {
    **slots,
    "false": state.replace("{v}", wrong).replace("{u}", right),
    "ideal": f"{right} is {kind} than {wrong}.",
    "than": than,
    "of": of,
    "against": against,
    "far": str(int(wrong) + 100),
  }


COMPARISON = Grammar(
  _order_slots,
  good={
    **good_values(),
    "number words": lambda d: d.say(respelled(d.expand("{good}."))),
    "of the two": "of the two numbers, {right} is {of}.",
  },
  bad={
    **BAD,
    "alternatives": "[{right} or {wrong} is {of}|the answer is {right} or {wrong}|it is either {right} or {wrong}].",
    "alternatives, wrong first": "[{wrong} or {right} is {of}|the answer is {wrong} or {right}"
    "|it is either {wrong} or {right}].",
    "both": "[both are {of}|{right} and {wrong} are {of}|both {right} and {wrong}|the answer is {right} and {wrong}].",
    "neither": "neither {right} nor {wrong} is {of}.",
    "equal": "[{right} is as large as {wrong}|{right} is equal to {wrong}|{right} is {wrong}|they are equal"
    "|{right} and {wrong} are the same].",
    "wrong way": "{wrong} is {than} {right}.",
    "wrong relation": "{right} is {against} {wrong}.",
    "not right but wrong": "not {right} but {wrong} is {of}.",
    "wrong, not right": "the {of} number is {wrong}, not {right}.",
    "corrected to a wrong value": "the {of} number is {right}, no, {wrong}.",
    "unknown number": "the {of} number is {far}.",
    "wrong value in words": lambda d: respelled(d.say("{false}.")),
    "heap of values": "0 1 2 3 4 5 6 7 8.",
    "another pair": "100 is larger than 99.",
    "wrong unit": "the {of} number is {right} [dogs|towns|lamps].",
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
    "badword": badword,
    "retraction": "{selfretraction}" if word == "no" else common_slots(d)["retraction"],
    "third": third,
    "wrong": wrong,
    "claim": claim,
    "true": true,
    "otherperson": about(STATES[attribute], other, d.pick([v for v in others if v != d.world.facts[other, attribute]])),
    "otherknown": about(STATES[attribute], other, d.world.facts[other, attribute]),
    "wrongvalue": STATES[attribute].replace("{v}", wrong),
    "subject": SUBJECT[attribute],
  }


_SAID_OTHERWISE = {
  "denial of truth", "hedge", "hedge after", "attributed", "condition", "question in return", "wrong or right",
  "right or wrong", "denial", "right and denied", "denied and right", "retracted right, then wrong", "right but wrong",
}  # fmt: skip


def _short_form(d: Draw):
  """Yes, he does. Only for a plain question."""
  if not d.task.prompt.startswith(("Does", "Is")) or d.task.prompt.startswith("Is it true"):
    return None
  verb = {"job": "{p} is", "colour": "it is"}.get(d.task.kind, "{p} does")
  return d.say(f"yes, {verb}." if d.slots["word"] == "yes" else f"no, {verb}[ not|n't].")


def _check_with_pronoun(d: Draw):
  known = d.world.facts[d.task.values["name"], d.task.kind]
  return d.say(f"{d.slots['word']}, " + _pronoun(d).replace("{v}", known) + ".")


VERIFICATION = Grammar(
  _check_slots,
  good={**good_values("the answer is that"), "short form": _short_form, "pronoun": _check_with_pronoun},
  bad={
    **{kind: rule for kind, rule in BAD.items() if kind not in _SAID_OTHERWISE},
    "word against the fact": "{contrary}.",
    "wrong word alone": "{badword}.",
    "both words": "[yes and no|yes. no|no. yes|yes or no|yes, no|maybe yes, maybe no].",
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
