"""Prints the dependencies of pyproject.toml at their declared lower bounds, for `pip install -r`."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for dependency in project["dependencies"]:
  name, bound = re.fullmatch(r"([\w.-]+)>=([\w.]+)", dependency).groups()
  print(f"{name}=={bound}")
