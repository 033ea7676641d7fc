//! Certificates, keys and whom to trust, read again when they change.
