"""Tiny tokenizers of every kind, and chat templates that behave as those of published families, in other words."""

# ruff: noqa: E501  templates are easier to compare with a line of theirs on a line of the file

import json

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
  "You are a helpful assistant. Hi there! Hello, Tom. Where does Tom live? Tom lives in Oakford. What is 1 + 1? It is 2.",
  "user assistant system tool\n\nHuman: Hi\n\nAssistant: Hello\n<think>\nI add them.\n</think>\n\n",
  "### Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n[INST] [/INST] <<SYS>> <</SYS>> caf\u00e9 \u00e9t\u00e9",
] * 9
WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(specials, pattern="", normalizer=None):
  """As GPT-2's, or with a pattern of words as Llama 3's and Qwen's."""
  backend = tokenizers.Tokenizer(models.BPE())
  backend.normalizer = normalizer
  if pattern:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
  else:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
  backend.train_from_iterator(CORPUS, trainer)
  backend.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
  return backend


def sentence_piece(specials, kind):
  """kind: "prepend" as Llama 2's, "first" as Mistral's later ones, "gemma" without a space in front."""
  backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
  backend.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="always")  # no token goes beyond a word
  lone = [f"<0x{byte:02X}>" for byte in range(256)]
  trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *lone], show_progress=False)
  backend.train_from_iterator([line for text in CORPUS for line in text.split("\n")], trainer)
  parts = json.loads(backend.to_str()) | {"pre_tokenizer": None}
  parts["added_tokens"] = [token for token in parts["added_tokens"] if token["content"] == "<unk>"]
  backend = tokenizers.Tokenizer.from_str(json.dumps(parts))
  replace = normalizers.Replace(" ", "\u2581")
  spaces = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
  if kind == "prepend":
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
  elif kind == "first":
    backend.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="first", split=False)
  else:
    backend.normalizer = replace
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
  backend.decoder = decoders.Sequence(spaces if kind == "gemma" else [*spaces, decoders.Strip(" ", 1, 0)])
  backend.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
  return backend


ALTERNATE = (
  "{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
  "{{ raise_exception('roles must alternate user/assistant/user/...') }}{% endif %}{% endfor %}"
)
LLAMA_2 = (
  "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}"
  "{% else %}{% set turns = messages %}{% set system = false %}{% endif %}" + ALTERNATE + "{% for m in turns %}"
  "{% if loop.index0 == 0 and system != false %}{% set said = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}"
  "{% else %}{% set said = m['content'] %}{% endif %}{% if m['role'] == 'user' %}"
  "{{ bos_token + '[INST] ' + said.strip() + ' [/INST]' }}{% else %}{{ ' ' + said.strip() + ' ' + eos_token }}{% endif %}"
  "{% endfor %}"
)
LLAMA_3 = (
  "{% for m in messages %}{% set said = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim"
  " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set said = bos_token + said %}{% endif %}{{ said }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_31 = """{{- bos_token }}
{%- if not date_string is defined %}
  {%- if strftime_now is defined %}{%- set date_string = strftime_now("%B %Y") %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
  {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}{{- "Environment: ipython\n" }}{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none %}
  {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\n\n" }}{%- endfor %}
{%- endif %}
{{- system }}{{- "<|eot_id|>" }}
{%- for message in messages %}
  {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
  {%- elif 'tool_calls' in message %}
    {%- if not message.tool_calls | length == 1 %}{{- raise_exception("one tool call at once!") }}{%- endif %}
    {%- set call = message.tool_calls[0].function %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
    {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}{{- "<|eot_id|>" }}
  {%- else %}
    {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}{{- message.content | tojson }}{{- "<|eot_id|>" }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
"""
MISTRAL_1 = (
  "{{ bos_token }}{% set turns = messages %}" + ALTERNATE + "{% for m in messages %}{% if m['role'] == 'user' %}"
  "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_3 = """{%- if messages[0]["role"] == "system" %}
  {%- set system = messages[0]["content"] %}{%- set turns = messages[1:] %}
{%- else %}{%- set turns = messages %}{%- endif %}
{%- set users = turns | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for m in turns %}
  {%- if not (m.role == "tool" or m.tool_calls is defined) %}
    {%- if (m["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("roles must alternate") }}{%- endif %}
    {%- set ns.index = ns.index + 1 %}
  {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in turns %}
  {%- if m["role"] == "user" %}
    {%- if tools is not none and (m == users[-1]) %}
      {{- "[AVAILABLE_TOOLS] " + tools | tojson + "[/AVAILABLE_TOOLS]" }}
    {%- endif %}
    {%- if loop.last and system is defined %}{{- "[INST] " + system + "\n\n" + m["content"] + "[/INST]" }}
    {%- else %}{{- "[INST] " + m["content"] + "[/INST]" }}{%- endif %}
  {%- elif m.tool_calls is defined and m.tool_calls is not none %}
    {{- "[TOOL_CALLS] [" }}
    {%- for call in m.tool_calls %}{{- call.function | tojson }}{{- ", " if not loop.last else "]" + eos_token }}{%- endfor %}
  {%- elif m["role"] == "assistant" %}{{- " " + m["content"] | trim + eos_token }}
  {%- elif m["role"] == "tool" %}{{- '[TOOL_RESULTS] {"content": ' + m.content | string + "}[/TOOL_RESULTS]" }}
  {%- endif %}
{%- endfor %}
"""
ZEPHYR = (
  "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
  "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
  "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n' + m['content'] + eos_token }}\n{% endif %}\n"
  "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
_QWEN_TOOLS = """{%- if tools %}
  {{- '<|im_start|>system\n' }}
  {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- elif default %}{{- default + '\n\n' }}{%- endif %}
  {{- "# Tools\n\n<tools>" }}{%- for t in tools %}{{- "\n" }}{{- t | tojson }}{%- endfor %}{{- "\n</tools><|im_end|>\n" }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- elif default %}{{- '<|im_start|>system\n' + default + '<|im_end|>\n' }}
{%- endif %}
"""
_QWEN_TOOL_TURN = """{%- elif message.role == "tool" %}
    {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
    {{- '\n<tool_response>\n' }}{{- message.content }}{{- '\n</tool_response>' }}
    {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""
_QWEN_CALLS = """{%- for call in message.tool_calls %}
      {%- set call = call.function %}
      {{- '\n<tool_call>\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}{{- call.arguments | tojson }}
      {{- '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}"""
QWEN_25 = (
  "{%- set default = 'You are a helpful assistant.' %}\n" + _QWEN_TOOLS + """{%- for message in messages %}
  {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
  {%- elif message.role == "assistant" %}
    {{- '<|im_start|>' + message.role }}
    {%- if message.content %}{{- '\n' + message.content }}{%- endif %}
    """ + _QWEN_CALLS + "\n  " + _QWEN_TOOL_TURN
)  # fmt: skip
QWEN_3 = (
  "{%- set default = '' %}\n" + _QWEN_TOOLS + """{%- set ns = namespace(seeking=true, last=messages | length - 1) %}
{%- for message in messages[::-1] %}
  {%- set index = (messages | length - 1) - loop.index0 %}
  {%- if ns.seeking and message.role == "user" and message.content is string %}
    {%- set ns.seeking = false %}{%- set ns.last = index %}
  {%- endif %}
{%- endfor %}
{%- for message in messages %}
  {%- set content = message.content if message.content is string else '' %}
  {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
    {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
  {%- elif message.role == "assistant" %}
    {%- set reasoning = '' %}
    {%- if message.reasoning_content is string %}{%- set reasoning = message.reasoning_content %}
    {%- elif '</think>' in content %}
      {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
      {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
      {{- '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
    {%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}
    """ + _QWEN_CALLS + "\n  " + _QWEN_TOOL_TURN
)  # fmt: skip
GEMMA_2 = (
  "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
  "{% set turns = messages %}" + ALTERNATE + "{% for m in messages %}"
  "{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif %}"
  "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA_3 = (
  "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
  "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
  + ALTERNATE
  + "{% for m in turns %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}"
  "{% endif %}{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}{% if m['content'] is string %}"
  "{{ m['content'] | trim }}{% else %}{{ raise_exception('no text') }}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
SMOLLM_2 = (
  "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
  "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
  "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = (  # DeepSeek R1's way: the prompt opens a think block, which conversations leave out
  "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}"
  "{% elif m['role'] == 'assistant' %}{% set said = m['content'] %}{% if '</think>' in said %}"
  "{% set said = said.split('</think>')[-1] %}{% endif %}{{ '<|Assistant|>' + said + eos_token }}{% endif %}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
TAGGED = (  # marks the text of the assistant itself
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
  "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>")
HEADERS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<pad>")
GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
BARE = ("<s>", "</s>", "<pad>")
THINK = (*BARE, "<|User|>", "<|Assistant|>")
NFC = normalizers.NFC

# name: (tokenizer, template, names of its special tokens, the token that ends a turn)
FAMILIES = {
  "llama 2": (lambda: sentence_piece(BARE, "prepend"), LLAMA_2, dict(bos="<s>", eos="</s>", pad="<pad>"), "</s>"),
  "llama 3": (lambda: byte_level(HEADERS, WORDS), LLAMA_3,
              dict(bos="<|begin_of_text|>", eos="<|end_of_text|>", pad="<pad>"), "<|eot_id|>"),
  "llama 3.1": (lambda: byte_level(HEADERS, WORDS), LLAMA_31, dict(bos="<|begin_of_text|>", eos="<|eot_id|>"), "<|eot_id|>"),
  "mistral 0.1": (lambda: sentence_piece(BARE, "prepend"), MISTRAL_1, dict(bos="<s>", eos="</s>"), "</s>"),
  "mistral 0.3": (lambda: sentence_piece((*BARE, "[INST]", "[/INST]", "[TOOL_CALLS]"), "first"), MISTRAL_3,
                  dict(bos="<s>", eos="</s>"), "</s>"),
  "zephyr": (lambda: sentence_piece(BARE, "first"), ZEPHYR, dict(bos="<s>", eos="</s>", pad="<pad>"), "</s>"),
  "qwen 2.5": (lambda: byte_level(CHATML, WORDS, NFC()), QWEN_25, dict(eos="<|im_end|>", pad="<|endoftext|>"), "<|im_end|>"),
  "qwen 3": (lambda: byte_level(CHATML, WORDS, NFC()), QWEN_3, dict(eos="<|im_end|>", pad="<|endoftext|>"), "<|im_end|>"),
  "gemma 2": (lambda: sentence_piece(GEMMA, "gemma"), GEMMA_2, dict(bos="<bos>", eos="<eos>", pad="<pad>"), "<end_of_turn>"),
  "gemma 3": (lambda: sentence_piece(GEMMA, "gemma"), GEMMA_3, dict(bos="<bos>", eos="<eos>", pad="<pad>"), "<end_of_turn>"),
  "gpt-2": (lambda: byte_level(("<|endoftext|>", "<pad>")), "", dict(bos="<|endoftext|>", eos="<|endoftext|>"), "<|endoftext|>"),
  "pythia": (lambda: byte_level(("<|endoftext|>", "<|padding|>"), normalizer=NFC()), "",
             dict(bos="<|endoftext|>", eos="<|endoftext|>", pad="<|padding|>"), "<|endoftext|>"),
  "llama 2 base": (lambda: sentence_piece(BARE, "prepend"), "", dict(bos="<s>", eos="</s>", pad="<pad>"), "</s>"),
  "smollm 2": (lambda: byte_level(CHATML), SMOLLM_2, dict(bos="<|im_start|>", eos="<|im_end|>", pad="<pad>"), "<|im_end|>"),
  "thinking": (lambda: byte_level(THINK, WORDS), THINKING, dict(bos="<s>", eos="</s>", pad="<pad>"), "</s>"),
  "tagged": (lambda: byte_level(CHATML, WORDS), TAGGED, dict(eos="<|im_end|>", pad="<pad>"), "<|im_end|>"),
}  # fmt: skip


def publish(directory, family, template=None):
  """Writes the tokenizer's files as a published model has them, with `template` in place of none; returns its directory."""
  build, own_template, names, _ = FAMILIES[family]
  directory.mkdir(parents=True, exist_ok=True)
  build().save(str(directory / "tokenizer.json"))
  settings = {f"{name}_token": token for name, token in names.items()} | {"tokenizer_class": "PreTrainedTokenizerFast"}
  if own_template or template:
    settings["chat_template"] = own_template or template
  (directory / "tokenizer_config.json").write_text(json.dumps(settings))
  return directory
