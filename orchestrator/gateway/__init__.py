"""The public port: request heads, routes, authentication, admission."""
