"""A small set of feedback that has everything in it, made by hand."""

from rlhf_jax.feedback.records import UNDONE, Annotator, Item, Judgement, Response

SAMPLED = {"checkpoint": "runs/a/ppo", "sampling": {"temperature": 1.0, "seed": 0}}
PAIR = Item("pair", "Where does Max live?", (Response("Oakford.", SAMPLED), Response("Nowhere.", {"file": "b.jsonl"})))
TRIPLE = Item("triple", 'Say\n"hi" \u2028 ☃', tuple(Response(text, SAMPLED) for text in ("hi", "=1+1", "hé")))
GOLD = Item("gold", "Is 2 + 2 = 4?", (Response("Yes."), Response("No.")), (0, 1))
ITEMS = [PAIR, TRIPLE, GOLD]
ANNOTATORS = [Annotator("ann"), Annotator("bob", "simulated"), Annotator("eve", "model", expert=True)]
JUDGEMENTS = [
  Judgement("j1", "pair", "ann", (1, 0), ranks=(0, 1), strength=3, seconds=4.25, guidelines="v1",
            created="2026-11-23T10:00:00.000Z"),
  Judgement("j2", "triple", "ann", (2, 0, 1), ratings=(7, None, 3), ranks=(0, 2, 1), flags=((), ("harmful",), ()),
            critiques=("", "wrong", ""), rewrites=("", "1 + 1 is 2", "")),
  Judgement("j3", "triple", "bob", (0, 1, 2), ranks=(0, 0, -1), yes_no=(True, False, None)),
  Judgement("j4", "pair", "bob", (0, 1), ranks=(0, 1), strength=1),
  Judgement("j5", "pair", "bob", (0, 1), skipped=UNDONE, supersedes="j4"),
  Judgement("j6", "pair", "bob", (0, 1), ranks=(1, 1), supersedes="j5"),
  Judgement("j7", "gold", "ann", (0, 1), skipped="I cannot tell"),
  Judgement("j8", "gold", "eve", (1, 0), ratings=(6, 1)),
]  # fmt: skip
RECORDS = (ANNOTATORS, ITEMS, JUDGEMENTS)
