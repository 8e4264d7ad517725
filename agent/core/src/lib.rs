//! The workspace agent: one control session, the services behind the tunnel,
//! and the scripts of a workspace.
//!
//! ```text
//! run ── claims ──▶ Instance (one owner) ── Session (one connection)
//!                     │  queues: lifecycle, logs, reports ──┘
//!                     ├─ scripts (start, stop, cron)
//!                     └─ Tunnel: node, SSH, terminals, HTTP API, proxies
//! ```
//!
//! Decisions are made by plain structs that take the time as an argument
//! ([`lifecycle`], [`logs`], [`metadata`], [`apphealth`], [`backoff`],
//! [`cron`]); tasks around them do the waiting.

pub mod apphealth;
pub mod backoff;
pub mod config;
mod context;
pub mod cron;
pub mod diagnose;
pub mod duration;
mod files;
pub mod http_api;
pub mod identity;
mod instance;
pub mod ipc;
pub mod lifecycle;
mod local;
pub mod logs;
pub mod manifest;
pub mod metadata;
pub mod metrics;
pub mod ports;
pub mod proxy;
pub mod reinit;
pub mod reports;
pub mod resources;
mod run;
pub mod scripts;
mod session;
pub mod shared;
pub mod speedtest;
mod tunnel;
pub mod units;

pub use config::{AgentConfig, Auth};
pub use run::run;
