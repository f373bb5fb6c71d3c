//! `seachange-fuzz [TARGET|all] [RUNS] [SEED]`: runs targets, tells how fast and how far, and keeps what it finds.
//!
//! What breaks an invariant, panics or computes for longer than ten seconds is written to `.run/fuzz/` and ends the run with status
//! 1; `seachange-fuzz TARGET FILE` gives one such input again. With counters (see `scripts/fuzz`) inputs that reach new
//! code are kept in memory and mutated on; `SEACHANGE_FUZZ_KEEP=DIR` writes them down too.

use seachange_fuzz::{Mutator, TARGETS, Target, corpus, coverage::Seen, run};
use std::{
    fs,
    io::{self, Write},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::{self, ExitCode},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const SLOW: Duration = Duration::from_secs(10);

fn write_finding(target: &Target, input: &[u8]) -> io::Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.run/fuzz");
    fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{}-{:08x}", target.name, crc32c::crc32c(input)));
    fs::write(&file, input)?;
    Ok(file)
}

/// Tells where the input is. The finding itself has been told by the panic.
fn found(target: &Target, input: &[u8], what: &str) {
    eprintln!("{}: {what}: {:?}", target.name, String::from_utf8_lossy(input));
    match write_finding(target, input) {
        Ok(file) => eprintln!("{}: the input is in {}", target.name, file.display()),
        Err(e) => eprintln!("{}: the input cannot be kept: {e}", target.name),
    }
}

/// The number and the input of the run that is on, for the watch.
type Now = Arc<Mutex<Option<(u64, Vec<u8>)>>>;

/// Time that the main thread, which runs the targets, has been on a processor: on a busy machine a run may wait for long.
/// Where the kernel does not tell, nothing is found slow.
fn on_processor() -> Duration {
    let told = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(told.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn watch(target: Target, now: Now) {
    let mut since = (u64::MAX, Duration::ZERO);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = now.lock().unwrap_or_else(|e| e.into_inner());
        let Some((number, input)) = now.as_ref() else { return };
        if since.0 != *number {
            since = (*number, on_processor());
        } else if on_processor().saturating_sub(since.1) > SLOW {
            found(&target, input, "does not end");
            process::exit(1);
        }
    }
}

/// Runs a target; `None` when something was found.
fn fuzz(target: &Target, runs: u64, seed: u64) -> io::Result<Option<String>> {
    let mut seeds: Vec<Vec<u8>> = corpus::read(target.name)?.into_iter().map(|(_, input)| input).collect();
    let given = seeds.len();
    let keep = std::env::var_os("SEACHANGE_FUZZ_KEEP").map(|d| PathBuf::from(d).join(target.name));
    if let Some(dir) = &keep {
        fs::create_dir_all(dir)?;
    }
    let now: Now = Arc::new(Mutex::new(Some((0, Vec::new()))));
    let watched = now.clone();
    let copied = *target;
    std::thread::spawn(move || watch(copied, watched));
    let (mut seen, mut mutator, mut input) = (Seen::default(), Mutator::new(seed), Vec::new());
    let began = Instant::now();
    let processor = on_processor();
    for n in 0..runs {
        match seeds.get(n as usize).filter(|_| (n as usize) < given) {
            Some(first) => input.clone_from(first),
            None => mutator.input(&seeds, target.tokens, &mut input),
        }
        {
            let mut now = now.lock().unwrap_or_else(|e| e.into_inner());
            let entry = now.get_or_insert_with(|| (n, Vec::new()));
            entry.0 = n;
            entry.1.clone_from(&input);
        }
        if panic::catch_unwind(AssertUnwindSafe(|| run(target, &input))).is_err() {
            found(target, &input, "breaks an invariant");
            return Ok(None);
        }
        if seen.take() && n as usize >= given {
            if let Some(dir) = &keep {
                fs::write(dir.join(format!("{:08x}", crc32c::crc32c(&input))), &input)?;
            }
            seeds.push(input.clone());
        }
    }
    *now.lock().unwrap_or_else(|e| e.into_inner()) = None;
    let took = began.elapsed().as_secs_f64();
    let computed = (on_processor() - processor).as_secs_f64();
    Ok(Some(format!(
        "{:<11} {runs} runs, {:.0} a second ({:.0} of processor time), corpus {given} + {} new, {} of {} edges",
        target.name,
        runs as f64 / took.max(0.001),
        runs as f64 / computed.max(0.001),
        seeds.len() - given,
        seen.reached(),
        Seen::edges(),
    )))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = args.first().map_or("all", String::as_str);
    let chosen: Vec<&Target> = TARGETS.iter().filter(|t| name == "all" || t.name == name).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("no target {name}; there are: all, {}", names.join(", "));
        return ExitCode::from(2);
    }
    let runs = args.get(1).map_or("1000000", String::as_str);
    let Ok(runs) = runs.parse::<u64>() else {
        return match fs::read(runs) {
            Ok(input) => {
                chosen.iter().for_each(|t| run(t, &input));
                ExitCode::SUCCESS
            }
            Err(e) => {
                eprintln!("{runs} is neither a number of runs nor a file: {e}");
                ExitCode::from(2)
            }
        };
    };
    let seed = args.get(2).and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut failed = false;
    for target in chosen {
        match fuzz(target, runs, seed) {
            Ok(Some(told)) => println!("{told}"),
            Ok(None) => failed = true,
            Err(e) => {
                eprintln!("{}: {e}", target.name);
                failed = true;
            }
        }
        if let Err(e) = io::stdout().flush() {
            eprintln!("standard output: {e}");
        }
    }
    ExitCode::from(u8::from(failed))
}
