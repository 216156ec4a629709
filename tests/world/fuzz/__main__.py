"""Fuzzes the gold reward: `cd tests/world; python -m fuzz --num 100000 --seed 1`.

Prints the counts per cluster and the kinds that failed, with examples; the exit status is 1 where a kind failed that
is no exception.
"""

import argparse

from fuzz import GRAMMARS, draw_cases
from fuzz.judged import EXCEPTIONS, excepted, failures, report
from rlhf_jax.world import gold_score, make_world


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--num", type=int, default=100_000, help="cases over all worlds")
  parser.add_argument("--seed", type=int, default=0, help="seed of the cases")
  parser.add_argument("--worlds", type=int, default=4, help="number of worlds, seeds 0 upwards")
  parser.add_argument("--difficulty", default="easy", help="difficulty of the worlds: easy, medium or hard")
  parser.add_argument("--examples", type=int, default=3, help="examples shown of each kind that failed")
  arguments = parser.parse_args()
  cases, totals = [], []
  for world_seed in range(arguments.worlds):
    world = make_world(world_seed, arguments.difficulty)
    drawn = draw_cases(GRAMMARS, arguments.num // arguments.worlds, arguments.seed, world)
    cases += drawn
    totals += [gold_score(world, case.prompt, case.response).total for case in drawn]
  failed = failures(cases, totals)
  new = [failure for failure in failed if not excepted(failure.case)]
  print(report(cases, failed, arguments.examples))
  print(f"\n{len(failed)} failed, {len(failed) - len(new)} of them as {len(EXCEPTIONS)} exceptions allow")
  return int(bool(new))


if __name__ == "__main__":
  raise SystemExit(main())
