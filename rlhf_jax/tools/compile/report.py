"""The table of a compiled config, as text, HTML and JSON."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlhf_jax.tools.compile import roofline
from rlhf_jax.tools.compile.chips import GIB, Target
from rlhf_jax.tools.compile.program import Figures

COLUMNS = {
  "program": "",
  "params": "GiB of parameters",
  "optim": "GiB of the optimiser's state",
  "activ": "GiB of temporary and new arrays",
  "held": "GiB of the stage's other arrays",
  "peak": "GiB at the peak, with those held",
  "PFLOP": "1e15 operations of products",
  "asked": "GiB sent, as the program asks",
  "made": "GiB sent, as the compiler made it",
  "min": "GiB of the FSDP minimum: each matrix that is cut gathered twice for an update and once for a forward pass, "
  "its gradient summed once, two bytes a number, in each microbatch",
  "asked/min": "bytes asked over the minimum",
  "made/min": "bytes made over the minimum",
  "compute": "seconds of the products at the share of the peak that they reach",
  "memory": "seconds that the memory is the limit",
  "links": "seconds of the collectives",
  "step": "seconds of all calls in one step of the stage",
  "tok/s": "tokens per second and chip",
  "MFU": "model FLOPs utilisation",
  "compile": "seconds",
}


class Report(NamedTuple):
  """The figures of all programs of a config."""

  config: str
  """Recipe and overrides."""
  target: Target
  """Chips."""
  mesh: Mapping[str, int]
  """Sizes of the mesh's axes."""
  figures: Sequence[Figures]
  """Figures of the programs, in the order of the stages."""
  skipped: Mapping[str, str]
  """Stages without programs, each with the reason."""
  versions: str
  """Versions of JAX and of the compiler."""

  @property
  def fits(self) -> bool:
    """Whether every program fits."""
    return all(each.fits for each in self.figures)


def stages(report: Report) -> dict[str, dict[str, float]]:
  """Of one step of each stage: predicted seconds, tokens that it trains or makes, their speed per chip, MFU."""
  found: dict[str, dict[str, float]] = {}
  chips = len(report.target.devices)
  for name in dict.fromkeys(each.stage for each in report.figures):
    mine = [each for each in report.figures if each.stage == name]
    seconds = sum(each.calls * each.seconds for each in mine)
    trained = sum(each.calls * each.tokens for each in mine if each.program == "update")
    flops = sum(each.calls * each.model_flops for each in mine)
    found[name] = {
      "seconds": seconds,
      "tokens_per_second_per_chip": trained / seconds / chips if seconds else 0.0,
      "mfu": flops / seconds / chips / report.target.chip.flops if seconds else 0.0,
      "compile_seconds": sum(each.trace_seconds + each.compile_seconds for each in mine),
    }
  return found


def as_json(report: Report) -> dict[str, Any]:
  """The report as plain data: {"fits", "assumptions", "stages": {...}, "programs": [{...}]}."""
  programs = []
  for each in report.figures:
    row = {name: _rounded(value) for name, value in dataclasses.asdict(each).items()}
    programs.append(row | {"asked_ratio": _rounded(each.asked_ratio), "made_ratio": _rounded(each.made_ratio)})
  return {
    "config": report.config,
    "topology": report.target.name,
    "chips": len(report.target.devices),
    "mesh": dict(report.mesh),
    "fits": report.fits,
    "versions": report.versions,
    "assumptions": assumptions(report.target),
    "stages": _rounded(stages(report)),
    "skipped": dict(report.skipped),
    "programs": programs,
  }


def assumptions(target: Target) -> str:
  """What the predicted times rest on, in a sentence."""
  chip = target.chip
  return (
    f"A chip has {chip.hbm / GIB:.1f} GiB, {chip.flops / 1e12:.0f} TFLOP/s (bfloat16), {chip.bandwidth / 1e9:.0f} GB/s "
    f"of memory and {chip.links / 1e9:.0f} GB/s of links one way. Products reach {roofline.COMPUTE:.0%} of the peak; "
    f"what is between them moves {roofline.OUTPUT:g} bytes for each byte of their results; collectives use all links "
    "and overlap with arithmetic. Every response is as long as it may be. Work of the host is left out."
  )


def as_text(report: Report) -> str:
  """The table in lines, with what does not fit."""
  rows = [list(COLUMNS), *(_row(each, report) for each in report.figures)]
  widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
  lines = [f"{report.config} on {report.target.name}: {_words(report.mesh)}"]
  lines += ["  ".join(_aligned(cell, widths[i], i) for i, cell in enumerate(row)).rstrip() for row in rows]
  for name, found in stages(report).items():
    lines.append(
      f"{name}: {found['seconds']:.2f} s a step, {found['tokens_per_second_per_chip']:,.0f} tokens trained a second "
      f"and chip, MFU {found['mfu']:.1%}; compiled in {found['compile_seconds']:.0f} s"
    )
  lines += [f"{name}: {reason}" for name, reason in report.skipped.items()]
  lines += [assumptions(report.target)]
  lines += [f"does not fit: {each.stage}/{each.advice}" for each in report.figures if not each.fits]
  return "\n".join(lines + ["fits"] * report.fits)


def as_html(report: Report) -> str:
  """The table as a page of its own."""
  escape = html.escape
  head = "".join(f'<th title="{escape(unit)}">{escape(name)}</th>' for name, unit in COLUMNS.items())
  rows = "".join(
    f'<tr class="{"" if each.fits else "no"}">'
    + "".join(f"<td>{escape(cell)}</td>" for cell in _row(each, report))
    + "</tr>"
    for each in report.figures
  )
  units = "".join(f"<li>{escape(name)}: {escape(unit)}</li>" for name, unit in COLUMNS.items() if unit)
  after = as_text(report).splitlines()[2 + len(report.figures) :]
  notes = "".join(f"<p>{escape(line)}</p>" for line in after)
  return (
    f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(report.config)}</title><style>"
    "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.3em .6em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr.no{background:#fdd}tr{border-bottom:1px solid #ccc}</style>"
    f"<h1>{escape(report.config)}</h1><p>{escape(report.target.name)}: {escape(_words(report.mesh))}; "
    f"{escape(report.versions)}</p><table><tr>{head}</tr>{rows}</table>{notes}<ul>{units}</ul></html>\n"
  )


def _row(each: Figures, report: Report) -> list[str]:
  def gib(size: float | None) -> str:
    return "-" if size is None else f"{size / GIB:.2f}"

  def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

  made = None if each.made is None else sum(each.made.values())
  return [
    f"{each.stage}/{each.program}" + f" x{each.calls}" * (each.calls > 1),
    *map(gib, (each.parameters, each.optimizer, each.activations, each.held)),
    f"{gib(each.peak + each.held)} of {gib(each.hbm)}",
    f"{each.flops / 1e15:.3g}",
    *map(gib, (sum(each.asked.values()), made, each.minimum)),
    *map(ratio, (each.asked_ratio, each.made_ratio)),
    *(f"{value:.3f}" for value in (each.compute_seconds, each.memory_seconds, each.interconnect_seconds)),
    f"{each.calls * each.seconds:.3f}",
    f"{each.tokens_per_second_per_chip:,.0f}",
    f"{each.mfu:.1%}",
    f"{each.compile_seconds:.0f}",
  ]


def _words(mesh: Mapping[str, int]) -> str:
  return " x ".join(f"{name} {size}" for name, size in mesh.items())


def _aligned(cell: str, width: int, column: int) -> str:
  return cell.rjust(width) if column else cell.ljust(width)


def _rounded(value: Any) -> Any:
  """Numbers to four digits, in nested plain data."""
  if isinstance(value, float):
    return float(f"{value:.4g}")
  if isinstance(value, Mapping):
    return {name: _rounded(item) for name, item in value.items()}
  return value
