"""The engine of paretopath: paths, costs, search, retraining and run time. It knows no model family."""
