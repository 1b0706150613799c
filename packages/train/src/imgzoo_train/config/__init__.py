"""The run configuration: its sections, bounds, flags and recipes."""
