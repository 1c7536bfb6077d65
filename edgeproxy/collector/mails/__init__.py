"""Mails to people: their content as text and HTML, and the way to the server."""
