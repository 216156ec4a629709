"""A run that starts from a published model, through the pipeline and the command line, and out again."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.cli import main
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.models.hub import export_model, load_pretrained, open_pretrained
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.settings import ConfigError
from rlhf_jax.train import load_stage, open_workspace

TEXTS = ["Where does Tom live? Tom lives in Oakford. Where does Ann live? Ann lives in Elmton.\n" * 20]
ROWS = [{"prompt": f"Where does {x} live?", "response": f"{x} lives in Oakford."} for x in "ABCDEFGHIJKLMNOPQRSTUVWX"]
OPTIMIZER = dict(
  learning_rate=1e-2, warmup=0.0, decay="linear", beta1=0.9, beta2=0.98, eps=1e-8, tensorflow_eps=False,
  weight_decay=0.0, clip_norm=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """A tiny Llama with a tokenizer and a chat template, as others would publish it."""
  directory = tmp_path_factory.mktemp("published")
  tokenizer = data.train_tokenizer(TEXTS, 300)
  config = DecoderConfig(tokenizer.vocab_size, 1, 32, 2, 1, 48, 64, tied=False)
  params = language_model(config).init(jax.random.key(0))
  ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
  export_model(directory, config, params, ids)
  data.export_tokenizer(tokenizer, directory)
  return directory, tokenizer, params


def settings(directory, rows):
  return {
    "seed": 0,
    "stages": ["base", "sft"],
    "tokenizer": "{model}",
    "model": {"path": str(directory)},
    "transport": dict(kind="jit", fsdp=2, microbatches=1),
    "base": {"algorithm": "rlhf_jax.stages.import_model"},
    "sft": dict(
      algorithm="rlhf_jax.algorithms.sft", init="base", demonstrations=str(rows), eval_fraction=0.2, num_epochs=2,
      batch_size=8, length=64, optimizer=OPTIMIZER, evaluate_every=0, checkpoint_every=10,
    ),
  }  # fmt: skip


@pytest.fixture(scope="module")
def run(published, tmp_path_factory):
  root = tmp_path_factory.mktemp("run")
  data.write_rows(root / "rows.jsonl", ROWS)
  pipeline.run(settings(published[0], root / "rows.jsonl"), root / "run")
  return root / "run"


def stage_params(run, name):
  config = json.loads((run / "config.json").read_text())
  stage = next(step.stage for step in pipeline.plan(config, run) if step.stage.name == name)
  tokenizer, model = open_workspace(stage)
  return load_stage(stage, name, model, tokenizer)


def test_the_base_is_the_published_model_and_sft_moves_it(published, run):
  base = stage_params(run, "base")
  jax.tree.map(np.testing.assert_array_equal, base, published[2])
  kernel = base["decoder"]["layers_0"]["up"]["kernel"]
  assert len({str(shard.index) for shard in kernel.addressable_shards}) == 2  # cut over fsdp=2
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), stage_params(run, "sft"), base)
  assert all(x > 0 for x in jax.tree.leaves(moved))


def test_the_last_policy_is_exported_by_default(run, tmp_path, capsys):
  assert main(["export", str(run), str(tmp_path / "out")]) == 0
  assert capsys.readouterr().out == f"{tmp_path / 'out'}: the model of sft\n"
  opened = open_pretrained(tmp_path / "out")
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(opened), stage_params(run, "sft"))
  assert main(["export", str(run), str(tmp_path / "base"), "--stage", "base"]) == 0
  jax.tree.map(
    np.testing.assert_array_equal, load_pretrained(open_pretrained(tmp_path / "base")), stage_params(run, "base")
  )


def test_an_export_keeps_the_dtype_asked_for(run, tmp_path):
  assert main(["export", str(run), str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
  loaded = load_pretrained(open_pretrained(tmp_path / "out"))
  rounded = jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), stage_params(run, "sft"))
  jax.tree.map(np.testing.assert_array_equal, loaded, rounded)


def test_what_cannot_be_exported_is_named(run, tmp_path, capsys):
  assert main(["export", str(run), str(tmp_path / "out"), "--stage", "stf"]) == 2
  assert "no finished model of a stage 'stf'. Did you mean 'sft'?" in capsys.readouterr().err
  assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
  assert "is no run directory" in capsys.readouterr().err
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "file").touch()
  assert main(["export", str(run), str(tmp_path / "full")]) == 2
  assert "is not empty" in capsys.readouterr().err


def test_the_chat_form_survives_export(published):
  directory, own, _ = published
  assert data.load_tokenizer(directory) == own
  template = json.loads((directory / "tokenizer_config.json").read_text())["chat_template"]
  imported = dataclasses.replace(own, chat_template=template)  # as other programs load the directory
  dialogue = data.parse_prompt_text("\n\nHuman: Hi <eos>\n\nAssistant: Hello\n\nHuman: Where?\n\nAssistant:")
  for prompt in ("Where does Tom live?", dialogue):
    assert data.prompt_ids(imported, prompt) == data.prompt_ids(own, prompt)
    assert data.response_ids(imported, prompt, "Tom <eos>") == data.response_ids(own, prompt, "Tom <eos>")


def test_a_tokenizer_too_large_for_the_model_is_refused(published, run, tmp_path):
  texts = [*TEXTS, "quick brown foxes jump over every lazy sleeping dog\n" * 20]
  data.train_tokenizer(texts, 340).save(tmp_path / "tokenizer.json")
  config = settings(published[0], tmp_path / "rows.jsonl") | {"tokenizer": str(tmp_path / "tokenizer.json")}
  with pytest.raises(ConfigError, match="name the model's own tokenizer"):
    pipeline.run(config, tmp_path / "run")


def test_importing_needs_a_path(published, tmp_path):
  shape = dict(num_layers=1, d_model=32, num_heads=2, num_kv_heads=1, d_ff=48, max_length=64)
  tokenizer = str(published[0] / "tokenizer.json")
  data.write_rows(tmp_path / "rows.jsonl", [{"prompt": "Say one.", "response": "One."}])
  config = settings(published[0], tmp_path / "rows.jsonl") | {"model": shape, "tokenizer": tokenizer}
  with pytest.raises(ConfigError, match=r"config.model must be dict\(path=...\)"):
    pipeline.run(config, tmp_path / "run")
