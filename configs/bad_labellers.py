"""What do bad labellers cost a reward model, and does weighing annotators win it back?

  rlhf-jax run --config bad_labellers    --workdir runs/quickstart --config.seed=1
  rlhf-jax run --config bad_labellers:10 --workdir runs/quickstart --config.seed=1

The argument is the number of replicates, 5 by default. A replicate draws three sets of rankings of four, three
labellers to an item, twice: 1500 judgements, where the crowd with bad labellers has 30 % of them (the one of the recipe
feedback_kinds), and 300 judgements, where it has half. From each crowd with bad labellers a reward model learns all
judgements alike and another one weighs annotators by their learnt reliability; a third learns as many judgements by
sound labellers. Every reward model starts from the quickstart's SFT model, in whose run directory only the judging and
the reward models are new. The stage `accuracy_bad_labellers` has the results, which experiments/bad_labellers reads.

Time: about 5 minutes for a replicate on one CPU core after the quickstart's SFT.

Result: see experiments/bad_labellers.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.feedback_kinds import BAD, SOUND
from rlhf_jax.configs.reward_from_feedback import accuracy, after_sft, annotators, judgements, reward

HALF_BAD = dict(expert=1, ordinary=9, careless=4, length_biased=1, position_biased=1, adversarial=4)
STUDIES = {  # name -> (number of judgements, labellers with bad ones among them, sound labellers)
  "many": (1500, {**SOUND, **BAD}, SOUND),
  "few": (300, HALF_BAD, SOUND),
}


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with `arg` replicates, 5 by default."""
  config = quickstart.get_config()
  new, groups = [], {f"{study}, {arm}": () for study in STUDIES for arm in ("bad", "weighted", "sound")}

  def add(name: str, section: ConfigDict) -> str:
    config[name] = section
    new.append(name)
    return name

  for replicate in range(quickstart.count("bad_labellers", arg, 5)):
    for study, (num, bad, sound) in STUDIES.items():
      end = f"{study}_{replicate}"
      for crowd, labellers in (("bad", bad), ("sound", sound)):
        add(f"{crowd}_{end}", judgements(config, "rankings", num=num, judges=3, labellers=labellers))
      weights = add(f"annotators_{end}", annotators(f"bad_{end}", set_aside=False))
      for arm, section in (
        ("bad", reward(config, f"bad_{end}")),
        ("weighted", reward(config, f"bad_{end}", weights=weights)),
        ("sound", reward(config, f"sound_{end}")),
      ):
        groups[f"{study}, {arm}"] += (add(f"reward_{arm}_{end}", section),)
  add("accuracy_bad_labellers", accuracy(config, groups))
  config.accuracy_bad_labellers.update(num_prompts=800, contrasts="")
  return after_sft(config, *new)
