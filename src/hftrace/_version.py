"""The version of hftrace, in one place; the build backend reads it from here."""

__version__ = "0.2.0"
