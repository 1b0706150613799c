"""MBConv families for imgzoo."""
