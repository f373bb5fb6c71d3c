//! What every pipeline is doing.
