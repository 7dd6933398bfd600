"""Stored run -> tables, charts and pages; works without torch and reads no row of a task."""
