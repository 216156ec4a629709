"""The files of a published model as people leave them: each is read, or refused with what to do."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, UnsupportedModelError, language_model
from rlhf_jax.models.hub import export_model, load_pretrained, open_pretrained

TINY = DecoderConfig(16, 2, 8, 2, 1, 12, 8)
MODEL = language_model(TINY)
PARAMS = MODEL.init(jax.random.key(0))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1064\n"


@pytest.fixture
def directory(tmp_path):
  export_model(tmp_path, TINY, PARAMS, dict(eos_token_id=2))
  return tmp_path


def is_read(directory, params=PARAMS):
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(open_pretrained(directory)), params)


def test_an_export_in_bfloat16_is_the_rounded_model(directory, tmp_path):
  export_model(tmp_path / "half", TINY, PARAMS, dict(eos_token_id=2), "bfloat16")
  half = load_file(tmp_path / "half" / "model.safetensors")
  assert {str(x.dtype) for x in half.values()} == {"bfloat16"}
  for name, x in load_file(directory / "model.safetensors").items():
    np.testing.assert_array_equal(half[name], x.astype(half[name].dtype))
  config = json.loads((directory / "config.json").read_text())
  assert config["torch_dtype"] == "float32"
  assert json.loads((tmp_path / "half" / "config.json").read_text()) == config | {"torch_dtype": "bfloat16"}
  is_read(tmp_path / "half", jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), PARAMS))


def renamed(directory, name_of):
  path = directory / "model.safetensors"
  save_file({name_of(name): array for name, array in load_file(path).items()}, path)


def sharded(directory, keep_single=False):
  """The tensors of model.safetensors in two files, with their index."""
  path = directory / "model.safetensors"
  tensors = load_file(path)
  weight_map = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
  for file in {*weight_map.values()}:
    save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, directory / file)
  (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
  if not keep_single:
    path.unlink()


@pytest.mark.parametrize(
  "name_of",
  [
    lambda name: f"_orig_mod.{name}",
    lambda name: f"module.{name}",
    lambda name: f"module._orig_mod.{name}",
    lambda name: f"_fsdp_wrapped_module.{name}".replace("layers.1.", "layers.1._checkpoint_wrapped_module."),
    lambda name: name.replace("model.", "model._orig_mod.", 1),
  ],
)
def test_names_that_wrappers_of_torch_changed(directory, name_of):
  renamed(directory, name_of)
  is_read(directory)


def test_two_tensors_that_differ_by_a_wrapper_alone_are_refused(directory):
  path = directory / "model.safetensors"
  tensors = load_file(path)
  save_file(tensors | {"module.model.norm.weight": tensors["model.norm.weight"] + 1}, path)
  with pytest.raises(UnsupportedModelError, match=r"'model.norm.weight' is in model.safetensors too"):
    open_pretrained(directory)


def test_the_value_head_of_trl_is_a_head(directory):
  path = directory / "model.safetensors"
  kernel, bias = np.arange(8, dtype=np.float32), np.float32(0.25)
  save_file(load_file(path) | {"v_head.summary.weight": kernel[None], "v_head.summary.bias": bias[None]}, path)
  is_read(directory, PARAMS | {"head": {"kernel": kernel, "bias": bias}})
  params, tokens = load_pretrained(open_pretrained(directory)), jnp.array([[1, 5, 3, 7]])
  hidden = MODEL.hidden(params, tokens)[0, 3]  # the state that has seen three tokens
  np.testing.assert_allclose(MODEL.value(params, tokens)[0, 3], hidden @ kernel + 0.25, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (2,), (1, 1)])
def test_a_value_head_of_another_form_is_refused(directory, shape):
  path = directory / "model.safetensors"
  head = {"v_head.summary.weight": np.ones((1, 8), np.float32), "v_head.summary.bias": np.ones(shape, np.float32)}
  save_file(load_file(path) | head, path)
  with pytest.raises(UnsupportedModelError, match="the tensor 'v_head.summary.bias' has no place"):
    load_pretrained(open_pretrained(directory))


def test_shards(directory):
  sharded(directory)
  is_read(directory)


def test_an_index_that_outlived_its_shards(directory):
  sharded(directory, keep_single=True)
  (directory / "model-00002-of-00002.safetensors").unlink()
  is_read(directory)


def test_an_index_of_one_file(directory):
  weight_map = dict.fromkeys(load_file(directory / "model.safetensors"), "model.safetensors")
  (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
  is_read(directory)


def test_two_whole_models_are_refused(directory):
  sharded(directory, keep_single=True)
  with pytest.raises(UnsupportedModelError, match="holds two models, .*: delete the one that is old"):
    open_pretrained(directory)


def test_a_missing_shard_is_named(directory):
  sharded(directory)
  (directory / "model-00002-of-00002.safetensors").unlink()
  with pytest.raises(
    UnsupportedModelError, match="lacks model-00002-of-00002.safetensors, 1 of 2 .* download it again"
  ):
    open_pretrained(directory)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "model.safetensors.index.json"])
def test_a_pointer_of_git_lfs_is_named(directory, file):
  if "index" in file:
    sharded(directory)
  (directory / file).write_bytes(POINTER)
  with pytest.raises(UnsupportedModelError, match=rf"{file} .*a pointer of Git LFS .*`git lfs pull`"):
    open_pretrained(directory)


def test_a_pointer_in_place_of_a_gguf_is_named(tmp_path):
  pytest.importorskip("gguf", reason="needs the extra gguf")
  (tmp_path / "model.gguf").write_bytes(POINTER)
  with pytest.raises(UnsupportedModelError, match="a pointer of Git LFS"):
    open_pretrained(tmp_path / "model.gguf")
  with pytest.raises(data.DataError, match="a pointer of Git LFS"):
    data.load_tokenizer(tmp_path / "model.gguf")


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_pointer_in_place_of_a_tokenizer_is_named(tmp_path, file):
  data.train_tokenizer(["a b"], 264).save(tmp_path / "tokenizer.json")
  (tmp_path / file).write_bytes(POINTER)
  with pytest.raises(data.DataError, match=rf"{file}: .*a pointer of Git LFS"):
    data.load_tokenizer(tmp_path)


@pytest.mark.parametrize(
  "file, message",
  [
    ("pytorch_model.bin", "but pytorch_model.bin, a pickle that could run any code: .*save_pretrained"),
    ("consolidated.00.pth", "but consolidated.00.pth, a pickle"),
    ("consolidated.safetensors", "but consolidated.safetensors: if it holds the whole model, rename it"),
    ("adapter_config.json", "but adapters of PEFT: merge them into their model first, with merge_and_unload"),
    ("README.md", r"pytorch_model.bin needs save_pretrained\(...\) of transformers first"),
  ],
)
def test_what_stands_in_place_of_safetensors_is_named_with_what_to_do(directory, file, message):
  (directory / "model.safetensors").unlink()
  (directory / file).write_bytes(b"")
  with pytest.raises(UnsupportedModelError, match=message):
    open_pretrained(directory)
  (directory / "config.json").unlink()
  with pytest.raises(UnsupportedModelError, match=f"config.json cannot be read: it is not there.*{message}"):
    open_pretrained(directory)


def test_adapters_among_the_tensors_are_refused(directory):
  path = directory / "model.safetensors"
  name = "model.layers.0.self_attn.q_proj.lora_A.weight"
  save_file(load_file(path) | {name: np.ones((2, 8), np.float32)}, path)
  with pytest.raises(UnsupportedModelError, match=r"lora_A.* has no place .*: merge the adapters first"):
    load_pretrained(open_pretrained(directory))


def test_a_classifier_without_output_matrix_scores_and_predicts_nothing(directory):
  config = DecoderConfig(16, 1, 8, 2, 1, 12, 8, tied=False)
  model = language_model(config)
  params = model.init_head(jax.random.key(1), model.init(jax.random.key(0)))
  export_model(directory, config, params, {})
  path = directory / "model.safetensors"
  renamed(directory, lambda name: name)
  tensors = load_file(path)
  del tensors["lm_head.weight"]
  save_file(tensors, path)
  loaded = load_pretrained(open_pretrained(directory))
  assert "unembedding" not in loaded["decoder"]
  tokens, mask = jnp.array([[1, 5, 3, 0]]), jnp.array([[True, True, True, False]])
  np.testing.assert_array_equal(model.score(loaded, tokens, mask), model.score(params, tokens, mask))
  with pytest.raises(UnsupportedModelError, match="the model has no output matrix"):
    model.apply(loaded, tokens)

  export_model(directory / "again", config, loaded, {})
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(open_pretrained(directory / "again")), loaded)
  save_file(tensors | {"score.weight": np.ones((3, 8), np.float32)}, path)
  with pytest.raises(UnsupportedModelError, match="is a classifier of 3 labels; a reward model has one"):
    load_pretrained(open_pretrained(directory))
