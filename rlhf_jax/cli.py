"""The `rlhf-jax` command: flags and a config in, plain arguments out.

rlhf-jax run --config configs/quickstart.py --workdir runs/quickstart [--config.ppo.clip=0.1 ...]
               [--seeds 8] [--vary ppo.kl_coef=0.1,0.2]     a population of runs, trained as one program
rlhf-jax sample RUN ["a prompt"]      answers of the base, SFT and final models side by side
rlhf-jax report RUN                   writes RUN/report.html anew
rlhf-jax collect RUN --prompts FILE -k 4 --out FILE.db      queues samples of a run for human judgement
rlhf-jax annotate FILE.db --annotators ann,bob              serves the annotation page
rlhf-jax convert SOURCE TARGET [--as pairs|dataset]         feedback between .db, .jsonl, .parquet and learners' rows
rlhf-jax agreement FILE [--out DIR]   how far annotators agree, and whom to look at (a .db, .jsonl or .parquet file)
rlhf-jax export RUN DIR               writes the last policy for transformers and vLLM (--stage names another model,
                                      --adapters writes its LoRA adapters alone, for PEFT)
rlhf-jax tokenizer train FILES --vocab-size N --out DIR     trains a byte-level BPE on text or on rows
rlhf-jax harness RUN --tasks A,B      tasks of lm-evaluation-harness, on a model of a run or an exported one
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

from rlhf_jax.pipeline.recipe import load_config, load_population
from rlhf_jax.settings import ConfigError, nearest

SHAPES = ("records", "dataset", "rankings", "pairs", "ratings", "critiques")


def main(argv: list[str] | None = None) -> int:
  """Entry point; a user's mistake is one line on stderr and exit status 2, an interruption is 130."""
  argv = sys.argv[1:] if argv is None else argv
  commands = {
    "run": _run, "sample": _sample, "report": _report, "collect": _collect, "annotate": _annotate, "convert": _convert,
    "agreement": _agreement, "export": _export, "tokenizer": _tokenizer, "harness": _harness,
  }  # fmt: skip
  sys.path.insert(0, "")  # a config may import its neighbours, and name functions of the current directory
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(__doc__)
    return 0
  if argv[0] not in commands:
    print(f"rlhf-jax has no command {argv[0]!r}.{nearest(argv[0], commands)}", file=sys.stderr)
    return 2
  try:
    return commands[argv[0]](argv[1:]) or 0
  except KeyboardInterrupt:
    print("interrupted; the same command continues", file=sys.stderr)
    return 130
  except (ValueError, OSError, FloatingPointError) as error:  # the errors a user can cause
    print(f"rlhf-jax: {error}", file=sys.stderr)
    return 2


def _run(arguments: list[str]) -> int:
  config, workdir = load_config(arguments)
  seeds, vary = load_population(arguments)
  from rlhf_jax.pipeline import (  # import jax: `--help`, typos and the annotation page should answer at once
    members,
    run,
  )
  from rlhf_jax.train import Interrupted

  command = shlex.join(["rlhf-jax", "run", *arguments])
  try:
    if seeds or vary:
      members.run(config, Path(workdir), seeds, vary, command)
    else:
      run.run(config, Path(workdir), command)
  except Interrupted as stop:
    print(f"{stop}; the same command continues there", file=sys.stderr)
    return 130
  return 0


def _sample(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax sample", description="Ask the models of a run, side by side.")
  parser.add_argument("run", type=Path)
  parser.add_argument("prompt", nargs="?", help="without it, prompts are read line by line")
  parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the most probable token (default)")
  parser.add_argument("--max-new-tokens", type=int, default=32)
  parser.add_argument("--seed", type=int, default=0)
  settings = parser.parse_args(arguments)
  from rlhf_jax.data import DataError
  from rlhf_jax.tools.ask import answer, open_run

  models = open_run(settings.run, settings.temperature, settings.max_new_tokens)
  if settings.prompt is not None:
    print(answer(models, settings.prompt, settings.seed))
    return
  print("One prompt a line; an empty line or end of input leaves.")
  for number, line in enumerate(iter(_ask, "")):
    try:
      print(answer(models, line, settings.seed + number), flush=True)
    except DataError as error:  # a prompt that is too long; the next may not be
      print(error, flush=True)


def _ask() -> str:
  try:
    return input("> ").strip()
  except EOFError:
    return ""


def _report(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax report", description="Write RUN/report.html anew.")
  parser.add_argument("run", type=Path)
  settings = parser.parse_args(arguments)
  from rlhf_jax.report.report import write_report

  print(write_report(settings.run))


def _collect(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax collect", description="Queue responses for human judgement.")
  parser.add_argument("run", type=Path, nargs="?", help="the run to sample from; without it, --responses alone")
  parser.add_argument("--prompts", type=Path, metavar="FILE", help="rows with a prompt")
  parser.add_argument("-k", type=int, default=4, dest="num_responses", help="samples per prompt (default 4)")
  parser.add_argument("--out", type=Path, required=True, metavar="FILE.db", help="made, or added to")
  parser.add_argument("--stages", help="comma-separated STAGE or STAGE@STEP to sample in turn; default the last one")
  parser.add_argument("--responses", type=Path, metavar="FILE", help="existing responses to judge (too)")
  parser.add_argument("--gold", type=Path, metavar="FILE", help="an expert's comparisons, mixed in unmarked")
  parser.add_argument("--gold-every", type=int, default=10, help="one gold item in so many tasks (default 10)")
  parser.add_argument("--judgements", type=int, default=1, help="annotators that each item goes to (default 1)")
  parser.add_argument("--num-prompts", type=int, help="the first so many of --prompts; default all")
  parser.add_argument("--temperature", type=float, default=1.0)
  parser.add_argument("--max-new-tokens", type=int, default=32)
  parser.add_argument("--seed", type=int, default=0, help="of the sampling, the display orders and the gold items")
  settings = parser.parse_args(arguments)
  if (settings.run is None) != (settings.prompts is None) or not (settings.run or settings.responses or settings.gold):
    raise ConfigError("RUN and --prompts go together; without them, give --responses or --gold")
  from rlhf_jax import data
  from rlhf_jax.feedback import collect
  from rlhf_jax.feedback.store import Settings

  queue = Settings(settings.seed, settings.judgements, settings.gold_every if settings.gold else 0)
  skips = {}
  existing = collect.read_responses(settings.responses) if settings.responses else {}
  gold, skips[settings.gold] = collect.read_gold(settings.gold) if settings.gold else ([], {})
  prompts, policies = [], []
  if settings.run is not None:
    from rlhf_jax.tools.ask import open_policies

    prompts, skips[settings.prompts] = data.read_prompts(settings.prompts)
    prompts = prompts[: settings.num_prompts]
    names = settings.stages.split(",") if settings.stages else []
    policies = open_policies(settings.run, names, settings.temperature, settings.max_new_tokens)
  items, skips["prompts"] = collect.make_items(prompts, policies, settings.num_responses, settings.seed, existing)
  added = collect.collect(settings.out, items, gold, queue)
  for where, reasons in skips.items():
    for reason, count in sorted(reasons.items()):
      print(f"{where}: skipped {count}: {reason}")
  print(f"{settings.out}: {len(items)} items and {len(gold)} gold items, {added} of them new")


def _annotate(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax annotate", description="Serve the annotation page of a store.")
  parser.add_argument("store", type=Path, metavar="FILE.db")
  parser.add_argument("--annotators", default="", help="comma-separated names; each new one gets a link to log in")
  parser.add_argument("--renew", action="store_true", help="new links for all of them; the old ones end")
  parser.add_argument("--guidelines", type=Path, metavar="FILE", help="shown beside the task; plain text or Markdown")
  parser.add_argument("--host", default="127.0.0.1", help="the address to bind (default: this machine alone)")
  parser.add_argument("--port", type=int, default=8000)
  parser.add_argument(
    "--origin", help="what annotators open, where that is not this machine: https://label.example.org"
  )
  settings = parser.parse_args(arguments)
  from rlhf_jax.data import read_text

  try:
    from rlhf_jax.feedback.server import LOCAL, invite, origins_of, serve
  except ModuleNotFoundError as error:
    raise ConfigError(f"{error}; the page needs the feedback extra: pip install 'rlhf_jax[feedback]'") from error
  guidelines = read_text(settings.guidelines) if settings.guidelines else ""
  origins = origins_of(settings.host, settings.port, settings.origin)
  names = [name.strip() for name in settings.annotators.split(",") if name.strip()]
  for name, link in invite(settings.store, names, origins[0], renew=settings.renew):
    print(f"{name}: {link or 'has a link already (--renew makes a new one)'}")
  if settings.host not in LOCAL and origins[0].startswith("http:"):
    print(f"warning: {origins[0]} is not encrypted; whoever can listen on that network can act as an annotator")
  print(f"serving {settings.store} at {origins[0]}; Ctrl-C stops, nothing is lost", flush=True)
  serve(settings.store, settings.host, settings.port, origins, guidelines)


def _convert(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax convert", description="Feedback from one kind of file to another.")
  parser.add_argument("source", type=Path, help=".db, .jsonl, .parquet or dataset of records, or comparisons of a run")
  parser.add_argument("target", type=Path, help="the same; with --as .jsonl or .csv, or a directory; a .db grows")
  parser.add_argument("--as", dest="shape", choices=SHAPES, help="records by default")
  settings = parser.parse_args(arguments)
  from rlhf_jax.feedback.exchange import convert

  print(f"{settings.target}: {convert(settings.source, settings.target, settings.shape or 'records')}")


def _agreement(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax agreement", description="How far annotators agree, whom to look at.")
  parser.add_argument("file", type=Path, help="records or comparisons: .db, .jsonl or .parquet")
  parser.add_argument("--out", type=Path, metavar="DIR", help="also write all numbers, the consensus and plots there")
  parser.add_argument("--threshold", type=float, metavar="SHARE", help="the agreement on gold items to reach")
  settings = parser.parse_args(arguments)
  if settings.threshold is not None and not 0 <= settings.threshold <= 1:
    raise ValueError(f"--threshold {settings.threshold} must be a share between 0 and 1")
  from rlhf_jax.feedback.exchange import read_records

  try:
    from rlhf_jax.agreement.findings import analyse
    from rlhf_jax.agreement.report import write_findings
    from rlhf_jax.agreement.screening import Limits
    from rlhf_jax.agreement.text import print_findings

    findings = analyse(*read_records(settings.file), Limits(gold=settings.threshold))
  except ModuleNotFoundError as error:
    raise ValueError(f"{error}; pip install 'rlhf_jax[feedback]' brings what agreement needs") from error
  print_findings(findings)
  if settings.out is not None:
    print("\n".join(str(path) for path in write_findings(findings, settings.out)))


def _tokenizer(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax tokenizer", description="Train a tokenizer.")
  parser.add_argument("action", choices=("train",))
  parser.add_argument("files", nargs="+", metavar="FILE", help="plain text, or rows (.jsonl, .json, .parquet)")
  parser.add_argument("--vocab-size", type=int, required=True)
  parser.add_argument("--out", type=Path, required=True, metavar="DIR")
  parser.add_argument("--chat-template", type=Path, metavar="FILE", help="in Jinja; default the project's own form")
  parser.add_argument("--control", default="", help="comma-separated tokens that only the chat template can spell")
  settings = parser.parse_args(arguments)
  from rlhf_jax import data

  texts = (text for file in settings.files for text in data.stream_corpus(file))
  control = [token for token in settings.control.split(",") if token]
  tokenizer = data.train_tokenizer(texts, settings.vocab_size, control)
  template = data.read_text(settings.chat_template) if settings.chat_template else ""
  data.export_tokenizer(dataclasses.replace(tokenizer, chat_template=template), settings.out)
  found = data.load_tokenizer(settings.out)  # as every stage will: with its checks
  print(f"{settings.out}: {found.vocab_size} tokens, PAD {found.pad_id}, BOS {found.bos_id}, EOS {found.eos_id}")


def _export(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax export", description="Write a model for transformers and vLLM.")
  parser.add_argument("run", type=Path)
  parser.add_argument("directory", type=Path)
  parser.add_argument("--stage", default="", help="the stage whose model it is (default: the last policy)")
  parser.add_argument("--adapters", action="store_true", help="its LoRA adapters alone, as PEFT reads them")
  settings = parser.parse_args(arguments)
  from rlhf_jax.tools.export import export_run

  name = export_run(settings.run, settings.directory, settings.stage, settings.adapters)
  print(f"{settings.directory}: the {'adapters' if settings.adapters else 'model'} of {name}")


def _harness(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax harness", description="Run tasks of lm-evaluation-harness.")
  parser.add_argument("model", type=Path, help="a run, or a directory with config.json, weights and tokenizer")
  parser.add_argument("--stage", default="", help="of a run: the stage whose model it is (default: the last policy)")
  parser.add_argument("--tasks", required=True, help="comma-separated names")
  parser.add_argument("--include", type=Path, metavar="DIR", help="your own task files, instead of the built-in ones")
  parser.add_argument("--shots", type=int, help="worked examples before a question (default: what the task says)")
  parser.add_argument("--chat", action="store_true", help="ask in the chat form, examples as turns (for tuned models)")
  parser.add_argument("--limit", type=int, help="the first so many questions of each task")
  parser.add_argument("--batch-size", type=int, default=32)
  parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write all results there")
  settings = parser.parse_args(arguments)
  try:
    from rlhf_jax.tools.harness import HarnessModel, evaluate, open_model
  except ModuleNotFoundError as error:
    raise ConfigError(f"{error}; the harness needs the eval extra: pip install 'rlhf_jax[eval]'") from error
  model = HarnessModel(*open_model(settings.model, settings.stage), batch_size=settings.batch_size)
  tasks = settings.tasks.split(",")
  found = evaluate(model, tasks, settings.include, settings.shots, settings.chat, settings.limit)
  text = json.dumps(found, indent=2, default=str)
  if settings.out:
    settings.out.write_text(text + "\n")
  print(text)


if __name__ == "__main__":
  sys.exit(main())
