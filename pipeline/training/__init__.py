"""Lightning trainings that can be stopped anywhere and go on as if they had not been.

:mod:`~pipeline.training.retrain` has the modules, :mod:`~pipeline.training.trainer` runs them over
any number of processes, :mod:`~pipeline.training.training_state` is what a checkpoint keeps,
:mod:`~pipeline.training.interruption` how a job is told to stop.
"""
