//! The transport layer (RFC 4253): identification, packets, key exchange.
//!
//! ```text
//! Idle ──our KEXINIT──▶ Sent ──theirs──▶ Agreed ──KEX_CLIENT──▶ NewKeys
//!   ▲                                             reply, NEWKEYS   │
//!   └──────────────────────── NEWKEYS ─────────────────────────────┘
//! ```
//!
//! From our KEXINIT to our NEWKEYS nothing else may be sent: channel data is
//! not fetched, other messages wait in a bounded queue.

use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use ring::digest;

use crate::algo::{self, Agreed};
use crate::cipher::{KeyMaterial, LARGEST_TAG, LENGTH, Opener, Sealer};
use crate::config::Config;
use crate::error::{Deadline, Error};
use crate::kex;
use crate::msg;
use crate::random::Stock;
use crate::wire::Write;

/// Longest identification line (RFC 4253 §4.2).
const LONGEST_LINE: usize = 255;
/// Longest packet of a peer that has not authenticated (RFC 4253 §6.1).
const LONGEST_EARLY_PACKET: u32 = 35_000;
/// Longest packet of all: our largest grant and room for any request.
const LONGEST_PACKET: u32 = 256 << 10;
/// Bytes that may wait for the end of a key exchange.
const DEFERRED: usize = 256 << 10;
/// Time for a key exchange after the first.
const KEX_DEADLINE: Duration = Duration::from_secs(60);
/// Packets after which keys are renewed (RFC 4344 §3.1).
const REKEY_PACKETS: u32 = 1 << 31;
/// `server-sig-algs` (RFC 8308 §3.1): for clients that would sign.
const SIGNATURES: &str = "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,\
                          ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256";

enum Kex {
    Idle,
    Sent {
        ours: Vec<u8>,
    },
    Agreed {
        ours: Vec<u8>,
        theirs: Vec<u8>,
        agreed: Agreed,
        skip: bool,
    },
    NewKeys {
        opener: Box<Opener>,
    },
}

/// The transport layer of one connection.
pub(crate) struct Transport {
    random: Stock,
    client_line: Option<Vec<u8>>,
    kex: Kex,
    kex_since: Instant,
    session_id: Option<Vec<u8>>,
    strict: bool,
    wants_ext_info: bool,
    pub(crate) authenticated: bool,
    opener: Opener,
    in_seq: u32,
    /// Length of the packet that is arriving, without length field and tag.
    arriving: Option<usize>,
    sealer: Sealer,
    out_seq: u32,
    pub(crate) out: Vec<u8>,
    deferred: Vec<Vec<u8>>,
    deferred_len: usize,
    /// Bytes both ways and packets either way under the present keys.
    bytes: u64,
    packets: [u32; 2],
    keyed_at: Instant,
}

/// A packet in the input: its payload, and all its bytes.
pub(crate) struct Packet {
    pub(crate) payload: std::ops::Range<usize>,
    pub(crate) len: usize,
    pub(crate) seq: u32,
}

impl Transport {
    /// Starts with our identification and KEXINIT.
    pub(crate) fn new(config: &Config, mut random: Stock, now: Instant) -> Result<Self, Error> {
        let mut ours = vec![msg::KEXINIT];
        algo::write_offer(&mut ours, random.array()?);
        let mut this = Self {
            random,
            client_line: None,
            kex: Kex::Idle,
            kex_since: now,
            session_id: None,
            strict: false,
            wants_ext_info: false,
            authenticated: false,
            opener: Opener::plain(),
            in_seq: 0,
            arriving: None,
            sealer: Sealer::plain(),
            out_seq: 0,
            out: Vec::new(),
            deferred: Vec::new(),
            deferred_len: 0,
            bytes: 0,
            packets: [0; 2],
            keyed_at: now,
        };
        this.out.put(config.identification.as_bytes());
        this.out.put(b"\r\n");
        this.emit(|out| out.put(&ours))?;
        this.kex = Kex::Sent { ours };
        Ok(this)
    }

    /// Whether messages other than those of a key exchange may be sent now.
    pub(crate) fn may_send(&self) -> bool {
        matches!(self.kex, Kex::Idle | Kex::NewKeys { .. }) && self.session_id.is_some()
    }

    /// Sends a message, or queues it until the key exchange is over.
    pub(crate) fn send(&mut self, build: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        if self.may_send() {
            return self.emit(build);
        }
        let mut message = Vec::new();
        build(&mut message);
        self.deferred_len += message.len() + size_of::<Vec<u8>>();
        if self.deferred_len > DEFERRED {
            return Err(Error::TooMany("messages during a key exchange"));
        }
        self.deferred.push(message);
        Ok(())
    }

    /// Sends a message of the transport layer at once.
    pub(crate) fn emit(&mut self, build: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let start = self.out.len();
        self.out.put(&[0; LENGTH + 1]);
        build(&mut self.out);
        let payload = self.out.len() - start - LENGTH - 1;
        let padding = self.sealer.padding(payload);
        let length = u32::try_from(1 + payload + padding);
        let length = length.map_err(|_| Error::Crypto("packet length"))?;
        if let Some(head) = self.out.get_mut(start..start + LENGTH + 1) {
            head[..LENGTH].copy_from_slice(&length.to_be_bytes());
            // At most 4 + 16.
            head[LENGTH] = u8::try_from(padding).unwrap_or(u8::MAX);
        }
        self.random.pad(&mut self.out, padding)?;
        self.sealer.seal(self.out_seq, &mut self.out, start)?;
        self.out_seq = self.out_seq.wrapping_add(1);
        self.bytes += (self.out.len() - start) as u64;
        self.packets[1] = self.packets[1].saturating_add(1);
        Ok(())
    }

    /// Removes the client's identification from the front of `input`.
    /// Returns false until it is complete.
    pub(crate) fn identify(&mut self, input: &mut BytesMut) -> Result<bool, Error> {
        if self.client_line.is_some() {
            return Ok(true);
        }
        let head = &input[..input.len().min(LONGEST_LINE)];
        let Some(end) = head.iter().position(|b| *b == b'\n') else {
            return if input.len() >= LONGEST_LINE {
                Err(Error::Identification)
            } else {
                Ok(false)
            };
        };
        let line = &head[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let speaks_2 = line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-");
        if !speaks_2 || line.contains(&0) {
            return Err(Error::Identification);
        }
        self.client_line = Some(line.to_vec());
        input.advance(end + 1);
        Ok(true)
    }

    /// Opens the packet at the front of `input` in place, once all of it is
    /// there. While a packet is incomplete its bytes must stay where they
    /// are: they may be decrypted already.
    pub(crate) fn open(&mut self, input: &mut [u8]) -> Result<Option<Packet>, Error> {
        let length = match self.arriving {
            Some(length) => length,
            None => {
                let head_len = self.opener.head_len();
                let Some(head) = input.get_mut(..head_len) else {
                    return Ok(None);
                };
                let length = self.opener.length(self.in_seq, head)?;
                let longest = if self.authenticated {
                    LONGEST_PACKET
                } else {
                    LONGEST_EARLY_PACKET
                };
                let len = usize::try_from(length).unwrap_or(usize::MAX);
                if length > longest || !self.opener.accepts(len) {
                    return Err(Error::PacketLength(length));
                }
                self.arriving = Some(len);
                len
            }
        };
        let len = LENGTH + length + self.opener.tag_len();
        let Some(packet) = input.get_mut(..len) else {
            return Ok(None);
        };
        let seq = self.in_seq;
        self.opener.open(seq, packet)?;
        let padding = usize::from(packet[LENGTH]);
        let end = (LENGTH + length).checked_sub(padding);
        let end = end.filter(|end| *end > LENGTH + 1 && padding >= 4);
        let end = end.ok_or(Error::Malformed("padding"))?;
        self.arriving = None;
        self.in_seq = seq.wrapping_add(1);
        self.bytes += len as u64;
        self.packets[0] = self.packets[0].saturating_add(1);
        Ok(Some(Packet {
            payload: LENGTH + 1..end,
            len,
            seq,
        }))
    }

    /// Bytes worth having in one buffer for the packet that is arriving.
    pub(crate) fn wanted(&self) -> usize {
        self.arriving.map_or(0, |len| len + LENGTH + LARGEST_TAG)
    }

    /// Handles a message if it belongs to a key exchange or has no place
    /// while one runs. Returns false for messages of higher layers.
    pub(crate) fn handle(
        &mut self,
        config: &Config,
        now: Instant,
        seq: u32,
        payload: &[u8],
    ) -> Result<bool, Error> {
        let number = payload[0];
        let initial = self.session_id.is_none();
        // Strict key exchange: nothing else before the first keys.
        let strict_phase = initial && self.strict && number != msg::DISCONNECT;
        match number {
            msg::KEXINIT => {
                self.handle_offer(now, seq, payload)?;
            }
            msg::NEWKEYS => match std::mem::replace(&mut self.kex, Kex::Idle) {
                Kex::NewKeys { opener } if payload.len() == 1 => {
                    self.opener = *opener;
                    if self.strict {
                        self.in_seq = 0;
                    }
                    self.keyed_at = now;
                }
                _ => return Err(Error::Unexpected(number)),
            },
            msg::KEX_CLIENT..=msg::KEX_LAST => match &mut self.kex {
                Kex::Agreed { skip, .. } if *skip => *skip = false,
                Kex::Agreed { .. } if number == msg::KEX_CLIENT => {
                    self.exchange(config, payload)?;
                }
                _ => return Err(Error::Unexpected(number)),
            },
            msg::DISCONNECT..=msg::DEBUG if !strict_phase => return Ok(false),
            _ if matches!(self.kex, Kex::Idle) && !initial => return Ok(false),
            // We asked for new keys; the peer has not seen that yet.
            _ if matches!(self.kex, Kex::Sent { .. }) && !initial => return Ok(false),
            _ => return Err(Error::Unexpected(number)),
        }
        Ok(true)
    }

    fn handle_offer(&mut self, now: Instant, seq: u32, payload: &[u8]) -> Result<(), Error> {
        if matches!(self.kex, Kex::Idle) {
            self.start_kex(now)?;
        }
        let Kex::Sent { ours } = std::mem::replace(&mut self.kex, Kex::Idle) else {
            return Err(Error::Unexpected(msg::KEXINIT));
        };
        let agreed = algo::agree(&payload[1..])?;
        if self.session_id.is_none() {
            self.strict = agreed.strict;
            self.wants_ext_info = agreed.wants_ext_info;
            if self.strict && seq != 0 {
                return Err(Error::KeyExchange("KEXINIT was not the first message"));
            }
        }
        self.kex = Kex::Agreed {
            ours,
            theirs: payload.to_vec(),
            agreed,
            skip: agreed.skip_guess,
        };
        Ok(())
    }

    /// Sends our KEXINIT.
    fn start_kex(&mut self, now: Instant) -> Result<(), Error> {
        let mut ours = vec![msg::KEXINIT];
        algo::write_offer(&mut ours, self.random.array()?);
        self.emit(|out| out.put(&ours))?;
        self.kex = Kex::Sent { ours };
        self.kex_since = now;
        Ok(())
    }

    /// Answers the client's key exchange message and switches our keys.
    fn exchange(&mut self, config: &Config, payload: &[u8]) -> Result<(), Error> {
        let Kex::Agreed {
            ours,
            theirs,
            agreed,
            ..
        } = std::mem::replace(&mut self.kex, Kex::Idle)
        else {
            return Err(Error::Unexpected(payload[0]));
        };
        let exchange = kex::run(agreed.kex, &payload[1..], &mut self.random)?;
        let host_key = config.host_key.public_blob();
        let mut hashed = Vec::new();
        hashed.put_string(self.client_line.as_deref().unwrap_or_default());
        hashed.put_string(&config.identification);
        hashed.put_string(&theirs);
        hashed.put_string(&ours);
        hashed.put_string(&host_key);
        hashed.put(&exchange.client);
        hashed.put(&exchange.server);
        hashed.put(&exchange.secret);
        let hash = agreed.kex.hash();
        let exchange_hash = digest::digest(hash, &hashed);
        let exchange_hash = exchange_hash.as_ref();
        let signature = config
            .host_key
            .sign(agreed.host_key, exchange_hash)
            .ok_or(Error::Crypto("signature"))?;
        self.emit(|out| {
            out.put_u8(msg::KEX_REPLY);
            out.put_string(&host_key);
            out.put(&exchange.server);
            out.put_string(&signature);
        })?;
        self.emit(|out| out.put_u8(msg::NEWKEYS))?;
        let first = self.session_id.is_none();
        let session_id = self
            .session_id
            .get_or_insert_with(|| exchange_hash.to_vec())
            .clone();
        let derive = |letter: u8| {
            let (secret, session_id) = (&exchange.secret, &session_id);
            move |len| kex::derive(hash, secret, exchange_hash, letter, session_id, len)
        };
        let [cipher_in, cipher_out] = agreed.ciphers;
        let [mac_in, mac_out] = agreed.macs;
        let opener = Opener::new(
            cipher_in,
            mac_in,
            &KeyMaterial {
                iv: &derive(b'A'),
                key: &derive(b'C'),
                mac: &derive(b'E'),
            },
        )?;
        self.sealer = Sealer::new(
            cipher_out,
            mac_out,
            &KeyMaterial {
                iv: &derive(b'B'),
                key: &derive(b'D'),
                mac: &derive(b'F'),
            },
        )?;
        if self.strict {
            self.out_seq = 0;
        }
        self.kex = Kex::NewKeys {
            opener: Box::new(opener),
        };
        self.bytes = 0;
        self.packets = [0; 2];
        if first && self.wants_ext_info {
            self.emit(|out| {
                out.put_u8(msg::EXT_INFO);
                out.put_u32(1);
                out.put_string("server-sig-algs");
                out.put_string(SIGNATURES);
            })?;
        }
        self.deferred_len = 0;
        for message in std::mem::take(&mut self.deferred) {
            self.emit(|out| out.put(&message))?;
        }
        Ok(())
    }

    /// Asks for new keys if the present ones have served long enough.
    pub(crate) fn maybe_rekey(&mut self, config: &Config, now: Instant) -> Result<(), Error> {
        let due = self.bytes >= config.rekey_bytes
            || self.packets.iter().any(|n| *n >= REKEY_PACKETS)
            || now >= self.keyed_at + config.rekey_interval;
        if due && self.authenticated && matches!(self.kex, Kex::Idle) {
            self.start_kex(now)?;
        }
        Ok(())
    }

    /// When [`Transport::handle_timeout`] wants to be called.
    pub(crate) fn timeout(&self, config: &Config) -> Option<Instant> {
        match self.kex {
            // The login deadline covers the first exchange.
            _ if !self.authenticated => None,
            Kex::Idle => Some(self.keyed_at + config.rekey_interval),
            _ => Some(self.kex_since + KEX_DEADLINE),
        }
    }

    pub(crate) fn handle_timeout(&mut self, config: &Config, now: Instant) -> Result<(), Error> {
        if self.authenticated
            && !matches!(self.kex, Kex::Idle)
            && now >= self.kex_since + KEX_DEADLINE
        {
            return Err(Error::Deadline(Deadline::KeyExchange));
        }
        self.maybe_rekey(config, now)
    }
}
