"""The process that renders chat templates: a line of JSON in, a line for each text out, see `chat_templates.py`.

It runs by its path, in an interpreter that does not know the package. The environment of the templates is that of
transformers' `apply_chat_template`.
"""

import datetime
import functools
import json
import resource
import signal
import sys
from typing import Any, NoReturn


def main() -> None:
  """Answers the requests on stdin until it ends. The first line has the limits, and the path to import jinja2 from."""
  limits = json.loads(sys.stdin.readline())
  sys.path[:] = limits["path"]
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
  import jinja2
  from jinja2.ext import Extension
  from jinja2.sandbox import ImmutableSandboxedEnvironment  # a template comes with the model and is foreign code

  written: list[str] = []  # the pieces of the text so far
  spans: list[list[int]] = []  # begin and end in it of each {% generation %} block

  class Generation(Extension):
    """{% generation %} ... {% endgeneration %} around the text of the assistant."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
      line = next(parser.stream).lineno
      body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
      return jinja2.nodes.CallBlock(self.call_method("note"), [], [], body).set_lineno(line)

    def note(self, caller: Any) -> str:
      text = caller()
      start = sum(map(len, written))
      spans.append([start, start + len(text)])
      return text

  def raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
  )
  environment.filters["tojson"] = lambda value, **arguments: json.dumps(value, ensure_ascii=False, **arguments)
  environment.globals["raise_exception"] = raise_exception
  environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
  compiled = functools.lru_cache(maxsize=8)(environment.from_string)
  resource.setrlimit(resource.RLIMIT_AS, (limits["megabytes"] << 20,) * 2)

  def answer(template: str, values: dict[str, Any]) -> dict[str, Any]:
    """{"text", "spans"}, or "refused" where the values are at fault, or "failed" where the template is."""
    written.clear()
    spans.clear()
    length = 0
    try:
      program = compiled(template)
    except MemoryError:
      return {"failed": f"it takes over {limits['megabytes']} MB"}
    except Exception as error:
      return {"failed": f"{type(error).__name__}: {error}"[:500]}
    try:
      for piece in program.generate(**values):
        written.append(piece)
        length += len(piece)
        if length > limits["characters"]:
          return {"failed": f"it gives more than {limits['characters']} characters"}
    except jinja2.TemplateError as error:
      return {"refused": str(error)[:500] or type(error).__name__}
    except MemoryError:
      return {"failed": f"it takes over {limits['megabytes']} MB"}
    except Exception as error:
      return {"refused": f"{type(error).__name__}: {error}"[:500]}
    return {"text": "".join(written), "spans": spans}

  for line in sys.stdin:
    request = json.loads(line)
    for values in request["values"]:
      signal.setitimer(signal.ITIMER_VIRTUAL, limits["seconds"])  # its signal ends the process, also inside of a C call
      reply = answer(request["template"], values)
      signal.setitimer(signal.ITIMER_VIRTUAL, 0)
      sys.stdout.write(json.dumps(reply) + "\n")
      if "failed" in reply:
        break
    sys.stdout.flush()  # once a request: a system call for each text takes longer than the text


if __name__ == "__main__":
  main()
