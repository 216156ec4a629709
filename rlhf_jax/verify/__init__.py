"""Verifiable rewards: an answer is checked, not judged. They score evaluations and serve as rewards of RL alike.

Each is `(prompts, responses, **arguments) -> f32[N]`, named in a config as "rlhf_jax.verify:exact_match".
"""

from rlhf_jax.verify.answers import exact_match, number, number_in, read_answers, regular_expression
from rlhf_jax.verify.programs import passes_tests
from rlhf_jax.verify.sandbox import Outcome, run_sandboxed, sandboxed

__all__ = [
  "Outcome",
  "exact_match",
  "number",
  "number_in",
  "passes_tests",
  "read_answers",
  "regular_expression",
  "run_sandboxed",
  "sandboxed",
]
