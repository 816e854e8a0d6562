"""One section of the report a file: ``section(report)`` returns it, or None without content."""
