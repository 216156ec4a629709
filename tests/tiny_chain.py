"""The quickstart at sizes that run in seconds, and single stages of any recipe on what its finished run has left."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np

from rlhf_jax.cli import main
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.settings import import_module
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train.mesh import using_devices

ROOT = Path(__file__).parents[1]
STAGES = ("world", "vocabulary", "pretrain", "sft", "preferences", "reward_model", "ppo", "evaluation")
PPO_STEPS = 4
SIZES = {
  "model": dict(num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, d_ff=48, max_length=64),
  "world": dict(num_documents=200, num_demonstrations=120, num_prompts=64, num_eval_prompts=16),
  "vocabulary": dict(vocab_size=400),
  "pretrain": dict(num_steps=6, length=32, eval_rows=8, evaluate_every=3, checkpoint_every=4),
  "sft": dict(num_epochs=1, batch_size=8, length=64, eval_fraction=0.2, optimizer=dict(learning_rate=1e-2)),
  "preferences": dict(num_prompts=48, responses=2, batch_size=8),
  "reward_model": dict(length=64, normalize_count=16, eval_fraction=0.2),
  "ppo": dict(
    num_steps=PPO_STEPS,
    checkpoint_every=2,
    environment=dict(batch_size=16, missing_eos_score=None),
    watch=dict(samples_every=1),
  ),
  "evaluation": dict(num_prompts=16, batch_size=16, responses=2, num_samples=4),
}
SAMPLING = dict(max_prompt_tokens=40, max_new_tokens=12, temperature=1.0)
TINY = """
from rlhf_jax.settings import import_module
from rlhf_jax.stage import Model, Stage, Transport

def get_config(arg=""):
  config = import_module({recipe!r}).get_config(arg)
  config.update({sizes!r})
  for section in (config.preferences, config.reward_model, config.ppo.environment, config.evaluation):
    section.sampling.update({sampling!r})
  return config
"""


def write_config(directory: Path) -> Path:
  """A config file in `directory` that is configs/quickstart.py as it is but for its sizes."""
  path = directory / "tiny.py"
  recipe = shutil.copy(ROOT / "configs" / "quickstart.py", path.with_name("recipe.py"))
  path.write_text(TINY.format(recipe=str(recipe), sizes=SIZES, sampling=SAMPLING))
  return path


def run(config, workdir, *overrides):
  return main(["run", "--config", str(config), "--workdir", str(workdir), *overrides])


def recipe(name: str, arg: str = "") -> dict:
  """configs/<name>.py as a plain mapping."""
  return import_module(f"rlhf_jax.configs.{name}").get_config(arg).copy_and_resolve_references().to_dict()


def run_stages(config: dict, chain: Path, workdir: Path, changes: dict[str, dict], devices: int = 1) -> None:
  """Runs the stages named in `changes`, so changed, of a recipe; all that they read is the finished chain's.

  On one device unless more are asked for, whose programs take three times as long to compile: the chain itself has
  eight, as have the losses of all algorithms in tests/train/test_equality.py.
  """
  with using_devices(jax.devices()[:devices]):
    pipeline.run(stages_after(config, chain, changes), workdir)


def stages_after(config: dict, chain: Path, changes: dict[str, dict]) -> dict:
  """A config of the stages named in `changes`, so changed, of a recipe; all that they read is the finished chain's."""
  before = [name for name in STAGES if name not in changes]

  def elsewhere(value):
    if isinstance(value, dict):
      return {key: elsewhere(item) for key, item in value.items()}
    if not isinstance(value, str):
      return value
    for name in before:
      value = f"{chain}/{name}" if value == name else value.replace(f"{{run}}/{name}/", f"{chain}/{name}/")
    return value

  shared = {key: config[key] for key in ("seed", "tokenizer", "transport")}
  sections = {name: merged(config[name], change) for name, change in changes.items()}
  model = {**config["model"], **SIZES["model"]}
  return elsewhere({**shared, **sections}) | {"model": model, "stages": list(changes)}


def merged(settings: dict, changes: dict) -> dict:
  """`settings` with `changes`, mappings merged key by key."""
  both = {key: merged(settings[key], x) for key, x in changes.items() if isinstance(x, dict) and key in settings}
  return {**settings, **changes, **both}


def a_stage(directory: Path, seed: int = 0) -> Stage:
  """A stage of a run in `directory`, for functions that need its paths and its seed alone."""
  return Stage("stage", directory, seed, "", Model(**SIZES["model"]), Transport("jit", fsdp=1, microbatches=1))


def shortness(directory: Path, **changes) -> dict:
  """Settings of an environment like that of the chain's PPO, in which a short response has a high reward."""
  (directory / "reward.py").write_text("def score(prompts, responses): return [-len(r) / 10 for r in responses]\n")
  reward = dict(checkpoint="", function=f"{directory}/reward.py:score", function_weight=1.0)
  return dict(sampling=SAMPLING, missing_eos_score=None, reward=reward, **changes)


def shared_settings(chain: Path) -> dict:
  """What every config needs, of the finished chain: for stages that read its models by their paths."""
  config = recipe("quickstart")
  model = {**config["model"], **SIZES["model"]}
  return dict(seed=0, transport=config["transport"], model=model, tokenizer=f"{chain}/vocabulary/tokenizer.json")


WATCH = dict(samples_every=2, num_samples=3)


def check_recording(stage: Path, *more: str, kl_coef: float = 0.0) -> None:
  """What a stage of RL with `WATCH` has recorded of its tokens: arrays that fit its samples and each other.

  more: names of arrays that few algorithms have; kl_coef: that of a penalty in the reward.
  """
  rows = [json.loads(line) for line in (stage / "samples.jsonl").read_text().splitlines()]
  files = {int(path.stem): dict(np.load(path)) for path in (stage / "samples").iterdir()}
  assert sorted(files) == sorted({row["step"] for row in rows}) and all(step % 2 == 0 for step in files)
  names = {"tokens", "mask", "logp", "logp_ref", "logp_after", "entropy", "rewards", "advantages", *more}
  changes = []
  for row in rows:
    arrays = files[row["step"]]
    assert set(arrays) == names and len(arrays["tokens"]) == 3
    arrays = {name: values[row["row"]] for name, values in arrays.items()}
    mask = arrays["mask"]
    assert mask.any() and all(np.isfinite(values[mask]).all() for values in arrays.values())
    assert (arrays["entropy"][mask] >= 0).all() and (arrays["logp_after"][mask] < 0).all()
    total = row["reward"] - kl_coef * row["kl"]
    np.testing.assert_allclose(arrays["rewards"].sum(), total, atol=1e-4)
    changes.append(np.abs(arrays["logp_after"] - arrays["logp"])[mask].max())
  assert 1e-6 < np.median(changes) < 5
