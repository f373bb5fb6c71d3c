//! Placeholder: COPY is being written beside this.
