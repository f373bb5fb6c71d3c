//! The corpus, and seeded mutations of it, through every target: the same inputs on every machine, in a few seconds.

use seachange_fuzz::{Mutator, TARGETS, corpus, run};
use std::{panic, thread};

const MUTATIONS: usize = 20_000;

fn replay(name: &'static str) {
    let target = TARGETS.iter().find(|t| t.name == name).unwrap();
    let inputs = corpus::read(name).unwrap();
    assert!(inputs.len() >= 5, "the corpus of {name} has {} inputs", inputs.len());
    let give = |what: &str, input: &[u8]| {
        if let Err(e) = panic::catch_unwind(|| run(target, input)) {
            eprintln!("{name}: {what}: {:?}", String::from_utf8_lossy(input));
            panic::resume_unwind(e);
        }
    };
    for (file, input) in &inputs {
        give(file, input);
        for cut in 0..input.len().min(200) {
            give(&format!("{file} cut at {cut}"), &input[..cut]);
        }
    }
    let seeds: Vec<Vec<u8>> = inputs.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(1);
    let mut input = Vec::new();
    for n in 0..MUTATIONS {
        mutator.input(&seeds, target.tokens, &mut input);
        give(&format!("mutation {n}"), &input);
    }
}

#[test]
fn pgoutput() {
    replay("pgoutput");
}
#[test]
fn copy() {
    replay("copy");
}
#[test]
fn values() {
    replay("values");
}
#[test]
fn checkpoint() {
    replay("checkpoint");
}
#[test]
fn key() {
    replay("key");
}
#[test]
fn config() {
    replay("config");
}
#[test]
fn select() {
    replay("select");
}

#[test]
fn binlog() {
    replay("binlog");
}
/// Else they would all be refused at their first event.
#[test]
fn transactions_of_real_servers_give_changes() {
    let inputs = corpus::read("binlog").unwrap();
    let silent: Vec<&str> = inputs
        .iter()
        .filter(|(_, input)| seachange_fuzz::targets::binlog::changes(input) == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(silent.len() * 2 < inputs.len(), "{} of {}: {silent:?}", silent.len(), inputs.len());
}
#[test]
fn packed() {
    replay("packed");
}
#[test]
fn cells() {
    replay("cells");
}
#[test]
fn documents() {
    replay("documents");
}
#[test]
fn gtids() {
    replay("gtids");
}
#[test]
fn statements() {
    replay("statements");
}

#[test]
fn every_target_is_replayed() {
    assert_eq!(TARGETS.len(), 13, "a target without a test above");
}

#[test]
fn a_decoder_that_asks_for_too_much_memory_is_found() {
    fn greedy(_: &[u8]) {
        std::hint::black_box(vec![0u8; seachange_fuzz::MEMORY_MAX + 1]);
    }
    let target = seachange_fuzz::Target { name: "greedy", run: greedy, tokens: &[] };
    let caught = thread::spawn(move || run(&target, b"")).join();
    assert!(caught.is_err());
}

#[test]
fn mutation_follows_from_the_seed() {
    let inputs = |seed| {
        let (mut m, mut out, seeds) = (Mutator::new(seed), Vec::new(), vec![b"abc".to_vec(), b"defgh".to_vec()]);
        (0..50)
            .map(|_| {
                m.input(&seeds, &[b"x"], &mut out);
                out.clone()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(inputs(3), inputs(3));
    assert_ne!(inputs(3), inputs(4));
}
