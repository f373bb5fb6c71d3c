//! Placeholder: the decoders are being written beside this.
