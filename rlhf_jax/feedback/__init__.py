"""Human feedback: the schema of its records, the store, the queue, the annotation page, the files learners read.

`records` is what everything else speaks of; `exchange.read_records` reads it from a store or a file. Nothing here knows
jax or a model: policies come in as functions of texts (`collect.Policy`). Only `server` needs the feedback extra.
"""
