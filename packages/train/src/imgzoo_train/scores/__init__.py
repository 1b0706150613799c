"""What an evaluation found, as tables."""
