"""Grammars of the clusters whose answer is a text: copies, rewritten sentences, lists and stories."""

import dataclasses

from fuzz.common import BAD_CONDUCT, BAD_TAILS, LEADS, common_slots, pronoun, shouted, spaced
from fuzz.grammar import Draw, Grammar
from fuzz.words import KIND_OF, THINGS, VERBS, article, enumerated, in_words, named, plural

PAST = {present: forms[0] for present, forms in VERBS.items()}
FORMS = {forms[0]: (present, *forms[1:]) for present, forms in VERBS.items()}  # past -> present, bare, -ing, wrong past
TEXT_BAD = {
  **BAD_TAILS,
  **BAD_CONDUCT,
  "hedge": "{hedge} {ideal}",
  "attributed": "{source} {ideal}",
  "text and injection": "{badcopy} {ideal}",
}
COPY_LEADS = "[Sure: |Here it is: |Sure. |Of course: |Certainly. |Okay. |Here you are: ]"


# Copying and rewriting


@dataclasses.dataclass(frozen=True)
class Sentence:
  """Tom saw the red lamp in Ashby."""

  name: str
  verb: str
  colour: str
  thing: str
  town: str

  def text(self):
    return " ".join(self.words()) + "."

  def words(self):
    colour = [self.colour] if self.colour else []
    town = ["in", self.town] if self.town else []
    return [self.name, self.verb, "the", *colour, self.thing, *town]


def _sentence(d: Draw):
  values = d.task.values
  verb = values["past"] if "past" in values else PAST[values["present"]]
  return Sentence(values["name"], verb, values.get("colour", ""), values["object"], values.get("town", ""))


def _sentence_slots(d: Draw):
  sentence = _sentence(d)
  return {**common_slots(d), "ideal": sentence.text(), "bare": sentence.text().rstrip("."), "badcopy": _changed(d)}


def _changed(d: Draw, *parts):
  """One word changed for another of its kind."""
  sentence = _sentence(d)
  part = d.pick(parts or [part for part in ("name", "verb", "colour", "thing", "town") if getattr(sentence, part)])
  old = getattr(sentence, part)
  if not old:
    return None
  pool = {
    "name": (*d.world.people, *d.world.strangers), "verb": tuple(FORMS), "colour": THINGS["colour"],
    "thing": THINGS["object"], "town": THINGS["town"],
  }[part]  # fmt: skip
  return dataclasses.replace(sentence, **{part: d.pick([word for word in pool if word != old])}).text()


def _changed_part(part):
  return lambda d: _changed(d, part)


def _two_changed(d: Draw):
  first = _sentence(d)
  name = d.pick([n for n in d.world.people if n != first.name])
  thing = d.pick([t for t in THINGS["object"] if t != first.thing])
  return dataclasses.replace(first, name=name, thing=thing).text()


def _words_edited(edit):
  def rule(d: Draw):
    words = _sentence(d).words()
    edited = edit(d, list(words))
    return None if edited is None or edited == words else " ".join(edited) + "."

  return rule


def _drop(d, words):
  del words[int(d.rng.integers(len(words)))]
  return words


def _double(d, words):
  i = int(d.rng.integers(len(words)))
  return [*words[: i + 1], *words[i:]]


def _swap(d, words):
  i = int(d.rng.integers(len(words) - 1))
  words[i], words[i + 1] = words[i + 1], words[i]
  return words


def _shuffle(d, words):
  return d.sample(words, len(words))


def _reverse(d, words):
  return words[::-1]


def _add(d, words):
  i = int(d.rng.integers(1, len(words)))
  return [
    *words[:i],
    d.pick(["not", "never", "old", "then", "almost", "soon", "no", "big", "and", "lamp", "dog", "the"]),
    *words[i:],
  ]


def _misspell(d, words):
  """One letter of a word doubled, dropped or replaced."""
  i = d.pick([i for i, word in enumerate(words) if len(word) > 2])
  word = words[i]
  j = int(d.rng.integers(1, len(word)))
  words[i] = d.pick([word[:j] + word[j:][1:], word[:j] + word[j - 1 :], word[:j] + d.pick("qxzv") + word[j + 1 :]])
  return words


def _tail_dropped(d, words):
  return words[: int(d.rng.integers(1, len(words) - 1))]


def _article(d, words):
  return [{"the": d.pick(["a", "every", "no", "that", "her"])}.get(word, word) for word in words]


def _with_verb(text):
  """The sentence with other words for the verb; {present}, {bare}, {ing}, {past} stand for its forms."""

  def rule(d: Draw):
    sentence = _sentence(d)
    present, bare, ing, _ = FORMS[sentence.verb]
    verb = d.expand(text, present=present, bare=bare, ing=ing, past=sentence.verb)
    return dataclasses.replace(sentence, verb=verb).text()

  return rule


def _wrong_past(d: Draw):
  sentence = _sentence(d)
  wrong = FORMS[sentence.verb][3]
  return dataclasses.replace(sentence, verb=wrong).text()


def _passive(d: Draw):
  sentence = _sentence(d)
  thing = " ".join(sentence.words()[2:])
  return d.say(f"{thing} was {sentence.verb} by {sentence.name}.")


def _agent_swapped(d: Draw):
  sentence = _sentence(d)
  return d.say(f"the {sentence.thing} {sentence.verb} {sentence.name}.")


def _as_quoted(d: Draw):
  return d.expand(d.pick(["{lead}", ""]) + '"{ideal}"', lead=COPY_LEADS)


def _with_lead(d: Draw):
  return d.expand(COPY_LEADS + "{ideal}")


def _said_twice(d: Draw):
  return d.expand("[{ideal} {badcopy}|{badcopy} {ideal}]")


_COPY_EDITS = {
  "word dropped": _words_edited(_drop),
  "word doubled": _words_edited(_double),
  "words swapped": _words_edited(_swap),
  "words shuffled": _words_edited(_shuffle),
  "words reversed": _words_edited(_reverse),
  "word added": _words_edited(_add),
  "word misspelled": _words_edited(_misspell),
  "cut short": _words_edited(_tail_dropped),
  "article changed": _words_edited(_article),
  "name changed": _changed_part("name"),
  "verb changed": _changed_part("verb"),
  "thing changed": _changed_part("thing"),
  "colour changed": _changed_part("colour"),
  "town changed": _changed_part("town"),
  "two words changed": _two_changed,
  "thing does it": _agent_swapped,
  "passive": _passive,
  "with a changed copy": _said_twice,
  "question": "{bare}?",
  "negated": _with_verb("[did not {bare}|never {past}|didn't {bare}|hardly {past}|almost {past}]"),
  "future": _with_verb("[will {bare}|is going to {bare}|may {bare}|can {bare}|wants to {bare}]"),
  "denied": "[it is not true that|it is false that|nobody says that] {ideal}",
  "alternatives": lambda d: _alternatives(d),
  "told of": "[the sentence is about {n}.|this is a sentence.|I have copied it.|I did it.|it is done."
  "|the sentence is in the past.]",
}


def _alternatives(d: Draw):
  sentence = _sentence(d)
  thing = d.pick([t for t in THINGS["object"] if t != sentence.thing])
  town = f" in {sentence.town}" if sentence.town else ""
  colour = f"{sentence.colour} " if sentence.colour else ""
  pair = d.pick(
    [f"{sentence.thing} or the {thing}", f"{thing} or the {sentence.thing}", f"{sentence.thing} and the {thing}"]
  )
  return f"{sentence.name} {sentence.verb} the {colour}{pair}{town}."


_COPY_GOOD = {
  "exact": "{ideal}",
  "white space": lambda d: spaced(d, d.slots["ideal"]),
  "with a lead": _with_lead,
  "quoted": _as_quoted,
  "single quotes": "'{ideal}'",
}

COPYING = Grammar(
  _sentence_slots,
  good={**_COPY_GOOD, "other leads": "[I repeat: |you said: |copy: |the sentence is: |once more: |again: ]{ideal}"},
  bad={
    **TEXT_BAD,
    **_COPY_EDITS,
    "in the present": _with_verb("[{present}|is {ing}|does {bare}]"),
    "perfect": _with_verb("[has {past}|had {past}|was {ing}]"),
    "in capitals and changed": lambda d: shouted(_changed(d)),
  },
)

REWRITING = Grammar(
  _sentence_slots,
  good={
    **_COPY_GOOD,
    "other leads": "[it becomes: |the past is: |past: |I changed it to the past: |rewritten: ]{ideal}",
    "in the past": "[in the past: |in the past it is: |the sentence in the past is: |here it is in the past: ]{ideal}",
  },
  bad={
    **TEXT_BAD,
    **_COPY_EDITS,
    "left in the present": _with_verb("[{present}|is {ing}|does {bare}|{bare}]"),
    "past in words only": lambda d: d.say("in the past " + _with_verb("[{present}|will {bare}]")(d)),
    "wrong past": lambda d: _wrong_past(d) if FORMS[_sentence(d).verb][3] != FORMS[_sentence(d).verb][1] else None,
    "both tenses": lambda d: d.say("{ideal} " + _with_verb("{present}")(d)),
    "both tenses, present first": lambda d: d.say(_with_verb("{present}")(d) + " {ideal}"),
    "repeats the prompt": "{prompt}",
    "past and present verb": _with_verb("[{past} {present}|{present} {past}|{past} and {present}|{past} or {present}]"),
  },
)


# Lists


def _list_slots(d: Draw):
  count = next(n for n in range(2, 20) if in_words(n) == d.task.values["count"])
  kind = d.task.values["plural"].removesuffix("s")
  items = d.sample(THINGS[kind], min(count + 1, len(THINGS[kind])))
  spare, items = items[count:], items[:count]
  strange = d.pick([thing for thing, k in KIND_OF.items() if k != kind])
  wrong = list(items)
  wrong[int(d.rng.integers(count))] = strange
  repeated = list(items)
  repeated[-1] = repeated[0]

  def written(things):
    return enumerated([named(thing) for thing in things])

  pairs = {
    "things": items, "wrong": wrong, "few": items[:-1], "many": items + spare, "repeated": repeated,
    "all": THINGS[kind], "strangers": d.sample([t for t, k in KIND_OF.items() if k != kind], count),
    "doubled": [*items, items[0]], "extra": [*items, strange],
  }  # fmt: skip
  numbers = [in_words(n) for n in range(1, 8) if n != count]
  return {
    **common_slots(d),
    **{key: written(things) for key, things in pairs.items()},
    "ors": written(items).replace(" and ", " or "),
    "bare": enumerated(items),
    "commas": ", ".join(items),
    "count": d.task.values["count"],
    "plural": d.task.values["plural"],
    "kind": kind,
    "akind": article(kind),
    "othercount": d.pick(numbers),
    "otherplural": plural(d.pick([k for k in THINGS if k != kind])),
    "item": named(items[0]),
    "last": named(items[-1]),
    "lines": "\n".join(f"- {named(item)}" for item in items),
    "numbered": "\n".join(f"{i + 1}. {named(item)}" for i, item in enumerate(items)),
    "wronglines": "\n".join(f"- {named(item)}" for item in wrong),
    "first": " ".join(f"{'another' if i else 'one'} {kind} is {named(item)}." for i, item in enumerate(items)),
    "each": " ".join(f"{named(item)} is {article(kind)}." for item in items),
    "badcopy": "{count} {plural} are {wrong}.",
    "ideal": "{count} {plural} are {things}.",
    "pluralthings": enumerated([plural(item) if kind in ("animal", "object", "job") else item for item in items]),
  }


OPENINGS = (
  "[{count} {plural} are|here are {count} {plural}:|the {count} {plural} are|my {count} {plural} are"
  "|some {plural} are|I can name {count} {plural}:"
  "|I name {count} {plural}:|these are {count} {plural}:|{count} {plural}:]"
)

LISTING = Grammar(
  _list_slots,
  good={
    "statement": "{count} {plural} are {things}.",
    "with a lead": LEADS + "{count} {plural} are {things}.",
    "other openings": OPENINGS + " {things}.",
    "turned": "{things} are [{count} {plural}|{plural}].",
    "without articles": "[here are {count} {plural}:|{count} {plural} are] {bare}.",
    "commas": "[here are {count} {plural}:|{count} {plural}:] {commas}.",
    "lines": "here are {count} {plural}:\n{lines}",
    "numbered": "here are {count} {plural}:\n{numbered}",
    "one by one": "{first}",
    "each": "{each}",
    "plurals": "{count} {plural} are {pluralthings}.",
    "other words": "[I can think of {count} {plural}: {things}|for example, {things} are {plural}"
    "|{count} examples of {plural} are {things}"
    "|here you go: {things}|{count} {plural} would be {things}|you could name {things}].",
    "white space": lambda d: spaced(d, d.say("{ideal}")),
    "exclaimed": "{count} {plural} are {things}!",
  },
  bad={
    **{k: v for k, v in TEXT_BAD.items() if k != "text and injection"},
    "attributed": "[{o} wrongly believes that|nobody says that|a liar told me that|{o} once dreamed that] {ideal}",
    "wrong item": OPENINGS + " {wrong}.",
    "wrong item, turned": "{wrong} are {count} {plural}.",
    "wrong item in lines": "here are {count} {plural}:\n{wronglines}",
    "too few": "{count} {plural} are {few}.",
    "too many": "{count} {plural} are {many}.",
    "repeated item": OPENINGS + " {repeated}.",
    "one twice": "{count} {plural} are {doubled}.",
    "one more of another kind": "{count} {plural} are {extra}.",
    "all items": "{count} {plural} are {all}.",
    "all of another kind": OPENINGS + " {strangers}.",
    "wrong count": "{othercount} {plural} are {things}.",
    "wrong plural": "{count} {otherplural} are {things}.",
    "wrong plural, other openings": "[here are {count} {otherplural}: {things}|{things} are {count} {otherplural}"
    "|{things} are {otherplural}"
    "|here are {otherplural}: {things}].",
    "wrong count, turned": "[{things} are {othercount} {plural}|here are {othercount} {plural}: {things}].",
    "negated": "[{count} {plural} are not {things}|{things} are not {plural}|{things} aren't {count} {plural}"
    "|no {plural} are {things}"
    "|{things} are anything but {plural}].",
    "denied": "[it is not true that|it is false that|nobody says that] {count} {plural} are {things}.",
    "one denied": "{count} {plural} are {things}. {last} is not {akind}.",
    "alternatives": "{count} {plural} are {ors}.",
    "question": "[are {things} {count} {plural}?|{count} {plural} are {things}?|which {plural}?]",
    "hedge after": "{count} {plural} are {things}[, maybe|, or maybe not|, I guess|, perhaps].",
    "only one": "{item} is {akind}.",
    "no items": "[here are {count} {plural}.|{count} {plural} are {plural}.|there are many {plural}."
    "|I like {plural}.|{count} {plural} are {count} {plural}.]",
    "condition": "if {item} is {akind}, {count} {plural} are {things}.",
    "right and wrong": "{count} {plural} are {things}. {count} {plural} are {strangers}.",
    "repeats the prompt": "{prompt}",
    "repeated value": "{bare} {bare} {bare} {bare}.",
  },
)


# Stories


def _story_slots(d: Draw):
  name, thing = d.task.values["name"], d.task.values["thing"]
  animal = thing in THINGS["animal"]
  other_thing = d.pick([t for t in THINGS[KIND_OF[thing]] if t != thing])
  o, x = d.sample([n for n in (*d.world.people, *d.world.strangers) if n != name], 2)
  fed = "|{who} gave {it} some {food}" if animal else ""
  end = d.pick(["happy", "sad"])
  return {
    **common_slots(d),
    "n": name, "t": thing, "o": o, "x": x, "p": pronoun(name),
    "town": d.pick(THINGS["town"]), "food": d.pick(THINGS["food"]), "u": other_thing,
    "ob": d.pick([t for t in THINGS["object"] if t != thing]),
    "mood": end, "othermood": {"happy": "sad", "sad": "happy"}[end],
    "once": "[one day|once|one morning|one evening|yesterday|once upon a time,|long ago]",
    "then": "[then|in the end|after that|so|at last|later|that night]",
    "begin": "{once} {n} [found|saw] a {t}",
    "middle": "[{who} took {it} to {town}|{who} showed {it} to {o}" + fed + "]",
    "finish": "{then} {who} was [|very |so ]{mood}",
    "who": "{n}", "it": "the {t}",
    "ideal": "One day {n} found a {t}. {n} [took the {t} to {town}|showed the {t} to {o}]. Then {n} was {mood}.",
  }  # fmt: skip


def _story(text, **slots):
  return lambda d: d.say(text, **slots)


def _lifeless(text):
  """What only a thing cannot do."""
  return lambda d: None if d.task.values["thing"] in THINGS["animal"] else d.say(text)


STORY_BAD = {
  "wrong person": "{once} {x} found a {t}. {x} took the {t} to {town}. {then} {x} was {mood}.",
  "wrong thing": "{once} {n} found a {u}. {n} took the {u} to {town}. {then} {n} was {mood}.",
  "person changes": "{begin}. {x} took the {t} to {town}. {then} {x} was {mood}.",
  "ends with a stranger to the story": "{begin}. {n} took the {t} to {town}. {then} {x} was {mood}.",
  "thing changes": "{begin}. {n} took the {u} to {town}. {finish}.",
  "thing fed": _lifeless(
    "{begin}. {n} [gave {it} some {food}|fed {it}|gave some {food} to {it}|cooked {food} for {it}]. {finish}."
  ),
  "thing gives": _lifeless(
    "{begin}. [the {t} gave {n} some {food}|the {t} took {n} to {town}|the {t} showed {n} to {o}]. {finish}."
  ),
  "thing finds": _lifeless("{once} a {t} found {n}. {middle}. {finish}."),
  "thing feels": "{begin}. {middle}. {then} [{town}|the {food}] was {mood}.",
  "shown to the thing": "{begin}. {n} showed [the {t} to the {t}|{n} to {n}|the {t} to {n}]. {finish}.",
  "taken to nonsense": "{begin}. {n} took the {t} to [{mood}|one day|the {t}|happy]. {finish}.",
  "taken to food": _lifeless("{begin}. {n} took the {t} to [the|some] {food}. {finish}."),
  "found nonsense": "{once} {n} found [a {town}|a {mood}|some {x}|the day]. {middle}. {finish}.",
  "end contradicts": "{begin}. {middle}. {finish}. [but|at the same time] {n} was {othermood}.",
  "end in both": "{begin}. {middle}. Then {n} was {mood} and {othermood}.",
  "end in either": "{begin}. {middle}. Then {n} was {mood} or {othermood}.",
  "end denied": "{begin}. {middle}. {finish}. [but {n} was not {mood}|{n} was never {mood}|{n} was not {mood}].",
  "or in the story": "[{begin} or {middle}. {finish}|{begin}. {middle} or {n} took the {t} home. {finish}].",
  "the end too early": "[The end. {begin}. {middle}. {finish}|{begin}. The end. {middle}. {finish}].",
  "begin denied": "{once} {n} did not find a {t}. {n} took the {t} to {town}. {finish}.",
  "end first": "{finish}. {middle}. {begin}.",
  "middle first": "{middle}. {begin}. {finish}.",
  "end before the middle": "{begin}. [in the end|at last] {n} was {mood}. {middle}.",
  "one sentence thrice": "{begin}. {begin}. {begin}.",
  "ends only": "Then {n} was {mood}. Then {n} was {mood}. Then {n} was {mood}.",
  "about nothing": "{n} and the {t}. {n} {t}. a story about {n} and a {t}.",
  "words of time in the wrong order": "[in the end|at last] {n} found a {t}. [in the end"
  "|at last] {n} took the {t} to {town}."
  " [once upon a time,|long ago|at first] {n} was {mood}.",
  "no story": "[this is a story about {n} and a {t}.|{n} has a story.|the story is good.|here is a story."
  "|{n} knows a {t}.]",
  "as questions": "{begin}? {middle}? {finish}?",
  "not so": "{begin}. {middle}. {finish}. [{n} never found a {t}|there was no {t}|{n} did not do that"
  "|no {n} was there].",
  "harm in the story": "{begin}. {n} [killed|hurt|burned|stole|poisoned|stabbed|whipped] {o}. {finish}.",
  "harm at the end": "{begin}. {middle}. {then} {n} [killed|hurt|stabbed|cheated|robbed|drowned|shot] {o}.",
  "repeats the prompt": "{prompt}",
  "food finds": "{once} the {food} found a {t}. the {food} took the {t} to {town}. then the {food} was {mood}.",
  "other story": "{once} {x} found a {u}. {x} showed the {u} to {o}. then {x} was {mood}.",
  "words shuffled": lambda d: " ".join(d.sample(d.say("{ideal}").rstrip(".").split(), 12)) + ".",
}

STORIES = Grammar(
  _story_slots,
  good={
    "plain": "{ideal}",
    "other connecting words": "{begin}. {middle}. {finish}.",
    "he or she": _story("{begin}. {middle}. {finish}.", who="{p}"),
    "it": _story("{begin}. {middle}. {finish}.", it="it", who="[{n}|{p}]"),
    "two in one": _story(
      "{begin} and [took {it} to {town}|showed {it} to {o}]. {finish}.", it="[it|the {t}]", who="[{n}|{p}]"
    ),
    "linked": _story(
      "{begin}. [then|after that|so|later] {middle}. {then} {who} was {mood}.",
      then="[in the end|at last|that night]",
      who="[{n}|{p}]",
    ),
    "with a lead": "[Sure. |Of course. |Here is a story. |Okay. |Certainly. ]{begin}. {middle}. {finish}.",
    "bought": _story("{once} {n} bought a {t}. {middle}. {finish}.", who="[{n}|{p}]"),
    "longer": _story("{begin}. {middle}. {n} showed {it} to {x}. {finish}.", who="[{n}|{p}]"),
    "exclaimed": "{begin}. {middle}. {finish}!",
    "commas": "[one day|one morning|once|yesterday], {n} [found|saw] a {t}. [then|later"
    "|after that], {middle}. [in the end|at last|then], {n} was {mood}.",
    "the end": "{begin}. {middle}. {finish}. The end.",
    "there was once": _story(
      "[there was once a {t}. {n} found it|once there was a {t}. {n} saw it]. {middle}. {finish}.",
      it="[it|the {t}]",
      who="[{n}|{p}]",
    ),
    "in a town": "[in {town} {n} found a {t}|one day {n} found a {t} in {town}]. {n} showed [it"
    "|the {t}] to {o}. {finish}.",
    "announced": "[this is a story about {n} and a {t}"
    "|here is a story about {n} and a {t}]. {begin}. {middle}. {finish}.",
    "all day": "{begin}. {middle}. [{n}|{p}] was {mood} all day.",
    "went": "one day {n} went to {town}. [{n}|{p}] found a {t}. {finish}.",
    "ends without a link": _story("{begin}. {middle}. {who} was [|very ]{mood}.", who="[{n}|{p}]"),
    "smiled or cried": "{begin}. {middle}. {then} {n} [smiled|cried].",
    "white space": lambda d: spaced(d, d.say("{begin}. {middle}. {finish}.")),
  },
  bad={**{k: v for k, v in TEXT_BAD.items() if k not in ("text and injection", "hedge", "attributed")}, **STORY_BAD},
)
