//! Tests of the whole format.
