//! Scripts in the manner of packetdrill: one step a line.
//!
//! ```text
//! < S 0 win 1000 mss 1220 ws 2 sackok     the peer sends
//! accept                                  a call of the application
//! > S. 0 ack 1                            the stack has sent
//! +50 < . 1 ack 1                         50 ms later
//! write 3000
//! > . 1:1209 ack 1                        offsets from the initial numbers
//! +200 > . 1:1209                         sent after 200 ms, give or take one
//! quiet 100                               and nothing for the next 100 ms
//! ```
//!
//! Calls: `connect`, `accept`, `write N`, `read N` (exactly N bytes are there),
//! `eof` (the stream has ended), `shutdown`, `close`, `abort`. Checks:
//! `state NAME`, `closed REASON`, `cwnd N` (segments), `spurious N`.
//! Of the peer's segments: `win N`, `sack A-B,C-D`, `ts VALUE,ECHO` (without, the
//! clock and the last value seen; `nots` without the option), `mss N`, `ws N`,
//! `sackok`. `stamp` remembers the last timestamp of the stack, which
//! `echo` in a segment of the peer's then uses. Behind `#` stands a remark.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use adit_netstack::{Event, StackConfig, TcpError};

use super::wire::{Script, Seg, peer};

/// Bytes of payload in a full segment of a connection with timestamps.
const MSS: usize = 1208;

const KNOWN: [&str; 15] = [
    "S", "S.", "SEW", "F.", "FP.", ".", "P.", "U.", "UP.", "R", "R.", "F", "SF", "S.E", "",
];

/// The state of a script between lines.
pub(crate) struct Lines {
    pub(crate) script: Script,
    stamp: u32,
    closed: Option<String>,
    line: usize,
    text: String,
}

/// Runs a script against a stack without pacing that uses CUBIC.
#[track_caller]
pub(crate) fn run(text: &str) -> Lines {
    run_with(
        |config| {
            config.tcp.pacing = false;
            config.tcp.congestion = adit_netstack::CongestionControl::Cubic;
        },
        text,
    )
}

/// Runs a script against a stack with other settings.
#[track_caller]
pub(crate) fn run_with(adjust: impl FnOnce(&mut StackConfig), text: &str) -> Lines {
    let mut lines = Lines {
        script: Script::with(adjust),
        stamp: 0,
        closed: None,
        line: 0,
        text: String::new(),
    };
    lines.go_on(text);
    lines
}

fn number(text: &str) -> u32 {
    match text.parse::<i64>() {
        Ok(n) => n as u32,
        Err(_) => panic!("not a number: {text}"),
    }
}

impl Lines {
    #[track_caller]
    pub(crate) fn go_on(&mut self, text: &str) {
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            (self.line, self.text) = (at, line.to_owned());
            self.step(line);
        }
    }

    fn complain(&self, why: &str) -> ! {
        panic!("line {} `{}`: {why}", self.line, self.text)
    }

    fn step(&mut self, line: &str) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let mut after = None;
        if let Some(wait) = words[0].strip_prefix('+') {
            after = Some(Duration::from_millis(number(wait).into()));
            words.remove(0);
        }
        if words.is_empty() || words[0] != ">" {
            self.script.now += after.unwrap_or_default();
        }
        match words[..] {
            [] => {
                let now = self.script.instant();
                self.script.stack.handle_timeout(now);
            }
            ["<", ref rest @ ..] => self.receive(rest),
            [">", ref rest @ ..] => self.expect(after.unwrap_or_default(), rest),
            ["quiet", ms] => {
                let time = Duration::from_millis(number(ms).into());
                if let Some((at, _, body)) = self.script.next_packet(time) {
                    let seg = Seg::decode(&body);
                    self.complain(&format!("sent after {at:?}: {}", self.show(&seg)));
                }
            }
            ["stamp"] => self.stamp = self.script.last_value,
            [what, ref rest @ ..] => self.call(what, rest.first().copied().unwrap_or_default()),
        }
        for event in self.script.events() {
            match event {
                Event::Incoming { id, .. } => self.script.id = Some(id),
                Event::Closed { reason, .. } => self.closed = Some(format!("{reason:?}")),
                _ => {}
            }
        }
    }

    fn call(&mut self, what: &str, argument: &str) {
        let now = self.script.instant();
        let s = &mut self.script;
        if what == "connect" {
            let (own, remote) = (s.own_port, peer(s.peer_port));
            s.id = Some(s.stack.connect(now, own, remote).unwrap());
            return;
        }
        let id = s.id();
        let done = match what {
            "accept" => s.stack.accept(now, id) == Ok(()),
            "write" => {
                let data = vec![7; number(argument) as usize];
                s.stack.write(now, id, &data) == Ok(data.len())
            }
            "read" => {
                let mut buf = vec![0; 1 << 20];
                let len = number(argument) as usize;
                s.stack.read(now, id, &mut buf) == Ok(len)
                    && s.stack.read(now, id, &mut buf) != Ok(len)
            }
            "eof" => s.stack.read(now, id, &mut [0]) == Ok(0),
            "nothing" => s.stack.read(now, id, &mut [0]) == Err(TcpError::WouldBlock),
            "shutdown" => s.stack.shutdown_write(now, id) == Ok(()),
            "close" => {
                s.stack.close(now, id);
                true
            }
            "abort" => {
                s.stack.abort(now, id);
                true
            }
            "state" => format!("{:?}", s.stack.state(id)) == argument,
            "closed" => self.closed.as_deref() == Some(argument),
            "cwnd" => {
                let cwnd = s.stack.tcp_stats(id).unwrap().cwnd;
                cwnd / MSS == number(argument) as usize
            }
            "spurious" => s.stack.tcp_stats(id).unwrap().spurious == u64::from(number(argument)),
            _ => self.complain("what is that?"),
        };
        if !done {
            let stats = self.script.stack.tcp_stats(id);
            let state = self.script.stack.state(id);
            self.complain(&format!("no; {state:?} {:?} {stats:?}", self.closed));
        }
    }

    fn receive(&mut self, words: &[&str]) {
        let Some(flags) = KNOWN.into_iter().find(|known| *known == words[0]) else {
            self.complain("unknown flags");
        };
        let (from, to) = range(words[1]);
        let mut seg = Seg {
            data: vec![b'x'; to.wrapping_sub(from) as usize],
            ..self.script.seg(flags, from, 0)
        };
        let mut rest = words[2..].iter();
        while let Some(&word) = rest.next() {
            let mut value = || number(rest.next().unwrap());
            match word {
                "ack" => seg.ack = self.script.iss.wrapping_add(value()),
                "win" => seg.win = value() as u16,
                "mss" => seg.mss = Some(value() as u16),
                "ws" => seg.scale = Some(value() as u8),
                "sackok" => seg.sack_ok = true,
                "nots" => seg.ts = None,
                "echo" => seg.ts = Some((self.script.peer_ts(), self.stamp)),
                "ts" => {
                    let (v, e) = rest.next().unwrap().split_once(',').unwrap();
                    seg.ts = Some((number(v), number(e)));
                }
                "sack" => {
                    let iss = self.script.iss;
                    seg.sacks = rest
                        .next()
                        .unwrap()
                        .split(',')
                        .map(|block| {
                            let (l, r) = block.split_once('-').unwrap();
                            (iss.wrapping_add(number(l)), iss.wrapping_add(number(r)))
                        })
                        .collect();
                }
                _ => self.complain("unknown word"),
            }
        }
        self.script.inject(&seg);
    }

    fn expect(&mut self, after: Duration, words: &[&str]) {
        let slack = Duration::from_millis(if after.is_zero() { 0 } else { 1 });
        let Some((at, next, body)) = self.script.next_packet(after + slack) else {
            self.complain("nothing is sent");
        };
        assert_eq!(next, 6);
        let seg = Seg::decode(&body);
        if let Some((value, _)) = seg.ts {
            self.script.last_value = value;
        }
        if seg.flags.starts_with('S') {
            self.script.iss = seg.seq;
        }
        let (from, to) = range(words[1]);
        let (seq, ack) = self.script.relative(&seg);
        let flags = words[0].replace('P', "");
        let mut fits = at + slack >= after
            && seg.flags == flags
            && seq == from
            && seg.data.len() == to.wrapping_sub(from) as usize;
        let mut rest = words[2..].iter();
        while let Some(&word) = rest.next() {
            let wanted = rest.next().unwrap();
            fits &= match word {
                "ack" => ack == number(wanted),
                "win" => u32::from(seg.win) == number(wanted),
                "mss" => seg.mss.map(u32::from) == Some(number(wanted)),
                "ws" => seg.scale.map_or("none".to_owned(), |s| s.to_string()) == *wanted,
                "sack" => {
                    let blocks = self.script.sacks(&seg);
                    let blocks: Vec<String> =
                        blocks.iter().map(|(l, r)| format!("{l}-{r}")).collect();
                    blocks.join(",") == *wanted
                }
                "echo" => seg.ts.map(|(_, echo)| echo) == Some(number(wanted)),
                _ => self.complain("unknown word"),
            };
        }
        if !fits {
            self.complain(&format!("sent after {at:?}: {}", self.show(&seg)));
        }
    }

    fn show(&self, seg: &Seg) -> String {
        let (seq, ack) = self.script.relative(seg);
        format!(
            "{} {seq}:{} ack {ack} win {} sack {:?} {:?}",
            seg.flags,
            seq.wrapping_add(seg.data.len() as u32),
            seg.win,
            self.script.sacks(seg),
            seg.ts
        )
    }
}

/// `5:9`, or `5` for an empty segment.
fn range(text: &str) -> (u32, u32) {
    match text.split_once(':') {
        Some((from, to)) => (number(from), number(to)),
        None => (number(text), number(text)),
    }
}
