"""Human feedback: its records, the store, the queue, the annotation page, and the rows that learners read.

`exchange.read_records` reads records from a store or from files. Nothing here imports jax or a model: policies come in
as functions of texts (`collect.Policy`). Only `server` imports Starlette and uvicorn.
"""
