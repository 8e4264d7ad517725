//! The core against a small client made of its own parts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use ring::digest;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Event, Session};
use crate::algo::{CipherName, MacName, Named};
use crate::cipher::{KeyMaterial, LENGTH, Opener, Sealer};
use crate::error::{Deadline, Error};
use crate::random::Random;
use crate::request::{ChannelId, GlobalAnswer, Open, Refusal, Request, RequestOut};
use crate::wire::{Reader, Write};
use crate::{Config, Stream, kex, msg, rsa};

/// Reproducible, for tests only.
pub(super) struct Counting(pub(super) u64);

impl Random for Counting {
    fn fill(&mut self, out: &mut [u8]) -> bool {
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            *byte = (self.0 >> 56) as u8;
        }
        true
    }
}

fn config() -> Config {
    let mut config = Config::new("SSH-2.0-test", rsa::tests::key());
    config.window = 256 << 10;
    config
}

fn session(config: Config) -> (Session, Instant) {
    let now = Instant::now();
    let session = Session::new(Arc::new(config), Box::new(Counting(1)), now).unwrap();
    (session, now)
}

/// The client: seals what it says, opens what it hears.
struct Client {
    sealer: Sealer,
    opener: Opener,
    out_seq: u32,
    in_seq: u32,
    secret: StaticSecret,
    heard: Vec<u8>,
    hashed: Vec<u8>,
    strict: bool,
}

const LINE: &str = "SSH-2.0-client";

fn offer(cipher: &str, mac: &str, strict: bool) -> Vec<u8> {
    let mut offer = vec![msg::KEXINIT];
    offer.put(&[7; 16]);
    let kex = "curve25519-sha256,ext-info-c";
    let strict = if strict {
        ",kex-strict-c-v00@openssh.com"
    } else {
        ""
    };
    offer.put_string(format!("{kex}{strict}"));
    offer.put_string("rsa-sha2-512");
    for list in [cipher, cipher, mac, mac, "none", "none", "", ""] {
        offer.put_string(list);
    }
    offer.put_bool(false);
    offer.put_u32(0);
    offer
}

impl Client {
    fn new(strict: bool) -> Self {
        Self {
            sealer: Sealer::plain(),
            opener: Opener::plain(),
            out_seq: 0,
            in_seq: 0,
            secret: StaticSecret::from([9; 32]),
            heard: Vec::new(),
            hashed: Vec::new(),
            strict,
        }
    }

    fn say(&mut self, message: &[u8]) -> Vec<u8> {
        let padding = self.sealer.padding(message.len());
        let mut out = Vec::new();
        out.put_u32(u32::try_from(1 + message.len() + padding).unwrap());
        out.put_u8(u8::try_from(padding).unwrap());
        out.put(message);
        out.resize(out.len() + padding, 0);
        self.sealer.seal(self.out_seq, &mut out, 0).unwrap();
        self.out_seq += 1;
        out
    }

    /// The next message, if it is there.
    fn hear(&mut self) -> Option<Vec<u8>> {
        let head_len = self.opener.head_len();
        let head = self.heard.get_mut(..head_len)?;
        let length = self.opener.length(self.in_seq, head).unwrap();
        let length = usize::try_from(length).unwrap();
        assert!(self.opener.accepts(length));
        let len = LENGTH + length + self.opener.tag_len();
        let mut packet: Vec<u8> = self.heard.drain(..len).collect();
        self.opener.open(self.in_seq, &mut packet).unwrap();
        self.in_seq += 1;
        let padding = usize::from(packet[LENGTH]);
        Some(packet[LENGTH + 1..LENGTH + length - padding].to_vec())
    }

    fn hear_all(&mut self, session: &mut Session, now: Instant) -> Vec<Vec<u8>> {
        self.heard.append(session.output(now).unwrap());
        std::iter::from_fn(|| self.hear()).collect()
    }

    /// Identification, key exchange and login.
    fn log_in(&mut self, session: &mut Session, now: Instant, cipher: CipherName, mac: MacName) {
        let cipher_name = CipherName::ALL
            .iter()
            .find(|(_, c)| *c == cipher)
            .unwrap()
            .0;
        let mac_name = MacName::ALL.iter().find(|(_, m)| *m == mac).unwrap().0;
        self.heard.append(session.output(now).unwrap());
        let line: Vec<u8> = self.heard.drain(..14).collect();
        assert_eq!(line, b"SSH-2.0-test\r\n");
        let theirs = self.hear().unwrap();
        let ours = offer(cipher_name, mac_name, self.strict);
        let mut bytes = format!("{LINE}\r\n").into_bytes();
        bytes.extend(self.say(&ours));
        let mut init = vec![msg::KEX_CLIENT];
        let public = PublicKey::from(&self.secret);
        init.put_string(public.as_bytes());
        bytes.extend(self.say(&init));
        give(session, now, &bytes).unwrap();
        self.hashed.put_string(LINE);
        self.hashed.put_string("SSH-2.0-test");
        self.hashed.put_string(&ours);
        self.hashed.put_string(&theirs);
        self.heard.append(session.output(now).unwrap());
        self.finish_kex(cipher, mac);
        let new_keys = self.say_new_keys(cipher, mac);
        give(session, now, &new_keys).unwrap();
        let mut request = vec![msg::SERVICE_REQUEST];
        request.put_string("ssh-userauth");
        let mut bytes = self.say(&request);
        let mut request = vec![msg::USERAUTH_REQUEST];
        request.put_string("");
        request.put_string("ssh-connection");
        request.put_string("none");
        bytes.extend(self.say(&request));
        give(session, now, &bytes).unwrap();
        let numbers: Vec<u8> = self.hear_all(session, now).iter().map(|m| m[0]).collect();
        assert_eq!(
            numbers,
            [msg::EXT_INFO, msg::SERVICE_ACCEPT, msg::USERAUTH_SUCCESS]
        );
        let event = session.poll_event();
        assert_eq!(event, Some(Event::Authenticated { user: Vec::new() }));
    }

    /// Checks the server's reply and takes the new keys for hearing.
    fn finish_kex(&mut self, cipher: CipherName, mac: MacName) {
        let reply = self.hear().unwrap();
        let mut reader = Reader::new(&reply[1..], "reply");
        let host_key = reader.string().unwrap();
        assert_eq!(host_key, rsa::tests::key().public_blob());
        let server = reader.string().unwrap();
        let signature = reader.string().unwrap();
        let public: [u8; 32] = server.try_into().unwrap();
        let shared = self.secret.diffie_hellman(&PublicKey::from(public));
        self.hashed.put_string(host_key);
        self.hashed
            .put_string(PublicKey::from(&self.secret).as_bytes());
        self.hashed.put_string(server);
        let mut secret = Vec::new();
        secret.put_mpint(shared.as_bytes());
        self.hashed.put(&secret);
        let hash = digest::digest(&digest::SHA256, &self.hashed);
        let expected = rsa::tests::key().sign(rsa::Scheme::Sha512, hash.as_ref());
        assert_eq!(signature, expected.unwrap());
        assert_eq!(self.hear().unwrap(), [msg::NEWKEYS]);
        self.hashed = [hash.as_ref(), &secret].concat();
        let keys = self.keys(b"BDF");
        let derive = |i: usize| move |len: usize| keys[i][..len].to_vec();
        let material = KeyMaterial {
            iv: &derive(0),
            key: &derive(1),
            mac: &derive(2),
        };
        self.opener = Opener::new(cipher, mac, &material).unwrap();
        if self.strict {
            self.in_seq = 0;
        }
    }

    fn keys(&self, letters: &[u8; 3]) -> &'static [Vec<u8>; 3] {
        let (hash, secret) = self.hashed.split_at(32);
        let keys = letters.map(|l| kex::derive(&digest::SHA256, secret, hash, l, hash, 64));
        Box::leak(Box::new(keys))
    }

    fn say_new_keys(&mut self, cipher: CipherName, mac: MacName) -> Vec<u8> {
        let bytes = self.say(&[msg::NEWKEYS]);
        let keys = self.keys(b"ACE");
        let derive = |i: usize| move |len: usize| keys[i][..len].to_vec();
        let material = KeyMaterial {
            iv: &derive(0),
            key: &derive(1),
            mac: &derive(2),
        };
        self.sealer = Sealer::new(cipher, mac, &material).unwrap();
        if self.strict {
            self.out_seq = 0;
        }
        bytes
    }
}

fn give(session: &mut Session, now: Instant, bytes: &[u8]) -> Result<(), Error> {
    let mut input = BytesMut::from(bytes);
    session.handle_input(now, &mut input)?;
    assert!(input.is_empty());
    Ok(())
}

fn logged_in(config: Config) -> (Session, Client, Instant) {
    let (mut session, now) = session(config);
    let mut client = Client::new(true);
    let (cipher, mac) = (CipherName::Aes128Ctr, MacName::ALL[2].1);
    client.log_in(&mut session, now, cipher, mac);
    (session, client, now)
}

fn open_message(peer: u32, window: u32) -> Vec<u8> {
    let mut open = vec![msg::CHANNEL_OPEN];
    open.put_string("session");
    open.put_u32(peer);
    open.put_u32(window);
    open.put_u32(32 << 10);
    open
}

fn data_message(id: u32, data: &[u8]) -> Vec<u8> {
    let mut message = vec![msg::CHANNEL_DATA];
    message.put_u32(id);
    message.put_string(data);
    message
}

fn open(session: &mut Session, client: &mut Client, now: Instant, peer: u32) -> ChannelId {
    let bytes = client.say(&open_message(peer, 1 << 30));
    give(session, now, &bytes).unwrap();
    let Some(Event::Open { id, open }) = session.poll_event() else {
        panic!("no channel");
    };
    assert_eq!(open, Open::Session);
    session.accept(id).unwrap();
    let heard = client.hear_all(session, now);
    assert_eq!(heard[0][0], msg::CHANNEL_OPEN_CONFIRMATION);
    id
}

#[test]
fn every_cipher_and_mac_logs_in() {
    for (_, cipher) in CipherName::ALL {
        for (_, mac) in MacName::ALL {
            for strict in [false, true] {
                let (mut session, now) = session(config());
                let mut client = Client::new(strict);
                let mac = if cipher.is_aead() {
                    MacName::ALL[0].1
                } else {
                    *mac
                };
                client.log_in(&mut session, now, *cipher, mac);
                let id = open(&mut session, &mut client, now, 3);
                let bytes = client.say(&data_message(id.0, b"hello"));
                give(&mut session, now, &bytes).unwrap();
                assert_eq!(session.read(id).unwrap().unwrap().1, &b"hello"[..]);
                let mut altered = client.say(&data_message(id.0, b"hello"));
                let last = altered.len() - 1;
                altered[last] ^= 1;
                assert!(matches!(
                    give(&mut session, now, &altered),
                    Err(Error::Integrity)
                ));
            }
        }
    }
}

#[test]
fn a_peer_stays_within_its_window() {
    let (mut session, mut client, now) = logged_in(config());
    let id = open(&mut session, &mut client, now, 0);
    for _ in 0..4 {
        let bytes = client.say(&data_message(id.0, &[1; 64 << 10]));
        give(&mut session, now, &bytes).unwrap();
    }
    // Nothing was read, so nothing is granted.
    assert!(client.hear_all(&mut session, now).is_empty());
    let (_, piece) = session.read(id).unwrap().unwrap();
    assert_eq!(piece.len(), 256 << 10);
    let heard = client.hear_all(&mut session, now);
    assert_eq!(heard[0][0], msg::CHANNEL_WINDOW_ADJUST);
    let bytes = client.say(&data_message(id.0, &[1; 200 << 10]));
    give(&mut session, now, &bytes).unwrap();
    let bytes = client.say(&data_message(id.0, &[1; 200 << 10]));
    assert!(matches!(
        give(&mut session, now, &bytes),
        Err(Error::Window)
    ));
}

#[test]
fn channels_send_in_turn_and_wait_for_their_peer() {
    let (mut session, mut client, now) = logged_in(config());
    let a = open(&mut session, &mut client, now, 10);
    let b = open(&mut session, &mut client, now, 11);
    for id in [a, b] {
        assert_eq!(session.room(id), Some(128 << 10));
        session.send(id, Stream::Data, Bytes::from(vec![0; 100 << 10]));
        session.request(id, &RequestOut::ExitStatus(3), false);
        session.close(id);
    }
    let mut order = Vec::new();
    loop {
        let heard = client.hear_all(&mut session, now);
        if heard.is_empty() {
            break;
        }
        order.extend(heard.iter().map(|m| (m[0], m[4])));
    }
    let both = |number| [(number, 10), (number, 11)];
    let data = msg::CHANNEL_DATA;
    let mut expected: Vec<(u8, u8)> = [both(data); 4].concat();
    expected.extend(both(msg::CHANNEL_REQUEST));
    expected.extend(both(msg::CHANNEL_CLOSE));
    assert_eq!(order, expected);
    // Over when the peer has closed, too.
    for id in [a, b] {
        session.release(id);
        let mut close = vec![msg::CHANNEL_CLOSE];
        close.put_u32(id.0);
        let bytes = client.say(&close);
        give(&mut session, now, &bytes).unwrap();
        assert_eq!(session.poll_event(), Some(Event::Closed(id)));
    }
    assert!(session.channels.is_empty() && session.granted == 0);
}

#[test]
fn global_answers_keep_their_order() {
    let (mut session, mut client, now) = logged_in(config());
    for (kind, rest) in [
        ("tcpip-forward", 1u32),
        ("nonsense", 0),
        ("tcpip-forward", 2),
    ] {
        let mut request = vec![msg::GLOBAL_REQUEST];
        request.put_string(kind);
        request.put_bool(true);
        request.put_string("");
        request.put_u32(rest);
        let bytes = client.say(&request);
        give(&mut session, now, &bytes).unwrap();
    }
    assert!(client.hear_all(&mut session, now).is_empty());
    session.answer_global(1, GlobalAnswer::Port(9)).unwrap();
    session.answer_global(2, GlobalAnswer::Failure).unwrap();
    assert!(client.hear_all(&mut session, now).is_empty());
    session.answer_global(0, GlobalAnswer::Port(8)).unwrap();
    let heard = client.hear_all(&mut session, now);
    assert_eq!(heard[0], [msg::REQUEST_SUCCESS, 0, 0, 0, 8]);
    assert_eq!(heard[1], [msg::REQUEST_FAILURE]);
    assert_eq!(heard[2], [msg::REQUEST_FAILURE]);
}

#[test]
fn requests_and_refusals() {
    let (mut session, mut client, now) = logged_in(config());
    let id = open(&mut session, &mut client, now, 5);
    let mut env = vec![msg::CHANNEL_REQUEST];
    env.put_u32(id.0);
    env.put_string("env");
    env.put_bool(true);
    env.put_string("A");
    env.put_string(b"\xff");
    let bytes = client.say(&env);
    give(&mut session, now, &bytes).unwrap();
    let request = Request::Env {
        name: b"A".to_vec(),
        value: vec![0xff],
    };
    let expected = Event::Request {
        id,
        request,
        wants_answer: true,
    };
    assert_eq!(session.poll_event(), Some(expected));
    session.answer(id, true).unwrap();
    let heard = client.hear_all(&mut session, now);
    assert_eq!(heard, [[msg::CHANNEL_SUCCESS, 0, 0, 0, 5]]);
    let bytes = client.say(&open_message(6, 0));
    give(&mut session, now, &bytes).unwrap();
    let Some(Event::Open { id, .. }) = session.poll_event() else {
        panic!("no channel");
    };
    session.refuse(id, Refusal::ConnectFailed, "no").unwrap();
    let heard = client.hear_all(&mut session, now);
    assert_eq!(
        heard[0][..9],
        [msg::CHANNEL_OPEN_FAILURE, 0, 0, 0, 6, 0, 0, 0, 2]
    );
    assert!(matches!(
        give(&mut session, now, &client.say(&data_message(77, b"x"))),
        Err(Error::UnknownChannel { channel: 77, .. })
    ));
}

#[test]
fn slow_peers_are_dropped() {
    let (mut idle, now) = session(config());
    assert_eq!(idle.poll_timeout(), Some(now + Duration::from_secs(120)));
    let late = idle.handle_timeout(now + Duration::from_secs(120));
    assert!(matches!(late, Err(Error::Deadline(Deadline::Login))));

    let mut keepalive = config();
    keepalive.keepalive = Some(Duration::from_secs(10));
    let (mut session, mut client, _) = logged_in(keepalive);
    for _ in 0..3 {
        let now = session.poll_timeout().unwrap();
        session.handle_timeout(now).unwrap();
        let heard = client.hear_all(&mut session, now);
        assert_eq!(heard[0][0], msg::GLOBAL_REQUEST);
    }
    let now = session.poll_timeout().unwrap();
    let result = session.handle_timeout(now);
    assert!(matches!(result, Err(Error::Deadline(Deadline::Keepalive))));
}

#[test]
fn own_limits_start_a_key_exchange_and_hold_data_back() {
    let mut small = config();
    small.rekey_bytes = 100 << 10;
    let (mut session, mut client, now) = logged_in(small);
    let id = open(&mut session, &mut client, now, 0);
    session.send(id, Stream::Data, Bytes::from(vec![0; 128 << 10]));
    assert!(!client.hear_all(&mut session, now).is_empty());
    session.send(id, Stream::Data, Bytes::from(vec![0; 8]));
    let heard = client.hear_all(&mut session, now);
    assert_eq!(heard.last().unwrap()[0], msg::KEXINIT);
    // Data of a peer that does not know yet is still taken.
    let bytes = client.say(&data_message(id.0, b"x"));
    give(&mut session, now, &bytes).unwrap();
    assert!(client.hear_all(&mut session, now).is_empty());
    // And it does not last for ever.
    let late = session.handle_timeout(now + Duration::from_secs(61));
    assert!(matches!(late, Err(Error::Deadline(Deadline::KeyExchange))));
}

#[test]
fn strict_peers_begin_with_their_offer() {
    let (mut session, now) = session(config());
    let mut client = Client::new(true);
    let mut bytes = format!("{LINE}\r\n").into_bytes();
    bytes.extend(client.say(&[msg::IGNORE, 0, 0, 0, 0]));
    bytes.extend(client.say(&offer("aes128-ctr", "hmac-sha1", true)));
    assert!(matches!(
        give(&mut session, now, &bytes),
        Err(Error::KeyExchange(_))
    ));
}

#[test]
fn messages_out_of_their_phase_end_the_connection() {
    for message in [msg::CHANNEL_DATA, msg::USERAUTH_REQUEST, msg::NEWKEYS] {
        let (mut session, now) = session(config());
        let mut bytes = format!("{LINE}\r\n").into_bytes();
        bytes.extend(Client::new(false).say(&[message, 0]));
        let result = give(&mut session, now, &bytes);
        assert!(matches!(result, Err(Error::Unexpected(m)) if m == message));
        // The farewell is the last thing.
        let left = session.last_output().len();
        assert!(session.handle_input(now, &mut BytesMut::new()).is_err());
        assert_eq!(session.last_output().len(), left);
    }
}

/// A whole conversation, as bytes of the client.
fn conversation() -> (Session, Instant, Vec<u8>) {
    let (session, mut client, now) = logged_in(config());
    let mut bytes = client.say(&open_message(1, 1 << 20));
    for i in 0..20u8 {
        bytes.extend(client.say(&data_message(0, &vec![i; usize::from(i) * 97])));
    }
    (session, now, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn packets_are_cut_at_any_split(splits in prop::collection::vec(1usize..700, 1..40)) {
        let (mut session, now, bytes) = conversation();
        let mut input = BytesMut::new();
        let mut rest = &bytes[..];
        for len in splits.iter().cycle() {
            let (head, tail) = rest.split_at((*len).min(rest.len()));
            input.extend_from_slice(head);
            session.handle_input(now, &mut input).unwrap();
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(input.is_empty());
        let mut got = Vec::new();
        while let Some((_, piece)) = session.read(ChannelId(0)).unwrap() {
            got.extend_from_slice(&piece);
        }
        let sent: Vec<u8> = (0..20u8).flat_map(|i| vec![i; usize::from(i) * 97]).collect();
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn any_first_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), named: bool) {
        let (mut session, now) = session(config());
        let line = if named { format!("{LINE}\r\n") } else { String::new() };
        let mut input = BytesMut::from(line.as_bytes());
        input.extend_from_slice(&bytes);
        let _ = session.handle_input(now, &mut input);
        let _ = session.output(now);
    }

    #[test]
    fn any_message_is_survived(
        number: u8,
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..200),
        kind in prop::sample::select(vec!["", "pty-req", "env", "exec", "x11-req", "signal", "direct-tcpip", "tcpip-forward"]),
    ) {
        let (mut session, mut client, now) = logged_in(config());
        open(&mut session, &mut client, now, 0);
        let mut message = vec![number];
        if number == msg::CHANNEL_REQUEST {
            message.put_u32(0);
        }
        if !kind.is_empty() {
            message.put_string(kind);
        }
        message.put(&body);
        let mut input = BytesMut::from(&client.say(&message)[..]);
        let _ = session.handle_input(now, &mut input);
        while session.poll_event().is_some() {}
        let _ = session.output(now);
    }
}
