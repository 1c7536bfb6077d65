"""The collector: takes what edges have sealed, counts each batch once, and says what was used."""
