"""Models outside a run: opening, answering, predicting, deploying, exporting, timing."""
