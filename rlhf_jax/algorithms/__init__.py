"""One algorithm, one file: each has a `Config` and a `run(config, stage)`, and reads from top to bottom."""
