"""The adapter to lm-evaluation-harness: a local task file gives what the few-shot evaluation's own arithmetic gives."""

import json

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="needs the eval extra: pip install '.[eval]'")

from lm_eval.api.instance import Instance  # noqa: E402

from rlhf_jax import data  # noqa: E402
from rlhf_jax.cli import main  # noqa: E402
from rlhf_jax.evaluation.likelihood import make_likelihood  # noqa: E402
from rlhf_jax.tools.export import export_run  # noqa: E402
from rlhf_jax.tools.harness import HarnessModel, open_model  # noqa: E402

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
  cache_dir: {cache}
test_split: test
output_type: {kind}
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: {metric}}}]
"""
ROWS = [{"prompt": f"Is {i} larger than 3?", "choices": ["yes", "no"], "answer": int(i <= 3)} for i in range(8)]


@pytest.fixture(scope="module")
def opened(chain):
  return open_model(chain, "sft")


def instances(*arguments):
  return [Instance("loglikelihood", {}, given, i) for i, given in enumerate(arguments)]


def test_a_task_file_is_ranked_as_likelihood_ranks_it(chain, opened, tmp_path, monkeypatch):
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  data.write_rows(tmp_path / "rows.jsonl", ROWS)
  settings = dict(name="larger", file=tmp_path / "rows.jsonl", cache=tmp_path / "cache")
  (tmp_path / "larger.yaml").write_text(TASK.format(kind="multiple_choice", metric="acc", **settings))
  out = tmp_path / "out.json"
  arguments = ["--tasks", "larger", "--include", str(tmp_path), "--out", str(out), "--batch-size", "4"]
  assert main(["harness", str(chain), "--stage", "sft", *arguments]) == 0
  found = json.loads(out.read_text())["results"]["larger"]
  model, tokenizer, params = opened
  pairs = [
    ([tokenizer.bos_id, *tokenizer.encode(row["prompt"])], tokenizer.encode(f" {choice}"))
    for row in ROWS
    for choice in row["choices"]
  ]
  logp, _ = make_likelihood(model, tokenizer.pad_id, 4)(params, pairs)
  right = np.argmax(logp.reshape(-1, 2), axis=1) == [row["answer"] for row in ROWS]
  assert found["acc,none"] == pytest.approx(right.mean())
  assert found["acc_stderr,none"] >= 0


@pytest.mark.slow
def test_requests(opened, chain):
  model, tokenizer, params = opened
  adapter = HarnessModel(model, tokenizer, params, batch_size=4)
  chat = adapter.apply_chat_template(
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
     {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Who?"}]
  )  # fmt: skip
  assert chat == "\n\nSystem: Be brief.\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Who?\n\nAssistant:"
  (spaced, _), (plain, _) = adapter.loglikelihood(instances(("Tom ", "lives"), ("Tom", " lives")))
  assert spaced == pytest.approx(plain, abs=1e-5)
  text = "Tom lives in Oakford. " * 30
  (rolling,) = adapter.loglikelihood_rolling(instances((text,)))
  assert len(tokenizer.encode(text)) > model.config.max_length and rolling < 0
  settings = {"until": ["e"], "max_gen_toks": 8}
  said = adapter.generate_until(instances(("Where is Tom?", settings), (chat, settings), (text, settings)))
  assert len(said) == 3 and not any("e" in answer for answer in said)
  assert adapter.truncated == 1


@pytest.mark.slow
def test_an_exported_model_is_the_same_model(opened, chain, tmp_path):
  export_run(chain, tmp_path / "model", "sft")
  requests = instances(("Tom lives in", " Oakford."))
  found = [HarnessModel(*m).loglikelihood(requests)[0][0] for m in (opened, open_model(tmp_path / "model"))]
  assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_what_is_no_language_model_is_named(chain, capsys):
  assert main(["harness", str(chain), "--stage", "reward_model", "--tasks", "x"]) == 2
  assert "is a reward model" in capsys.readouterr().err
  assert main(["harness", str(chain), "--stage", "sfd", "--tasks", "x"]) == 2
  assert "Did you mean 'sft'?" in capsys.readouterr().err
