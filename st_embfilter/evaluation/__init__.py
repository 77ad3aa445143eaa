"""Evaluation with mteb: one encoding of every text, scores of every dimension and baseline."""
