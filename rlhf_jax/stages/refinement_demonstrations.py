"""Stage: demonstrations of refinement as one more task beside others; writes `demonstrations.jsonl` for an SFT stage.

A model can only rewrite its answers by a critique if it has seen that done. Demonstrators of the embedded world answer
badly, are criticised, and rewrite (see `rlhf_jax.world.refinements`); the prompt of such a row is `template`.
"""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.stage import Stage
from rlhf_jax.train.progress import console
from rlhf_jax.world import refinements

WRITES = ("demonstrations.jsonl",)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  seed: the world's. prompts: a file that the refined answers are to. num: of refinements. template: with {prompt},
  {response} and {critique}, as in the stage that refines. demonstrations: a file whose rows are kept beside them.
  """

  algorithm: str
  seed: int
  prompts: str
  num: int
  template: str
  demonstrations: str


def run(config: Config, stage: Stage) -> None:
  """Writes the rows of the file and those of the refinements."""
  others, _ = data.read_demonstrations(stage.path(config.demonstrations))
  prompts, _ = data.read_prompts(stage.path(config.prompts))
  rows = [{"prompt": prompt, "response": response} for prompt, response in others]
  for row in refinements(config.seed, prompts, config.num):
    rows.append({"prompt": config.template.format(**row), "response": row["rewrite"]})
  data.write_rows(stage.directory / "demonstrations.jsonl", rows)
  console.print(f"{len(others)} demonstrations and {config.num} refinements", markup=False)
