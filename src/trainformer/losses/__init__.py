"""Pure functions, one value per unit."""
