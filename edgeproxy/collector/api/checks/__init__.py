"""Checks of usage and spending that an operator runs now, and their baselines."""
