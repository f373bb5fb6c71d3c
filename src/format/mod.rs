//! Formats: plans that write keys and values.
