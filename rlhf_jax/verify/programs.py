"""Programs as answers: a response is code, and its reference answer is the tests that the code must pass.

This file runs in the sandbox's process (`rlhf_jax.verify:sandboxed` with
function="rlhf_jax.verify.programs:passes_tests"), so it imports nothing but the standard library.
"""

import re

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def passes_tests(prompt: str, response: str, answer: str | list[str]) -> float:
  """1 if the response's code runs and then each test in `answer` runs without an exception; otherwise 0.

  The code is the first ``` block of the response, or all of it. The tests share the interpreter with the program, so a
  program written against them can redefine the functions they call: do not train on this score for many steps without
  reading what the model writes.
  """
  block = _FENCE.search(response)
  names: dict = {"__name__": "answer"}
  try:
    exec(block[1] if block else response, names)
    for test in [answer] if isinstance(answer, str) else answer:
      exec(test, names)
  except MemoryError:
    raise
  except BaseException:  # SystemExit too, by which a program could leave before the tests
    return 0.0
  return 1.0
