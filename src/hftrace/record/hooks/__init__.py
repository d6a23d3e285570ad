"""Hook points as data: one small file per library."""
