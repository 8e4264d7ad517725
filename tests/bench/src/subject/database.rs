//! A database of its own for a real server, reachable from its namespace.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs as _},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use url::Url;

use crate::net::Net;

fn name(pid: u32) -> String {
    format!("adit_bench_{pid}")
}

/// An empty database, dropped with this.
#[derive(Debug)]
pub(super) struct Database {
    admin: Url,
    name: String,
}

impl Database {
    /// Makes one on the PostgreSQL server that `admin` names.
    pub(super) fn create(admin: &str) -> Result<Self> {
        let admin = Url::parse(admin).context("the address of the database")?;
        let this = Self {
            admin,
            name: name(std::process::id()),
        };
        this.query(&format!(
            "drop database if exists {} with (force)",
            this.name
        ))?;
        this.query(&format!("create database {}", this.name))?;
        Ok(this)
    }

    /// Drops the one that the process `of` may have left behind.
    pub(super) fn drop_of(admin: &str, of: u32) {
        if let Ok(admin) = Url::parse(admin) {
            let name = name(of);
            drop(Self { admin, name });
        }
    }

    fn query(&self, text: &str) -> Result<()> {
        let output = Command::new("psql")
            .args(["-v", "ON_ERROR_STOP=1", "-qc", text, self.admin.as_str()])
            .stdin(Stdio::null())
            .output()
            .context("start psql")?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Its address, with the host and port replaced.
    fn url(&self, port: u16) -> Result<Url> {
        let mut url = self.admin.clone();
        url.set_path(&self.name);
        url.set_host(Some("127.0.0.1"))?;
        if url.set_port(Some(port)).is_err() {
            bail!("an address of a database without a host");
        }
        Ok(url)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.query(&format!(
            "drop database if exists {} with (force)",
            self.name
        ));
    }
}

/// The variable with the address of the PostgreSQL server.
pub(super) const ADDRESS: &str = "ADIT_CODER_PG_URL";

/// Carries connections from loopback in the far namespace to the database.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) url: Url,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    pub(super) fn open(net: &Net, database: &Database) -> Result<Self> {
        let host = database.admin.host_str().unwrap_or("127.0.0.1").to_owned();
        let port = database.admin.port().unwrap_or(5432);
        let listener = net
            .far
            .enter(|| TcpListener::bind("127.0.0.1:0"))?
            .context("listen for the database's clients")?;
        listener.set_nonblocking(true)?;
        let url = database.url(listener.local_addr()?.port())?;
        let stop = Arc::new(AtomicBool::new(false));
        // This thread, and so each connection it makes, is outside.
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((client, _)) => {
                            if let Err(error) = join(client, &host, port) {
                                eprintln!("connection to the database: {error}");
                            }
                        }
                        Err(_) => thread::sleep(Duration::from_millis(20)),
                    }
                }
            }
        });
        Ok(Self {
            url,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Each direction has a thread that ends with its connection.
fn join(client: TcpStream, host: &str, port: u16) -> io::Result<()> {
    let address = (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let server = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || copy(from, to));
    }
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_leads_through_the_bridge_and_keeps_the_rest() {
        let database = std::mem::ManuallyDrop::new(Database {
            admin: Url::parse("postgres://me:secret@db:5433/postgres?sslmode=disable").unwrap(),
            name: "one".into(),
        });
        assert_eq!(
            database.url(1234).unwrap().as_str(),
            "postgres://me:secret@127.0.0.1:1234/one?sslmode=disable"
        );
    }
}
