//! One flow, or two, over a simulated link of 100 Mbit/s in virtual time, for
//! looking into a case:
//! `cargo run --release -p adit-netstack --example simulate -- [SETTING=VALUE]…`
//!
//! Settings: `rtt` (ms), `loss` (part of the packets), `queue` (packets),
//! `slack` (µs that hosts wake up late at most), `seed`, `seeds` (how many, from
//! `seed` on), `flow` and `beside` (`bbr` or `cubic`; without `beside` there is
//! one flow), `later` (ms until the second flow begins). With `ADIT_TRACE` set,
//! what the senders know is printed every 100 ms.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use adit_netstack::CongestionControl;
use support::flows::{BBR, CUBIC, Way};

/// The value of a setting of the command line.
fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let prefix = format!("{name}=");
    let value = std::env::args().find_map(|arg| Some(arg.strip_prefix(&prefix)?.to_owned()))?;
    match value.parse() {
        Ok(value) => Some(value),
        Err(_) => panic!("{name} cannot be {value}"),
    }
}

fn flow(name: &str) -> Option<CongestionControl> {
    match setting::<String>(name)?.as_str() {
        "bbr" => Some(BBR),
        "cubic" => Some(CUBIC),
        other => panic!("{name} cannot be {other}"),
    }
}

fn main() {
    let way = Way::new(
        setting("rtt").unwrap_or(40),
        setting("loss").unwrap_or(0.0),
        setting("queue").unwrap_or(512),
    )
    .slack(setting("slack").unwrap_or(0));
    let first = flow("flow").unwrap_or(BBR);
    let seed = setting("seed").unwrap_or(1);
    let mut results: Vec<f64> = (seed..seed + setting("seeds").unwrap_or(1))
        .map(|seed| match flow("beside") {
            None => way.seed(seed).goodput(first),
            Some(second) => {
                let later = setting("later").unwrap_or(2000);
                way.seed(seed).share([first, second], later).0
            }
        })
        .collect();
    results.sort_by(f64::total_cmp);
    if let [least, .., most] = results[..] {
        let median = results[results.len() / 2];
        println!("== least {least:.2}, median {median:.2}, most {most:.2}");
    }
}
