"""Verifiable rewards: functions that check an answer instead of judging it, for evaluations and as rewards of RL.

Each is `(prompts, responses, **arguments) -> f32[N]`; a config names it as "rlhf_jax.verify:exact_match".
"""

from rlhf_jax.verify.answers import exact_match, number, number_in, read_answers, regular_expression
from rlhf_jax.verify.mathematics import math_answer
from rlhf_jax.verify.numbers import UnreadableNumber
from rlhf_jax.verify.programs import passes_tests
from rlhf_jax.verify.sandbox import Outcome, run_sandboxed, sandboxed

__all__ = [
  "Outcome",
  "UnreadableNumber",
  "exact_match",
  "math_answer",
  "number",
  "number_in",
  "passes_tests",
  "read_answers",
  "regular_expression",
  "run_sandboxed",
  "sandboxed",
]
