"""Human feedback: its records, the store, the queue, the annotation page. NumPy and the standard library, no jax."""
