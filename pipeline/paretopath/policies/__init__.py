"""When images leave early: policies over the exits of a path, searched without running the model.

:mod:`~paretopath.policies.outputs` runs a path once through all its exits and keeps what they say;
:mod:`~paretopath.policies.confidence` is how sure an exit is,
:mod:`~paretopath.policies.calibration` how far that can be trusted;
:mod:`~paretopath.policies.leaving` is the arithmetic of many policies at once,
:mod:`~paretopath.policies.search` tries them, :mod:`~paretopath.policies.choice` finds those that
keep their promise on images that they were not chosen by, and :mod:`~paretopath.policies.points`
makes points of a front of them. What deploys a policy needs its confidence alone, so nothing is
imported here.
"""
