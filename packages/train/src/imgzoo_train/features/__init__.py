"""Jobs with the features of a network that stays as it is: embedding files, probes, search."""
