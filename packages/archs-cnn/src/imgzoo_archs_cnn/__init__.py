"""Convolutional families for imgzoo."""
