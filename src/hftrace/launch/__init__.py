"""Starts and supervises loads: child process, sampler, supervisor, in-process tracing."""
