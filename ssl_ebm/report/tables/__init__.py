"""The report's tables: which numbers they show, and how they look as text, Markdown and HTML."""
