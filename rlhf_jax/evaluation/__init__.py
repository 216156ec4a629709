"""Parts of evaluations: statistics, log-probabilities of texts, questions, simulated judgements, result files."""
