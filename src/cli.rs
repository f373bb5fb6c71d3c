//! The command line.
//!
//! Exit codes are a contract: 0 fine, 1 failed while running, 2 configuration or usage. Results go to standard output,
//! everything else to standard error.

mod check;
mod init;
mod run;
mod state;

use crate::{
    config::{self, Config, Faults, Registry},
    connectors::CONNECTORS,
};
use clap::{Parser, Subcommand};
use seachange_sdk::{Error, Kind};
use std::{path::PathBuf, process::ExitCode};

/// Change data capture from databases to Kafka, exactly once.
#[derive(Parser)]
#[command(name = "seachange", version, about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct File {
    /// The configuration, a TOML file.
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the daemon until SIGTERM or SIGINT; a second signal ends it at once.
    Run {
        #[command(flatten)]
        file: File,
    },
    /// Checks the configuration, and asks database and Kafka whether they are ready. Changes nothing.
    Check {
        #[command(flatten)]
        file: File,
    },
    /// Writes a first configuration to standard output, from what it finds in the database.
    Init {
        /// The database: postgres://user:password@host:port/database
        url: String,
    },
    /// Shows or forgets what the pipelines have stored.
    State {
        #[command(flatten)]
        file: File,
        #[command(subcommand)]
        action: Option<StateAction>,
    },
    /// Prints the version.
    Version,
}

#[derive(Subcommand)]
enum StateAction {
    /// Prints what is stored, as JSON. Does not disturb a running daemon.
    Show,
    /// Forgets everything that a pipeline has stored: it starts anew. Stop the daemon first.
    Reset {
        /// The pipeline's name.
        pipeline: String,
        /// Yes, forget it.
        #[arg(long)]
        yes: bool,
    },
}

/// How a command ended badly.
enum Failure {
    /// Exit code 2.
    Config(String),
    /// Exit code 1.
    Run(String),
}

impl From<Faults> for Failure {
    fn from(f: Faults) -> Failure {
        Failure::Config(f.to_string())
    }
}
impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let text = explain(&e);
        if e.kind() == Kind::Config { Failure::Config(text) } else { Failure::Run(text) }
    }
}

/// An error with its remedy.
fn explain(e: &Error) -> String {
    let fix = e.remedy().map_or(String::new(), |f| format!("\n  -> {f}"));
    format!("{e}{fix}")
}

/// Runs the command line of the process.
pub fn main() -> ExitCode {
    // A usage error ends the process here, with 2.
    let args = Args::parse();
    let done = match args.command {
        Command::Run { file } => load(&file).and_then(run::run),
        Command::Check { file } => load(&file).and_then(check::check),
        Command::Init { url } => init::init(&url, CONNECTORS),
        Command::State { file, action } => load(&file).and_then(|config| match action {
            None | Some(StateAction::Show) => state::show(&config),
            Some(StateAction::Reset { pipeline, yes }) => state::reset(&config, &pipeline, yes),
        }),
        Command::Version => {
            println!("seachange {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Run(text)) => {
            eprintln!("seachange: {}", text.trim_end());
            ExitCode::from(1)
        }
        Err(Failure::Config(text)) => {
            eprintln!("seachange: {}", text.trim_end());
            ExitCode::from(2)
        }
    }
}

fn load(file: &File) -> Result<Config, Failure> {
    let path = file.config.as_deref().ok_or_else(|| {
        Failure::Config("--config FILE is missing\n  -> name the configuration; `seachange init URL` writes one".into())
    })?;
    Ok(config::load(path, &Registry { connectors: CONNECTORS, properties: &crate::sink::property_faults })?)
}

/// A runtime for commands that ask and end.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map(|r| r.block_on(future)).map_err(|e| Failure::Run(format!("the runtime cannot start: {e}")))
}
