"""RUN/report.html: what the stages of a run did, on one page that needs nothing else to be read.

`report_data` reads the files, `report_text` words the findings, `plots` draws, `report_sections` gathers what each
section shows (`report_others` of the stages of other configs) and report.html.jinja lays it out. A section without
data is one plain sentence. All text is data: the template escapes it, and invisible characters are spelt out.
"""

import json
from pathlib import Path
from typing import Any

import jinja2

from rlhf_jax.report import sections as sections
from rlhf_jax.report.other_configs import other_stages
from rlhf_jax.report.plots import NUM_COLORS
from rlhf_jax.report.population import population_section, write_picture
from rlhf_jax.report.read_run import Run, read_run
from rlhf_jax.report.words import visible


def write_report(run_directory: str | Path) -> Path:
  """Writes RUN/report.html from the files of the run (of a population RUN/population.png too) and returns its path.

  The page depends on those files alone: written twice, it is the same. Raises FileNotFoundError where
  RUN/config.json is missing and ValueError where it is not a JSON object; everything else may be missing.
  """
  path = Path(run_directory) / "report.html"
  run = read_run(run_directory)
  path.write_text(render_report(run), encoding="utf-8")
  write_picture(run, path.with_name("population.png"))
  return path


def render_report(run: Run) -> str:
  """The page as one HTML string."""
  colors = series_colors(run)
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=lambda value: visible(value) if type(value) is str else value,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template("report.html.jinja").render(
    run=run,
    color=lambda name: colors[name] % NUM_COLORS if name in colors else None,
    facts=_facts(run),
    summary=sections.summary(run, colors),
    curves=sections.learning_curves(run, colors),
    reward_model=sections.reward_model(run, colors),
    training=sections.reward_training(run, colors),
    population=population_section(run),
    others=other_stages(run),
    clusters=sections.clusters(run),
    few_shot=sections.few_shot(run),
    samples=sections.samples(run, colors),
    num_samples=len(run.samples),
    config=json.dumps(run.config, indent=2, ensure_ascii=False, default=str),
  )


def series_colors(run: Run) -> dict[str, int]:
  """One number for each stage that is drawn anywhere, so that it keeps its colour over the whole page."""
  names = [stage.name for stage in run.stages if stage.series or stage.name in run.models]
  return {name: index for index, name in enumerate(dict.fromkeys([*names, *run.models]))}


def _facts(run: Run) -> list[tuple[str, str]]:
  model = run.config.get("model")
  facts = [("seed", run.config.get("seed")), *(model.items() if isinstance(model, dict) else ())]
  return [(str(key).replace("_", " "), _plain(value)) for key, value in facts if _is_plain(value)]


def _is_plain(value: Any) -> bool:
  return isinstance(value, str | int | float)


def _plain(value: Any) -> str:
  grouped = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000
  return f"{value:,}".replace(",", "\u202f") if grouped else str(value)
