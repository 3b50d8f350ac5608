"""Retraining: planned, run from wherever it was stopped, here or on a cluster, and collected."""
