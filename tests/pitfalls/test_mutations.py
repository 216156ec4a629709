"""Every test of this folder has a bug that it catches, and every bug can still be put in."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from bugs import MUTATIONS
from mutations import mutated

HERE = Path(__file__).parent
TESTS = {
  f"{path.name}::{name}"
  for path in HERE.glob("test_*.py")
  if path != Path(__file__)
  for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
}


def test_every_test_has_a_mutation_and_every_mutation_a_test():
  assert {mutation.test for mutation in MUTATIONS} == TESTS
  assert max(Counter(mutation.name for mutation in MUTATIONS).values()) == 1
  page = (HERE.parents[1] / "docs" / "architecture.md").read_text()
  assert f"{len(MUTATIONS)} of {len(MUTATIONS)} are caught" in page.replace("\n", " ")


def test_every_mutation_still_applies():
  reasons = []
  for mutation in MUTATIONS:
    try:
      compile(mutated(mutation), mutation.file, "exec")
    except (ValueError, SyntaxError) as error:
      reasons.append(f"{mutation.name}: {error}")
  assert not reasons, "\n\n".join(reasons)


def test_a_mutation_that_no_longer_applies_is_named():
  with pytest.raises(ValueError, match="stands 0 times in rlhf_jax/reduce.py"):
    mutated(MUTATIONS[0]._replace(file="reduce.py"))


@pytest.mark.slow
def test_every_known_bug_is_caught():
  done = subprocess.run([sys.executable, HERE / "mutations.py"], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert f"{len(MUTATIONS)} of {len(MUTATIONS)} known bugs are caught" in done.stdout
