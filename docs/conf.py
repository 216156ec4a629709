"""The pages of docs/ and the API reference: `sphinx-build -W --keep-going -b html docs docs/_build/html`."""

import os
import sys
from pathlib import Path

from rlhf_jax import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # of the tutorial too, whose figures are to be the same everywhere

project = "rlhf_jax"
author = "the authors of rlhf_jax"
copyright = "the authors of rlhf_jax, Apache License 2.0"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "docstrings", "settings_table", "api_pages"]
exclude_patterns = ["_build", "_ext"]
html_theme = "sphinx_book_theme"
html_title = "rlhf_jax"
html_static_path = []
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}
# The pages of source code go without the tree of all pages: it would take longer to write than they do.
html_sidebars = {"_modules/**": ["navbar-logo.html", "search-button-field.html"]}

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# The tutorial is executed anew in every build, and an assertion that fails in it fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

smartquotes = False  # "" is a value of many settings

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
