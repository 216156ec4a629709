"""Cases against a judge: counts and failures by cluster and kind, and the exceptions with their reasons."""

import collections
import dataclasses
from collections.abc import Sequence

from fuzz.grammar import Case

MOST_BAD = 1.0
LEAST_GOOD = 1.5

# (cluster, good, kind) -> why the gold reward may judge such answers otherwise
EXCEPTIONS: dict[tuple[str, bool, str], str] = {}


@dataclasses.dataclass(frozen=True)
class Failure:
  """A case that the judge got wrong."""

  case: Case
  total: float


def failures(cases: Sequence[Case], totals: Sequence[float]) -> list[Failure]:
  """Bad answers above `MOST_BAD` and good answers below `LEAST_GOOD`."""
  return [
    Failure(case, float(total))
    for case, total in zip(cases, totals, strict=True)
    if (total < LEAST_GOOD if case.good else total > MOST_BAD)
  ]


def excepted(case: Case) -> bool:
  """Whether the kind of the case is in the table of exceptions."""
  return (case.cluster, case.good, case.kind) in EXCEPTIONS


def report(cases: Sequence[Case], failed: Sequence[Failure], examples: int = 3) -> str:
  """Counts per cluster, then the kinds that failed with examples, the most frequent first."""
  lines = [f"{'cluster':16s} {'bad':>8s} {'above 1':>8s} {'good':>8s} {'below 1.5':>9s} {'kinds':>6s}"]
  counts = collections.Counter((case.cluster, case.good) for case in cases)
  wrong = collections.Counter((failure.case.cluster, failure.case.good) for failure in failed)
  for cluster in dict.fromkeys(case.cluster for case in cases):
    kinds = len({(case.good, case.kind) for case in cases if case.cluster == cluster})
    b, g = (cluster, False), (cluster, True)
    lines.append(f"{cluster:16s} {counts[b]:8d} {wrong[b]:8d} {counts[g]:8d} {wrong[g]:9d} {kinds:6d}")
  bad, good = (sum(n for (_, is_good), n in counts.items() if is_good is side) for side in (False, True))
  above, below = (sum(n for (_, is_good), n in wrong.items() if is_good is side) for side in (False, True))
  lines.append(f"{'all':16s} {bad:8d} {above:8d} {good:8d} {below:9d}")
  groups = collections.defaultdict(list)
  for failure in failed:
    groups[failure.case.cluster, failure.case.good, failure.case.kind].append(failure)
  tried = collections.Counter((case.cluster, case.good, case.kind) for case in cases)
  for key, group in sorted(groups.items(), key=lambda item: (-len(item[1]) / tried[item[0]], item[0])):
    cluster, is_good, kind = key
    lines.append(f"\n{cluster}, {'good' if is_good else 'bad'}, {kind}: {len(group)} of {tried[key]}")
    for failure in group[:examples]:
      lines.append(f"  {failure.total:6.3f}  {failure.case.prompt!r} -> {failure.case.response!r}")
  return "\n".join(lines)
