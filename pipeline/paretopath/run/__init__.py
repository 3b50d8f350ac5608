"""A run directory, and the objects that its recipe describes.

Each name of ``__init__.pyi`` is imported when it is first asked for: what deploys a run needs its
directory alone, nothing of the search.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
