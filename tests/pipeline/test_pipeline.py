"""A run is its stages, each carried out once and only as configured: with toy stages in files of their own."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import pytest
from tiny_chain import recipe

import rlhf_jax
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.settings import ConfigError, import_module
from rlhf_jax.stage import ImportedModel

STAGE = """
from __future__ import annotations
import dataclasses
from typing import Literal
from rlhf_jax.settings import FunctionName
from rlhf_jax.stage import StageName

@dataclasses.dataclass(frozen=True)
class Part:
  rate: float

@dataclasses.dataclass(frozen=True)
class Config:
  algorithm: str
  value: int
  reads: str
  model: StageName
  ranking: Literal["a", "b", "c"]
  score: FunctionName
  part: Part

def run(config, stage):
  log = stage.root / "log.txt"
  log.write_text((log.read_text() if log.exists() else "") + f"{stage.name} {config.value} ")
  if (stage.root / f"{stage.name}.fails").exists():
    raise RuntimeError(f"{stage.name} failed")
  (stage.directory / "data.jsonl").touch()
"""


@pytest.fixture
def config(tmp_path):
  """Three stages: b reads a's file, c reads b by its name; whatever is called like a stage is none by that alone."""
  path = tmp_path / "toy_stage.py"
  path.write_text(STAGE)

  def section(value, reads, model=""):
    texts = {"reads": reads, "model": model, "ranking": "c", "score": ""}
    return {"algorithm": str(path), "value": value, **texts, "part": {"rate": 0.5}}

  return {
    "seed": 0,
    "stages": ["a", "b", "c"],
    "tokenizer": "{run}/a/data.jsonl",
    "model": dict(num_layers=1, d_model=2, num_heads=1, num_kv_heads=1, d_ff=2, max_length=4),
    "transport": dict(kind="jit", fsdp=1, microbatches=1),
    "a": section(1, "/elsewhere/text.txt"),
    "b": section(2, "{run}/a/data.jsonl"),
    "c": section(3, "a", "b"),
  }


@pytest.fixture
def workdir(tmp_path):
  return tmp_path / "run"


def log(workdir):
  return (workdir / "log.txt").read_text().split()


def refused(config, workdir):
  """The message the run is refused with; nothing may have been written."""
  before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
  with pytest.raises(ConfigError) as error:
    pipeline.run(config, workdir)
  assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
  assert "\n" not in str(error.value)
  return str(error.value)


def test_stages_run_in_order_and_once(config, workdir, capsys):
  pipeline.run(config, workdir)
  assert log(workdir) == ["a", "1", "b", "2", "c", "3"]
  out = capsys.readouterr().out
  assert re.findall(r"\[(\d)/3\] (\w): done in 0 s", out) == [("1", "a"), ("2", "b"), ("3", "c")]
  pipeline.run(config, workdir)
  assert log(workdir) == ["a", "1", "b", "2", "c", "3"]
  assert capsys.readouterr().out.splitlines() == [f"[{i}/3] {name}: done already" for i, name in enumerate("abc", 1)]


def test_the_files_of_a_run(config, workdir):
  pipeline.run(config, workdir, command="rlhf-jax run --config x.py")
  assert json.loads((workdir / "config.json").read_text()) == config
  assert (workdir / "command.txt").read_text() == "rlhf-jax run --config x.py\n"
  environment = json.loads((workdir / "environment.json").read_text())
  assert environment["versions"]["jax"] == jax.__version__ and environment["num_devices"] == 8
  fingerprints = set()
  for name in "abc":
    assert json.loads((workdir / name / "config.json").read_text()) == config[name]
    done = json.loads((workdir / name / "done.json").read_text())
    made_from = {"fingerprint", "inputs", "code", "package", "upstream", "environment"}
    assert set(done) == made_from | {"files", "shown", "seconds", "timeline", "command"} and done["seconds"] < 5
    assert done["environment"] == environment
    assert done["command"] == "rlhf-jax run --config x.py"
    fingerprints.add(done["fingerprint"])
  assert len(fingerprints) == 3
  assert {path.name for path in workdir.rglob("*")} == {
    *("config.json", "command.txt", "environment.json", "report.html", "content_hashes.json"),
    *("log.txt", "a", "b", "c", "done.json", "data.jsonl"),
  }


def test_a_stage_that_fails_is_taken_up_again(config, workdir):
  workdir.mkdir()
  (workdir / "b.fails").touch()
  with pytest.raises(RuntimeError, match="b failed"):
    pipeline.run(config, workdir)
  assert [(workdir / name / "done.json").exists() for name in "abc"] == [True, False, False]
  (workdir / "b.fails").unlink()
  pipeline.run(config, workdir)
  assert log(workdir) == ["a", "1", "b", "2", "b", "2", "c", "3"]


def test_an_unfinished_stage_may_change(config, workdir):
  workdir.mkdir()
  (workdir / "b.fails").touch()
  with pytest.raises(RuntimeError):
    pipeline.run(config, workdir)
  (workdir / "b.fails").unlink()
  config["b"]["value"] = 7
  pipeline.run(config, workdir)
  assert log(workdir) == ["a", "1", "b", "2", "b", "7", "c", "3"]


def test_stages_may_be_added_to_a_finished_run(config, workdir):
  pipeline.run({**config, "stages": ["a", "b"]}, workdir)
  pipeline.run(config, workdir)
  assert log(workdir) == ["a", "1", "b", "2", "c", "3"]
  pipeline.run({**config, "transport": dict(kind="pmap", fsdp=1, microbatches=2)}, workdir)  # other hardware
  assert log(workdir) == ["a", "1", "b", "2", "c", "3"]


def test_a_changed_stage_is_refused(config, workdir):
  pipeline.run(config, workdir)
  config["b"]["value"] = 5
  config["b"]["part"]["rate"] = 0.25
  assert refused(config, workdir) == (
    f"stage 'b' in {workdir} was made with another config (b.part.rate: 0.5 then, 0.25 now; b.value: 2 then, 5 now). "
    f"Choose another --workdir, or make it anew with --redo b, which deletes it and what depends on it (c)"
  )


@pytest.mark.parametrize(
  "change",
  [
    lambda config: config.update(seed=1),
    lambda config: config["model"].update(d_ff=4),
    lambda config: config.update(tokenizer="other.json"),
  ],
)
def test_a_changed_seed_model_or_tokenizer_is_refused(config, workdir, change):
  pipeline.run(config, workdir)
  change(config)
  message = refused(config, workdir)
  assert "stage 'a'" in message and "an earlier stage, seed, model or tokenizer) has changed" in message


@pytest.mark.parametrize("reader, kept", [("b", "a"), ("c", "b")])
def test_what_reads_from_a_changed_stage_is_refused(config, workdir, reader, kept):
  """`a` is deleted and made anew with another config; b read its file, and c read b, so both are stale."""
  pipeline.run(config, workdir)
  config["a"]["value"] = 9
  for name in "abc":
    if name < reader:
      (workdir / name / "done.json").unlink()
  message = refused(config, workdir)
  assert f"stage {reader!r}" in message and "something it reads from (an earlier stage" in message


def test_a_stage_that_reads_nothing_of_a_changed_one_stays(config, workdir):
  config["c"]["model"] = ""
  config["tokenizer"] = ""  # of no stage: else every later stage depends on the one that trains it
  pipeline.run(config, workdir)
  for name in "ab":
    (workdir / name / "done.json").unlink()
  config["a"]["value"] = 9
  pipeline.run(config, workdir)
  assert log(workdir) == ["a", "1", "b", "2", "c", "3", "a", "9", "b", "2"]


@pytest.mark.parametrize("key, value", [("model", "c"), ("reads", "{run}/c/data.jsonl")])
def test_reading_from_a_later_stage_is_refused(config, workdir, key, value):
  config["b"][key] = value
  assert refused(config, workdir) == "config.b reads from 'c', which config.stages puts after it"


def test_a_typo_in_any_section_is_refused_before_anything_runs(config, workdir):
  config["c"]["part"]["raet"] = 1.0
  assert refused(config, workdir) == "config.c.part has no key 'raet'. Did you mean 'rate'?"
  assert not workdir.exists()


WRITES = 'WRITES = ("data.jsonl", "more.jsonl")\n'


@pytest.mark.parametrize(
  "key, value, message",
  [
    ("model", "bb", "config.c.model is 'bb', and no stage before it has that name. Did you mean 'b'?"),
    ("model", "c", "config.c.model is 'c', and no stage before it has that name. Known: a, b."),
    ("model", "/no/run/sft", "config.c.model: there is no directory /no/run/sft"),
    ("reads", "{run}/b/dat.jsonl", "config.c.reads is '{run}/b/dat.jsonl', and no stage before it writes that file. "
     "Did you mean '{run}/b/data.jsonl'?"),
    ("reads", "{run}/bb/more.jsonl", "config.c.reads is '{run}/bb/more.jsonl', and no stage before it writes that "
     "file. Did you mean '{run}/b/more.jsonl'?"),
    ("score", "json:lods", "config.c.score: json has no function 'lods'. Did you mean 'loads'?"),
    ("score", "jsn:loads", "config.c.score: cannot import 'jsn': No module named 'jsn'"),
  ],
)  # fmt: skip
def test_a_name_of_nothing_is_refused_before_anything_runs(config, workdir, key, value, message):
  path = Path(config["a"]["algorithm"])
  path.write_text(STAGE + WRITES)
  config["c"][key] = value
  assert refused(config, workdir) == message
  assert not workdir.exists()


def test_what_lies_in_the_run_directory_is_there(config, workdir):
  """Of another config, or put there; and which files a stage of one's own writes is known once it is done."""
  (workdir / "mine").mkdir(parents=True)
  (workdir / "mine" / "done.json").write_text('{"fingerprint": "of another config"}')
  config["c"].update(model="mine", reads="{run}/mine/done.json", score="json:loads")
  config["b"]["reads"] = "{run}/a/*.jsonl"
  pipeline.run({**config, "stages": ["a"]}, workdir)
  pipeline.run(config, workdir)
  (workdir / "c" / "done.json").unlink()
  config["c"]["reads"] = "{run}/b/dat.jsonl"
  assert "config.c.reads is '{run}/b/dat.jsonl', and no stage before it" in refused(config, workdir)


def test_a_tokenizer_that_no_stage_makes_is_refused(config, workdir):
  config["tokenizer"] = "{run}/aa/tokenizer.json"
  Path(config["a"]["algorithm"]).write_text(STAGE + 'WRITES = ("data.jsonl", "tokenizer.json")')
  message = "config.tokenizer is '{run}/aa/tokenizer.json', and no stage before it writes that file. Did you mean "
  assert refused(config, workdir) == message + "'{run}/a/tokenizer.json'?"
  config["tokenizer"] = "{run}/c/tokenizer.json"
  pipeline.run({**config, "stages": ["a"]}, workdir)  # the stage that trains it may come later


def test_stages_say_which_files_they_write():
  """A list of the files that other stages may read is whole: it holds every name in the stage's code."""
  lists = 0
  for package in ("algorithms", "stages"):
    for path in (Path(rlhf_jax.__file__).parent / package).glob("*.py"):
      listed = getattr(import_module(f"rlhf_jax.{package}.{path.stem}"), "WRITES", None)
      written = set(re.findall(r'stage\.directory / "([^"]+\.(?:jsonl|json|db))"', path.read_text()))
      assert listed is None or written <= set(listed), path
      lists += listed is not None
  assert lists > 8


def change(path, value):
  """A function that sets config[path[0]][path[1]]... to value, or deletes it where value is `...`."""

  def apply(config):
    *parents, last = path
    for key in parents:
      config = config[key]
    if value is ...:
      del config[last]
    else:
      config[last] = value

  return apply


@pytest.mark.parametrize(
  "changed, message",
  [
    (change(["tokeniser"], "x"), "config has no key 'tokeniser'. Did you mean 'tokenizer'?"),
    (change(["seed"], ...), "config lacks the key 'seed'."),
    (change(["seed"], "0"), "config.seed must be int, not '0'."),
    (change(["seed"], True), "config.seed must be int, not True."),
    (change(["tokenizer"], 3), "config.tokenizer must be str, not 3."),
    (change(["model"], 3), "config.model must be a mapping, not 3."),
    (change(["model", "d_modell"], 3), "config.model has no key 'd_modell'. Did you mean 'd_model'?"),
    (change(["transport", "kind"], "pmapp"), "config.transport.kind is 'pmapp'. Did you mean 'pmap'?"),
    (
      change(["transport"], dict(kind="pmap", fsdp=2, microbatches=1)),
      "config.transport: fsdp=2 needs kind='jit', not 'pmap'",
    ),
    (change(["stages"], "a"), "config.stages must be a tuple of names, not 'a'."),
    (change(["stages"], ["a", 1]), "config.stages must be a tuple of names, not ['a', 1]."),
    (change(["stages"], ["a", "b", "cc"]), "config.stages names 'cc', but there is no config.cc. Did you mean 'c'?"),
    (change(["stages"], ["a", "seed"]), "config.stages names 'seed', but there is no config.seed. Known: a, b, c."),
    (change(["stages"], ["a", "a"]), "config.stages names 'a' twice"),
    (
      change(["c", "algorithm"], "no_such_package"),
      "config.c.algorithm: cannot import 'no_such_package': No module named ",
    ),
    (
      change(["c", "algorithm"], "no_such_file.py"),
      "config.c.algorithm: no file no_such_file.py (relative paths start at ",
    ),
    (change(["c", "algorithm"], "json"), "config.c.algorithm: json has no 'Config', so it is no stage"),
    (change(["c", "algorithm"], ""), "config.c.algorithm must be the name of a module or the path of a .py file"),
    (change(["c", "algorithm"], ...), "config.c must be a mapping with the key 'algorithm', not {'value': 3, "),
    (change(["c"], 3), "config.c must be a mapping with the key 'algorithm', not 3."),
    (change(["c", "value"], ...), "config.c lacks the key 'value'."),
    (change(["c", "value"], 1.5), "config.c.value must be int, not 1.5."),
  ],
)
def test_a_mistake_anywhere_is_refused(config, workdir, changed, message):
  changed(config)
  found = refused(config, workdir)
  assert found == message or (not message.endswith(".") and found.startswith(message))
  assert not workdir.exists()


def test_a_section_that_no_stage_names_may_stay(config, workdir):
  """A recipe that ends early keeps the settings of the stages it leaves out."""
  pipeline.run({**config, "stages": ["a"]}, workdir)
  assert log(workdir) == ["a", "1"]


def test_a_stage_may_have_a_seed_of_its_own(config, workdir):
  """Other stages keep their fingerprints, so that they are not run again."""
  plain = [step.stage for step in plan(config, workdir)]
  seeded = [step.stage for step in plan({**config, "seeds": {"c": 5}}, workdir)]
  assert [stage.seed for stage in seeded] == [0, 0, 5] and seeded[2].stage_seed != plain[2].stage_seed
  assert [a.fingerprint == b.fingerprint for a, b in zip(plain, seeded, strict=True)] == [True, True, False]
  assert "config.seeds must be a mapping" in refused({**config, "seeds": {"c": 0.5}}, workdir)


def test_a_stage_may_have_a_model_of_its_own(config, workdir):
  """What its entry leaves out is the run's; other stages keep their fingerprints, so that they are not run again."""
  before = [step.stage for step in plan(config, workdir)]
  after = [step.stage for step in plan({**config, "models": {"c": {"d_ff": 4 * before[2].model.d_ff}}}, workdir)]
  assert after[2].model == dataclasses.replace(before[2].model, d_ff=4 * before[2].model.d_ff)
  assert after[0].model == before[0].model
  assert [a.fingerprint == b.fingerprint for a, b in zip(before, after, strict=True)] == [True, True, False]
  (published,) = {step.stage.model for step in plan({**config, "models": {"c": {"path": "x"}}}, workdir)[2:]}
  assert published == ImportedModel("x")
  assert "config.models must be a mapping" in refused({**config, "models": {"c": 2}}, workdir)
  assert "config.models names 'cc', but there is no config.cc. Did" in refused(
    {**config, "models": {"cc": {}}}, workdir
  )
  assert "config.models.c has no key 'd_fff'" in refused({**config, "models": {"c": {"d_fff": 2}}}, workdir)


def test_a_stage_knows_its_place(config, workdir):
  first, second, _ = plan(config, workdir)
  assert first.stage.directory == workdir / "a"
  assert second.stage.path("{run}/a/data.jsonl") == workdir / "a" / "data.jsonl"
  assert first.stage.stage_seed != second.stage.stage_seed
  assert first.stage.stage_seed == plan(config, workdir / "elsewhere")[0].stage.stage_seed
  assert not workdir.exists()


def test_another_tokenizer_is_another_run_for_every_stage_after_it(tmp_path, monkeypatch):
  from rlhf_jax.pipeline.recipe import load_config

  monkeypatch.chdir(tmp_path)
  arguments = ["--config", "quickstart", "--workdir", "x"]

  def prints(*overrides):
    config, _ = load_config([*arguments, *overrides])
    return {step.stage.name: step.stage.fingerprint for step in plan(config, tmp_path)}

  before, after = prints(), prints("--config.vocabulary.vocab_size=700")
  assert {name for name in before if before[name] == after[name]} == {"world"}


def test_a_missing_library_is_named_before_anything_runs(config, workdir):
  path = Path(config["a"]["algorithm"]).with_name("needs.py")
  config["c"]["algorithm"] = str(path)
  path.write_text(STAGE + 'NEEDS = ("json", "no_such_library")')
  expected = f"config.c.algorithm: {path} needs the library no_such_library: pip install no_such_library"
  assert refused(config, workdir) == expected
  path.write_text(STAGE + "import no_such_library")
  line = len(path.read_text().splitlines())
  what = f"raised ModuleNotFoundError: No module named 'no_such_library' ({path}:{line})"
  assert refused(config, workdir) == f"config.c.algorithm: importing {path} {what}"
  assert not workdir.exists()


@pytest.mark.parametrize(
  ("text", "what"),
  [
    ("\nfrom fractions import Fraction\nFraction(1, 0)\n", "raised ZeroDivisionError: Fraction(1, 0) (PATH:3)"),
    ("def score(x) return x\n", "raised SyntaxError: expected ':' (PATH:1)"),
    ("import sys\nsys.exit(3)\n", "called sys.exit: 3 (PATH:2)"),
  ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["algorithm", "score"])
def test_a_module_that_fails_when_it_is_imported_is_named(config, workdir, key, text, what):
  Path(config["a"]["algorithm"]).write_text(STAGE + WRITES)
  path = Path(config["a"]["algorithm"]).with_name("fails.py")
  path.write_text(text)
  config["c"][key] = str(path) if key == "algorithm" else f"{path}:score"
  assert refused(config, workdir) == f"config.c.{key}: importing {config['c'][key]} {what.replace('PATH', str(path))}"


def test_a_file_of_weights_that_cannot_be_read_here_is_named_before_anything_runs(config, workdir, monkeypatch):
  config["model"] = dict(path="model.gguf")
  monkeypatch.setitem(sys.modules, "gguf", None)
  assert "to read GGUF, install the package gguf" in refused(config, workdir)


@pytest.mark.parametrize("name", ["quickstart", "reinforce", "reinforce_plus_plus", "rloo", "grpo"])
def test_rl_at_temperature_0_is_refused(name, workdir):
  """The likeliest token needs no temperature to be divided by, and gives a policy nothing to compare."""
  config = recipe(name)
  stage = config["stages"][-2]
  config[stage]["environment"]["sampling"]["temperature"] = 0.0
  assert f"config.{stage}.environment: sampling.temperature=0 " in refused(config, workdir)
