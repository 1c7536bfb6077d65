"""What came of a run, for people and for programs: a screen of text, figures.json, histograms and one HTML file."""
