"""The records of experiments: each opens with its question, commands that exist and the time they took."""

import re
import shlex

import pytest
from tiny_chain import ROOT

from rlhf_jax.pipeline.catalogue import recipe_names

RECORDS = sorted((ROOT / "experiments").glob("*/README.md"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_a_record_opens_with_its_question_its_commands_and_its_time(path):
  title, commands, time, *_ = path.read_text().split("\n\n")
  assert re.fullmatch(r"# .*\?", title)
  lines = commands.replace("\\\n", "").splitlines()
  assert all(line.startswith("    ") for line in lines)
  for words in map(shlex.split, lines):
    if words[:2] == ["rlhf-jax", "run"]:
      assert words[words.index("--config") + 1].partition(":")[0] in recipe_names()
    elif words[0] == "python":
      assert (ROOT / words[1]).is_file()
  assert time.startswith("Time: ") and "core" in time


def test_every_experiment_has_a_record():
  folders = {path for path in (ROOT / "experiments").iterdir() if path.is_dir() and path.name != "__pycache__"}
  assert {path.parent for path in RECORDS} == folders


def test_the_index_has_a_row_for_every_experiment_with_its_question_an_answer_and_its_plot():
  index = (ROOT / "experiments" / "README.md").read_text()
  rows = [line.strip("| ").split(" | ") for line in index.splitlines() if line.startswith("| [")]
  links = [re.fullmatch(r"\[(.*)\]\((\w+)/README\.md\)", row[0]).groups() for row in rows]
  assert sorted(folder for _, folder in links) == [path.parent.name for path in RECORDS]
  for (question, folder), (_, answer, over, *plot) in zip(links, rows, strict=True):
    path = ROOT / "experiments" / folder
    assert (path / "README.md").read_text().startswith(f"# {question}\n")
    assert answer.endswith(".") and over
    shown = re.findall(r'src="([\w/.]+)"', " ".join(plot))
    assert all((ROOT / "experiments" / name).is_file() for name in shown)
    assert not (path / "results.png").exists() or shown == [f"{folder}/results.png"]
    assert ("not run yet" in answer) == ("full study was not run yet" in (path / "README.md").read_text())
