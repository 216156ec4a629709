"""Stages that read and write files: the world, feedback, evaluation. What learns is in `algorithms`."""
