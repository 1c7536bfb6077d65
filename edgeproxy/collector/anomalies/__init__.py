"""Unusual usage: baselines, judgements, and the job that raises alerts."""
