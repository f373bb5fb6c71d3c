//! What every connector to a database server needs, once: its settings, its URL, TLS, and what the operator is told.
//!
//! What a database has of its own stays in its connector, and where two differ in words or numbers only, those are a
//! [`Dialect`].
//!
//! | module | owns |
//! | --- | --- |
//! | [`keys`] | a table of settings, read with all its faults |
//! | [`url`] | connection URLs |
//! | [`settings`] | what every source has: server, account, what is captured, TLS, timeouts |
//! | [`tls`], [`transport`] | what each `sslmode` verifies; a connection's bytes, plain or encrypted |
//! | [`report`] | the outcomes of the preflight |
//! | [`starter`] | the configuration that `seachange init` writes |

pub mod keys;
pub mod report;
pub mod settings;
pub mod starter;
pub mod tls;
pub mod transport;
pub mod url;

pub use keys::Keys;
pub use report::Report;
pub use settings::{Dialect, Reader, Settings, SslMode, TlsFiles};
pub use transport::Io;
pub use url::Url;
