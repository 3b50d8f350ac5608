"""Lightning trainings that can be stopped anywhere and go on as if they had not been.

:mod:`~paretopath.training.retrain` has the modules, :mod:`~paretopath.training.trainer` runs them
over any number of processes, :mod:`~paretopath.training.training_state` is what a checkpoint keeps,
:mod:`~paretopath.training.interruption` how a job is told to stop.
"""
