"""RUN/report.html: the results of a run's stages on one page that depends on no other file.

`read_run` reads the files, `words` writes numbers and sentences, `plots` draws, `sections` and `other_configs` gather
the data of each section, and report.html.jinja lays them out. A section without data is one sentence. All text is data:
the template escapes it, and invisible characters are written as code points.
"""

import json
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import write_text
from rlhf_jax.report import sections
from rlhf_jax.report.cells import cells
from rlhf_jax.report.compared import compared
from rlhf_jax.report.kinds import kinds
from rlhf_jax.report.microscope import look_at_last
from rlhf_jax.report.other_configs import other_stages
from rlhf_jax.report.pages import page_template
from rlhf_jax.report.plots import NUM_COLORS
from rlhf_jax.report.read_run import Run, read_run
from rlhf_jax.report.watched import held_out, progress_samples, speeds, timeline
from rlhf_jax.report.winners import winners

TEMPLATE = Path(__file__).parent / "report.html.jinja"


def write_report(run_directory: str | Path) -> Path:
  """Writes RUN/report.html from the files of the run and returns its path.

  The page depends on those files alone, so that the same files give the same page. Every file but config.json may be
  missing.

  Raises:
    FileNotFoundError: there is no RUN/config.json.
    ValueError: RUN/config.json is not a JSON object.
  """
  path = Path(run_directory) / "report.html"
  run = read_run(run_directory)
  write_text(path, render_report(run))
  return path


def render_report(run: Run) -> str:
  """The page as one HTML string."""
  colors = series_colors(run)
  return page_template(TEMPLATE).render(
    run=run,
    color=lambda name: colors[name] % NUM_COLORS if name in colors else None,
    facts=_facts(run),
    environment=_environment(run),
    summary=sections.summary(run, colors),
    curves=sections.learning_curves(run, colors),
    reward_model=sections.reward_model(run, colors),
    kinds=kinds(run, colors),
    training=sections.reward_training(run, colors),
    held_out=held_out(run, colors),
    progress=progress_samples(run),
    microscope=look_at_last(run, ("best", "worst")),
    speeds=speeds(run),
    timeline=timeline(run),
    others=other_stages(run),
    clusters=sections.clusters(run),
    cells=cells(run),
    few_shot=sections.few_shot(run),
    winners=winners(run),
    accuracies=sections.accuracies(run),
    compared=compared(run),
    budgets=sections.budgets(run),
    samples=sections.samples(run, colors),
    num_samples=len(run.samples),
    config=json.dumps(run.config, indent=2, ensure_ascii=False, default=str),
  )


def series_colors(run: Run) -> dict[str, int]:
  """A number for each stage that is drawn anywhere: the stage keeps its colour over the whole page."""
  names = [stage.name for stage in run.stages if stage.series or stage.name in run.models]
  return {name: index for index, name in enumerate(dict.fromkeys([*names, *run.models]))}


def _facts(run: Run) -> list[tuple[str, str]]:
  model = run.config.get("model")
  facts = [("seed", run.config.get("seed")), *(model.items() if isinstance(model, dict) else ())]
  return [(str(key).replace("_", " "), _plain(value)) for key, value in facts if _is_plain(value)]


def _environment(run: Run) -> list[tuple[str, str]]:
  """Hardware, versions and commit that made the run, as environment.json has them."""
  found = dict(run.environment)
  versions, commit, changed = (found.pop(key, None) for key in ("versions", "commit", "tree_changed"))
  if isinstance(commit, str):
    found["commit"] = f"{commit[:12]} and changes" if changed else commit[:12]
  found = {str(key).removeprefix("num_").replace("_", " "): value for key, value in found.items()}
  found |= versions if isinstance(versions, dict) else {}
  return [(str(key), _plain(value)) for key, value in found.items() if _is_plain(value)]


def _is_plain(value: Any) -> bool:
  return isinstance(value, str | int | float)


def _plain(value: Any) -> str:
  grouped = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000
  return f"{value:,}".replace(",", "\u202f") if grouped else str(value)
