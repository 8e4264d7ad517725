//! Two peers of this crate: sessions, their limits, and hostile messages.
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::time::Duration;

use adit_noise::limits::REJECT_AFTER_TIME;
use adit_noise::{Kind, OVERHEAD, Rejected, kind, receiver_index};
use proptest::prelude::*;
use support::{Node, S, content, pair};

#[test]
fn packets_pass_both_ways_after_a_handshake() {
    let (mut a, mut b) = pair();
    assert!(!a.can_seal() && !b.can_seal());
    a.shake(&mut b);
    assert!(a.can_seal());
    assert!(!b.can_seal(), "the responder waits for the first message");
    assert_eq!(b.open(&a.seal(b"").unwrap()), Ok(vec![]));
    assert!(b.can_seal());
    for n in 0..100 {
        let (there, back) = (content(n), content(n + 7));
        assert_eq!(b.open(&a.seal(&there).unwrap()).unwrap()[..n], there);
        assert_eq!(a.open(&b.seal(&back).unwrap()).unwrap()[..n + 7], back);
    }
    assert!(a.peer.current().unwrap().initiator);
    assert!(!b.peer.current().unwrap().initiator);
}

#[test]
fn content_is_filled_up_but_not_beyond_what_fits() {
    let (mut a, mut b) = pair();
    a.shake(&mut b);
    let mut out = [0xff; 2048];
    let mut seal = |len: usize, largest, room: usize| {
        a.peer
            .seal(a.now, &content(len), largest, &mut out[..room])
            .map(|sealed| sealed - OVERHEAD)
    };
    assert_eq!(seal(0, 1280, 2048), Some(0));
    assert_eq!(seal(1, 1280, 2048), Some(16));
    assert_eq!(seal(1273, 1280, 2048), Some(1280));
    assert_eq!(seal(1277, 1278, 2048), Some(1278));
    assert_eq!(seal(1279, 1200, 2048), Some(1279), "never cut");
    assert_eq!(seal(1277, 1500, 1277 + OVERHEAD), Some(1277));
    assert_eq!(seal(1277, 1500, 1276 + OVERHEAD), None, "no room");
}

#[test]
fn sessions_end_at_three_minutes() {
    let (mut a, mut b) = pair();
    a.confirmed(&mut b);
    let late = a.seal(b"late").unwrap();
    let just = a.seal(b"just").unwrap();
    a.now += REJECT_AFTER_TIME - Duration::from_millis(1);
    b.now = a.now;
    assert!(b.open(&just).is_ok());
    assert!(a.can_seal());
    a.now += Duration::from_millis(1);
    b.now = a.now;
    assert_eq!(b.open(&late), Err(Rejected));
    assert!(!a.can_seal() && a.seal(b"").is_none());
    assert!(a.peer.current().is_some(), "known, but over");
}

#[test]
fn copies_open_once_and_in_any_order() {
    let (mut a, mut b) = pair();
    a.confirmed(&mut b);
    let mut sealed: Vec<_> = (0..8129).map(|_| a.seal(b"x").unwrap()).collect();
    sealed.reverse();
    for message in &sealed {
        assert!(b.open(message).is_ok());
    }
    for message in &sealed {
        assert_eq!(b.open(message), Err(Rejected));
    }
}

#[test]
fn a_rekey_under_load_loses_nothing() {
    let (mut a, mut b) = pair();
    a.confirmed(&mut b);
    // Thousands of messages are on their way, in both directions, while keys
    // change, and arrive in reverse order after that.
    for round in 0..5 {
        a.advance(&mut b, 120 * S / 2);
        let mut flying: Vec<_> = (0..6000).map(|_| a.seal(b"old").unwrap()).collect();
        let mut answers: Vec<_> = (0..6000).map(|_| b.seal(b"old").unwrap()).collect();
        let (initiator, responder) = if round % 2 == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        let first = initiator.initiate();
        // The old session goes on during the handshake.
        let during = initiator.seal(b"during").unwrap();
        let second = responder.respond(&first).unwrap();
        let answer = responder.seal(b"still the old keys").unwrap();
        initiator.finish(&second).unwrap();
        let new = initiator.seal(b"new").unwrap();
        assert!(responder.open(&new).is_ok(), "overtakes the rest");
        let new = responder.seal(b"new too").unwrap();
        assert!(initiator.open(&new).is_ok());
        assert!(responder.open(&during).is_ok());
        assert!(initiator.open(&answer).is_ok());
        flying.reverse();
        answers.reverse();
        assert!(flying.iter().all(|m| b.open(m).is_ok()), "round {round}");
        assert!(answers.iter().all(|m| a.open(m).is_ok()), "round {round}");
    }
}

#[test]
fn the_old_session_is_used_until_the_peer_shows_the_new_one() {
    let (mut a, mut b) = pair();
    a.confirmed(&mut b);
    a.advance(&mut b, S);
    let before = b.peer.current();
    b.respond(&a.initiate()).unwrap();
    assert_eq!(b.peer.current(), before);
    // The answer is lost: nothing is, on the old session.
    assert!(a.open(&b.seal(b"x").unwrap()).is_ok());
    assert!(b.open(&a.seal(b"x").unwrap()).is_ok());
}

#[test]
fn an_answer_to_the_last_but_one_initiation_is_good() {
    let (mut a, mut b) = pair();
    let first = a.initiate();
    a.advance(&mut b, S);
    let again = a.initiate();
    let answer = b.respond(&first).unwrap();
    b.now += S;
    let answer_again = b.respond(&again).unwrap();
    a.finish(&answer).unwrap();
    assert!(b.open(&a.seal(b"on the first").unwrap()).is_ok());
    a.finish(&answer_again).unwrap();
    assert!(b.open(&a.seal(b"on the second").unwrap()).is_ok());
    assert!(a.open(&b.seal(b"back").unwrap()).is_ok());
    assert_eq!(a.finish(&answer_again), Err(Rejected), "once");
}

#[test]
fn crossing_handshakes_end_in_sessions_for_both() {
    let (mut a, mut b) = pair();
    let (from_a, from_b) = (a.initiate(), b.initiate());
    let (to_b, to_a) = (a.respond(&from_b).unwrap(), b.respond(&from_a).unwrap());
    a.finish(&to_a).unwrap();
    b.finish(&to_b).unwrap();
    for _ in 0..3 {
        assert!(b.open(&a.seal(b"there").unwrap()).is_ok());
        assert!(a.open(&b.seal(b"back").unwrap()).is_ok());
    }
}

#[test]
fn an_initiation_counts_once_and_not_too_often() {
    let (mut a, mut b) = pair();
    let first = a.initiate();
    assert!(b.respond(&first).is_ok());
    let second = a.initiate();
    b.now += Duration::from_millis(19);
    assert_eq!(b.respond(&second), Err(Rejected), "too soon");
    b.now += Duration::from_millis(1);
    assert_eq!(b.respond(&first), Err(Rejected), "a copy");
    assert!(b.respond(&second).is_ok(), "greater though made at once");
    b.now += S;
    assert_eq!(b.respond(&first), Err(Rejected), "older");
}

#[test]
fn numbers_are_given_back() {
    let (mut a, mut b) = pair();
    for _ in 0..50 {
        a.advance(&mut b, 5 * S);
        // One initiation is lost.
        a.initiate();
        a.confirmed(&mut b);
        assert!(a.random.sessions() <= 5 && b.random.sessions() <= 4);
    }
    let Node { peer, random, .. } = &mut a;
    peer.close(random);
    assert_eq!(random.sessions(), 0);
    assert!(!a.can_seal());
    let Node { peer, random, .. } = &mut b;
    peer.close(random);
    assert_eq!(random.sessions(), 0);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let (mut a, mut b) = pair();
        let first = a.initiate();
        let second = b.respond(&first).unwrap();
        a.finish(&second).unwrap();
        (first, second, a.seal(b"hello").unwrap())
    };
    let ((first, second, data), again) = (run(), run());
    assert_eq!((&first, &second, &data), (&again.0, &again.1, &again.2));
    assert_eq!(kind(&data), Some(Kind::Data));
    assert_eq!(
        receiver_index(&second),
        Some(u32::from_le_bytes(first[4..8].try_into().unwrap()))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever comes, nothing panics, and nothing forged is believed.
    #[test]
    fn hostile_messages_change_nothing(
        messages in prop::collection::vec(
            (0u8..6, any::<prop::sample::Index>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)),
            1..40,
        ),
        room in 0usize..300,
    ) {
        let (mut a, mut b) = pair();
        a.confirmed(&mut b);
        let genuine = [
            a.initiate().to_vec(),
            a.seal(b"data").unwrap(),
            a.seal(b"").unwrap(),
        ];
        let open = b.initiate();
        let genuine_answer = a.respond(&open).unwrap();
        for (which, at, with, random) in messages {
            let mut message = match which {
                0..3 => genuine[usize::from(which)].clone(),
                3 => genuine_answer.to_vec(),
                4 => [&[4, 0, 0, 0][..], &genuine[1][4..8], &random].concat(),
                _ => random,
            };
            if !message.is_empty() {
                // The second code of a handshake message means nothing to a
                // node that is not under load.
                let code = if matches!(which, 0 | 3) { 16 } else { 0 };
                let at = at.index(message.len() - code);
                if with == 0 {
                    message.truncate(at);
                } else {
                    message[at] ^= with;
                }
            }
            prop_assert!(b.respond(&message).is_err());
            prop_assert!(b.finish(&message).is_err());
            let _ = b.peer.take_cookie(b.now, &message);
            let mut out = vec![0; room];
            prop_assert!(b.peer.open(b.now, &message, &mut out).is_err());
        }
        prop_assert!(b.finish(&genuine_answer).is_ok());
        prop_assert!(b.open(&genuine[1]).is_ok());
        b.now += S;
        prop_assert!(b.respond(&genuine[0]).is_ok());
    }
}
