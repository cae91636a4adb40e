"""Proton anatomy: brain mask, tissue fractions, registration, and the worker that runs ANTs."""
