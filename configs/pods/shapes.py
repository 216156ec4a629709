"""Shapes of published models, and what the recipes for pods share."""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

LLAMA_VOCABULARY = 128256  # tokens
MODELS = {
  "8b": dict(num_layers=32, d_model=4096, num_heads=32, num_kv_heads=8, d_ff=14336),
  "70b": dict(num_layers=80, d_model=8192, num_heads=64, num_kv_heads=8, d_ff=28672),
}


def pod(stage: str, size: str, **transport) -> ConfigDict:
  """The stage `stage` of the quickstart's chain with the shape of Llama 3.1 `size`, to be continued in the directory of
  a run that has the stages before it. transport: settings of config.transport."""
  config = quickstart.get_config("ppo")
  config.stages = (stage,)
  config.vocabulary.vocab_size = LLAMA_VOCABULARY
  config.model = dict(MODELS[size], max_length=8192, rope_theta=500000.0, norm_eps=1e-5, dtype="bfloat16", tied=False)
  config.transport = dict(
    kind="jit", microbatches=1, logits_chunk=256, remat="full", attention="splash", layers="scanned",
    gradient_dtype="bfloat16", **transport,
  )  # fmt: skip
  return config


def ppo(size: str, episodes: int, **transport) -> ConfigDict:
  """PPO with `episodes` responses of up to 512 tokens to prompts of up to 512, in 4 minibatches."""
  config = pod("ppo", size, **transport)
  config.ppo.environment.update(
    batch_size=episodes, sampling=dict(max_prompt_tokens=512, max_new_tokens=512, temperature=0.7)
  )
  config.ppo.update(
    epochs=1, minibatches=4, optimizer=quickstart.optimizer(1e-6, warmup=0.0, eps=1e-5, weight_decay=0.0)
  )
  return config
