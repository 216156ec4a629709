"""The flags of every command, without the imports of the commands: `--help` and completion answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rlhf_jax.pipeline.recipe import run_parser
from rlhf_jax.ranges import AtLeast, Range

SHAPES = ("records", "dataset", "rankings", "pairs", "ratings", "yes_no", "critiques", "events")
ENGINES = ("inline", "local", "slurm", "commands")
SAMPLERS = ("random", "sobol", "halton", "tpe")
SHELLS = ("bash", "zsh", "fish")


def _number(kind: type[int] | type[float], allowed: Range) -> Callable[[str], float]:
  """A `type` of argparse: numbers of a range."""

  def number(text: str) -> float:
    value = kind(text)
    if value not in allowed:
      raise argparse.ArgumentTypeError(f"it is {text}, and must be {allowed}")
    return value

  number.__name__ = kind.__name__  # argparse names it where the text is no number
  return number


_TEMPERATURE, _COUNT, _FROM_0 = _number(float, AtLeast(0)), _number(int, AtLeast(1)), _number(int, AtLeast(0))


def configs() -> argparse.ArgumentParser:
  """rlhf-jax configs"""
  parser = _parser("configs", "List the recipes, or show one with its settings: type, value and description.")
  parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="its name, NAME:ARG, or the path of a .py file")
  parser.add_argument("stages", nargs="*", metavar="STAGE", help="show the settings of these stages; also `model`, "
                      "`transport`")  # fmt: skip
  parser.add_argument("--all", action="store_true", help="show the settings of every stage")
  return parser


def sweep() -> argparse.ArgumentParser:
  """rlhf-jax sweep"""
  parser = _parser("sweep", "Run the cells that sweep(add) of a file adds, and write a table of them.")
  parser.add_argument(
    "file",
    metavar="FILE[:ARG]",
    help="a .py file with sweep(add) or sweep(add, ARG), where add(config) adds a cell, or with search(trial)",
  )
  parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the directory of the sweep; the same "
                      "command continues there")  # fmt: skip
  parser.add_argument("--engine", choices=ENGINES, default="local", help="inline: this process; local: processes of "
                      "this machine (default); slurm: jobs of a cluster; commands: writes a command line for each "
                      "run")  # fmt: skip
  parser.add_argument("--workers", type=_COUNT, metavar="N", help="runs at a time (default: one a GPU, else one a core "
                      "as far as the memory goes; any number of jobs of SLURM)")  # fmt: skip
  parser.add_argument("--retries", type=_FROM_0, default=2, metavar="K", help="how often a run that "
                      "failed is tried again (default 2)")  # fmt: skip
  parser.add_argument("--slurm", action="append", default=[], metavar="KEY=VALUE", help="a parameter of jobs in "
                      "submitit's names, as slurm_partition=gpu or timeout_min=600; may be repeated")  # fmt: skip
  parser.add_argument("--trials", type=_COUNT, metavar="N", help="search: N trials of search(trial) of the file, whose "
                      "objective is to be best")  # fmt: skip
  parser.add_argument("--sampler", choices=SAMPLERS, default="tpe", help="search: how trials are chosen (default tpe, "
                      "which learns from earlier ones)")  # fmt: skip
  parser.add_argument("--prune", action="store_true", help="search: stop trials early that fall behind, by successive "
                      "halving on the objective's curve")  # fmt: skip
  parser.add_argument("--dry-run", action="store_true", help="check every cell, show the plan, and end")
  parser.add_argument("--check", action="store_true", help="the same as --dry-run")
  _add_metric(parser)
  return parser


def compare() -> argparse.ArgumentParser:
  """rlhf-jax compare"""
  parser = _parser("compare", "Write tables of runs: what differs in their configs, and what they measured.")
  parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run, or a sweep, which stands for its runs")
  parser.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR", help="the directory for the "
                      "tables (default comparison)")  # fmt: skip
  _add_metric(parser)
  return parser


def _add_metric(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--metric", action="append", default=[], metavar="STAGE/METRIC", help="a metric of the grouped "
                      "table; may be repeated (default: up to six of the latest stages)")  # fmt: skip


def sample() -> argparse.ArgumentParser:
  """rlhf-jax sample"""
  parser = _parser("sample", "Ask the models of a run, side by side.")
  parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run")
  parser.add_argument("prompt", nargs="?", help="a prompt; without it, prompts are read line by line")
  parser.add_argument("--temperature", type=_TEMPERATURE, default=0.0, help="divisor of the logits; 0 takes the most "
                      "probable token (default)")  # fmt: skip
  parser.add_argument("--max-new-tokens", type=_COUNT, default=32, help="longest response in tokens (default 32)")
  parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
  return parser


def complete() -> argparse.ArgumentParser:
  """rlhf-jax complete"""
  parser = _parser("complete", "Go on with a text, without a chat form, and measure the perplexity of each way.")
  parser.add_argument("model", type=Path, metavar="MODEL", help="a run, or a published model: a directory, a "
                      ".gguf file or owner/name")  # fmt: skip
  parser.add_argument("text", nargs="?", help="the text; without it and --file, standard input")
  parser.add_argument("--file", type=Path, help="a file with the text, whose last line end is left out")
  parser.add_argument("--stage", default="", help="comma-separated stages of a run (default: the last language model)")
  parser.add_argument("-n", type=_COUNT, default=1, dest="num", help="number of completions (default 1)")
  parser.add_argument("--max-new-tokens", type=_COUNT, default=64, help="longest completion in tokens (default 64)")
  parser.add_argument("--temperature", type=_TEMPERATURE, default=1.0, help="divisor of the logits; 0 takes the most "
                      "probable token (default 1)")  # fmt: skip
  parser.add_argument("--top-k", type=_FROM_0, default=0, metavar="K", help="draw from the K likeliest tokens alone "
                      "(default 0: all)")  # fmt: skip
  parser.add_argument("--top-p", type=_number(float, Range(0, 1, with_low=False)), default=1.0, metavar="P",
                      help="draw from the fewest likeliest tokens of probability P (default 1: all)")  # fmt: skip
  parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
  parser.add_argument("--examples", type=Path, metavar="FILE", help="rows of questions or demonstrations: worked "
                      "examples before the text, and a completion then ends at an empty line")  # fmt: skip
  parser.add_argument("--shots", type=_FROM_0, metavar="K", help="number of examples, from the start of --examples")
  return parser


def report() -> argparse.ArgumentParser:
  """rlhf-jax report"""
  parser = _parser("report", "Write RUN/report.html anew.")
  parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run")
  return parser


def inspect() -> argparse.ArgumentParser:
  """rlhf-jax inspect"""
  parser = _parser("inspect", "Write a page that shows responses of a stage of RL token by token, along its training.")
  parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run, finished or not")
  parser.add_argument("--stage", default="", help="the stage (default: the last one with recorded tokens)")
  parser.add_argument("--out", type=Path, metavar="FILE.html", help="the page to write (default RUN/inspect.html)")
  return parser


def doctor() -> argparse.ArgumentParser:
  """rlhf-jax doctor"""
  parser = _parser(
    "doctor",
    "Look through the metrics, samples and results of a run for known causes of trouble, with the evidence and the "
    "setting to change. Exit status 0: nothing found, 1: something found.",
  )
  parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run, finished or not")
  return parser


def compile_pod() -> argparse.ArgumentParser:
  """rlhf-jax compile"""
  parser = _parser(
    "compile",
    "Compile every program of a config for TPUs that are not there, on a machine without any: whether they fit, what "
    "they send, and how fast they are by prediction. --config.KEY=VALUE sets keys as in `rlhf-jax run`. Exit status 0: "
    "everything fits, 1: something does not.",
  )
  parser.add_argument("--config", required=True, metavar="NAME", help="a recipe, as of `rlhf-jax run`")
  parser.add_argument("--topology", required=True, metavar="CHIPS", help="generation and shape of a slice: v5e:16x16, "
                      "v5p:4x4x4, v6e:16x16, v4:4x4x4")  # fmt: skip
  parser.add_argument(
    "--slices", type=_COUNT, default=1, help="number of slices, between which only the axis data goes"
  )
  parser.add_argument("--stages", default="", help="comma-separated stages of the config (default all)")
  parser.add_argument("--search", action="store_true", help="try mesh shapes, microbatches, remat and logits_chunk, "
                      "and take the fastest by prediction that fits")  # fmt: skip
  parser.add_argument("--best", type=_COUNT, default=3, help="number of uses of the chips that --search compiles at "
                      "most (default 3)")  # fmt: skip
  parser.add_argument("--out", type=Path, metavar="PATH", help="also write PATH.json and PATH.html")
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
  parser.add_argument("--gold-every", type=int, help="number of items from one gold item to the next (default 10)")
  parser.add_argument("--judgements", type=int, help="number of annotators for each item (default 1)")
  parser.add_argument("--agreeing", type=int, metavar="K", help="while fewer than K annotators of an item agree, it "
                      "goes to one more (default: no rule)")  # fmt: skip
  parser.add_argument("--at-most", type=int, metavar="M", help="and to M at most; then an expert settles it")
  parser.add_argument("--questions", type=Path, metavar="FILE", help="what is asked: a .toml, or a config (.py)")
  parser.add_argument("--num-prompts", type=int, help="number of prompts, from the start of --prompts; default all")
  parser.add_argument("--temperature", type=_TEMPERATURE, default=1.0, help="divisor of the logits (default 1)")
  parser.add_argument("--max-new-tokens", type=_COUNT, default=32, help="longest response in tokens (default 32)")
  parser.add_argument(
    "--seed", type=int, help="seed of the sampling, of the display orders and of the choice of gold items (default 0)"
  )
  return parser


def annotate() -> argparse.ArgumentParser:
  """rlhf-jax annotate"""
  parser = _parser("annotate", "Serve the annotation page of a store.")
  parser.add_argument("store", type=Path, metavar="FILE.db", help="a store, as `collect` makes it")
  parser.add_argument("--annotators", default="", help="comma-separated names; each new name gets a link to log in")
  parser.add_argument("--experts", default="", help="comma-separated names of experts, who settle disputed items too")
  parser.add_argument("--lead", default="", metavar="NAME", help="name of a lead, who gets a link to the dashboard")
  parser.add_argument("--revoke", default="", help="comma-separated names whose links end; their judgements are kept")
  parser.add_argument("--restore", default="", help="comma-separated names of revoked annotators who get a new link")
  parser.add_argument("--questions", type=Path, metavar="FILE", help="what is asked: a .toml, or a config (.py)")
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
  parser.add_argument("--annotators", default="", help="comma-separated names whose judgements are taken; default all")
  parser.add_argument("--without-annotators", default="", help="comma-separated names whose judgements are left out")
  parser.add_argument("--without-revoked", action="store_true", help="leave out judgements of revoked annotators")
  parser.add_argument("--since", default="", metavar="TIME", help="earliest day (2026-01-31) or time in UTC")
  parser.add_argument("--until", default="", metavar="TIME", help="day or time before which judgements were given")
  parser.add_argument("--flags", default="", help="comma-separated flags of which a judgement must set one")
  parser.add_argument("--without-flags", default="", help="comma-separated flags that leave a judgement out")
  parser.add_argument("--final", action="store_true", help="of an adjudicated item, the expert's judgement "
                      "alone, as rows for learners always have it")  # fmt: skip
  parser.add_argument("--aspect", default="", help="an aspect whose ratings take the place of those of the whole")
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
  parser.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32", help="number format of the files (default float32)"
  )
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
  "configs": configs, "run": run_parser, "sweep": sweep, "compare": compare, "sample": sample, "complete": complete,
  "report": report, "inspect": inspect, "doctor": doctor, "compile": compile_pod, "collect": collect,
  "annotate": annotate, "convert": convert, "agreement": agreement, "export": export, "tokenizer": tokenizer,
  "harness": harness, "completion": completion,
}  # fmt: skip


def _parser(command: str, description: str) -> argparse.ArgumentParser:
  return argparse.ArgumentParser(prog=f"rlhf-jax {command}", description=description)
