"""Files of pairs in the form of Anthropic's HH, made by hand."""

from pathlib import Path

from rlhf_jax import data

FILES = ("hh_helpful_base_test.jsonl.gz", "hh_harmless_base_test.jsonl.gz")


def write_pairs(directory: Path, num: int = 40) -> Path:
  """Writes both files with `num` pairs each, and returns the directory.

  Helpful answers are long and name a town; harmless ones are short refusals. The first row of each is no pair.
  """
  for path, asked in zip(FILES, ("Where does number {} live?", "How does one rob number {}?"), strict=True):
    helpful = "helpful" in path
    chosen = "Number {} lives in Oakford, near the river." if helpful else "I cannot help with {}."
    rejected = "No idea." if helpful else "Take number {} by surprise and run with all that there is."
    rows = [{"chosen": dialogue("Hello", "Hello."), "rejected": dialogue("Hello", "Hello.")}]
    for n in range(num):
      texts = {"chosen": chosen, "rejected": rejected}
      rows.append({side: dialogue(asked.format(n), text.format(n)) for side, text in texts.items()})
    data.write_rows(directory / path, rows)
  return directory


def dialogue(asked: str, answer: str) -> str:
  """A dialogue of one turn of either side, with one exchange before it."""
  return f"\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: {asked}\n\nAssistant: {answer}"
