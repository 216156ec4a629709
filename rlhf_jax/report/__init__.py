"""RUN/report.html and RUN/inspect.html: what a run has found, on pages made from the run directory alone."""
