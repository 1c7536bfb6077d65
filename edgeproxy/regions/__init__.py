"""Which region is nearest to whom, by what clients have measured. Pure: time is an argument, and nobody is asked."""
