"""The jobs of a run: base weights, search, retraining, evaluation. Each resumes where it was
interrupted.

Each name of ``__init__.pyi`` is imported when it is first asked for: what drafts a recipe needs no
search, and what searches no retraining. Lightning is imported by the functions that need it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
