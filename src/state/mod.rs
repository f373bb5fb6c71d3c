//! What a pipeline keeps.
