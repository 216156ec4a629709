"""The comparison with other libraries: the same work, ratios, page and regressions; and, slow, small runs."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_chain import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import accelerator  # noqa: E402
import peers  # noqa: E402
from contenders import comparisons, page, ratios, regressions  # noqa: E402
from contenders.comparisons import COMPARISONS, JIT, OURS, TORCH, TRL, TRL_PPO, TUNIX  # noqa: E402
from contenders.gate import MARK  # noqa: E402
from contenders.processes import Failed, Live  # noqa: E402

MACHINE = {"device": "a CPU", "cpus": 2}
FACTS = {"loss": [9.0, 8.9, 8.8], "tokens": [512.0, 512.0, 512.0]}


def part(contenders, rounds=3):
  return {"command": "", "machine": MACHINE, "commit": "0123456789", "rounds": rounds, "contenders": contenders}


@pytest.fixture
def results():
  """Two cores: TRL takes 1.5, 2 and 3 times as long, torch fails; starts of SFT."""
  return {
    "sft, 2": part(
      {
        OURS: {"wall": [1.0, 2.0, 1.0], "cpu": [2.0, 4.0, 2.0], "facts": FACTS},
        TRL: {"wall": [1.5, 4.0, 3.0], "cpu": [3.0, 8.0, 6.0], "facts": FACTS},
        TORCH: {"error": "ended with status 1: no such file"},
      }
    ),
    "start_sft, 2": part({OURS: {"empty": [8.0], "warm": [4.0]}, TRL: {"warm": [6.0]}}, 1),
  }


def test_a_ratio_is_of_two_turns_of_one_round(results):
  steps, empty, warm = ratios.of_results(results)
  assert (steps.name, steps.goal) == ("sft, 2: TRL 1.16 over rlhf_jax, wall", 2.2)
  assert steps.spread == (2.0, 1.75, 2.5) and steps.seconds == (1.0, 3.0)
  assert (empty.spread.median, empty.goal, warm.spread.median, warm.goal) == (0.75, 0.5, 1.5, 1.0)


def test_on_one_core_the_clock_is_that_of_the_processor(results):
  (found,) = ratios.of_part("sft", 1, {name: results["sft, 2"]["contenders"][name] for name in (OURS, TRL)})
  assert (found.clock, found.seconds) == ("cpu", (2.0, 6.0))


def test_the_spread_of_one_round_is_that_round():
  assert ratios.Spread.of([1.5]) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"loss": [9.0, 8.9, 8.7]}, "loss of step 3 is 8.7 in the place of 8.8"),
    ({"tokens": [1024.0] * 3}, "tokens of step 1 is 1024 in the place of 512"),
    ({"tokens": []}, "it does not tell its tokens"),
    ({"score": [11.5]}, "score of step 1 is 11.5 in the place of 10"),
    ({"sampled": [[1, 2, 4, 4]]}, "75.0% of the greedy tokens are ours"),
  ],
  ids=["loss", "tokens", "no tokens", "score", "greedy"],
)
def test_other_work_is_told(change, said):
  ours = {**FACTS, "score": [10.0], "sampled": [[1, 2, 3, 4]]}
  assert comparisons.differences(COMPARISONS["sft"], ours, ours) == []
  assert comparisons.differences(COMPARISONS["sft"], ours, {**ours, **change})[0] == said


def test_sampled_responses_may_end_early_by_a_little():
  theirs = {"tokens": [500.0]}
  assert comparisons.differences(COMPARISONS["grpo"], {"tokens": [512.0]}, theirs) == []
  assert comparisons.differences(COMPARISONS["sft"], {"tokens": [512.0]}, theirs)
  assert comparisons.differences(COMPARISONS["grpo"], {"tokens": [512.0]}, {"tokens": [400.0]})


class FakeLive:
  """A contender whose steps take one second, or what its arguments say it does instead."""

  turns: list[str] = []
  facts = {"trl_trainers": {"loss": [5.0], "tokens": [512.0]}}

  def __init__(self, contender, *_):
    self.module = contender.module

  def result(self):
    if self.module == "careful_torch":
      raise Failed("ended with status 1: broken")
    facts = self.facts.get(self.module, {"loss": [9.0], "tokens": [512.0]})
    return {"wall": 1.0, "cpu": 2.0, "since_start": 3.0, "facts": facts}

  def take(self, steps):
    self.turns.append(f"{self.module} {steps}")
    return self.result()

  def close(self):
    self.turns.append(f"{self.module} closed")


def test_contenders_take_turns_and_errors_stay_in_the_results(monkeypatch, tmp_path):
  monkeypatch.setattr(peers, "Live", FakeLive)
  monkeypatch.setattr(FakeLive, "turns", [])
  monkeypatch.setattr(peers, "missing", lambda contender: ["tunix"] if contender.module == "tunix_trainers" else [])
  said = []
  found = peers.compare(COMPARISONS["sft"], tmp_path, 1, 2, None, said.append)
  assert found[TUNIX] == {"error": "not installed: tunix"}
  assert found[TORCH] == {"error": "ended with status 1: broken"}
  assert found[TRL]["error"].startswith("does other work: loss of step 1 is 5 in the place of 9")
  assert "wall" not in found[TRL] and len(said) == 2
  assert found[OURS]["wall"] == found[JIT]["wall"] == [0.5] * 2
  turns = [turn for turn in FakeLive.turns if not turn.endswith("closed")]
  assert turns == ["ours 2", "trl_trainers 2", "bare_jit 2", *["ours 2", "bare_jit 2"] * 2]  # first the warm-up
  assert FakeLive.turns.count("careful_torch closed") == 1


def test_a_start_is_timed_with_an_empty_and_with_a_warm_cache(monkeypatch, tmp_path):
  places = []

  class Starting(FakeLive):
    def __init__(self, contender, work, cores, trl_ppo, environment):
      super().__init__(contender)
      places.append((contender.module, environment["RLHF_JAX_CACHE"]))

    def result(self):
      if self.module == "trl_trainers" and len(places) > 3:
        raise Failed("ended with status 1: broken")
      return {"since_start": float(len(places)), "process_cpu": 0.5}

  monkeypatch.setattr(peers, "Live", Starting)
  monkeypatch.setattr(peers, "missing", lambda contender: [])
  found = peers.start("start_dpo", tmp_path, 1, 2, None, print)
  assert found[OURS] == {"empty": [1.0, 4.0], "warm": [2.0, 5.0], "cpu_empty": [0.5, 0.5], "cpu_warm": [0.5, 0.5]}
  assert found[TRL] == {"warm": [3.0], "cpu_warm": [0.5], "error": "ended with status 1: broken"}
  (first, second, _, third, *_) = [place for _, place in places]
  assert first == second != third


def test_without_this_project_there_is_no_comparison(monkeypatch, tmp_path):
  def fail(self):
    raise Failed("ended with status 2: no")

  monkeypatch.setattr(peers, "Live", FakeLive)
  monkeypatch.setattr(FakeLive, "result", fail)
  with pytest.raises(SystemExit, match="SFT: this project's own contender ended with status 2"):
    peers.compare(COMPARISONS["sft"], tmp_path, 1, 1, None, print)


def test_a_program_that_is_not_there_says_so(tmp_path):
  live = Live(comparisons.Contender("nothing", ()), tmp_path, 1, None, {})
  with pytest.raises(Failed, match="status 1: .*No module named contenders.nothing"):
    live.result()
  live.close()


GATED = """
import time
from contenders.gate import Gate
print("a library's line")
gate = Gate()
for index in range(100):
  time.sleep(0.01)
  gate.step(index=index, square=lambda: index**2)
"""


def test_the_gate_lets_as_many_steps_pass_as_are_asked_for():
  process = subprocess.run(
    [sys.executable, "-c", GATED], input="2\n3\n", capture_output=True, text=True, cwd=ROOT / "benchmarks"
  )
  lines = process.stdout.splitlines()
  assert lines[0] == "a library's line"
  found = [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]
  assert [batch["facts"]["index"] for batch in found] == [[0], [1, 2], [3, 4, 5]]
  assert found[1]["facts"]["square"] == [4, 4]  # fetched where the gate waits
  assert process.returncode == 0 and all(batch["wall"] >= 0.01 for batch in found)


def test_parts_that_are_there_are_known():
  assert peers.is_done(part({}, 7), 7, "0123456789")
  assert not peers.is_done(part({}, 7), 8, "0123456789")
  assert not peers.is_done(part({}, 7), 7, "another") and not peers.is_done({}, 7, "0123456789")


MARKS = """before
<!-- peers: begin -->
old
<!-- peers: end -->
<!-- peers starts: begin -->
<!-- peers starts: end -->
after
"""


def test_the_page_has_ratios_goals_and_errors(results):
  text = page.with_tables(MARKS, results, "cpu-2.json")
  assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
  assert "| SFT | TRL 1.16 | 1.000 / 3.000 | 2.00 [1.75, 2.50] | 2.2 |" in text
  assert "| SFT | careful torch |  | does not run | 1 |" in text
  assert "- sft, 2, careful torch: ended with status 1: no such file" in text
  assert "| SFT | 8.0 | 4.0 | 6.0 | 0.75 [0.75, 0.75] | 1.50 [1.50, 1.50] |" in text
  assert "Medians of 3 rounds with their quartiles, on a CPU, 2 cores, commit 012345678;" in text
  assert page.with_tables(text, results, "cpu-2.json") == text
  with pytest.raises(ValueError, match="marks of 'peers' once"):
    page.with_tables("", results, "cpu-2.json")


def test_the_plot_is_drawn(results, tmp_path):
  page.plot(list(ratios.of_results(results)), tmp_path / "x.png")
  assert (tmp_path / "x.png").read_bytes()[1:4] == b"PNG"


def test_the_page_has_the_committed_results():
  text = (ROOT / "docs/performance.md").read_text()
  named = re.findall(r"`benchmarks/results/([\w.-]+\.json)` has every round", text)
  assert len(named) <= 1
  if named:
    found = json.loads((ROOT / "benchmarks/results" / named[0]).read_text())
    assert page.with_tables(text, found, named[0]) == text  # else: python benchmarks/peers.py --page --out FILE
  else:
    assert "<!-- peers: begin -->\nNo table is recorded yet" in text


def slower(results, factor):
  changed = copy.deepcopy(results)
  ours = changed["sft, 2"]["contenders"][OURS]
  ours["wall"] = [factor * seconds for seconds in ours["wall"]]
  return changed


def test_what_fell_by_more_than_a_tenth_is_named(results, capsys):
  assert regressions.report(results, slower(results, 1.09)) == 0
  assert regressions.report(results, slower(results, 1.25)) == 1
  out = capsys.readouterr().out
  assert "fell: sft, 2: TRL 1.16 over rlhf_jax, wall: 2.00 before, 1.60 now, 20% less" in out
  assert "1 of 3 ratios fell by more than 10%" in out
  assert regressions.report(results, slower(results, 0.5)) == 0


def test_a_contender_that_no_longer_runs_is_named(results):
  broken = copy.deepcopy(results)
  broken["sft, 2"]["contenders"][TRL] = {"error": "does other work: tokens"}
  lost, absent = regressions.fallen(results, broken)
  assert lost == ["sft, 2: TRL 1.16 over rlhf_jax, wall: 2.00 before, and one of the two does not run now"]
  assert not absent


def test_a_part_that_was_not_measured_is_not_compared(results, capsys):
  fresh = {"sft, 2": results["sft, 2"]}
  assert regressions.report(results, fresh) == 0
  assert "not measured: start_sft, 2: TRL 1.16 over rlhf_jax, empty" in capsys.readouterr().out
  assert regressions.report(results, {}) == 1  # nothing was compared


def test_the_check_is_a_command(results, tmp_path):
  for name, found in (("before", results), ("now", slower(results, 2.0))):
    (tmp_path / f"{name}.json").write_text(json.dumps(found))
  command = [sys.executable, "benchmarks/peers.py", "--check", f"{tmp_path}/before.json", "--out"]
  assert subprocess.run([*command, f"{tmp_path}/before.json"], cwd=ROOT).returncode == 0
  assert subprocess.run([*command, f"{tmp_path}/now.json"], cwd=ROOT).returncode == 1


def test_every_goal_names_contenders_of_its_part():
  for name, comparison in COMPARISONS.items():
    assert next(iter(comparison.contenders)) == OURS, name  # whose facts the others' are compared with
    for goal in comparison.goals:
      assert {goal.ours, goal.peer} <= set(comparison.contenders), name


def test_requirements_have_the_versions_of_the_page():
  text = (ROOT / "benchmarks/requirements-peers.txt").read_text()
  assert "trl==1.16.0" in text and "google-tunix==0.1.7" in text and "trl==1.12.0" in text
  assert (TRL, TRL_PPO, TUNIX) == ("TRL 1.16", "TRL 1.12", "Tunix 0.1.7")


def run_script(*arguments, out: Path) -> dict:
  own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # without the tests' many devices
  command = [sys.executable, *arguments, "--out", str(out)]
  done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return json.loads(out.read_text())


@pytest.mark.slow
def test_a_small_comparison_runs(tmp_path):
  options = ["--small", "--rounds", "1", "--cores", "1", "--part", "sft", "--part", "greedy"]
  found = run_script("benchmarks/peers.py", *options, out=tmp_path / "out.json")
  assert list(found) == ["sft, 1", "greedy, 1"]
  for key, part in found.items():
    for library, contender in COMPARISONS[key.partition(",")[0]].contenders.items():
      result = part["contenders"][library]
      if comparisons.missing(contender):
        assert result["error"].startswith("not installed"), (key, library)
      else:
        assert "error" not in result and len(result["cpu"]) == 1, (key, library)


@pytest.mark.slow
def test_the_script_for_accelerators_runs_small(tmp_path):
  options = ["--small", "--rounds", "1", "--part", "sft", "--part", "decode", "--part", "ppo"]
  found = run_script("benchmarks/accelerator.py", *options, out=tmp_path / "out.json")
  assert found["sft"]["mfu"] > 0 and found["decode"]["batch 4"]["step_ms"] != 0
  assert 0 < found["ppo"][OURS]["share_of_generation"] < 1 and "skipped" in found["ppo"][TRL_PPO]


def test_without_an_accelerator_the_full_size_is_refused(monkeypatch):
  current = {"platform": "cpu", "versions": {"jax": "0"}}
  monkeypatch.setattr(accelerator, "run_inside", lambda *_: current)
  monkeypatch.setattr(sys, "argv", ["accelerator.py"])
  with pytest.raises(SystemExit, match="finds no GPU or TPU here.*--small"):
    accelerator.main()
