"""What Linux says: memory of processes, control groups, the page cache, limits, mounts, the kernel's log."""
