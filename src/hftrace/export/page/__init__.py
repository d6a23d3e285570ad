"""The report page: one HTML file that needs no network, made of parts with a module each."""
