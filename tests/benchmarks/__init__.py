"""The programs that measure."""
