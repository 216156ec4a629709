"""The flags of every command, without the imports of the commands: `--help` and completion answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rlhf_jax.pipeline.recipe import run_parser

SHAPES = ("records", "dataset", "rankings", "pairs", "ratings", "critiques")
SHELLS = ("bash", "zsh", "fish")


def configs() -> argparse.ArgumentParser:
  """rlhf-jax configs"""
  parser = _parser("configs", "List the recipes, or show one with its settings: type, value and description.")
  parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="its name, NAME:ARG, or the path of a .py file")
  parser.add_argument("stages", nargs="*", metavar="STAGE", help="show the settings of these stages; also `model`, "
                      "`transport`")  # fmt: skip
  parser.add_argument("--all", action="store_true", help="show the settings of every stage")
  return parser


def sample() -> argparse.ArgumentParser:
  """rlhf-jax sample"""
  parser = _parser("sample", "Ask the models of a run, side by side.")
  parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run")
  parser.add_argument("prompt", nargs="?", help="a prompt; without it, prompts are read line by line")
  parser.add_argument("--temperature", type=float, default=0.0, help="divisor of the logits; 0 takes the most probable "
                      "token (default)")  # fmt: skip
  parser.add_argument("--max-new-tokens", type=int, default=32, help="longest response in tokens (default 32)")
  parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
  return parser


def report() -> argparse.ArgumentParser:
  """rlhf-jax report"""
  parser = _parser("report", "Write RUN/report.html anew.")
  parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run")
  return parser


def collect() -> argparse.ArgumentParser:
  """rlhf-jax collect"""
  parser = _parser("collect", "Queue responses for human judgement.")
  parser.add_argument("run", type=Path, nargs="?", help="the run to sample from; without it, --responses alone")
  parser.add_argument("--prompts", type=Path, metavar="FILE", help="rows with the key prompt")
  parser.add_argument(
    "-k", type=int, default=4, dest="num_responses", help="number of samples for each prompt (default 4)"
  )
  parser.add_argument(
    "--out", type=Path, required=True, metavar="FILE.db", help="the store; it is made, or items are added"
  )
  parser.add_argument("--stages", help="comma-separated STAGE or STAGE@STEP to sample in turn; default the last policy")
  parser.add_argument(
    "--responses", type=Path, metavar="FILE", help="existing responses, to be judged beside the samples"
  )
  parser.add_argument("--gold", type=Path, metavar="FILE", help="an expert's comparisons, mixed in unmarked")
  parser.add_argument(
    "--gold-every", type=int, default=10, help="number of items from one gold item to the next (default 10)"
  )
  parser.add_argument("--judgements", type=int, default=1, help="number of annotators for each item (default 1)")
  parser.add_argument("--num-prompts", type=int, help="number of prompts, from the start of --prompts; default all")
  parser.add_argument("--temperature", type=float, default=1.0, help="divisor of the logits (default 1)")
  parser.add_argument("--max-new-tokens", type=int, default=32, help="longest response in tokens (default 32)")
  parser.add_argument(
    "--seed", type=int, default=0, help="seed of the sampling, of the display orders and of the choice of gold items"
  )
  return parser


def annotate() -> argparse.ArgumentParser:
  """rlhf-jax annotate"""
  parser = _parser("annotate", "Serve the annotation page of a store.")
  parser.add_argument("store", type=Path, metavar="FILE.db", help="a store, as `collect` makes it")
  parser.add_argument("--annotators", default="", help="comma-separated names; each new name gets a link to log in")
  parser.add_argument("--renew", action="store_true", help="make new links for all annotators; their old links end")
  parser.add_argument("--guidelines", type=Path, metavar="FILE", help="shown beside the task; plain text or Markdown")
  parser.add_argument("--host", default="127.0.0.1", help="the address to bind (default: this machine alone)")
  parser.add_argument("--port", type=int, default=8000, help="the port to bind (default 8000)")
  parser.add_argument(
    "--origin", help="the address that annotators open, where it is not this machine: https://label.example.org"
  )
  return parser


def convert() -> argparse.ArgumentParser:
  """rlhf-jax convert"""
  parser = _parser("convert", "Convert feedback from one kind of file to another.")
  parser.add_argument(
    "source", type=Path, help="records (.db, .jsonl, .parquet or a dataset), or the comparisons of a run"
  )
  parser.add_argument("target", type=Path, help="a file of records, or of rows with --as (.jsonl, .csv, a directory)")
  parser.add_argument("--as", dest="shape", choices=SHAPES, help="kind of the rows (default records)")
  return parser


def agreement() -> argparse.ArgumentParser:
  """rlhf-jax agreement"""
  parser = _parser("agreement", "Measure how far annotators agree, and find those to look at.")
  parser.add_argument("file", type=Path, help="records or comparisons: .db, .jsonl or .parquet")
  parser.add_argument("--out", type=Path, metavar="DIR", help="also write all numbers, the consensus and plots there")
  parser.add_argument("--threshold", type=float, metavar="SHARE", help="the agreement on gold items to reach")
  return parser


def export() -> argparse.ArgumentParser:
  """rlhf-jax export"""
  parser = _parser("export", "Write a model for transformers and vLLM.")
  parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run")
  parser.add_argument("directory", type=Path, metavar="DIR", help="the directory to write, empty or absent")
  parser.add_argument("--stage", default="", help="the stage whose model is written (default: the last policy)")
  parser.add_argument("--adapters", action="store_true", help="write its LoRA adapters alone, as PEFT reads them")
  return parser


def tokenizer() -> argparse.ArgumentParser:
  """rlhf-jax tokenizer"""
  parser = _parser("tokenizer", "Train a tokenizer.")
  parser.add_argument("action", choices=("train",))
  parser.add_argument("files", nargs="+", metavar="FILE", help="plain text, or rows (.jsonl, .json, .parquet)")
  parser.add_argument("--vocab-size", type=int, required=True, help="number of tokens")
  parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the directory to write")
  parser.add_argument(
    "--chat-template", type=Path, metavar="FILE", help="a template in Jinja; default the project's own form"
  )
  parser.add_argument("--control", default="", help="comma-separated tokens that only the chat template can spell")
  return parser


def harness() -> argparse.ArgumentParser:
  """rlhf-jax harness"""
  parser = _parser("harness", "Run tasks of lm-evaluation-harness.")
  parser.add_argument("model", type=Path, help="a run, or a directory with config.json, weights and tokenizer")
  parser.add_argument("--stage", default="", help="the stage of a run whose model is asked (default: the last policy)")
  parser.add_argument("--tasks", required=True, help="comma-separated names of tasks")
  parser.add_argument("--include", type=Path, metavar="DIR", help="your own task files, instead of the built-in ones")
  parser.add_argument("--shots", type=int, help="number of worked examples before a question (default: the task's)")
  parser.add_argument("--chat", action="store_true", help="ask in the chat form, examples as turns (for tuned models)")
  parser.add_argument("--limit", type=int, help="number of questions of each task, from its start (default all)")
  parser.add_argument("--batch-size", type=int, default=32, help="number of requests in a batch (default 32)")
  parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write all results there")
  return parser


def completion() -> argparse.ArgumentParser:
  """rlhf-jax completion"""
  parser = _parser(
    "completion",
    "Print a script by which a shell completes commands, flags, recipes and files: "
    'eval "$(rlhf-jax completion bash)" in ~/.bashrc, the same with zsh in ~/.zshrc, '
    "`rlhf-jax completion fish | source` in fish's config.",
  )
  parser.add_argument("shell", choices=SHELLS)
  return parser


PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
  "configs": configs, "run": run_parser, "sample": sample, "report": report, "collect": collect, "annotate": annotate,
  "convert": convert, "agreement": agreement, "export": export, "tokenizer": tokenizer, "harness": harness,
  "completion": completion,
}  # fmt: skip


def _parser(command: str, description: str) -> argparse.ArgumentParser:
  return argparse.ArgumentParser(prog=f"rlhf-jax {command}", description=description)
