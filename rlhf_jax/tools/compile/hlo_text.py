"""Collectives that the compiler made, counted in the text of its program."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from rlhf_jax.tools.compile.counts import KINDS, moved

_BYTES = {
  "f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "pred": 1,
  "s8": 1, "u8": 1,
}  # fmt: skip
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(
  r"\b(?:calls|to_apply|branch_computations|true_computation|false_computation)=\{?([^}\s]+(?:, [^}\s]+)*)"
)
_REDUCERS = ("reduce", "scatter", "sort", "select-and-scatter", "map", "reduce-window", *KINDS)


def collectives(text: str, trips: int = 1) -> dict[str, float]:
  """{kind: bytes that one chip sends} in one call of a compiled program.

  A loop counts as often as the compiler says, else by the constant that its condition compares with; a loop without
  such a constant runs `trips` times.
  """
  computations, entry = _computations(text)
  totals: dict[str, float] = {}
  seen: set[tuple[str, str, str]] = set()

  def walk(name: str, times: float) -> None:
    for line in computations.get(name, ()):
      match = _INSTRUCTION.match(line)
      if not match:
        continue
      shape, operation, rest = match.groups()
      kind = operation.removesuffix("-start")
      if kind in KINDS:
        # An asynchronous collective stands in several fusions, of its start, its steps and its end.
        same = (kind, _found(r"channel_id=(\d+)", rest), _found(r'op_name="([^"]*)"', rest))
        if same[1] and same in seen:
          continue
        seen.add(same)
        chips = _group(rest)
        totals[kind] = totals.get(kind, 0.0) + times * moved(kind, _size(operation, shape, chips), chips)
      elif operation == "while":
        repeated = times * (_known_trips(line) or _trips(computations, _called(line, "condition")) or trips)
        walk(_called(line, "body"), repeated)
        walk(_called(line, "condition"), repeated)
      elif kind not in _REDUCERS:
        for called in _CALLED.findall(line):
          for inner in called.split(", "):
            walk(inner.lstrip("%").rstrip(","), times)

  walk(entry, 1.0)
  return totals


def _computations(text: str) -> tuple[Mapping[str, list[str]], str]:
  found: dict[str, list[str]] = {}
  name = entry = ""
  for line in text.splitlines():
    match = _COMPUTATION.match(line)
    if match and not line.startswith(" "):
      name = match[2]
      found[name] = []
      entry = name if match[1] else entry
    elif name and line.startswith("  "):
      found[name].append(line)
  return found, entry


def _sizes(shapes: str) -> list[float]:
  return [
    float(math.prod(int(length) for length in lengths.split(",") if length)) * _BYTES[dtype]
    for dtype, lengths in _ARRAY.findall(shapes)
  ]


def _size(operation: str, shape: str, chips: int) -> float:
  """Bytes of the larger one of operand and result of a collective, of one chip."""
  sizes = _sizes(shape)
  if operation == "collective-permute-start":  # (operand, result, ...)
    return max(sizes)
  if operation == "all-gather-start":  # ((operands), (results))
    return sum(sizes[len(sizes) // 2 :])
  return sum(sizes) * (chips if operation.startswith("reduce-scatter") else 1)


def _group(rest: str) -> int:
  """The number of chips of a group, in one of the three forms that replica_groups has."""
  if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):  # mesh['a'=2,'b'=4] {'a'}
    sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
    return math.prod(sizes[axis.partition(":")[0]] for axis in re.findall(r"'([\w:()]+)'", match[2]))
  if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):  # [groups, chips of each]<=[all]
    return int(match[2])
  match = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
  return len(match[1].split(",")) if match else 2


def _called(line: str, attribute: str) -> str:
  return _found(attribute + r"=%?([\w.\-]+)", line)


def _found(pattern: str, text: str) -> str:
  match = re.search(pattern, text)
  return match[1] if match else ""


def _known_trips(line: str) -> int:
  match = re.search(r'known_trip_count"?:\s*\{"n":"(\d+)"', line)
  return int(match[1]) if match else 0


def _trips(computations: Mapping[str, list[str]], condition: str) -> int:
  """The constant that a loop's condition compares its counter with, also where a fusion hides the comparison.

  Texts of TPU programs do not say how often a loop runs.
  """
  constants = {}
  root = ""
  for line in computations.get(condition, ()):
    if match := re.match(r"^\s+%?([\w.\-]+) = s32\[\](?:\{[^}]*\})? constant\((\d+)\)", line):
      constants[match[1]] = int(match[2])
    if line.lstrip().startswith("ROOT"):
      root = line
  if "compare(" in root and "direction=LT" not in root:
    return 0
  named = [value for name, value in constants.items() if re.search(rf"%?{re.escape(name)}\b", root.partition("(")[2])]
  if "compare(" in root or "fusion(" in root:
    return max(named or constants.values(), default=0)
  return 0
