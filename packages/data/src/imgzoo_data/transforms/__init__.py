"""Image transforms on uint8: each is a step of a pipeline that can be written down as one row."""
