"""Accuracies of many paths, batch by batch, common prefixes once."""
