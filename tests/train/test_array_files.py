"""Files of arrays: the format that others read, and faults of the file."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from rlhf_jax.train.array_files import DTYPES, read_entries, write_arrays

ARRAYS = {
  "a/kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3),
  "a/half": np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
  "step": np.asarray(7, np.int32),
  "key": np.array([1, 2], np.uint32),
  "none": np.zeros((0, 4), bool),
}


def read_arrays(path):
  return {name: entry.read() for name, entry in read_entries(path).items()}


def check(found):
  assert {*found} == {*ARRAYS}
  for name, x in ARRAYS.items():
    assert found[name].dtype == x.dtype and found[name].shape == x.shape
    np.testing.assert_array_equal(found[name], x)


def test_what_is_written_is_read(tmp_path):
  path = tmp_path / "x.safetensors"
  write_arrays(path, ARRAYS)
  check(read_arrays(path))
  content = path.read_bytes()
  assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0  # aligned
  transposed = np.arange(6.0).reshape(2, 3).T
  write_arrays(path, {"x": transposed})
  np.testing.assert_array_equal(read_arrays(path)["x"], transposed)


def test_the_library_of_the_format_reads_and_writes_the_same(tmp_path):
  path = tmp_path / "x.safetensors"
  write_arrays(path, ARRAYS)
  check(safetensors.numpy.load_file(path))
  safetensors.numpy.save_file(ARRAYS, path)
  check(read_arrays(path))


@pytest.mark.parametrize("name", DTYPES.values())
def test_every_dtype(tmp_path, name):
  x = np.ones(3, getattr(ml_dtypes, name, name))
  write_arrays(tmp_path / "x", {"x": x})
  found = read_arrays(tmp_path / "x")["x"]
  assert found.dtype == x.dtype and found.tobytes() == x.tobytes()


@pytest.mark.parametrize(
  "change",
  [
    {"shape": [3, 3]}, {"shape": ["a"]}, {"shape": 6}, {"dtype": "F31"}, {"dtype": "F64"}, {"data_offsets": [0, 10**9]},
    {"data_offsets": [-24, 0]}, {"data_offsets": [24, 0]}, {"data_offsets": None},
  ],
)  # fmt: skip
def test_a_header_that_does_not_fit_is_refused(tmp_path, change):
  path = tmp_path / "x.safetensors"
  write_arrays(path, {"x": ARRAYS["a/kernel"]})
  content = path.read_bytes()
  length = int.from_bytes(content[:8], "little")
  header = json.loads(content[8 : 8 + length])
  header["x"].update(change)
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
  with pytest.raises(ValueError, match="entry 'x' of x.safetensors is damaged"):
    read_arrays(path)


@pytest.mark.parametrize("kept", [0, 5, 8, 20, -1])
def test_a_file_that_was_cut_is_refused(tmp_path, kept):
  path = tmp_path / "x.safetensors"
  write_arrays(path, {"x": ARRAYS["a/kernel"]})
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(ValueError):
    read_arrays(path)
