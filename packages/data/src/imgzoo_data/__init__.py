"""Image sources, decoding, transforms and the deterministic loader of imgzoo."""
