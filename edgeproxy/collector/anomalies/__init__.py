"""Usage that is not as usual: baselines, what is decided by them, the jobs that look, and a replay of history."""
