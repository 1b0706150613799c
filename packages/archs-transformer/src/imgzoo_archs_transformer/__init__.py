"""Transformer and token-mixer families for imgzoo."""
