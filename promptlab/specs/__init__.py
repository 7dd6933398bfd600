"""Data files -> frozen, validated values: `task`, `template`, `verbalizer`, one module each.

Import the defining module.
"""
