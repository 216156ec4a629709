"""Files of models made to crash a reader, to loop or to fill memory: each is one error that names the file."""

import json
import struct

import pytest
from hostile import MEGABYTES, SECONDS, measure

CONFIG = {
  "model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
  "num_key_value_heads": 2, "max_position_embeddings": 16, "vocab_size": 8, "hidden_act": "silu",
}  # fmt: skip
NAN = float("nan")
CONFIGS = {  # changed fields, or the whole text -> the error
  "zero heads": ({"num_attention_heads": 0}, "num_attention_heads must be 1 to"),
  "zero key heads": ({"num_key_value_heads": 0}, "num_key_value_heads must be 1 to"),
  "negative layers": ({"num_hidden_layers": -1}, "num_hidden_layers must be 1 to"),
  "a billion layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers must be 1 to 4096"),
  "a huge width": ({"hidden_size": 10**300}, "hidden_size must be 1 to"),
  "no width": ({"hidden_size": 0}, "hidden_size must be 1 to"),
  "zero head_dim": ({"head_dim": 0}, "head_dim must be 1 to"),
  "an odd head": ({"head_dim": 3}, "must leave an even head size"),
  "no words": ({"vocab_size": 0}, "vocab_size must be 1 to"),
  "NaN eps": ({"rms_norm_eps": NAN}, "rms_norm_eps must be a finite number, not nan"),
  "infinite eps": ({"rms_norm_eps": float("inf")}, "rms_norm_eps must be a finite number"),
  "negative eps": ({"rms_norm_eps": -1e-6}, "rms_norm_eps must be above 0"),
  "400 digits": ({"rms_norm_eps": 10**400}, "rms_norm_eps must be a finite number"),
  "NaN theta": ({"rope_theta": NAN}, "rope_theta must be a finite number"),
  "zero theta": ({"rope_theta": 0.0}, "rope_theta must be above 0"),
  "zero factor": ({"rope_scaling": {"rope_type": "yarn", "factor": 0.0}}, "factor must be above 0"),
  "a list for a number": ({"hidden_size": [1] * 10_000}, "hidden_size must be int"),
  "a list for a name": ({"model_type": ["llama"]}, "model_type must be str"),
  "odd layer types": ({"model_type": "qwen3", "layer_types": [["x"]]}, "layer_types"),
  "a bias of text": ({"score_bias": "x"}, "score_bias must be a number"),
  "no JSON": ("{", "cannot be read"),
  "a list": ("[]", "holds no JSON object"),
  "brackets": ("[" * 100_000, "nested too deeply"),
  "5,000 digits": ('{"hidden_size": ' + "9" * 5000 + "}", "cannot be read"),
  "20 MB": ('{"a": "' + "x" * (20 << 20) + '"}', "larger than 16 MB"),
  "a key twice": ('{"model_type": "llama", "model_type": "gpt2"}', "'model_type' stands twice"),
}  # fmt: skip


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
  return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BRACKETS = b"[" * 100_000
HEADERS = {  # header, or (length, bytes after it) -> the error; 16 bytes of data follow
  "a length beyond the file": ((1 << 63, b"{}"), "its header is said to have"),
  "a length of all bits": (((1 << 64) - 1, b"{}"), "its header is said to have"),
  "nothing": ((0, b""), "is not a safetensors file"),
  "no JSON": ((2, b"{]"), "is not a safetensors file"),
  "a list": ((2, b"[]"), "its header is no JSON object"),
  "brackets": ((len(BRACKETS), BRACKETS), "nested too deeply"),
  "no UTF-8": ((2, b"\xff\xff"), "is not a safetensors file"),
  "no fields": ({"a": {}}, "'a' must have 'dtype', 'shape' and two 'data_offsets'"),
  "a list for an entry": ({"a": []}, "'a' must have"),
  "data beyond the file": ({"a": tensor(shape=(8,), offsets=(0, 32))}, "is cut short or damaged at a"),
  "negative offsets": ({"a": tensor(offsets=(-8, 0))}, "'a' must have"),
  "offsets turned round": ({"a": tensor(offsets=(8, 0))}, "its data end before they start"),
  "three offsets": ({"a": tensor(offsets=(0, 8, 8))}, "'a' must have"),
  "a text for an offset": ({"a": tensor(offsets=("0", 8))}, "'a' must have"),
  "another size": ({"a": tensor(shape=(3,))}, "is cut short or damaged at a"),
  "a negative shape": ({"a": tensor(shape=(-1, -2))}, "'a' must have"),
  "a shape without end": ({"a": tensor(shape=(1,) * 1000)}, "'a' must have"),
  "a huge shape": ({"a": tensor(shape=(1 << 62, 4))}, "'a' must have"),
  "a fraction": ({"a": tensor(shape=(1.5,))}, "'a' must have"),
  "another dtype": ({"a": tensor(dtype="I64", shape=(1,))}, "a is of dtype I64"),
  "a dtype of lines": ({"a": tensor(dtype="F\n32")}, "'a' must have"),
  "a name of lines": ({"a\nb": tensor()}, "characters that cannot be printed"),
  "a dtype of numbers": ({"a": tensor(dtype=3)}, "'a' must have"),
  "overlapping data": ({"a": tensor(), "b": tensor(offsets=(4, 12))}, "the bytes of 'a' and 'b' overlap"),
  "a tensor twice": ((33, b'{"a": {}, "a": {"dtype": "F32"}} '), "'a' stands twice"),
}

INDICES = {  # text of the index -> the error
  "a path upwards": (json.dumps({"weight_map": {"a": "../secret.safetensors"}}), "no *.safetensors file beside it"),
  "an absolute path": (json.dumps({"weight_map": {"a": "/etc/passwd"}}), "no *.safetensors file beside it"),
  "a device": (json.dumps({"weight_map": {"a": "/dev/zero"}}), "no *.safetensors file beside it"),
  "a number": (json.dumps({"weight_map": {"a": 3}}), "no *.safetensors file beside it"),
  "an absent file": (json.dumps({"weight_map": {"a": "b.safetensors"}}), "lacks b.safetensors, 1 of 1 files that"),
  "no map": ("{}", "has no 'weight_map'"),
  "a list": ("[]", "holds no JSON object"),
  "no JSON": ("{", "cannot be read"),
  "brackets": ("[" * 100_000, "nested too deeply"),
}


def text(value):
  return struct.pack("<Q", len(value)) + value


def gguf(tensors=0, keys=(), rest=b"", magic=b"GGUF", version=3, count=None):
  count = len(keys) if count is None else count
  return magic + struct.pack("<IQQ", version, tensors, count) + b"".join(keys) + rest


LLAMA = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
HEADS = text(b"llama.attention.head_count") + struct.pack("<II", 4, 0)


def array(kind, count, content=b""):
  return text(b"a") + struct.pack("<IIQ", 9, kind, count) + content


GGUFS = {
  "nothing": (b"", "it does not start with GGUF"),
  "another file": (b"PK\x03\x04" * 100, "it does not start with GGUF"),
  "another version": (gguf(version=99), "version 99"),
  "a count of keys": (gguf(count=(1 << 64) - 1), "cut short, or a count in it is wrong"),
  "a count of tensors": (gguf(tensors=(1 << 64) - 1), "cut short, or a count in it is wrong"),
  "a long text": (gguf(count=1, rest=struct.pack("<Q", 1 << 60)), "a length in it is wrong"),
  "a long array": (gguf(keys=[array(0, 1 << 60)]), "arrays have more than"),
  "an array that ends early": (gguf(keys=[array(4, 1 << 20)]), "a length in it is wrong"),
  "texts that end early": (gguf(keys=[array(8, 1 << 20)]), "a count in it is wrong"),
  "an array of arrays": (gguf(keys=[array(9, 1)]), "an array is of the unknown type 9"),
  "an unknown type": (gguf(keys=[text(b"a") + struct.pack("<I", 77)]), "a value is of the unknown type 77"),
  "many dimensions": (gguf(tensors=1, rest=text(b"a") + struct.pack("<I", 1 << 31)), "a tensor has 2147483648 dim"),
  "a key twice": (gguf(keys=[LLAMA, LLAMA]), "Duplicate"),
  "no architecture": (gguf(), "general.architecture=None is not supported"),
  "no fields": (gguf(keys=[LLAMA]), "has no matrix token_embd.weight"),
  "a tensor beyond the file": (
    gguf(tensors=1, keys=[LLAMA, HEADS], rest=text(b"token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 8, 0, 1 << 40)),
    "is not a GGUF file, or damaged",
  ),
  "zero heads": (
    gguf(tensors=1, keys=[LLAMA, HEADS], rest=text(b"token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 8, 0, 0))
    + bytes(256),
    "num_attention_heads must be 1 to",
  ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
  cases, name_of = {}, {}

  def directory(name, file):
    path = tmp_path_factory.mktemp("model")
    cases[name], name_of[name] = ("model", str(path)), file
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path

  for name, (change, _) in CONFIGS.items():
    path = directory(f"config: {name}", "config.json") / "config.json"
    path.write_text(change if isinstance(change, str) else json.dumps(CONFIG | change))
  for name, (header, _) in HEADERS.items():
    length, content = header if isinstance(header, tuple) else (None, json.dumps(header).encode())
    path = directory(f"safetensors: {name}", "model.safetensors") / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + bytes(16))
  for name, (content, _) in INDICES.items():
    (directory(f"index: {name}", "safetensors") / "model.safetensors.index.json").write_text(content)
  for name, (content, _) in GGUFS.items():
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    path.write_bytes(content)
    for reader in ("model", "load_tokenizer"):
      cases[f"gguf, {reader}: {name}"], name_of[f"gguf, {reader}: {name}"] = (reader, str(path)), "model.gguf"
  return name_of, measure(cases)


TABLES = {"config": CONFIGS, "safetensors": HEADERS, "index": INDICES, "gguf, model": GGUFS}
MESSAGES = {f"{table}: {name}": message for table, rows in TABLES.items() for name, (_, message) in rows.items()}
MESSAGES |= {f"gguf, load_tokenizer: {name}": "" for name in GGUFS}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_hostile_file_is_one_error_that_names_it(outcomes, name):
  if "gguf" in name:
    pytest.importorskip("gguf", reason="needs the extra gguf")
  name_of, found = outcomes
  error, named, seconds, megabytes = found[name]
  assert named and error, error
  assert MESSAGES[name] in error and name_of[name] in error
  assert "\n" not in error and len(error) < 1000
  assert seconds < SECONDS and megabytes < MEGABYTES


def test_two_files_do_not_hold_one_tensor(tmp_path):
  from rlhf_jax.models import UnsupportedModelError
  from rlhf_jax.models.hub import open_pretrained

  (tmp_path / "config.json").write_text(json.dumps(CONFIG))
  header = json.dumps({"a": tensor()}).encode()
  for file in ("x.safetensors", "y.safetensors"):
    (tmp_path / file).write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
  index = {"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}
  (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
  with pytest.raises(UnsupportedModelError, match=r"y\.safetensors: 'a' is in x\.safetensors too"):
    open_pretrained(tmp_path)
