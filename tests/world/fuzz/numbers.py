"""Grammars of the clusters about numbers: sums, word problems and comparison."""

from fuzz.common import BAD, common_slots, good_values, respelled, statements
from fuzz.grammar import Draw, Grammar
from fuzz.words import THINGS, enumerated, in_words, plural

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
    **statements(d, f"[{state}|{state}|{RESULTS}]", deny, str(right), wrong),
    "ideal": f"{a} {kind} {b} is {right}.",
    "third": third,
    "a": a,
    "b": b,
    "c": c,
    "sign": {"plus": "+", "minus": "-"}[kind],
    "named": {"plus": "sum", "minus": "difference"}[kind],
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
    "signs": "[{a}{sign}{b}={right}|{a} {sign} {b} is {right}|{a}{sign}{b} = {right}].",
    "named result": "the {named} is {right}.",
    "sum and answer": "{ideal} [so |]the answer is {right}.",
    "other words": "[you get {right}|we get {right}|{a} {kind} {b} is equal to {right}|{a} {kind} {b} gives {right}"
    "|{right} is the answer"
    "|{a} {kind} {b} comes to {right}|it comes to {right}|the total is {right}].",
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
    "unrelated": str(max(int(number) for step in steps for number in (step[0], step[2], step[3])) + 1),
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


def _deeds(d: Draw):
  """Tom has 3 lamps. He finds 2, so he has 5. He loses 1, so he has 4. The answer is 4."""
  steps = _steps(d)
  deeds = {"plus": "[finds|gets]", "minus": "loses"}
  told = [f"{{p}} {deeds[operation]} {number}, so {{p}} has {total}" for _, operation, number, total in steps]
  return d.say(f"{{n}} has {steps[0][0]} {{things}}. " + ". ".join(told) + ". the answer is {right}.")


def _steps_in_words(d: Draw):
  return d.say(respelled(d.expand("{good}.")))


REASONING = Grammar(
  _reasoning_slots,
  good={
    **good_values("the answer is that"),
    "linked steps": _joined,
    "one sentence": _one_sentence,
    "ends in other words": "{shown}. [thus|therefore|hence|finally|that means|and so][, |] {n} [has|is left with"
    "|ends up with] {right} {things}.",
    "numbered steps": _numbered,
    "lines": _by_lines,
    "told as deeds": _deeds,
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
    "number of things and answer": "{shown}. {n} has {unrelated} {things}. the answer is {right}.",
    "steps of another problem": "50 plus 50 is 100. [100 minus 1 is 99. |]the answer is {right}.",
    "nothing left": lambda d: (
      None if d.slots["right"] == "0" else d.say("{shown}. {n} has no {things}[. |, so ]the answer is {right}.")
    ),
    "more happens": "{shown}. then {n} [finds 2 more|finds 1 more|loses 1]. the answer is {right}.",
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
  slots = statements(d, state.replace("{u}", wrong), deny.replace("{u}", wrong), right, wrong)
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
    "of the two": "[of the two numbers, {right} is {of}|{right} is the {of} of the two"
    "|the {of} of the two is {right}].",
    "of both": "[the {of} of {right} and {wrong}|the {of} of {wrong} and {right}|the {of} one] is {right}.",
    "the one": "[{right} is the one that is {of}|the {of} one is {right}].",
  },
  bad={
    **BAD,
    "alternatives": "[{right} or {wrong} is {of}|the answer is {right} or {wrong}|it is either {right} or {wrong}].",
    "alternatives, wrong first": "[{wrong} or {right} is {of}|the answer is {wrong} or {right}"
    "|it is either {wrong} or {right}].",
    "both": "[both are {of}|{right} and {wrong} are {of}|both {right} and {wrong}|the answer is {right} and {wrong}].",
    "and not": "{right} is {than} {wrong} and not {right}.",
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
