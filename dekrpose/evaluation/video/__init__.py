"""Clips whose truth is known, and how good a model is on them: accuracy, smoothness, lag."""
