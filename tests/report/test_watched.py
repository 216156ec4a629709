"""The report on what was kept while stages learnt: evaluations, samples and speed."""

import json

from rlhf_jax.report.read_run import read_run
from rlhf_jax.report.report import write_report
from rlhf_jax.report.watched import held_out, progress_samples, speeds, timeline

STEPS = (2, 4, 6, 8)


def write_rows(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sample(step, prompt, split="eval", **changes):
  row = {"step": step, "row": 0, "split": split, "prompt": prompt, "response": f"{prompt} at {step}", "reward": 0.5}
  return {**row, "parts": {"gold": 1.25}, "kl": 0.1, "finished": True, **changes}


def make_run(root, *, samples=(), evaluated=True):
  (root / "ppo").mkdir(parents=True)
  (root / "config.json").write_text(json.dumps({"stages": ["ppo"], "ppo": {"algorithm": "rlhf_jax.algorithms.ppo"}}))
  rows = [{"step": step, "reward/proxy": 0.1 * step, "loss": 1.0} for step in range(1, 9)]
  for row in rows if evaluated else ():
    if row["step"] in STEPS:
      win = 0.5 + row["step"] / 100
      row |= {"eval/gold": 1.0, "eval/gold_low": 0.9, "eval/gold_high": 1.1, "eval/win_rate": win}
  write_rows(root / "ppo" / "metrics.jsonl", rows)
  speed = [{"step": step, "seconds": 90.0 if step == 1 else 2.0, "mfu": 0.25} for step in range(1, 9)]
  write_rows(root / "ppo" / "speed.jsonl", speed)
  write_rows(root / "ppo" / "samples.jsonl", samples)
  return root


def test_evaluations_are_shown_at_the_first_a_middle_and_the_last_step(tmp_path):
  run = read_run(make_run(tmp_path / "run"))
  found = held_out(run, {"ppo": 0})
  assert found["headings"] == ["Gold reward", "Win rate"]
  assert [(stage, step) for stage, step, _ in found["rows"]] == [("ppo", "2"), ("ppo", "6"), ("ppo", "8")]
  assert found["rows"][0][2] == [("1.00", "[0.90, 1.10]"), ("52 %", "")]
  assert "<svg" in found["panel"].svg
  assert held_out(read_run(make_run(tmp_path / "without", evaluated=False)), {"ppo": 0}) is None


def test_samples_follow_the_same_prompts(tmp_path):
  """Held-out answers come before episodes of training, which have other prompts at each step."""
  rows = [sample(step, prompt) for step in STEPS for prompt in ("a?", "b?")]
  (stage,) = progress_samples(read_run(make_run(tmp_path / "run", samples=[*rows, sample(2, "c?", "train")])))
  assert [block["prompt"] for block in stage["prompts"]] == ["a?", "b?"]
  assert [(name, text) for name, text, _ in stage["prompts"][1]["answers"]] == [
    ("step 2", "b? at 2"),
    ("step 6", "b? at 6"),
    ("step 8", "b? at 8"),
  ]
  assert stage["prompts"][0]["answers"][0][2] == [("reward", "0.50"), ("gold", "1.25"), ("KL", "0.10")]
  (alone,) = progress_samples(read_run(make_run(tmp_path / "alone", samples=[sample(2, "c?", "train")])))
  assert [block["prompt"] for block in alone["prompts"]] == ["c?"]


def test_speeds_leave_out_the_step_that_compiles(tmp_path):
  found = speeds(read_run(make_run(tmp_path / "run")))
  assert found == {"headings": ["seconds of a step", "FLOPs utilisation"], "rows": [("ppo", ["2.000", "25 %"])]}


def test_the_page_has_them_and_odd_rows_do_not_break_it(tmp_path):
  odd = [sample(2, "<b>", parts=None, kl=None, reward="x"), {"step": "x", "prompt": "y", "response": "z"}, {"step": 2}]
  page = write_report(make_run(tmp_path / "run", samples=odd)).read_text()
  assert "On held-out prompts" in page and "Samples of ppo while it learnt" in page and 'id="speed"' in page
  assert "&lt;b&gt; at 2" in page and "<b> at 2" not in page


def test_the_parts_of_the_stages_add_up(tmp_path):
  root = make_run(tmp_path / "run")
  assert timeline(read_run(root)) is None
  (root / "ppo" / "done.json").write_text(json.dumps({"timeline": {"compile": 3.0, "steps": 20.5, "data": "?"}}))
  found = timeline(read_run(root))
  assert found["headings"] == ["seconds", "compilation", "steps"]
  assert found["rows"] == [("ppo", ["23.5", "3.0", "20.5"]), ("all stages", ["23.5", "3.0", "20.5"])]
  assert 'id="timeline"' in write_report(root).read_text()
