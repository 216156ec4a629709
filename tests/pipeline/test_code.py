"""The code that a stage runs: every import counts, wherever it stands, and nothing is read twice."""

import ast
from pathlib import Path

import pytest
from tiny_chain import recipe

import rlhf_jax
from rlhf_jax.pipeline import code
from rlhf_jax.pipeline.inputs import ContentHashes
from rlhf_jax.pipeline.plan import plan

NESTED = """
import a
try:
  import b
except ImportError:
  import c
else:
  from d import e
finally:
  import f
async def outer():
  async with x:
    for y in z:
      import g
    else:
      import h
class K:
  if True:
    import i
  elif False:
    import j
  else:
    while w:
      import k.l
def inner():
  match v:
    case 1:
      import m
  return lambda: [n for n in o]
try:
  pass
except* ValueError:
  import p
"""


def test_an_import_counts_wherever_it_stands(tmp_path):
  path = tmp_path / "user.py"
  path.write_text(NESTED)
  names = sorted(code.imported_names(path, 0, "user"))
  assert names == ["a", "b", "c", "d.e", "f", "g", "h", "i", "j", "k.l", "m", "p"]


@pytest.mark.parametrize("part", ["train", "stages", "world"])
def test_the_imports_of_the_package_are_those_of_its_whole_trees(part):
  for path in (Path(rlhf_jax.__file__).parent / part).glob("*.py"):
    found = code.imported_names(path, 0, f"rlhf_jax.{part}.{path.stem}")
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [f"{getattr(node, 'module', '')}.{alias.name}".lstrip(".") for node in nodes for alias in node.names]
    assert sorted(found) == sorted({*names})


def test_nothing_is_read_or_looked_up_twice(tmp_path, monkeypatch):
  calls = []
  parse, search = ast.parse, code._search
  monkeypatch.setattr(ast, "parse", lambda text: calls.append(text) or parse(text))
  monkeypatch.setattr(code, "_search", lambda name: calls.append(name) or search(name))
  steps, hashes = plan(recipe("quickstart"), tmp_path), ContentHashes(tmp_path)
  first = [code.read_code(step, hashes) for step in steps]
  texts = [call for call in calls if isinstance(call, bytes)]
  assert len(texts) == len({*texts}) + texts.count(b"") - (b"" in texts)
  calls.clear()
  assert [code.read_code(step, hashes) for step in steps] == first
  # What may come into being meanwhile is looked for again: names of the user's, and those in no file.
  assert not [call for call in calls if isinstance(call, bytes) or call.startswith(("rlhf_jax.", "jax.", "numpy."))]
