"""Hosts agree on limits: the contents and times of reports to the hub (pure), and the coordinator that sends them."""
