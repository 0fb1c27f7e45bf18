"""From the log of a job that failed to the cause."""
