//! One case, so many rounds: what `scripts/counts` runs under callgrind.

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, rounds) = match args.as_slice() {
        [] => {
            for name in seachange_micro::CASES {
                println!("{name}");
            }
            return;
        }
        [name, rounds] => (name, rounds.parse::<usize>().ok()),
        _ => (&args[0], None),
    };
    let (Some(mut round), Some(rounds)) = (seachange_micro::case(name), rounds) else {
        eprintln!("seachange-micro CASE ROUNDS; without arguments: the cases");
        std::process::exit(2);
    };
    // Buffers grow to their size before anything is counted.
    round();
    println!("{}", counted(&mut *round, rounds));
}

/// The only function at which `scripts/counts` lets callgrind look, with all that it calls. Gives how many rows it has done.
#[inline(never)]
fn counted(round: &mut dyn FnMut() -> usize, rounds: usize) -> usize {
    let mut done = 0;
    for _ in 0..rounds {
        done += round();
    }
    done
}
