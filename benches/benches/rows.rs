//! Time of a round of every case: `cargo bench -p seachange-micro`. Seconds depend on the machine and on what else it does;
//! what is held against earlier versions is the number of instructions (`scripts/counts`).

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    for name in seachange_micro::CASES {
        let mut round = seachange_micro::case(name).expect("a case");
        group.throughput(Throughput::Elements(round() as u64));
        group.bench_function(name, |b| b.iter(&mut round));
    }
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
