"""The table of figures: what stands in it, what fits, and what is advised."""

import json
import sys

import pytest

from rlhf_jax.settings import ConfigError
from rlhf_jax.tools.compile.chips import CHIPS, GIB, Target, target
from rlhf_jax.tools.compile.program import Figures, _used, advice
from rlhf_jax.tools.compile.report import COLUMNS, Report, as_html, as_json, as_text, stages


def figures(program="update", calls=4, **changes):
  values = dict(
    stage="ppo", program=program, calls=calls, fits=True, parameters=GIB, optimizer=2 * GIB, data=0.0, held=GIB / 2,
    activations=4 * GIB, peak=7 * GIB, hbm=15.75 * GIB, flops=2e15, asked={"all-gather": GIB}, made=None,
    minimum=2 * GIB,
    compute_seconds=1.0, memory_seconds=0.5, interconnect_seconds=0.1, seconds=1.5, bound="compute", tokens=3000.0,
    model_flops=1e15, tokens_per_second_per_chip=1000.0, mfu=0.4, trace_seconds=1.0, compile_seconds=9.0, advice="",
  )  # fmt: skip
  return Figures(**{**values, **changes})


def report(*rows):
  return Report("pods/x", Target("v5e:1x2", CHIPS["v5e"], [0, 1], 1), dict(data=1, fsdp=2, tensor=1), rows, {}, "jax 1")


def test_a_step_of_a_stage_is_all_calls_of_all_programs():
  found = stages(report(figures("sample", 1, tokens=1.0, seconds=4.0), figures()))["ppo"]
  assert found["seconds"] == 4 + 4 * 1.5
  assert found["tokens_per_second_per_chip"] == 4 * 3000 / 10 / 2  # tokens that are trained, of two chips
  assert found["mfu"] == pytest.approx(5e15 / 10 / 2 / 197e12)
  assert found["compile_seconds"] == 20


def test_the_table_has_every_program_and_the_ratios():
  text = as_text(report(figures(), figures("sample", 1, minimum=0.0, asked={})))
  assert "ppo/update x4" in text and "7.50 of 15.75" in text and text.splitlines()[-1] == "fits"
  update = next(line for line in text.splitlines() if line.startswith("ppo/update"))
  assert update.split()[10:14] == ["1.00", "-", "2.00", "0.50"]  # asked, made, minimum, asked over minimum
  page = as_html(report(figures()))
  assert all(f">{name}</th>" in page for name in COLUMNS) and "<td>ppo/update x4</td>" in page


def test_what_does_not_fit_is_named_in_all_forms():
  wrong = figures(fits=False, advice="update needs 30 GiB")
  found = report(figures(), wrong)
  assert not found.fits and as_text(found).endswith("does not fit: ppo/update needs 30 GiB")
  assert json.loads(json.dumps(as_json(found)))["fits"] is False
  assert [row["fits"] for row in as_json(found)["programs"]] == [True, False]
  assert as_json(found)["programs"][0]["asked_ratio"] == 0.5
  assert '<tr class="no">' in as_html(found)


@pytest.mark.parametrize(
  ("program", "largest", "words"),
  [
    ("update", "activations", "activations: raise transport.microbatches"),
    ("update", "optimizer", "the optimiser's moments: raise transport.fsdp"),
    ("update", "held", "the stage's other models"),
    ("sample", "parameters", "parameters: raise transport.tensor, which cuts the serving copy"),
    ("sample", "activations", "lower sampling.slots"),
  ],
)
def test_the_largest_consumer_and_what_to_change(program, largest, words):
  assert words in advice(figures(program, **{largest: 20 * GIB}))


@pytest.mark.parametrize(
  ("topology", "message"), [("v5f:4x4", "'v5f' is not known. Did you mean 'v5p'"), ("h100:8", "Known: v4, v5e, v5p")]
)
def test_a_generation_that_is_not_known_is_refused(topology, message):
  with pytest.raises(ConfigError, match=message):
    target(topology)


@pytest.mark.parametrize(
  ("message", "used"),
  [
    ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 37.5G of 15.75G hbm. Exceeded by", 37.5 * GIB),
    ("the total memory required for HLO temporaries (37.85G) exceeds available HBM (15.75G).", 38.85 * GIB),
    ("INTERNAL: something else", None),
  ],
)
def test_the_refusals_of_the_compiler_are_read(message, used):
  assert _used(message, arguments=1 * GIB) == (used and pytest.approx(used))


def test_without_the_compiler_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "libtpu", None)
  with pytest.raises(ConfigError, match=r"pip install 'rlhf_jax\[aot\]'$"):
    target("v5e:2x2")


def test_a_topology_that_the_compiler_does_not_know_is_refused_in_one_line():
  pytest.importorskip("libtpu", reason="the compiler for TPUs is not installed: pip install -e '.[aot]'")
  with pytest.raises(ConfigError, match="^--topology v5e:3x5: [^\n]*$"):
    target("v5e:3x5")
