"""Where a path's costs are: by kind of operator and by unit, as data and as a page.

:mod:`~paretopath.showing.profile.content` gathers the figures,
:mod:`~paretopath.showing.profile.page` draws them.
"""

from paretopath.showing.profile.content import LayerPricer, Profile, profile_path
from paretopath.showing.profile.page import write_html

__all__ = ["LayerPricer", "Profile", "profile_path", "write_html"]
