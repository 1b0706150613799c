"""The update rules: one file each, on the shared base."""
