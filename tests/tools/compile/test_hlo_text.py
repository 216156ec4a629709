"""Collectives in texts of compiled programs, in all forms that compilers write."""

import pytest

from rlhf_jax.tools.compile.hlo_text import collectives

LOOP = """HloModule jit_f

%fused_start (p: f32[8,64]) -> f32[64,64] {{
  %p = f32[8,64]{{1,0}} parameter(0)
  ROOT %ag = f32[64,64]{{1,0}} all-gather(%p), channel_id=7, {groups}, metadata={{op_name="jit(f)/gather"}}
}}

%fused_done (p.1: f32[8,64]) -> f32[64,64] {{
  %p.1 = f32[8,64]{{1,0}} parameter(0)
  ROOT %ag.1 = f32[64,64]{{1,0}} all-gather(%p.1), channel_id=7, {groups}, metadata={{op_name="jit(f)/gather"}}
}}

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}

%body (s: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {{
  %s = (s32[], f32[8,64]{{1,0}}) parameter(0)
  %x = f32[8,64]{{1,0}} get-tuple-element(%s), index=1
  %start = f32[64,64]{{1,0}} fusion(%x), kind=kCustom, calls=%fused_start
  %done = f32[64,64]{{1,0}} fusion(%x), kind=kCustom, calls=%fused_done
  %rs = f32[8,64]{{1,0}} reduce-scatter(%done), channel_id=8, {groups}, dimensions={{0}}, to_apply=%add
  ROOT %t = (s32[], f32[8,64]{{1,0}}) tuple(%i, %rs)
}}

%compare (a.1: s32[], b.1: s32[]) -> pred[] {{
  %a.1 = s32[] parameter(0)
  %b.1 = s32[] parameter(1)
  ROOT %lt = pred[] compare(%a.1, %b.1), direction=LT
}}

%condition (c: (s32[], f32[8,64])) -> pred[] {{
  %c = (s32[], f32[8,64]{{1,0}}) parameter(0)
  %i.1 = s32[] get-tuple-element(%c), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] {compare}
}}

ENTRY %main (p.2: f32[8,64]) -> f32[8,64] {{
  %p.2 = f32[8,64]{{1,0}} parameter(0)
  %w = (s32[], f32[8,64]{{1,0}}) while(%init), condition=%condition, body=%body{known}
  %ar = (f32[4]{{0}}, f32[12]{{0}}) all-reduce(%u, %v), channel_id=9, {groups}, to_apply=%add
  %ags = (bf16[2,64]{{1,0}}, bf16[16,64]{{1,0}}) all-gather-start(%q), channel_id=10, {groups}, dimensions={{0}}
  %agd = bf16[16,64]{{1,0}} all-gather-done(%ags)
  ROOT %out = f32[8,64]{{1,0}} get-tuple-element(%w), index=1
}}
"""
FUSED = "fusion(%i.1, %limit), kind=kLoop, calls=%compare"
PLAIN = "compare(%i.1, %limit), direction=LT"
GROUPS = "replica_groups={{0,1,2,3,4,5,6,7}}"


def text(groups=GROUPS, compare=PLAIN, known=""):
  return LOOP.format(groups=groups, compare=compare, known=known)


def expected(trips):
  return {
    "all-gather": trips * 64 * 64 * 4 * 7 / 8 + 16 * 64 * 2 * 7 / 8,  # the start and the end are one collective
    "reduce-scatter": trips * 64 * 64 * 4 * 7 / 8,
    "all-reduce": 2 * 16 * 4 * 7 / 8,
  }


@pytest.mark.parametrize(
  "groups",
  [GROUPS, "replica_groups=[2,8]<=[16]", "replica_groups=mesh['data'=2,'fsdp'=8] {'fsdp'}"],
)
def test_every_form_of_groups(groups):
  assert collectives(text(groups)) == pytest.approx(expected(5))


@pytest.mark.parametrize("compare", [PLAIN, FUSED])
def test_a_loop_counts_by_the_constant_of_its_condition(compare):
  assert collectives(text(compare=compare)) == pytest.approx(expected(5))


def test_a_loop_counts_as_often_as_the_compiler_says():
  known = ', backend_config={"known_trip_count":{"n":"3"}}'
  assert collectives(text(known=known)) == pytest.approx(expected(3))


def test_a_loop_of_unknown_length_counts_as_often_as_is_said():
  assert collectives(text(compare="compare(%i.1, %j), direction=GT"), trips=11) == pytest.approx(expected(11))
