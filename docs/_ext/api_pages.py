"""Writes docs/api/: a page for each package, with all its modules, from the docstrings; so no module is forgotten."""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import rlhf_jax

# Modules that need an extra, or are the inside of another process.
LEFT_OUT = {
  "rlhf_jax.tools.harness",
  "rlhf_jax.verify.sentiment",
  "rlhf_jax.verify.sandbox_child",
  "rlhf_jax.data.template_child",
}
AUTOMODULE = "```{{eval-rst}}\n.. automodule:: {name}\n{options}```\n"
MEMBERS = "   :members:\n"


def modules(package: str) -> list[str]:
  """The modules of a package and of its packages, by name."""
  paths = importlib.import_module(package).__path__
  names = sorted(found.name for found in pkgutil.walk_packages(paths, f"{package}."))
  return [name for name in names if name not in LEFT_OUT and not name.endswith("__main__")]


def page(package: str) -> str:
  """The page of a package, or of a module that is alone."""
  module = importlib.import_module(package)
  title = f"# {package}\n\n"
  if not hasattr(module, "__path__"):
    return title + AUTOMODULE.format(name=package, options=MEMBERS)
  if package == "rlhf_jax.objectives":  # all of it is exported: shown under the names it is imported by
    return title + AUTOMODULE.format(name=package, options=MEMBERS + "   :imported-members:\n")
  text = title + AUTOMODULE.format(name=package, options="")
  exported = getattr(module, "__all__", ())
  if exported:
    text += f"\n`from {package} import` " + ", ".join(f"`{name}`" for name in exported) + "\n"
  for name in modules(package):
    text += f"\n## {name.removeprefix('rlhf_jax.')}\n\n" + AUTOMODULE.format(name=name, options=MEMBERS)
  return text


def write(app: Any) -> None:
  """Event `builder-inited`: the pages, written only where they differ, so that a second build is quick."""
  directory = Path(app.srcdir) / "api"
  directory.mkdir(exist_ok=True)
  names = sorted(found.name for found in pkgutil.iter_modules(rlhf_jax.__path__) if found.name != "configs")
  texts = {name: page(f"rlhf_jax.{name}") for name in names}
  listed = "\n".join(names)
  texts["index"] = (
    "# API reference\n\nFrom the docstrings, a page for each package. [Architecture](../architecture.md) says what "
    f"each is for.\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
  )
  for path in directory.glob("*.md"):
    if path.stem not in texts:
      path.unlink()
  for name, text in texts.items():
    path = directory / f"{name}.md"
    if not path.exists() or path.read_text() != text:
      path.write_text(text)


def setup(app: Any) -> dict[str, bool]:
  app.connect("builder-inited", write)
  return {"parallel_read_safe": True}
