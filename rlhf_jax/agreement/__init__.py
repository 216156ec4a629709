"""Statistics of judgements: agreement of annotators, their habits, a screening of them, and the consensus of all."""
