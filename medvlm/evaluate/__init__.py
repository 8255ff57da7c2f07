"""Predictions and their scores: tokenize, count, aggregate, and say how sure the numbers are."""
