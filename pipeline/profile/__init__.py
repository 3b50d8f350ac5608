"""Where a path's costs are: by kind of operator and by unit, as data and as a page.

:mod:`~pipeline.profile.content` gathers the figures, :mod:`~pipeline.profile.page` draws them.
"""

from pipeline.profile.content import LayerPricer, Profile, profile_path
from pipeline.profile.page import write_html

__all__ = ["LayerPricer", "Profile", "profile_path", "write_html"]
