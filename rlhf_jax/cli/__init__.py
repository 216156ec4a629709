"""The `rlhf-jax` command: flags and a config in, plain arguments out.

rlhf-jax configs [RECIPE [STAGE ...]] lists the recipes, or shows a recipe and its settings
rlhf-jax run --config RECIPE --workdir DIR [--config.ppo.clip=0.1 ...]
               [--seeds 8] [--vary ppo.kl_coef=0.1,0.2]     a population of runs, trained as one program
               [--print]              shows the resolved config and ends
rlhf-jax sample RUN ["a prompt"]      answers of the base, SFT and final models side by side
rlhf-jax report RUN                   writes RUN/report.html anew
rlhf-jax collect RUN --prompts FILE -k 4 --out FILE.db      queues samples of a run for human judgement
rlhf-jax annotate FILE.db --annotators ann,bob              serves the annotation page
rlhf-jax convert SOURCE TARGET [--as pairs|dataset]         feedback between .db, .jsonl, .parquet and learners' rows
rlhf-jax agreement FILE [--out DIR]   agreement of the annotators, and which of them to look at (.db, .jsonl, .parquet)
rlhf-jax export RUN DIR               writes the last policy for transformers and vLLM (--stage names another model,
                                      --adapters writes its LoRA adapters alone, for PEFT)
rlhf-jax tokenizer train FILES --vocab-size N --out DIR     trains a byte-level BPE on text or on rows
rlhf-jax harness RUN --tasks A,B      tasks of lm-evaluation-harness, on a model of a run or an exported one
rlhf-jax completion bash|zsh|fish     prints a script by which the shell completes all of this
rlhf-jax COMMAND --help               shows the flags of a command
rlhf-jax --version
"""

from __future__ import annotations

import os
import sys

from rlhf_jax import __version__
from rlhf_jax.cli.commands import COMMANDS
from rlhf_jax.settings import nearest


def main(argv: list[str] | None = None) -> int:
  """Entry point; a user's mistake is one line on stderr and exit status 2, an interruption is 130."""
  argv = sys.argv[1:] if argv is None else argv
  sys.path.insert(0, "")  # a config may import its neighbours, and name functions of the current directory
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(__doc__)
    return 0
  if argv[0] in ("--version", "version"):
    print(f"rlhf-jax {__version__}")
    return 0
  if argv[0] not in COMMANDS:
    print(f"rlhf-jax has no command {argv[0]!r}.{nearest(argv[0], COMMANDS)}", file=sys.stderr)
    return 2
  try:
    return COMMANDS[argv[0]](argv[1:]) or 0
  except KeyboardInterrupt:
    print("interrupted; the same command continues", file=sys.stderr)
    return 130
  except BrokenPipeError:  # the reader of a pipe, as in `rlhf-jax configs | head`, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except ModuleNotFoundError as error:
    if not error.name or error.name.startswith("rlhf_jax"):
      raise
    print(f"rlhf-jax: {error}; `pip install rlhf_jax` brings what this package needs", file=sys.stderr)
    return 2
  except (ValueError, OSError, FloatingPointError) as error:  # the errors a user can cause
    print(f"rlhf-jax: {error}", file=sys.stderr)
    return 2
