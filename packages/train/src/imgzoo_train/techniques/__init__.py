"""What is done to training from outside the network."""
