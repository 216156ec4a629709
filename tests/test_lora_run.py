"""A published model through SFT, reward model and PPO with adapters, on one base in memory."""

import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax import data
from rlhf_jax.cli import main
from rlhf_jax.models import DecoderConfig, fold_lora, language_model
from rlhf_jax.models.hub import export_model, load_pretrained, open_pretrained
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.settings import ConfigError
from rlhf_jax.train import (
  CheckpointError,
  Lora,
  adapt,
  identity,
  init_state,
  load_policy,
  load_stage,
  open_workspace,
  policy_of,
)
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.parameters import base_identity
from rlhf_jax.train.update import detach
from rlhf_jax.types import TrainState

pytestmark = pytest.mark.usefixtures("unoptimised")

TEXTS = ["Where does Tom live? Tom lives in Oakford. Where does Ann live? Ann lives in Elmton.\n" * 20]
NAMES = "ABCDEFGHIJKLMNOPQRSTUVWX"
DEMONSTRATIONS = [{"prompt": f"Where does {x} live?", "response": f"{x} lives in Oakford."} for x in NAMES]
PAIRS = [{"prompt": f"Where does {x} live?", "chosen": f"{x} lives in Oakford.", "rejected": "Elmton."} for x in NAMES]
OPTIMIZER = dict(
  learning_rate=1e-2, warmup=0.0, decay="linear", beta1=0.9, beta2=0.98, eps=1e-8, tensorflow_eps=False,
  weight_decay=0.0, clip_norm=1.0,
)  # fmt: skip
LORA = dict(rank=2, alpha=4.0, targets=("query", "value", "up"))
SAMPLING = dict(max_prompt_tokens=32, max_new_tokens=8, temperature=1.0)
PUBLISHED, STAGES = {}, ("base", "sft", "reward_model", "ppo")
SEEN = []  # bytes alive at every step of PPO


def count_arrays(prompts, responses):
  """PPO's monitor, which is called while rollout, reference, reward model, policy and value function are all alive."""
  SEEN.append(alive())
  return np.zeros(len(prompts), np.float32)


def alive():
  """Bytes in the memory of the first device: arrays may share a buffer."""
  gc.collect()
  shards = [shard for x in jax.live_arrays() for shard in x.addressable_shards if shard.device.id == 0]
  return sum({shard.data.unsafe_buffer_pointer(): shard.data.nbytes for shard in shards}.values())


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """A tiny Llama as others would publish it; nothing of it stays in memory."""
  directory = tmp_path_factory.mktemp("published")
  tokenizer = data.train_tokenizer(TEXTS, 300)
  config = DecoderConfig(tokenizer.vocab_size, 1, 40, 2, 1, 48, 64, tied=False)
  params = language_model(config).init(jax.random.key(0))
  export_model(directory, config, params, {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
  data.export_tokenizer(tokenizer, directory)
  PUBLISHED["bytes"] = sum(x.nbytes for x in jax.tree.leaves(params))
  return directory


def rl(**changes):
  """What every stage of RL is told."""
  reward = dict(checkpoint="reward_model", checkpoint_weight=1.0, function="", function_weight=0.0)
  environment = dict(
    prompts="{run}/pairs.jsonl", batch_size=8, samples_per_prompt=1, sampling=SAMPLING, reward=reward,
    missing_eos_score=None, monitor=dict(function=f"{__name__}:count_arrays"),
  )  # fmt: skip
  settings = dict(init="sft", num_steps=2, environment=environment, optimizer=OPTIMIZER, lora=LORA, checkpoint_every=1)
  return {**settings, **changes}


def settings(published):
  supervised = dict(eval_fraction=0.4, num_epochs=1, batch_size=8, optimizer=OPTIMIZER, lora=LORA, length=40)
  supervised |= dict(evaluate_every=0, checkpoint_every=10)
  return {
    "seed": 0,
    "stages": list(STAGES),
    "tokenizer": "{model}",
    "model": {"path": str(published)},
    "transport": dict(kind="jit", fsdp=1, microbatches=1),
    "base": {"algorithm": "rlhf_jax.stages.import_model"},
    "sft": dict(
      supervised, algorithm="rlhf_jax.algorithms.sft", init="base", demonstrations="{run}/demonstrations.jsonl",
    ),
    "reward_model": dict(
      supervised, algorithm="rlhf_jax.algorithms.reward_model", init="sft", comparisons="{run}/pairs.jsonl",
      normalize_prompts="{run}/pairs.jsonl", normalize_count=8, sampling=SAMPLING,
    ),
    "ppo": rl(
      algorithm="rlhf_jax.algorithms.ppo", kl_coef=0.1, kl_target=0.0, kl_horizon=100.0, discount=1.0, lam=0.95,
      clip=0.2, value_clip=0.2, value_coef=0.1, entropy_coef=0.0, epochs=1, minibatches=1, whiten_rewards=False,
      whiten_advantages=True, shared_trunk=False, value_init="reward_model",
    ),
  }  # fmt: skip


def write_rows(root):
  root.mkdir()
  data.write_rows(root / "demonstrations.jsonl", DEMONSTRATIONS)
  data.write_rows(root / "pairs.jsonl", PAIRS)
  ranked = [{"prompt": p["prompt"], "responses": [p["chosen"], p["rejected"]], "ranks": [0, 1]} for p in PAIRS]
  data.write_rows(root / "ranked.jsonl", ranked)


@pytest.fixture(scope="module")
def made(published, tmp_path_factory):
  """An imported base, and the checkpoints of an SFT and a reward model of which nothing was trained."""
  root = tmp_path_factory.mktemp("lora") / "run"
  write_rows(root)
  PUBLISHED["before"] = alive()
  config = settings(published)
  pipeline.run(config | {"stages": ["base"]}, root)
  (root / "config.json").write_text(json.dumps(config))
  for number, name in enumerate(("sft", "reward_model")):
    stage = next(step.stage for step in pipeline.plan(config, root) if step.stage.name == name)
    tokenizer, model = open_workspace(stage)
    params = adapt(Lora(**LORA), stage, load_stage(stage, "base", model, tokenizer))
    moved = {**params, "lora": jax.tree.map(lambda x, n=number: x + 0.1 * (n + 1), params["lora"])}
    moved = model.init_head(jax.random.key(1), moved) if number else moved
    (root / name).mkdir()
    (root / name / "config.json").write_text(json.dumps(config[name]))
    (root / name / "done.json").write_text(json.dumps({"fingerprint": stage.fingerprint, "seconds": 0}))
    state, proof = init_state(moved, optax.identity()), identity(stage, model, tokenizer)
    with open_checkpoints(root / name / "checkpoints") as checkpoints:
      save(checkpoints, detach(state)[0], proof | base_identity(state.params, stage))
  return root


@pytest.fixture(scope="module")
def run(made, published):
  """PPO from there."""
  pipeline.run(settings(published), made)
  return made


def stage_of(run, name):
  config = json.loads((run / "config.json").read_text())
  return next(step.stage for step in pipeline.plan(config, run) if step.stage.name == name)


def params_of(run, name):
  stage = stage_of(run, name)
  tokenizer, model = open_workspace(stage)
  return load_stage(stage, name, model, tokenizer)


def size(tree):
  return sum(x.nbytes for x in jax.tree.leaves(tree))


def test_whatever_is_loaded_shares_one_base(made):
  """PPO's four models by the bytes that are alive, and nothing of them afterwards."""
  models = [params_of(made, name) for name in ("sft", "sft", "reward_model", "reward_model")]
  own = size([{**model, "decoder": ()} for model in models])
  assert own < PUBLISHED["bytes"] / 5
  assert PUBLISHED["bytes"] < alive() - PUBLISHED["before"] <= PUBLISHED["bytes"] + own + 2000
  del models
  assert alive() - PUBLISHED["before"] < PUBLISHED["bytes"] / 5


@pytest.mark.slow
def test_policy_reference_reward_and_value_share_one_base_while_ppo_runs(run):
  """Counted in every step of PPO: the base once, the reference's and the reward model's adapters, and what is trained
  three times, for Adam's two moments. Without sharing the base would be there four times."""
  reference, reward, trained = (params_of(run, name) for name in ("sft", "reward_model", "ppo"))
  own = size([reference["lora"], reward["lora"], reward["head"]])
  own += 3 * size([trained["policy"]["lora"], trained["value"]["lora"], trained["value"]["head"]])
  rest = 20_000  # the rollout, random keys, counters
  assert own < PUBLISHED["bytes"] / 5 and rest < PUBLISHED["bytes"] / 5 and len(SEEN) == 2
  for seen in SEEN:
    assert PUBLISHED["bytes"] + own < seen - PUBLISHED["before"] < PUBLISHED["bytes"] + own + rest


@pytest.mark.slow
def test_ppo_moves_its_adapters_alone(run):
  base, sft, reward, ppo = (params_of(run, name) for name in STAGES)
  for tree in (sft, reward, ppo["policy"], ppo["value"]):
    assert tree["decoder"]["embedding"]["embedding"] is base["decoder"]["embedding"]["embedding"]
    assert set(tree["lora"]["layers_0"]) == set(LORA["targets"])
    assert tree["lora_scale"] == 2.0
  for before, after in ((sft, ppo["policy"]), (reward, ppo["value"])):
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before["lora"], after["lora"])
    assert min(jax.tree.leaves(moved)) > 0
  rows = read_metrics(run / "ppo" / "metrics.jsonl")
  assert abs(rows[0]["kl/reference"]) < 1e-4 < abs(rows[1]["kl/reference"])  # sampled merged, measured beside the base


def test_checkpoints_hold_adapters_and_name_their_base(made):
  record = json.loads(next((made / "reward_model" / "checkpoints").glob("0/record/*")).read_text())
  assert {path.split("/")[0] for path in record["params"]} == {"lora", "head"}
  assert record["identity"]["base"][""]["checkpoint"] == "../base/checkpoints/0"


@pytest.mark.slow
def test_checkpoints_of_ppo_name_the_base_of_both_models(run):
  record = json.loads(next((run / "ppo" / "checkpoints").glob("2/record/*")).read_text())
  kinds = {path.split("/")[1] for path in record["params"]}
  assert kinds == {"lora", "head"} and not any("kernel" in path for path in record["params"] if "head" not in path)
  base = record["identity"]["base"]
  assert base["policy"] == base["value"] and base["policy"]["checkpoint"] == "../base/checkpoints/0"


def test_a_moved_run_finds_its_base_and_another_base_is_refused(made, tmp_path):
  moved = shutil.copytree(made, tmp_path / "moved")
  jax.tree.map(np.testing.assert_array_equal, params_of(moved, "sft"), params_of(made, "sft"))
  stage = stage_of(moved, "sft")
  tokenizer, model = open_workspace(stage)
  other = jax.tree.map(lambda x: x + 1, load_stage(stage, "base", model, tokenizer))
  identity = json.loads(next((moved / "base" / "checkpoints").glob("0/record/*")).read_text())["identity"]
  shutil.rmtree(moved / "base" / "checkpoints")
  with open_checkpoints(moved / "base" / "checkpoints") as checkpoints:
    save(checkpoints, TrainState(jnp.zeros((), jnp.int32), other, (), ()), identity)
  with pytest.raises(CheckpointError, match="belongs to another base: its adapters were trained on"):
    load_stage(stage, "sft", model, tokenizer)
  shutil.rmtree(moved / "base")
  with pytest.raises(CheckpointError, match="base/checkpoints has no checkpoint"):
    load_stage(stage, "sft", model, tokenizer)


@pytest.mark.slow
def test_a_killed_stage_goes_on_bit_by_bit(run, published, tmp_path):
  cut = shutil.copytree(run, tmp_path / "cut")
  shutil.rmtree(cut / "ppo" / "checkpoints" / "2")
  (cut / "ppo" / "done.json").unlink()
  pipeline.run(settings(published), cut)
  again, whole = params_of(cut, "ppo"), params_of(run, "ppo")
  jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_without_the_key_adapters_are_merged_and_everything_trains(made):
  stage = stage_of(made, "sft")
  tokenizer, model = open_workspace(stage)
  sft = load_policy(stage, "sft", model, tokenizer)
  whole = adapt(None, stage, sft)
  assert set(whole) == {"decoder"}
  tokens = jnp.arange(12).reshape(2, 6)
  apply = jax.jit(model.apply)
  np.testing.assert_allclose(apply(whole, tokens), apply(sft, tokens), atol=1e-5)
  assert np.abs(apply(whole, tokens) - apply({"decoder": sft["decoder"]}, tokens)).max() > 1e-3


def test_other_settings_than_those_of_the_start_are_refused(made):
  stage = stage_of(made, "ppo")
  tokenizer, model = open_workspace(stage)
  sft = load_policy(stage, "sft", model, tokenizer)
  assert adapt(Lora(2, 4.0, ("up", "query", "value")), stage, {"policy": sft})["policy"] is sft
  with pytest.raises(ConfigError, match=r"config.ppo.lora: .* rank=2, alpha=4 and targets=\('query', 'up', 'value'\)"):
    adapt(Lora(4, 4.0, LORA["targets"]), stage, sft)
  with pytest.raises(ConfigError, match="config.ppo.lora.targets: no layer has a matrix 'qkv'"):
    adapt(Lora(4, 4.0, ("qkv",)), stage, {"decoder": sft["decoder"]})


@pytest.mark.slow
def test_the_models_answer(run, capsys):
  assert main(["sample", str(run), "Where does A live?", "--max-new-tokens", "4"]) == 0
  assert [line.split("|")[0].strip() for line in capsys.readouterr().out.splitlines()] == ["base", "sft", "ppo"]


def test_the_export_is_merged(made, tmp_path):
  assert main(["export", str(made), str(tmp_path / "out"), "--stage", "sft"]) == 0
  loaded = load_pretrained(open_pretrained(tmp_path / "out"))
  jax.tree.map(np.testing.assert_array_equal, loaded, fold_lora(policy_of(params_of(made, "sft"))))


def test_adapters_are_exported_with_the_name_of_their_base(made, published, tmp_path, capsys):
  assert main(["export", str(made), str(tmp_path / "out"), "--adapters", "--stage", "sft"]) == 0
  assert capsys.readouterr().out == f"{tmp_path / 'out'}: the adapters of sft\n"
  values = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
  assert values["base_model_name_or_path"] == str(published) and values["lora_alpha"] == 4.0
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
    "adapter_config.json", "adapter_model.safetensors",
  ]  # fmt: skip
  assert main(["export", str(made), str(tmp_path / "no"), "--adapters", "--stage", "base"]) == 2
  assert "'base' was trained without adapters" in capsys.readouterr().err
  assert main(["export", str(made), str(tmp_path / "no"), "--adapters", "--stage", "reward_model"]) == 2
  assert "export it merged" in capsys.readouterr().err


DPO = dict(
  algorithm="rlhf_jax.algorithms.dpo", init="base", comparisons="{run}/pairs.jsonl", eval_fraction=0.4, num_epochs=1,
  batch_size=8, length=40, loss=dict(name="dpo", beta=0.1), optimizer=OPTIMIZER, lora=LORA, evaluate_every=0,
  checkpoint_every=10,
)  # fmt: skip
FEEDBACK = dict(
  algorithm="rlhf_jax.algorithms.reward_model", init="base", feedback=("{run}/ranked.jsonl",), kinds=("ranks",),
  annotators="", ranking="pairs", margins=(0.0, 0.5, 1.0), rating_scale=2.0, per_annotator=True, eval_fraction=0.4,
  num_epochs=1, batch_size=8, length=40, optimizer=OPTIMIZER, normalize_prompts="{run}/pairs.jsonl", normalize_count=8,
  sampling=SAMPLING, lora=LORA, evaluate_every=0, checkpoint_every=10,
)  # fmt: skip
GRPO = rl(
  algorithm="rlhf_jax.algorithms.grpo", init="base", normalize_std=True, weights="token", clip=(0.2, 0.2),
  ratio="token", kl_coef=0.1, kl_kind="k3", epochs=1, minibatches=1,
)  # fmt: skip
RLOO = rl(algorithm="rlhf_jax.algorithms.rloo", init="base", kl_coef=0.1, clip=0.5, epochs=1, minibatches=1)
REINFORCE = rl(
  algorithm="rlhf_jax.algorithms.reinforce", init="base", baseline="value", moving_decay=0.9, kl_coef=0.1,
  value_coef=0.1, entropy_coef=0.0,
)  # fmt: skip
EVALUATION = dict(
  algorithm="rlhf_jax.stages.evaluate", models=("base", "sft", "new"), reference="base",
  prompts="{run}/pairs.jsonl", held_out_prompts="", num_prompts=8, batch_size=8, sampling=SAMPLING,
  reward_model="reward_model", gold=dict(function=""), responses=1, min_gap=0.5, labellers={}, num_samples=2,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "reward_model", "reward_from_feedback", "dpo", "grpo", "rloo", "reinforce"])
def test_every_algorithm_trains_adapters(name, published, run, tmp_path):
  """From the base, with fresh adapters; the evaluation reads what comes out."""
  config = settings(published)
  others = {"reward_from_feedback": FEEDBACK, "dpo": DPO, "grpo": GRPO, "rloo": RLOO, "reinforce": REINFORCE}
  given = others.get(name) or {**config[name], "init": "base"}
  if name in ("grpo", "rloo"):
    given = {**given, "environment": {**given["environment"], "batch_size": 4, "samples_per_prompt": 2}}
  stages = ["base", "sft", "reward_model", "new"] + ["evaluation"] * (not name.startswith("reward"))
  here = shutil.copytree(run, tmp_path / "run")
  pipeline.run(config | {"stages": stages, "new": given, "evaluation": EVALUATION}, here)
  base, new = params_of(here, "base"), params_of(here, "new")
  new = new.get("policy", new)
  assert new["decoder"]["embedding"]["embedding"] is base["decoder"]["embedding"]["embedding"]
  assert min(float(np.abs(pair["b"]).max()) for pair in new["lora"]["layers_0"].values()) > 0
  if not name.startswith("reward"):
    models = json.loads((here / "evaluation" / "evaluation.json").read_text())["models"]
    assert models["base"]["kl"]["mean"] == 0 != models["new"]["kl"]["mean"]
