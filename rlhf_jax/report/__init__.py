"""RUN/report.html: what a run did, read from its directory alone."""
