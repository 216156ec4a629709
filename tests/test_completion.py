"""Commands, flags, choices and recipes are completed: bash itself is asked, zsh and fish where they are installed."""

import shutil
import subprocess

import pytest

from rlhf_jax.cli.completion import script
from rlhf_jax.cli.parsers import PARSERS, SHELLS
from rlhf_jax.pipeline.catalogue import recipe_names


def completed(*words):
  """The words that bash offers for the last of `words`."""
  line = f"""
{script("bash")}
COMP_WORDS=(rlhf-jax {" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words)}
_rlhf_jax
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
  return subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize(
  "words, expected",
  [
    ([""], list(PARSERS)),
    (["re"], ["report"]),
    (["run", "--w"], ["--workdir"]),
    (["run", "--config", "quick"], ["quickstart"]),
    (["run", "--config", ""], recipe_names()),
    (["configs", "grp"], ["grpo"]),
    (["convert", "a.db", "--as", "r"], ["records", "rankings", "ratings"]),
    (["completion", "z"], ["zsh"]),
    (["harness", "run", "--ba"], ["--batch-size"]),
    (["sample", "runs/"], []),  # bash falls back to files
  ],
)
def test_words_that_bash_offers(words, expected):
  assert completed(*words) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_holds_every_flag_and_is_accepted_by_its_shell(shell):
  text = script(shell)
  for command, parser in PARSERS.items():
    flags = [flag for action in parser()._actions for flag in action.option_strings]
    spelt = [f"-l {flag[2:]}" if shell == "fish" and flag.startswith("--") else flag for flag in flags]
    assert command in text and all(flag in text for flag in spelt if flag.startswith("-l") or shell != "fish")
  assert "quickstart" in text
  if shutil.which(shell):
    check = ["--no-execute"] if shell == "fish" else ["-n"]
    subprocess.run([shell, *check], input=text, text=True, check=True)
