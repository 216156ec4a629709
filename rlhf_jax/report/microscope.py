"""Responses token by token: what STAGE/samples/STEP.npz has of single tokens, for the report and for inspect.html.

Shown are the first, a middle and the last recorded step, and of each step the responses of `ROLES`. The arrays are
those of `rlhf_jax.train.token_arrays`; a run that lacks some of them is shown without, and told so. tokens.html.jinja
lays out what is gathered here.
"""

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from rlhf_jax.data import value_text
from rlhf_jax.report.read_run import Run, StageRecord
from rlhf_jax.report.token_texts import TokenText, token_texts
from rlhf_jax.report.watched import ends, numbers

# Name of a role -> the measure of a row of samples.jsonl that is greatest in its response, None where it is unknown.
ROLES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
  "best": lambda row: row.get("reward"),
  "worst": lambda row: -row["reward"] if isinstance(row.get("reward"), int | float) else None,
  "most changed": lambda row: abs(row["kl"]) if isinstance(row.get("kl"), int | float) else None,
}
NEEDED = ("tokens", "mask", "logp", "logp_ref")
SCALE = 98  # percentile of the absolute numbers at which a scale of colours ends
MAX_BYTES = 512 << 20  # of the arrays in a file: 64 responses of 32,768 tokens have a fifth of it
CURVE_HEIGHT, CURVE_MARGIN = 30.0, 2.0  # of a token's part of the curves, which is 100 wide


class Quantity(NamedTuple):
  """A number of each token."""

  name: str
  title: str
  meaning: str
  is_signed: bool  # whether its colours tell numbers below 0 from those above


QUANTITIES = (
  Quantity(
    "kl", "KL", "log-probability under the policy less that under the reference, in nats: the k1 estimate of the KL "
    "divergence, whose sum over the response is its KL", True,
  ),
  Quantity(
    "reward", "reward", "reward of the token: the score on the last one, less the KL penalty where that is part of the "
    "reward; before any whitening", True,
  ),
  Quantity("value", "value", "V(s_t), what the critic expects from the state before the token on", True),
  Quantity("advantage", "advantage", "weight of the token in the updates: raised where above 0, lowered below", True),
  Quantity("return", "return", "target that the critic is trained to at this token", True),
  Quantity("entropy", "entropy", "entropy of the policy after the updates at this token, in nats", False),
  Quantity("logp", "log-prob, policy", "log-probability under the policy that sampled, in nats", False),
  Quantity("logp_ref", "log-prob, reference", "log-probability under the reference, in nats", False),
  Quantity(
    "change", "change", "log-probability after the updates of the step less that before, in nats; its exponential is "
    "the ratio that PPO clips", True,
  ),
  Quantity(
    "clipped", "clip", "whether the clip leaves the token without a gradient once the updates are made; a dashed line "
    "marks such a token", False,
  ),
)  # fmt: skip


class Option(NamedTuple):
  """A quantity that the colours can show, with its scale."""

  quantity: Quantity
  limit: float  # absolute number at which the colours end
  labels: tuple[str, str, str]  # at the left end, in the middle and at the right end of the scale


class Token(NamedTuple):
  """A token of a response."""

  shown: TokenText
  is_clipped: bool
  title: str  # its numbers in words, a line each
  numbers: dict[str, str]  # name of a quantity -> number, for scripts
  curve: Markup  # its part of the curves; "" without a critic


class Sample(NamedTuple):
  """A response of a step, and why it is shown."""

  roles: list[str]
  prompt: str
  numbers: list[tuple[str, str]]
  tokens: list[Token]


class Moment(NamedTuple):
  """A recorded step."""

  step: int
  samples: list[Sample]


class Microscope(NamedTuple):
  """Responses of a stage token by token."""

  stage: StageRecord
  steps: list[int]  # all that were recorded
  moments: list[Moment]
  options: list[Option]
  curve: tuple[str, str] | None  # the numbers at the lower and the upper edge of the curves; None without a critic
  notes: list[str]  # sentences on what is absent


def recorded_steps(directory: Path) -> dict[int, Path]:
  """{step: its file of arrays} of a stage's directory, in order."""
  found = {int(path.stem): path for path in (directory / "samples").glob("*.npz") if path.stem.isdecimal()}
  return dict(sorted(found.items()))


def look_closely(run: Run, stage: StageRecord, roles: Sequence[str] = tuple(ROLES)) -> Microscope | None:
  """What the pages show of a stage token by token; None where no step has both its arrays and its samples."""
  notes: list[str] = []
  rows = _rows_by_step(stage)
  files = {step: path for step, path in recorded_steps(run.directory / stage.name).items() if step in rows}
  shown: dict[int, tuple[dict[str, np.ndarray], dict[int, list[str]]]] = {}
  for step in map(int, ends(files) if files else []):
    arrays = read_arrays(files[step], notes)
    known = {row: found for row, found in rows[step].items() if row < len(arrays.get("tokens", ()))}
    if known:
      shown[step] = arrays, chosen(known, roles)
  if not shown:
    return None
  quantities = {step: _quantities(arrays, list(picked)) for step, (arrays, picked) in shown.items()}
  options = _options(list(quantities.values()))
  curve = _curve_range(list(quantities.values()))
  text_of = token_texts(run, notes)
  notes += _absent([arrays for arrays, _ in shown.values()])

  def sample(step: int, row: int, roles: list[str]) -> Sample:
    arrays, own = shown[step][0], quantities[step]
    places = np.flatnonzero(arrays["mask"][row])
    of_row = {name: values[row, places] for name, values in own.items()}
    tokens = _tokens(arrays["tokens"][row, places], of_row, curve, text_of)
    found = rows[step][row]
    return Sample(roles, value_text(found.get("prompt", "")), numbers(found), tokens)

  moments = [
    Moment(step, [sample(step, row, roles) for row, roles in picked.items()]) for step, (_, picked) in shown.items()
  ]
  edges = None if curve is None else (digits(curve[0]), digits(curve[1]))
  return Microscope(stage, list(files), moments, options, edges, notes)


def look_at_last(run: Run, roles: Sequence[str]) -> Microscope | None:
  """`look_closely` at the last stage of the run's config with recorded tokens; None where there is none."""
  found = (look_closely(run, stage, roles) for stage in reversed(run.stages))
  return next(filter(None, found), None)


def read_arrays(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
  """The arrays [rows, T] of a file, {} with a note where it lacks those that every recording has."""
  try:
    with zipfile.ZipFile(path) as archive:
      if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
        raise ValueError(f"its arrays are larger than {MAX_BYTES >> 20} MB")
    with np.load(path, allow_pickle=False) as file:
      found = {name: file[name] for name in file.files}
  except Exception as error:  # zipfile, zlib and NumPy have one for each kind of damage
    notes.append(f"samples/{path.name} cannot be read and was left out: {error}.")
    return {}
  shape = found["tokens"].shape if "tokens" in found else ()
  arrays = {name: values for name, values in found.items() if values.shape == shape and values.dtype.kind in "biuf"}
  if len(shape) != 2 or not {*NEEDED} <= arrays.keys():
    notes.append(f"samples/{path.name} was left out: it lacks some of {', '.join(NEEDED)}, or their shapes differ.")
    return {}
  return {**arrays, "mask": arrays["mask"] != 0}


def chosen(rows: Mapping[int, Mapping[str, Any]], roles: Sequence[str]) -> dict[int, list[str]]:
  """{number of a row: its roles} of the rows of samples.jsonl that stand out; of equal ones the first."""
  found: dict[int, list[str]] = {}
  for role in roles:
    measures = {number: ROLES[role](row) for number, row in rows.items()}
    known = {n: value for n, value in measures.items() if isinstance(value, int | float) and math.isfinite(value)}
    if known:
      found.setdefault(max(known, key=lambda number: known[number]), []).append(role)
  return found or {min(rows): []}


def digits(value: float) -> str:
  """A number to three digits, with a true minus sign; a dash where it is not finite."""
  if not math.isfinite(value):
    return "–"
  return f"{value:.3g}".replace("-", "−") if value else "0"


def _rows_by_step(stage: StageRecord) -> dict[int, dict[int, dict[str, Any]]]:
  """{step: {number of the row in its arrays: row of samples.jsonl}}."""
  found: dict[int, dict[int, dict[str, Any]]] = {}
  for row in stage.samples:
    if row.get("split") == "train" and isinstance(row.get("row"), int) and row["row"] >= 0:
      found.setdefault(int(row["step"]), {})[row["row"]] = row
  return found


def _quantities(arrays: Mapping[str, np.ndarray], rows: list[int]) -> dict[str, np.ndarray]:
  """{name of a quantity: f64[rows, T]}, NaN but on the tokens of the given rows."""
  given = {name: values.astype(np.float64) for name, values in arrays.items()}
  found = {"kl": given["logp"] - given["logp_ref"], "logp": given["logp"], "logp_ref": given["logp_ref"]}
  if "logp_after" in given:
    found["change"] = given["logp_after"] - given["logp"]
  names = {"reward": "rewards", "value": "values", "advantage": "advantages", "return": "returns"}
  for name, array in {**names, "entropy": "entropy", "clipped": "clipped"}.items():
    if array in given:
      found[name] = given[array]
  shown = np.zeros(arrays["mask"].shape, bool)
  shown[rows] = arrays["mask"][rows]
  return {name: np.where(shown, values, np.nan) for name, values in found.items()}


def _options(found: Sequence[Mapping[str, np.ndarray]]) -> list[Option]:
  """The quantities that some step has, with one scale over all steps."""
  options = []
  for quantity in QUANTITIES:
    values = [x[np.isfinite(x)] for quantities in found if (x := quantities.get(quantity.name)) is not None]
    if values:
      options.append(_option(quantity, np.concatenate(values)))
  return options


def _option(quantity: Quantity, values: np.ndarray) -> Option:
  if quantity.name == "clipped":
    return Option(quantity, 1.0, ("no", "", "yes"))
  sizes = np.abs(values) if len(values) else np.zeros(1)
  limit = float(np.percentile(sizes, SCALE)) or float(sizes.max()) or 1.0
  if quantity.is_signed:
    return Option(quantity, limit, (digits(-limit), "0", digits(limit)))
  sign = -1 if quantity.name.startswith("logp") else 1
  return Option(quantity, limit, ("0", digits(sign * limit / 2), digits(sign * limit)))


def _curve_range(found: Sequence[Mapping[str, np.ndarray]]) -> tuple[float, float] | None:
  """The least and the greatest value or return that is shown; None without a critic."""
  arrays = [quantities[name] for quantities in found for name in ("value", "return") if name in quantities]
  known = np.concatenate([x[np.isfinite(x)] for x in arrays]) if arrays else np.zeros(0)
  if not len(known):
    return None
  low, high = float(known.min()), float(known.max())
  return (low, high) if high > low else (low - 1, high + 1)


def _tokens(
  ids: np.ndarray,
  quantities: Mapping[str, np.ndarray],
  curve: tuple[float, float] | None,
  text_of: Callable[[int], TokenText],
) -> list[Token]:
  curves = _curves(quantities, curve)
  tokens = []
  for place, index in enumerate(map(int, ids)):
    own = {name: float(values[place]) for name, values in quantities.items()}
    shown = text_of(index)
    head = f"{shown.text}\ttoken {place + 1}, id {index}"
    title = "\n".join([head, *(f"{name}\t{text}" for name, text in _lines(own))])
    known = {name: f"{value:.5g}" for name, value in own.items() if math.isfinite(value)}
    tokens.append(Token(shown, own.get("clipped", 0.0) == 1, title, known, curves[place]))
  return tokens


def _lines(own: Mapping[str, float]) -> list[tuple[str, str]]:
  """The numbers of a token in words."""
  lines = []
  for quantity in QUANTITIES:
    if quantity.name not in own:
      continue
    value = own[quantity.name]
    if quantity.name == "clipped":
      lines.append((quantity.title, "active" if value else "not active"))
    else:
      lines.append((quantity.title, digits(value)))
    if quantity.name == "change":
      lines.append(("ratio", digits(math.exp(min(value, 40.0)))))
  return lines


def _curves(quantities: Mapping[str, np.ndarray], edges: tuple[float, float] | None) -> list[Markup]:
  """The part of each token in the curves of values and returns: from halfway to the token before it, through its own
  number in the middle, to halfway to the next."""
  length = len(quantities["kl"])
  if edges is None:
    return [Markup("")] * length
  low, high = edges

  def height(values: np.ndarray) -> np.ndarray:
    return CURVE_HEIGHT - CURVE_MARGIN - (CURVE_HEIGHT - 2 * CURVE_MARGIN) * (values - low) / (high - low)

  parts = [""] * length
  if low < 0 < high:
    parts = [f'<path class="zero" d="M0 {height(np.zeros(1))[0]:.1f}H100"/>'] * length
  for name in ("return", "value"):
    if name not in quantities or not np.isfinite(quantities[name]).all():
      continue
    y = height(quantities[name])
    between = np.concatenate([y[:1], (y[1:] + y[:-1]) / 2, y[-1:]])
    for place in range(length):
      line = f"M0 {between[place]:.1f}L50 {y[place]:.1f}L100 {between[place + 1]:.1f}"
      parts[place] += f'<path class="{name}" d="{line}"/>'
  box = f"0 0 100 {CURVE_HEIGHT:.0f}"
  return [Markup(f'<svg viewBox="{box}" preserveAspectRatio="none" aria-hidden="true">{part}</svg>') for part in parts]


def _absent(recordings: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
  """Sentences on what some recording lacks."""
  present = set.intersection(*(set(arrays) for arrays in recordings))
  later = [name for name in ("logp_after", "entropy", "rewards") if name not in present]
  notes = []
  if later:
    notes.append(
      f"Not recorded in this run: {', '.join(later)}, and with them whether the clip was active. Its steps were taken "
      "by an older version, which did not record them."
    )
  elif "clipped" not in present:
    notes.append("Whether a clip was active is not recorded: the algorithm has none, or an objective of one's own.")
  if "values" not in present:
    notes.append("There are no values and no returns: the algorithm has no critic.")
  return notes
