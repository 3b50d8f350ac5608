"""What a person sees: one file for each thing that is shown."""
