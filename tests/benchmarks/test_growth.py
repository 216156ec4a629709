"""The measurement of growth: exponents, and small runs of what it measures."""

import json
import sys

import pytest
from tiny_chain import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import growth  # noqa: E402

pytestmark = pytest.mark.usefixtures("unoptimised")


def test_exponents_are_those_of_the_largest_points():
  rows = [{"x": float(x), "seconds": max(10.0, x**2.0), "flops": x**1.0} for x in (1, 2, 4, 8, 16)]
  found = growth.curves({"step": rows}, "tokens")["curves"]["step"]
  assert found["exponents"] == {"seconds": 2.0, "flops": 1.0} and not found["as_the_arithmetic"]
  level = growth.curves({"step": [row | {"seconds": 1.0} for row in rows]}, "tokens")["curves"]["step"]
  assert level["exponents"]["seconds"] == 0.0 and level["as_the_arithmetic"]
  assert growth.doubled(1024, 131072)[-2:] == [65536, 131072] and growth.doubled(2, 32, 4) == [2, 8, 32]


def test_operations_are_counted_with_every_loop_and_shared_by_the_devices():
  one, two = (growth.step(n, 0, 4, 8, "scanned", num_layers=n) for n in (2, 4))
  unrolled = growth.step(2, 0, 4, 8, "unrolled", num_layers=2)
  assert one["flops"] == unrolled["flops"] < two["flops"]
  assert one["program_lines"] == two["program_lines"] < 2 * unrolled["program_lines"]
  found = growth.over_devices([1, 2])["curves"]
  for axis in ("data", "fsdp", "tensor"):
    whole, half = found[axis]["points"]
    assert half["flops"] == whole["flops"] / 2
    assert 0.4 * whole["compiled_flops"] < half["compiled_flops"] < 0.8 * whole["compiled_flops"]


def test_parts_are_measured_and_drawn(tmp_path):
  results = {
    "attention": growth.attention(1, (96, 192), longest=96),
    "length": growth.length(1, (8, 160)),
    "cache": growth.cache(1, (8, 16)),
  }
  assert set(results["attention"]["curves"]) == {
    f"{kind}, {passes}" for kind in ("chunked", "xla") for passes in ("forward", "forward and backward")
  }
  for result in results.values():
    for curve in result["curves"].values():
      assert all(point["seconds"] > 0 and point["flops"] > 0 for point in curve["points"])
  page = "before\n<!-- growth: begin -->\nold\n<!-- growth: end -->\nafter\n"
  written = growth.with_table(page, results)
  assert growth.with_table(written, results) == written and "old" not in written and written.startswith("before\n")
  assert written.count("\n| ") == 1 + 4 + 1 + 1
  growth.plot(json.loads(json.dumps(results)), tmp_path / "growth.png")
  assert (tmp_path / "growth.png").stat().st_size > 10_000
