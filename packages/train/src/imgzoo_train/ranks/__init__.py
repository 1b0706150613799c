"""Several processes: who is who, how they start, stop, draw random numbers and share a model."""
