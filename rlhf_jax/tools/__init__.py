"""What is done with a finished run: ask its models, export them, hand them to other evaluators."""
