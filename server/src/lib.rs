//! The registry: the OCI distribution specification over HTTP, on top of the storage engine.
//!
//! [`serve`] is the program, [`http`] the connections, [`registry`] the end-points of the specification, [`access`]
//! who may do what, [`private`] what the Kubernetes component and administrators' commands say to it, [`administration`] what the
//! latter want of it, [`operations`] what operators see, [`settings`] and [`cli`] what can be set and asked for. Nothing in here knows of files, and nothing
//! knows of Kubernetes.

pub mod access;
pub mod administration;
pub mod cli;
pub mod http;
pub mod logging;
pub mod operations;
pub mod private;
pub mod registry;
pub mod serve;
pub mod settings;
mod timestamp;
