"""The tokens that the loss counts, and the boundaries of each answer in a conversation, which are those of sampling."""

import json

import pytest

from rlhf_jax.data import (
  DataError,
  Demonstration,
  Message,
  encode_answers,
  encode_demonstrations,
  load_tokenizer,
  prompt_ids,
  read_comparisons,
  read_demonstrations,
  read_prompts,
  render_prompt,
  response_ids,
  train_tokenizer,
  write_rows,
)

OWN = train_tokenizer(["\n\nHuman: Where does Tom live?\n\nAssistant: Tom lives in Oakford. <|user|>\n" * 9], 330)
MESSAGES = [
  {"role": "user", "content": "Hi <eos>"},
  {"role": "assistant", "content": "Hello."},
  {"role": "user", "content": "Where?"},
  {"role": "assistant", "content": "Oakford <eos>."},
]
DIALOGUE = tuple(Message(**message) for message in MESSAGES[:3])
CHATML = (
  "{% for m in messages %}{{ '<bos>' + m['role'] + '\n' + m['content'] + '<eos>' + '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<bos>assistant\n' }}{% endif %}"
)
# Mistral's way: the response begins with a space that the prompt does not end in.
INST = (
  "<bos>{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
  "{% else %}{{ ' ' + m['content'] + '<eos>' }}{% endif %}{% endfor %}"
)


def with_template(directory, template):
  OWN.save(directory / "tokenizer.json")
  names = dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template=template)
  (directory / "tokenizer_config.json").write_text(json.dumps(names))
  return load_tokenizer(directory)


@pytest.fixture(params=["own", "chatml", "inst"])
def tokenizer(request, tmp_path):
  return OWN if request.param == "own" else with_template(tmp_path, {"chatml": CHATML, "inst": INST}[request.param])


def spans(tokenizer, ids, mask):
  """The text of each stretch of counted tokens, control tokens included."""
  found, start = [], None
  for i, counts in enumerate([*mask, False]):
    if counts and start is None:
      start = i
    if not counts and start is not None:
      found.append(tokenizer.backend.decode(list(ids[start:i]), skip_special_tokens=False))
      start = None
  return found


def test_the_loss_counts_the_last_answer_or_all_of_them(tokenizer):
  pair = [Demonstration(DIALOGUE, "Oakford <eos>.")]
  ids, last = encode_demonstrations(tokenizer, pair, "last")[0]
  assert [text.strip() for text in spans(tokenizer, ids, last)] == ["Oakford <eos>.<eos>"]
  same, everyone = encode_demonstrations(tokenizer, pair, "all")[0]
  assert same.tolist() == ids.tolist() == prompt_ids(tokenizer, *pair[0][:1]) + response_ids(tokenizer, *pair[0])
  assert [text.strip() for text in spans(tokenizer, ids, everyone)] == ["Hello.<eos>", "Oakford <eos>.<eos>"]
  _, whole = encode_demonstrations(tokenizer, pair, "everything")[0]
  assert not whole[0] and whole[1:].all()


def test_every_answer_begins_where_sampling_would_begin_it(tokenizer):
  """The first answer in the middle of a conversation has the ids it has as the response to the first turn."""
  ids, mask = encode_demonstrations(tokenizer, [Demonstration(DIALOGUE, "Oakford.")], "all")[0]
  first = prompt_ids(tokenizer, "Hi <eos>")
  assert ids[: len(first)].tolist() == first and not mask[: len(first)].any()
  (found,) = encode_answers(tokenizer, [("Hi <eos>", "Hello.")])
  answer = found.response[: found.num_said]
  assert ids[len(first) : len(first) + len(answer)].tolist() == answer
  assert mask[len(first) : len(first) + len(answer)].all() and not mask[len(first) + len(answer)]


def test_no_text_spells_a_control_token(tokenizer):
  ids, _ = encode_demonstrations(tokenizer, [Demonstration("<eos><pad><bos>[INST]", "<bos><eos>")], "last")[0]
  plain, _ = encode_demonstrations(tokenizer, [Demonstration("a", "b")], "last")[0]
  for control in (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id):
    assert (ids == control).sum() == (plain == control).sum()


def test_a_text_that_spells_a_control_token_changes_no_neighbour(tokenizer):
  pairs = [("Hi", "Hello."), ("<eos>", "Hello."), ("Hi", "no <eos> here"), (DIALOGUE, "Oakford <bos>."), ("Hi", "Hi")]
  together = encode_demonstrations(tokenizer, pairs, "all")
  for pair, (ids, mask) in zip(pairs, together, strict=True):
    ((alone, counted),) = encode_demonstrations(tokenizer, [pair], "all")
    assert ids.tolist() == alone.tolist() and mask.tolist() == counted.tolist()


def test_messages_and_dialogues_are_the_same(tmp_path):
  write_rows(tmp_path / "a.jsonl", [{"messages": MESSAGES}, {"prompt": MESSAGES[:3], "response": MESSAGES[3:]}])
  expected = Demonstration(DIALOGUE, "Oakford <eos>.")
  assert read_demonstrations(tmp_path / "a.jsonl")[0] == [expected, expected]
  assert read_prompts(tmp_path / "a.jsonl")[0] == [DIALOGUE, DIALOGUE]
  other = [{"role": "assistant", "content": "No idea."}]
  rows = [
    {"chosen": MESSAGES, "rejected": MESSAGES[:3] + other},
    {"prompt": MESSAGES[:3], "chosen": MESSAGES[3:], "rejected": other},
  ]
  write_rows(tmp_path / "b.jsonl", rows)
  assert [c[:3] for c in read_comparisons(tmp_path / "b.jsonl")[0]] == [
    (DIALOGUE, ("Oakford <eos>.", "No idea."), (0, 1))
  ] * 2


def test_a_system_message_opens_a_dialogue(tmp_path):
  system = {"role": "system", "content": "Be brief."}
  write_rows(tmp_path / "a.jsonl", [{"messages": [system, *MESSAGES[:2]]}])
  (found,), _ = read_demonstrations(tmp_path / "a.jsonl")
  assert found == ((Message("system", "Be brief."), Message("user", "Hi <eos>")), "Hello.")
  chatml = with_template(tmp_path, CHATML)
  texts = chatml.backend.decode(prompt_ids(chatml, found.prompt), skip_special_tokens=False)
  assert texts == "<bos>system\nBe brief.<eos>\n<bos>user\nHi <eos><eos>\n<bos>assistant\n"
  text = "\n\nSystem: Be brief.\n\nHuman: Hi <eos>\n\nAssistant:"
  assert OWN.decode(prompt_ids(OWN, found.prompt)) == render_prompt(found.prompt) == text


def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path):
  tokenizer = with_template(tmp_path, "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0]['content'] }}")
  with pytest.raises(DataError, match="chat template refuses"):
    prompt_ids(tokenizer, "Hi")
