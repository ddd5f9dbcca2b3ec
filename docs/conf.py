"""Sphinx configuration. `make docs` builds HTML into docs/_build/html, running every example."""

from afafilter import __version__

project = "afafilter"
author = "the afafilter developers"
release = __version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
autosummary_generate = True
autosummary_generate_overwrite = True
numpydoc_show_class_members = False
autodoc_typehints = "none"
html_theme = "furo"
html_title = f"afafilter {release}"
exclude_patterns = ["_build", "examples", "auto_examples/*.ipynb"]
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
}
