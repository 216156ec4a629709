"""The pages for readers: short where that is promised, complete, and without a dead link."""

import re

import pytest
from pages import PAGES, ROOT
from test_layering import LEVELS

from rlhf_jax import __version__

README = (ROOT / "README.md").read_text()
ALGORITHMS = sorted(path.stem for path in (ROOT / "rlhf_jax/algorithms").glob("*.py") if path.stem != "__init__")
ALGORITHM_PAGES = sorted(path for path in (ROOT / "docs/algorithms").glob("*.md") if path.stem != "index")


def test_the_readme_is_short_and_has_the_two_commands():
  assert len(README.split()) <= 1200
  for mark in ("run", "test"):
    assert len(re.findall(rf"<!-- {mark} -->\n```bash\n[^\n]+\n```", README)) == 1


def test_the_readme_leads_to_every_page():
  listed = (ROOT / "docs/index.md").read_text()
  for path in (ROOT / "docs").glob("*.md"):
    if path.stem not in ("index", "settings", "contributing", "changelog"):
      assert f"(docs/{path.name})" in README, path.name
      assert f"({path.name})" in listed, path.name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(page):
  text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
  for target in re.findall(r"\]\(([^)\s]+)\)", text):
    if target.startswith(("http://", "https://")):
      continue
    if "/api/" in f"/{target}":  # written when the pages are built, one for each package
      package = (ROOT / "rlhf_jax" / target.rpartition("/")[2]).with_suffix("")
      assert package.name == "index" or package.is_dir() or package.with_suffix(".py").exists(), target
      continue
    assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_algorithm_has_a_page():
  text = "".join(path.read_text() for path in ALGORITHM_PAGES)
  for name in ALGORITHMS:
    assert f"`rlhf_jax/algorithms/{name}.py`" in text, name


@pytest.mark.parametrize("page", ALGORITHM_PAGES, ids=lambda path: path.stem)
def test_the_page_of_an_algorithm_is_complete(page):
  text = page.read_text()
  assert re.search(r"^## Objectives?$", text, re.M) and "$" in text
  assert "```{settings} rlhf_jax." in text
  measured = text.partition("## Measured\n")[2]
  assert "    rlhf-jax run --config " in measured  # a figure stands with its command
  listed = (ROOT / "docs/algorithms/index.md").read_text()
  assert f"({page.name})" in listed and re.search(rf"^{page.stem}$", listed, re.M)


def test_files_that_pages_name_exist():
  for page in PAGES:
    if page.name == "CHANGELOG.md":  # names files of earlier versions
      continue
    for path in re.findall(r"`((?:rlhf_jax|tests|configs|experiments|benchmarks|docs)/[\w/.-]+)`", page.read_text()):
      assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_changelog_names_modules_that_exist():
  rows = re.findall(r"^\| `(rlhf_jax[\w.:]+)`[^|]*\| `(rlhf_jax[\w.:]+)`", (ROOT / "CHANGELOG.md").read_text(), re.M)
  assert len(rows) > 25
  for _, new in rows:
    path = ROOT / new.partition(":")[0].removesuffix(".X").replace(".", "/")
    assert path.is_dir() or path.with_suffix(".py").exists(), new


def test_changelog_and_citation_are_of_this_version():
  assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
  assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_map_has_the_levels_that_imports_keep_to():
  rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "docs/architecture.md").read_text(), re.M)
  told = {int(level): set(re.findall(r"`(\w+)`", names)) for level, names in rows}
  assert told == dict(enumerate(LEVELS, 1))


def test_the_map_has_every_package():
  tree = (ROOT / "docs/architecture.md").read_text().partition("## What may import what")[0]
  for path in (ROOT / "rlhf_jax").iterdir():
    if path.name not in ("__init__.py", "__pycache__", "configs", "py.typed"):
      name = path.name if path.suffix else f"{path.name}/"
      assert re.search(rf"^      {name} ", tree, re.M), name
