"""What runs a deployed network: one file an engine, one protocol."""
