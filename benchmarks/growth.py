"""How time, memory and compilation grow with length, batch, vocabulary, depth, width and devices.

  python benchmarks/growth.py --out benchmarks/results/growth.json

Parts:
  attention   one attention of 8 query heads over 4 key heads of 64 features, length 64 to 4,096, its forward and its
              forward and backward pass: "chunked" (what a CPU takes), and "xla", with all scores at once
  length      an optimiser step of one row of 64 to 4,096 tokens
  batch       a step of 1 to 64 rows
  vocabulary  a step with 1,024 to 131,072 words
  depth       a step of 2 to 64 layers, scanned and unrolled
  width       a step of d_model 64 to 1,024
  devices     a step of 8 rows cut over 1 to 8 simulated devices: operations and memory of each, without times
  cache       a sampled token after 64 to 4,096 others
  rows        a sampled token of 1 to 64 rows at once

A step is that of supervised fine-tuning with Adam, in float32. For each point: the median seconds of `--rounds` calls,
seconds of tracing and of compilation, lines of the compiled program, MiB of temporaries by the compiler's analysis, MiB
that the resident set grew to above its size before the first call, operations of all products of matrices (`flops`,
counted in the jaxpr, with the length of every loop), and the compiler's own count, which counts a loop's body once
(`compiled_flops`). An exponent is the slope of the logarithms over the three largest points, by least squares. A curve
is `as_the_arithmetic` where the exponent of its time is at most 0.15 above that of its operations.

With the path above, the table and the plot of docs/performance.md are written too.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import arguments, random_tokens, report

from rlhf_jax.algorithms import sft
from rlhf_jax.models import DecoderConfig
from rlhf_jax.models.attention import attend
from rlhf_jax.models.chunked_attention import Seen, chunked_attention
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.tools.compile.counts import count
from rlhf_jax.train import Optimizer, init_state, make_optimizer, make_update, place
from rlhf_jax.train.mesh import using_devices
from rlhf_jax.train.update import detach
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Batch, Params

ADAM = Optimizer(1e-5, 0.0, "constant", 0.9, 0.999, 1e-8, False, 0.0, 1.0)
TOLERANCE = 0.15  # of exponents of time: the smallest of three points is often one that starting costs
LAST = 3  # points of a fit
HEADS, KEY_HEADS, FEATURES = 8, 4, 64
RESULTS = Path(__file__).resolve().parent / "results" / "growth.json"
DOCS = Path(__file__).resolve().parents[1] / "docs"

Row = dict[str, float]


def doubled(first: int, last: int, factor: int = 2) -> list[int]:
  """first, first * factor, ... last."""
  return [first * factor**n for n in range(round(math.log(last / first, factor)) + 1)]


def exponent(rows: list[Row], name: str) -> float | None:
  """The slope of log(name) over log(x), by the last rows; None where the figure is 0 or absent."""
  last = [row for row in rows if row.get(name)][-LAST:]
  if len(last) < 2:
    return None
  slope = np.polyfit(np.log([row["x"] for row in last]), np.log([row[name] for row in last]), 1)[0]
  return round(float(slope), 2)


def curves(found: dict[str, list[Row]], unit: str) -> dict[str, Any]:
  """The result of a part: points of each curve, their exponents, and whether time grows as the arithmetic."""
  results = {}
  for name, rows in found.items():
    exponents = {each: exponent(rows, each) for each in rows[0] if each != "x"}
    results[name] = {"points": rows, "exponents": exponents}
    if exponents.get("seconds") is not None:
      results[name]["as_the_arithmetic"] = exponents["seconds"] <= exponents["flops"] + TOLERANCE
  return {"x": unit, "curves": results}


def compile_it(x: float, traced: Callable[[], Any], devices: int = 1) -> tuple[Row, Any]:
  """(what is known of a program before it runs, the compiled program)."""
  start = time.perf_counter()
  trace = traced()
  middle = time.perf_counter()
  compiled = trace.lower().compile()
  end = time.perf_counter()
  analysis, costs = compiled.memory_analysis(), compiled.cost_analysis()
  row = {
    "x": x,
    "trace_seconds": round(middle - start, 3),
    "compile_seconds": round(end - middle, 3),
    "program_lines": compiled.as_text().count("\n"),
    "temporary_mib": round(analysis.temp_size_in_bytes / 2**20, 3),
    "flops": count(trace.jaxpr, devices).flops,
    "compiled_flops": costs["flops"],
  }
  return row, compiled


def resident_mib(call: Callable[[], Any]) -> float:
  """MiB by which the process's resident set grew, at its largest, while `call` ran; 0 where Linux does not say."""
  try:
    Path("/proc/self/clear_refs").write_text("5")  # the largest size from now on
    before = _status("VmRSS")
    call()
    return round((_status("VmHWM") - before) / 2**10, 1)
  except OSError:
    call()
    return 0.0


def _status(name: str) -> int:
  lines = Path("/proc/self/status").read_text().splitlines()
  return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def timed(row: Row, call: Callable[[], Any], rounds: int) -> Row:
  """The row with seconds and memory of `call`."""
  row["resident_mib"] = resident_mib(lambda: jax.block_until_ready(call()))
  seconds = []
  for _ in range(rounds):
    start = time.perf_counter()
    jax.block_until_ready(call())
    seconds.append(time.perf_counter() - start)
  return row | {"seconds": round(statistics.median(seconds), 5)}


def filled(shapes: Params) -> Params:
  """Arrays of these shapes: drawn by NumPy, since a program that draws all of a deep model takes long to compile."""
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.02, x.shape), x.dtype), shapes)


def model_of(transport: Transport, **changes: Any) -> Any:
  """A Llama of 4 layers of width 128 with a vocabulary of 1,024, but for `changes`."""
  shape = dict(vocab_size=1024, num_layers=4, d_model=128, num_heads=2, num_kv_heads=2, d_ff=384, max_length=4096)
  return select_model(DecoderConfig(**shape | changes), transport)


def step(x: float, rounds: int, rows: int, length: int, layers: str = "auto", mesh: Any = None, **changes: Any) -> Row:
  """The figures of an optimiser step; rounds: 0 compiles it only. mesh: sizes of its axes, for 1 device by default."""
  mesh = mesh or dict(data=1, fsdp=1, tensor=1)
  devices = math.prod(mesh.values())
  transport = Transport("jit", microbatches=1, layers=layers, **mesh)
  with using_devices(jax.devices()[:devices]):
    model = model_of(transport, **changes)
    optimizer = make_optimizer(ADAM, 1000)
    update = make_update(sft.make_loss(model.apply), optimizer, transport)
    state = place(init_state(filled(jax.eval_shape(model.init, jax.random.key(0))), optimizer), transport)
    mask = np.arange(length) > 0
    batch = Batch(random_tokens((rows, length), model.config.vocab_size), np.broadcast_to(mask, (rows, length)))
    batch, weights = update.put((batch, np.asarray(token_weights(batch.mask))))
    row, compiled = compile_it(x, lambda: update.trace(state, batch, weights), devices)
    if not rounds:
      return row
    held = [detach(state)]

    def call() -> Any:
      trained, frozen = held.pop()
      trained, metrics = compiled(trained, frozen, batch, weights)
      held.append((trained, frozen))
      return metrics

    return timed(row, call, rounds)


def attention(rounds: int, lengths: Iterable[int] = tuple(doubled(64, 4096)), longest: int = 2048) -> dict[str, Any]:
  """Both kinds of attention and both passes. longest: tokens up to which all scores are made at once."""

  def chunked(query, key, value):
    index = jnp.broadcast_to(jnp.arange(query.shape[1]), query.shape[:2])
    seen = Seen(jnp.zeros_like(index), index)
    return chunked_attention(query, key, value, seen, scale=FEATURES**-0.5, window=0)

  def xla(query, key, value):
    visible = jnp.tril(jnp.ones((query.shape[1],) * 2, bool))[None]
    return attend(query, key, value, visible, scale=FEATURES**-0.5)

  found: dict[str, list[Row]] = {}
  for length in lengths:
    rng = np.random.default_rng(0)
    shapes = [(1, length, heads, FEATURES) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    for name, function in {"chunked": chunked, "xla": xla}.items():
      if name == "xla" and length > longest:
        continue
      gradient = jax.grad(lambda *arrays, function=function: jnp.sum(function(*arrays)), argnums=(0, 1, 2))
      for passes, each in {"forward": function, "forward and backward": gradient}.items():
        row, compiled = compile_it(length, functools.partial(jax.jit(each).trace, *arrays))
        found.setdefault(f"{name}, {passes}", []).append(timed(row, functools.partial(compiled, *arrays), rounds))
  return curves(found, "tokens")


def length(rounds: int, lengths: Iterable[int] = tuple(doubled(64, 4096))) -> dict[str, Any]:
  """A step of one row."""
  return curves({"step": [step(n, rounds, 1, n) for n in lengths]}, "tokens of a row")


def batch(rounds: int, sizes: Iterable[int] = tuple(doubled(1, 64))) -> dict[str, Any]:
  """A step of rows of 64 tokens."""
  return curves({"step": [step(n, rounds, n, 64) for n in sizes]}, "rows")


def vocabulary(rounds: int, sizes: Iterable[int] = tuple(doubled(1024, 131072))) -> dict[str, Any]:
  """A step of 4 rows of 64 tokens, with all logits."""
  return curves({"step": [step(n, rounds, 4, 64, vocab_size=n) for n in sizes]}, "words")


def depth(rounds: int, layers: Iterable[int] = tuple(doubled(2, 64))) -> dict[str, Any]:
  """A step of 4 rows of 64 tokens, with both forms of the layers."""
  forms = ("scanned", "unrolled")
  return curves({form: [step(n, rounds, 4, 64, form, num_layers=n) for n in layers] for form in forms}, "layers")


def width(rounds: int, widths: Iterable[int] = tuple(doubled(64, 1024))) -> dict[str, Any]:
  """A step of 4 rows of 64 tokens and 2 layers, with heads of 64 features."""

  def shape(d: int) -> dict[str, int]:
    return dict(num_layers=2, d_model=d, d_ff=3 * d, num_heads=d // 64, num_kv_heads=d // 64)

  return curves({"step": [step(d, rounds, 4, 64, **shape(d)) for d in widths]}, "d_model")


def devices(rounds: int, counts: Iterable[int] = (1, 2, 4, 8)) -> dict[str, Any]:
  """Steps over simulated devices, in a process that has them."""
  del rounds
  program = f"import json, growth; print(json.dumps(growth.over_devices({list(counts)})))"
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(counts)}"
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=Path(__file__).parent, env={**os.environ, "XLA_FLAGS": flags},
    stdout=subprocess.PIPE, text=True, check=True,
  )  # fmt: skip
  return json.loads(done.stdout.splitlines()[-1])


def over_devices(counts: Iterable[int]) -> dict[str, Any]:
  """For each axis of the mesh a curve of the program of one device."""
  found = {}
  for axis in ("data", "fsdp", "tensor"):
    meshes = [{"data": 1, "fsdp": 1, "tensor": 1} | {axis: n} for n in counts]
    wide = dict(d_model=256, d_ff=1024, num_heads=8, num_kv_heads=8)
    found[axis] = [step(math.prod(mesh.values()), 0, 8, 64, mesh=mesh, **wide) for mesh in meshes]
  return curves(found, "devices")


def token(x: float, rounds: int, rows: int, length: int) -> Row:
  """The figures of one sampled token of each row, greedy, in a cache of `length` tokens."""
  model = model_of(Transport("jit", 1, 1))
  params = filled(jax.eval_shape(model.init, jax.random.key(0)))

  @functools.partial(jax.jit, donate_argnums=3)
  def decode(params, tokens, positions, cache):
    hidden, cache = model.extend(params, tokens, positions, cache)
    return jnp.argmax(model.unembed(params, hidden), axis=-1), cache

  tokens, positions = jnp.zeros((rows, 1), jnp.int32), jnp.full((rows, 1), length - 1)
  held = [(tokens, model.init_cache(rows, length))]
  row, compiled = compile_it(x, lambda: decode.trace(params, held[0][0], positions, held[0][1]))

  def call() -> Any:
    for _ in range(16):
      tokens, cache = held.pop()
      held.append(compiled(params, tokens, positions, cache))
    return held

  row = timed(row, call, rounds)
  return row | {"seconds": row["seconds"] / 16}


def cache(rounds: int, lengths: Iterable[int] = tuple(doubled(64, 4096))) -> dict[str, Any]:
  """A token of 8 rows."""
  return curves({"token": [token(n, rounds, 8, n) for n in lengths]}, "tokens in the cache")


def rows(rounds: int, sizes: Iterable[int] = tuple(doubled(1, 64))) -> dict[str, Any]:
  """A token in a cache of 256."""
  return curves({"token": [token(n, rounds, n, 256) for n in sizes]}, "rows")


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
  part.__name__: part for part in (attention, length, batch, vocabulary, depth, width, devices, cache, rows)
}
PANELS = {  # figure of a point: (name of the axis, the figure that it is held against)
  "seconds": ("seconds", "flops"),
  "temporary_mib": ("temporaries, MiB", None),
  "compile_seconds": ("compilation, seconds", None),
}


def plot(results: dict[str, Any], path: Path) -> None:
  """Draws all parts, a row each: time (dashed: the arithmetic, through the last point), memory and compilation."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(11, 2.6 * len(results)), layout="constrained")
  axes = figure.subplots(len(results), len(PANELS), squeeze=False)
  for line, (part, result) in enumerate(results.items()):
    for column, (figure_name, (label, against)) in enumerate(PANELS.items()):
      panel = axes[line][column]
      for name, curve in result["curves"].items():
        points = [point for point in curve["points"] if point.get(figure_name)]
        if not points:
          continue
        x, y = ([point[key] for point in points] for key in ("x", figure_name))
        slope = curve["exponents"][figure_name]
        (drawn,) = panel.plot(x, y, marker=".", label=f"{name}: {slope}")
        if against:
          last = y[-1] / points[-1][against]
          panel.plot(x, [point[against] * last for point in points], "--", color=drawn.get_color(), linewidth=0.8)
      panel.set(xlabel=result["x"], ylabel=label, title=part if column == 0 else None)
      if not panel.lines:
        panel.set_axis_off()
        continue
      panel.set(xscale="log", yscale="log")
      panel.xaxis.set_minor_formatter("")
      panel.legend(fontsize=7, loc="best", framealpha=0.5)
  figure.savefig(path, dpi=80)


def table(results: dict[str, Any]) -> str:
  """Exponents of all curves, and what the largest point of each takes."""
  rows = [
    "| x | curve | largest x | seconds | MiB | time | operations | temporaries | resident | compilation | program |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
  ]
  for part, result in results.items():
    for name, curve in result["curves"].items():
      last, exponents = curve["points"][-1], curve["exponents"]
      figures = ("seconds", "flops", "temporary_mib", "resident_mib", "compile_seconds", "program_lines")
      slopes = ["" if exponents.get(each) is None else f"{exponents[each]:.2f}" for each in figures]
      if curve.get("as_the_arithmetic") is False:
        slopes[0] = f"**{slopes[0]}**"
      seconds = f"{last['seconds']:.3g}" if "seconds" in last else ""
      cells = [part, name, f"{last['x']:,}", seconds, f"{last['temporary_mib']:.3g}", *slopes]
      rows.append(f"| {' | '.join(cells)} |")
  return "\n".join(rows) + "\n"


def with_table(text: str, results: dict[str, Any]) -> str:
  """The page's text with the table between its marks.

  Raises:
    ValueError: the marks are not there once.
  """
  pattern = r"(<!-- growth: begin -->\n).*?(<!-- growth: end -->)"
  text, found = re.subn(pattern, lambda match: f"{match[1]}{table(results)}{match[2]}", text, flags=re.S)
  if found != 1:
    raise ValueError(f"docs/performance.md needs the marks of 'growth' once, and has them {found} times")
  return text


def main() -> None:
  """Runs the parts that the command line names, and writes all that the file has to the page."""
  settings = arguments(__doc__, PARTS)
  report(settings, PARTS)
  if settings.out and settings.out.resolve() == RESULTS:
    found = json.loads(RESULTS.read_text())
    results = {part: found[part] for part in PARTS if part in found}
    page = DOCS / "performance.md"
    page.write_text(with_table(page.read_text(), results))
    plot(results, DOCS / "growth.png")


if __name__ == "__main__":
  main()
