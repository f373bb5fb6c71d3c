//! One pipeline at run time.
