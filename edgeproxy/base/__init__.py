"""Foundations for all rooms: clocks, logs, tasks, addresses, calendars. No module here imports another room."""
