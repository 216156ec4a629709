"""Responses token by token: which are shown, in which colours, and with which numbers, from files written by hand."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.report import microscope
from rlhf_jax.report.inspection import write_inspection
from rlhf_jax.report.microscope import chosen, digits, look_closely, read_arrays
from rlhf_jax.report.read_run import read_run
from rlhf_jax.report.report import write_report
from rlhf_jax.report.token_texts import shown

TOKENIZER = data.train_tokenizer(["Tom lives in Oakford. <b>&amp;"] * 3, 300)
RESPONSES = ["In  Oakford.\nYes é.", "<b>&\"'", "No"]
STEPS = (2, 4, 6, 8)


def arrays_of(responses, *, new=True, critic=True):
  """Arrays of tokens whose numbers are small and different."""
  ids = [[1, 5, *TOKENIZER.encode(text), TOKENIZER.eos_id] for text in responses]
  length = max(map(len, ids)) + 1
  tokens, mask = np.zeros((len(ids), length), np.int32), np.zeros((len(ids), length), bool)
  for row, own in enumerate(ids):
    tokens[row, : len(own)], mask[row, 2 : len(own)] = own, True
  slope = np.where(mask, np.arange(length) / 10, 0).astype(np.float32)
  arrays = dict(tokens=tokens, mask=mask, logp=-slope, logp_ref=-2 * slope, advantages=slope - 0.5)
  if new:
    after = np.where(mask, -slope + np.float32(np.log(2)), 0)
    arrays |= dict(logp_after=after, entropy=slope, rewards=-slope, clipped=mask & (tokens == TOKENIZER.eos_id))
  return {**arrays, **(dict(values=slope - 0.5, returns=slope + 0.5) if critic else {})}


def sample(step, number, **changes):
  found = {"step": step, "row": number, "split": "train", "prompt": f"<i>{number}?", "response": RESPONSES[number]}
  return {
    **found,
    "reward": [0.5, 2.0, -1.0][number],
    "parts": {"gold": 1.25},
    "kl": [-3.0, 0.1, 0.2][number],
    **changes,
  }


def make_run(root, steps=STEPS, tokenizer=True, **settings):
  (root / "ppo" / "samples").mkdir(parents=True)
  config = {"stages": ["sft", "ppo"], "ppo": {"algorithm": "rlhf_jax.algorithms.ppo", "clip": [0.2, 0.3]}}
  (root / "config.json").write_text(json.dumps({**config, "tokenizer": "{run}/tokenizer.json"}))
  (root / "ppo" / "metrics.jsonl").write_text('{"step": 1, "reward/proxy": 0.1}\n')
  rows = [sample(step, row) for step in steps for row in range(3)]
  (root / "ppo" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  for step in steps:
    np.savez(root / "ppo" / "samples" / f"{step}.npz", **arrays_of(RESPONSES, **settings))
  if tokenizer:
    TOKENIZER.save(root / "tokenizer.json")
  return root


class Page(HTMLParser):
  """The responses of a page as lists of tokens, each {"text", attribute: value}, and its tags."""

  def __init__(self, source):
    super().__init__(convert_charrefs=True)
    self.tags, self.responses, self._in_piece = [], [], False
    self.feed(source)

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.tags.append((tag, attributes))
    classes = attributes.get("class", "").split()
    if "tokens" in classes:
      self.responses.append([])
    if "token" in classes:
      self.responses[-1].append({**attributes, "text": ""})
    self._in_piece = "piece" in classes

  def handle_endtag(self, tag):
    self._in_piece = self._in_piece and tag != "span"

  def handle_data(self, text):
    if self._in_piece:
      self.responses[-1][-1]["text"] += text


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  return write_inspection(make_run(tmp_path_factory.mktemp("run"))).read_text()


def test_every_token_of_a_response_is_there_once_and_in_order(page):
  """Best, worst and most changed of three steps; white space is seen, what is HTML is text."""
  found = Page(page).responses
  assert len(found) == 9 and [len(tokens) for tokens in found[:3]] == [len(tokens) for tokens in found[3:6]]
  texts = ["".join(token["text"] for token in tokens) for tokens in found[:3]]
  assert texts[:2] == ["<b>&\"'<eos>", "No<eos>"]
  signs = {"␣": " ", "⏎": "\n", "⟨C3⟩⟨A9⟩": "é", "<eos>": ""}
  assert all(sign in texts[2] for sign in signs)
  assert re.sub("|".join(signs), lambda found: signs[found[0]], texts[2]) == RESPONSES[0]
  assert not re.search(r'</span>\s+<span class="token', page)  # white space would be seen as a gap
  assert re.findall('<span class="tag">([^<]*)', page) == ["best", "worst", "most changed"] * 3
  assert [number for number in re.findall("<h2>Step (.*)</h2>", page)] == ["2", "6", "8"]


def test_the_page_needs_nothing_but_itself(page):
  tags = Page(page).tags
  assert not {"link", "img", "iframe", "image", "object"} & {tag for tag, _ in tags}
  assert "http" not in page and "@import" not in page and "url(" not in page
  assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name in ("src", "href")]
  assert "&lt;i&gt;0?" in page and "<i>0?" not in page


def test_numbers_and_colours_of_a_token(page):
  tokens = Page(page).responses[0]  # the best response: a slope of 0.2, 0.3 ... in the log-probs of the policy
  first, last = tokens[0], tokens[-1]
  lines = dict(line.split("\t") for line in first["title"].split("\n"))
  assert lines["KL"] == "0.2" and lines["log-prob, policy"] == "−0.2" and lines["log-prob, reference"] == "−0.4"
  assert lines["change"] == "0.693" and lines["ratio"] == "2" and lines["reward"] == "−0.2"
  assert lines["value"] == "−0.3" and lines["return"] == "0.7" and lines["clip"] == "not active"
  assert "clip\tactive" in last["title"] and "clipped" in last["class"].split() and "control" in last["class"].split()
  assert float(first["data-kl"]) == pytest.approx(0.2) and float(last["data-clipped"]) == 1
  share, tint = re.fullmatch(r"--share:([\d.]+)%;--tint:var\(--(\w+)\)", first["style"]).groups()
  limit = float(re.search(r'<option value="kl" data-limit="([\d.]+)"', page)[1])
  assert float(share) == pytest.approx(100 * 0.2 / limit, abs=0.1) and tint == "high"
  assert [token["tabindex"] for token in tokens] == ["0"] + ["-1"] * (len(tokens) - 1)


def test_the_curve_of_values_goes_through_each_tokens_number(page):
  """Values from -0.3 up and returns from 0.7 up: the curves are 26 high, and meet halfway between tokens."""
  response = page.split('class="tokens"')[3]  # the longest of a step
  paths = [re.findall(r'class="value" d="M0 ([\d.]+)L50 ([\d.]+)L100 ([\d.]+)"', part)
           for part in response.split('class="token')[1:]]  # fmt: skip
  left, middle, right = np.array([path[0] for path in paths if path], float).T
  np.testing.assert_allclose(right[:-1], left[1:])
  np.testing.assert_allclose(right[:-1], (middle[1:] + middle[:-1]) / 2, atol=0.1)
  assert middle[0] == left[0] == 28.0  # the least value of all is at the bottom
  assert (np.diff(middle) < 0).all() and 'class="zero"' in response


def test_an_older_run_opens_and_what_it_lacks_is_named(tmp_path):
  page = write_inspection(make_run(tmp_path / "run", new=False, critic=False)).read_text()
  assert "Not recorded in this run: logp_after, entropy, rewards" in page
  assert "There are no values and no returns" in page and "<svg" not in page
  assert re.findall('<option value="(.*?)"', page) == ["kl", "advantage", "logp", "logp_ref"]
  assert "ratio" not in Page(page).responses[0][0]["title"]


def test_an_algorithm_without_a_clip_is_told_from_an_older_run(tmp_path):
  root = make_run(tmp_path / "run", steps=(2,))
  arrays = arrays_of(RESPONSES)
  del arrays["clipped"]
  np.savez(root / "ppo" / "samples" / "2.npz", **arrays)
  page = write_inspection(root).read_text()
  assert "Whether a clip was active is not recorded" in page and "Not recorded in this run" not in page


def test_responses_stand_out_by_reward_and_kl():
  rows = {row: sample(2, row) for row in range(3)}
  roles = tuple(microscope.ROLES)
  assert chosen(rows, roles) == {1: ["best"], 2: ["worst"], 0: ["most changed"]}
  equal = {row: sample(2, row, reward=1.0) for row in range(3)}
  assert chosen(equal, roles) == {0: ["best", "worst", "most changed"]}
  assert chosen({1: sample(2, 1, reward=None, kl=float("nan"))}, roles) == {1: []}


def test_the_report_shows_two_responses_of_each_step(tmp_path):
  root = make_run(tmp_path / "run")
  page = write_report(root).read_text()
  assert "Token by token: ppo" in page and "<code>rlhf-jax inspect run</code>" in page
  assert len(Page(page).responses) == 6 and 'href="#tokens"' in page
  (root / "ppo" / "samples.jsonl").unlink()
  page = write_report(root).read_text()
  assert "Token by token" not in page and "<script" not in page


def test_files_that_are_damaged_are_named_and_left_out(tmp_path, monkeypatch):
  root = make_run(tmp_path / "run")
  (root / "ppo" / "samples" / "8.npz").write_bytes(b"PK no archive")
  arrays = arrays_of(RESPONSES)
  np.savez(root / "ppo" / "samples" / "2.npz", **{**arrays, "logp": arrays["logp"][:, 1:]})
  page = write_inspection(root).read_text()
  assert re.findall("<h2>Step (.*)</h2>", page) == ["6"]
  assert "samples/8.npz cannot be read" in page and "samples/2.npz was left out: it lacks some of" in page
  monkeypatch.setattr(microscope, "MAX_BYTES", 100)
  notes = []
  assert read_arrays(root / "ppo" / "samples" / "6.npz", notes) == {} and "are larger than" in notes[0]


def test_without_recordings_it_says_what_to_do(tmp_path):
  root = make_run(tmp_path / "run", steps=())
  with pytest.raises(ValueError, match=r"run it anew with --config.ppo.watch.samples_every=8 --redo ppo"):
    write_inspection(root)
  with pytest.raises(ValueError, match="stage 'sft' of .* has no recorded tokens"):
    write_inspection(root, "sft")
  root = make_run(tmp_path / "other")
  with pytest.raises(ValueError, match="has no stage 'ppi'. Did you mean 'ppo'"):
    write_inspection(root, "ppi")
  with pytest.raises(FileNotFoundError, match="is not the directory of a run"):
    write_inspection(tmp_path / "absent")
  assert not (root / "inspect.html").exists()
  assert write_inspection(root, "ppo", tmp_path / "own.html").read_text().startswith("<!doctype html>")


def test_a_stage_of_another_config_in_the_directory_is_found_by_its_name(tmp_path):
  root = make_run(tmp_path / "run", steps=())
  make_run(tmp_path / "other", steps=(3,))
  (tmp_path / "other" / "ppo").rename(root / "grpo")
  (root / "grpo" / "config.json").write_text(json.dumps({"algorithm": "rlhf_jax.algorithms.grpo"}))
  assert "grpo token by token" in write_inspection(root, "grpo").read_text()
  assert "grpo token by token" in write_inspection(root).read_text()  # the only one with something to show


def test_without_a_tokenizer_tokens_are_ids(tmp_path):
  page = write_inspection(make_run(tmp_path / "run", tokenizer=False)).read_text()
  assert "Tokens are shown by their ids, as the run's tokenizer cannot be read" in page.replace("&#39;", "'")
  assert Page(page).responses[0][-1]["text"] == f"⟨{TOKENIZER.eos_id}⟩"


def test_bytes_that_are_no_whole_character_are_shown():
  assert shown("é".encode()[:1]) == "⟨C3⟩" and shown("é".encode()[1:] + b"t") == "⟨A9⟩t"
  assert shown("🚀".encode()[:3]) == "⟨F0⟩⟨9F⟩⟨9A⟩" and shown("a🚀".encode()) == "a🚀"
  assert shown(b"\t") == "⇥" and shown(b" ") == "␣" and shown(b" a") == " a"


def test_numbers_are_short():
  assert [digits(x) for x in (0.0, -0.12345, 1234.5, 1e-6)] == ["0", "−0.123", "1.23e+03", "1e−06"]
  assert digits(float("inf")) == "–"


def test_odd_rows_of_samples_do_not_break_it(tmp_path):
  root = make_run(tmp_path / "run", steps=(2,))
  rows = [sample(2, 0), sample(2, 0, row=7), sample(2, 1, row="x"), sample(2, 1, split="eval"), sample(4, 0)]
  rows[0]["reward"] = rows[0]["kl"] = None
  (root / "ppo" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  run = read_run(root)
  view = look_closely(run, run.stages[1])
  assert [(moment.step, len(moment.samples)) for moment in view.moments] == [(2, 1)]


def luminance(colour):
  """Of #rrggbb, as WCAG 2 defines it."""
  channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
  return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast_on_every_colour(page, dark):
  """At least 4.5 to 1 at both ends of a scale and at all mixtures between."""
  schemes = re.findall(r":root \{(.*?)\}", page, re.S)
  colours = {}
  for scheme in schemes if dark else schemes[:1] + [s for s in schemes[1:] if "--low: #7" in s]:
    colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", scheme))
  assert (luminance(colours["card"]) < 0.1) == dark
  ink, card = luminance(colours["ink"]), colours["card"]
  for name in ("low", "high", "more"):
    for share in np.linspace(0, 1, 11):
      ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (card, colours[name])]
      mixed = "#" + "".join(f"{round((1 - share) * a + share * b):02x}" for a, b in zip(*ends, strict=True))
      lighter, darker = sorted((ink, luminance(mixed)), reverse=True)
      assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (name, share)
