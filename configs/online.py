"""Which way to spend a budget of labels gives the best policy?

  rlhf-jax run --config online --workdir runs/quickstart
  rlhf-jax run --config online:page --workdir runs/quickstart

A label is one response that a person reads or writes, so that a ranking of four costs four. Three ways start from the
quickstart's SFT model. (1) Rounds: each samples the latest policy, has four answers to each prompt ranked, fits a
reward model on the rankings of all rounds, and trains PPO from the SFT model anew (as Bai et al. 2022, arXiv
2204.05862, section 4.5). (2) PPO whose reward is a person's rating of every sample. (3) More demonstrations for SFT.
The stage `online_budget` compares the gold reward at equal numbers of labels.

With the argument `page` people give the rankings, and the other two ways are left out: each round queues its items and
stops, prints the command that serves the annotation page, and the same command continues once every item is judged.
Each round says what its page asks and who judges an item, as `rlhf-jax collect` does: `questions`, a file in TOML that
asks for comparisons and rankings, `judges`, `agreeing` and `at_most`.

  rlhf-jax run --config online:page --workdir runs/quickstart --config.page_judgements_1.judges=2

Time: 22 minutes on one busy CPU core after the quickstart.

Result: one seed: with 4096 labels a mean gold reward (-2 to 2) of 1.14 [1.06, 1.22] for a learned reward model, 1.12
[1.04, 1.20] for people as the reward and 0.68 [0.61, 0.75] for demonstrations, where SFT has 0.67.
experiments/online has the details.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.reward_from_feedback import after_sft, judgements
from rlhf_jax.configs.reward_from_feedback import reward as reward_model

BUDGETS = (1024, 2048, 4096)  # labels spent by the end of each round
RESPONSES = 4


def ppo(config: ConfigDict, reward: dict, **changes) -> ConfigDict:
  """The quickstart's PPO with the settings `reward` of its reward, and `changes`."""
  environment = quickstart.environment(config, batch_size=64, samples_per_prompt=1)
  environment.reward.update(reward)
  return ConfigDict({**config.ppo, **changes, "environment": environment})


def rounds(config: ConfigDict, people: bool) -> dict[str, int]:
  """Adds the rounds to the config; returns {policy: labels spent by then}."""
  policies, policy, spent, asked = {"sft": 0}, "sft", 0, []
  prefix = "page" if people else "round"
  who = dict(labellers=ConfigDict(), questions="", agreeing=0, at_most=0) if people else {}
  for number, budget in enumerate(BUDGETS, 1):
    asked.append(f"{prefix}_judgements_{number}")
    items = (budget - spent) // RESPONSES
    config[asked[-1]] = judgements(config, "rankings", items, 1, policy=policy, **who)
    model = f"{prefix}_reward_{number}"
    config[model] = reward_model(config, *asked, kinds=("ranks",))
    policy, spent = f"{prefix}_ppo_{number}", budget
    config[policy] = ppo(config, reward=dict(checkpoint=model), value_init=model)
    config.stages += (asked[-1], model, policy)
    policies[policy] = budget
  return policies


def bought(config: ConfigDict) -> dict[str, int]:
  """Adds SFT on demonstrations to the config; returns {policy: labels spent}."""
  policies = {"sft": 0}
  for number, budget in enumerate(BUDGETS, 1):
    source, policy = f"bought_{number}", f"bought_sft_{number}"
    config[source] = dict(
      algorithm="rlhf_jax.stages.demonstrations",
      **quickstart.world(config),
      prompts="{run}/world/prompts.jsonl",
      num=budget,
      habits=config.world.demonstrators,
    )
    config[policy] = config.sft.copy_and_resolve_references()
    config[policy].update(init="sft", demonstrations=f"{{run}}/{source}/demonstrations.jsonl")
    config[policy].optimizer = quickstart.optimizer(3e-4)
    config.stages += (source, policy)
    policies[policy] = budget
  return policies


def people_as_reward(config: ConfigDict) -> dict[str, int]:
  """Adds PPO with a rating for each sample, until the labels are spent; returns {policy: labels spent}."""
  policies = {"sft": 0}
  rating = dict(
    checkpoint="",
    checkpoint_weight=0.0,
    function="rlhf_jax.world:simulated_rating",
    function_weight=1.0,
    arguments=dict(**quickstart.world(config), labellers=quickstart.LABELLERS),
  )
  for number, budget in enumerate(BUDGETS, 1):
    policy = f"people_{number}"
    steps = budget // config.ppo.environment.batch_size
    config[policy] = ppo(config, reward=rating, value_init="", num_steps=steps)
    config.stages += (policy,)
    policies[policy] = budget
  return policies


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with simulated labellers, or with the judgements of people if `arg` is page."""
  quickstart.choose("online", arg, ("page",))
  config = quickstart.get_config()
  config.stages = ()
  ways = {"a learned reward model": rounds(config, people=bool(arg))}
  if not arg:
    ways |= {"people as the reward": people_as_reward(config), "demonstrations": bought(config)}
  prefix = "page_" if arg else "online_"
  models = dict.fromkeys(name for policies in ways.values() for name in policies if name != "sft")
  config[f"{prefix}evaluation"] = quickstart.evaluation(config, *models)
  config[f"{prefix}evaluation"].update(reward_model="", contrasts="", comparisons="")
  config[f"{prefix}budget"] = dict(
    algorithm="rlhf_jax.stages.label_budget", evaluation=f"{{run}}/{prefix}evaluation/evaluation.json", ways=ways
  )
  return after_sft(config, *config.stages, f"{prefix}evaluation", f"{prefix}budget")
