"""`report.html` of a run: what the run writes down for it, figures, and the page."""
