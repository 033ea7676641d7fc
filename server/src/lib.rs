//! The registry: the OCI distribution specification over HTTP, on top of the storage engine.
//!
//! [`serve`] is the program, [`http`] the connections, [`registry`] the end-points of the specification, [`access`]
//! who may do what, [`operations`] what operators see, [`settings`] and [`cli`] what can be set and asked for. Nothing
//! in here knows of files, and nothing knows of Kubernetes.

pub mod access;
pub mod cli;
pub mod http;
pub mod logging;
pub mod operations;
pub mod registry;
pub mod serve;
pub mod settings;
