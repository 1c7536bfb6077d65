"""Rate limits, quotas and concurrency: admission, waits, and the RateLimit fields. Time is an argument everywhere."""
