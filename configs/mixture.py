"""How is SFT run on a mixture of the world's demonstrations and files of your own?

  rlhf-jax run --config mixture:alpaca.json.gz,chat.jsonl --workdir runs/mixture
  rlhf-jax run --config mixture --workdir runs/mixture

The argument names files, with commas between them: rows of demonstrations or of messages. Half of the world's prompts
follow a solved example, and each source counts with 4,000 rows at most. The shares of the sources are printed before
training starts. The other stages are those of the quickstart up to `sft`.

Time: about 3 minutes on two busy CPU cores without files of your own; with them rows have 512 tokens and take longer.

Result: the shares of the sources, and a falling loss on held-out rows. The mixture's effect was not measured.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with the files `arg`, which have commas between them."""
  config = quickstart.get_config("sft")
  sources = dict(world=dict(path="{run}/world/demonstrations.jsonl", shots=(0, 1)))
  for number, path in enumerate(arg.split(",") if arg else ()):
    sources[f"own_{number}"] = dict(path=path)
  if arg:
    config.model.max_length = config.sft.length = 512
  del config.sft["demonstrations"]
  config.sft.demonstrations = dict(sources=sources, cap=4000, loss="all")
  return config
