"""A file of rated texts in the form of VADER's, made by hand."""

import gzip
from pathlib import Path

WORDS = ("dull", "weak", "plain", "warm", "lovely")  # of texts whose ratings are around -3, -1, 0, 1 and 3
MEANS = (-3, -1, 0, 1, 3)


def write_ratings(directory: Path, num: int = 40) -> Path:
  """Writes vader_ratings.tsv.gz with `num` texts of ten words on films, and returns the directory."""
  lines = ["source\tid\tratings\ttext"]
  for n in range(num):
    mean, word = MEANS[n % 5], WORDS[n % 5]
    ratings = [max(min(mean + step, 4), -4) for step in (-1, 0, 0, 1, 0)]
    lines.append(f"movieReviewSnippets\t{n}\t{ratings}\tThe film number {n} is a {word} and very {word} one.")
  with gzip.open(directory / "vader_ratings.tsv.gz", "wt", encoding="utf-8") as file:
    file.write("\n".join(lines) + "\n")
  return directory
