"""A finished run is opened by one function, under the names of today and under those from before version 0.2."""

import json
import os
import re
import shutil

import pytest
from tiny_chain import STAGES, run

from rlhf_jax.cli import main
from rlhf_jax.pipeline.finished import is_run, open_run
from rlhf_jax.pipeline.old_names import CURRENT, current_names, first_names
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.settings import ConfigError

pytestmark = pytest.mark.usefixtures("unoptimised")


def test_the_models_of_a_run(chain):
  opened = open_run(chain)
  assert list(opened.stages) == ["pretrain", "sft", "reward_model", "ppo"]
  assert [found.stage.name for found in opened.language_models()] == ["pretrain", "sft", "ppo"]
  last = opened.language_model()
  assert last.stage.name == "ppo" and set(last.params) == {"policy", "value"} and set(last.policy) == {"decoder"}
  scorer = opened.model("reward_model")
  assert not scorer.is_language_model and "head" in scorer.params
  assert set(opened.language_model("sft").policy) == {"decoder"}


@pytest.mark.parametrize(
  "name, message",
  [
    ("sfd", "{run} has no finished model of a stage 'sfd'. Did you mean 'sft'?"),
    ("world", "{run} has no finished model of a stage 'world'. Known: ppo, pretrain, reward_model, sft."),
    ("reward_model", "stage 'reward_model' of {run} is a reward model, which gives no text a probability"),
  ],
)
def test_a_stage_without_a_language_model_is_named(chain, name, message):
  with pytest.raises(ConfigError, match=f"^{re.escape(message.format(run=chain))}$"):
    open_run(chain).language_model(name)


def test_a_run_without_a_finished_model(chain, tmp_path):
  shutil.copy(chain / "config.json", tmp_path)
  opened = open_run(tmp_path)
  assert not opened.stages
  for ask in (opened.language_model, opened.language_models):
    with pytest.raises(ConfigError, match="no language model of .* is finished yet"):
      ask()


def test_the_directory_of_a_published_model_is_no_run(tmp_path):
  assert not is_run(tmp_path)
  (tmp_path / "config.json").write_text('{"model_type": "llama"}')
  assert not is_run(tmp_path)
  with pytest.raises(ConfigError, match="is no run directory: it has no config.json with the stages of a run"):
    open_run(tmp_path)


@pytest.fixture
def old_run(chain, tmp_path):
  """The finished chain as version 0.1 left it: the same files, with modules and functions under their old names."""
  root = tmp_path / "old"
  shutil.copytree(chain, root, copy_function=os.link)
  for path in [root / "config.json", *root.glob("*/config.json")]:
    old = json.dumps(first_names(json.loads(path.read_text())), indent=2)
    path.unlink()  # of the chain this is a link
    path.write_text(old)
  for name in ("environment.json", "report.html"):
    (root / name).unlink()
  for step in plan(json.loads((root / "config.json").read_text()), root):
    path = step.stage.directory / "done.json"
    done = json.loads(path.read_text())
    path.unlink()
    old = {"fingerprint": step.first_fingerprint, "seconds": done["seconds"], "command": done["command"]}
    path.write_text(json.dumps(old))
  return root


def test_a_run_from_before_the_move_is_asked_exported_reported_and_continued(old_run, tiny, tmp_path, capsys):
  written = (old_run / "config.json").read_text()
  assert '"rlhf_jax.evaluation.evaluate"' in written and '"rlhf_jax.algorithms.tokenizer"' in written
  assert main(["sample", str(old_run), "Where does Tom live?", "--max-new-tokens", "4"]) == 0
  assert [line.split("|")[0].strip() for line in capsys.readouterr().out.splitlines()] == ["pretrain", "sft", "ppo"]
  assert main(["export", str(old_run), str(tmp_path / "model")]) == 0
  assert (tmp_path / "model" / "model.safetensors").stat().st_size > 10_000
  assert main(["report", str(old_run)]) == 0
  page = (old_run / "report.html").read_text()
  assert "pretrain" in page and "Win rate" in page or "win rate" in page
  capsys.readouterr()
  assert run(tiny, old_run) == 0
  assert capsys.readouterr().out.count("done already") == len(STAGES)
  assert json.loads((old_run / "config.json").read_text())["evaluation"]["algorithm"] == "rlhf_jax.stages.evaluate"


def test_a_run_whose_settings_this_version_does_not_know_is_asked(old_run, capsys):
  """The world of version 0.2.0 had a key less and a key more; the models of its runs are what they were."""
  config = json.loads((old_run / "config.json").read_text())
  del config["world"]["demonstrators"], config["preferences"]["written"]
  config["world"]["demonstrator_flaw"] = 0.85
  (old_run / "config.json").write_text(json.dumps(config))
  assert main(["sample", str(old_run), "Where does Tom live?", "--max-new-tokens", "4"]) == 0
  assert [line.split("|")[0].strip() for line in capsys.readouterr().out.splitlines()] == ["pretrain", "sft", "ppo"]


def test_every_old_name_has_a_module_today(chain):
  """A name that is moved once more needs its line in the table moved too."""
  from rlhf_jax.settings import import_function, import_module

  for name in CURRENT.values():
    assert import_function(name) if ":" in name else import_module(name)


def test_names_are_changed_wherever_they_stand():
  config = {"a": {"algorithm": "rlhf_jax.stages.world", "of": ["rlhf_jax.world:simulated_rating", 3]}, "b": None}
  old = {"a": {"algorithm": "rlhf_jax.algorithms.world", "of": ["rlhf_jax.world:human_rating", 3]}, "b": None}
  assert first_names(config) == old and current_names(old) == config and current_names(config) == config
