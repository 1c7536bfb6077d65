"""One thing each, for all rooms: clocks, logs, tasks, addresses, calendars. Nothing here knows another room."""
