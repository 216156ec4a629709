"""The templates of pages that are written to files: the report of a run, the table of a sweep."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from rlhf_jax.report.words import visible


@functools.cache
def page_template(path: Path) -> jinja2.Template:
  """A page's template, compiled once; it escapes texts, and writes invisible characters as code points."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(path.parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=lambda value: visible(value) if type(value) is str else value,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template(path.name)
