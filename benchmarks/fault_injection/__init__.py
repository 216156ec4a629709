"""The parts of `benchmarks/faults.py`: a chain of seconds, faults and their injection, and judging how they end."""
