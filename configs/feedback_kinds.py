"""Which kind of feedback teaches a reward model most, and what do bad labellers cost?

  rlhf-jax run --config feedback_kinds --workdir runs/quickstart
  rlhf-jax run --config feedback_kinds:3 --workdir runs/quickstart

The argument is the number of replicates, 1 by default. A replicate has two parts. First, 1000 judgements of each kind
by the quickstart's labellers, one labeller to an item, and 250 of each kind together. Second, 1500 rankings of four by
20 labellers of whom 6 are careless, biased or adversarial, three to an item: as they come, after screening, weighted
by reliability, and both; and 1500 rankings by sound labellers. Every reward model starts from the quickstart's SFT
model, in whose run directory only the judging and the reward models are new. The stages `accuracy_kinds` and
`accuracy_annotators` have the results.

Time: 11 to 17 minutes for a replicate on one CPU core after the quickstart's SFT.

Result: one replicate of one seed: a reward model orders 83 % [80, 86] of the pairs after ratings of four, 81 % [78, 84]
after rankings and 77 % [73, 80] after pairs; 30 % bad labellers do no harm that one replicate would show.
experiments/feedback_kinds has the details.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.reward_from_feedback import accuracy, after_sft, annotators, judgements, optimizer, reward

JUDGEMENTS = 1000
LEARN = {  # label -> (pages that are judged, in equal parts; changes of the reward model's settings)
  "pairs": (("pairs",), dict()),
  "pairs, without margins": (("pairs",), dict(margins=(0.0, 0.0, 0.0))),
  "rankings of 4": (("rankings",), dict()),
  "rankings of 4, Plackett-Luce": (("rankings",), dict(ranking="plackett_luce", margins=(0.0, 0.0, 0.0))),
  "ratings of 4": (("ratings",), dict()),
  "ratings of 4, one scale for all": (("ratings",), dict(per_annotator=False)),
  "single ratings": (("single_ratings",), dict()),
  "a quarter of each kind": (("pairs", "rankings", "ratings", "single_ratings"), dict()),
}
SOUND = dict(expert=1, ordinary=13)
BAD = dict(careless=2, length_biased=1, position_biased=1, adversarial=2)
WEIGHTS = {
  "screened": dict(set_aside=True, reliability=False),
  "weighted": dict(set_aside=False, reliability=True),
  "screened and weighted": dict(set_aside=True, reliability=True),
}


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with `arg` replicates, 1 by default."""
  config = quickstart.get_config()
  new, kinds, people = [], {label: () for label in LEARN}, {}

  def add(name: str, section: ConfigDict) -> str:
    config[name] = section
    new.append(name)
    return name

  for replicate in range(quickstart.count("feedback_kinds", arg, 1)):
    for number, (label, (pages, changes)) in enumerate(LEARN.items()):
      part = "quarter_" if len(pages) > 1 else ""
      sources = [f"{part}{page}_{replicate}" for page in pages]
      for page, source in zip(pages, sources, strict=True):
        if source not in new:
          add(source, judgements(config, page, num=JUDGEMENTS // len(pages), judges=1))
      name = add(f"reward_{number}_{replicate}", reward(config, *sources, optimizer=optimizer(pages), **changes))
      kinds[label] += (name,)
    for crowd, labellers in (("sound", SOUND), ("mixed", {**SOUND, **BAD})):
      add(f"{crowd}_{replicate}", judgements(config, "rankings", num=1500, judges=3, labellers=labellers))
    trained = {
      "30 % bad labellers": add(f"reward_mixed_{replicate}", reward(config, f"mixed_{replicate}")),
      "no bad labellers": add(f"reward_sound_{replicate}", reward(config, f"sound_{replicate}")),
    }
    for label, measures in WEIGHTS.items():
      word = label.replace(" ", "_")
      weights = add(f"annotators_{word}_{replicate}", annotators(f"mixed_{replicate}", **measures))
      learnt = reward(config, f"mixed_{replicate}", weights=weights)
      trained[f"30 % bad, {label}"] = add(f"reward_{word}_{replicate}", learnt)
    for label, name in trained.items():
      people[label] = (*people.get(label, ()), name)
  add("accuracy_kinds", accuracy(config, kinds))
  add("accuracy_annotators", accuracy(config, people))
  return after_sft(config, *new)
