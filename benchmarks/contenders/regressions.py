"""The regression check of `benchmarks/peers.py`: ratios of a fresh run against those that are committed."""

from __future__ import annotations

from contenders.ratios import Results, of_results

ALLOWED = 0.10  # the share of a committed ratio that may be lost


def fallen(committed: Results, fresh: Results) -> tuple[list[str], list[str]]:
  """(what fell by more than `ALLOWED`, what could not be compared), in lines.

  A ratio is that of a peer's seconds to ours in the same rounds, which machines of the same kind agree on better than
  on seconds. A ratio of a part that the fresh run did not measure is not compared; one whose contender fails there is.
  """
  now = {ratio.name: ratio for ratio in of_results(fresh)}
  lost, absent = [], []
  for before in of_results(committed):
    after = now.get(before.name)
    if after is None:
      if before.part in fresh:
        lost.append(f"{before.name}: {before.spread.median:.2f} before, and one of the two does not run now")
      else:
        absent.append(before.name)
    elif after.spread.median < (1 - ALLOWED) * before.spread.median:
      change = 1 - after.spread.median / before.spread.median
      lost.append(f"{before.name}: {before.spread.median:.2f} before, {after.spread.median:.2f} now, {change:.0%} less")
  return lost, absent


def report(committed: Results, fresh: Results) -> int:
  """Prints what fell; returns the exit status, 1 where something did or nothing could be compared."""
  lost, absent = fallen(committed, fresh)
  for name in absent:
    print(f"not measured: {name}")
  for line in lost:
    print(f"fell: {line}")
  compared = len(list(of_results(committed))) - len(absent)
  print(f"{len(lost)} of {compared} ratios fell by more than {ALLOWED:.0%}")
  return 1 if lost or not compared else 0
