"""Reports about the business: revenue, accounting, status and the figures that roll-out gates ask for."""
