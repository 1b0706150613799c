"""The commands that imgzoo-data brings."""
