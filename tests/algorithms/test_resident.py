"""What a stage keeps in memory while it learns: its state, and frozen copies in the dtype of the computation."""

import collections
import dataclasses
import gc
import json

import jax
import optax
import pytest
from tiny_chain import merged, recipe

import rlhf_jax.train.loop
from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import CheckpointError, identity, init_state, load_policy, open_workspace
from rlhf_jax.train.checkpoint import open_checkpoints, save

pytestmark = pytest.mark.usefixtures("unoptimised")

NAMES = "ABCDEFGHIJKLMNOPQRSTUVWX"
SHAPE = Model(
  num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, d_ff=24, max_length=64, dtype="bfloat16", tied=False
)
SAMPLING = dict(max_prompt_tokens=32, max_new_tokens=4, temperature=1.0)
LEARNER = dict(num_epochs=1, batch_size=8, length=48, eval_fraction=0.3)
EPISODES = dict(batch_size=4, samples_per_prompt=2, sampling=SAMPLING, missing_eos_score=None)
# Stage -> (arrays in float32 of the shape of the embedding, of the output matrix): parameters and two moments of each
# model that is trained; of a value function and of a reward model that weighs no likelihood nothing reads the latter.
RESIDENT = {
  "sft": (3, 3), "dpo": (3, 3), "unpaired_kto": (3, 3), "reward_model": (3, 0), "reinforce_value": (6, 3),
  "rloo": (3, 3), "grpo": (3, 3), "online_dpo": (3, 3), "ppo": (6, 3),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A directory with files to learn from, and an untrained policy in float32 that computes in bfloat16."""
  root = tmp_path_factory.mktemp("resident")
  tokenizer = data.train_tokenizer(["Where does Tom live? Tom lives in Oakford. Where does Ann live? In Elmton."], 300)
  tokenizer.save(root / "tokenizer.json")
  places = [(f"Where does {name} live?", f"{name} lives in Oakford.") for name in NAMES]
  data.write_rows(root / "rows.jsonl", [{"prompt": prompt, "response": response} for prompt, response in places])
  data.write_rows(root / "pairs.jsonl", [{"prompt": p, "chosen": r, "rejected": "Elmton."} for p, r in places])
  (root / "reward.py").write_text("def score(prompts, responses): return [len(r) for r in responses]\n")
  stage = stage_in(root, "policy")
  model = language_model(DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(SHAPE)))
  with open_checkpoints(root / "policy" / "checkpoints") as checkpoints:
    state = init_state(model.init(jax.random.key(0)), optax.identity())
    save(checkpoints, state, identity(stage, model, tokenizer))
  return root


def stage_in(root, name):
  return Stage(name, root, 0, f"{root}/tokenizer.json", SHAPE, Transport("jit", 1, 1), "print")


def settings(root, name):
  """The recipe's stage `name`, at the sizes of this test."""
  if name in ("sft", "reward_model", "ppo"):
    section = recipe("quickstart")[name]
  else:
    names = {"unpaired_kto": ["kto"], "online_dpo": ["online_dpo"]}
    section = recipe(*names.get(name, name.split("_")))[name]
  changes = {"init": f"{root}/policy", "checkpoint_every": 100}
  if "environment" in section:
    reward = dict(checkpoint="", function=f"{root}/reward.py:score", function_weight=1.0)
    environment = dict(EPISODES, prompts=f"{root}/rows.jsonl", reward=reward, monitor=dict(function=""))
    changes |= dict(num_steps=2, environment=environment)
    changes |= {key: 1 for key in ("epochs", "minibatches") if key in section}
    changes |= {key: "" for key in ("value_init",) if key in section}
  else:
    changes |= LEARNER
    files = {"demonstrations": "rows", "comparisons": "pairs", "labelled": "pairs", "normalize_prompts": "rows"}
    changes |= {key: f"{root}/{file}.jsonl" for key, file in files.items() if key in section}
    changes |= dict(likelihood=0.0, normalize_count=8, sampling=SAMPLING) if name == "reward_model" else {}
  return merged(section, changes)


def run_stages(workdir, root, sections, **transport):
  shared = dict(seed=0, tokenizer=f"{root}/tokenizer.json", model=dataclasses.asdict(SHAPE))
  transport = dict(kind="jit", fsdp=1, microbatches=1) | transport
  pipeline.run({**shared, "transport": transport, "stages": [*sections], **sections}, workdir)


def run_stage(root, workdir, name):
  run_stages(workdir, root, {name: settings(root, name)})


def alive(dtype="float32"):
  """{shape: number of arrays of this dtype}."""
  gc.collect()
  return collections.Counter(x.shape for x in jax.live_arrays() if x.dtype == dtype)


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name == "reward_model" else pytest.mark.slow) for name in RESIDENT]
)
def test_nothing_of_the_start_stays_in_memory(root, tmp_path, monkeypatch, name):
  seen = []
  send = rlhf_jax.train.loop.send_to_host
  monkeypatch.setattr(rlhf_jax.train.loop, "send_to_host", lambda found: seen.append(alive()) or send(found))
  before = alive()
  run_stage(root, tmp_path, name)
  vocab = json.loads((root / "tokenizer.json").read_text())["model"]["vocab"]
  table, matrix = (len(vocab), 16), (16, len(vocab))
  assert len(seen) >= 2
  for found in seen:
    assert (found[table] - before[table], found[matrix] - before[matrix]) == RESIDENT[name]


@pytest.mark.slow
def test_reference_and_reward_model_in_int8(root, tmp_path, monkeypatch):
  """A stage of RL holds the matrices of both once in int8, on a mesh of every axis."""
  pytest.importorskip("qwix", reason="needs the extra int8")
  environment = {"frozen_dtype": "int8", "reward": {"checkpoint": "reward_model", "checkpoint_weight": 1.0}}
  sections = {name: settings(root, name) for name in ("reward_model", "ppo")}
  sections["ppo"] = merged(sections["ppo"], {"environment": environment})
  seen = []
  send = rlhf_jax.train.loop.send_to_host
  monkeypatch.setattr(
    rlhf_jax.train.loop, "send_to_host", lambda found: seen.append((alive("int8"), alive())) or send(found)
  )
  before = alive()
  run_stages(tmp_path, root, sections, fsdp=2, tensor=2)
  vocab = json.loads((root / "tokenizer.json").read_text())["model"]["vocab"]
  table, matrix = (len(vocab), 16), (16, len(vocab))
  low, whole = seen[-1]
  assert (whole[table] - before[table], whole[matrix] - before[matrix]) == RESIDENT["ppo"]
  assert (low[table], low[matrix]) == (2, 1)  # nothing reads the reward model's output matrix
  lines = [json.loads(line) for line in (tmp_path / "ppo" / "metrics.jsonl").read_text().splitlines()]
  found = [line["kl/reference"] for line in lines if "kl/reference" in line]
  assert len(found) == 2 and 0 < abs(found[0]) < 0.1  # before the first update it is the rounding


@pytest.mark.slow
def test_a_reward_model_without_an_output_matrix_is_no_policy(root, tmp_path):
  run_stage(root, tmp_path, "reward_model")
  stage = dataclasses.replace(stage_in(root, "ppo"), root=tmp_path)
  tokenizer, model = open_workspace(stage)
  with pytest.raises(CheckpointError, match="reward_model is a reward model, which gives no text a probability"):
    load_policy(stage, "reward_model", model, tokenizer)
