"""Building blocks of imgzoo's networks."""
