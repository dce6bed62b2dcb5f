"""One bulk operation at work: jobs, their retries, limits and outcomes."""
