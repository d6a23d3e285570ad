"""Pure functions of traces: what the views need and the file does not hold."""

from __future__ import annotations

from hftrace.analysis.derived import Derived
from hftrace.analysis.findings import Finding, findings
from hftrace.analysis.summary import summary

__all__ = ["Derived", "Finding", "findings", "summary"]
