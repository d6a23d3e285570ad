"""How a load ended that did not end well."""
