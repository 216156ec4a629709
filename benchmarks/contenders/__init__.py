"""The contenders of `benchmarks/peers.py`: programs that do the same work and take steps when they are told to."""
