"""`rlhf-jax doctor`: each rule on metrics that show its symptom, and silence on metrics that nearly do."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlhf_jax.cli import main
from rlhf_jax.tools.doctor import RULES, diagnosis_text, examine

ROOT = Path(__file__).parents[2]
OPTIMIZER = {"learning_rate": 5e-4, "warmup": 0.0, "clip_norm": 1.0, "weight_decay": 0.0}
SAMPLING = {"max_new_tokens": 28, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
REWARD = {"checkpoint": "reward_model", "function": ""}
POLICY = {
  "algorithm": "rlhf_jax.algorithms.ppo",
  "init": "sft",
  "num_steps": 40,
  "kl_coef": 0.15,
  "clip": 0.2,
  "value_clip": 0.2,
  "value_coef": 0.1,
  "value_init": "",
  "entropy_coef": 0.0,
  "epochs": 2,
  "minibatches": 2,
  "optimizer": OPTIMIZER,
  "environment": {
    "prompts": "prompts.jsonl",
    "batch_size": 16,
    "samples_per_prompt": 4,
    "sampling": SAMPLING,
    "reward": REWARD,
    "missing_eos_score": -1.0,
  },
}
LEARNER = {
  "algorithm": "rlhf_jax.algorithms.reward_model",
  "init": "sft",
  "comparisons": "pairs.jsonl",
  "num_epochs": 2,
  "likelihood": 0.0,
  "normalize_prompts": "prompts.jsonl",
  "optimizer": OPTIMIZER,
}
FEW = np.arange(40)
RISE = 1 - np.exp(-FEW / 8)  # from 0 to almost 1
NOISE = np.random.default_rng(0).normal(size=40)
HEALTHY_POLICY = {  # as in the quickstart's PPO
  "reward/proxy": 0.2 + 0.6 * RISE + 0.05 * NOISE,
  "reward/gold": 1.4 + 0.3 * RISE + 0.1 * NOISE,
  "reward/groups_alike": 0.45 * RISE,
  "response/length": 9.5 + 0.5 * NOISE[::-1],
  "response/finished": np.ones(40),
  "kl/reference": 1.4 * RISE,
  "kl/loss": 0.15 * RISE,
  "value/explained_variance": 0.7 * RISE,
  "policy/clip_fraction": 0.1 - 0.09 * RISE,
  "policy/entropy": 0.3 - 0.2 * RISE,
  "loss": 0.01 * NOISE + 0.02,
  "grad_norm": 0.6 + 0.1 * NOISE,
}
HEALTHY_LEARNER = {
  "loss": 0.7 - 0.25 * RISE + 0.05 * NOISE,
  "accuracy": 0.5 + 0.3 * RISE,
  "grad_norm": 1.2 + 0.3 * NOISE,
  "eval/loss": {20: 0.5, 30: 0.47, 40: 0.6},  # the last of a reward model is of normalised scores
  "eval/accuracy": {20: 0.7, 30: 0.72, 40: 0.74},
}


def interval(mean, low, high, num=500):
  return {"mean": mean, "low": low, "high": high, "num": num}


KNOWING = {  # as the quickstart's evaluation writes it
  "accuracy": interval(0.80, 0.76, 0.83),
  "style": {"accuracy": interval(0.80, 0.76, 0.83)},
  "kinds": {"wrong": {"accuracy": interval(0.85, 0.8, 0.9, 180), "gap": interval(0.18, 0.1, 0.26, 180)}},
  "min_gap": 0.5,
}


def rows(metrics):
  """{metric: one value a step, or {step: value}} as rows of a metrics.jsonl."""
  found = {}
  for name, values in metrics.items():
    pairs = values.items() if isinstance(values, dict) else enumerate(np.asarray(values, float).tolist(), start=1)
    for step, value in pairs:
      found.setdefault(step, {"step": step})[name] = value
  return [found[step] for step in sorted(found)]


def write_run(directory, sections, metrics, model=(), evaluation=None, samples=()):
  """A run with the stages `sections`, each with `metrics[name]`."""
  stages = [*sections, *(["evaluation"] if evaluation else [])]
  config = {"stages": stages, "seed": 0, "model": dict(model), **sections}
  directory.mkdir(parents=True, exist_ok=True)
  (directory / "config.json").write_text(json.dumps(config))
  for name, found in metrics.items():
    (directory / name).mkdir()
    (directory / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(found)))
  if evaluation:
    (directory / "evaluation").mkdir()
    (directory / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
    (directory / "evaluation" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
  return directory


def of_policy(directory, changed=(), section=(), **more):
  """A run with one stage of RL: what is not `changed` is healthy."""
  return write_run(
    directory, {"ppo": {**POLICY, **dict(section)}}, {"ppo": {**HEALTHY_POLICY, **dict(changed)}}, **more
  )


def of_learner(directory, changed=(), section=(), **more):
  """A run with one reward model: what is not `changed` is healthy."""
  return write_run(
    directory,
    {"reward_model": {**LEARNER, **dict(section)}},
    {"reward_model": {**HEALTHY_LEARNER, **dict(changed)}},
    **more,
  )


def symptoms(directory):
  return [finding.symptom for _, finding in examine(directory).findings]


def late(value, before=0.0, start=30):
  """`before` in the first steps, `value` from step `start` on."""
  return np.where(start > FEW, before, value)


def with_optimizer(**changed):
  return {"optimizer": {**OPTIMIZER, **changed}}


ONCE = {"epochs": 1, "minibatches": 1}
# symptom -> (what shows it, what nearly does), each as (metrics that differ, settings that differ)
POLICIES = {
  "loss of 0 at ratio 1": [({"loss": 1e-9 * NOISE}, ONCE), ({"loss": 1e-9 * NOISE}, {"epochs": 2, "minibatches": 1})],
  "groups without spread": [({"reward/groups_alike": late(0.82)}, {}), ({"reward/groups_alike": late(0.78)}, {})],
  "negative KL": [  # 64 responses a step: -4.5 / 64 = -0.07
    ({"kl/reference": late(-0.08, 0.1, 38)}, {}),
    ({"kl/reference": late(-0.08, 0.1, 39)}, {}),
  ],
  "sampler and trainer disagree": [
    ({"sampling/logp_gap": 0.03 + 0 * FEW}, {}),
    ({"sampling/logp_gap": 0.01 + 0 * FEW, "policy/first_gap_max": 1e-5 + 0 * FEW}, {}),
  ],
  "KL that jumps": [({"kl/reference": late(8.0, 1.4)}, {}), ({"kl/reference": late(6.0, 1.4)}, {})],
  "KL that runs away": [({"kl/reference": FEW / 3.5}, {}), ({"kl/reference": FEW / 4.5}, {})],
  "over-optimised reward": [
    ({"reward/gold": 1.4 + 0.1 * NOISE + 0.3 * (10 > FEW)}, {}),
    ({"reward/gold": 1.6 + 0.1 * NOISE + 0.1 * (10 > FEW)}, {}),
  ],
  "clipped share that grows": [
    ({"policy/clip_fraction": 0.1 + 0.2 * RISE}, {}),
    ({"policy/clip_fraction": 0.18 + 0.1 * RISE}, {}),
  ],
  "entropy collapse": [({"policy/entropy": late(0.029, 0.3)}, {}), ({"policy/entropy": late(0.031, 0.3)}, {})],
  "responses that do not finish": [
    ({"response/finished": late(0.08, 1.0)}, {}),
    ({"response/finished": late(0.12, 1.0)}, {}),
  ],
  "reward of length alone": [
    ({"response/length": 9 + 9 * RISE, "reward/proxy": 2 * RISE + 0.05 * NOISE}, {}),
    ({"response/length": 9 + 3 * RISE, "reward/proxy": 2 * RISE + 0.05 * NOISE}, {}),
  ],
  "value function that explains nothing": [
    ({"value/explained_variance": late(0.04, 0.5)}, {}),
    ({"value/explained_variance": late(0.06, -1.0)}, {}),
  ],
}
LEARNERS = {
  "learning rate of 0": [({}, with_optimizer(learning_rate=0.0)), ({}, with_optimizer(learning_rate=1e-9))],
  "numbers that are not finite": [({"loss": late(float("nan"), 0.5, 39)}, {}), ({}, {})],
  "nothing is learnt": [({"grad_norm": late(0.0, 1.0, 19)}, {}), ({"grad_norm": late(0.0, 1.0, 21)}, {})],
  "gradient norm always above the clip": [
    ({"grad_norm": 6 + 0.3 * NOISE}, {}),
    ({"grad_norm": late(6.0, 0.9, 1)}, {}),
  ],
  "loss that never fell": [({"loss": 0.693 + 0.002 * NOISE}, {}), ({"loss": 0.693 - 0.012 * RISE}, {})],
  "overfitting": [
    ({"eval/loss": {10: 0.5, 20: 0.48, 30: 0.54, 40: 0.53}}, {}),
    ({"eval/loss": {10: 0.5, 20: 0.48, 30: 0.7, 40: 0.52}}, {}),
  ],
  "reward model at chance": [
    ({"eval/accuracy": {20: 0.7, 30: 0.55, 40: 0.53}}, {}),
    ({"eval/accuracy": {20: 0.5, 30: 0.56, 40: 0.56}}, {}),
  ],
}


@pytest.mark.parametrize("symptom", POLICIES)
def test_a_policy_with_the_symptom_and_one_that_nearly_has_it(tmp_path, symptom):
  (shown, section), (almost, its_section) = POLICIES[symptom]
  assert symptoms(of_policy(tmp_path / "shown", shown, section)) == [symptom]
  assert symptoms(of_policy(tmp_path / "almost", almost, its_section)) == []


def test_what_a_sampler_is_off_by_and_what_answers_it(tmp_path):
  far = {"sampling/logp_gap": 0.03 + 0 * FEW}
  environment = POLICY["environment"]
  weighed = {"environment": {**environment, "importance": {"level": "token", "cap": 2.0}}}
  assert symptoms(of_policy(tmp_path / "weighed", far, weighed)) == []
  moved = {"policy/first_gap_max": 0.1 + 0 * FEW}
  assert symptoms(of_policy(tmp_path / "moved", moved, weighed)) == ["sampler and trainer disagree"]
  kept = {"environment": {**environment, "logp": "sampler"}}
  assert symptoms(of_policy(tmp_path / "kept", moved, kept)) == []  # there it is the sampler's gap


@pytest.mark.parametrize("symptom", LEARNERS)
def test_a_learner_with_the_symptom_and_one_that_nearly_has_it(tmp_path, symptom):
  (shown, section), (almost, its_section) = LEARNERS[symptom]
  assert symptoms(of_learner(tmp_path / "shown", shown, section)) == [symptom]
  assert symptoms(of_learner(tmp_path / "almost", almost, its_section)) == []


def test_a_learning_rate_of_0_is_seen_in_the_metrics(tmp_path):
  assert symptoms(of_learner(tmp_path / "none", {"learning_rate": np.zeros(40)})) == ["learning rate of 0"]
  assert symptoms(of_learner(tmp_path / "falling", {"learning_rate": 1e-3 * (39 - FEW)})) == []


@pytest.mark.parametrize(
  "fall, spread, found",
  [  # from 0.7, where 1 % is 0.007; with +spread and -spread in turn, two standard errors are 0.943 spread
    (0.0080, 0.1, []),
    (0.0060, 0.1, ["loss that never fell"]),
    (0.0010, 0.001, []),
    (0.0009, 0.001, ["loss that never fell"]),
    (-0.3, 0.1, ["loss that never fell"]),
  ],
)
def test_a_loss_falls_where_it_falls_by_a_percent_or_beyond_its_noise(tmp_path, fall, spread, found):
  loss = 0.7 + spread * (-1.0) ** FEW - late(fall)
  assert symptoms(of_learner(tmp_path / "run", {"loss": loss})) == found


def test_a_reward_of_brevity_is_one_of_length(tmp_path):
  shorter = {"response/length": 9 - 4 * RISE, "reward/proxy": 2 * RISE + 0.05 * NOISE}
  assert symptoms(of_policy(tmp_path / "run", shorter)) == ["reward of length alone"]


@pytest.mark.parametrize("stage, found", [("ppo", []), ("reward_model", []), ("ppo_no_kl", ["over-optimised reward"])])
def test_measured_runs(tmp_path, stage, found):
  """The metrics of seed 0 of the quickstart and of kl_ablation, whose PPO has no KL penalty."""
  section = LEARNER if stage == "reward_model" else POLICY
  run = write_run(tmp_path / "run", {stage: section}, {stage: {}})
  (run / stage / "metrics.jsonl").write_text((Path(__file__).parent / "measured" / f"{stage}.jsonl").read_text())
  assert symptoms(run) == found


@pytest.mark.parametrize(
  "losses, trained",
  [
    ({20: 0.48, 30: 0.52, 40: 0.7}, 0.7 - 0.25 * RISE),  # the scores of a reward model are normalised before the last
    ({30: 0.48, 40: 0.7}, 0.7 - 0.25 * RISE),
    ({10: 0.48, 20: 0.6, 40: 0.7}, 0.5 + 0.25 * RISE),  # what diverges is not learnt by heart
  ],
)
def test_what_is_not_overfitting(tmp_path, losses, trained):
  assert "overfitting" not in symptoms(of_learner(tmp_path / "run", {"eval/loss": losses, "loss": trained}))


def test_a_kl_estimate_that_one_token_rules_is_a_jump_and_names_its_kind(tmp_path):
  spike = {"kl/loss": late(0.15, 3e6, 1)}
  assert symptoms(of_policy(tmp_path / "high", spike, {"kl_kind": "k3"})) == ["KL that jumps"]
  assert "set to k2: config.ppo.kl_kind (k3 in this run)" in diagnosis_text(examine(tmp_path / "high"))
  assert symptoms(of_policy(tmp_path / "low", {"kl/loss": late(0.15, 9.0, 1)}, {"kl_kind": "k3"})) == []


@pytest.mark.parametrize("weight, found", [(0.5, ["reward of length alone"]), (0.2, [])])
def test_the_reward_of_kept_responses_against_their_length(tmp_path, weight, found):
  samples = [
    {"prompt": "p", "responses": {"ppo": "w " * (i + 1)}, "proxy": {"ppo": weight * i + NOISE[i]}} for i in range(20)
  ]
  assert symptoms(of_policy(tmp_path / "run", evaluation={"models": {}}, samples=samples)) == found


@pytest.mark.parametrize("weight, found", [(0.5, ["reward of length alone"]), (0.2, [])])
def test_the_reward_of_recorded_responses_against_their_length(tmp_path, weight, found):
  """The last 40 rows count: before them the reward is of anything else."""
  run = of_policy(tmp_path / "run")
  early = [{"step": 1, "response": "w", "reward": 5.0 + i} for i in range(20)]
  end = [{"step": 40, "response": "w " * (i % 20 + 1), "reward": weight * (i % 20) + NOISE[i]} for i in range(40)]
  text = "".join(json.dumps(row) + "\n" for row in [*early, {"step": 2}, *end])
  (run / "ppo" / "samples.jsonl").write_text(text)
  assert symptoms(run) == found


def with_measured(**changed):
  return {"models": {}, "reward_model": {"reward_model": {**KNOWING, **changed}}}


@pytest.mark.parametrize(
  "changed, found",
  [
    ({}, []),
    ({"accuracy": interval(0.58, 0.49, 0.67), "style": {}}, ["reward model at chance"]),
    ({"accuracy": interval(0.58, 0.51, 0.65), "style": {}}, []),
    ({"accuracy": interval(0.72, 0.68, 0.76)}, ["reward model no better than style"]),
    ({"accuracy": interval(0.78, 0.75, 0.81)}, []),
    ({"kinds": {"wrong": {"gap": interval(0.05, -0.01, 0.11)}}}, ["reward model no better than style"]),
    ({"kinds": {"wrong": {"gap": interval(0.05, 0.01, 0.09)}}}, []),
    ({"kinds": {"style": {"gap": interval(-0.05, -0.1, 0.0)}}}, []),
  ],
)
def test_a_reward_model_as_the_evaluation_measured_it(tmp_path, changed, found):
  assert symptoms(of_learner(tmp_path / "run", evaluation=with_measured(**changed))) == found


def test_only_what_looks_like_a_fault_is_no_fault(tmp_path, capsys):
  of_policy(tmp_path / "run", {"loss": 1e-9 * NOISE}, ONCE)
  assert main(["doctor", str(tmp_path / "run")]) == 0
  text = capsys.readouterr().out
  assert "ppo: loss of 0 at ratio 1 (no fault)" in text and "nothing found in the metrics of ppo" in text


def test_findings_have_evidence_settings_and_exit_status_1(tmp_path, capsys):
  of_policy(tmp_path / "run", {"policy/entropy": late(0.004, 0.3, 20)})
  assert main(["doctor", str(tmp_path / "run")]) == 1
  text = capsys.readouterr().out
  assert text.startswith("ppo: entropy collapse\n")
  assert "policy/entropy 0.3 (steps 1 to 4) nats a token, then 0.004 (steps 31 to 40)" in text
  assert "raise config.ppo.entropy_coef (0.0 in this run)" in text
  assert "raise config.ppo.environment.sampling.temperature (0.7 in this run)" in text
  assert "nothing found" not in text


def test_settings_that_the_run_lacks_are_not_proposed(tmp_path):
  entropy = {"policy/entropy": late(0.004, 0.3, 20)}
  of_policy(tmp_path / "run", entropy)
  config = json.loads((tmp_path / "run" / "config.json").read_text())
  del config["ppo"]["entropy_coef"]
  (tmp_path / "run" / "config.json").write_text(json.dumps(config))
  assert "entropy_coef" not in diagnosis_text(examine(tmp_path / "run"))


def test_a_reward_model_of_a_few_steps_is_not_judged(tmp_path):
  of_learner(tmp_path / "few", {name: np.array([0.5, 0.52] * 3) for name in ("loss", "accuracy", "grad_norm")} | {
    "eval/accuracy": {6: 0.5}, "eval/loss": {6: 0.7}
  })  # fmt: skip
  assert not examine(tmp_path / "few").findings


def test_a_value_function_whose_head_began_anew_has_time_to_learn(tmp_path):
  useless = {name: values[:39] for name, values in HEALTHY_POLICY.items()}
  useless["value/explained_variance"] = np.full(39, -0.1)
  of_policy(tmp_path / "fresh", useless)
  of_policy(tmp_path / "started", useless, {"value_init": "reward_model"})
  found = [[one.symptom for _, one in examine(tmp_path / run).findings] for run in ("fresh", "started")]
  assert found == [[], ["value function that explains nothing"]]


def test_the_precision_is_named_where_the_kl_is_negative(tmp_path):
  of_policy(tmp_path / "run", {"kl/reference": late(-0.5, 0.1)}, {}, model={"dtype": "bfloat16"})
  assert "set to float32: config.model.dtype (bfloat16 in this run)" in diagnosis_text(examine(tmp_path / "run"))


def test_a_run_without_metrics_says_so(tmp_path, capsys):
  write_run(tmp_path / "run", {"ppo": POLICY}, {})
  assert main(["doctor", str(tmp_path / "run")]) == 0
  assert capsys.readouterr().out == "nothing found: no stage has metrics yet\n"


def test_a_directory_that_is_no_run_is_one_line(tmp_path, capsys):
  assert main(["doctor", str(tmp_path)]) == 2
  assert capsys.readouterr().err.count("\n") == 1


def test_lines_that_cannot_be_read_are_named(tmp_path):
  run = of_policy(tmp_path / "run")
  with (run / "ppo" / "metrics.jsonl").open("a") as file:
    file.write('{"step": 41, "lo\n')
  text = diagnosis_text(examine(run))
  assert "could not be read: ppo/metrics.jsonl: 1 line(s)" in text


def test_stages_of_other_configs_are_examined(tmp_path):
  run = of_policy(tmp_path / "run")
  other = {**HEALTHY_POLICY, "policy/entropy": late(0.004, 0.3, 20)}
  (run / "grpo").mkdir()
  (run / "grpo" / "config.json").write_text(json.dumps(POLICY))
  (run / "grpo" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(other)))
  found = [(name, finding.symptom) for name, finding in examine(run).findings]
  assert found == [("grpo", "entropy collapse")]
  assert examine(run).stages == ["ppo", "grpo"]


@pytest.mark.parametrize("steps", range(1, 8))
def test_the_first_steps_of_a_healthy_run_show_nothing(tmp_path, steps):
  first = {name: values[:steps] for name, values in HEALTHY_POLICY.items()}
  write_run(tmp_path / "run", {"ppo": POLICY}, {"ppo": first})
  assert symptoms(tmp_path / "run") == []


def test_a_stage_without_metrics_that_a_rule_reads_is_passed_over(tmp_path):
  """A stage of a user's own logs what it likes, under a config of its own."""
  write_run(tmp_path / "run", {"own": {"algorithm": "my.py"}}, {"own": {"reward/proxy": RISE, "other": -RISE}})
  assert symptoms(tmp_path / "run") == []


def test_every_rule_says_where_its_thresholds_come_from_and_has_a_test():
  assert all(rule.__doc__ for rule in RULES)
  assert len(POLICIES) + len(LEARNERS) + len(["reward model no better than style"]) == len(RULES)


def test_the_page_lists_every_symptom():
  text = (ROOT / "docs" / "doctor.md").read_text()
  listed = [name for name in re.findall(r"^\| ([^|]+?) \|", text, flags=re.MULTILINE) if name != "symptom"]
  assert sorted(listed) == sorted([*POLICIES, *LEARNERS, "reward model no better than style"])


def test_files_alone_are_read_without_jax():
  script = "import sys, rlhf_jax.tools.doctor; print('jax' in sys.modules, 'flax' in sys.modules)"
  found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
  assert found.stdout.split() == ["False", "False"]
