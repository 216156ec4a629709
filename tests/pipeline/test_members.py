"""A population of runs: PPO with several seeds and learning rates as one program, equal to the same runs alone."""

import contextlib
import json
import os
import signal

import jax
import pytest
from tiny_chain import PPO_STEPS, SAMPLING, STAGES, merged, programs_kept, recipe

from rlhf_jax.pipeline import members
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.pipeline.recipe import load_population
from rlhf_jax.settings import ConfigError
from rlhf_jax.tools.ask import answer, open_models
from rlhf_jax.train import Interrupted
from rlhf_jax.train.metrics import read_metrics

SHARED = STAGES[: STAGES.index("ppo")]
RATE = "ppo.optimizer.learning_rate"
VARY = {RATE: [5e-4, 2e-3]}  # the first is the recipe's


def config_of(chain, last="ppo"):
  """The chain's config up to the stage `last`."""
  config = json.loads((chain / "config.json").read_text())
  return {**config, "stages": STAGES[: STAGES.index(last) + 1]}


def link(chain, directory, stages=SHARED):
  directory.mkdir(parents=True)
  for name in stages:
    (directory / name).symlink_to(chain / name)


@contextlib.contextmanager
def stopped():
  yield lambda: True


@contextlib.contextmanager
def compiled(programs):
  """On one device, for which programs compile in a third of the time; what is compiled twice is kept."""
  with programs_kept(programs), pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "device_count", lambda: 1)
    yield patch


@pytest.fixture(scope="module")
def population(chain, programs, tmp_path_factory):
  """Two seeds of two learning rates, stopped after the first step and continued."""
  workdir = tmp_path_factory.mktemp("population") / "run"
  link(chain, workdir)
  with compiled(programs) as patch:
    with patch.context() as stop, pytest.raises(Interrupted):
      stop.setattr(members, "stop_on_signal", stopped)
      members.run(config_of(chain), workdir, 2, VARY)
    assert [len(rows(workdir, name)) for name in members.members(config_of(chain), 2, VARY)] == [1] * 4
    members.run(config_of(chain), workdir, 2, VARY, "the command")
  return workdir


def rows(workdir, name):
  return read_metrics(workdir / "members" / name / "ppo" / "metrics.jsonl")


@pytest.mark.parametrize(
  "name", [f"{RATE}=0.002,seed=1", pytest.param(f"{RATE}=0.0005,seed=0", marks=pytest.mark.slow)]
)
def test_members_equal_their_solo_runs(population, chain, programs, name, tmp_path):
  config = json.loads((population / "members" / name / "config.json").read_text())
  link(chain, tmp_path / "solo")
  with compiled(programs):
    pipeline.run(config, tmp_path / "solo")
  alone = read_metrics(tmp_path / "solo" / "ppo" / "metrics.jsonl")
  assert len(alone) == len(rows(population, name)) == PPO_STEPS
  for expected, got in zip(alone[:2], rows(population, name)[:2], strict=True):
    assert got == {key: pytest.approx(value, rel=1e-4, abs=1e-6) for key, value in expected.items()}
  assert {"reward/proxy", "kl/reference", "value/loss", "grad_norm"} <= set(alone[0])


def test_all_members_shared_their_programs(population):
  programs = json.loads((population / "programs.json").read_text())
  assert len(programs) >= 4 and set(programs.values()) == {1}, programs


def test_members_differ(population):
  first = {name: tuple(rows(population, name)[1].values()) for name in os.listdir(population / "members")}
  assert len(first) == len(set(first.values())) == 4


def test_a_member_is_a_run_directory(population):
  member = population / "members" / f"{RATE}=0.002,seed=1"
  config = json.loads((member / "config.json").read_text())
  assert config["ppo"]["optimizer"]["learning_rate"] == 0.002
  assert config["seeds"] == {"ppo": 1} and config["seed"] == 0
  models = open_models(member, SAMPLING["temperature"], 4)
  assert list(models) == ["pretrain", "sft", "ppo"] and answer(models, "Where does Max live?", 0).count("|") == 3
  assert not (population / "ppo").exists()


def test_the_report_shows_the_population(population):
  page = (population / "report.html").read_text()
  assert 'id="population"' in page and "4 members" in page and f"IQM of {RATE}=0.002" in page
  assert (population / "population.png").stat().st_size > 10_000


def test_what_is_done_is_not_run_again_and_what_changed_is_refused(population, chain):
  before = {path: path.stat().st_mtime_ns for path in population.rglob("metrics.jsonl")}
  members.run(config_of(chain), population, 2, VARY)
  assert {path: path.stat().st_mtime_ns for path in population.rglob("metrics.jsonl")} == before
  changed = config_of(chain)
  changed["ppo"]["clip"] = 0.3
  with pytest.raises(ConfigError, match="ppo.clip: 0.2 then, 0.3 now"):
    members.run(changed, population, 2, VARY)


def test_names_and_stages_of_members(chain):
  config = config_of(chain)
  assert list(members.members(config, 2, {})) == ["seed=0", "seed=1"]
  (only,) = members.members(config, 0, {"ppo.kl_coef": [0.2]}).items()
  assert only[0] == "ppo.kl_coef=0.2" and "seeds" not in only[1] and config["ppo"]["kl_coef"] == 0.15
  early = members.members(config, 1, {"sft.optimizer.learning_rate": [1e-3]})
  assert list(early["sft.optimizer.learning_rate=0.001,seed=0"]["seeds"]) == list(STAGES[STAGES.index("sft") : -1])


@pytest.mark.parametrize(
  ("vary", "message"),
  [
    ({"ppo.kl_coeff": [0.1]}, "no key 'kl_coeff'. Did you mean 'kl_coef'?"),
    ({"pppo.kl_coef": [0.1]}, "'pppo' is no stage. Did you mean 'ppo'?"),
    ({"ppo.optimiser.eps": [0.1]}, "no mapping 'optimiser'. Did you mean 'optimizer'?"),
    ({"ppo.epochs": [1.0]}, "it is 2, and only floats vary"),
    ({"ppo.clip": [0.1, 0.1]}, "must be one or more, and differ"),
    ({"clip": [0.1]}, "'' is no stage"),
  ],
)
def test_a_mistake_is_named(chain, vary, message, tmp_path):
  with pytest.raises(ConfigError) as error:
    members.run(config_of(chain), tmp_path / "run", 1, vary)
  assert message in str(error.value) and not (tmp_path / "run").exists()


def test_what_cannot_be_a_population_is_refused(chain, tmp_path):
  config = config_of(chain)
  for changes, message in (
    ({"transport": {**config["transport"], "kind": "pmap"}}, "pmap"),
    ({"stages": ["world", "vocabulary"]}, "no stage with an optimizer"),
    ({"stages": ["world", "members"]}, "'members'"),
  ):
    with pytest.raises(ConfigError, match=message):
      members.run({**config, **changes}, tmp_path, 2, {})


def test_flags():
  assert load_population(["--config", "c.py", "--seeds", "8"]) == (8, {})
  assert load_population(["--vary", "a.b=0.1,2", "--vary=c.d=1e-3"]) == (0, {"a.b": [0.1, 2.0], "c.d": [0.001]})
  for flags in (["--seeds", "0"], ["--vary", "a.b"], ["--vary", "a.b=x"], ["--vary", "a=1", "--vary", "a=2"]):
    with pytest.raises(ConfigError, match=flags[0]):
      load_population(flags)


@pytest.mark.slow
def test_members_are_evaluated_each(chain, programs, tmp_path):
  link(chain, tmp_path / "run")
  with compiled(programs):
    members.run(config_of(chain, "evaluation"), tmp_path / "run", 2, {})
  assert set(json.loads((tmp_path / "run" / "programs.json").read_text()).values()) == {1}
  for name in ("seed=0", "seed=1"):
    member = tmp_path / "run" / "members" / name
    evaluation = json.loads((member / "evaluation" / "evaluation.json").read_text())
    assert set(evaluation["models"]) == {"pretrain", "sft", "ppo"} and (member / "report.html").exists()


@pytest.mark.slow
def test_one_member_that_fails_is_told_and_the_others_finish(chain, programs, tmp_path):
  link(chain, tmp_path / "run")
  config = config_of(chain)
  vary = {"ppo.value_coef": [0.1, float("inf")]}  # inf * the error of the value function
  with compiled(programs), pytest.raises(members.MemberError, match="1 of 2 .*value_coef=inf: the loss of ppo"):
    members.run(config, tmp_path / "run", 0, vary)
  assert len(rows(tmp_path / "run", "ppo.value_coef=0.1")) == PPO_STEPS
  assert (tmp_path / "run" / "population.json").exists()


def test_a_signal_stops_all_members(chain, programs, tmp_path, monkeypatch):
  link(chain, tmp_path / "run")
  write = pipeline.write_json

  def signalled(path, value):  # as the first member's stage begins
    if path.parent.name == "ppo" and path.name == "config.json":
      monkeypatch.undo()
      os.kill(os.getpid(), signal.SIGTERM)
    write(path, value)

  monkeypatch.setattr(pipeline, "write_json", signalled)
  with compiled(programs), pytest.raises(Interrupted):
    members.run(config_of(chain), tmp_path / "run", 2, VARY)
  steps = {name: len(rows(tmp_path / "run", name)) for name in members.members(config_of(chain), 2, VARY)}
  assert len(steps) == 4, "two rates of two seeds"
  assert all(1 <= done < PPO_STEPS for done in steps.values()), steps


PAIRS = dict(length=64, eval_fraction=0.2)
FEEDBACK = dict(
  PAIRS, feedback=("{run}/preferences/comparisons.jsonl",), annotators="", normalize_count=16, sampling=SAMPLING
)
RL = dict(num_steps=2, checkpoint_every=2, environment=dict(batch_size=4, sampling=SAMPLING, missing_eos_score=None))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "stage", "changes", "key"),
  [
    ("quickstart", "pretrain", {}, "optimizer.learning_rate"),
    ("quickstart", "sft", {}, "optimizer.learning_rate"),
    ("quickstart", "reward_model", {}, "optimizer.learning_rate"),
    ("reward_from_feedback", "reward_all", FEEDBACK, "optimizer.learning_rate"),
    ("dpo", "dpo", PAIRS, "loss.beta"),
    ("dpo:kto", "kto", PAIRS, "loss.desirable_weight"),
    ("reinforce", "reinforce", RL, "kl_coef"),
    ("rloo", "rloo", RL, "clip"),
    ("grpo", "grpo", RL, "kl_coef"),
    ("quickstart", "ppo", dict(num_steps=2), "environment.sampling.temperature"),
  ],
)
def test_any_training_step_is_that_of_a_population(chain, programs, tmp_path, name, stage, changes, key):
  shared = SHARED[: SHARED.index(stage)] if stage in SHARED else SHARED
  config = config_of(chain)
  section = config[stage] if name == "quickstart" else recipe(*name.split(":"))[stage]
  config |= {stage: merged(section, changes), "stages": [*shared, stage]}
  link(chain, tmp_path / "run", shared)
  *path, last = key.split(".")
  inner = config[stage]
  for part in path:
    inner = inner[part]
  vary = {f"{stage}.{key}": [inner[last], 1.5 * inner[last]]}
  with compiled(programs):
    members.run(config, tmp_path / "run", 0, vary)
    assert set(json.loads((tmp_path / "run" / "programs.json").read_text()).values()) == {1}
    found = {}
    for number, (member, own) in enumerate(members.members(config, 0, vary).items()):
      link(chain, tmp_path / str(number), shared)
      pipeline.run(own, tmp_path / str(number))
      alone = read_metrics(tmp_path / str(number) / stage / "metrics.jsonl")
      found[member] = read_metrics(tmp_path / "run" / "members" / member / stage / "metrics.jsonl")
      assert len(alone) == len(found[member])
      # abs: at first a margin of DPO is what little is left of log-probs of tens of nats.
      for expected, got in zip(alone[:2], found[member][:2], strict=True):
        assert got == {metric: pytest.approx(value, rel=1e-4, abs=1e-5) for metric, value in expected.items()}
  assert len({tuple(rows[1].values()) for rows in found.values()}) == 2
