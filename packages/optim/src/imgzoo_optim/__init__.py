"""Optimizers, schedules, parameter groups and clipping for imgzoo."""
