"""One class a pixel."""
