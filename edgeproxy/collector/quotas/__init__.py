"""How much of what is included customers have used, and the places that what exists takes."""
