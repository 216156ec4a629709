"""rlhf_jax: train an aligned assistant from scratch in JAX, every step of it."""

from pathlib import Path as _Path

_project = _Path(__file__).parents[1] / "pyproject.toml"
if _project.is_file():  # a checkout, whose metadata may be of the version that it was installed at
  import tomllib as _tomllib

  __version__: str = _tomllib.loads(_project.read_text())["project"]["version"]
else:
  from importlib import metadata as _metadata

  __version__ = _metadata.version("rlhf_jax")
