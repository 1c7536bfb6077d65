"""What operators write: typed models, units, files with their lines, environment, and every error at once."""
