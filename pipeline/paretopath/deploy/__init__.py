"""What a user deploys: the dynamic model, and how its parts choose.

:mod:`~paretopath.deploy.chooser` turns a budget into a path, :mod:`~paretopath.deploy.exits` a
confidence into an exit; :mod:`~paretopath.deploy.preprocessing` makes and checks images;
:mod:`~paretopath.deploy.loading` reads all of it from a run directory.
"""

from paretopath.deploy.dynamic_model import DynamicModel
from paretopath.deploy.thresholds import EarlyExit, choose_threshold

__all__ = ["DynamicModel", "EarlyExit", "choose_threshold"]
