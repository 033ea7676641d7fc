//! The aggregated API: discovery, OpenAPI, and tags as objects.
