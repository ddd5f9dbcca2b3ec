"""How to cite the program and the paper that it is about."""

from __future__ import annotations

from afafilter._version import __version__


def citation() -> str:
    """BibTeX of this version and of the paper."""
    return f"""@software{{afafilter,
  title   = {{afafilter: Adaptive Filter Attention beside the Kalman filter}},
  author  = {{{{the afafilter developers}}}},
  version = {{{__version__}}},
  license = {{MIT}}
}}

@misc{{racioppo2025attention,
  title         = {{Attention as an Adaptive Filter}},
  author        = {{Racioppo, P.}},
  year          = {{2025}},
  eprint        = {{2509.04154}},
  archivePrefix = {{arXiv}}
}}"""
