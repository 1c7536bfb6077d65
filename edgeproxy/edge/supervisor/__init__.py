"""The edge's control plane: it starts and replaces workers, tends the tables, answers the admin listener."""
