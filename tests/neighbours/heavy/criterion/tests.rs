//! Benches of criterion, each round of which is in a sandbox of its own. As a test, each bench has one round.

use belljar::{Spec, run, spec};
use criterion::{Criterion, criterion_group, criterion_main};

static SPEC: Spec = spec!(net, timeout = "60s");

fn claim(input: &[u8]) -> std::io::Result<Vec<u8>> {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    // Whoever shares the sandbox has this port already.
    std::net::TcpListener::bind("0.0.0.0:80")?;
    Ok(input.to_vec())
}

fn benches(criterion: &mut Criterion) {
    for name in ["one", "two"] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| run(&SPEC, name.as_bytes(), claim).expect("it passes"));
        });
    }
}

criterion_group!(all, benches);
criterion_main!(all);
