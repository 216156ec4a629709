"""The commands: each parses its flags, imports the parts it needs, and prints the result."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_jax.cli import feedback_commands, parsers
from rlhf_jax.cli.failures import told
from rlhf_jax.pipeline.recipe import config_lines, load_config, load_seeds, run_parser
from rlhf_jax.settings import ConfigError
from rlhf_jax.writing import write_bytes

if TYPE_CHECKING:
  from rlhf_jax.sweep.engines import Engine


def _configs(arguments: list[str]) -> None:
  settings = parsers.configs().parse_args(arguments)
  from rlhf_jax.pipeline import catalogue

  width = min(shutil.get_terminal_size((120, 24)).columns, 120)
  if settings.recipe is None:
    print(catalogue.listing(width))
    return
  from rlhf_jax.tools.settings_text import settings_text

  print(settings_text(settings.recipe, settings.stages, settings.all, width))


def _run(arguments: list[str]) -> int:
  config, workdir = load_config(arguments)
  seeds = load_seeds(arguments)
  settings = run_parser().parse_known_args(arguments)[0]
  if settings.print:
    print("\n".join(config_lines(config)))
    return 0
  from rlhf_jax.pipeline import run  # imports jax: `--help`, typos and the annotation page should answer at once
  from rlhf_jax.pipeline.check import check_run
  from rlhf_jax.sweep import members
  from rlhf_jax.train import job, processes
  from rlhf_jax.train.signals import Interrupted, exit_on_signal

  job.start(settings.coordinator, settings.process_count, settings.process_index)
  if seeds and processes.several():
    raise ConfigError("--seeds starts processes of its own, on this machine: start it once, without --process-count")
  redo = [name for names in settings.redo for name in names.split(",")]
  if settings.check:
    check = functools.partial(members.check, seeds=seeds) if seeds else check_run
    found = check(config, Path(workdir), redo=redo, accept_changes=settings.accept_changes)
    if processes.leader():
      print(found)
    return 0

  command = shlex.join(["rlhf-jax", "run", *arguments])
  try:
    with exit_on_signal():
      if seeds:
        members.run(config, Path(workdir), seeds, command, redo, settings.accept_changes)
      else:
        run.run(config, Path(workdir), command, redo, settings.accept_changes)
  except Interrupted as stop:
    without = " without --redo" if redo else ""
    if processes.leader():
      print(f"{stop}; the same command{without} continues there", file=sys.stderr)
    return 128 + stop.number
  except BaseException as error:
    if not processes.several():
      raise
    cause = processes.lost(error) or error
    status = told(cause, processes.name())
    if status is None:
      traceback.print_exception(error)
    job.end(cause, 1 if status is None else status)
  if processes.leader():
    print(f"The report is {Path(workdir) / 'report.html'}")
  return 0


def _sweep(arguments: list[str]) -> int:
  settings = parsers.sweep().parse_args(arguments)
  from rlhf_jax.sweep import command
  from rlhf_jax.sweep.cells import read_cells
  from rlhf_jax.sweep.drive import SweepStopped

  root = settings.workdir.absolute()
  if settings.trials:
    return _search(settings, root)
  file, _, arg = settings.file.partition(":")
  cells = read_cells(Path(file), arg)
  units, costs = command.prepare(cells, root)
  if settings.dry_run or settings.check:
    print(command.plan_text(cells, units, costs, root))
    return 0
  if settings.engine == "commands":
    print(f"The command lines are in {command.hand_out(cells, units, root, settings.metric)}")
    return 0
  parameters = command.read_parameters(settings.slurm)
  engine = command.choose_engine(settings.engine, root, settings.workers, costs, parameters)
  try:
    command.run_cells(cells, root, units, engine, settings.retries, settings.metric)
  except SweepStopped as stop:
    print("the sweep was stopped, and what ran has saved; the same command continues", file=sys.stderr)
    return 128 + stop.number
  print(f"The tables are {root / 'table.html'}, .csv, .parquet and .json, and {root / 'groups.csv'}")
  return 0


def _search(settings: argparse.Namespace, root: Path) -> int:
  from rlhf_jax.sweep import command
  from rlhf_jax.sweep.drive import SweepStopped
  from rlhf_jax.sweep.engines import default_workers
  from rlhf_jax.sweep.search import search

  if settings.engine == "commands" or settings.dry_run or settings.check:
    raise ConfigError("a search chooses its trials by the results of others: it has no plan to print or to hand out")
  parameters = command.read_parameters(settings.slurm)
  at_once = settings.workers or (1 if settings.engine == "inline" else default_workers(0))

  def engine() -> Engine:
    return command.choose_engine(settings.engine, root, at_once, {}, parameters)

  plan = (settings.trials, settings.sampler, settings.prune)
  try:
    print(search(Path(settings.file), root, *plan, engine, at_once, settings.retries))
  except SweepStopped as stop:
    print("the search was stopped, and what ran has saved; the same command continues", file=sys.stderr)
    return 128 + stop.number
  return 0


def _compare(arguments: list[str]) -> None:
  settings = parsers.compare().parse_args(arguments)
  from rlhf_jax.sweep import command

  rows = command.compare(settings.runs)
  settings.out.mkdir(parents=True, exist_ok=True)
  command.tell(rows, settings.out, settings.metric)


def _sample(arguments: list[str]) -> None:
  settings = parsers.sample().parse_args(arguments)
  from rlhf_jax.data import DataError
  from rlhf_jax.tools.ask import answer, open_models

  models = open_models(settings.run, settings.temperature, settings.max_new_tokens)
  if settings.prompt is not None:
    print(answer(models, settings.prompt, settings.seed))
    return
  print("One prompt a line; an empty line or end of input leaves.")
  for number, line in enumerate(iter(_ask, "")):
    try:
      print(answer(models, line, settings.seed + number), flush=True)
    except DataError as error:  # a prompt that is too long; the next may not be
      print(error, flush=True)


def _complete(arguments: list[str]) -> None:
  settings = parsers.complete().parse_args(arguments)
  if settings.num > 1 and settings.temperature == 0:
    raise ConfigError("at --temperature 0 all completions are the same: leave -n at 1")
  if (settings.examples is None) != (settings.shots is None):
    raise ConfigError("--examples FILE and --shots K go together")
  text = _text(settings.text, settings.file)
  from rlhf_jax.tools import complete as tool
  from rlhf_jax.tools.any_model import open_models
  from rlhf_jax.train import Sampling

  stop: tuple[str, ...] = ()
  if settings.examples is not None:
    text, stop = tool.few_shot_text(settings.examples, settings.shots, text), (tool.EXAMPLE_END,)
  opened = open_models(settings.model, [stage for stage in settings.stage.split(",") if stage])
  for model in opened:
    tool.check_fit(model, text, settings.max_new_tokens)
  if tool.ends_inside_a_token(opened[0].tokenizer, text):
    _tell("warning: the text ends in a space, which the tokenizer joins to the word behind it: better leave it out")
  sampling = Sampling(
    max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, top_k=settings.top_k,
    top_p=settings.top_p, stop=stop,
  )  # fmt: skip
  loaded = [model.load() for model in opened]
  print(tool.indented(text))
  for model, params in zip(opened, loaded, strict=True):
    found = tool.complete(model, params, text, sampling, settings.num, settings.seed)
    print(f"\n{tool.completed_text(model.name, found)}", flush=True)
  print("\nPerplexities are per token at temperature 1: of the text behind <bos>, and of what was drawn with its end.")


def _text(given: str | None, file: Path | None) -> str:
  if given is not None and file is not None:
    raise ConfigError("give the text or --file, not both")
  if file is not None:
    from rlhf_jax.data import read_text

    given = read_text(file).removesuffix("\n")
  elif given is None:
    given = sys.stdin.read().removesuffix("\n")
  if not given.strip():
    raise ConfigError("the text is empty: there is nothing to go on with")
  return given


def _ask() -> str:
  try:
    return input("> ").strip()
  except EOFError:
    return ""


def _report(arguments: list[str]) -> None:
  settings = parsers.report().parse_args(arguments)
  from rlhf_jax.report.report import write_report

  print(write_report(settings.run))


def _inspect(arguments: list[str]) -> None:
  settings = parsers.inspect().parse_args(arguments)
  from rlhf_jax.report.inspection import write_inspection

  print(write_inspection(settings.run, settings.stage, settings.out))


def _doctor(arguments: list[str]) -> int:
  settings = parsers.doctor().parse_args(arguments)
  from rlhf_jax.tools.doctor import diagnosis_text, examine

  diagnosis = examine(settings.run)
  print(diagnosis_text(diagnosis))
  return 1 if diagnosis.faults else 0


def _compile(arguments: list[str]) -> int:
  settings, overrides = parsers.compile_pod().parse_known_args(arguments)
  config, _ = load_config(["--config", settings.config, "--print", *overrides])
  os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the chips are not there
  from rlhf_jax.tools.compile.chips import target
  from rlhf_jax.tools.compile.compile import compile_config, search_config, write
  from rlhf_jax.tools.compile.report import as_text

  chips = target(settings.topology, settings.slices)
  name = shlex.join([settings.config, *overrides])
  only = [stage for stage in settings.stages.split(",") if stage]
  if settings.search:
    found, report = search_config(config, name, chips, only, settings.best, _tell)
    print(found)
  else:
    report = compile_config(config, name, chips, only, _tell)
  print(as_text(report))
  if settings.out is not None:
    write(report, settings.out)
  return 0 if report.fits else 1


def _tell(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _agreement(arguments: list[str]) -> None:
  settings = parsers.agreement().parse_args(arguments)
  if settings.threshold is not None and not 0 <= settings.threshold <= 1:
    raise ValueError(f"--threshold {settings.threshold} must be a share between 0 and 1")
  from rlhf_jax.agreement.findings import analyse
  from rlhf_jax.agreement.report import write_findings
  from rlhf_jax.agreement.screening import Limits
  from rlhf_jax.agreement.tables import judgement_table, pairs_of
  from rlhf_jax.agreement.text import final_line, print_findings
  from rlhf_jax.agreement.yes_no import yes_no_agreement
  from rlhf_jax.feedback.exchange import read_records

  records = read_records(settings.file)
  table = judgement_table(*records)
  if not len(pairs_of(table).unit) and (answers := yes_no_agreement(table)):  # single responses: nothing is ordered
    told = [f"{name}: {estimate.text()}" for name, estimate in answers.items()]
    print("\n".join(filter(None, [*told, final_line(table)])))
    if settings.out is not None:
      raise ConfigError("--out needs judgements that order two responses; these answer yes or no alone")
    return
  findings = analyse(*records, Limits(gold=settings.threshold))
  print_findings(findings)
  if settings.out is not None:
    print("\n".join(str(path) for path in write_findings(findings, settings.out)))


def _tokenizer(arguments: list[str]) -> None:
  settings = parsers.tokenizer().parse_args(arguments)
  from rlhf_jax import data

  texts = (text for file in settings.files for text in data.stream_corpus(file))
  control = [token for token in settings.control.split(",") if token]
  tokenizer = data.train_tokenizer(texts, settings.vocab_size, control)
  template = data.read_text(settings.chat_template) if settings.chat_template else ""
  data.export_tokenizer(dataclasses.replace(tokenizer, chat_template=template), settings.out)
  found = data.load_tokenizer(settings.out)  # as every stage will: with its checks
  print(f"{settings.out}: {found.vocab_size} tokens, PAD {found.pad_id}, BOS {found.bos_id}, EOS {found.eos_id}")


def _export(arguments: list[str]) -> None:
  settings = parsers.export().parse_args(arguments)
  from rlhf_jax.tools.export import export_run

  name = export_run(settings.run, settings.directory, settings.stage, settings.adapters, settings.dtype)
  print(f"{settings.directory}: the {'adapters' if settings.adapters else 'model'} of {name}")


def _harness(arguments: list[str]) -> None:
  settings = parsers.harness().parse_args(arguments)
  try:
    from rlhf_jax.tools.harness import HarnessModel, evaluate, open_model
  except ModuleNotFoundError as error:
    raise ConfigError(f"{error}; the harness needs the eval extra: pip install 'rlhf_jax[eval]'") from error
  model = HarnessModel(*open_model(settings.model, settings.stage), batch_size=settings.batch_size)
  tasks = settings.tasks.split(",")
  found = evaluate(model, tasks, settings.include, settings.shots, settings.chat, settings.limit)
  text = json.dumps(found, indent=2, default=str)
  if settings.out:
    write_bytes(settings.out, f"{text}\n".encode())
  print(text)


def _completion(arguments: list[str]) -> None:
  settings = parsers.completion().parse_args(arguments)
  from rlhf_jax.cli.completion import script

  print(script(settings.shell))


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
  "configs": _configs, "run": _run, "sweep": _sweep, "compare": _compare, "sample": _sample, "complete": _complete,
  "report": _report, "inspect": _inspect, "doctor": _doctor, "compile": _compile,
  "collect": feedback_commands.collect, "annotate": feedback_commands.annotate, "convert": feedback_commands.convert,
  "agreement": _agreement, "export": _export, "tokenizer": _tokenizer,
  "harness": _harness, "completion": _completion,
}  # fmt: skip
