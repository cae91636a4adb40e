"""Figures, quality metrics, participant and cohort pages."""
