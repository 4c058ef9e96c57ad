"""How the documentation site is built: `make docs`, warnings as errors."""

import importlib.metadata

project = "ROMUL"
copyright = "the ROMUL contributors"  # noqa: A001  (Sphinx's own name)
version = release = importlib.metadata.version("romul")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["experiments/*.jsonl"]
suppress_warnings = [
    # Pages point into the repository (`../SECURITY.md`), where they are read most.
    "myst.xref_missing",
    # Fields of several dataclasses share names such as `type`.
    "ref.python",
]

html_theme = "furo"
html_title = "ROMUL"

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_use_ivar = True
