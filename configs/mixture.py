"""The quickstart up to and with `sft`, on a mixture: the world's demonstrations and any files of your own.

  rlhf-jax run --config configs/mixture.py:alpaca.json.gz,chat.jsonl --workdir runs/mixture

Half of the world's prompts come behind a solved example. Your files are rows of demonstrations or of messages; each
source counts with 4,000 rows at most. The shares are shown before training starts.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` names further files, with commas between them."""
  config = quickstart.get_config("sft")
  sources = dict(world=dict(path="{run}/world/demonstrations.jsonl", shots=(0, 1)))
  for number, path in enumerate(arg.split(",") if arg else ()):
    sources[f"own_{number}"] = dict(path=path)
  if arg:
    config.model.max_length = config.sft.length = 512
  del config.sft["demonstrations"]
  config.sft.demonstrations = dict(sources=sources, cap=4000, loss="all")
  return config
