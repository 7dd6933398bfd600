"""Tests of promptlab."""
