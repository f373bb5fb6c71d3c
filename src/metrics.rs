//! Every metric, by name.
