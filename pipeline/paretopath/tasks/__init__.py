"""What a batch, a loss and an accuracy are, one folder a task: found by name, as families are."""
