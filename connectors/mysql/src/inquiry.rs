//! What the stream asks the catalog about a table.
//!
//! A session that is dropped in the middle of a question is of no use any more, and the core drops a stream's future many
//! times a second while a snapshot's chunk waits: so an inquiry is a task of its own, and the stream waits for its answer.

use crate::{
    assembler::{Need, Why},
    catalog::{self, Server},
    columns::CatalogTable,
    history::Draft,
    lookahead::{self, Lookahead},
    position::Place,
    sql,
};
use mysql_async::{Conn, prelude::Queryable};
use seachange_sdk::{Error, Kind, Result};
use std::time::Duration;

/// The catalog must answer within this time.
const CATALOG: Duration = Duration::from_secs(60);
/// Seconds that the catalog's session waits for a table that is locked.
const LOCK: u32 = 20;
/// The catalog is asked again, at most so often, when a table has changed while it was asked.
const LOOKS: usize = 5;

/// Who asks: with a session, and what is known of the statements ahead.
pub struct Inquirer {
    connector: sql::Connector,
    server: Server,
    session: Option<Conn>,
    ahead: Lookahead,
}

impl Inquirer {
    /// Without a session so far.
    pub fn new(connector: sql::Connector, server: Server, ahead: Lookahead) -> Inquirer {
        Inquirer { connector, server, session: None, ahead }
    }

    /// The catalog's description of a table, as it is needed.
    pub async fn describe(&mut self, need: &Need, here: Place, from: &Place) -> Result<Option<CatalogTable>> {
        let (at, draft, barrier) = match &need.why {
            Why::Hints => return self.ask(&need.database, &need.table, false).await,
            // A row stands in the log: whoever altered the table before it has ended.
            Why::Columns => (here, Draft::unknown(), false),
            Why::After { at, draft } => (at.clone(), draft.clone(), true),
        };
        let name = self.server.folding.table(&need.database, &need.table);
        let mut followed = None;
        for _ in 0..LOOKS {
            self.read_ahead(from).await?;
            let before = self.ahead.follow(&at, &name, &draft);
            let Some((database, table)) = before.name.clone() else {
                followed = Some((before, None));
                break;
            };
            let described = self.ask(&database, &table, barrier).await?;
            self.read_ahead(from).await?;
            let after = self.ahead.follow(&at, &name, &draft);
            let still = after == before;
            followed = Some((after, described));
            if still {
                break;
            }
        }
        let Some((end, described)) = followed else { return Err(Error::bug("a catalog that was not asked")) };
        let found = match &described {
            Some(c) if end.changed.is_none() => Some(c.clone()),
            Some(c) => draft.solve(&end.draft, c),
            None => draft.known(),
        };
        match (found, &need.why, &end.changed) {
            (None, Why::Columns, Some(changed)) => Err(lookahead::moved_on(&need.database, &need.table, &at, changed)),
            (found, ..) => Ok(found),
        }
    }

    /// Knows the statements up to the log's end as it is now.
    async fn read_ahead(&mut self, from: &Place) -> Result<()> {
        for fresh in [false, true] {
            let mut session = self.session(fresh).await?;
            match self.server.log_end(&mut session).await {
                Err(e) if e.kind() == Kind::Connect && !fresh => {}
                end => {
                    self.session = Some(session);
                    return self.ahead.read(self.connector.config(), from, &end?.0).await;
                }
            }
        }
        Err(Error::bug("a session that was never tried"))
    }

    /// The session, to be put back when what it was asked has been answered.
    async fn session(&mut self, fresh: bool) -> Result<Conn> {
        if let Some(session) = self.session.take().filter(|_| !fresh) {
            return Ok(session);
        }
        let mut session = self.connector.connect().await?;
        let waits = format!("SET SESSION lock_wait_timeout = {LOCK}");
        session.query_drop(waits).await.map_err(|e| crate::errors::sql("opening a session", e))?;
        Ok(session)
    }

    async fn ask(&mut self, database: &str, table: &str, barrier: bool) -> Result<Option<CatalogTable>> {
        let server = self.server.clone();
        for fresh in [false, true] {
            let mut session = self.session(fresh).await?;
            let asked = async {
                if barrier && !catalog::settled(&mut session, database, table).await? {
                    tracing::warn!(
                        database,
                        table,
                        "the table is locked; its columns are asked for when rows of it come"
                    );
                    return Ok(None);
                }
                catalog::table(&mut session, &server, database, table).await
            };
            match tokio::time::timeout(CATALOG, asked).await {
                // The session may have been idle for days: once more on a new one.
                Ok(Err(e)) if e.kind() == Kind::Connect && !fresh => {}
                Ok(r) => {
                    self.session = Some(session);
                    return r;
                }
                Err(_) if !fresh => {}
                Err(_) => {
                    return Err(Error::source(Kind::Connect, format!("the catalog did not answer within {CATALOG:?}")));
                }
            }
        }
        Err(Error::bug("a session that was never tried"))
    }

    /// Ends the session.
    pub async fn close(self) -> Result<()> {
        match self.session {
            Some(session) => session.disconnect().await.map_err(|e| crate::errors::sql("closing", e)),
            None => Ok(()),
        }
    }
}
