"""Templates, atlases of every kind behind one door, and groups of their regions."""
