"""Forms of statements, in the notation of `language.phrases`: how facts, sums and other claims are put into words.

The words are plain (`language.plain`): "are" is "is", "Tom's pet" is "the pet of tom", "five" is "5". {p} stands for a
person, {v} for a word that may have an article, {n} and {m} for numbers.
"""

from rlhf_jax.world.facts import CATEGORIES, OBJECTS

# A denial turns a whole piece into its contrary, and a hedge makes it uncertain.
AFFIRMATIONS = """
  [it|this] is [a fact|true|right|correct|certain|clear|well known|known] that
  the [right |correct ]?[answer|fact|truth] is that
  [i|we] [know|see|find|can say|can tell you|would say|can see|is sure|is certain][ that]?
"""
DENIALS = "[it|this] is [not [true|right|correct|the case|so]|false|wrong|untrue|incorrect|a lie] that"
DOUBTS = "[i|we] does not [think|believe][ that]? | [i|we] doubt[ that]?"
OPINIONS = """
  [i|we] [think|believe|guess|suppose|feel|assume|imagine|expect|suspect|reckon|hope|heard|hear|read
    |is told|was told
    |is not sure[ if| that]?][ that]?
  it [seems|appears|looks|may is|might is|could is|is possible|is likely|is said][ like| as if]?[ that]?
  {word} [says?|said|thinks?|thought|believes?|claims?|claimed|told me|tells me|guess|guesses][ that]?
"""
HEDGES = """
  maybe | perhaps | possibly | probably | likely | presumably | apparently | supposedly | allegedly | might | may
  could | about
  around | roughly | approximately | almost | nearly | seemingly | hopefully | conceivably | arguably | mostly | partly
  sometimes | usually | somewhat | either
"""

FACTS = {
  "home": """
    {p} [lives|is living|resides|stays|has [a|the|he's] home|is at home|makes [a|the] home] in [the town [of ]?]?{v}
    {p} has [a|the] house in {v} | you can find {p} at home in {v}
    {p} [is|comes?] from {v} | {p} calls {v} home | where {p} lives is {v}
    the [home|home town|town|house|place|residence][ town]? of {p} is [in |at |called ]?[the town [of ]?]?{v}
    the [town|place][ where| in which| that]? {p} lives[ in]? is {v} | [in ]?{v} is where {p} lives
    {v} is the [home|home town|town|place|residence] of {p}
    {v} is the [town|place][ where| in which| that]? {p} lives[ in]?
  """,
  "job": """
    {p} [works? as|is employed as|has work as|has a job as|is working as|has the job of|does the work of
      |earns a living as
      |makes a living as|is by trade] {v}
    {p} is {v}[ by trade| by profession| by job]? | what {p} [does|works? as] is {v}
    all day {p} does the work of {v} | {p} learned to is {v}
    the [job|work|profession|occupation|trade] of {p} is [that of ]?{v}
    {v} is the [job|work|profession|occupation|trade] of {p}
    the [job|work|profession|occupation|trade][ that]? {p} [has|does] is [that of ]?{v}
  """,
  "animal": """
    {p} [has|has got|keeps|owns] [a pet ]?{v}[ as [a|the|he's] pet]? | {v} is the [pet|animal] of {p}
    {p} feeds {v} at home
    the [pet|animal|pet animal|kind of pet|pet or animal] of {p} is {v}
    the [pet|animal|kind of pet|kind of animal][ that]? {p} [has|keeps|owns] is {v}
  """,
  "colour": """
    the [pet|animal|pet animal] of {p} [is|has the colour|is coloured|is of the colour] {v}[ in colour]?
    the colour of the [pet|animal] of {p} is {v} | the [pet|animal] of {p} has {v} [fur|colour|coat]
    {v} is the colour of the [pet|animal] of {p} | {p} [has|keeps|owns] {v} [pet|animal]
    {p} has a pet that is {v} | you can see {v} pet of {p}
    the colour of the [pet|animal][ that]? {p} [has|keeps|owns] is {v}
  """,
  "food": """
    {p} [likes|loves|enjoys|prefers|is fond of][ to eat| eating]? {v}[ best| most| the most| the best]?
    the favourite[ food| thing to eat]? [of|that] {p}[ has]? is {v} | {v} is the favourite[ food]? of {p}
    {p} eats {v} every day | the best food for {p} is {v}
    the food of {p}[ best| most| the most]?[ to eat]? is {v}
    [what|the food[ that]?] {p} [likes|loves][ best| most| the most]?[ to eat]?[ best| most| the most]? is {v}
    {v} is [what|the food|the food that] {p} [likes|loves][ to eat]?
  """,
  "friend": """
    the[ best]? friend of {p} is[ called]? {v} | {v} is [the|a][ best]? friend of {p} | {p} has a friend[ called]? {v}
    {p} is friends with {v}
  """,
}
_COLOUR, _ANIMAL = (rf"(?P<{name}>{'|'.join(CATEGORIES[name])})" for name in ("colour", "animal"))
COLOURED_PET = f"""
  {{p}} [has|keeps|owns] [a |an ]?{_COLOUR} [pet ]?{_ANIMAL}[ as [a|the|he's] pet]?
  the pet of {{p}} is [a |an ]?{_COLOUR} {_ANIMAL} | the [pet ]?{_ANIMAL} of {{p}} is {_COLOUR}[ in colour]?
  the colour of the [pet ]?{_ANIMAL} of {{p}} is {_COLOUR} | [it is ]?[a |an ]?{_COLOUR} {_ANIMAL}
"""

IS = """[is|equals|makes|gives|is equals to|comes to|adds up to|is the same as|results in|leaves|totals|would is
  |is just]"""
SUMS = f"""
  [the [answer|result|value|total|solution] [of|to] ]?{{sum}} {IS} {{v}}
  {{v}} [is|equals|is equals to|is what you get from|is the [answer|result|sum|value|total] [of|to]] {{sum}}
"""
ADDITIONS = f"""
  the [sum|total] of {{n}} and {{m}} {IS} {{v}} | {{v}} is the [sum|total] of {{n}} and {{m}}
  {{n}} and {{m}}[ together| in all]? {IS} {{v}} | [you|we] gets? {{v}} [if|when] [you|we] add {{n}} [and|to] {{m}}
  [if you |when you ]?[add|adding|putting] {{n}} [and|to|with] {{m}}[ together]? [you get|{IS}] {{v}}
"""
SUBTRACTIONS = f"""
  the difference [between|of] {{n}} and {{m}} {IS} {{v}} | {{v}} is the difference [between|of] {{n}} and {{m}}
  [if you |when you ]?[take|taking|subtract|subtracting] {{m}} [away ]?from {{n}} [you get|{IS}] {{v}}
  {{m}} [taken |subtracted |taken away ]?from {{n}} {IS} {{v}}
"""

# What a word problem tells: somebody finds or loses a number of things.
DEED = """
  {owner} [(?P<minus>loses|lost|drops|dropped|gives away|gave away)|finds|found|buys|bought|gets
    |got] (?P<value>[0-9]{1,9})[ (?P<unit>%s)s?]?[ more]?
""".replace("%s", "|".join(OBJECTS))

LARGER, SMALLER = "[larger|bigger|greater|higher|more]", "[smaller|less|lower]"
ORDER = "{n} [is|is a] %s[ number]? than {m}"
_OF_BOTH = "[ of the 2| of the 2 numbers| of both| [of|out of|from|between] {n} and {m}]?"
EXTREME = f"""
  the %s[ number| 1| one]?{_OF_BOTH} is {{v}} | {{v}} is the %s[ number| 1| one]?{_OF_BOTH} | {{v}} is %s
  [of|out of|between|from] [the 2[ numbers]?|{{n}} and {{m}}] {{v}} is [the ]?%s[ number| 1| one]?
  {{v}} is the [1|one|number][ that is]? %s
"""

OPPOSITE = """
  the [opposite|antonym][ word]? [of|to][ the word]? {w} is[ the word]? {v} | {v} is[ the]? opposite [of|to] {w}
  {v} is the [opposite|antonym][ word]? of[ the word]? {w} | {w} and {v} is opposites[ of each other]?
  the word[ that is]? opposite [of|to] {w} is {v}
"""
CLASS = """
  [an? |the |being an? |all |every |each |any ]?{w} is [an? |some |1 (?=kind|type|sort)|{counted} ]?[[kinds?|types?
    |sorts?] of [an? ]?]?{v}
  [an? |the ]?{w} [is|belongs|belong] [1 of|one of|among|to] [the ]?{v}
"""
EXAMPLE = (
  f"[1|another|the [first|second|third|fourth|fifth|other|next|last]] (?P<category>{'|'.join(CATEGORIES)}) is {{v}}"
)

_UNIT = f"(?P<unit>{'|'.join(OBJECTS)})s?"
_HOW_MANY = "(?P<value>[0-9]{1,9}|no)"
_LEFT = "[ left| now| in all| in total| altogether| remaining| at the end| over]*"
COUNT = f"""
  [{{owner}}|there] [then |now |still ]?[has|had|is|was|holds|keeps|ends up with|is left with
    |will has] [only ]?{_HOW_MANY}[
    | {_UNIT}| of them][ is]?{_LEFT}
  [that [makes|leaves]|the [number|rest] is] [only ]?{_HOW_MANY}[| {_UNIT}| of them]{_LEFT}
  {_HOW_MANY} {_UNIT}[ [is|remain|was]]?{_LEFT} | {_HOW_MANY}[ [is|remain|was]]?[ left| remaining]+
"""

# What the answer may be called, by cluster or by the attribute asked for.
CALLED = {
  "": ("", "answer"),
  "arithmetic": ("result", "total", "value", "number", "solution", "sum", "difference"),
  "reasoning": ("result", "total", "value", "number", "solution", "sum", "difference"),
  "comparison": ("number", "value"),
  "classification": ("kind", "kind of thing", "category", "type"),
  "sentiment": ("sentence", "text", "mood", "feeling", "tone"),
  "opposites": ("opposite", "opposite word", "word"),
  "home": ("home", "town", "place"),
  "job": ("job", "work", "profession"),
  "animal": ("pet", "animal", "kind of pet"),
  "colour": ("colour", "pet"),
  "food": ("food", "favourite", "favourite food"),
  "friend": ("friend", "name", "best friend"),
}
_CALLED = "(?P<called>" + "|".join(sorted({noun for nouns in CALLED.values() for noun in nouns if noun})) + ")"
ANSWER = f"""
  [it|that|this|[the|this|that|my][ right| correct| final| best]? {_CALLED}][ [of|to] [it|this|that|the question
    |the sum]]? {IS}[ called| in| at]? {{v}}
  [i|you|we] gets? {{v}} | i [say|answer|get|choose|pick|would call it] {{v}}
  {{v}} is [it|the [right |correct |final ]?answer|what you get]
"""
MOOD = """
  [it|that|this|this one|[the|this] [sentence|text|mood|feeling|tone]] [is|sounds|feels|seems] {v}[ 1| one| sentence
    | thing
    | text| mood]?
"""
VALUE = "[in |at |from |as ]?{v}"
