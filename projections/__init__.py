"""Projections: read models that fold the log and save their position with their rows."""
