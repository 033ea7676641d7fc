//! What the registry has to know of the cluster, and what it does there.
