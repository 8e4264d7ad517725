//! Scripts for opening and closing connections (RFC 9293 §3.5, §3.6, §3.10).
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use adit_netstack::{CloseReason, Event, TcpError, TcpState};
use support::wire::{Script, Seg, peer};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

#[test]
fn nothing_is_answered_before_the_application_decides() {
    let mut s = Script::new();
    s.inject(&s.syn());
    s.quiet(3 * SEC);
    // The peer's repetition is no second connection.
    s.inject(&s.syn());
    let events = s.events();
    let [Event::Incoming { id, local, remote }] = events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((local.port(), remote), (80, peer(4000)));
    assert_eq!(s.stack.state(id), TcpState::Pending);
    let now = s.instant();
    s.stack.accept(now, id).unwrap();
    let answer = s.expect();
    assert_eq!(answer.flags, "S.");
    assert_eq!(answer.mss, Some(1440));
    assert_eq!(answer.scale, Some(9));
    assert!(answer.sack_ok);
    assert_eq!(answer.ts.unwrap().1, 1000);
    assert_eq!(s.stack.accept(now, id), Err(TcpError::InvalidState));
}

#[test]
fn a_rejected_connection_is_reset_and_an_ignored_one_met_with_silence() {
    let mut s = Script::new();
    for reject in [true, false] {
        s.inject(&s.syn());
        let events = s.events();
        let [Event::Incoming { id, .. }] = events[..] else {
            panic!("{events:?}");
        };
        let now = s.instant();
        if reject {
            s.stack.reject(now, id).unwrap();
            let answer = s.expect();
            assert_eq!((answer.flags, answer.ack), ("R.", s.irs + 1));
        } else {
            s.stack.ignore(now, id).unwrap();
        }
        s.quiet(10 * SEC);
        assert_eq!(s.stack.socket_count(), 0);
    }
}

#[test]
fn the_peer_may_give_up_while_the_application_decides() {
    let mut s = Script::new();
    s.inject(&s.syn());
    s.events();
    s.inject(&Seg {
        ack: 0,
        ..s.seg("R", 1, 0)
    });
    assert!(matches!(
        s.events()[..],
        [
            _,
            Event::Closed {
                reason: CloseReason::Reset,
                ..
            }
        ] | [Event::Closed {
            reason: CloseReason::Reset,
            ..
        }]
    ));
    s.quiet(SEC);
}

#[test]
fn only_what_was_offered_is_answered() {
    let mut s = Script::new();
    s.timestamps = false;
    let syn = Seg {
        mss: None,
        scale: None,
        sack_ok: false,
        ..s.syn()
    };
    s.inject(&syn);
    let events = s.events();
    let [Event::Incoming { id, .. }] = events[..] else {
        panic!()
    };
    let now = s.instant();
    s.stack.accept(now, id).unwrap();
    let answer = s.expect();
    assert_eq!(
        (answer.scale, answer.sack_ok, answer.ts),
        (None, false, None)
    );
}

#[test]
fn the_answer_to_a_syn_is_repeated() {
    let mut s = Script::new();
    s.inject(&s.syn());
    let events = s.events();
    let [Event::Incoming { id, .. }] = events[..] else {
        panic!()
    };
    let now = s.instant();
    s.stack.accept(now, id).unwrap();
    let first = s.expect();
    let (after, again) = s.expect_within(2 * SEC);
    assert_eq!((after, again.seq), (SEC, first.seq));
    assert_eq!(s.expect_within(3 * SEC).0, 2 * SEC);
    // At once if the peer repeats its SYN.
    s.inject(&s.syn());
    assert_eq!(s.expect().seq, first.seq);
}

#[test]
fn a_syn_is_repeated_and_given_up() {
    let mut s = Script::new();
    let now = s.instant();
    let id = s.stack.connect(now, 0, peer(80)).unwrap();
    let first = s.expect();
    assert_eq!(
        (first.flags, first.mss, first.scale),
        ("S", Some(1440), Some(9))
    );
    assert!(first.sport >= 32_768);
    assert_eq!(s.expect_within(9 * SEC).0, SEC);
    assert_eq!(s.expect_within(9 * SEC).0, 2 * SEC);
    assert_eq!(s.expect_within(9 * SEC).0, 4 * SEC);
    assert_eq!(s.expect_within(9 * SEC).0, 8 * SEC);
    assert_eq!(s.next_packet(40 * SEC), None);
    assert_eq!(
        s.events(),
        [
            Event::Readable(id),
            Event::Closed {
                id,
                reason: CloseReason::TimedOut
            }
        ]
    );
    let now = s.instant();
    assert_eq!(
        s.stack.read(now, id, &mut [0; 9]),
        Err(TcpError::Closed(CloseReason::TimedOut))
    );
}

/// A connection attempt of the stack, its SYN taken.
fn connecting() -> Script {
    let mut s = Script::new();
    let now = s.instant();
    s.id = Some(s.stack.connect(now, 0, peer(80)).unwrap());
    let syn = s.expect();
    (s.iss, s.own_port, s.peer_port) = (syn.seq, syn.sport, 80);
    s
}

#[test]
fn a_connection_is_opened() {
    let mut s = connecting();
    s.now += 30 * MS;
    s.inject(&Seg {
        flags: "S.",
        ack: s.iss + 1,
        ..s.syn()
    });
    assert_eq!(s.events(), [Event::Connected(s.id())]);
    let ack = s.expect();
    assert_eq!((ack.flags, s.relative(&ack)), (".", (1, 1)));
    let stats = s.stack.tcp_stats(s.id()).unwrap();
    assert_eq!(stats.srtt, 30 * MS);
    s.quiet(SEC);
}

#[test]
fn a_refused_connection_says_so() {
    let mut s = connecting();
    // A reset that does not acknowledge the SYN is not believed.
    s.inject(&s.seg("R.", 0, 0));
    s.inject(&s.seg("R", 0, 0));
    assert_eq!(s.events(), []);
    s.inject(&s.seg("R.", 0, 1));
    let id = s.id();
    assert!(s.events().contains(&Event::Closed {
        id,
        reason: CloseReason::Refused
    }));
    s.quiet(9 * SEC);
}

#[test]
fn an_answer_to_another_syn_is_reset() {
    let mut s = connecting();
    s.inject(&Seg {
        flags: "S.",
        ack: s.iss + 77,
        ..s.syn()
    });
    let reset = s.expect();
    assert_eq!((reset.flags, reset.seq), ("R", s.iss + 77));
    assert_eq!(s.stack.state(s.id()), TcpState::SynSent);
}

#[test]
fn both_sides_may_open_at_once() {
    let mut s = connecting();
    s.inject(&s.syn());
    let answer = s.expect();
    assert_eq!((answer.flags, s.relative(&answer)), ("S.", (0, 1)));
    s.inject(&Seg {
        flags: "S.",
        ack: s.iss + 1,
        ..s.syn()
    });
    assert_eq!(s.stack.state(s.id()), TcpState::Established);
    assert_eq!(s.expect_at_within(SEC), (1, 1));
    s.write(3);
    assert_eq!(s.expect_at(), (1, 1));
}

#[test]
fn the_backlog_is_bounded() {
    let mut s = Script::with(|c| c.backlog = 3);
    let mut pending = Vec::new();
    for port in 0..10 {
        s.peer_port = 4000 + port;
        s.inject(&s.syn());
        for event in s.events() {
            if let Event::Incoming { id, .. } = event {
                pending.push(id);
            }
        }
    }
    assert_eq!(pending.len(), 3);
    let now = s.instant();
    s.stack.reject(now, pending[0]).unwrap();
    s.drain();
    s.inject(&s.syn());
    assert_eq!(s.events().len(), 1);
    // Undecided ones do not stay for ever.
    s.next_packet(31 * SEC);
    s.drain();
    assert_eq!(s.events().len(), 6, "an end and an error for each");
    s.peer_port = 5000;
    s.inject(&s.syn());
    assert_eq!(s.events().len(), 1, "their places are free");
}

#[test]
fn the_peer_closes_first() {
    let mut s = Script::established();
    s.inject(&Seg {
        data: b"bye".to_vec(),
        ..s.seg("F.", 1, 1)
    });
    assert_eq!(s.expect_at(), (1, 5));
    assert_eq!(s.stack.state(s.id()), TcpState::CloseWait);
    assert_eq!(s.events(), [Event::Readable(s.id())]);
    assert_eq!(s.read(), b"bye");
    let now = s.instant();
    assert_eq!(s.stack.read(now, s.id(), &mut [0; 9]), Ok(0));
    // This direction is still open.
    s.write(10);
    assert_eq!(s.expect().data.len(), 10);
    s.inject(&s.seg(".", 5, 11));
    s.stack.shutdown_write(now, s.id()).unwrap();
    let fin = s.expect();
    assert_eq!((fin.flags, s.relative(&fin)), ("F.", (11, 5)));
    assert_eq!(s.stack.state(s.id()), TcpState::LastAck);
    assert_eq!(
        s.stack.write(now, s.id(), b"x"),
        Err(TcpError::InvalidState)
    );
    s.inject(&s.seg(".", 5, 12));
    assert!(s.events().contains(&Event::Closed {
        id: s.id(),
        reason: CloseReason::Finished
    }));
    s.stack.close(now, s.id());
    assert_eq!(s.stack.socket_count(), 0);
    s.quiet(9 * SEC);
}

/// The stack closes its direction; its FIN is acknowledged if `acked`.
fn half_closed(acked: bool) -> Script {
    let mut s = Script::established();
    s.write(5);
    let now = s.instant();
    s.stack.shutdown_write(now, s.id()).unwrap();
    let fin = s.expect();
    assert_eq!(
        (fin.flags, fin.data.len(), s.relative(&fin).0),
        ("F.", 5, 1)
    );
    assert_eq!(s.stack.state(s.id()), TcpState::FinWait1);
    if acked {
        s.inject(&s.seg(".", 1, 7));
        assert_eq!(s.stack.state(s.id()), TcpState::FinWait2);
    }
    s
}

#[test]
fn after_the_own_fin_data_still_arrives() {
    let mut s = half_closed(true);
    s.inject(&s.data(1, 7, 100));
    assert_eq!(s.expect_at(), (7, 101));
    assert_eq!(s.read().len(), 100);
    s.inject(&s.seg("F.", 101, 7));
    assert_eq!(s.expect_at(), (7, 102));
    assert_eq!(s.stack.state(s.id()), TcpState::TimeWait);
}

#[test]
fn both_sides_may_close_at_once() {
    let mut s = half_closed(false);
    s.inject(&s.seg("F.", 1, 1));
    assert_eq!(s.stack.state(s.id()), TcpState::Closing);
    assert_eq!(s.expect_at(), (7, 2));
    s.inject(&s.seg(".", 2, 7));
    assert_eq!(s.stack.state(s.id()), TcpState::TimeWait);
    s.next_packet(11 * SEC);
    assert_eq!(s.stack.state(s.id()), TcpState::Closed);
}

#[test]
fn a_lost_fin_is_repeated() {
    let mut s = half_closed(false);
    let (_, again) = s.expect_within(SEC);
    assert_eq!(
        (again.flags, again.data.len(), s.relative(&again).0),
        ("F.", 5, 1)
    );
}

/// A released connection in TIME-WAIT.
fn time_wait() -> Script {
    let mut s = half_closed(true);
    s.inject(&s.seg("F.", 1, 7));
    s.expect();
    let now = s.instant();
    s.stack.close(now, s.id());
    assert_eq!(s.stack.socket_count(), 0);
    s
}

#[test]
fn time_wait_answers_a_repeated_fin_and_nothing_else() {
    let mut s = time_wait();
    s.inject(&s.seg("F.", 1, 7));
    assert_eq!(s.expect_at(), (7, 2));
    s.inject(&s.seg(".", 2, 7));
    s.inject(&s.seg("R", 2, 0));
    s.quiet(5 * SEC);
    s.inject(&s.seg("F.", 1, 7));
    assert_eq!(s.expect().flags, ".", "a reset does not end it (RFC 1337)");
    s.quiet(6 * SEC);
    s.inject(&s.seg("F.", 1, 7));
    assert_eq!(s.expect().flags, "R", "it ends by itself");
}

#[test]
fn time_wait_gives_way_to_a_new_connection() {
    let mut s = time_wait();
    s.now += SEC;
    let old = Seg {
        seq: s.irs - 100,
        ts: Some((500, 0)),
        ..s.syn()
    };
    s.inject(&old);
    assert_eq!(s.expect().flags, ".");
    assert_eq!(
        s.events()
            .iter()
            .filter(|e| matches!(e, Event::Incoming { .. }))
            .count(),
        0
    );
    s.irs += 50_000;
    s.open(&s.syn());
}

#[test]
fn data_for_a_released_connection_is_answered_with_reset() {
    let mut s = Script::established();
    let now = s.instant();
    s.inject(&s.data(1, 1, 50));
    s.drain();
    s.stack.close(now, s.id());
    let fin = s.expect();
    assert_eq!(fin.flags, "F.");
    // What is under way is still delivered...
    s.inject(&s.data(51, 1, 50));
    assert_eq!(s.expect().flags, ".");
    s.inject(&s.seg(".", 101, 2));
    // ... but then the peer learns that nobody reads.
    s.inject(&s.data(101, 2, 50));
    assert_eq!(s.expect().flags, "R.");
    assert_eq!(s.stack.socket_count(), 0);
}

#[test]
fn a_released_connection_does_not_wait_for_ever() {
    let mut s = half_closed(true);
    let now = s.instant();
    s.stack.close(now, s.id());
    s.next_packet(61 * SEC);
    s.drain();
    assert_eq!(s.stack.socket_count(), 0);
}

#[test]
fn abort_resets() {
    let mut s = Script::established();
    let now = s.instant();
    s.stack.abort(now, s.id());
    let reset = s.expect();
    assert_eq!((reset.flags, s.relative(&reset)), ("R.", (1, 1)));
    assert_eq!(s.stack.socket_count(), 0);
    assert_eq!(s.stack.state(s.id()), TcpState::Closed);
    s.inject(&s.data(1, 1, 5));
    assert_eq!(s.expect().flags, "R");
}

#[test]
fn strays_are_reset() {
    let mut s = Script::new();
    s.inject(&Seg {
        ack: 777,
        ..s.seg(".", 3, 0)
    });
    let reset = s.expect();
    assert_eq!((reset.flags, reset.seq), ("R", 777));
    s.inject(&s.seg("F", 3, 0));
    let reset = s.expect();
    assert_eq!((reset.flags, reset.seq, reset.ack), ("R.", 0, s.irs + 4));
    s.inject(&s.seg("R", 3, 0));
    s.inject(&s.seg("R.", 3, 0));
    s.quiet(SEC);
}

#[test]
fn an_exact_reset_ends_the_connection_and_a_near_one_is_challenged() {
    let mut s = Script::established();
    s.now += SEC;
    s.inject(&s.seg("R", 2, 0));
    let challenge = s.expect();
    assert_eq!((challenge.flags, s.relative(&challenge)), (".", (1, 1)));
    s.inject(&s.seg("R", 3, 0));
    s.quiet(10 * MS);
    s.inject(&s.seg("R", 200_000, 0));
    s.quiet(SEC);
    assert_eq!(s.stack.state(s.id()), TcpState::Established);
    s.inject(&s.seg("R", 1, 0));
    let id = s.id();
    assert!(s.events().contains(&Event::Closed {
        id,
        reason: CloseReason::Reset
    }));
}

#[test]
fn a_syn_on_an_open_connection_is_challenged() {
    let mut s = Script::established();
    for seq in [1, 100] {
        s.now += SEC;
        s.inject(&Seg {
            seq: s.irs + seq,
            ..s.syn()
        });
        let challenge = s.expect();
        assert_eq!((challenge.flags, s.relative(&challenge)), (".", (1, 1)));
    }
    assert_eq!(s.stack.state(s.id()), TcpState::Established);
}

#[test]
fn acknowledgements_outside_the_window_are_challenged_and_ignored() {
    let mut s = Script::established();
    for ack in [2u32, 0u32.wrapping_sub(60_000)] {
        s.now += SEC;
        s.inject(&Seg {
            data: b"evil".to_vec(),
            ..s.seg(".", 1, ack)
        });
        assert_eq!(s.expect_at(), (1, 1));
        assert_eq!(s.read(), b"");
    }
}

#[test]
fn a_connection_without_timestamps_uses_full_segments() {
    let mut s = Script::plain();
    s.write(3000);
    let sizes: Vec<usize> = s.drain().iter().map(|x| x.data.len()).collect();
    assert_eq!(sizes, [1220, 1220, 560]);
    let mut s = Script::established();
    s.write(3000);
    let sizes: Vec<usize> = s.drain().iter().map(|x| x.data.len()).collect();
    assert_eq!(sizes, [1208, 1208, 584]);
}

#[test]
fn unanswered_keepalive_probes_end_the_connection() {
    let mut s = Script::established();
    let keepalive = adit_netstack::Keepalive {
        idle: 10 * SEC,
        interval: SEC,
        probes: 3,
    };
    let now = s.instant();
    s.stack.set_keepalive(now, s.id(), Some(keepalive));
    let (after, probe) = s.expect_within(20 * SEC);
    assert_eq!(
        (after, s.relative(&probe), probe.data.len()),
        (10 * SEC, (0, 1), 0)
    );
    s.inject(&s.seg(".", 1, 1));
    for wait in [10, 1, 1] {
        assert_eq!(s.expect_within(20 * SEC).0, wait * SEC);
    }
    assert_eq!(s.expect_within(20 * SEC).1.flags, "R.");
    let id = s.id();
    assert!(s.events().contains(&Event::Closed {
        id,
        reason: CloseReason::TimedOut
    }));
}

#[test]
fn keepalive_probes_of_the_peer_are_answered() {
    let mut s = Script::established();
    s.now += SEC;
    s.inject(&s.seg(".", 0, 1));
    assert_eq!(s.expect_at(), (1, 1));
    s.now += SEC;
    s.inject(&Seg {
        data: vec![0],
        ..s.seg(".", 0, 1)
    });
    assert_eq!(s.expect_at(), (1, 1));
}

#[test]
fn a_peer_that_is_gone_ends_its_connections() {
    let mut s = Script::established();
    let (id, now) = (s.id(), s.instant());
    s.stack.peer_gone(now, "fd7a:115c:a1e0::9".parse().unwrap());
    assert_eq!(s.stack.state(id), TcpState::Established, "of another");
    s.stack.peer_gone(now, support::wire::PEER);
    let reason = CloseReason::Unreachable;
    assert!(s.events().contains(&Event::Closed { id, reason }));
    // Nobody is there to be told.
    s.quiet(100 * SEC);
    assert_eq!(
        s.stack.read(s.instant(), id, &mut [0; 9]),
        Err(TcpError::Closed(reason))
    );
}
