//! `payload-registry-kapi`: the Kubernetes component of payload-registry.

fn main() {}
