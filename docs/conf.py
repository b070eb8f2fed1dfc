"""Sphinx: deploy/uv run --isolated --only-group docs sphinx-build -W --keep-going -b html docs site"""

project = "tripost"
author = "the authors of tripost"
extensions = ["myst_parser"]
exclude_patterns = ["*.json"]
html_theme = "furo"
html_title = "tripost"
html_show_copyright = False
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
# blocks of TOML with comments for readers, HAProxy's settings, logs
suppress_warnings = ["misc.highlighting_failure"]
nitpicky = True
