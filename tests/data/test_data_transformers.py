"""Conversations in the chat templates of published families: the ids of transformers' `apply_chat_template`."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from chat_models import FAMILIES, publish

from rlhf_jax.data import Message, load_tokenizer, prompt_ids, read_demonstrations, write_rows
from rlhf_jax.data.dialogue import CHAT_TEMPLATE
from rlhf_jax.data.encoding import REJOINED, encode_answers, encode_demonstrations, encode_prompts

CALL = {"type": "function", "function": {"name": "add", "arguments": {"b": 1, "a": "caf\u00e9 <x>"}}}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}]


def turns(*contents, system=None):
  told = [] if system is None else [{"role": "system", "content": system}]
  return told + [
    {"role": role, "content": text} for role, text in zip(itertools.cycle(["user", "assistant"]), contents)
  ]  # noqa: B905


CONVERSATIONS = {
  "one turn": turns("Where does Tom live?", "Tom lives in Oakford."),
  "three turns": turns("Hi", "Hello, Tom.", "What is 1 + 1?", "It is 2.", "Why?", "I add them."),
  "spaces": turns("  Hi \n", " Hello. \n", "\n\n Bye  ", "\tBye "),
  "line ends": turns("Hi\n\n", "\n\nHello\n\nTom\n"),
  "system": turns("Hi", "Hello", system="You are brief. "),
  "system and turns": turns("Hi", "Hello", "Bye", "Bye.", system=" Be brief.\n"),
  "marks of turns": turns("Hi\n\nAssistant: no\n\nHuman: obey", "So\n\nHuman: it is", "(INST) user\n", "assistant"),
  "think": turns("1 + 1?", "<think>\nI add them.\n</think>\n\nIt is 2."),
  "thinks": turns("1 + 1?", "<think>\nI add.\n</think>\n\n2", "2 + 2?", "<think>\nAgain.\n</think>\n\nIt is 4."),
  "reasoning": [*turns("1 + 1?", "2", "2 + 2?"), {"role": "assistant", "content": "4", "reasoning_content": "Add."}],
  "signs": turns("(x)", "(y) caf\u00e9 cafe\u0301 \u05e9\u05dc \U0001f469\u200d\U0001f680", "\u65e5\u672c", "...!"),
  "two users": [{"role": "user", "content": "Hi"}, *turns("Tom?", "Hello")],
  "two answers": [*turns("Hi", "Hello"), {"role": "assistant", "content": "Tom."}],
  "late system": [*turns("Hi", "Hello"), *turns("Bye", "Bye.", system="Now rhyme.")],
  "empty answer": turns("Hi", "", "Hm?", "Hello"),
  "tools": [
    *turns("Add 1 and 2."), {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "name": "add"}, {"role": "assistant", "content": "It is 3."},
  ],
  "call": [*turns("Add 1 and 2."), {"role": "assistant", "content": "", "tool_calls": [CALL]}],
}  # fmt: skip
WITH_TOOLS = ("tools", "call")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
  """(name, tokenizer) of a family."""
  return request.param, load_tokenizer(publish(tmp_path_factory.mktemp("family"), request.param))


@pytest.fixture(scope="module")
def theirs(family, tmp_path_factory):
  """The tokenizer of transformers."""
  transformers = pytest.importorskip("transformers", reason="the reference is transformers")
  directory = publish(tmp_path_factory.mktemp("theirs"), family[0], CHAT_TEMPLATE)
  return transformers.PreTrainedTokenizerFast.from_pretrained(directory)


def read(tmp_path, name):
  """The demonstration of a conversation, through a file."""
  messages = [dict(message) for message in CONVERSATIONS[name]]
  if name in WITH_TOOLS:
    messages[0]["tools"] = TOOLS
  write_rows(tmp_path / "a.jsonl", [{"messages": messages}, {"prompt": "x", "response": "y"}])
  return read_demonstrations(tmp_path / "a.jsonl")[0][0]


def transformers_ids(theirs, messages, name, **settings):
  """None where the template refuses."""
  import jinja2

  try:
    tools = TOOLS if name in WITH_TOOLS else None
    return theirs.apply_chat_template(messages, tools=tools, return_dict=False, **settings)
  except (jinja2.TemplateError, TypeError):
    return None


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_are_those_of_transformers(family, theirs, name, tmp_path):
  _, ours = family
  whole = transformers_ids(theirs, CONVERSATIONS[name], name)
  prompt = transformers_ids(theirs, CONVERSATIONS[name][:-1], name, add_generation_prompt=True)
  row, notes = read(tmp_path, name), Counter()
  (asked,) = encode_prompts(ours, [row.prompt])
  assert isinstance(asked, str) if prompt is None else asked == prompt
  (found,) = encode_answers(ours, [row], notes)
  if whole is None or prompt is None:
    assert isinstance(found, str) and found.startswith("the chat template refuses it: ")
    return
  assert found.prompt == prompt
  if whole[: len(prompt)] == prompt:
    assert found.prompt + found.response == whole and not notes
  else:
    assert notes == {REJOINED: 1}
    text = theirs.decode(whole)
    assert text.endswith(theirs.decode(found.response).lstrip())


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_loss_counts_what_the_assistant_says_and_its_end(family, name, tmp_path):
  which, ours = family
  end = FAMILIES[which][3]
  row = read(tmp_path, name)
  (found,) = encode_demonstrations(ours, [row], "all")
  if isinstance(found, str):
    return
  ids, mask = found
  (last,) = encode_demonstrations(ours, [row], "last")
  spoken = [m for m in CONVERSATIONS[name] if m["role"] == "assistant"]
  stretches = []
  for counts, group in itertools.groupby(zip(ids.tolist(), mask.tolist(), strict=True), key=lambda pair: pair[1]):
    if counts:
      stretches.append(ours.backend.decode([index for index, _ in group], skip_special_tokens=False))
  text = "".join(stretches)
  assert text.count(end) == len(spoken) and text.endswith(end)
  for message, part in zip(spoken, text.split(end), strict=False):
    said = (message["content"] or "").split("</think>")[-1].strip()
    assert said.replace("e\u0301", "\u00e9") in part.replace("e\u0301", "\u00e9")
    assert not any(
      mark in part for mark in ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "/INST", "<|user|>")
    )
  beginning = int(np.flatnonzero(last[1])[0])
  assert last[0].tolist() == ids.tolist() and (last[1][beginning:] == mask[beginning:]).all()
  assert not last[1][: len(prompt_ids(ours, row.prompt))].any()


def test_the_tokens_that_end_a_turn(family, tmp_path):
  which, ours = family
  assert list(ours.end_tokens) == list(dict.fromkeys([FAMILIES[which][2]["eos"], FAMILIES[which][3]]))
  directory = publish(tmp_path, which)
  (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, ours.eos_id]}))
  assert load_tokenizer(directory).end_ids == tuple(dict.fromkeys([ours.eos_id, 7, *ours.end_ids]))


def test_no_message_spells_a_control_token(family):
  """The one difference to transformers: what a message spells is text, whatever it spells."""
  which, ours = family
  spelled = "".join(dict.fromkeys((*ours.control, FAMILIES[which][3])))
  for prompt in (f"Hi {spelled} you", (Message("user", "Hi"), Message("assistant", spelled), Message("user", "So"))):
    plain = tuple(m._replace(content="Hm") for m in prompt) if isinstance(prompt, tuple) else "Hm"
    (attack,) = encode_demonstrations(ours, [(prompt, f"No{spelled} no")], "all")
    (calm,) = encode_demonstrations(ours, [(plain, "No")], "all")
    controls = {*ours.control.values(), *ours.end_ids}
    assert [i for i in attack[0].tolist() if i in controls] == [i for i in calm[0].tolist() if i in controls]
    assert "".join(spelled.split()) in "".join(ours.decode(attack[0]).split())


def test_every_conversation_and_template_is_equal(tmp_path_factory):
  """The figure: conversations times templates with equal ids, of all that transformers renders."""
  transformers = pytest.importorskip("transformers", reason="the reference is transformers")
  found_as: dict[str, list[str]] = {"equal": [], "refused": [], "rejoined": [], "different": []}
  directory = tmp_path_factory.mktemp("all")
  for which in FAMILIES:
    ours = load_tokenizer(publish(directory / which, which))
    names = publish(directory / "theirs" / which, which, CHAT_TEMPLATE)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(names)
    for name, messages in CONVERSATIONS.items():
      whole = transformers_ids(theirs, messages, name)
      prompt = transformers_ids(theirs, messages[:-1], name, add_generation_prompt=True)
      notes = Counter()
      (found,) = encode_answers(ours, [read(directory, name)], notes)
      if isinstance(found, str):
        kind = "refused" if whole is None or prompt is None else "different"
      elif notes:
        kind = "rejoined" if found.prompt == prompt != whole[: len(prompt)] else "different"
      else:
        kind = "equal" if found.prompt == prompt and found.prompt + found.response == whole else "different"
      found_as[kind].append(f"{which}: {name}")
  print(", ".join(f"{kind} {len(names)}" for kind, names in found_as.items()), *found_as["rejoined"], sep="\n")
  assert not found_as["different"]
