"""Paths that repair themselves: re-solved in sequence, unit by unit, no labels, no gradients.

Calibration images walk a path beside the full model. Each layer that writes into the stream is
solved so that the path's stream lands on the full model's,

    min over W, b of  E|r - (a + through(W h + b))|^2

with r the full model's stream behind the layer, a the path's own before it, h the layer's inputs as
this path has them, patches where its filters are larger than 1x1. So it takes up whatever narrower
and skipped units before it got wrong. Layers that write into no stream, but read narrowed channels
or stand in a unit that ends the path (an exit, a decoder), are solved for the full model's results
of the same layer.

It is the reconstruction of He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural
Networks" (ICCV 2017, arXiv 1707.06168, section 3.2), carried on to skipped blocks and searched
paths. What a unit's solution depends on is the unit's own choice and the prefix that leads to it:
paths share it as they share the states of a prefix tree.
"""

from paretopath.elastic.repair.memory import images_that_fit
from paretopath.elastic.repair.sequence import Repair, repairable

__all__ = ["Repair", "images_that_fit", "repairable"]
