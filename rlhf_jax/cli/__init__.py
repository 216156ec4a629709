"""The `rlhf-jax` command: flags and a config in, plain arguments out.

rlhf-jax configs [RECIPE [STAGE ...]] lists the recipes, or shows a recipe and its settings
rlhf-jax run --config RECIPE --workdir DIR [--config.ppo.clip=0.1 ...]
               [--seeds 8]            several seeds of the last stage that is trained
               [--print]              shows the resolved config and ends
               [--check]              checks everything before a run, shows what each stage will cost, and ends
rlhf-jax sweep FILE --workdir DIR     runs the cells that sweep(add) of FILE adds, and writes a table
rlhf-jax compare RUN RUN ...          writes tables of runs: what differs in their configs, and what they measured
rlhf-jax sample RUN ["a prompt"]      answers of the base, SFT and final models side by side
rlhf-jax complete MODEL ["a text"] -n 10    ways in which a model of a run, or a published one, goes on with a text
rlhf-jax report RUN                   writes RUN/report.html anew
rlhf-jax inspect RUN                  writes RUN/inspect.html: responses of RL token by token (--stage, --out FILE)
rlhf-jax doctor RUN                   causes of trouble that the metrics show, and what to change (exit status 1: found)
rlhf-jax compile --config RECIPE --topology v5e:16x16       whether a config fits a pod that is not there, and how fast
                                      (--search finds the fastest use of its chips)
rlhf-jax collect RUN --prompts FILE -k 4 --out FILE.db      queues samples of a run for human judgement
rlhf-jax annotate FILE.db --annotators ann,bob              serves the annotation page
rlhf-jax convert SOURCE TARGET [--as pairs|dataset]         feedback between .db, .jsonl, .parquet and learners' rows
rlhf-jax agreement FILE [--out DIR]   agreement of the annotators, and which of them to look at (.db, .jsonl, .parquet)
rlhf-jax export RUN DIR               writes the last policy for transformers and vLLM (--stage names another model,
                                      --adapters writes its LoRA adapters alone, for PEFT,
                                      --dtype bfloat16 rounds the numbers to half the size)
rlhf-jax tokenizer train FILES --vocab-size N --out DIR     trains a byte-level BPE on text or on rows
rlhf-jax harness RUN --tasks A,B      tasks of lm-evaluation-harness, on a model of a run or an exported one
rlhf-jax completion bash|zsh|fish     prints a script by which the shell completes all of this
rlhf-jax COMMAND --help               shows the flags of a command
rlhf-jax --version
"""

from __future__ import annotations

import sys

from rlhf_jax import __version__
from rlhf_jax.cli.commands import COMMANDS
from rlhf_jax.cli.failures import told
from rlhf_jax.settings import nearest
from rlhf_jax.streams import lasting_output


def main(argv: list[str] | None = None) -> int:
  """Entry point; returns the exit status (docs/reliability.md has the table).

  A user's mistake is one line on stderr and status 2, and a signal is 128 + its number. A closed standard output, as of
  `rlhf-jax configs | head`, ends nothing.
  """
  with lasting_output():
    return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: list[str]) -> int:
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(__doc__)
    return 0
  if argv[0] in ("--version", "version"):
    print(f"rlhf-jax {__version__}")
    return 0
  if argv[0] not in COMMANDS:
    print(f"rlhf-jax has no command {argv[0]!r}.{nearest(argv[0], COMMANDS)}", file=sys.stderr)
    return 2
  # The other commands may stand in a run directory that somebody else made.
  if argv[0] in ("run", "configs", "sweep", "compile"):
    sys.path.insert(0, "")  # a config may import its neighbours, and name functions of the current directory
  try:
    return COMMANDS[argv[0]](argv[1:]) or 0
  except BaseException as error:
    status = told(error)
    if status is None:
      raise
    return status
