"""Models of this project in EleutherAI's lm-evaluation-harness: `pip install 'rlhf_jax[eval]'`.

  rlhf-jax harness runs/quickstart --stage sft --tasks my_task --include tasks/ --shots 5 --chat

Without --chat the model continues the harness' text as it stands. With --chat the harness' messages take the form that
the model was tuned on, and the model's text is an answer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from rlhf_jax import data
from rlhf_jax.evaluation.likelihood import WIDTH, make_likelihood
from rlhf_jax.models import LanguageModel
from rlhf_jax.sampling import generate
from rlhf_jax.stages.perplexity import windows
from rlhf_jax.tools.any_model import open_models
from rlhf_jax.types import Params, Prompts

DEFAULT_NEW_TOKENS = 256  # where a task does not say how long an answer may be, as in the harness' own models


def open_model(path: Path, stage: str = "") -> tuple[LanguageModel, data.Tokenizer, Params]:
  """The language model of a run's stage (by default the last one), or a published model. Raises as `open_models`."""
  (found,) = open_models(path, [stage] if stage else [])
  return found.model, found.tokenizer, found.load()


class HarnessModel(LM):
  """`lm_eval.api.model.LM` over pure functions. A context that is too long loses its start, as in the harness."""

  def __init__(self, model: LanguageModel, tokenizer: data.Tokenizer, params: Params, *, batch_size: int = 32) -> None:
    super().__init__()
    self._model, self._tokenizer, self._params, self._batch = model, tokenizer, params, batch_size
    self._likelihood = make_likelihood(model, tokenizer.pad_id, batch_size)
    self.truncated = 0  # requests whose context lost its start
    self._dialogues: dict[str, data.Prompt] = {}  # by the texts that stand for them in the harness

  def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
    """(log p of the continuation in nats, True for the greedy continuation) of each (context, continuation)."""
    pairs = [self._pair(*request.args) for request in requests]
    logp, greedy = self._likelihood(self._params, pairs)
    return [(float(value), bool(is_greedy)) for value, is_greedy in zip(logp, greedy, strict=True)]

  def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
    """log p of each whole text in nats, every token once, over windows of the model's length."""
    room, bos = self._model.config.max_length, self._tokenizer.bos_id
    cuts = [windows(self._tokenizer.encode(request.args[0]), bos, room, room - 1) for request in requests]
    logp, _ = self._likelihood(self._params, [pair for cut in cuts for pair in cut])
    ends = np.cumsum([len(cut) for cut in cuts])
    return [float(part.sum()) for part in np.split(logp.astype(np.float64), ends[:-1])]

  def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
    """Greedy continuations (or sampled, where a task says so), cut before the first of the task's stop texts.

    An answer has at most half of the model's length, so that the question has room.
    """
    texts = []
    for start in range(0, len(requests), self._batch):
      group = requests[start : start + self._batch]
      settings = [dict(request.args[1]) for request in group]
      longest = max(int(given.get("max_gen_toks", DEFAULT_NEW_TOKENS)) for given in settings)
      longest = min(longest, self._model.config.max_length // 2)
      contexts = [self._context(request.args[0], longest) for request in group]
      found = self._sample(contexts, longest, _temperature(settings), start)
      for ids, given in zip(found, settings, strict=True):
        texts.append(_until(self._tokenizer.decode(ids), given.get("until") or ()))
    return texts

  def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """A text in the project's own form, by which the model finds the messages again; the last one may be begun only."""
    messages = tuple(data.Message(turn["role"], turn["content"].strip()) for turn in chat_history)
    text = data.render_prompt(messages)
    if not add_generation_prompt:
      return text.removesuffix("\n\nAssistant:")
    self._dialogues[text] = messages
    return text

  @property
  def tokenizer_name(self) -> str:
    """Label of the harness' cache of rendered requests."""
    return self._tokenizer.fingerprint

  def chat_template(self, chat_template: bool | str = False) -> str:
    """As `tokenizer_name`: the form of the messages is the tokenizer's."""
    return self._tokenizer.chat_template or "Human, Assistant"

  def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
    if context in self._dialogues:
      (found,) = data.encode_answers(self._tokenizer, [(self._dialogues[context], continuation)])
      if isinstance(found, str):
        raise data.DataError(found)
      before, after = found.prompt, found.content
    else:  # the space between them belongs to the continuation, as in the harness
      spaces = context[len(context.rstrip()) :]
      before = [self._tokenizer.bos_id, *self._tokenizer.encode(context.rstrip())]
      after = self._tokenizer.encode(spaces + continuation)
    return self._cut(before, len(after)), after

  def _context(self, context: str, room: int) -> list[int]:
    if context in self._dialogues:
      return self._cut(data.prompt_ids(self._tokenizer, self._dialogues[context]), room)
    return self._cut([self._tokenizer.bos_id, *self._tokenizer.encode(context)], room)

  def _cut(self, ids: list[int], room: int) -> list[int]:
    left = self._model.config.max_length - room
    if left < 1:
      raise ValueError(f"an answer of {room} tokens leaves no room in model.max_length={self._model.config.max_length}")
    if len(ids) <= left:
      return ids
    self.truncated += 1
    return [ids[0], *ids[len(ids) - left + 1 :]]

  def _sample(
    self, contexts: Sequence[list[int]], max_new_tokens: int, temperature: float, number: int
  ) -> list[list[int]]:
    """Continuations of the contexts, a batch of which is padded to the adapter's size; `number` seeds the sampling."""
    width = min(-(-max(map(len, contexts)) // WIDTH) * WIDTH, self._model.config.max_length - max_new_tokens)
    tokens = np.full((self._batch, width), self._tokenizer.pad_id, np.int32)
    lengths = np.ones(self._batch, np.int32)
    for row, ids in enumerate(contexts):
      tokens[row, : len(ids)], lengths[row] = ids, len(ids)
    prompts = Prompts(jnp.asarray(tokens), jnp.asarray(lengths))
    rollout = _generate(
      self._params, prompts, jax.random.key(number), self._model, max_new_tokens, temperature,
      self._tokenizer.end_ids, self._tokenizer.pad_id,
    )  # fmt: skip
    found = np.asarray(rollout.tokens), np.asarray(rollout.mask)
    return [row[keep].tolist() for row, keep in zip(*found, strict=True)][: len(contexts)]


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6, 7))
def _generate(params, prompts, key, model, max_new_tokens, temperature, end_ids, pad_id):
  return generate(
    model, params, prompts, key, max_new_tokens=max_new_tokens, temperature=temperature, eos_id=end_ids, pad_id=pad_id
  )


def evaluate(
  model: HarnessModel, tasks: Sequence[str], include: Path | None, shots: int | None, chat: bool, limit: int | None
) -> dict[str, Any]:
  """The harness' results by the names of its tasks; `include` is a directory of the user's own task files."""
  manager = TaskManager(include_path=str(include) if include else None, include_defaults=include is None)
  found = simple_evaluate(
    model=model, tasks=list(tasks), task_manager=manager, num_fewshot=shots, limit=limit, apply_chat_template=chat,
    fewshot_as_multiturn=chat, log_samples=False, bootstrap_iters=1000,
  )  # fmt: skip
  return {"results": found["results"], "n-shot": found["n-shot"], "truncated": model.truncated}


def _temperature(settings: Sequence[dict]) -> float:
  """The temperature of a batch: the requests of a task agree on it."""
  given = settings[0]
  return float(given.get("temperature", 0.0)) if given.get("do_sample") else 0.0


def _until(text: str, stops: str | Sequence[str]) -> str:
  for stop in [stops] if isinstance(stops, str) else stops:
    text = text.partition(stop)[0] if stop else text
  return text
