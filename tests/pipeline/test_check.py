"""A run that cannot end is not begun: values, files, lengths, batches and the disk, checked before the first stage."""

import copy
import functools
import json
import math
import shutil
from types import SimpleNamespace

import jax
import pytest
from hh_pairs import write_pairs
from rated_texts import write_ratings
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.cli import main
from rlhf_jax.pipeline import check, costs
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.pipeline.catalogue import recipe_names
from rlhf_jax.pipeline.first_rows import KINDS, check_file
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.settings import ConfigError
from rlhf_jax.train.mesh import using_devices

NAN, INF = math.nan, math.inf
OUT_OF_RANGE = {
  "quickstart": [
    ("model.num_layers", 0, "at least 1"),
    ("model.d_model", -128, "at least 1"),
    ("model.num_heads", 0, "at least 1"),
    ("model.num_kv_heads", 0, "at least 1"),
    ("model.d_ff", 0, "at least 1"),
    ("model.max_length", 0, "at least 1"),
    ("model.rope_theta", 0.0, "above 0"),
    ("model.norm_eps", -1e-6, "above 0"),
    ("transport.fsdp", 0, "at least 1, or -1"),
    ("transport.data", -2, "at least 1, or -1"),
    ("transport.tensor", 0, "at least 1, or -1"),
    ("transport.microbatches", 0, "at least 1"),
    ("transport.logits_chunk", -1, "at least 0"),
    ("world.seed", -1, "at least 0"),
    ("world.num_documents", -1, "at least 0"),
    ("world.demonstrators.expert", -0.5, "at least 0"),
    ("vocabulary.vocab_size", 100, "at least 259"),
    ("pretrain.num_steps", 0, "at least 1"),
    ("pretrain.batch_size", 0, "at least 1"),
    ("pretrain.length", -64, "at least 0"),
    ("pretrain.z_loss", -1e-4, "at least 0"),
    ("pretrain.eval_rows", -1, "at least 0"),
    ("pretrain.evaluate_every", -1, "at least 0"),
    ("pretrain.checkpoint_every", 0, "at least 1"),
    ("pretrain.optimizer.learning_rate", -1e-3, "at least 0"),
    ("pretrain.optimizer.learning_rate", NAN, "finite"),
    ("pretrain.optimizer.warmup", 1.0, "at least 0 and below 1"),
    ("pretrain.optimizer.beta1", 1.0, "at least 0 and below 1"),
    ("pretrain.optimizer.beta2", -0.1, "at least 0 and below 1"),
    ("pretrain.optimizer.eps", 0.0, "above 0"),
    ("pretrain.optimizer.weight_decay", -0.1, "at least 0"),
    ("pretrain.optimizer.clip_norm", 0.0, "above 0"),
    ("pretrain.optimizer.clip_norm", INF, "finite"),
    ("sft.num_epochs", -1, "at least 1"),
    ("sft.batch_size", 0, "at least 1"),
    ("sft.eval_fraction", 1.5, "between 0 and 1"),
    ("sft.eval_fraction", NAN, "finite"),
    ("sft.length", -1, "at least 0"),
    ("sft.checkpoint_every", -5, "at least 1"),
    ("preferences.num_prompts", 0, "at least 1"),
    ("preferences.responses", 0, "at least 1"),
    ("preferences.num_written", -1, "at least 0"),
    ("preferences.batch_size", -8, "at least 1"),
    ("preferences.labellers.expert", -1, "at least 0"),
    ("reward_model.normalize_count", -1, "at least 0"),
    ("reward_model.likelihood", -1.0, "at least 0"),
    ("reward_model.rating_scale", 0.0, "above 0"),
    ("ppo.num_steps", -1, "at least 1"),
    ("ppo.kl_coef", -0.1, "at least 0"),
    ("ppo.kl_target", NAN, "finite"),
    ("ppo.kl_horizon", 0.0, "above 0"),
    ("ppo.discount", 1.01, "between 0 and 1"),
    ("ppo.lam", -0.5, "between 0 and 1"),
    ("ppo.clip", -0.2, "at least 0"),
    ("ppo.value_clip", -0.2, "at least 0"),
    ("ppo.value_coef", -0.1, "at least 0"),
    ("ppo.entropy_coef", -INF, "finite"),
    ("ppo.epochs", 0, "at least 1"),
    ("ppo.minibatches", 0, "at least 1"),
    ("ppo.checkpoint_every", 0, "at least 1"),
    ("ppo.environment.batch_size", 0, "at least 1"),
    ("ppo.environment.samples_per_prompt", 0, "at least 1"),
    ("ppo.environment.missing_eos_score", NAN, "finite"),
    ("ppo.environment.reward.checkpoint_weight", NAN, "finite"),
    ("ppo.environment.sampling.max_prompt_tokens", -1, "at least 0"),
    ("ppo.environment.sampling.max_new_tokens", -1, "at least 1"),
    ("ppo.environment.sampling.temperature", -1.0, "at least 0"),
    ("ppo.environment.sampling.top_k", -1, "at least 0"),
    ("ppo.environment.sampling.top_p", 0.0, "above 0 and at most 1"),
    ("ppo.environment.sampling.min_p", 2.0, "between 0 and 1"),
    ("ppo.environment.sampling.slots", -2, "at least 0"),
    ("evaluation.num_prompts", 0, "at least 1"),
    ("evaluation.responses", 0, "at least 1"),
    ("evaluation.min_gap", -0.5, "at least 0"),
    ("evaluation.num_samples", -1, "at least 0"),
    ("evaluation.num_contrasts", -1, "at least 0"),
  ],
  "dpo": [("dpo.loss.beta", 0.0, "above 0"), ("dpo.loss.label_smoothing", 1.5, "between 0 and 1")],
  "kto": [("unpaired_kto.loss.beta", 0.0, "above 0"), ("unpaired_kto.loss.undesirable_weight", -1.0, "at least 0")],
  "online_dpo": [("online_dpo.loss.beta", 0.0, "above 0")],
  "grpo": [("grpo.clip[1]", -0.1, "at least 0"), ("grpo.kl_coef", -0.1, "at least 0")],
  "rloo": [("rloo.clip", -1.0, "at least 0"), ("rloo.epochs", 0, "at least 1")],
  "reinforce": [("reinforce.moving_decay", 1.5, "between 0 and 1")],
  "reinforce_plus_plus": [("reinforce_plus_plus.clip[0]", -0.1, "at least 0")],
  "ppo_ptx": [("ppo_ptx.ptx.coef", -1.0, "at least 0"), ("ppo_ptx.ptx.rows", 0, "at least 1")],
  "distillation": [
    ("distillation.beta", 1.5, "between 0 and 1"),
    ("distillation.student_share", -0.1, "between 0 and 1"),
  ],
  "best_of_n": [("best_of_n.responses", 0, "at least 1")],
  "refinement": [("refinement.rewrites", 0, "at least 1")],
  "verifiable": [("verifiable_accuracy.shots[0]", -1, "at least 0")],
  "mixture": [
    ("sft.demonstrations.window", 0, "at least 1"),
    ("sft.demonstrations.temperature", 0.0, "above 0"),
    ("sft.demonstrations.sources.world.weight", 0.0, "above 0"),
  ],
}
CASES = [(recipe, *case) for recipe, cases in OUT_OF_RANGE.items() for case in cases]


@functools.cache
def _recipe(name):
  return load_config(["--config", name, "--workdir", "x"])[0]


def changed(name, **values):
  """The config of a recipe with other values, by dotted keys with "__" for the dots."""
  config = copy.deepcopy(_recipe(name))
  for key, value in values.items():
    put(config, key.replace("__", "."), value)
  return config


def put(config, key, value):
  *path, last = key.replace("[", ".").replace("]", "").split(".")
  for name in path:
    config = config[int(name) if isinstance(config, list) else name]
  config[int(last) if isinstance(config, list) else last] = value


def refused(config, workdir):
  """The message of a refusal, which is one line and leaves nothing behind; a run is refused as --check is."""
  messages = []
  for attempt in (check.check_run, pipeline.run):
    with pytest.raises(ConfigError) as error:
      attempt(config, workdir)
    messages.append(str(error.value))
  assert messages[0] == messages[1] and "\n" not in messages[0] and not workdir.exists()
  return messages[0]


@pytest.mark.parametrize(("recipe", "key", "value", "allowed"), CASES)
def test_a_value_out_of_its_range_is_refused_by_name(recipe, key, value, allowed, tmp_path):
  config = copy.deepcopy(_recipe(recipe))
  put(config, key, value)
  with pytest.raises(ConfigError) as error:
    plan(config, tmp_path)
  assert str(error.value) == f"config.{key} is {value!r}, and must be {allowed}."


def test_the_table_is_long_enough():
  assert len(CASES) >= 60 and len({(recipe, key) for recipe, key, _, _ in CASES}) >= 60


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("pods/")])
def test_every_recipe_is_accepted(name, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  pairs = tmp_path / "pairs.jsonl"
  talk = "\n\nHuman: Hello\n\nAssistant: "
  data.write_rows(pairs, [{"chosen": talk + "Hello.", "rejected": talk + "No."}])
  steps = tmp_path / "steps.jsonl"
  data.write_rows(steps, [{"prompt": "Add 1 and 2.", "completions": ["3"], "labels": [True]}])
  given = {"hh": pairs, "smollm2_hh": pairs, "process_reward": steps}
  if name == "real_preferences":
    given[name] = write_pairs(tmp_path)
  if name == "sentiment":
    pytest.importorskip("vaderSentiment", reason="needs the extra sentiment")
    given["sentiment"] = write_ratings(tmp_path)
  argument = f":{given[name]}" if name in given else ""
  config, _ = load_config(["--config", f"{name}{argument}", "--workdir", "x"])
  lines = check.check_run(config, tmp_path / "run").splitlines()
  assert [line.split()[0] for line in lines[:-1]] == list(config["stages"])
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("pods/")])
def test_a_recipe_that_continues_a_run_is_refused_without_it(name, tmp_path):
  config, _ = load_config(["--config", name, "--workdir", "x"])
  (stage,) = config["stages"]
  told = rf"^config\.{stage}\.init is '(pretrain|sft)', and no stage before it has that name\."
  with pytest.raises(ConfigError, match=told):
    check.check_run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_what_the_stages_of_the_quickstart_will_cost(tmp_path, capsys, monkeypatch):
  arguments = ["run", "--config", "quickstart", "--workdir", str(tmp_path / "run"), "--check"]
  assert main([*arguments, "--config.model.d_model=8", "--config.model.num_heads=2", "--config.model.num_kv_heads=1",
               "--config.model.d_ff=16", "--config.model.num_layers=2", "--config.vocabulary.vocab_size=300",
               "--config.sft.lora.rank=2", "--config.sft.lora.alpha=4"]) == 0  # fmt: skip
  # A layer: query and output 8 x 8, key and value 8 x 4, gate, up and down 8 x 16, and two norms of 8.
  layer = 2 * 64 + 2 * 32 + 3 * 128 + 2 * 8
  whole = 300 * 8 + 2 * layer + 8
  adapters = 2 * (2 * 2 * (8 + 8) + 2 * 2 * (8 + 4))
  told = {line.split()[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines()}
  assert told["pretrain"].endswith(f" steps, {whole:,} parameters, state {costs.size(12 * whole)}, 2 checkpoints "
                                   f"{costs.size(24 * whole)}")  # fmt: skip
  assert f"2 epochs of its data, {adapters:,} parameters" in told["sft"]
  assert f" {2 * whole:,} parameters" in told["ppo"]  # policy and value function
  assert told["world"] == "trains nothing"
  assert told["Checked;"] == f"the checkpoints will take {costs.size(24 * (4 * whole + adapters))}"
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "changes, told",
  [
    (dict(loop__keep=5, checkpoint_every=100), "5 checkpoints {5}"),
    (dict(loop__keep=5, num_steps=50, checkpoint_every=20), "3 checkpoints {3}"),  # there are no more
    (dict(loop__keep=3, loop__keep_best="eval/loss"), "4 checkpoints {4}"),
    (dict(loop__keep=1, loop__keep_minutes=30.0), "1 checkpoint {1} and {1} more every 30 minutes"),
  ],
)
def test_the_checkpoints_that_stay_are_those_of_the_config(changes, told, tmp_path, monkeypatch):
  config = copy.deepcopy(_recipe("quickstart"))
  config["pretrain"]["loop"] = {}
  for key, value in changes.items():
    put(config, f"pretrain.{key.replace('__', '.')}", value)
  steps = [step for step in plan(config, tmp_path) if step.stage.name in ("vocabulary", "pretrain")]
  cost = check.check_steps(steps, steps)[-1]
  assert (
    f", {told.format(*(costs.size(count * cost.state_bytes) for count in range(6)))}" in costs.cost_lines([], [cost])[0]
  )
  assert cost.checkpoint_bytes == int(told[0]) * cost.state_bytes > 0


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(sft__length=300), "config.sft.length: length=300 exceeds model.max_length=128"),
    (dict(ppo__environment__sampling__max_new_tokens=1000), "config.ppo.environment.sampling: max_prompt_tokens + "
     "max_new_tokens=1030 exceeds model.max_length=128"),
    (dict(evaluation__sampling__max_prompt_tokens=224), "config.evaluation.sampling: max_prompt_tokens + "),
    (dict(ppo__minibatches=7), "config.ppo: minibatches=7 must divide the 64 episodes"),
    (dict(transport__fsdp=3), "config: transport.fsdp=3 x transport.tensor=1 does not divide the 2 devices"),
    (dict(transport__attention="cudnn"), "config.transport.attention='cudnn' needs a GPU"),
    (dict(model__num_kv_heads=3), "config.model: num_kv_heads=3 must divide num_heads="),
    (dict(model__d_model=129), "config.model: d_model=129 must be num_heads="),
    (dict(ppo__environment__prompts="nowhere.jsonl"), "config.ppo.environment.prompts: nowhere.jsonl: cannot be read "),
    (dict(ppo__watch=dict(eval_prompts="nowhere.jsonl")), "config.ppo.watch.eval_prompts: nowhere.jsonl: cannot be "),
    (dict(tokenizer="nowhere.json"), "config.tokenizer: "),
    (dict(sft__lora=dict(rank=2, alpha=1.0, targets=["qeury"])), "config.sft.lora.targets: no layer has a matrix "
     "'qeury'"),
    (dict(ppo__environment__reward__function="json:lods"), "config.ppo.environment.reward.function: json has no "),
    (dict(ppo__environment__reward__function="rlhf_jax.verify:exact_match"), "config.ppo.environment.reward: "
     "rlhf_jax.verify:exact_match has the parameter 'answers' without a value: give one in its arguments; what a "),
    (dict(ppo__environment__reward__parts=dict(long=dict(function="rlhf_jax.train.shaping:length", arguments=dict(
     goal=3)))), "config.ppo.environment.reward: rlhf_jax.train.shaping:length has no parameter 'goal'."),
    (dict(ppo__environment__reward__parts=dict(model=dict(function="json:loads"))), "config.ppo.environment.reward: "
     "parts has the name 'model': a name has no '/' and is none of "),
    (dict(ppo__environment__monitor=dict(function="json:loads", arguments=dict(nothing=1))), "config.ppo.environment: "
     "json:loads must take prompts and responses as its first two parameters"),
    (dict(ppo__environment__max_refills=2), "config.ppo.environment: max_refills is for groups whose scores are alike"),
  ],
)  # fmt: skip
def test_what_cannot_end_is_refused(changes, message, tmp_path):
  config = changed("quickstart")
  for key, value in changes.items():
    put(config, key.replace("__", "."), value)
  with using_devices(jax.devices()[:2]):
    assert refused(config, tmp_path / "run").startswith(message)


def test_a_question_must_have_room(tmp_path, monkeypatch):
  config = changed("verifiable")
  (task,) = config["verifiable_accuracy"]["tasks"]
  config["verifiable_accuracy"]["tasks"][task]["max_new_tokens"] = config["model"]["max_length"]
  message = refused(config, tmp_path / "run")
  assert message.startswith(f"config.verifiable_accuracy.tasks.{task}.max_new_tokens=") and "no room" in message


ROWS = {
  "prompt file": ({"prompt": "Say a."}, {"prmpt": "Say a."}),
  "demonstration file": ({"prompt": "Say a.", "response": "a"}, {"prompt": "Say a.", "response": 3}),
  "comparison file": ({"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "a"}),
  "contrast file": ({"prompt": "p", "chosen": "a", "rejected": "b", "kind": "k"}, {"prompt": "p", "chosen": "a"}),
  "question file": ({"prompt": "p", "answer": "a"}, {"prompt": "p"}),
  "record file": (
    {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]},
    {"prompt": "p", "responses": ["a"], "ranks": [0, 1]},
  ),
  "step file": (
    {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
    {"prompt": "p", "completions": ["a", "b"], "labels": [True]},
  ),
  "text file": ({"prompt": "Say a.", "response": "a"}, {"text": 3}),
  "unpaired file": ({"prompt": "p", "response": "a", "label": True}, {"prompt": "p", "response": "a", "label": "yes"}),
  "weight file": ({"annotator": "ann", "weight": 1.0}, {"annotator": "ann", "weight": -1}),
}


def test_every_kind_of_rows_is_read_beforehand():
  assert {*KINDS} == {*ROWS, "page file"}  # which has no rows: tests/stages/test_page_judgements.py


@pytest.mark.parametrize("kind", sorted(ROWS))
def test_the_first_rows_of_a_file_are_read(kind, tmp_path):
  path = tmp_path / "rows.jsonl"
  good, bad = ROWS[kind]
  data.write_rows(path, [good, good])
  check_file(path, kind)
  data.write_rows(path, [good, bad])
  with pytest.raises(data.DataError, match="rows.jsonl:2: "):
    check_file(path, kind)
  path.write_text('{"cut": ')
  with pytest.raises(data.DataError, match="rows.jsonl:1: not one JSON object"):
    check_file(path, kind)
  path.write_text("")
  with pytest.raises(data.DataError, match="the file is empty"):
    check_file(path, kind)


def test_plain_text_is_read(tmp_path):
  path = tmp_path / "text.txt"
  path.write_text("Some text.\n")
  check_file(path, "text file")
  path.write_text("")
  with pytest.raises(data.DataError, match="text.txt: the file is empty"):
    check_file(path, "text file")
  path.write_bytes(b"caf\xe9\n")
  with pytest.raises(data.DataError, match="text.txt:1: byte 0xe9 is not valid UTF-8"):
    check_file(path, "text file")


def test_the_sources_of_a_mixture_are_read(tmp_path, monkeypatch):
  good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
  data.write_rows(good, [{"instruction": "Say a.", "input": "", "output": "a"}])
  data.write_rows(bad, [{"instruction": "Say a."}])
  for path, accepted in ((good, True), (bad, False)):
    config = load_config(["--config", f"mixture:{path}", "--workdir", "x"])[0]
    if accepted:
      check.check_run(config, tmp_path / "run")
    else:
      assert refused(config, tmp_path / "run").startswith(f"config.sft.demonstrations.sources.own_0: {path}:1: found")


def test_the_disk_must_hold_the_checkpoints(tmp_path, monkeypatch):
  asked = []

  def usage(path):
    asked.append(path)
    return SimpleNamespace(free=5_000_000)

  monkeypatch.setattr(shutil, "disk_usage", usage)
  message = refused(changed("quickstart"), tmp_path / "run")
  assert message == (
    f"the checkpoints of config.stages need 92.5 MB, and {tmp_path} has 5.0 MB free: make room, or choose another "
    "--workdir"
  )
  assert set(asked) == {tmp_path}
  # What is stored already takes no further room.
  (tmp_path / "run/ppo/checkpoints").mkdir(parents=True)
  (tmp_path / "run/ppo/checkpoints/array").write_bytes(bytes(90_000_000))
  check.check_run(changed("quickstart"), tmp_path / "run")


def finish(steps):
  """Makes the directories of finished stages, with the records that version 0.1 left."""
  for step in steps:
    step.stage.directory.mkdir()
    (step.stage.directory / "config.json").write_text(json.dumps(step.given))
    (step.stage.directory / "done.json").write_text(json.dumps({"fingerprint": step.first_fingerprint}))


def test_a_finished_stage_is_not_checked_again(tmp_path):
  """Its files may have gone; the stages after it are checked."""
  config = changed("quickstart", pretrain__text="gone.txt", tokenizer="{run}/vocabulary/tokenizer.json")
  finish(plan(config, tmp_path)[:3])
  assert "pretrain      done already" in check.check_run(config, tmp_path).splitlines()
  config["sft"]["demonstrations"] = "gone.jsonl"
  with pytest.raises(ConfigError, match="config.sft.demonstrations: gone.jsonl: cannot be read"):
    check.check_run(config, tmp_path)


def test_a_stage_that_is_to_be_deleted_is_checked_as_one_that_is_not_done(tmp_path):
  config = changed("quickstart", pretrain__text="gone.txt", tokenizer="{run}/vocabulary/tokenizer.json")
  steps = plan(config, tmp_path)
  finish(steps[:3])
  gone = "config.pretrain.text: gone.txt: cannot be read"
  with pytest.raises(ConfigError, match=gone):
    check.check_run(config, tmp_path, redo=["vocabulary"])
  with pytest.raises(ConfigError, match=gone):
    pipeline.run(config, tmp_path, redo=["vocabulary"])
  assert (tmp_path / "pretrain" / "done.json").exists()
  config["pretrain"]["text"] = "{run}/world/corpus.txt"
  shutil.rmtree(tmp_path / "vocabulary")
  shutil.rmtree(tmp_path / "pretrain")
  finish([step for step in plan(config, tmp_path) if step.stage.name == "pretrain"])
  told = check.check_run(config, tmp_path).splitlines()
  assert told[0].split() == ["world", "done", "already"] and told[2].startswith("pretrain      800 steps")


def test_a_module_may_check_its_own_config(tmp_path):
  (tmp_path / "mine.py").write_text(
    "import dataclasses\nfrom rlhf_jax.settings import ConfigError\n\n"
    "@dataclasses.dataclass(frozen=True)\nclass Config:\n  algorithm: str\n  size: int\n\n"
    "def check(config, stage):\n  if config.size > 3:\n"
    "    raise ConfigError(f'config.{stage.name}.size is too large')\n\n"
    "def run(config, stage):\n  raise AssertionError\n"
  )
  shape = dict(num_layers=1, d_model=2, num_heads=1, num_kv_heads=1, d_ff=2, max_length=4)
  config = {
    "seed": 0, "stages": ["mine"], "tokenizer": "", "model": shape,
    "transport": dict(kind="jit", fsdp=1, microbatches=1), "mine": dict(algorithm=str(tmp_path / "mine.py"), size=4),
  }  # fmt: skip
  assert refused(config, tmp_path / "run") == "config.mine.size is too large"
  config["mine"]["size"] = 3
  lines = check.check_run(config, tmp_path / "run").splitlines()
  assert lines == ["mine  trains nothing", "Checked; the checkpoints will take 0 bytes"]


@pytest.mark.parametrize("count, words", [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (29.6e6, "29.6 MB"),
                                          (3.2e12, "3.2 TB"), (5e15, "5000.0 TB")])  # fmt: skip
def test_sizes_in_words(count, words):
  assert costs.size(count) == words
