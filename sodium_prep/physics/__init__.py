"""Constants, relaxation tables, signal equations and readout timing."""
