"""The collector's HTTP API: listeners, who may ask, the endpoints and what is sent and answered."""
