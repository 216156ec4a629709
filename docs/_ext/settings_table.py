"""The directive `settings`: the fields of a dataclass that a config is parsed into, read from its source.

    ```{settings} rlhf_jax.algorithms.ppo.Config
    :recipe: quickstart ppo
    ```

shows key, type, default and description; with `:recipe: NAME KEY` also the value of `get_config().KEY` of the recipe.
Below it stand the dataclasses of the same module that its fields name, unless it says `:alone:`; those of other modules
are links to their table.
"""

import dataclasses
import importlib
import re
import types
import typing
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from rlhf_jax.ranges import Range
from rlhf_jax.settings import describe


def label(cls: type) -> str:
  """The label of a dataclass's table."""
  return f"settings-{cls.__module__}.{cls.__qualname__}".lower()


def find(name: str) -> Any:
  """The object "package.module.Name"."""
  module, _, attribute = name.rpartition(".")
  return getattr(importlib.import_module(module), attribute)


def named_in(hint: Any) -> list[type]:
  """The dataclasses that a type names."""
  if dataclasses.is_dataclass(hint):
    return [hint]
  return [cls for inner in typing.get_args(hint) for cls in named_in(inner)]


def type_text(hint: Any) -> list[Any]:
  """A type as words and dataclasses: `tuple[Sampling, ...]` is ["tuple of ", Sampling]."""
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if dataclasses.is_dataclass(hint):
    return [hint]
  if origin is typing.Annotated:
    return [*type_text(inner[0]), f" {inner[1]}"] if isinstance(inner[1], Range) else [inner[1]]
  if origin in (types.UnionType, typing.Union):
    parts = [part for option in inner for part in (" or ", *type_text(option))]
    return parts[1:]
  if origin is typing.Literal:
    return [" or ".join(repr(option) for option in inner).replace("'", '"')]
  if origin is tuple and inner[-1] is not Ellipsis:
    return ["(", *[part for option in inner for part in (", ", *type_text(option))][1:], ")"]
  if origin is tuple:
    return ["tuple of ", *type_text(inner[0])]
  if origin is dict:
    return ["mapping from ", *type_text(inner[0]), " to ", *type_text(inner[1])]
  return [{type(None): "None", Any: "any"}.get(hint, getattr(hint, "__name__", str(hint)))]


def value_text(value: Any) -> str:
  """A value as Python writes it; "" for a mapping that holds something, whose type has a table of its own."""
  if hasattr(value, "items"):
    return "" if value else "{}"
  return repr(value).replace("'", '"')


class Settings(SphinxDirective):
  """The table of one dataclass."""

  required_arguments = 1
  option_spec = {"recipe": directives.unchanged, "alone": directives.flag}

  def run(self) -> list[nodes.Node]:
    cls = find(self.arguments[0])
    self.env.note_dependency(importlib.import_module(cls.__module__).__file__)
    found = self._table(cls, self._recipe())
    inside = [other for hint in typing.get_type_hints(cls).values() for other in named_in(hint)]
    for other in dict.fromkeys(inside):
      if other.__module__ == cls.__module__ and "alone" not in self.options:
        found += [nodes.paragraph("", "", nodes.literal(text=other.__name__), nodes.Text(":"))]
        found += self._table(other, {})
    return found

  def _table(self, cls: type, recipe: Any) -> list[nodes.Node]:
    hints = typing.get_type_hints(cls, include_extras=True)
    texts = describe(cls)
    head = [
      "key",
      "type",
      *(["default"] if self._has_defaults(cls) else []),
      *(["recipe"] if recipe else []),
      "meaning",
    ]
    rows = []
    for field in dataclasses.fields(cls):
      if field.name == "algorithm":
        continue
      row = [[nodes.literal(text=field.name)], self._type(hints[field.name])]
      if "default" in head:
        row.append(self._default(field))
      if recipe:
        text = value_text(recipe[field.name]) if field.name in recipe else ""
        row.append([nodes.literal(text=text)] if text else [])
      row.append(self._description(texts[field.name]))
      rows.append(row)
    anchor = nodes.make_id(label(cls))
    tables = self.env.settings_tables
    if tables.get(label(cls), ("",))[0] != "settings":  # the page of what is shared goes first
      tables[label(cls)] = (self.env.docname, anchor)
    return [nodes.target("", "", ids=[anchor]), table(head, rows)]

  def _recipe(self) -> Any:
    name, _, key = self.options.get("recipe", "").partition(" ")
    if not name:
      return {}
    file, _, argument = name.partition(":")
    config = importlib.import_module(f"rlhf_jax.configs.{file}").get_config(argument).copy_and_resolve_references()
    for part in key.split("."):
      config = config[part]
    return config

  @staticmethod
  def _has_defaults(cls: type) -> bool:
    return any(
      field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
      for field in dataclasses.fields(cls)
    )

  @staticmethod
  def _default(field: dataclasses.Field) -> list[nodes.Node]:
    if field.default is not dataclasses.MISSING:
      return [nodes.literal(text=value_text(field.default))]
    if field.default_factory is not dataclasses.MISSING:
      value = field.default_factory()
      return [nodes.literal(text="none" if dataclasses.is_dataclass(value) else value_text(value))]
    return []

  def _type(self, hint: Any) -> list[nodes.Node]:
    found: list[nodes.Node] = []
    for part in type_text(hint):
      if isinstance(part, str):
        found.append(nodes.Text(part))
      else:
        reference = addnodes.pending_xref(
          "", reftype="settings", refdomain="", reftarget=label(part), refdoc=self.env.docname
        )
        reference += nodes.literal(text=part.__name__)
        found.append(reference)
    return found

  def _description(self, text: str) -> list[nodes.Node]:
    parts = re.split(r"`([^`]+)`", text)
    return [nodes.literal(text=part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


def table(head: list[str], rows: list[list[list[nodes.Node]]]) -> nodes.table:
  """A docutils table."""
  group = nodes.tgroup(cols=len(head))
  widths = {"key": 16, "type": 16, "default": 10, "recipe": 12, "meaning": 60}
  group += [nodes.colspec(colwidth=widths[name]) for name in head]
  top, body = nodes.thead(), nodes.tbody()
  top += _row([[nodes.Text(name)] for name in head])
  body += [_row(row) for row in rows]
  group += [top, body]
  whole = nodes.table(classes=["colwidths-given"])
  whole += group
  return whole


def _row(cells: list[list[nodes.Node]]) -> nodes.row:
  row = nodes.row()
  for cell in cells:
    entry = nodes.entry()
    entry += nodes.paragraph("", "", *cell)
    row += entry
  return row


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
  """Event `missing-reference`: a link to the table of a dataclass where a page has one, else its name alone."""
  if node.get("reftype") != "settings":
    return None
  found = env.settings_tables.get(node["reftarget"])
  if not found:
    return content
  page, anchor = found
  reference = nodes.reference("", "", internal=True)
  reference["refuri"] = app.builder.get_relative_uri(node["refdoc"], page) + "#" + anchor
  reference += content
  return reference


def prepare(app: Any) -> None:
  """Event `builder-inited`: where the tables are, as label -> (page, anchor)."""
  if not hasattr(app.env, "settings_tables"):
    app.env.settings_tables = {}


def setup(app: Any) -> dict[str, bool]:
  app.add_directive("settings", Settings)
  app.connect("builder-inited", prepare)
  app.connect("missing-reference", resolve)
  return {"parallel_read_safe": False}
