"""What every REST call shares: access, query parameters, pages, problems, renderers, schema."""
