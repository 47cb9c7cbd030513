"""What programs for Prefect do with results, transactions, caching and tasks, with only the import renamed.

Each is a shape that stands in Prefect's documentation or in public programs, in words of our own. It works as there, or
is refused with a sentence that helps, or differs in a way that the quickstart names.
"""
