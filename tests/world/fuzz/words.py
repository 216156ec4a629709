"""Words of the grammars: kinds of things, opposites, verbs and numbers, written down here, not read from the world."""

THINGS = {
  "animal": ("dog", "cat", "horse", "fox", "hen", "goat", "rabbit", "duck"),
  "food": ("bread", "rice", "soup", "cake", "cheese", "corn", "jam", "honey"),
  "colour": ("red", "blue", "green", "black", "white", "brown", "grey", "yellow"),
  "town": ("Oakford", "Ashby", "Milton", "Elmwood", "Dunmore", "Stowe", "Kirkby", "Harwood"),
  "job": ("baker", "doctor", "farmer", "teacher", "painter", "driver", "singer", "sailor"),
  "object": ("lamp", "cup", "ball", "book", "coin", "key", "hat", "drum"),
}
KIND_OF = {thing: kind for kind, things in THINGS.items() for thing in things}
PLURALS = {"fox": "foxes"}

OPPOSITE = {
  "big": "small", "hot": "cold", "fast": "slow", "happy": "sad", "good": "bad", "old": "new",
  "long": "short", "full": "empty", "rich": "poor", "high": "low", "hard": "soft", "wet": "dry",
  "light": "dark", "loud": "quiet", "clean": "dirty", "strong": "weak",
}  # fmt: skip
OPPOSITE.update({second: first for first, second in list(OPPOSITE.items())})

# present -> past, bare form, form with -ing, a wrong past
VERBS = {
  "sees": ("saw", "see", "seeing", "seed"),
  "finds": ("found", "find", "finding", "finded"),
  "buys": ("bought", "buy", "buying", "buyed"),
  "takes": ("took", "take", "taking", "taked"),
  "paints": ("painted", "paint", "painting", "paint"),
  "moves": ("moved", "move", "moving", "move"),
  "holds": ("held", "hold", "holding", "holded"),
  "drops": ("dropped", "drop", "dropping", "drop"),
}

SHE = {
  "Ann", "Sue", "Eva", "Liz", "Amy", "Meg", "Kim", "Pam", "Ivy", "Zoe", "Fay", "Una", "Bea", "Nan", "Ada", "Ida", "Lea",
  "Eve", "Mia", "Ora", "Tia", "Dot", "Flo", "Joy",
}  # fmt: skip

_ONES = (
  "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
  "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number):
  """6 -> six, 42 -> forty-two, 105 -> one hundred and five; below a thousand."""
  number = int(number)
  if number < 20:
    return _ONES[number]
  if number < 100:
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
  hundreds, rest = divmod(number, 100)
  return f"{_ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")


def plural(noun):
  """dog -> dogs, fox -> foxes."""
  return PLURALS.get(noun, f"{noun}s")


def article(noun):
  """animal -> an animal, dog -> a dog."""
  return ("an " if noun[0] in "aeiou" else "a ") + noun


def named(thing):
  """A thing as one names it: a dog, bread, red, Oakford."""
  return article(thing) if KIND_OF[thing] in ("animal", "job", "object") else thing


def enumerated(items):
  """dog, cat, fox -> dog, cat and fox."""
  return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else items[0]
