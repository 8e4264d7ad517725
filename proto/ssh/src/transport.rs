//! The transport layer (RFC 4253): identification, packets, key exchange.
//!
//! ```text
//! Idle ──our KEXINIT──▶ Sent ──theirs──▶ Agreed (server) ──KEX_CLIENT──▶ NewKeys
//!   ▲                            └─────▶ Asked (client) ──KEX_REPLY──▶ ┘  │
//!   └─────────────────────────────── NEWKEYS ─────────────────────────────┘
//! ```
//!
//! From our KEXINIT to our NEWKEYS nothing else may be sent: channel data is
//! not fetched, other messages wait in a bounded queue.

use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use ring::digest::{self, Digest};

use crate::algo::{self, Agreed, Named as _, Side};
use crate::cipher::{KeyMaterial, LARGEST_TAG, LENGTH, Opener, Sealer};
use crate::config::Config;
use crate::error::{Deadline, Error};
use crate::hostkey::{self, Algorithm};
use crate::kex::{self, Attempt, Exchange};
use crate::msg;
use crate::random::Stock;
use crate::wire::{Reader, Write};

/// Longest identification line (RFC 4253 §4.2).
const LONGEST_LINE: usize = 255;
/// Most lines a server may send before its identification.
const PREFACE: usize = 64;
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
        /// A client's first message, sent before the server has spoken.
        guess: Option<Box<Attempt>>,
    },
    /// A server awaits the client's message.
    Agreed {
        terms: Terms,
        skip: bool,
    },
    /// A client awaits the server's reply.
    Asked {
        terms: Terms,
        attempt: Box<Attempt>,
    },
    NewKeys {
        opener: Box<Opener>,
    },
}

/// What both sides have said before the exchange proper.
struct Terms {
    ours: Vec<u8>,
    theirs: Vec<u8>,
    agreed: Agreed,
}

/// The transport layer of one connection.
pub(crate) struct Transport {
    side: Side,
    random: Stock,
    peer_line: Option<Vec<u8>>,
    /// Other lines a server may still send before its identification.
    preface: usize,
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
    /// Starts with our identification and KEXINIT; a client adds the first
    /// message of the exchange it expects (RFC 4253 §7).
    pub(crate) fn new(config: &Config, random: Stock, now: Instant) -> Result<Self, Error> {
        let mut this = Self {
            side: config.side(),
            random,
            peer_line: None,
            preface: PREFACE,
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
        let guess = match this.side {
            Side::Server => None,
            Side::Client => {
                let (_, kex) = algo::Kex::CLIENT[0];
                Some(Box::new(Attempt::new(kex, &mut this.random)?))
            }
        };
        this.start_kex(now, guess)?;
        Ok(this)
    }

    /// The peer's identification line, once it is known.
    pub(crate) fn peer_line(&self) -> Option<&[u8]> {
        self.peer_line.as_deref()
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

    /// Removes the peer's identification from the front of `input`. Returns
    /// false until it is complete.
    pub(crate) fn identify(&mut self, input: &mut BytesMut) -> Result<bool, Error> {
        while self.peer_line.is_none() {
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
            if speaks_2 && !line.contains(&0) {
                self.peer_line = Some(line.to_vec());
            } else if self.side == Side::Client && !line.starts_with(b"SSH-") && self.preface > 0 {
                // RFC 4253 §4.2: a server may greet first.
                self.preface -= 1;
            } else {
                return Err(Error::Identification);
            }
            input.advance(end + 1);
        }
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
            msg::KEX_CLIENT..=msg::KEX_LAST => match std::mem::replace(&mut self.kex, Kex::Idle) {
                Kex::Agreed { terms, skip: true } => {
                    self.kex = Kex::Agreed { terms, skip: false };
                }
                Kex::Agreed { terms, .. } if number == msg::KEX_CLIENT => {
                    self.answer(config, &terms, &payload[1..])?;
                }
                Kex::Asked { terms, attempt } if number == msg::KEX_REPLY => {
                    self.conclude(config, &terms, *attempt, &payload[1..])?;
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
            self.start_kex(now, None)?;
        }
        let Kex::Sent { ours, guess } = std::mem::replace(&mut self.kex, Kex::Idle) else {
            return Err(Error::Unexpected(msg::KEXINIT));
        };
        let agreed = algo::agree(self.side, &payload[1..])?;
        if self.session_id.is_none() {
            self.strict = agreed.strict;
            self.wants_ext_info = agreed.wants_ext_info;
            if self.strict && seq != 0 {
                return Err(Error::KeyExchange("KEXINIT was not the first message"));
            }
        }
        let terms = Terms {
            ours,
            theirs: payload.to_vec(),
            agreed,
        };
        self.kex = match self.side {
            Side::Server => Kex::Agreed {
                terms,
                skip: agreed.peer_guessed && !agreed.guess_right,
            },
            Side::Client => {
                let attempt = match guess.filter(|_| agreed.guess_right) {
                    Some(attempt) => attempt,
                    None => self.ask(agreed.kex)?,
                };
                Kex::Asked { terms, attempt }
            }
        };
        Ok(())
    }

    /// Sends our KEXINIT, and the first message of an exchange that is only
    /// guessed.
    fn start_kex(&mut self, now: Instant, guess: Option<Box<Attempt>>) -> Result<(), Error> {
        let mut ours = vec![msg::KEXINIT];
        algo::write_offer(self.side, &mut ours, self.random.array()?, guess.is_some());
        self.emit(|out| out.put(&ours))?;
        if let Some(attempt) = &guess {
            self.emit_attempt(attempt)?;
        }
        self.kex = Kex::Sent { ours, guess };
        self.kex_since = now;
        Ok(())
    }

    /// Sends a client's first message.
    fn ask(&mut self, kex: algo::Kex) -> Result<Box<Attempt>, Error> {
        let attempt = Box::new(Attempt::new(kex, &mut self.random)?);
        self.emit_attempt(&attempt)?;
        Ok(attempt)
    }

    fn emit_attempt(&mut self, attempt: &Attempt) -> Result<(), Error> {
        self.emit(|out| {
            out.put_u8(msg::KEX_CLIENT);
            out.put(attempt.message());
        })
    }

    /// The hash that both sides agree on (RFC 4253 §8).
    fn exchange_hash(
        &self,
        config: &Config,
        terms: &Terms,
        host_key: &[u8],
        exchange: &Exchange,
    ) -> Digest {
        let ours = (config.identification.as_bytes(), &terms.ours);
        let theirs = (self.peer_line.as_deref().unwrap_or_default(), &terms.theirs);
        let (client, server) = match self.side {
            Side::Client => (ours, theirs),
            Side::Server => (theirs, ours),
        };
        let mut hashed = Vec::new();
        hashed.put_string(client.0);
        hashed.put_string(server.0);
        hashed.put_string(client.1);
        hashed.put_string(server.1);
        hashed.put_string(host_key);
        hashed.put(&exchange.client);
        hashed.put(&exchange.server);
        hashed.put(&exchange.secret);
        digest::digest(terms.agreed.kex.hash(), &hashed)
    }

    /// A server answers the client's key exchange message.
    fn answer(&mut self, config: &Config, terms: &Terms, message: &[u8]) -> Result<(), Error> {
        let exchange = kex::run(terms.agreed.kex, message, &mut self.random)?;
        let (Some(key), Algorithm::Rsa(scheme)) = (config.host_key(), terms.agreed.host_key) else {
            return Err(Error::NoCommonAlgorithm("host key algorithm"));
        };
        let host_key = key.public_blob();
        let hash = self.exchange_hash(config, terms, &host_key, &exchange);
        let signature = key
            .sign(scheme, hash.as_ref())
            .ok_or(Error::Crypto("signature"))?;
        self.emit(|out| {
            out.put_u8(msg::KEX_REPLY);
            out.put_string(&host_key);
            out.put(&exchange.server);
            out.put_string(&signature);
        })?;
        self.switch(terms, &exchange.secret, hash.as_ref())
    }

    /// A client takes the server's reply.
    fn conclude(
        &mut self,
        config: &Config,
        terms: &Terms,
        attempt: Attempt,
        message: &[u8],
    ) -> Result<(), Error> {
        let mut reader = Reader::new(message, "key exchange reply");
        let host_key = reader.string()?;
        let value = reader.string()?;
        let signature = reader.string()?;
        let exchange = attempt.finish(value)?;
        let hash = self.exchange_hash(config, terms, host_key, &exchange);
        hostkey::verify(terms.agreed.host_key, host_key, hash.as_ref(), signature)?;
        self.switch(terms, &exchange.secret, hash.as_ref())
    }

    /// Sends NEWKEYS, and from then on under the new keys.
    fn switch(&mut self, terms: &Terms, secret: &[u8], exchange_hash: &[u8]) -> Result<(), Error> {
        self.emit(|out| out.put_u8(msg::NEWKEYS))?;
        self.renew(terms, secret, exchange_hash)
    }

    /// Takes the new keys: for what is sent at once, for what comes after the
    /// peer's NEWKEYS.
    fn renew(&mut self, terms: &Terms, secret: &[u8], exchange_hash: &[u8]) -> Result<(), Error> {
        let first = self.session_id.is_none();
        let session_id = self
            .session_id
            .get_or_insert_with(|| exchange_hash.to_vec())
            .clone();
        let hash = terms.agreed.kex.hash();
        let derive = |letter: u8| {
            let session_id = &session_id;
            move |len| kex::derive(hash, secret, exchange_hash, letter, session_id, len)
        };
        let [cipher_in, cipher_out] = self.inward_first(terms.agreed.ciphers);
        let [mac_in, mac_out] = self.inward_first(terms.agreed.macs);
        let [letters_in, letters_out] = self.inward_first([b"ACE", b"BDF"]);
        let opener = Opener::new(
            cipher_in,
            mac_in,
            &KeyMaterial {
                iv: &derive(letters_in[0]),
                key: &derive(letters_in[1]),
                mac: &derive(letters_in[2]),
            },
        )?;
        self.sealer = Sealer::new(
            cipher_out,
            mac_out,
            &KeyMaterial {
                iv: &derive(letters_out[0]),
                key: &derive(letters_out[1]),
                mac: &derive(letters_out[2]),
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

    /// Ends the first key exchange with keys that everybody knows, as if
    /// nothing but encrypted packets had to be sent any more.
    #[cfg(feature = "testing")]
    pub(crate) fn assume_keys(&mut self, line: &[u8], offer: Vec<u8>) -> Result<(), Error> {
        let Kex::Sent { ours, .. } = std::mem::replace(&mut self.kex, Kex::Idle) else {
            return Err(Error::Unexpected(msg::KEXINIT));
        };
        let agreed = algo::agree(self.side, offer.get(1..).unwrap_or_default())?;
        self.peer_line = Some(line.to_vec());
        self.strict = agreed.strict;
        self.wants_ext_info = agreed.wants_ext_info;
        self.out.clear();
        (self.in_seq, self.out_seq) = (0, 0);
        let terms = Terms {
            ours,
            theirs: offer,
            agreed,
        };
        self.renew(&terms, &[0; 4], &[0; 32])?;
        if let Kex::NewKeys { opener } = std::mem::replace(&mut self.kex, Kex::Idle) {
            self.opener = *opener;
        }
        Ok(())
    }

    /// Our KEXINIT while the first key exchange runs.
    #[cfg(feature = "testing")]
    pub(crate) fn offer(&self) -> Option<&[u8]> {
        match &self.kex {
            Kex::Sent { ours, .. } => Some(ours),
            _ => None,
        }
    }

    /// Bytes that wait here.
    #[cfg(feature = "testing")]
    pub(crate) fn memory_used(&self) -> usize {
        self.out.len() + self.deferred_len
    }

    /// From the order client to server, server to client.
    fn inward_first<T>(&self, [upward, downward]: [T; 2]) -> [T; 2] {
        match self.side {
            Side::Server => [upward, downward],
            Side::Client => [downward, upward],
        }
    }

    /// Asks for new keys if the present ones have served long enough.
    pub(crate) fn maybe_rekey(&mut self, config: &Config, now: Instant) -> Result<(), Error> {
        let due = self.bytes >= config.rekey_bytes
            || self.packets.iter().any(|n| *n >= REKEY_PACKETS)
            || now >= self.keyed_at + config.rekey_interval;
        if due && self.authenticated && matches!(self.kex, Kex::Idle) {
            self.start_kex(now, None)?;
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
