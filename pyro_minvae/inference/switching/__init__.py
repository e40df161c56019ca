"""Switching between trained models over time."""
