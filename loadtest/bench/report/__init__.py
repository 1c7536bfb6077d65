"""What is said about it: medians and ratios, tables, a JSON file."""
