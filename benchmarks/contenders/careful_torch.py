"""Steps of torch as a careful hand writes them: `python -m contenders.careful_torch WORK MODE`.

transformers' model without the logits of prompts, and fused AdamW. MODE is sft, reward_model or dpo, whose reference is
a model that scores each batch.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from contenders import work
from contenders.gate import Gate, threads


def main(directory: Path, mode: str) -> None:
  """Takes steps for ever."""
  torch.set_num_threads(threads())
  if mode == "reward_model":
    model = LlamaForSequenceClassification.from_pretrained(directory / "reward_model", dtype=torch.float32)
  else:
    model = LlamaForCausalLM.from_pretrained(directory / "model", dtype=torch.float32)
  reference = copy.deepcopy(model).eval()
  model.train()
  rows = work.rows(directory)[: work.BATCH]
  kinds = ("chosen",) if mode == "sft" else ("chosen", "rejected")
  ids = torch.tensor([row["prompt_ids"] + row[f"{kind}_ids"] for kind in kinds for row in rows])
  optimizer = torch.optim.AdamW(model.parameters(), lr=work.LEARNING_RATE, weight_decay=0.0, fused=True)
  gate = Gate()

  def hidden(model):
    return model.model(input_ids=ids, use_cache=False).last_hidden_state

  def logprobs(model):
    """[rows, RESPONSE]."""
    logits = model.lm_head(hidden(model)[:, work.PROMPT - 1 : -1])
    targets = ids[:, work.PROMPT :].reshape(-1)
    return -F.cross_entropy(logits.flatten(0, 1), targets, reduction="none").view(len(ids), -1)

  def loss_of():
    if mode == "sft":
      return -logprobs(model).mean()
    if mode == "reward_model":
      chosen, rejected = model.score(hidden(model)[:, -1])[:, 0].chunk(2)
      return -F.logsigmoid(chosen - rejected).mean()
    with torch.no_grad():
      before = logprobs(reference).sum(1)
    chosen, rejected = (logprobs(model).sum(1) - before).chunk(2)
    return -F.logsigmoid(work.BETA * (chosen - rejected)).mean()

  while True:
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    gate.step(loss=float(loss), tokens=len(ids) * work.RESPONSE)


if __name__ == "__main__":
  main(Path(sys.argv[1]), sys.argv[2])
