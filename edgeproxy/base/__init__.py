"""Foundations for all packages: clocks, logs, tasks, addresses, calendars. No module here imports another package."""
