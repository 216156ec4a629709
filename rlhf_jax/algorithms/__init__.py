"""Algorithms that learn, one in a file: each file has a `Config` and a `run(config, stage)`."""
