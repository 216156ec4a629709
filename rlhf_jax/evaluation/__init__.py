"""Evaluation of a run: statistics, the evaluation stage, and the report."""
