"""A published model whose turns end in a token that is not eos: sampling stops there, and an export says so."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from chat_models import publish

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.models.hub import export_model
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.pipeline.finished import open_run
from rlhf_jax.tools.export import export_run
from rlhf_jax.train import Sampling, encode_prompts, make_sampler

pytestmark = pytest.mark.usefixtures("unoptimised")

PROMPTS = [f"Hi {i}" for i in range(8)]
D_MODEL = 16


def always(model, token):
  """Parameters of a model that says `token` and nothing else, whatever it reads: every token looks the same to it."""
  params = model.init(jax.random.key(0))["decoder"]
  table, matrix = params["embedding"]["embedding"], params["unembedding"]["kernel"]
  params = {**params, "embedding": {"embedding": jnp.broadcast_to(table[:1], table.shape)}}
  eye = jnp.eye(*matrix.shape)
  seen = model.apply({"decoder": {**params, "unembedding": {"kernel": eye}}}, jnp.array([[0, 0]]))[0, 1, : len(eye)]
  return {"decoder": {**params, "unembedding": {"kernel": jnp.zeros_like(eye).at[:, token].set(100 * seen)}}}


@pytest.fixture(params=["gemma 2", "llama 3"])
def run(request, tmp_path):
  """A finished run of one stage, which imports the model; it always says the end of its template's turns."""
  directory = publish(tmp_path / "published", request.param)
  tokenizer = data.load_tokenizer(directory)
  eos, end = tokenizer.eos_id, tokenizer.end_ids[-1]
  assert eos != end
  config = DecoderConfig(tokenizer.vocab_size, 1, D_MODEL, 2, 1, 16, 64, tied=False)
  model = language_model(config)
  # As these models were published: eos_token_id is eos alone, and the template ends its turns by another token.
  ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": eos}
  export_model(directory, config, always(model, end), ids)
  config = {
    "seed": 0, "stages": ["base"], "tokenizer": "{model}", "model": {"path": str(directory)},
    "transport": {"kind": "jit", "fsdp": 1, "microbatches": 1}, "base": {"algorithm": "rlhf_jax.stages.import_model"},
  }  # fmt: skip
  pipeline.run(config, tmp_path / "run")
  return tmp_path / "run", (eos, end)


def test_sampling_stops_where_the_template_ends_a_turn(run):
  directory, ends = run
  found = open_run(directory).language_model()
  assert found.tokenizer.end_ids == ends
  prompts = encode_prompts(PROMPTS, found.tokenizer, 40, "the prompts")
  settings = Sampling(max_prompt_tokens=40, max_new_tokens=12, temperature=1.0)

  def finished(tokenizer):
    sample = make_sampler(found.model, tokenizer, settings, found.stage.transport)
    rollout, responses = sample(found.policy, prompts.take(range(8))[1], jax.random.key(0))
    return int(rollout.finished.sum()), rollout.mask.sum(axis=1).tolist(), responses

  assert finished(found.tokenizer) == (8, [1] * 8, [""] * 8)
  eos_alone = dataclasses.replace(found.tokenizer, end_ids=ends[:1])
  assert finished(eos_alone)[:2] == (0, [12] * 8)


def test_an_export_names_every_end(run, tmp_path):
  directory, ends = run
  export_run(directory, tmp_path / "out")
  assert data.read_json(tmp_path / "out/generation_config.json")["eos_token_id"] == list(ends)
  assert data.load_tokenizer(tmp_path / "out").end_ids == ends
