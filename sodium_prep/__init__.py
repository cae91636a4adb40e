"""Regional total sodium concentration from sodium (23Na) MRI of the brain, with confidence intervals."""

__version__ = "0.1.0"
