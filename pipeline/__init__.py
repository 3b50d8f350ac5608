"""The engine: paths, costs, search, retraining and run time. It knows no model family."""
