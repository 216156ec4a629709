"""When an item has enough judgements: the rule by which disputed items go to further annotators, and then to an expert.

Annotators agree on an item where their *votes* are equal: the best response (of two responses, A, B or a tie; "both are
bad" is a vote of its own), by ranks or else by ratings; without either, the answers of yes and no; and of one response
that is only rated, ratings that differ by one point at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rlhf_jax.feedback.records import Judgement
from rlhf_jax.feedback.store_settings import Settings


def vote(judgement: Judgement) -> tuple[str, Any] | None:
  """The vote: ("best", (responses, all_bad)), ("yes", answers) or ("rated", rating).

  None where it says nothing of how good the responses are.
  """
  if judgement.ranks is not None:
    ranked = [rank for rank in judgement.ranks if rank >= 0]
    best = tuple(i for i, rank in enumerate(judgement.ranks) if rank == min(ranked))
    return "best", (best, judgement.all_bad)
  ratings = judgement.ratings or ()
  rated = [rating for rating in ratings if rating is not None]
  if len(rated) > 1:
    return "best", (tuple(i for i, rating in enumerate(ratings) if rating == max(rated)), False)
  if judgement.yes_no is not None:
    return "yes", judgement.yes_no
  return ("rated", rated[0]) if rated else None


def num_agreeing(judgements: Sequence[Judgement]) -> int:
  """Number of the judgements in the largest group that agrees."""
  votes = Counter(vote(judgement) for judgement in judgements)
  del votes[None]
  groups = [
    count + (votes[said[0], said[1] + 1] if said[0] == "rated" else 0) for said, count in list(votes.items()) if said
  ]
  return max(groups, default=0)


def still_wanted(settings: Settings, judgements: Sequence[Judgement]) -> tuple[int, bool]:
  """(number of further judgements, whether an expert must settle it) of an item.

  judgements: those that count, one for each annotator, without skips. A final one settles the item.
  """
  num = len(judgements)
  if any(judgement.final for judgement in judgements):
    return 0, False
  if num < settings.judgements_per_item:
    return settings.judgements_per_item - num, False
  if not settings.agreeing or num_agreeing(judgements) >= settings.agreeing:
    return 0, False
  return (1, False) if num < settings.at_most else (0, True)
