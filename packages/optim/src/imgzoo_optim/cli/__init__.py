"""The command that imgzoo-optim brings."""
