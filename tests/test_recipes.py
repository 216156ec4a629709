"""Recipes: their docstrings, their arguments, and stages that no other test runs, in seconds on the tiny chain."""

import gzip
import json
import shlex

import pytest
from tiny_chain import ROOT, SAMPLING, SIZES, recipe, run_stages

from rlhf_jax.pipeline.catalogue import load_recipe, read_recipe, recipe_names
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.settings import ConfigError
from rlhf_jax.train.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("unoptimised")


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_opens_with_its_question_its_command_its_time_and_its_result(name):
  found = read_recipe(name)
  question, *rest = found.text.split("\n\n")
  assert question == found.question and question.endswith("?") and "\n" not in question
  commands = [shlex.split(line) for line in rest[0].splitlines()]
  assert all(line.startswith("  ") for line in rest[0].splitlines())
  runs = [words for words in commands if words[:2] == ["rlhf-jax", "run"]]
  assert runs and all(words[words.index("--config") + 1].partition(":")[0] == name for words in runs)
  assert all("--workdir" in words for words in runs)
  assert any(unit in found.time for unit in ("minute", "second")) and "core" in found.time
  assert found.result


def test_every_recipe_is_listed_and_its_experiment_exists():
  assert set(recipe_names()) == {
    path.relative_to(ROOT / "configs").with_suffix("").as_posix()
    for path in (ROOT / "configs").rglob("*.py")
    if path.stem not in ("__init__", "shapes")
  }
  for name in recipe_names():
    for word in read_recipe(name).text.split():
      if word.startswith("experiments/"):
        assert (ROOT / word.rstrip(".,:")).exists(), (name, word)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_accepted(name, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  with_path = ("hh", "smollm2_hh", "process_reward", "sentiment", "real_preferences")
  argument = ":pairs.jsonl" if name in with_path else ""
  config, _ = load_config(["--config", f"{name}{argument}", "--workdir", "x"])
  assert [step.stage.name for step in plan(config, tmp_path)] == list(config["stages"])


@pytest.mark.parametrize(
  ("name", "arg", "message"),
  [
    ("quickstart", "pp", "does not know 'pp'. Did you mean 'ppo'\\? Known: world, vocabulary, .*, ppo, evaluation"),
    ("quickstart", "xyzw", "does not know 'xyzw'. Known: world"),
    ("ppo", "clip", "the recipe ppo takes no argument, and 'clip' was given"),
    ("dpo", "ip", "Did you mean 'ipo'"),
    ("reinforce", "loo", "Known: none, moving_mean, leave_one_out, greedy, value, optimal_token, opo"),
    ("best_of_n", "many", "must be a number of at least 1, not 'many'"),
    ("feedback_kinds", "0", "must be a number of at least 1, not '0'"),
    ("smollm2_hh", "pairs.jsonl,fw", "Did you mean 'few'"),
    ("sentiment", "ratings,smal", "Did you mean 'small'"),
    ("real_preferences", "pairs,fw", "Did you mean 'few'"),
  ],
)
def test_an_argument_that_a_recipe_does_not_know_is_refused(name, arg, message):
  with pytest.raises(ValueError, match=message):
    recipe(name, arg)
  with pytest.raises(ConfigError, match=f"^--config {name}:{arg}: the "):
    load_recipe(f"{name}:{arg}")


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in ("hh", "mixture", "process_reward")])
def test_no_recipe_ignores_its_argument(name):
  """But those that take a path: hh, mixture and process_reward."""
  with pytest.raises(ValueError, match=name):
    recipe(name, ",no such argument")


@pytest.mark.parametrize("name", ["hh", "smollm2_hh"])
def test_a_recipe_that_needs_a_path_says_so(name):
  with pytest.raises(ValueError, match=f"the recipe {name} needs the path of the pairs: --config {name}:"):
    recipe(name)


def test_the_recipe_of_real_preferences_needs_their_directory():
  with pytest.raises(ValueError, match="needs the directory of hh_helpful_base_test.jsonl.gz and of hh_harmless"):
    recipe("real_preferences")


def test_the_recipe_of_ratings_needs_their_directory():
  with pytest.raises(ValueError, match="needs the directory of vader_ratings.tsv.gz: --config sentiment:DIR"):
    recipe("sentiment")


@pytest.mark.parametrize("recipe", ["feedback_kinds", "reward_from_feedback", "reward_from_feedback:ratings"])
def test_gradients_of_ratings_are_not_clipped_at_every_step(recipe):
  """Their norms are 7 to 16 (experiments/feedback_kinds); `doctor` names a clip that is a fifth of them."""
  config, _ = load_config(["--config", recipe, "--workdir", "x"])
  learners = [config[name] for name in config["stages"] if "kinds" in config[name] and "optimizer" in config[name]]
  for learner in learners:
    rated = any("rating" in source or "some_" in source for source in learner["feedback"])
    assert (learner["optimizer"]["clip_norm"] * 5 > 16) == rated, learner["feedback"]
  assert learners


def test_the_mixture_trains_on_the_world_and_on_files_of_ones_own(chain, tmp_path, capsys):
  rows = [{"instruction": f"Say {i}.", "input": "", "output": f"It is {i}."} for i in range(40)]
  with gzip.open(tmp_path / "alpaca.json.gz", "wt") as file:
    json.dump(rows, file)
  talk = [
    [{"role": "user", "content": f"Add {i}."}, {"role": "assistant", "content": f"{i} is added."}] * 2
    for i in range(20)
  ]
  (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in talk))
  config = recipe("mixture", f"{tmp_path}/alpaca.json.gz,{tmp_path}/chat.jsonl")
  assert config["sft"]["length"] == 512
  run_stages(config, chain, tmp_path / "run", {"sft": SIZES["sft"]})
  metrics = read_metrics(tmp_path / "run/sft/metrics.jsonl")
  assert len(metrics) > 2 and metrics[-1]["loss"] < metrics[0]["loss"] and metrics[-1]["eval/loss"] > 0
  told = capsys.readouterr().out
  for line in ("world  120 rows, 66.7%", "own_0  40 rows, 22.2%", "own_1  20 rows, 11.1%", "% full"):
    assert line in told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["verifiable", "dapo"])
def test_a_checked_answer_is_the_reward_and_the_measure(chain, tmp_path, name):
  config = recipe("verifiable", "" if name == "verifiable" else name)
  environment = dict(batch_size=2, samples_per_prompt=8, sampling=SAMPLING, missing_eos_score=None)
  sizes = dict(num_documents=200, num_demonstrations=12, num_prompts=96, num_eval_prompts=48)
  changes = {
    "problems_world": sizes,
    "problems": {},
    name: dict(init=f"{chain}/sft", num_steps=2, checkpoint_every=2, environment=environment),
    f"{name}_accuracy": dict(models=(f"{chain}/sft", name), batch_size=8, tasks=dict(problems=dict(max_new_tokens=8))),
  }
  run_stages(config, chain, tmp_path, changes)
  trained, asked = (
    [json.loads(line)["prompt"] for line in (tmp_path / f"problems/{part}.jsonl").read_text().splitlines()]
    for part in ("prompts", "eval_prompts")
  )
  assert len(trained) == 16 and len(asked) >= 8 and not {*trained} & {*asked}
  steps = read_metrics(tmp_path / name / "metrics.jsonl")
  assert len(steps) == 2
  if name == "dapo":
    assert all(0 <= row["reward/function"] <= 1 and row["reward/overlong"] <= 0 for row in steps)
    assert all(row["refill/rounds"] <= 3 and row["refill/missing"] <= row["refill/dropped"] for row in steps)
  else:
    assert all(0 <= row["reward/proxy"] <= 1 for row in steps)
  found = json.loads((tmp_path / f"{name}_accuracy/few_shot.json").read_text())["tasks"]["problems"]["models"]
  assert len(found) == 2
  for model in found.values():
    right = model["0"]["measures"]["score"]
    assert right["num"] and (right["mean"] * right["num"]) % 1 == pytest.approx(0)
