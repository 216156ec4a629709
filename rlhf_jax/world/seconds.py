"""The time that a simulated labeller takes for a page beside looking at the responses: prompt, answers, typed words.

The time of looking, reading the responses and checking them, is that of the noisy look (`labellers.perceive`). The
whole is what the annotation page records as the seconds of a judgement. The figures, and where they come from:

- Reading a prompt once, at 238 words a minute: the mean of silent reading of English non-fiction over 190 studies
  (Brysbaert 2019, https://doi.org/10.1016/j.jml.2019.104047).
- An answer is to prepare mentally, point and press: 1.35 s, 1.10 s and 0.20 s, operators of the keystroke-level model
  (Card, Moran and Newell 1980, https://doi.org/10.1145/358886.358895). Sending the page is to point and press.
- Typing 52 words a minute: the mean of 168,000 volunteers who copied sentences (Dhakal et al. 2018,
  https://doi.org/10.1145/3173574.3174220); moving the hands to the keyboard and back takes 0.40 s each way.

Assumptions: a rating, an answer of yes or no, and a place in a ranking take the same time; a preference between two
responses is one answer, with its strength, as the page asks both with one button; deciding that there is nothing to
criticise takes the mental preparation alone; composing a critique is as fast as copying text.

Published times of whole judgements, for comparison: 36.8 s for a pair of answers of instruction-following models
(AlpacaEval, on the data of Dubois et al., arXiv 2305.14387), 3.6 s for a pair of clips of one to two seconds (5,000
labels in 5 hours: Christiano et al. 2017, arXiv 1706.03741).
"""

from collections.abc import Collection, Sequence

READING = 60 / 238  # seconds a word
PREPARING = 1.35
POINTING = 1.10
PRESSING = 0.20
ANSWERING = PREPARING + POINTING + PRESSING
MOVING_HANDS = 0.40
TYPING = 60 / 52  # seconds a word


def answering_seconds(kinds: Collection[str], num: int, critiques: Sequence[str] | None = None) -> float:
  """Seconds of answering and sending a page of `num` responses, typed critiques included, at a pace of 1.

  kinds: opinions asked for, of "ranks", "ratings" and "yes_no". critiques: of each response, "" for none; None where
  critiques are not asked for.
  """
  answers = {"ranks": 1 if num == 2 else num, "ratings": num, "yes_no": num}
  seconds = POINTING + PRESSING + ANSWERING * sum(answers[kind] for kind in kinds)
  for text in critiques or ():
    seconds += PREPARING + (2 * MOVING_HANDS + TYPING * len(text.split()) if text else 0.0)
  return seconds


def prompt_seconds(prompt: str) -> float:
  """Seconds of reading the text of a prompt once, at a pace of 1."""
  return READING * len(prompt.split())
