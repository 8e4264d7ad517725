//! Nodes, a relay and a coordinator in a virtual world: generated misfortunes
//! against a model of what must hold. One seed is one scenario.
//!
//! `ADIT_SIM_SEED=n` runs one seed, `ADIT_SIM_SECONDS=n` goes on with fresh
//! seeds for so long.
#![allow(clippy::unwrap_used, reason = "test")]

mod nat;
mod node;
mod ops;
mod streams;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ops::Scenario;

/// Scenarios of an ordinary run.
const SEEDS: u64 = 2400;

/// Runs one seed; `Err` holds what went wrong.
fn run(seed: u64) -> Result<Scenario, String> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut scenario = Scenario::new(seed);
        scenario.play();
        scenario
    }))
    .map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default()
    })
}

/// Runs seeds on all cores while `more` says so, and reports every failure.
fn run_all(more: impl Fn(u64) -> bool + Sync) -> u64 {
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let worst = Mutex::new([(Duration::ZERO, 0); 3]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !more(seed) {
                        return;
                    }
                    match run(seed) {
                        Ok(scenario) => {
                            let mut worst = worst.lock().unwrap();
                            for (worst, span) in worst.iter_mut().zip(scenario.spans()) {
                                *worst = (*worst).max((span, seed));
                            }
                        }
                        Err(error) => failures.lock().unwrap().push((seed, error)),
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    let count = next.into_inner();
    println!("{count} scenarios");
    println!(
        "longest way to a path, a direct path, the end of streams (by seed): {:?}",
        worst.into_inner().unwrap()
    );
    assert!(
        failures.is_empty(),
        "{} of {count} scenarios fail; ADIT_SIM_SEED=<seed> repeats one:\n{}",
        failures.len(),
        failures
            .iter()
            .take(40)
            .map(|(seed, error)| format!("seed {seed}: {error}"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    count
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nodes_survive_what_networks_do() {
    if let Some(seed) = number("ADIT_SIM_SEED") {
        let mut scenario = Scenario::new(seed);
        scenario.verbose = true;
        scenario.play();
        return;
    }
    match number("ADIT_SIM_SECONDS") {
        Some(seconds) => {
            let start = Instant::now();
            let end = start + Duration::from_secs(seconds);
            let count = run_all(|_| Instant::now() < end);
            println!("{count} scenarios in {:?}", start.elapsed());
        }
        None => {
            run_all(|seed| seed < SEEDS);
        }
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..20 {
        let [a, b] = [seed, seed].map(|seed| run(seed).map(|s| s.world.digest));
        assert_eq!(a, b, "seed {seed} goes two ways");
    }
}
