"""What a batch, a loss and an accuracy are, one file a task."""
