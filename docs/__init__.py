"""The documentation: pages in Markdown, and the module that writes the reference from the code."""
