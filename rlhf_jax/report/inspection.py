"""RUN/inspect.html: responses of a stage of RL token by token, on one page that depends on no other file."""

from pathlib import Path

from rlhf_jax.data.files import write_text
from rlhf_jax.report.microscope import SCALE, Microscope, digits, look_closely, recorded_steps
from rlhf_jax.report.pages import page_template
from rlhf_jax.report.read_run import Run, StageRecord, read_run
from rlhf_jax.settings import nearest

TEMPLATE = Path(__file__).parent / "inspect.html.jinja"
FACTS = {"algorithm": "algorithm", "kl_coef": "KL coefficient", "clip": "clip"}


def write_inspection(run_directory: str | Path, stage: str = "", out: str | Path | None = None) -> Path:
  """Writes the page of one stage, and returns its path; None writes RUN/inspect.html.

  Args:
    stage: name of the stage; "" for the last one of the run with recorded tokens.

  Raises:
    FileNotFoundError: there is no RUN/config.json.
    ValueError: RUN/config.json is not a JSON object, or the stage, or every stage, has no recorded tokens.
  """
  run = read_run(run_directory)
  path = Path(out) if out is not None else run.directory / "inspect.html"
  write_text(path, render_inspection(run, _choose(run, stage)))
  return path


def render_inspection(run: Run, view: Microscope) -> str:
  """The page as one HTML string."""
  config = view.stage.config
  return page_template(TEMPLATE).render(
    run=run,
    view=view,
    steps=", ".join(map(str, view.steps)),
    facts=[(title, _plain(config[key])) for key, title in FACTS.items() if key in config],
    percentile=SCALE,
  )


def _choose(run: Run, name: str) -> Microscope:
  others = [other.stage for stages in run.others.values() for other in stages]
  stages = {stage.name: stage for stage in (*others, *run.stages)}  # those of the run's own config last
  recorded = [stage for stage in stages.values() if recorded_steps(run.directory / stage.name)]
  if name and name not in stages:
    raise ValueError(f"{run.directory} has no stage {name!r}.{nearest(name, [stage.name for stage in recorded])}")
  for stage in [stages[name]] if name else reversed(recorded):
    if view := look_closely(run, stage):
      return view
  raise ValueError(_advice(run, name, recorded))


def _advice(run: Run, name: str, recorded: list[StageRecord]) -> str:
  """What to do where nothing can be shown."""
  what = f"stage {name!r} of {run.directory}" if name else str(run.directory)
  if name and recorded:
    known = ", ".join(stage.name for stage in recorded)
    return f"{what} has no recorded tokens (samples.jsonl and samples/STEP.npz); these stages have some: {known}"
  stages = [stage.name for stage in run.stages if stage.optimises_reward]
  example = name or (stages[-1] if stages else "ppo")
  return (
    f"{what} has no recorded tokens (samples.jsonl and samples/STEP.npz). A stage of RL records them every "
    f"config.STAGE.watch.samples_every steps: run it anew with --config.{example}.watch.samples_every=8 "
    f"--redo {example}"
  )


def _plain(value: object) -> str:
  if isinstance(value, float):
    return digits(value)
  return " and ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
