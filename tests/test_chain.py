"""The whole chain through the command line: configs/quickstart.py as it is but for its sizes, on simulated devices."""

import html
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
from tiny_chain import PPO_STEPS, SAMPLING, SIZES, STAGES, a_stage, recipe, run, run_stages

import rlhf_jax.train.loop
import rlhf_jax.world
from rlhf_jax import data
from rlhf_jax.cli import main
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.settings import ConfigError
from rlhf_jax.train import (
  Reward,
  Sampling,
  load_policy,
  load_prompts,
  load_stage,
  make_sampler,
  make_scorer,
  open_workspace,
  stage_key,
)
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.normalization import score_scale
from rlhf_jax.train.parameters import load_params
from rlhf_jax.train.rewards import model_scorer, text_scorer

pytestmark = pytest.mark.usefixtures("unoptimised")


@pytest.fixture(scope="module")
def workspace(chain):
  """(stage name -> Stage, tokenizer, model) of the chain."""
  stages = {step.stage.name: step.stage for step in plan(json.loads((chain / "config.json").read_text()), chain)}
  return stages, *open_workspace(stages["ppo"])


def ppo_alone(chain):
  """Overrides that take all that PPO needs from the finished chain, so that nothing else is run."""
  return (
    "--config.stages=('ppo',)",
    f"--config.tokenizer={chain}/vocabulary/tokenizer.json",
    f"--config.ppo.init={chain}/sft",
    f"--config.ppo.environment.prompts={chain}/world/prompts.jsonl",
    f"--config.ppo.environment.reward.checkpoint={chain}/reward_model",
    f"--config.ppo.value_init={chain}/reward_model",
  )


def load_head(stage):
  return jax.tree.map(np.asarray, load_params(stage / "checkpoints", {})["head"])


def assert_equal_trees(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_every_stage_is_done(chain):
  assert tuple(json.loads((chain / "config.json").read_text())["stages"]) == STAGES
  for name in STAGES:
    done = json.loads((chain / name / "done.json").read_text())
    made_from = {"fingerprint", "inputs", "code", "package", "upstream", "environment"}
    assert set(done) - {"step", "checkpoint"} == made_from | {"files", "shown", "seconds", "timeline", "command"}
    assert re.fullmatch("[0-9a-f]{16}", done["fingerprint"])
    assert ("checkpoint" in done) == (name in ("pretrain", "sft", "reward_model", "ppo"))
  assert not list(chain.rglob("*.partial"))


def test_the_command_line_is_kept(chain, tiny):
  assert (chain / "command.txt").read_text() == f"rlhf-jax run --config {tiny} --workdir {chain}\n"


def test_the_report_needs_nothing_but_itself(chain):
  page = (chain / "report.html").read_text()
  assert not re.search(r"""(src|href)\s*=\s*["']?(?!data:|#)[^\s"'#]""", page) and "@import" not in page
  assert not re.search(r"url\((?!['\"]?(data:|#))", page)
  assert "rlhf-jax run --config" in page
  assert all(name in page for name in ("pretrain", "sft", "ppo", "reward_model"))
  _, sample = data.read_rows(chain / "evaluation" / "samples.jsonl")[0]
  assert html.escape(sample["prompt"], quote=False) in page


@pytest.mark.parametrize(
  "stage, names, evaluated",
  [
    ("pretrain", {"loss"}, {"eval/loss"}),
    ("sft", {"loss"}, {"eval/loss"}),
    ("reward_model", {"loss", "accuracy"}, {"eval/accuracy"}),
    (
      "ppo",
      {
        *("reward/proxy", "reward/gold", "kl/reference", "kl/coef", "response/length", "response/finished", "loss"),
        *("policy/entropy", "policy/clip_fraction", "policy/approx_kl", "value/loss"),
      },
      set(),
    ),
  ],
)
def test_metrics_have_their_names_and_no_holes(chain, stage, names, evaluated):
  rows = read_metrics(chain / stage / "metrics.jsonl")
  assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
  for row in rows:
    assert names <= row.keys()
    assert all(np.isfinite(value) for value in row.values())
  assert evaluated <= rows[-1].keys()
  events = b"".join(path.read_bytes() for path in (chain / stage / "tensorboard").iterdir())
  assert all(name.encode() in events for name in names | evaluated)


def test_ppo_starts_at_the_reference_and_leaves_it(chain):
  rows = read_metrics(chain / "ppo" / "metrics.jsonl")
  assert len(rows) == PPO_STEPS
  assert abs(rows[0]["kl/reference"]) < 1e-4 < abs(rows[-1]["kl/reference"])
  sft, ppo = (load_params(chain / name / "checkpoints", {}) for name in ("sft", "ppo"))
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), sft["decoder"], ppo["policy"]["decoder"])
  assert min(jax.tree.leaves(moved)) > 0


def test_recorded_tokens_are_what_plain_forwards_give(chain, workspace):
  """The checkpoint of step 2 is the policy after that step and before the next, with the critic of its time."""
  stages, tokenizer, model = workspace
  params = load_stage(stages["ppo"], "ppo", model, tokenizer, 2)
  first, second, third = (np.load(chain / "ppo" / "samples" / f"{step}.npz") for step in (1, 2, 3))

  def forward(arrays):
    logits = np.asarray(model.apply(params["policy"], arrays["tokens"]), np.float64)  # at a temperature of 1
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    mask = arrays["mask"]
    logp = np.log(np.take_along_axis(p, arrays["tokens"][..., None], axis=-1)[..., 0])[mask]
    return mask, logp, -np.sum(p * np.log(np.maximum(p, 1e-30)), axis=-1)[mask]

  mask, logp, entropy = forward(second)
  np.testing.assert_allclose(second["logp_after"][mask], logp, atol=1e-4)
  np.testing.assert_allclose(second["entropy"][mask], entropy, atol=1e-4)
  mask, logp, _ = forward(third)
  np.testing.assert_allclose(third["logp"][mask], logp, atol=1e-4)
  values = np.asarray(model.value(params["value"], third["tokens"]))[mask]
  np.testing.assert_allclose(third["values"][mask], values, atol=1e-4)
  mask = first["mask"]
  np.testing.assert_array_equal(first["logp"][mask], first["logp_ref"][mask])  # the policy is the reference
  assert np.abs(first["logp_after"] - first["logp"])[mask].max() > 1e-4 and first["clipped"].dtype == bool


def test_inspect_and_the_report_show_tokens(chain, tmp_path, capsys):
  page = tmp_path / "page.html"
  assert main(["inspect", str(chain), "--stage", "ppo", "--out", str(page)]) == 0
  assert capsys.readouterr().out == f"{page}\n"
  text = page.read_text()
  assert [f"<h2>Step {step}</h2>" in text for step in (1, 2, 3, 4)] == [True, False, True, True]
  assert "Not recorded" not in text and 'value="clipped"' in text and 'class="value"' in text
  assert "Token by token: ppo" in (chain / "report.html").read_text()
  assert main(["inspect", str(chain), "--stage", "sft"]) == 2
  assert "stage 'sft' of" in capsys.readouterr().err and not (chain / "inspect.html").exists()


def test_samples_have_every_model(chain):
  rows = [row for _, row in data.read_rows(chain / "evaluation" / "samples.jsonl")]
  assert len(rows) == SIZES["evaluation"]["num_samples"]
  for row in rows:
    assert row["prompt"] and set(row["responses"]) == {"pretrain", "sft", "ppo"}
    assert set(row["gold"]) == set(row["proxy"]) == set(row["responses"])
  evaluation = json.loads((chain / "evaluation" / "evaluation.json").read_text())
  assert set(evaluation["models"]) == {"pretrain", "sft", "ppo"}
  assert evaluation["models"]["sft"]["win_rate"]["mean"] == 0.5  # against itself
  assert evaluation["models"]["sft"]["kl"]["mean"] == 0.0 != evaluation["models"]["ppo"]["kl"]["mean"]
  assert set(evaluation["baselines"]) == {"refusal", "admission", "commonest answer", "look-up"}
  for measures in evaluation["baselines"].values():
    assert {"proxy", "gold", "win_rate", "length"} <= measures.keys()
  assert {"accuracy", "label_ceiling", "style"} <= evaluation["reward_model"]["reward_model"].keys()
  calibrated = evaluation["reward_model"]["reward_model"]["calibration"]
  assert calibrated["scale"] == json.loads((chain / "reward_model" / "normalization.json").read_text())["std"]
  assert calibrated["labels"]["num"] and 0 <= calibrated["labels"]["error"] < 1 and calibrated["labels"]["bins"]
  assert calibrated["gold"]["num"] <= calibrated["labels"]["num"]  # most answers of so small a model are worth the same


def test_given_texts_are_scored_like_sampled_ones(chain, workspace):
  """The look-up's texts by the reward model: as if each had been sampled to its end."""
  stages, tokenizer, model = workspace
  judge = load_stage(stages["reward_model"], "reward_model", model, tokenizer)
  prompts, responses = ["Where does Tom live?", "Add 3 and 4."], ["Tom lives in Ashby.", "7"]
  score = text_scorer(model, tokenizer, judge, 2, stages["reward_model"].transport)
  found = score([*prompts, prompts[0]], [*responses, responses[0]])
  for prompt, response, value in zip(prompts, responses, found, strict=False):
    before, said = data.prompt_ids(tokenizer, prompt), data.response_ids(tokenizer, prompt, response)
    assert said[-1] == tokenizer.eos_id
    mask = np.arange(len(before + said)) >= len(before)
    assert model.score(judge, np.array([before + said]), mask[None])[0] == pytest.approx(value, abs=1e-5)
  assert found[2] == found[0] != found[1]
  with pytest.raises(data.DataError, match="1 of 1 texts cannot be scored: longer than 64 tokens"):
    score(prompts, ["Tom lives in Ashby.", "word " * 200])


def test_comparisons_are_readable(chain):
  comparisons, skips = data.read_comparisons(chain / "preferences" / "comparisons.jsonl")
  assert 40 < len(comparisons) <= SIZES["preferences"]["num_prompts"] and not skips
  settings = json.loads((chain / "config.json").read_text())["preferences"]
  most = settings["responses"] + settings["num_written"]
  prompts = set(data.read_prompts(chain / "world" / "prompts.jsonl")[0])
  for comparison in comparisons:
    assert comparison.prompt in prompts and comparison.annotator
    assert len(set(comparison.responses)) == len(comparison.ranks) and 0 in comparison.ranks
    assert 2 <= len(comparison.responses) <= most


def test_the_reward_model_is_normalised(chain, workspace):
  stages, tokenizer, model = workspace
  stage = stages["reward_model"]
  sampling = Sampling(**json.loads((chain / "reward_model" / "config.json").read_text())["sampling"])
  prompts = load_prompts("{run}/world/prompts.jsonl", a_stage(chain), tokenizer, sampling.max_prompt_tokens)
  _, batch = prompts.take(np.arange(SIZES["reward_model"]["normalize_count"]) % len(prompts.texts))
  sample = make_sampler(model, tokenizer, sampling, stage.transport)
  rollout, _ = sample(load_policy(stage, "sft", model, tokenizer), batch, stage_key(stage))
  scores = model_scorer(model, load_stage(stage, "reward_model", model, tokenizer), stage.transport)(rollout, (), ())
  assert len(scores) == SIZES["reward_model"]["normalize_count"]
  np.testing.assert_allclose([scores.mean(), scores.std()], [0, 1], atol=1e-4)
  moments = json.loads((chain / "reward_model" / "normalization.json").read_text())
  assert set(moments) == {"mean", "std", "num"} and moments["num"] == len(scores)
  assert score_scale(stage, "reward_model") == moments["std"] > 0
  assert score_scale(stage, "sft") is None and score_scale(stage, "reward_model@2") is None


def test_without_a_count_the_scores_stay_as_they_were_trained(chain, tmp_path):
  changes = {"reward_model": dict(**SIZES["reward_model"], sampling=SAMPLING)}
  changes["reward_model"]["normalize_count"] = 0
  run_stages(recipe("quickstart"), chain, tmp_path, changes, devices=8)
  normal, trained = (load_head(directory / "reward_model") for directory in (chain, tmp_path))
  scale = trained["kernel"] @ normal["kernel"] / (normal["kernel"] @ normal["kernel"])
  assert scale > 0 and abs(scale - 1) > 0.005  # else there was nothing to normalise
  np.testing.assert_allclose(trained["kernel"], scale * normal["kernel"], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(trained["likelihood"], scale * normal["likelihood"], rtol=1e-4)


def test_sample_asks_the_language_models_side_by_side(chain, capsys):
  assert main(["sample", str(chain), "Where does Tom live?", "--max-new-tokens", "8"]) == 0
  lines = capsys.readouterr().out.removesuffix("\n").split("\n")
  assert [line.partition(" | ")[0].strip() for line in lines] == ["pretrain", "sft", "ppo"]
  assert all(line.isprintable() for line in lines)


def test_a_prompt_that_is_too_long_does_not_end_the_asking(chain, capsys, monkeypatch):
  lines = iter(["Where does Tom live? " * 40, "Where does Tom live?"])
  monkeypatch.setattr("builtins.input", lambda prompt: next(lines, ""))
  assert main(["sample", str(chain), "--max-new-tokens", "8"]) == 0
  out = capsys.readouterr().out
  assert "the prompt: no prompt fits in max_prompt_tokens=56" in out
  assert [line.split("|")[0].strip() for line in out.splitlines()[-3:]] == ["pretrain", "sft", "ppo"]


def test_sample_needs_a_run_with_a_model(tmp_path, capsys):
  assert main(["sample", str(tmp_path), "Hello"]) == 2
  assert "is no run directory" in capsys.readouterr().err


def test_a_finished_run_does_nothing(chain, tiny, capsys):
  before = {path: path.stat().st_mtime_ns for name in STAGES for path in (chain / name).rglob("*")}
  assert run(tiny, chain) == 0
  out = capsys.readouterr().out
  assert out.count("done already") == len(STAGES)
  assert {path: path.stat().st_mtime_ns for name in STAGES for path in (chain / name).rglob("*")} == before


def test_an_interrupted_and_crashed_ppo_ends_bit_identical(chain, tiny, tmp_path, monkeypatch, capsys, compilations):
  """SIGINT in the first step, a crash in the fourth after the checkpoint of the second, then to the end."""
  gold = rlhf_jax.world.gold_reward
  event = {0: lambda: os.kill(os.getpid(), signal.SIGINT)}
  calls = []

  def monitor(prompts, responses, **arguments):
    event.get(len(calls), lambda: None)()
    calls.append(len(prompts))
    return gold(prompts, responses, **arguments)

  def crash():
    raise RuntimeError("crash")

  monkeypatch.setattr(rlhf_jax.world, "gold_reward", monitor)
  assert run(tiny, tmp_path, *ppo_alone(chain)) == 130
  assert "stopped at step 1 of 4 of ppo; the same command continues there" in capsys.readouterr().err
  assert len(calls) == 1 and not (tmp_path / "ppo" / "done.json").exists()
  event[3] = crash
  assert run(tiny, tmp_path, *ppo_alone(chain)) == 2 and "RuntimeError: crash" in capsys.readouterr().err
  event.clear()
  assert run(tiny, tmp_path, *ppo_alone(chain)) == 0
  assert len(calls) == 3 + 2  # step 1; 2, 3; then 3 again and 4
  assert compilations["jit(update)"] == compilations["jit(experience_of)"] == 3  # once in each run
  whole, resumed = (load_params(root / "ppo" / "checkpoints", {}) for root in (chain, tmp_path))
  assert_equal_trees(whole, resumed)
  assert read_metrics(chain / "ppo" / "metrics.jsonl") == read_metrics(tmp_path / "ppo" / "metrics.jsonl")


@pytest.mark.slow
def test_an_interrupted_sft_compiles_its_update_once_in_each_run(chain, tiny, tmp_path, monkeypatch, compilations):
  alone = (
    "--config.stages=('sft',)",
    f"--config.tokenizer={chain}/vocabulary/tokenizer.json",
    f"--config.sft.init={chain}/pretrain",
    f"--config.sft.demonstrations={chain}/world/demonstrations.jsonl",
  )
  with monkeypatch.context() as patch:
    patch.setattr(rlhf_jax.train.loop, "stopping", lambda: True)
    assert run(tiny, tmp_path, *alone) == 130
  assert compilations["jit(update)"] == 1 and len(read_metrics(tmp_path / "sft" / "metrics.jsonl")) == 1
  assert run(tiny, tmp_path, *alone) == 0
  assert compilations["jit(update)"] == 2 and len(read_metrics(tmp_path / "sft" / "metrics.jsonl")) > 2
  assert_equal_trees(*(load_params(root / "sft" / "checkpoints", {}) for root in (chain, tmp_path)))


def test_another_config_is_refused_in_the_middle_of_a_stage(chain, tiny, tmp_path, monkeypatch, capsys):
  gold = rlhf_jax.world.gold_reward

  def interrupt(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    return gold(*args, **kwargs)

  monkeypatch.setattr(rlhf_jax.world, "gold_reward", interrupt)
  assert run(tiny, tmp_path, *ppo_alone(chain)) == 130
  assert run(tiny, tmp_path, *ppo_alone(chain), "--config.ppo.clip=0.3") == 2
  assert (
    "was made with another config (ppo.clip: 0.2 then, 0.3 now). Choose another --workdir, or make it anew"
    in capsys.readouterr().err
  )


def test_a_learning_rate_of_zero_and_a_reward_from_a_file_of_ones_own(chain, tiny, tmp_path, monkeypatch):
  """The policy stays, the ratio is 1 to rounding, and the proxy reward is the weighted value of the function."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / "my_reward.py").write_text(
    "import json\n"
    "def score(prompts, responses, unit):\n"
    "  scores = [unit * len(response) for prompt, response in zip(prompts, responses, strict=True)]\n"
    "  open('scores.jsonl', 'a').write(json.dumps(scores) + '\\n')\n"
    "  return scores\n"
  )
  own_reward = (
    "--config.ppo.environment.reward.checkpoint=",
    "--config.ppo.environment.reward.function=my_reward.py:score",
    "--config.ppo.environment.reward.function_weight=2",
    "--config.ppo.environment.reward.arguments={'unit': 0.25}",
  )
  assert run(tiny, "own", *ppo_alone(chain), *own_reward, "--config.ppo.optimizer.learning_rate=0") == 0
  rows = read_metrics(tmp_path / "own" / "ppo" / "metrics.jsonl")
  scores = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
  np.testing.assert_allclose([row["reward/proxy"] for row in rows], 2 * np.mean(scores, axis=1), rtol=1e-6)
  for row in rows:
    assert row["policy/clip_fraction"] == 0
    assert abs(row["policy/approx_kl"]) < 1e-9 and abs(row["kl/reference"]) < 1e-4
  sft = load_params(chain / "sft" / "checkpoints", {})
  assert_equal_trees(load_params(tmp_path / "own" / "ppo" / "checkpoints", {})["policy"]["decoder"], sft["decoder"])


def test_pmap_and_jit_take_the_same_steps(chain, tiny, tmp_path):
  assert run(tiny, tmp_path, *ppo_alone(chain), "--config.transport.kind=pmap") == 0
  jit, pmap = (read_metrics(root / "ppo" / "metrics.jsonl") for root in (chain, tmp_path))
  for name in jit[0]:
    for step in (0, 1):
      assert pmap[step][name] == pytest.approx(jit[step][name], rel=1e-4, abs=1e-5), (name, step)


def test_checkpoint_and_function_are_a_weighted_sum(chain, workspace, tmp_path, monkeypatch):
  stages, tokenizer, model = workspace
  stage = stages["ppo"]
  monkeypatch.chdir(tmp_path)
  (tmp_path / "my_reward.py").write_text("def score(prompts, responses): return [len(r) for r in responses]\n")
  prompts = load_prompts("{run}/world/prompts.jsonl", a_stage(chain), tokenizer, SAMPLING["max_prompt_tokens"])
  texts, batch = prompts.take(range(16))
  sample = make_sampler(model, tokenizer, Sampling(**SAMPLING), stage.transport)
  rollout, responses = sample(load_policy(stage, "sft", model, tokenizer), batch, jax.random.key(0))
  both = make_scorer(Reward("reward_model", 0.5, "my_reward.py:score", -2.0), stage, model, tokenizer)
  alone = model_scorer(model, load_stage(stage, "reward_model", model, tokenizer), stage.transport)(
    rollout, texts, responses
  )
  assert alone.shape == (16,) and np.ptp(alone) > 0
  expected = 0.5 * alone - 2.0 * np.array([len(response) for response in responses])
  np.testing.assert_allclose(both(rollout, texts, responses), expected, rtol=1e-5)
  with pytest.raises(ConfigError, match="ppo.environment.reward.checkpoint: stage 'sft' is no reward model"):
    make_scorer(Reward("sft", 1.0, "", 0.0), stage, model, tokenizer)


def test_a_checkpoint_of_another_model_or_tokenizer_is_refused(chain, tiny, tmp_path, capsys):
  assert run(tiny, tmp_path / "model", *ppo_alone(chain), "--config.model.d_ff=64") == 2
  assert "belongs to another model: d_ff=48 there, 64 here" in capsys.readouterr().err
  tokenizer = data.train_tokenizer([(chain / "world" / "corpus.txt").read_text().upper()], 400)
  tokenizer.save(tmp_path / "tokenizer.json")
  tokenizer_flag = f"--config.tokenizer={tmp_path / 'tokenizer.json'}"
  assert run(tiny, tmp_path / "tokenizer", *ppo_alone(chain), tokenizer_flag) == 2
  assert "belongs to another tokenizer: " in capsys.readouterr().err
  assert run(tiny, tmp_path / "nothing", *ppo_alone(chain), f"--config.ppo.init={tmp_path}/absent") == 2
  assert f"config.ppo.init: there is no directory {tmp_path}/absent" in capsys.readouterr().err
  (tmp_path / "absent").mkdir()
  assert run(tiny, tmp_path / "nothing", *ppo_alone(chain), f"--config.ppo.init={tmp_path}/absent") == 2
  assert "has no checkpoint: run the stage that makes it first" in capsys.readouterr().err


def test_damaged_parameters_are_refused(chain, tiny, tmp_path, capsys):
  shutil.copytree(chain / "sft", tmp_path / "sft")
  for path in (tmp_path / "sft" / "checkpoints").glob("*/params/*.safetensors"):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
  assert run(tiny, tmp_path / "run", *ppo_alone(chain), f"--config.ppo.init={tmp_path}/sft") == 2
  assert re.search("is damaged|does not have the checksum", capsys.readouterr().err)


def test_prompts_that_are_too_long_are_counted(workspace, tmp_path, capsys):
  _, tokenizer, _ = workspace
  texts = ["Where does Tom live?", "Why? " * 30, "Where does Tom live?", "Who is it?"]
  data.write_rows(tmp_path / "prompts.jsonl", [{"prompt": text} for text in texts])
  prompts = load_prompts("{run}/prompts.jsonl", a_stage(tmp_path), tokenizer, 40)
  assert prompts.texts == ["Where does Tom live?", "Where does Tom live?", "Who is it?"]
  out = capsys.readouterr().out
  assert "skipped 1 of 4 rows: longer than 40 tokens" in out
  with pytest.raises(data.DataError, match="no prompt fits in max_prompt_tokens=3"):
    load_prompts("{run}/prompts.jsonl", a_stage(tmp_path), tokenizer, 3)


def test_an_empty_prompt_file_is_an_error(chain, tiny, tmp_path, capsys):
  (tmp_path / "prompts.jsonl").write_text("\n")
  prompts_flag = f"--config.ppo.environment.prompts={tmp_path / 'prompts.jsonl'}"
  assert run(tiny, tmp_path / "run", *ppo_alone(chain), prompts_flag) == 2
  assert (
    f"rlhf-jax: config.ppo.environment.prompts: {tmp_path / 'prompts.jsonl'}: the file is empty"
    in capsys.readouterr().err
  )
