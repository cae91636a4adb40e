"""Point spread function, regional forward model and partial-volume estimators."""
