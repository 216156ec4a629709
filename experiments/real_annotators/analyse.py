"""Do the statistics of annotators reproduce what is known of real people, and whom would screening set aside?

  python experiments/real_annotators/analyse.py --data DIR --out experiments/real_annotators
  python experiments/real_annotators/analyse.py --data DIR --out DIR --fast

DIR holds squality_human_eval.jsonl.gz, wmt23_zhen_side_by_side.jsonl.gz and vader_ratings.tsv.gz (see `readers`). Every
figure is a function of sums over items, so that its interval is the percentiles of a bootstrap over items: the stories'
questions, the segments, or the snippets.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax.agreement.findings import Findings, analyse
from rlhf_jax.agreement.report import summary
from rlhf_jax.agreement.screening import SET_ASIDE
from rlhf_jax.agreement.tables import Pairs, Table, judgement_table, pairs_of
from rlhf_jax.data import write_text
from rlhf_jax.data.vader import read_vader
from rlhf_jax.data.wmt import read_wmt
from rlhf_jax.feedback.records import Records
from rlhf_jax.settings import import_module
from rlhf_jax.writing import write_figure

readers = import_module(str(Path(__file__).with_name("readers.py")))

RESAMPLES = 2000
FAST = 40  # items of each file, and resamples, with --fast
PUBLISHED = {  # figures in the papers, the rest is recomputed from the files
  "bart correctness": 34.8, "bart coverage": 15.6, "bart overall": 18.1,
  "bart-dpr correctness": 45.4, "bart-dpr coverage": 24.3, "bart-dpr overall": 27.9,
  "human correctness": 94.1, "human coverage": 88.8, "human overall": 91.3, "tweets, own rating included": 0.888,
}  # fmt: skip


def bootstrap(
  stats: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], resamples: int, seed: int = 0
) -> tuple[float, float, float]:
  """(value, low, high) of a figure of sums over items, f64[..., S] -> f64[...]; stats: f64[M, S] of M items."""
  rng, num = np.random.default_rng(seed), len(stats)
  drawn = [
    figure(rng.multinomial(num, np.full(num, 1 / num), min(200, resamples - start)) @ stats)
    for start in range(0, resamples, 200)
  ]
  low, high = np.nanquantile(np.concatenate(drawn), [0.025, 0.975])
  return float(figure(stats.sum(0))), float(low), float(high)


def ratio(sums: np.ndarray) -> np.ndarray:
  """The first sum over the second, NaN over 0."""
  return sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], np.nan)


def correlation(sums: np.ndarray) -> np.ndarray:
  """Pearson's correlation from the sums of (weight, x, y, x x, y y, x y)."""
  num, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
  return (num * xy - x * y) / np.sqrt((num * xx - x * x) * (num * yy - y * y))


def untied_agreement(table: Table, pairs: Pairs, person: int | None = None) -> np.ndarray:
  """f64[M, 2]: by item the pairs of answers that agree, and all, where neither of two raters ties the responses.

  person: counts only the pairs of answers of which one is this annotator's.
  """
  signs = np.zeros((pairs.num_units, len(table.annotators)))
  signs[pairs.unit, pairs.annotator] = 2 * pairs.outcome - 1
  sums = np.zeros((len(table.items), 2))
  item = np.zeros(pairs.num_units, np.int64)
  item[pairs.unit] = pairs.item
  for a, b in itertools.combinations(range(len(table.annotators)), 2):
    if person in (None, a, b):
      both = signs[:, a] * signs[:, b]
      np.add.at(sums, item, np.stack([both > 0, both != 0], 1).astype(np.float64))
  return sums


def ties(table: Table, pairs: Pairs) -> np.ndarray:
  """f64[M, 2]: by item the answers that tie two responses, and all answers."""
  counts = [np.bincount(pairs.item, x, len(table.items)) for x in ((pairs.outcome == 0.5).astype(float), None)]
  return np.stack(counts, 1)


def with_the_others(ratings: Sequence[np.ndarray]) -> np.ndarray:
  """f64[M, 6]: the sums of `correlation` between each rating and the mean of the item's others, an item weighing 1."""
  sums = np.zeros((len(ratings), 6))
  for row, x in zip(sums, ratings, strict=True):
    y = (x.sum() - x) / (len(x) - 1)
    row[:] = 1, x.mean(), y.mean(), (x * x).mean(), (y * y).mean(), (x * y).mean()
  return sums


def with_all(ratings: Sequence[np.ndarray]) -> np.ndarray:
  """f64[M, 6]: the sums of `correlation` between each rating and its item's mean, a rating weighing 1."""
  sums = np.zeros((len(ratings), 6))
  for row, x in zip(sums, ratings, strict=True):
    row[:] = len(x), x.sum(), x.sum(), (x * x).sum(), x.mean() * x.sum(), x.mean() * x.sum()
  return sums


def squality(given: Any, resamples: int) -> dict[str, tuple[float, float, float]]:
  """The figures of SQuALITY by name: means of the ratings, and the untied agreement on the overall rating."""
  figures = {}
  for s, system in enumerate(given.systems):
    for a, aspect in enumerate(readers.ASPECTS):
      means = given.ratings[:, s, :, a].mean(1)  # every question has as many workers
      stats = np.stack([means, np.ones(len(means))], 1)
      figures[f"{system} {aspect}"] = bootstrap(stats, ratio, resamples)
  table = judgement_table(*given.records)
  figures["untied agreement"] = bootstrap(untied_agreement(table, pairs_of(table)), ratio, resamples)
  return figures


def wmt(records: Records, resamples: int) -> dict[str, tuple[float, float, float]]:
  """The figures of WMT by name: the untied agreement of two raters on the better translation, and the ties."""
  table = judgement_table(*records)
  pairs = pairs_of(table)
  return {
    "untied agreement": bootstrap(untied_agreement(table, pairs), ratio, resamples),
    "ties": bootstrap(ties(table, pairs), ratio, resamples),
  }


def vader(snippets: dict[str, Any], resamples: int) -> dict[str, tuple[float, float, float]]:
  """The figures of VADER by source, read from the records: the correlation of a rating with the mean of the others.

  And with the mean of all, its own among them and every rating with weight one, as it was published for the tweets.
  """
  figures = {}
  for source, given in snippets.items():
    ratings = readers.valences(readers.vader_records(source, given))
    figures[source] = bootstrap(with_the_others(ratings), correlation, resamples)
    figures[f"{source}, own rating included"] = bootstrap(with_all(ratings), correlation, resamples)
  return figures


def people(found: Findings, resamples: int) -> dict[str, Any]:
  """What is known of each annotator, the advice of screening, and the untied agreement with and without its advice."""
  table, pairs = found.table, found.pairs
  told = []
  for i, row in enumerate(summary(found)["annotators"]):
    kept = ("annotator", "items", "reliability", "weight", "advice")
    agreement = bootstrap(untied_agreement(table, pairs, i), ratio, resamples)
    tied = bootstrap(ties(table, pairs.where(pairs.annotator == i)), ratio, resamples)
    reasons = list(found.verdicts[i].reasons)
    told.append({**{key: row[key] for key in kept}, **_named(agreement), "ties": _named(tied), "reasons": reasons})
  aside = np.array([verdict.advice == SET_ASIDE for verdict in found.verdicts])
  rest = table.where(~aside[table.annotator])
  after = bootstrap(untied_agreement(rest, pairs_of(rest)), ratio, resamples)
  return {"annotators": told, "set_aside": int(aside.sum()), "untied agreement of the rest": _named(after)}


def standings(found: Findings) -> list[dict[str, Any]]:
  """The board of the systems."""
  return summary(found)["models"]["overall"]["standings"]


def run(data: Path, fast: bool = False) -> dict[str, Any]:
  """All results of the files in `data`; with `fast` of the first items alone, with few resamples."""
  resamples = FAST if fast else RESAMPLES
  texts = readers.read_squality(data / "squality_human_eval.jsonl.gz")
  translations = readers.wmt_records(read_wmt(data / "wmt23_zhen_side_by_side.jsonl.gz"))
  snippets = read_vader(data / "vader_ratings.tsv.gz")
  if fast:
    texts = texts._replace(records=_first(texts.records), ratings=texts.ratings[:FAST])
    translations = _first(translations)
    snippets = {source: dict(list(given.items())[:FAST]) for source, given in snippets.items()}
  result: dict[str, Any] = {"items": {"squality": len(texts.records[1]), "wmt": len(translations[1])}}
  result["items"] |= {source: len(given) for source, given in snippets.items()}
  figures = {"squality": squality(texts, resamples), "wmt": wmt(translations, resamples)}
  figures["vader"] = vader(snippets, resamples)
  result["figures"] = {
    study: {name: _named(found) | _source(name) for name, found in given.items()} for study, given in figures.items()
  }
  for study, records in (("squality", texts.records), ("wmt", translations)):
    found = analyse(*records)
    result[study] = {**people(found, resamples), "systems": standings(found)}
  return result


def plot(result: dict[str, Any], path: Path) -> None:
  """Each annotator's untied agreement with the others, and the ratings of the systems."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 4)
    for left, right, study in ((panels[0], panels[1], "squality"), (panels[2], panels[3], "wmt")):
      rows = sorted(result[study]["annotators"], key=lambda row: row["value"])
      _bars(left, [(row["annotator"], row) for row in rows])
      left.set_title(f"{study}: untied agreement", fontsize=9)
      _bars(right, [(row["model"], row["rating"]) for row in reversed(result[study]["systems"])])
      right.set_title(f"{study}: rating, Elo points", fontsize=9)
    write_figure(path, figure)


def main(argv: Sequence[str] | None = None) -> None:
  """Writes OUT/results.json and OUT/results.png, and prints the figures."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", type=Path, required=True, help="the directory with the three files")
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--fast", action="store_true", help=f"the first {FAST} items of each file alone")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  result = run(options.data, options.fast)
  write_text(options.out / "results.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
  plot(result, options.out / "results.png")
  for study, figures in result["figures"].items():
    for name, found in figures.items():
      print(f"{study}: {name} {found['value']:.4g} [{found['low']:.4g}, {found['high']:.4g}], {found['source']}")


def _first(records: Records) -> Records:
  annotators, items, judgements = records
  kept = {item.id for item in items[:FAST]}
  return annotators, items[:FAST], [judgement for judgement in judgements if judgement.item in kept]


def _source(name: str) -> dict[str, Any]:
  return {"source": "published", "published": PUBLISHED[name]} if name in PUBLISHED else {"source": "recomputed"}


def _named(found: tuple[float, float, float]) -> dict[str, float]:
  return {name: round(value, 4) for name, value in zip(("value", "low", "high"), found, strict=True)}


def _bars(axes, rows: Sequence[tuple[str, dict]]) -> None:
  for y, (_, found) in enumerate(rows):
    axes.plot([found["low"], found["high"]], [y, y], color="C0", linewidth=4, alpha=0.4)
    axes.plot([found["value"]], [y], "o", color="C0", markersize=4)
  axes.set_yticks(range(len(rows)), [name for name, _ in rows])
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(alpha=0.3)


if __name__ == "__main__":
  main()
