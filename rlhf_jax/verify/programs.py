"""Programs as answers: a response is code, and its reference answer the tests that it must pass.

It runs in the sandbox's process (`rlhf_jax.verify:sandboxed` with function="rlhf_jax.verify.programs:passes_tests"), so
this file imports nothing but the standard library.
"""

import re

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def passes_tests(prompt: str, response: str, answer: str | list[str]) -> float:
  """1 if the response's code, or what its first ``` block holds, runs and then each test in `answer` does; else 0.

  The tests share the interpreter with the program. One that looks for them can redefine what they call, so this score
  is for models that are not trained to exploit it over many steps without somebody reading what they write.
  """
  block = _FENCE.search(response)
  names: dict = {"__name__": "answer"}
  try:
    exec(block[1] if block else response, names)
    for test in [answer] if isinstance(answer, str) else answer:
      exec(test, names)
  except MemoryError:
    raise
  except BaseException:  # a program may raise SystemExit to leave before the tests
    return 0.0
  return 1.0
