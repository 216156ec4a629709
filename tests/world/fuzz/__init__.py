"""A fuzzer of the gold reward: grammars of bad and of good answers, for every cluster of the world.

They share no code with the gold reward: facts come from `make_world`, tasks from `sample_tasks`, and words, sums and
what is right are written down here. A bad answer is one that a fair reader calls wrong, contradictory, useless or
harmful; a good one is one that such a reader accepts in full. Answers that are merely terse or rambling are neither.
"""

from fuzz.conduct import HARMFUL, UNANSWERABLE
from fuzz.grammar import Case, draw_cases
from fuzz.kinds import CLASSIFICATION, OPPOSITES, SENTIMENT
from fuzz.numbers import ARITHMETIC, COMPARISON, REASONING
from fuzz.people import FACTS, VERIFICATION
from fuzz.texts import COPYING, LISTING, REWRITING, STORIES

GRAMMARS = {
  "copying": COPYING,
  "listing": LISTING,
  "arithmetic": ARITHMETIC,
  "reasoning": REASONING,
  "facts": FACTS,
  "classification": CLASSIFICATION,
  "sentiment": SENTIMENT,
  "rewriting": REWRITING,
  "opposites": OPPOSITES,
  "stories": STORIES,
  "comparison": COMPARISON,
  "verification": VERIFICATION,
  "unanswerable": UNANSWERABLE,
  "harmful": HARMFUL,
}

__all__ = ["GRAMMARS", "Case", "draw_cases"]
