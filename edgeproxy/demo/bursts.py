"""Deneb's program: it calls the API in bursts, which are above the rate of Free."""

BURST_SECONDS = 600
BURST_CALLS = 70
FREE_CALLS = 60
"""The calls in a minute that Free allows (config/tiers.yaml)."""
REFUSED_IN_BURST = BURST_CALLS - FREE_CALLS
