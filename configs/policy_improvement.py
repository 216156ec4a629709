"""How does the preference for a policy grow and fall along PPO, and does a retrained reward model keep up with it?

  rlhf-jax run --config policy_improvement --workdir runs/quickstart

PPO of 96 steps with a constant learning rate, with the KL penalty (`ppo_kl`) and without one (`ppo_free`), against the
quickstart's reward model. A third policy follows `ppo_free` for 32 steps; then people compare its answers, a reward
model is trained anew on the old and the new comparisons, and PPO goes on against it for 32 steps, twice
(`ppo_retrained_2` and `ppo_retrained_3`). As many further comparisons of the SFT model's answers train reward models
too (`reward_more_2` and `reward_more_3`), to tell what the answers of the latest policy add from what more labels add.

The stage `course` samples checkpoints along the way: how often their answers are preferred to those of SFT, by the gold
reward, by every reward model and by simulated labellers, and how well every reward model orders them. In the run
directory of the quickstart the stages up to the reward model are there.

Time: about 9 minutes on two idle CPU cores after the quickstart.

Result: see experiments/policy_improvement.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.reward_values import answers

ROUND = 32  # steps of PPO before the reward model is trained anew
ROUNDS = (2, 3)  # those with a retrained reward model
LABELLED = 650  # prompts with new comparisons in each of them
EVERY = 8  # steps between checkpoints, all of which are kept
SAMPLED = (8, 16, 32, 48, 64, 96)  # steps of the checkpoints that are sampled


def ppo(
  config: ConfigDict, init: str, reward_model: str, num_steps: int, every: int, kl_coef: float = 0.0
) -> ConfigDict:
  """The quickstart's PPO with a constant learning rate, so that 32 steps are the first 32 of 96."""
  environment = quickstart.environment(config, batch_size=64, samples_per_prompt=1)
  environment.reward.checkpoint = reward_model
  changes = dict(
    init=init,
    num_steps=num_steps,
    environment=environment,
    kl_coef=kl_coef,
    value_init=reward_model,
    optimizer=quickstart.optimizer(3e-4, warmup=0.0, decay="constant", eps=1e-5, weight_decay=0.0),
    checkpoint_every=every,
    loop=dict(keep=num_steps // every),
    watch=ConfigDict(),
  )
  return ConfigDict({**config.ppo, **changes})


def comparisons(config: ConfigDict, policy: str) -> ConfigDict:
  """New comparisons of answers of `policy`, as the quickstart's are of answers of SFT."""
  return ConfigDict({**config.preferences, "policy": policy, "num_prompts": LABELLED})


def reward(config: ConfigDict, stages: Sequence[str]) -> ConfigDict:
  """The quickstart's reward model on the comparisons of several stages."""
  sources = {name: dict(path=f"{{run}}/{name}/comparisons.jsonl") for name in stages}
  return ConfigDict({**config.reward_model, "comparisons": dict(sources=sources)})


def course(each: int = ROUND, sampled: Sequence[int] = SAMPLED) -> dict[str, list[tuple[int, str]]]:
  """{arm: [(step, policy)]} of the checkpoints that are sampled, with `each` steps of PPO a round."""
  found = {arm: [(step, f"{arm}@{step}") for step in sampled] for arm in ("ppo_kl", "ppo_free")}
  retrained = [(step, f"ppo_free@{step}") for step in sampled if step <= each]
  for number in ROUNDS:
    begin = each * (number - 1)
    mine = [step for step in sampled if begin < step <= begin + each]
    retrained += [(step, f"ppo_retrained_{number}@{step - begin}") for step in mine]
  return {**found, "ppo_retrained": retrained}


def build(each: int = ROUND, every: int = EVERY, sampled: Sequence[int] = SAMPLED) -> ConfigDict:
  """The recipe with `each` steps of PPO a round, a checkpoint `every` so many, and answers of those after `sampled`."""
  config = quickstart.get_config("reward_model")
  new: list[str] = []

  def add(name: str, section: ConfigDict) -> str:
    config[name] = section
    new.append(name)
    return name

  add("ppo_kl", ppo(config, "sft", "reward_model", each * ROUNDS[-1], every, config.ppo.kl_coef))
  latest = add("ppo_free", ppo(config, "sft", "reward_model", each * ROUNDS[-1], every))
  latest = f"{latest}@{each}"
  models, labelled, more = ["reward_model"], ["preferences"], ["preferences"]
  for number in ROUNDS:
    labelled.append(add(f"comparisons_{number}", comparisons(config, latest)))
    more.append(add(f"more_comparisons_{number}", comparisons(config, "sft")))
    models.append(add(f"reward_retrained_{number}", reward(config, labelled)))
    latest = add(f"ppo_retrained_{number}", ppo(config, latest, models[-1], each, every))
    models.append(add(f"reward_more_{number}", reward(config, more)))
  policies = dict.fromkeys(policy for points in course(each, sampled).values() for _, policy in points)
  add("course", answers(config, ("sft", *policies), models, num_prompts=300, responses=4))
  config.stages = (*config.stages, *new)
  return config


def get_config(arg: str = "") -> ConfigDict:
  """The quickstart up to its reward model, and the stages of the question; the recipe takes no argument."""
  quickstart.choose("policy_improvement", arg)
  return build()
