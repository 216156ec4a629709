"""`python -m rlhf_jax.cli`, which does what the command `rlhf-jax` does."""

import sys

from rlhf_jax.cli import main

if __name__ == "__main__":
  sys.exit(main())
