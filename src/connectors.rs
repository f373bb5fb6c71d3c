//! The connectors of this build: each behind a Cargo feature, compiled in, no registry at run time.

use seachange_sdk::Connector;

/// All of them. The value of `type` in `[pipeline.NAME.source]` chooses one.
pub const CONNECTORS: &[&dyn Connector] = &[
    #[cfg(feature = "postgres")]
    &seachange_postgres::Postgres,
    #[cfg(feature = "mysql")]
    &seachange_mysql::Binlog(seachange_mysql::flavor::Flavor::MySql),
    #[cfg(feature = "mysql")]
    &seachange_mysql::Binlog(seachange_mysql::flavor::Flavor::MariaDb),
];
