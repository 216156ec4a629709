"""Stages that read and write files: the world, feedback, evaluation. Stages that learn are in `algorithms`."""
