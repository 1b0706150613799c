"""Training, evaluation, prediction and export commands of imgzoo."""
