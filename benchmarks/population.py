"""Seconds of N runs of PPO as one population and one after the other, in fresh processes.

  python benchmarks/population.py --members 8 --out benchmarks/results/population.json

The model is small and learns on the embedded world; the stages before PPO are trained first and not counted. The
benchmark takes some minutes on one core.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = dict(num_layers=2, d_model=64, num_heads=2, num_kv_heads=2, d_ff=192, max_length=64)
STEPS = 12
SIZES = {
  "model": MODEL,
  "world": dict(num_documents=300, num_demonstrations=120, num_prompts=100, num_eval_prompts=16),
  "vocabulary": dict(vocab_size=512),
  "pretrain": dict(num_steps=10, length=32, eval_rows=8),
  "sft": dict(num_epochs=1, batch_size=8, length=64),
  "preferences": dict(num_prompts=96, responses=2, batch_size=16),
  "reward_model": dict(length=64, normalize_count=16, eval_fraction=0.2),
  "ppo": dict(num_steps=STEPS, environment=dict(batch_size=16)),
}


def config() -> dict:
  """The quickstart up to PPO, at these sizes."""
  from rlhf_jax.configs import quickstart

  settings = quickstart.get_config("ppo")
  settings.update(SIZES)
  return json.loads(settings.copy_and_resolve_references().to_json())


def prepare(workdir: Path) -> None:
  """Trains the stages before PPO."""
  from rlhf_jax.pipeline import run as pipeline

  settings = config()
  pipeline.run({**settings, "stages": settings["stages"][:-1]}, workdir)


def population(workdir: Path, size: int) -> None:
  """Runs all members as one program."""
  from rlhf_jax.pipeline import members

  members.run(config(), workdir, size, {})


def alone(workdir: Path, seed: int) -> None:
  """Runs one member by itself, in a directory beside the population's."""
  from rlhf_jax.pipeline import run as pipeline

  settings = config()
  directory = workdir / "alone" / str(seed)
  directory.mkdir(parents=True)
  for name in settings["stages"][:-1]:
    (directory / name).symlink_to(workdir / name)
  pipeline.run({**settings, "seeds": {"ppo": seed}}, directory)


def timed(function, *arguments) -> None:
  """Calls `function`, and prints a line of JSON with the median seconds of a step."""
  from rlhf_jax.train import loop

  times = {}
  write = loop.MetricsWriter.write

  def watched(writer, step, metrics):
    write(writer, step, metrics)
    times[step] = time.monotonic()  # in a population the last member to finish the step sets it

  loop.MetricsWriter.write = watched
  function(*arguments)
  steps = [times[step] - times[step - 1] for step in sorted(times)[4:]]
  print(json.dumps({"step_seconds": statistics.median(steps)}))


def child(*arguments) -> dict:
  """Runs this file with `arguments` in a process; returns the JSON it prints, and its seconds from start to end."""
  start = time.monotonic()
  command = [sys.executable, __file__, *map(str, arguments)]
  out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
  return {"seconds": time.monotonic() - start, **json.loads(out.strip().splitlines()[-1])}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument("--members", type=int, default=8)
  parser.add_argument("--out", type=Path, required=True)
  settings = parser.parse_args()
  with tempfile.TemporaryDirectory() as directory:
    workdir = Path(directory)
    prepare(workdir)
    together = child("population", workdir, settings.members)
    print("population", together, flush=True)
    runs = []
    for seed in range(settings.members):
      runs.append(child("alone", workdir, seed))
      print("alone", runs[-1], flush=True)
  from measure import machine  # only now: the processes above need the devices

  one_by_one = {key: sum(run[key] for run in runs) for key in together}
  result = {
    "command": f"python benchmarks/population.py --members {settings.members} --out {settings.out}",
    "machine": machine(),
    "members": settings.members,
    "model": MODEL,
    "ppo_steps": STEPS,
    "population": together,
    "one_after_the_other": one_by_one,
    "times_faster": {key: one_by_one[key] / together[key] for key in together},
  }
  settings.out.write_text(json.dumps(result, indent=2) + "\n")
  print(json.dumps(result["times_faster"]))


if __name__ == "__main__":
  if sys.argv[1:2] == ["population"]:
    timed(population, Path(sys.argv[2]), int(sys.argv[3]))
  elif sys.argv[1:2] == ["alone"]:
    timed(alone, Path(sys.argv[2]), int(sys.argv[3]))
  else:
    main()
