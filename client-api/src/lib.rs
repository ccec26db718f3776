//! The client-server API: one file an endpoint.
