"""Files that survive a crash: tensors, checkpoints."""
