"""Brain mask, tissue fractions, registration and transforms."""
