"""RUN/report.html: the results of a run on one page, read from the run directory alone."""
